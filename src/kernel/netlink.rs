//! Sends nf_tables requests over netlink and returns the payloads of dumps. Touches one NETLINK_NETFILTER socket.
//!
//! Layouts: `include/uapi/linux/netlink.h`, `linux/netfilter/nfnetlink.h`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with, sockopt};

use super::xt::{u16_at, u32_at};
use crate::os::sys;

const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const DONE: u16 = 3;
const ERROR: u16 = 2;
/// The table changed while it was dumped.
const DUMP_INTERRUPTED: u16 = 0x10;
/// `NFNL_SUBSYS_NFTABLES`, the upper half of a message's type.
pub const NFTABLES: u16 = 10 << 8;
/// `NETLINK_GET_STRICT_CHK`
const GET_STRICT_CHECK: i32 = 12;
/// Length of `struct nlmsghdr` and `struct nfgenmsg`.
const HEADERS: usize = 20;
/// The maximum size of a piece of a dump in bytes. Large pieces need few system calls.
const PIECE: usize = 256 << 10;

#[derive(Debug)]
pub enum DumpError {
    Io(io::Error),
    /// The kernel could not finish or lost a part. The request must be repeated.
    Again,
    /// There is no such table or chain, or not any more.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dump {
    Whole,
    /// Something changed, not necessarily what was requested. Entries may be missing or duplicated.
    Interrupted,
}

impl From<io::Error> for DumpError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EINTR | libc::ENOBUFS | libc::EBUSY) => DumpError::Again,
            Some(libc::ENOENT) => DumpError::Gone,
            _ => DumpError::Io(error),
        }
    }
}

impl From<DumpError> for io::Error {
    fn from(error: DumpError) -> Self {
        match error {
            DumpError::Io(error) => error,
            DumpError::Again => io::ErrorKind::Interrupted.into(),
            DumpError::Gone => io::ErrorKind::NotFound.into(),
        }
    }
}

impl From<Errno> for DumpError {
    fn from(error: Errno) -> Self {
        io::Error::from(error).into()
    }
}

