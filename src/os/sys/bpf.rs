//! Reads a pinned map of counters with bpf(2): a hash with one value per CPU. Opened read-only.
//!
//! Layouts: `union bpf_attr` and `struct bpf_map_info` of `include/uapi/linux/bpf.h`. The kernel copies whole keys and values of the map,
//! whatever the size of the caller's buffer. So the sizes are read once, and every buffer is checked against them.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{calls, cpus};

const MAP_LOOKUP_ELEM: u32 = 1;
const MAP_GET_NEXT_KEY: u32 = 4;
const OBJ_GET: u32 = 7;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const MAP_LOOKUP_BATCH: u32 = 24;
/// `BPF_F_RDONLY`
const READ_ONLY: u64 = 1 << 3;
/// `BPF_MAP_TYPE_PERCPU_HASH`
const PER_CPU_HASH: u32 = 5;
/// The maximum size in bytes. Longer keys or values are not Calico's counters.
const MOST_BYTES: u32 = 4096;
/// A bucket of the map, at which a batch begins or ends.
pub type Position = [u8; 8];

#[derive(Debug)]
pub struct Map {
    fd: OwnedFd,
    /// The kernel's ID of the map, which is never reused.
    pub id: u32,
    /// Length of a key, in bytes.
    pub key: usize,
    /// Length of one CPU's value, in bytes.
    pub value: usize,
    /// Length of the values of all CPUs together, in bytes. Each is padded to a multiple of 8.
    pub all_values: usize,
    pub most_entries: usize,
}

#[derive(Debug)]
pub enum OpenError {
    Io(io::Error),
    /// The map is not a per-CPU hash, or its keys or values are not counters.
    Other(Layout),
}

/// A map's type, and the lengths of its keys and values, in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    pub kind: u32,
    pub key: u32,
    pub value: u32,
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> Self {
        OpenError::Io(error)
    }
}

impl Map {
    /// Opens the map that is pinned at `path`.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let name = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)?;
        // pathname; bpf_fd (unused), file_flags
        let mut get = [name.as_ptr() as u64, READ_ONLY << 32];
        // SAFETY: the path is a C string that lives until the call returns. There are no other pointers, and nothing is written.
        let fd = unsafe { bpf(OBJ_GET, &mut get) }?;
        // SAFETY: the kernel has just created this descriptor for us, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let [kind, id, key, value, most_entries] = info(&fd)?;
        if kind != PER_CPU_HASH || !(1..=MOST_BYTES).contains(&key) || !(1..=MOST_BYTES).contains(&value) {
            return Err(OpenError::Other(Layout { kind, key, value }));
        }
        let all_values = (value as usize).next_multiple_of(8) * cpus::possible()?;
        Ok(Map { fd, id, key: key as usize, value: value as usize, all_values, most_entries: most_entries as usize })
    }

    pub fn layout(&self) -> Layout {
        Layout { kind: PER_CPU_HASH, key: self.key as u32, value: self.value as u32 }
    }

    /// Writes the key after `key`, or the first one, to `next`. Returns `false` after the last key.
    pub fn next_key(&self, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
        fits(next.len(), self.key)?;
        key.map_or(Ok(()), |key| fits(key.len(), self.key))?;
        // map_fd; key; next_key
        let mut attributes = [self.fd.as_raw_fd() as u64, address(key), next.as_mut_ptr() as u64];
        // SAFETY: the kernel reads one key from the first buffer and writes one into the second, and both are as long as its keys.
        found(unsafe { bpf(MAP_GET_NEXT_KEY, &mut attributes) })
    }

    /// Reads the values of all CPUs under `key`. Returns `false` if there is no such entry, or not any more.
    pub fn lookup(&self, key: &[u8], values: &mut [u8]) -> io::Result<bool> {
        fits(key.len(), self.key)?;
        fits(values.len(), self.all_values)?;
        // map_fd; key; value; flags
        let mut attributes = [self.fd.as_raw_fd() as u64, key.as_ptr() as u64, values.as_mut_ptr() as u64, 0];
        // SAFETY: the kernel reads one key and writes one value for each possible CPU. Both buffers have these lengths.
        found(unsafe { bpf(MAP_LOOKUP_ELEM, &mut attributes) })
    }

    /// Reads many entries in one call (Linux ≥ 5.6), starting at a position. Returns their number, and whether they were the last.
    pub fn lookup_batch(&self, from: Option<Position>, to: &mut Position, keys: &mut [u8], values: &mut [u8]) -> io::Result<(usize, bool)> {
        let room = u32::try_from(keys.len() / self.key).map_err(|_| io::ErrorKind::InvalidInput)?;
        fits(values.len(), room as usize * self.all_values)?;
        let from = from.as_ref().map(Position::as_slice);
        // in_batch; out_batch; keys; values; count, map_fd; elem_flags; flags
        let counts = u64::from_ne_bytes(halves(room, self.fd.as_raw_fd() as u32));
        let (keys, values) = (keys.as_mut_ptr() as u64, values.as_mut_ptr() as u64);
        let mut attributes = [address(from), to.as_mut_ptr() as u64, keys, values, counts, 0, 0];
        // SAFETY: the kernel writes at most `room` keys and values of all CPUs, for which there is room, and four bytes of position.
        let is_last = !found(unsafe { bpf(MAP_LOOKUP_BATCH, &mut attributes) })?;
        let [a, b, c, d, ..] = attributes[4].to_ne_bytes();
        Ok((u32::from_ne_bytes([a, b, c, d]).min(room) as usize, is_last))
    }
}

