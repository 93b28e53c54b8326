//! Reads the addresses that are routed to interfaces from the kernel's routing tables (`/proc/net/route`, `/proc/net/ipv6_route`).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use log::Level;

use crate::os::logging;

/// The maximum that is read of a table, in bytes: more than 100,000 routes.
const LARGEST_TABLE: u64 = 16 << 20;
/// `RTF_LOCAL` and `RTF_ANYCAST` of `linux/ipv6_route.h`: the node's own addresses.
const OWN: u32 = 0x8000_0000 | 0x0010_0000;

/// Returns the single addresses that are routed to each wanted interface, as networks (`10.65.0.11/32`). A missing table counts as empty,
/// as the IPv6 table does without IPv6. So does an unreadable one, which is logged once.
pub(crate) fn of_interfaces(proc: &Path, wanted: &dyn Fn(&str) -> bool) -> HashMap<String, Vec<String>> {
    let mut found: HashMap<String, Vec<String>> = HashMap::new();
    let [v4, v6] = ["net/route", "net/ipv6_route"].map(|table| table_of(&proc.join(table)));
    for (interface, network) in v4.lines().filter_map(v4_route).chain(v6.lines().filter_map(v6_route)) {
        if wanted(interface) {
            found.entry(interface.to_owned()).or_default().push(network);
        }
    }
    found
}

fn table_of(path: &Path) -> String {
    read(path).unwrap_or_else(|error| {
        if error.kind() != io::ErrorKind::NotFound {
            let message = format_args!("{} cannot be read: {error}; the addresses there are missing", path.display());
            logging::once(Level::Warn, &path.display().to_string(), message);
        }
        String::new()
    })
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LARGEST_TABLE).read_to_string(&mut text)?;
    Ok(text)
}

/// Parses `Iface Destination Gateway Flags RefCnt Use Metric Mask …`. Numbers are hexadecimal, addresses in network order.
fn v4_route(line: &str) -> Option<(&str, String)> {
    let mut fields = line.split_ascii_whitespace();
    let (interface, destination, gateway) = (fields.next()?, fields.next()?, fields.next()?);
    let mask = fields.nth(4)?;
    let address = Ipv4Addr::from(u32::from_str_radix(destination, 16).ok()?.to_ne_bytes());
    (gateway == "00000000" && mask == "FFFFFFFF").then(|| (interface, format!("{address}/32")))
}

/// Parses `destination length source length gateway metric references use flags interface`. Numbers are hexadecimal.
fn v6_route(line: &str) -> Option<(&str, String)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [destination, length, _, _, _, _, _, _, flags, interface] = fields[..] else { return None };
    let flags = u32::from_str_radix(flags, 16).ok()?;
    let address = Ipv6Addr::from(u128::from_str_radix(destination, 16).ok()?);
    let is_pods = length == "80" && flags & OWN == 0 && !address.is_unicast_link_local() && !address.is_multicast();
    is_pods.then(|| (interface, format!("{address}/128")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_single_addresses_behind_the_interface_count() {
        // As the kernel writes them on a little-endian machine.
        let swap = |hex: &str| format!("{:08X}", u32::from_ne_bytes(u32::from_str_radix(hex, 16).unwrap().to_be_bytes()));
        let line = |gateway: &str, mask: &str| format!("cali1\t{}\t{gateway}\t0005\t0\t0\t0\t{mask}\t0\t0\t0  ", swap("0A41000B"));
        assert_eq!(v4_route(&line("00000000", "FFFFFFFF")), Some(("cali1", "10.65.0.11/32".into())));
        assert_eq!(v4_route(&line("010200C0", "FFFFFFFF")), None);
        assert_eq!(v4_route(&line("00000000", "00FFFFFF")), None);
        for text in ["Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT", "", "cali1", "cali1\tx\t0"] {
            assert_eq!(v4_route(text), None, "{text}");
        }
    }

    #[test]
    fn the_nodes_own_ipv6_addresses_do_not_count() {
        let zero = "0".repeat(32);
        let line = |destination: &str, length: &str, flags: &str| {
            format!("{destination} {length} {zero} 00 {zero} 00000400 00000001 00000000 {flags}     cali1")
        };
        let pod = "fd000065000000000000000000000011";
        assert_eq!(v6_route(&line(pod, "80", "00000001")), Some(("cali1", "fd00:65::11/128".into())));
        for (destination, length, flags) in [
            (pod, "40", "00000001"),
            (pod, "80", "80200001"),
            ("fe80000000000000eceeeefffeeeeeee", "80", "00000001"),
            ("ff020000000000000000000000000001", "80", "00000001"),
            ("x", "80", "00000001"),
        ] {
            assert_eq!(v6_route(&line(destination, length, flags)), None, "{destination}/{length} {flags}");
        }
        assert_eq!(v6_route("short"), None);
    }
}
