//! The syntax of values: durations, host and port, PEM, service links, and Go's number formats. Pure.

use std::net::Ipv6Addr;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::ConfigError;

/// Parses `2s`, `500ms`, `1.5s` or `2` (seconds).
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    // `f64` also parses `inf`, `1e3` and `+1`. A duration has only digits and at most one point.
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()
}

/// Reports whether the text is a host, or an IPv6 address in brackets, with or without a port.
pub(super) fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
        Some((v6, "")) => return v6.parse::<Ipv6Addr>().is_ok(),
        Some((v6, port)) => match port.strip_prefix(':') {
            Some(port) if v6.parse::<Ipv6Addr>().is_ok() => ("v6", Some(port)),
            _ => return false,
        },
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let good_host = !host.is_empty() && host.chars().all(|c| c.is_alphanumeric() || "-._".contains(c));
    good_host && port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Reports whether the text is like `tcp://10.43.106.12:443`. The kubelet sets `<SERVICE>_PORT` to this for each Service of a pod's
/// namespace, and Docker sets `<LINK>_PORT`.
pub(super) fn is_service_link(text: &str) -> bool {
    let Some((scheme, address)) = text.split_once("://") else { return false };
    let has_port = address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    ["tcp", "udp", "sctp"].contains(&scheme) && has_port && is_authority(address)
}

/// `by` and `place` are for the message.
pub(super) fn check_certificate(by: &str, place: &str, pem: &[u8]) -> Result<(), ConfigError> {
    let found = CertificateDer::pem_slice_iter(pem).next().and_then(Result::ok);
    found.map(|_| ()).ok_or_else(|| ConfigError(format!("{by}: no certificate in PEM form in {place}")))
}

pub(super) fn check_private_key(by: &str, place: &str, pem: &[u8]) -> Result<(), ConfigError> {
    let found = PrivateKeyDer::from_pem_slice(pem);
    found.map(|_| ()).map_err(|_| ConfigError(format!("{by}: no unencrypted private key in PEM form in {place}")))
}

/// Reports whether Go's `strconv.ParseBool` accepts the text.
pub(super) fn is_go_bool(text: &str) -> bool {
    ["1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"].contains(&text)
}

pub const RATES: &str = "a number from 1 to 10000";

/// Parses a rate in packets a second.
pub fn rate(text: &str) -> Option<u32> {
    text.parse().ok().filter(|rate| (1..=10_000).contains(rate))
}

/// Parses as Go's `strconv.ParseInt` with base 0: a prefix gives the base, and underscores may separate digits.
pub(super) fn go_int(text: &str) -> Option<i64> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => ("-", &text[1..]),
        b'+' => ("", &text[1..]),
        _ => ("", text),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, lower.as_str()),
    };
    let digits = digits.replace('_', "");
    if digits.starts_with(['+', '-']) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{digits}"), base).ok()
}

/// Checks as Go's `strconv.ParseFloat` with 32 bits, except for hexadecimal floats, which manifests do not contain.
pub(super) fn is_go_float32(text: &str) -> bool {
    let named = text.trim_start_matches(['+', '-']).starts_with(['i', 'I', 'n', 'N']);
    text.parse::<f32>().is_ok_and(|number| named || number.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in [("2s", 2000), ("500ms", 500), ("2", 2000), ("1.5s", 1500), ("0", 0)] {
            assert_eq!(duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "ms", "-1", "+1", "1e3", "inf", "nan", "1m", "2 s", "1.2.3"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn service_links() {
        for text in ["tcp://10.43.106.12:443", "udp://10.0.0.10:53", "sctp://10.0.0.1:1", "tcp://[fd00::1]:443", "tcp://db:5432"] {
            assert!(is_service_link(text), "{text}");
        }
        for text in ["9009", "tcp", "tcp://", "tcp://10.0.0.1", "tcp://10.0.0.1:x", "tcp://[fd00::1]", "tcp://:80", "http://10.0.0.1:80"] {
            assert!(!is_service_link(text), "{text}");
        }
    }

    #[test]
    fn gos_numbers() {
        for (text, number) in [("5", 5), ("-5", -5), ("+5", 5), ("0x1F", 31), ("0b11", 3), ("0o17", 15), ("017", 15), ("1_000", 1000)] {
            assert_eq!(go_int(text), Some(number), "{text}");
        }
        for text in ["", "-", "x", "08", "1.5", "--5", "0x-5", "99999999999999999999"] {
            assert_eq!(go_int(text), None, "{text}");
        }
        for text in ["1", "1.5", "-1e5", ".5", "inf", "NaN", "+Inf"] {
            assert!(is_go_float32(text), "{text}");
        }
        for text in ["", "x", "1e99", "1,5"] {
            assert!(!is_go_float32(text), "{text}");
        }
    }
}