/// Returns two 32-bit numbers in consecutive memory.
fn halves(first: u32, second: u32) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
    [a, b, c, d, e, f, g, h]
}

/// type, id, key_size, value_size, max_entries
fn info(fd: &OwnedFd) -> io::Result<[u32; 5]> {
    let mut info = [0u32; 5];
    let length = size_of_val(&info) as u32;
    // bpf_fd, info_len; info
    let mut attributes = [u64::from_ne_bytes(halves(fd.as_raw_fd() as u32, length)), info.as_mut_ptr() as u64];
    // SAFETY: the kernel gets the length of `info` and writes no more. Numbers have no invalid values.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attributes) }?;
    Ok(info)
}

fn fits(length: usize, needed: usize) -> io::Result<()> {
    match length >= needed {
        true => Ok(()),
        false => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn address(bytes: Option<&[u8]>) -> u64 {
    bytes.map_or(0, |bytes| bytes.as_ptr() as u64)
}

fn found(result: io::Result<i32>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// # Safety
/// The buffers that the attributes point to must be as long as the command reads or writes.
unsafe fn bpf(command: u32, attributes: &mut [u64]) -> io::Result<i32> {
    // SAFETY: the attributes themselves are valid for their length. The caller guarantees it for what they point to.
    let result = unsafe { calls::syscall(calls::SYS_bpf, command, attributes.as_mut_ptr(), size_of_val(attributes)) };
    match result {
        0.. => i32::try_from(result).map_err(io::Error::other),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(all(test, miri))]
mod tests {
    use super::*;

    /// With Miri's map, buffers of exactly the needed length are accepted, and shorter ones are refused.
    #[test]
    fn buffers_are_as_long_as_what_is_read_and_written() {
        let map = Map::open(Path::new("/sys/fs/bpf/map")).unwrap();
        assert_eq!((map.key, map.value, map.most_entries), (calls::KEY, calls::VALUE, 100));
        let (mut key, mut next, mut values) = (vec![0; map.key], vec![0; map.key], vec![0; map.all_values]);
        assert!(map.next_key(None, &mut key).unwrap() && map.next_key(Some(&key), &mut next).unwrap());
        assert!(map.lookup(&next, &mut values).unwrap());
        assert_eq!((next, &values), (vec![1; map.key], &vec![1; map.all_values]));
        let (mut to, mut keys, mut all) = (Position::default(), vec![0; 3 * map.key], vec![0; 3 * map.all_values]);
        assert_eq!(map.lookup_batch(None, &mut to, &mut keys, &mut all).unwrap(), (3, false));
        assert_eq!(map.lookup_batch(Some(to), &mut to, &mut keys, &mut all).unwrap(), (3, false));
        assert!(keys.iter().chain(&all).all(|byte| *byte == 1));
        let short = map.key - 1;
        assert!(map.next_key(None, &mut key[..short]).is_err() && map.next_key(Some(&key[..short]), &mut keys).is_err());
        assert!(map.lookup(&key[..short], &mut values).is_err() && map.lookup(&key, &mut values[1..]).is_err());
        assert!(map.lookup_batch(None, &mut to, &mut keys, &mut all[1..]).is_err());
    }
}
