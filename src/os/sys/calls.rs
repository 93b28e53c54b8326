//! Stands in for the kernel under Miri, which knows none of these calls: it does to memory what the kernel does, so that Miri checks
//! every pointer and length that is handed over. Its one map has entries without end.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::IntoRawFd;
use std::ptr::{with_exposed_provenance, with_exposed_provenance_mut};

use libc::{c_char, c_int, c_long, c_void, socklen_t};

use super::cpus;

pub use libc::{MADV_HUGEPAGE, SYS_bpf};

/// Length of a key, and of one CPU's value, in bytes: neither is a whole number of eights.
pub const KEY: usize = 12;
pub const VALUE: usize = 20;

/// Writes all of the buffer, and says that half of it matters.
pub unsafe fn getsockopt(_: c_int, _: c_int, _: c_int, value: *mut c_void, length: *mut socklen_t) -> c_int {
    // SAFETY: there are as many bytes to write to as the caller says; Miri tells if not.
    unsafe {
        value.cast::<u8>().write_bytes(0x5a, *length as usize);
        *length /= 2;
    }
    0
}

/// Takes no value but 1.
pub unsafe fn setsockopt(_: c_int, _: c_int, _: c_int, value: *const c_void, length: socklen_t) -> c_int {
    // SAFETY: there are as many bytes to read as the caller says; Miri tells if not.
    let value = unsafe { std::slice::from_raw_parts(value.cast::<u8>(), length as usize) };
    if value == 1i32.to_ne_bytes() { 0 } else { -1 }
}

/// Looks at all of the range.
pub unsafe fn madvise(begin: *mut c_void, length: usize, _: c_int) -> c_int {
    // SAFETY: the range is the caller's, and all of it is initialised; Miri tells if not.
    let all = unsafe { std::slice::from_raw_parts(begin.cast::<u8>(), length) };
    c_int::from(all.first().is_some_and(|byte| *byte != 0))
}

pub unsafe fn syscall(_: c_long, command: u32, attributes: *mut u64, size: usize) -> c_long {
    let cpus = cpus::possible().unwrap_or(1);
    // SAFETY: the attributes are as long as the caller says, and what they point to as the command takes; Miri tells if not.
    unsafe {
        let attributes = std::slice::from_raw_parts_mut(attributes, size / 8);
        match (command, &mut *attributes) {
            // OBJ_GET: a path; a descriptor
            (7, [path, ..]) => {
                assert!(CStr::from_ptr(with_exposed_provenance::<c_char>(*path as usize)).to_bytes().starts_with(b"/"));
                return File::open("/dev/null").map_or(-1, |file| file.into_raw_fd().into());
            }
            // OBJ_GET_INFO_BY_FD: a descriptor and a length; where the information goes
            (15, [told, info]) => {
                write(*info, &[5u32, 1, KEY as u32, VALUE as u32, 100].map(u32::to_ne_bytes).concat()[..(*told >> 32) as usize])
            }
            // MAP_GET_NEXT_KEY: a descriptor, a key or none, where the next one goes
            (4, [_, key, next]) => {
                let first = if *key == 0 { 0 } else { read(*key, KEY)[0] + 1 };
                write(*next, &[first; KEY]);
            }
            // MAP_LOOKUP_ELEM: a descriptor, a key, where the values of all CPUs go
            (1, [_, key, values, _]) => write(*values, &vec![read(*key, KEY)[0]; VALUE.next_multiple_of(8) * cpus]),
            // MAP_LOOKUP_BATCH: a position or none, where the next one goes, keys, values, how many of them
            (24, [from, to, keys, values, counts, ..]) => {
                let (count, first) = (*counts as u32 as usize, if *from == 0 { 0 } else { read(*from, 4)[0] });
                write(*keys, &vec![first; KEY * count]);
                write(*values, &vec![first; VALUE.next_multiple_of(8) * cpus * count]);
                write(*to, &[first + 1; 4]);
            }
            _ => return -1,
        }
    }
    0
}

/// # Safety
/// So many bytes are at this address.
unsafe fn read(address: u64, length: usize) -> Vec<u8> {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(with_exposed_provenance::<u8>(address as usize), length) }.to_vec()
}

/// # Safety
/// There is room for these bytes at this address.
unsafe fn write(address: u64, bytes: &[u8]) {
    // SAFETY: the caller's promise.
    unsafe { with_exposed_provenance_mut::<u8>(address as usize).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
}
