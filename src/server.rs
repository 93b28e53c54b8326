//! Serves metrics, the page and its API over HTTP, and withstands whoever reaches the port. What is shown comes through [`Application`].
//!
//! One thread (`serving`) has all connections and never waits for a client: it takes requests apart (`request`), decides what answers
//! them (`routes`) and sends that (`connection`). What takes time is made by two other threads, one for scrapes and probes, one for what
//! people look at. `seats` bounds how many are connected, and what is being sent to them. Clients never add a thread.

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

/// What the server shows. All methods are called from several threads at once.
pub trait Application: Send + Sync {
    /// The text of `/metrics`, Prometheus text format 0.0.4.
    fn metrics(&self) -> Arc<Vec<u8>>;

    /// Not older than a second or so.
    fn report(&self) -> Arc<Report>;

    /// One policy, with what its rules match on where that can be told.
    fn policy(&self, label: &str) -> Option<PolicyAnswer> {
        self.report().policy(label)
    }

    /// What was dropped in the last hour.
    fn past(&self) -> DropsAnswer {
        DropsAnswer::default()
    }

    /// The last packets that were traced; of these, what was read after this moment.
    fn witnesses(&self, _since: Option<Milliseconds>) -> WitnessesAnswer {
        WitnessesAnswer::default()
    }

    /// Whether metrics are complete; else what is missing, in one line.
    fn ready(&self) -> Result<(), String>;
}

/// What clients may take: time, connections, memory.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From a request's first byte to the end of its head; for the first request, from the connection.
    pub head: Duration,
    /// Between requests.
    pub idle: Duration,
    /// From an answer's first byte to its last.
    pub answer: Duration,
    /// For one more, another is closed. Each is a descriptor.
    pub connections: usize,
    /// Of answers that are being sent, each text counted once; for more, another is closed.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            // Longer than the usual scrape intervals, so that Prometheus need not connect anew for each scrape.
            idle: Duration::from_secs(75),
            answer: Duration::from_secs(30),
            connections: 256,
            // Two texts of a very large node.
            bytes: 24 << 20,
        }
    }
}

const BACKLOG: i32 = 4096;
/// The kernel's buffers for each connection, in bytes. By itself it takes megabytes for each slow reader, which count in a container.
const SENT: usize = 128 << 10;
const RECEIVED: usize = 32 << 10;

#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    limits: Limits,
    /// The host names, beside `localhost`, under which the page and the API may be asked for; `*` stands for any.
    pub names: Vec<String>,
}

impl Listener {
    /// `::` means all addresses, IPv4's too, and falls back to IPv4 alone where the kernel has no IPv6.
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

    /// With the port that the kernel chose for port 0.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

/// `ipv6.disable=1` leaves no such family, `disable_ipv6=1` no such address.
fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

/// Connections inherit the options, but for that they do not block.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // Connections of a previous process may still be in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // Whatever net.ipv6.bindv6only says: `::` is all addresses here.
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    sockopt::set_socket_send_buffer_size(&socket, SENT)?;
    sockopt::set_socket_recv_buffer_size(&socket, RECEIVED)?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}
