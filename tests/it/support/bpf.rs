//! Creates and fills real BPF maps as Felix and its programs do, in a bpffs that only the calling thread and its children see.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use super::netns::sh;

/// `BPF_MAP_TYPE_PERCPU_HASH`
pub const PER_CPU_HASH: u32 = 5;

pub struct Map {
    fd: OwnedFd,
    counters: usize,
}

/// Gives the calling thread its own mounts: sysfs of its network namespace, bpffs, and a `/run` with only Felix's folders. They end with
/// the thread and its children.
pub fn own_mounts() {
    // SAFETY: no memory is accessed. Only this thread is moved.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0, "{}", std::io::Error::last_os_error());
    sh("mount --make-rprivate / && mount -t sysfs sysfs /sys && mount -t bpf bpf /sys/fs/bpf && mount -t tmpfs tmpfs /run");
    sh("mkdir -p /sys/fs/bpf/tc/globals");
    felix_folders();
}

/// Creates the folders as Felix does. Nobody may search them, and root only with a capability.
pub fn felix_folders() {
    sh("mkdir -p /run/calico/bpf/policy && chmod 600 /run/calico/bpf /run/calico/bpf/policy");
}

/// Returns the number of CPUs that each entry has a value for.
fn cpus() -> usize {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap();
    let (first, last) = list.trim().split_once('-').unwrap_or(("0", "0"));
    last.parse::<usize>().unwrap() - first.parse::<usize>().unwrap() + 1
}

impl Map {
    /// Creates and pins a map of this type, with this number of counters for each key.
    pub fn pin(path: &str, kind: u32, counters: usize) -> Self {
        Self::with(path, kind, 8, counters as u32 * 8, 10_000)
    }

    /// Creates and pins a map with any layout.
    pub fn with(path: &str, kind: u32, key: u32, value: u32, entries: u32) -> Self {
        let mut create = [0u64; 9];
        create[0] = u64::from(kind) | u64::from(key) << 32;
        create[1] = u64::from(value) | u64::from(entries) << 32;
        // SAFETY: there are no pointers.
        let fd = unsafe { OwnedFd::from_raw_fd(bpf(0, &mut create)) };
        std::fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
        let name = CString::new(path).unwrap();
        let mut pin = [name.as_ptr() as u64, fd.as_raw_fd() as u64];
        // SAFETY: the path lives until the call returns.
        unsafe { bpf(6, &mut pin) };
        Map { fd, counters: value as usize / 8 }
    }

    /// Sets an entry: the counters of the first and of the last CPU.
    pub fn set(&self, key: u64, first: &[u64], last: &[u64]) {
        let mut values = vec![0u64; self.counters * cpus()];
        for (place, counters) in [(0, first), (cpus() - 1, last)] {
            let cpu = &mut values[place * self.counters..];
            cpu.iter_mut().zip(counters).for_each(|(value, counter)| *value += counter);
        }
        let mut update = [self.fd.as_raw_fd() as u64, &raw const key as u64, values.as_ptr() as u64, 0];
        // SAFETY: the key has eight bytes, and there are as many values as the kernel reads.
        unsafe { bpf(2, &mut update) };
    }

    /// Removes an entry, which must exist.
    pub fn remove(&self, key: u64) {
        let mut remove = [self.fd.as_raw_fd() as u64, &raw const key as u64];
        // SAFETY: the key has eight bytes.
        unsafe { bpf(3, &mut remove) };
    }
}

/// # Safety
/// The buffers that the attributes point to must be as long as the command reads or writes.
unsafe fn bpf(command: u32, attributes: &mut [u64]) -> i32 {
    // SAFETY: the caller guarantees it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(attributes)) };
    assert!(result >= 0, "bpf({command}): {}", std::io::Error::last_os_error());
    result as i32
}
