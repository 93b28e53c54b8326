//! The listening socket: all addresses of both families from one socket, and options that its connections inherit.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;
/// How much the kernel may keep of what a connection sends and receives, in bytes (it doubles them): by itself it goes to megabytes for
/// each reader that is slow, and a container's memory limit counts them.
const SENT: usize = 128 << 10;
const RECEIVED: usize = 32 << 10;

/// Listens. `::` means all addresses, IPv4's too, and falls back to IPv4 alone where the kernel has no IPv6.
pub(super) fn bind(address: IpAddr, port: u16) -> io::Result<TcpListener> {
    match listen(SocketAddr::new(address, port)) {
        Err(error) if address == IpAddr::V6(Ipv6Addr::UNSPECIFIED) && is_without_ipv6(&error) => {
            log::info!("no IPv6 here ({error}), listening on IPv4 only");
            listen(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))
        }
        result => result,
    }
}

/// `ipv6.disable=1` leaves no such family, `disable_ipv6=1` no such address.
fn is_without_ipv6(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    [Some(rustix::io::Errno::AFNOSUPPORT), Some(rustix::io::Errno::ADDRNOTAVAIL)].contains(&errno)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Connections of a previous process may still be in TIME_WAIT.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        // Whatever net.ipv6.bindv6only says: `::` is all addresses here.
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    sockopt::set_socket_send_buffer_size(&socket, SENT)?;
    sockopt::set_socket_recv_buffer_size(&socket, RECEIVED)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(TcpListener::from(socket))
}
