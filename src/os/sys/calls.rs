//! Replaces the kernel under Miri, which does not support these calls. It accesses memory as the kernel does, so that Miri checks every
//! pointer and length that is passed. Its one map has endless entries.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::IntoRawFd;
use std::ptr::{with_exposed_provenance, with_exposed_provenance_mut};

use libc::{c_char, c_int, c_long, c_void, socklen_t};

use super::cpus;

pub use libc::{MADV_HUGEPAGE, SYS_bpf};

/// Length of a key, and of one CPU's value, in bytes. Neither is a multiple of 8.
pub const KEY: usize = 12;
pub const VALUE: usize = 20;

/// Writes the whole buffer, and returns half of its length.
pub unsafe fn getsockopt(_: c_int, _: c_int, _: c_int, value: *mut c_void, length: *mut socklen_t) -> c_int {
    // SAFETY: the buffer has the length that the caller says. Miri reports it if not.
    unsafe {
        value.cast::<u8>().write_bytes(0x5a, *length as usize);
        *length /= 2;
    }
    0
}

/// Accepts no value but 1.
pub unsafe fn setsockopt(_: c_int, _: c_int, _: c_int, value: *const c_void, length: socklen_t) -> c_int {
    // SAFETY: the buffer has the length that the caller says. Miri reports it if not.
    let value = unsafe { std::slice::from_raw_parts(value.cast::<u8>(), length as usize) };
    if value == 1i32.to_ne_bytes() { 0 } else { -1 }
}

/// Reads the whole range.
pub unsafe fn madvise(begin: *mut c_void, length: usize, _: c_int) -> c_int {
    // SAFETY: the range is the caller's, and all of it is initialised. Miri reports it if not.
    let all = unsafe { std::slice::from_raw_parts(begin.cast::<u8>(), length) };
    c_int::from(all.first().is_some_and(|byte| *byte != 0))
}

pub unsafe fn syscall(_: c_long, command: u32, attributes: *mut u64, size: usize) -> c_long {
    let cpus = cpus::possible().unwrap_or(1);
    // SAFETY: the attributes have the length that the caller says, and their buffers have the command's lengths. Miri reports it if not.
    unsafe {
        let attributes = std::slice::from_raw_parts_mut(attributes, size / 8);
        match (command, &mut *attributes) {
            // OBJ_GET: a path; a descriptor
            (7, [path, ..]) => {
                assert!(CStr::from_ptr(with_exposed_provenance::<c_char>(*path as usize)).to_bytes().starts_with(b"/"));
                return File::open("/dev/null").map_or(-1, |file| file.into_raw_fd().into());
            }
            // OBJ_GET_INFO_BY_FD: a descriptor and a length; the buffer for the information
            (15, [told, info]) => {
                write(*info, &[5u32, 1, KEY as u32, VALUE as u32, 100].map(u32::to_ne_bytes).concat()[..(*told >> 32) as usize])
            }
            // MAP_GET_NEXT_KEY: a descriptor, a key or null, the buffer for the next key
            (4, [_, key, next]) => {
                let first = if *key == 0 { 0 } else { read(*key, KEY)[0] + 1 };
                write(*next, &[first; KEY]);
            }
            // MAP_LOOKUP_ELEM: a descriptor, a key, the buffer for the values of all CPUs
            (1, [_, key, values, _]) => write(*values, &vec![read(*key, KEY)[0]; VALUE.next_multiple_of(8) * cpus]),
            // MAP_LOOKUP_BATCH: a position or null, the buffer for the next position, keys, values, their number
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
/// `length` bytes must be readable at this address.
unsafe fn read(address: u64, length: usize) -> Vec<u8> {
    // SAFETY: the caller guarantees it.
    unsafe { std::slice::from_raw_parts(with_exposed_provenance::<u8>(address as usize), length) }.to_vec()
}

/// # Safety
/// There must be room for these bytes at this address.
unsafe fn write(address: u64, bytes: &[u8]) {
    // SAFETY: the caller guarantees it.
    unsafe { with_exposed_provenance_mut::<u8>(address as usize).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
}
