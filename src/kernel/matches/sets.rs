//! Returns the names of IP sets, which iptables rules refer to by number. Asks the kernel: `SO_IP_SET` (CAP_NET_ADMIN).

use std::os::fd::AsFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use super::text;
use crate::os::sys::getsockopt;

const SO_IP_SET: i32 = 83;
/// `IP_SET_OP_GET_BYINDEX`
const BY_INDEX: u32 = 7;
/// The oldest version that kernels accept.
const PROTOCOL: u32 = 6;

/// struct ip_set_req_get_set { unsigned op, version; union { char name[32]; __u16 index; } set; }
pub fn name(index: u16) -> Option<String> {
    let socket = socket_with(AddressFamily::INET, SocketType::RAW, SocketFlags::CLOEXEC, Some(ipproto::RAW)).ok()?;
    let mut request = [0; 40];
    request[..4].copy_from_slice(&BY_INDEX.to_ne_bytes());
    request[4..8].copy_from_slice(&PROTOCOL.to_ne_bytes());
    request[8..10].copy_from_slice(&index.to_ne_bytes());
    getsockopt(socket.as_fd(), libc::IPPROTO_IP, SO_IP_SET, &mut request).ok()?;
    Some(text(&request[8..])).filter(|name| !name.is_empty())
}
