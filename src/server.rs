//! HTTP: requests in; metrics, health, the API and the page out. Knows the program only through [`Application`].
//!
//! `accepting` lets clients in, `connections` bounds them, `connection` talks to one of them over `wire`, `routes` answers. The
//! protocol itself (requests taken apart, answers framed) is ureq-proto's, which does no input or output: whatever a client does or
//! leaves undone is bounded here, where the socket is.

mod accepting;
mod api;
mod connection;
mod connections;
mod gzip;
mod routes;
mod socket;
mod wire;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use crate::report::Report;

/// What the server shows. All methods are called from several threads at once.
pub trait Application: Send + Sync {
    /// The text of `/metrics`, Prometheus text format 0.0.4.
    fn metrics(&self) -> Arc<Vec<u8>>;

    /// What was counted, for the API; not older than a second or so.
    fn report(&self) -> Arc<Report>;

    /// Whether the program has what it needs for complete metrics; else one line that says what is missing.
    ///
    /// # Errors
    /// The reason why not, for `/readyz`.
    fn ready(&self) -> Result<(), String>;
}

/// What clients may take: time, connections, memory.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A request's head must have arrived so long after its first byte; the first one of a connection, after the connection.
    pub head: Duration,
    /// A connection without a further request for so long is closed.
    pub idle: Duration,
    /// An answer must have been taken so long after its first byte, or it is broken off.
    pub answer: Duration,
    /// So many connections at a time; for a further one, another gives way. Each is a thread and a descriptor.
    pub connections: usize,
    /// So many bytes of answers on their way at a time, each text counted once; for more of them, another gives way.
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

/// A listening socket, ready to be served.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    limits: Limits,
}

impl Listener {
    /// Listens. `::` means all addresses, IPv4's too, and falls back to IPv4 alone where the kernel has no IPv6.
    ///
    /// # Errors
    /// The address is in use, not one of this host's, or may not be bound.
    pub fn bind(address: IpAddr, port: u16, limits: Limits) -> io::Result<Self> {
        Ok(Self { socket: socket::bind(address, port)?, limits })
    }

    /// Where it listens: the port, if any was asked for.
    ///
    /// # Errors
    /// The kernel would not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until that is no longer possible.
    ///
    /// # Errors
    /// Accepting connections, or starting threads for them, keeps failing. The caller should end the process with an error.
    pub fn serve(&self, app: Arc<dyn Application>) -> io::Result<Infallible> {
        accepting::serve(&self.socket, &app, self.limits)
    }
}
