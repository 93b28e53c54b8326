//! The listening socket: all addresses of both families from one socket, and options that its connections inherit.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use rustix::net::sockopt::{self, Timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::Limits;

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 128;

/// Listens. `::` means all addresses, IPv4's too, and falls back to IPv4 alone where the kernel has no IPv6.
pub(super) fn bind(address: IpAddr, port: u16, limits: &Limits) -> io::Result<TcpListener> {
    match listen(SocketAddr::new(address, port), limits) {
        Err(error) if address == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && is_without_ipv6(&error) => {
            log::info!("no IPv6 here ({error}), listening on IPv4 only");
            listen(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port), limits)
        }
        result => result,
    }
}

/// `ipv6.disable=1` leaves no such family, `disable_ipv6=1` no such address.
fn is_without_ipv6(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    [Some(rustix::io::Errno::AFNOSUPPORT), Some(rustix::io::Errno::ADDRNOTAVAIL)].contains(&errno)
}

fn listen(address: SocketAddr, limits: &Limits) -> io::Result<TcpListener> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Connections of a previous process may still be in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // Whatever net.ipv6.bindv6only says: `::` is all addresses here.
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    limit(&socket, limits)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}

/// Sets on the listener what tiny_http cannot set on connections; on Linux they inherit it, also those that come before
/// the first accept.
fn limit(socket: &OwnedFd, limits: &Limits) -> io::Result<()> {
    sockopt::set_socket_timeout(socket, Timeout::Recv, Some(limits.silence))?;
    sockopt::set_socket_timeout(socket, Timeout::Send, Some(limits.stall))?;
    Ok(())
}