#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
    sequence: u32,
    deadline: Instant,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// Opens a socket. All answers must arrive by `deadline`.
    pub fn open(deadline: Instant) -> io::Result<Self> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER))?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        // Both options may fail. A dump proceeds as fast as it is read anyway, and kernels before 4.20 have no strict checks.
        _ = sockopt::set_socket_recv_buffer_size(&fd, 2 * PIECE);
        _ = sys::setsockopt(fd.as_fd(), libc::SOL_NETLINK, GET_STRICT_CHECK, 1);
        Ok(Socket { fd, buffer: vec![0; PIECE], sequence: 0, deadline })
    }

    pub fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// Sends a dump request and hands each answer's attributes to `take`.
    pub fn dump(&mut self, message: u16, family: u8, attributes: &[u8], take: &mut dyn FnMut(&[u8])) -> Result<Dump, DumpError> {
        self.request(message, family, DUMP, attributes)?;
        self.answers(take)
    }

    /// Sends a request with one answer.
    pub fn get(&mut self, message: u16, family: u8, attributes: &[u8], take: &mut dyn FnMut(&[u8])) -> Result<(), DumpError> {
        self.request(message, family, ACK, attributes)?;
        self.answers(take).map(|_| ())
    }

    /// Sends these messages (type, flags and attributes) as one transaction, and waits until the kernel has acknowledged all of them.
    pub fn transaction(&mut self, family: u8, messages: Vec<(u16, u16, Vec<u8>)>) -> io::Result<()> {
        const BEGIN: u16 = 0x10;
        const END: u16 = 0x11;
        let resource = (NFTABLES >> 8).to_be_bytes();
        let (first, count) = (self.sequence + 2, messages.len());
        let mut bytes = Message::bytes(BEGIN, 0, self.next(), 0, resource, &[]);
        for (kind, flags, attributes) in messages {
            bytes.extend(Message::bytes(NFTABLES | kind, ACK | flags, self.next(), family, [0, 0], &attributes));
        }
        bytes.extend(Message::bytes(END, 0, self.next(), 0, resource, &[]));
        send(&self.fd, &bytes, SendFlags::empty())?;
        let mut answered = 0;
        while answered < count {
            let length = self.receive()?;
            let mut rest = self.buffer.get(..length).unwrap_or_default();
            while let Some((header, body, next)) = message(rest) {
                rest = next;
                if header.sequence >= first && header.kind == ERROR {
                    acknowledged(body)?;
                    answered += 1;
                }
            }
        }
        Ok(())
    }

    fn next(&mut self) -> u32 {
        self.sequence += 1;
        self.sequence
    }

    fn request(&mut self, message: u16, family: u8, flags: u16, attributes: &[u8]) -> Result<(), DumpError> {
        if Instant::now() >= self.deadline {
            return Err(timed_out());
        }
        let request = Message::bytes(NFTABLES | message, flags, self.next(), family, [0, 0], attributes);
        send(&self.fd, &request, SendFlags::empty())?;
        Ok(())
    }

    fn answers(&mut self, take: &mut dyn FnMut(&[u8])) -> Result<Dump, DumpError> {
        let mut dump = Dump::Whole;
        loop {
            let length = self.receive()?;
            let too_long = || DumpError::Io(io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer is too long"));
            let mut rest = self.buffer.get(..length).ok_or_else(too_long)?;
            while let Some((header, body, next)) = message(rest) {
                rest = next;
                if header.sequence != self.sequence {
                    continue;
                }
                if header.flags & DUMP_INTERRUPTED != 0 {
                    dump = Dump::Interrupted;
                }
                match header.kind {
                    DONE | ERROR => return Ok(acknowledged(body).map(|()| dump)?),
                    _ => take(body.get(4..).unwrap_or_default()),
                }
            }
        }
    }

    /// Receives the next piece. The kernel writes it during the request, so there is usually no wait.
    fn receive(&mut self) -> Result<usize, DumpError> {
        loop {
            match recv(&self.fd, &mut self.buffer[..], RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
                Ok((_, length)) => return Ok(length),
                Err(Errno::AGAIN) => self.wait()?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn wait(&self) -> Result<(), DumpError> {
        let left = self.deadline.checked_duration_since(Instant::now()).unwrap_or(Duration::ZERO);
        let left = Timespec::try_from(left).map_err(|_| timed_out())?;
        match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&left)) {
            Ok(0) => Err(timed_out()),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn timed_out() -> DumpError {
    DumpError::Io(io::Error::new(io::ErrorKind::TimedOut, "the kernel did not finish its answer in time"))
}

/// Reads the code at the end of a dump or in an error message; 0 acknowledges.
fn acknowledged(body: &[u8]) -> io::Result<()> {
    match u32_at(body, 0).map_or(0, |code| code as i32) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.wrapping_neg())),
    }
}

struct Header {
    kind: u16,
    flags: u16,
    sequence: u32,
}

/// Splits off the first message: its header, its body, and the rest.
fn message(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let length = u32_at(bytes, 0)? as usize;
    let header = Header { kind: u16_at(bytes, 4)?, flags: u16_at(bytes, 6)?, sequence: u32_at(bytes, 8)? };
    let body = bytes.get(16..length)?;
    Some((header, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// One parsed message.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    kind: u16,
    pub family: u8,
    body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The messages of a piece.
    pub fn all(mut piece: &'a [u8]) -> impl Iterator<Item = Message<'a>> {
        std::iter::from_fn(move || {
            let (header, body, rest) = message(piece)?;
            piece = rest;
            Some(Message { kind: header.kind, family: body.first().copied().unwrap_or(0), body })
        })
    }

    /// Returns the bytes of a message of this type.
    fn bytes(kind: u16, flags: u16, sequence: u32, family: u8, resource: [u8; 2], attributes: &[u8]) -> Vec<u8> {
        let length = HEADERS + attributes.len();
        let mut bytes = Vec::with_capacity(length);
        bytes.extend((length as u32).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((REQUEST | flags).to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0, 0, 0, 0, family, 0, resource[0], resource[1]]);
        bytes.extend(attributes);
        bytes
    }

    /// Reports whether it is an nf_tables message of this type.
    pub fn is(&self, kind: u16) -> bool {
        self.kind == NFTABLES | kind
    }

    pub fn attributes(&self) -> Attributes<'a> {
        Attributes(self.body.get(4..).unwrap_or_default())
    }
}

/// The attributes of all messages of a piece.
pub fn messages(piece: &[u8]) -> impl Iterator<Item = &[u8]> {
    Message::all(piece).map(|message| message.attributes().0)
}

/// Iterates over netlink attributes: type and payload.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        /// Flags in an attribute's type.
        const KIND: u16 = 0x3fff;
        let length = usize::from(u16_at(self.0, 0)?);
        let payload = self.0.get(4..length)?;
        let kind = u16_at(self.0, 2)? & KIND;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    }
}

impl<'a> Attributes<'a> {
    /// The payload of the first attribute of this type.
    pub fn get(mut self, wanted: u16) -> Option<&'a [u8]> {
        self.find(|(kind, _)| *kind == wanted).map(|(_, payload)| payload)
    }
}

pub fn put(attributes: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    let length = 4 + payload.len();
    attributes.extend((length as u16).to_ne_bytes());
    attributes.extend(kind.to_ne_bytes());
    attributes.extend(payload);
    attributes.resize(attributes.len() + length.next_multiple_of(4) - length, 0);
}

pub fn put_string(attributes: &mut Vec<u8>, kind: u16, text: &str) {
    put(attributes, kind, &[text.as_bytes(), &[0]].concat());
}

/// Appends an attribute that contains others.
pub fn nest(attributes: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    const NESTED: u16 = 0x8000;
    let mut inside = Vec::new();
    fill(&mut inside);
    put(attributes, NESTED | kind, &inside);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_there_and_back() {
        let mut bytes = Vec::new();
        put_string(&mut bytes, 1, "calico");
        put_string(&mut bytes, 2, "abc");
        assert_eq!(bytes.len(), 12 + 8);
        let all: Vec<_> = Attributes(&bytes).collect();
        assert_eq!(all, [(1, &b"calico\0"[..]), (2, &b"abc\0"[..])]);
        assert_eq!(Attributes(&bytes).get(2), Some(&b"abc\0"[..]));
    }

    #[test]
    fn attributes_that_are_cut_off_end_the_list() {
        for bytes in [&[][..], &[8, 0, 1], &[3, 0, 1, 0], &[200, 0, 1, 0, 0, 0]] {
            assert_eq!(Attributes(bytes).count(), 0, "{bytes:?}");
        }
    }
}
