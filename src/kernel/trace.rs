//! Traces single packets: the table `inet calico-accountant` marks some packets, and nf_tables reports which rules each of them met. The
//! table belongs to the socket that created it, and the kernel removes it when that socket is closed, however the process ends (Linux ≥
//! 5.12). On older kernels it is removed when tracing ends, and at the next start. Needs CAP_NET_ADMIN.
//!
//! Layouts: `include/uapi/linux/netfilter/nf_tables.h`. When the kernel reports what: `net/netfilter/nf_tables_trace.c`.

mod table;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, netlink, recv, socket_with, sockopt};

use super::expressions::counter;
use super::netlink::{Attributes, Message, Socket, put_string};
use super::xt::{be32, be64, string};
use crate::os::sys;
use table::{OWNER, Transaction, table, table_name};

pub const TABLE: &str = "calico-accountant";
/// The chain that marks.
const MARK: &str = "mark";
const NFPROTO_INET: u8 = 1;

/// `NFNLGRP_NFTRACE`
const TRACE_GROUP: i32 = 9;
const DELETE_TABLE: u16 = 2;
const GET_RULE: u16 = 7;
const TRACE: u16 = 17;
/// The size of the socket's receive buffer in bytes: about 15,000 messages of 1 kB each.
const RECEIVE_BUFFER: usize = 8 << 20;
/// The time limit of a transaction.
const PATIENCE: Duration = Duration::from_secs(5);

/// The headers of a packet, as far as the kernel reports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Packet {
    pub protocol: u8,
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Source and destination port of TCP, UDP and SCTP.
    pub ports: Option<(u16, u16)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A rule matched.
    Rule { handle: u64 },
    /// A chain of rules ended.
    Return,
    /// A base chain ended.
    Policy,
}

/// What happened to a packet at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Dropped,
    GoesOn,
}

/// One message about one packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Identifies the packet while it passes the rules.
    pub id: u32,
    /// The table's family: `NFPROTO_IPV4`, `NFPROTO_IPV6` or `NFPROTO_INET`.
    pub family: u8,
    pub table: String,
    pub chain: String,
    pub step: Step,
    pub fate: Fate,
    /// Present in the first message of each base chain.
    pub packet: Option<Packet>,
}

impl Event {
    pub fn marks(&self) -> bool {
        self.table == TABLE && self.chain == MARK
    }

    /// Reports whether the packet has passed the filter chains.
    pub fn is_behind(&self) -> bool {
        self.table == TABLE && self.chain.ends_with("-end")
    }
}

/// The number of packets that could have been marked, and of those that were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marked {
    pub seen: u64,
    pub marked: u64,
}

impl Marked {
    pub fn and(self, other: Marked) -> Marked {
        Marked { seen: self.seen + other.seen, marked: self.marked + other.marked }
    }
}

/// Which packets to mark: those that open a connection or belong to none, on these interfaces (all if `None`), at most `rate` a second.
#[derive(Debug, Clone, Copy)]
pub struct Marking<'a> {
    pub interfaces: Option<&'a [String]>,
    pub rate: u32,
}

/// Our table, and the trace messages of the packets that it marks. Uses two sockets, so that a transaction's answers are not among the
/// trace messages.
pub struct Tracer {
    heard: Arc<OwnedFd>,
    buffer: Vec<u8>,
    owner: Socket,
    is_owner: bool,
    /// Counts of earlier tables that this tracer has replaced.
    replaced: Marked,
}

#[derive(Debug)]
pub enum Received {
    Events(Vec<Event>),
    /// Messages were lost. All waiting messages were discarded too, so nothing is known of the packets under way.
    Lost,
    /// Nothing arrived before the deadline, so no message is waiting.
    Nothing,
}

