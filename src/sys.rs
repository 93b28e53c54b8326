//! The only unsafe code: system calls for which no safe wrapper exists.
#![allow(unsafe_code)]

pub mod bpf;
pub mod records;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Calls getsockopt(2) with `buffer` as the option's value, both ways; returns the length that the kernel gives it.
///
/// # Errors
/// What the kernel answers, as errno.
pub fn getsockopt(socket: BorrowedFd, level: i32, option: i32, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `buffer` is valid for reads and writes of `length` bytes, which is what the kernel is told; it writes no more than
    // that. Bytes have no invalid values. The descriptor is open for as long as it is borrowed.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, buffer.as_mut_ptr().cast(), &raw mut length) };
    match result {
        0 => Ok(length as usize),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Calls setsockopt(2) with a number as the option's value.
///
/// # Errors
/// What the kernel answers, as errno.
pub fn setsockopt(socket: BorrowedFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes from `value`, which lives until the call returns. The descriptor is open for as long as
    // it is borrowed.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Memory of `length` zeros that is going to be written at once. Where it is large and the kernel has huge pages to give, it comes in
/// those: 34 MB in small ones take 8,400 page faults, a tenth of the time in which the kernel fills them.
pub fn large(length: usize) -> Vec<u8> {
    let memory = vec![0; length];
    let page = rustix::param::page_size();
    let begin = memory.as_ptr().align_offset(page);
    if length >= HUGE_PAGE && begin < length {
        // SAFETY: the range is inside `memory` and begins with a page; the advice changes nothing in what it holds, and pages at its
        // end that it shares with others neither.
        _ = unsafe { libc::madvise(memory.as_ptr().add(begin).cast_mut().cast(), length - begin, libc::MADV_HUGEPAGE) };
    }
    memory
}

/// What x86 and most others call huge, in bytes.
const HUGE_PAGE: usize = 2 << 20;
