//! Serves metrics, the page and its API over HTTP, and tolerates hostile clients. The content comes through [`Application`].
//!
//! One thread (`serving`) owns all connections and never waits for a client. It parses requests (`request`), chooses their answers
//! (`routes`) and sends them (`connection`). Answers that take time are made by two other threads, one for scrapes and probes, one for what
//! users view. `seats` bounds the number of connections, and what is being sent to them. Clients never add a thread.

mod api;
mod connection;
mod reply;
mod request;
mod routes;
mod seats;
mod serving;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::report::{DropsAnswer, Milliseconds, PolicyAnswer, Report, WitnessesAnswer};

/// The content that the server provides. All methods are called from several threads in parallel.
pub trait Application: Send + Sync {
    /// The text of `/metrics`, Prometheus text format 0.0.4.
    fn metrics(&self) -> Arc<Vec<u8>>;

    /// Returns a report that is about a second old at most.
    fn report(&self) -> Arc<Report>;

    /// Returns one policy, with what its rules match on if that is known.
    fn policy(&self, label: &str) -> Option<PolicyAnswer> {
        self.report().policy(label)
    }

    /// Returns what was dropped in the last hour.
    fn past(&self) -> DropsAnswer {
        DropsAnswer::default()
    }

    /// Returns the last packets that were traced, and of these only those read after `since`.
    fn witnesses(&self, _since: Option<Milliseconds>) -> WitnessesAnswer {
        WitnessesAnswer::default()
    }

    /// Reports whether metrics are complete. The error says in one line what is missing.
    fn ready(&self) -> Result<(), String>;
}

/// Limits on the time, connections and memory that clients use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From a request's first byte to the end of its head. For the first request, from the connection.
    pub head: Duration,
    /// Between requests.
    pub idle: Duration,
    /// From an answer's first byte to its last.
    pub answer: Duration,
    /// The maximum number. For another one, one is closed. Each takes a descriptor.
    pub connections: usize,
    /// The size of the answers that are being sent, each text counted once. For more, a connection is closed.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            // Longer than the usual scrape intervals, so that Prometheus need not reconnect for each scrape.
            idle: Duration::from_secs(75),
            answer: Duration::from_secs(30),
            connections: 256,
            // Two texts of a very large node.
            bytes: 24 << 20,
        }
    }
}

const BACKLOG: i32 = 4096;
/// The kernel's buffers for each connection, in bytes. By default they grow to megabytes for each slow reader, which count as the
/// container's memory.
const SENT: usize = 128 << 10;
const RECEIVED: usize = 32 << 10;

#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    limits: Limits,
    /// The host names, besides `localhost`, under which the page and the API may be requested. `*` means any.
    pub names: Vec<String>,
}

impl Listener {
    /// `::` means all addresses, including IPv4, and falls back to IPv4 alone if the kernel has no IPv6.
    pub fn bind(address: IpAddr, port: u16, limits: Limits) -> io::Result<Self> {
        let socket = match listen(SocketAddr::new(address, port)) {
            Err(error) if address == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && is_without_ipv6(&error) => {
                log::info!("no IPv6 here ({error}), listening on IPv4 only");
                listen(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))
            }
            result => result,
        }?;
        Ok(Self { socket, limits, names: Vec::new() })
    }

    /// Returns the address with the port that the kernel chose for port 0.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// `ipv6.disable=1` removes the address family, `disable_ipv6=1` the addresses.
fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

/// Connections inherit the socket's options, but not non-blocking mode.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // Connections of a previous process may still be in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // `::` means all addresses here, whatever the setting of net.ipv6.bindv6only.
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    sockopt::set_socket_send_buffer_size(&socket, SENT)?;
    sockopt::set_socket_recv_buffer_size(&socket, RECEIVED)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}
