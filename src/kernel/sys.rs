//! The only unsafe code: system calls for which no safe wrapper exists. getsockopt(2) and setsockopt(2) with such options here, bpf(2)
//! in [`bpf`].
#![allow(unsafe_code)]

pub mod bpf;

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
