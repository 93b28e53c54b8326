//! HTTP: requests in; metrics, health, the API and a landing page out. Knows the program only through [`Application`].

mod api;
mod routes;
mod serving;
mod socket;

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

    /// The node's name, for the landing page.
    fn node_name(&self) -> &str;
}

/// How patient the server is with its clients.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A connection on which nothing arrives for so long is closed.
    pub silence: Duration,
    /// A reader that takes nothing for so long gets no more.
    pub stall: Duration,
    /// A response that is not delivered by then is broken off.
    pub response: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        // Shorter than scrape intervals on purpose: a connection occupies a thread of tiny_http, and in a burst the next ones
        // may have to wait until it is free. Connecting anew for each scrape costs nothing.
        Self { silence: Duration::from_secs(10), stall: Duration::from_secs(5), response: Duration::from_secs(15) }
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
        Ok(Self { socket: socket::bind(address, port, &limits)?, limits })
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
    /// Threads cannot be started, or accepting keeps failing. The caller should end the process with an error.
    pub fn serve(&self, app: Arc<dyn Application>) -> io::Result<Infallible> {
        serving::serve(&self.socket, app, self.limits)
    }
}