impl Tracer {
    pub fn start(marking: &Marking) -> io::Result<Self> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER))?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        _ = sockopt::set_socket_recv_buffer_size_force(&fd, RECEIVE_BUFFER);
        const ADD_MEMBERSHIP: i32 = 1;
        sys::setsockopt(fd.as_fd(), libc::SOL_NETLINK, ADD_MEMBERSHIP, TRACE_GROUP)?;
        let owner = Socket::open(Instant::now() + PATIENCE)?;
        let (heard, buffer) = (Arc::new(fd), vec![0; 64 << 10]);
        let mut tracer = Tracer { heard, buffer, owner, is_owner: true, replaced: Marked::default() };
        // Removes a table that an earlier process could not own.
        match tracer.transaction(vec![delete()]) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) && has_net_admin() => {
                return Err(io::Error::other("another process traces packets on this node (it owns the table inet calico-accountant)"));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        if let Err(error) = tracer.transaction(table(marking, OWNER)) {
            if !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) {
                return Err(error);
            }
            tracer.is_owner = false;
            tracer.transaction(table(marking, 0))?;
        }
        Ok(tracer)
    }

    /// Changes which packets are marked, without a gap.
    pub fn mark(&mut self, marking: &Marking) -> io::Result<()> {
        let marked = self.marked().unwrap_or(self.replaced);
        let flags = if self.is_owner { OWNER } else { 0 };
        match self.transaction([vec![delete()], table(marking, flags)].concat()) {
            // Anyone can flush a table that has no owner.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.transaction(table(marking, flags))?,
            result => result?,
        }
        self.replaced = marked;
        Ok(())
    }

    /// Returns the socket of the trace messages, to wait on it.
    pub fn socket(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.heard)
    }

    /// Receives messages, waiting until `until` at most.
    pub fn receive(&mut self, until: Instant) -> io::Result<Received> {
        loop {
            match recv(&self.heard, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => {
                    let messages = Message::all(&self.buffer[..length]).filter(|message| message.is(TRACE));
                    return Ok(Received::Events(messages.filter_map(event).collect()));
                }
                Err(Errno::NOBUFS) => {
                    self.skip()?;
                    return Ok(Received::Lost);
                }
                Err(Errno::AGAIN) if !self.wait(until)? => return Ok(Received::Nothing),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Discards the waiting messages. The kernel keeps messages from before a loss, and new ones once there is room again. A packet that
    /// occurs in both would lack the messages in between.
    pub fn skip(&mut self) -> io::Result<()> {
        loop {
            match recv(&self.heard, &mut self.buffer[..], RecvFlags::DONTWAIT) {
                Ok(_) | Err(Errno::NOBUFS | Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until a message can be received, or until `until`.
    fn wait(&self, until: Instant) -> io::Result<bool> {
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(&self.heard, PollFlags::IN)], Some(&left)) {
            Ok(ready) => Ok(ready > 0),
            // A signal was received: the caller may have to end.
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the counts since the start.
    pub fn marked(&mut self) -> io::Result<Marked> {
        let (mut attributes, mut counts) = (table_name(), Vec::new());
        put_string(&mut attributes, 2, MARK);
        self.owner.set_deadline(Instant::now() + PATIENCE);
        let dump = self.owner.dump(GET_RULE, NFPROTO_INET, &attributes, &mut |rule| {
            counts.extend(Attributes(rule).get(4).and_then(counter).map(|counter| counter.packets));
        });
        match (dump, &counts[..]) {
            (Ok(_), &[seen, marked]) => Ok(self.replaced.and(Marked { seen, marked })),
            _ => Err(io::Error::other("the table inet calico-accountant is gone")),
        }
    }

    fn transaction(&mut self, messages: Transaction) -> io::Result<()> {
        self.owner.set_deadline(Instant::now() + PATIENCE);
        self.owner.transaction(NFPROTO_INET, messages)
    }
}

fn delete() -> (u16, u16, Vec<u8>) {
    (DELETE_TABLE, 0, table_name())
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if !self.is_owner {
            _ = self.transaction(vec![delete()]);
        }
    }
}

/// The kernel refuses a process without rights with the same code as a process that does not own the table.
fn has_net_admin() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::NET_ADMIN))
}

/// Parses a trace message. Returns `None` if the message is irrelevant or incomplete.
fn event(message: Message<'_>) -> Option<Event> {
    let attributes = message.attributes();
    let number = |kind| attributes.get(kind).and_then(be32);
    let text = |kind| attributes.get(kind).map(|name| String::from_utf8_lossy(string(name)).into_owned());
    let verdict = attributes.get(5).and_then(|verdict| be32(Attributes(verdict).get(1)?));
    let handle = attributes.get(3).and_then(be64);
    let (step, code) = match (number(4)?, handle) {
        (1, _) => (Step::Policy, number(16)),
        (2, None) => (Step::Return, verdict),
        // Older kernels (6.1, for example) report a rule that returns as a return, with the rule's handle.
        (2 | 3, Some(handle)) => (Step::Rule { handle }, verdict),
        _ => return None,
    };
    const DROP: u32 = 0;
    Some(Event {
        id: number(6)?,
        family: message.family,
        table: text(1)?,
        chain: text(2).unwrap_or_default(),
        step,
        fate: if code == Some(DROP) { Fate::Dropped } else { Fate::GoesOn },
        packet: attributes.get(8).and_then(|network| packet(network, attributes.get(9).unwrap_or_default())),
    })
}

/// Both headers may be truncated.
fn packet(network: &[u8], transport: &[u8]) -> Option<Packet> {
    let v4 = |at: usize| Some(IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(network.get(at..at + 4)?).ok()?)));
    let v6 = |at: usize| Some(IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(network.get(at..at + 16)?).ok()?)));
    let (protocol, source, destination) = match network.first()? >> 4 {
        4 => (*network.get(9)?, v4(12)?, v4(16)?),
        6 => (*network.get(6)?, v6(8)?, v6(24)?),
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(transport.get(at..at + 2)?.try_into().ok()?));
    let has_ports = matches!(i32::from(protocol), libc::IPPROTO_TCP | libc::IPPROTO_UDP | libc::IPPROTO_SCTP);
    Some(Packet { protocol, source, destination, ports: port(0).zip(port(2)).filter(|_| has_ports) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::netlink::put;

    #[test]
    fn a_rule_that_returns_is_met_however_the_kernel_says_so() {
        let step = |kind: u32, handle: Option<u64>| {
            let mut bytes = vec![0; 20];
            put_string(&mut bytes, 1, "filter");
            handle.iter().for_each(|handle| put(&mut bytes, 3, &handle.to_be_bytes()));
            [(4, kind), (6, 1)].iter().for_each(|(kind, number)| put(&mut bytes, *kind, &number.to_be_bytes()));
            let length = bytes.len() as u32;
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            Message::all(&bytes).next().and_then(event).map(|event| event.step)
        };
        let rule = Some(Step::Rule { handle: 7 });
        assert_eq!([step(3, Some(7)), step(2, Some(7)), step(2, None), step(3, None)], [rule, rule, Some(Step::Return), None]);
    }
    #[test]
    fn headers() {
        let mut v4 = [0; 20];
        (v4[0], v4[9], v4[15], v4[19]) = (0x45, 17, 1, 2);
        let udp = packet(&v4, &[0x1f, 0x90, 0, 53, 0, 0]).unwrap();
        assert_eq!((udp.protocol, udp.source.to_string(), udp.ports), (17, "0.0.0.1".to_owned(), Some((8080, 53))));
        assert_eq!(packet(&v4, &[]).unwrap().ports, None);
        let mut v6 = [0; 40];
        (v6[0], v6[6], v6[23], v6[39]) = (0x60, 58, 1, 2);
        let icmp = packet(&v6, &[128, 0, 0, 0]).unwrap();
        assert_eq!((icmp.source.to_string(), icmp.destination.to_string(), icmp.ports), ("::1".into(), "::2".into(), None));
        for cut in [&v4[..19], &v6[..39], &[], &[0x10; 40]] {
            assert_eq!(packet(cut, &[]), None);
        }
    }
}
