//! The only unsafe code: system calls that have no safe wrapper.
#![allow(unsafe_code)]

pub mod bpf;
#[cfg(miri)]
mod calls;
pub mod cpus;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::thread;

#[cfg(not(miri))]
use libc as calls;

/// Calls getsockopt(2) with `buffer` as input and output. Returns the length that the kernel wrote.
pub fn getsockopt(socket: BorrowedFd, level: i32, option: i32, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the buffer is valid for reads and writes of `length` bytes, and bytes have no invalid values. The descriptor is open as long
    // as it is borrowed.
    match unsafe { calls::getsockopt(socket.as_raw_fd(), level, option, buffer.as_mut_ptr().cast(), &raw mut length) } {
        0 => Ok(length as usize),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The same for large memory that has not been written to. Another thread has the kernel allocate its pages meanwhile. Otherwise the call
/// takes a page fault for each.
pub fn getsockopt_large(socket: BorrowedFd, level: i32, option: i32, buffer: &mut [u8]) -> io::Result<usize> {
    let (begin, length) = (buffer.as_mut_ptr().expose_provenance(), buffer.len());
    thread::scope(|scope| {
        let make_pages = move || {
            // SAFETY: the range is inside `buffer`, which outlives the scope, and populating pages does not change their content. The call
            // fails on kernels before 5.14, and for memory that does not begin at a page.
            _ = unsafe { calls::madvise(std::ptr::with_exposed_provenance_mut(begin), length, libc::MADV_POPULATE_WRITE) };
        };
        // Without the thread the call takes longer.
        _ = thread::Builder::new().spawn_scoped(scope, make_pages);
        getsockopt(socket, level, option, buffer)
    })
}

pub fn setsockopt(socket: BorrowedFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes from `value`, which lives until the call returns. The descriptor is open as long as it is
    // borrowed.
    match unsafe { calls::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Returns `length` zeros that will be written soon. Uses huge pages if possible, because each small page costs a page fault.
pub fn large(length: usize) -> Vec<u8> {
    let memory = vec![0; length];
    let page = rustix::param::page_size();
    let begin = memory.as_ptr().align_offset(page);
    if length >= HUGE_PAGE && begin < length {
        // SAFETY: the range is inside `memory` and begins at a page. The advice does not change its content, nor that of other memory on
        // its last page.
        _ = unsafe { calls::madvise(memory.as_ptr().add(begin).cast_mut().cast(), length - begin, calls::MADV_HUGEPAGE) };
    }
    memory
}

/// In bytes, on x86 and most other architectures.
const HUGE_PAGE: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// For any length, and wherever the first page begins.
    #[test]
    fn large_memory_is_zero_and_as_long_as_was_asked() {
        for length in [0, 1, HUGE_PAGE - 1, HUGE_PAGE, HUGE_PAGE + 4097] {
            let mut memory = large(length);
            assert!(memory.len() == length && memory.iter().step_by(1000).all(|byte| *byte == 0));
            memory.fill(1);
        }
    }

    #[test]
    fn an_option_is_set_and_read_back() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = std::os::fd::AsFd::as_fd(&socket);
        setsockopt(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).unwrap();
        let mut value = [0; 8];
        assert_eq!(getsockopt(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &mut value).unwrap(), 4);
        assert!(value[0] != 0);
    }
}
