//! What Felix's chains are for, from their names: `cali-<kind>-<interface, policy, profile or group>`. Pure.
//! Upstream: `felix/rules/rule_defs.go`.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};

use super::{Direction, EndpointKind, Stage};
use crate::ruleset::Ruleset;

pub const CHAIN_PREFIX: &str = "cali-";
pub const INPUT: &str = "cali-INPUT";
pub const OUTPUT: &str = "cali-OUTPUT";
/// The static chain for forwarded traffic. On the eBPF dataplane, Felix puts its rules into the kernel's own chains instead
/// (`setUpIptablesBPF`).
pub const FORWARD: &str = "cali-FORWARD";
const POLICY: &str = "cali-pi-";

/// The longest chain name of iptables (Felix: `MaxChainNameLength`).
const MAX_CHAIN_NAME: usize = 28;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Endpoint(EndpointKind, Direction),
    Dispatch(Direction),
    Policy,
    Group,
    Profile,
    Failsafe,
    Other,
}

pub fn role(table: &str, chain: &str) -> Role {
    let host = |stage, direction| Role::Endpoint(EndpointKind::Host(stage), direction);
    match parts(chain) {
        Some(("tw", _)) => Role::Endpoint(EndpointKind::Workload, Direction::Ingress),
        Some(("fw", _)) => Role::Endpoint(EndpointKind::Workload, Direction::Egress),
        // These are named as the host sees it: "to host" leaves through the endpoint.
        Some(("th", _)) => host(host_stage(table, Direction::Egress), Direction::Egress),
        Some(("fh", _)) => host(host_stage(table, Direction::Ingress), Direction::Ingress),
        Some(("thfw", _)) => host(Stage::Forward, Direction::Egress),
        Some(("fhfw", _)) => host(Stage::Forward, Direction::Ingress),
        Some(("to", rest)) if rest.starts_with("wl-dispatch") => Role::Dispatch(Direction::Ingress),
        Some(("from", rest)) if rest.starts_with("wl-dispatch") => Role::Dispatch(Direction::Egress),
        Some(("pi" | "po", _)) => Role::Policy,
        Some(("gi" | "go", _)) => Role::Group,
        Some(("pri" | "pro", _)) => Role::Profile,
        Some(("failsafe", _)) => Role::Failsafe,
        _ => Role::Other,
    }
}

/// Whether the rules of a chain show what endpoints, policies and profiles decide.
pub fn tells_decisions(table: &str, chain: &str) -> bool {
    matches!(role(table, chain), Role::Endpoint(..) | Role::Policy | Role::Group | Role::Profile)
}

fn host_stage(table: &str, direction: Direction) -> Stage {
    match (table, direction) {
        ("raw", _) => Stage::Untracked,
        ("mangle", Direction::Ingress) => Stage::PreDnat,
        _ => Stage::Normal,
    }
}

/// Splits a chain's name after its kind.
fn parts(chain: &str) -> Option<(&str, &str)> {
    chain.strip_prefix(CHAIN_PREFIX)?.split_once('-')
}

/// Returns the rest of the name of a chain that is of one of these kinds.
fn behind<'a>(chain: &'a str, kinds: &[&str]) -> Option<&'a str> {
    parts(chain).filter(|(kind, _)| kinds.contains(kind)).map(|(_, rest)| rest)
}

/// Returns the interface of a workload's or host endpoint's chain, as it is in the chain's name.
pub fn interface_in(chain: &str) -> Option<&str> {
    behind(chain, &["tw", "fw", "th", "fh", "thfw", "fhfw"])
}

pub fn workload_in(chain: &str) -> Option<&str> {
    behind(chain, &["tw", "fw"])
}

/// Returns the interface of any endpoint chain. It is `*` for the host endpoint of all interfaces, which has too long a name for some
/// chains. Names of real interfaces are never hashed: at most 10 bytes of prefix and 15 of interface are less than 28.
pub(super) fn interface_of(chain: &str) -> Arc<str> {
    const ALL_INTERFACES: &str = "any-interface-at-all";
    let interface = interface_in(chain).unwrap_or_default();
    let (prefix, _) = chain.split_at(chain.len() - interface.len());
    match interface == ALL_INTERFACES || chain == chain_name(prefix, ALL_INTERFACES) {
        true => "*".into(),
        false => interface.into(),
    }
}

/// Whether a filter table has host endpoints. Only then do other tables have policies.
pub fn has_host_endpoints(filter: &Ruleset) -> bool {
    filter.chains().iter().any(|chain| behind(&chain.name, &["th", "fh"]).is_some())
}

pub(super) fn policy_id(chain: &str) -> Option<&str> {
    behind(chain, &["pi", "po"])
}

/// Returns a profile's name, unless it was too long for its chain.
pub(super) fn profile_name(chain: &str) -> Option<&str> {
    behind(chain, &["pri", "pro"]).filter(|name| !name.starts_with('_'))
}

/// Returns the direction of a policy's or group's chain.
pub fn direction_of(chain: &str) -> Direction {
    if matches!(parts(chain), Some(("po" | "go", _))) { Direction::Egress } else { Direction::Ingress }
}

/// Returns what [`policy_id`] gives for a policy with this id.
pub(super) fn limited_policy_id(id: &str) -> String {
    chain_name(POLICY, id).split_off(POLICY.len())
}

pub(super) fn chain_name(prefix: &str, id: &str) -> String {
    limited_id(prefix, id, MAX_CHAIN_NAME)
}

/// Returns `prefix + id` if that is not longer than `most`; otherwise `prefix`, `_` and a hash of `id`.
/// Upstream: `GetLengthLimitedID` in `libcalico-go/lib/hash/unique_id.go`, unchanged since 3.0.
pub fn limited_id(prefix: &str, id: &str, most: usize) -> String {
    let length = prefix.len() + id.len();
    if length < most || (length == most && !id.starts_with('_')) {
        return format!("{prefix}{id}");
    }
    let hash = URL_SAFE_NO_PAD.encode(digest(&SHA256, id.as_bytes()));
    let end = most.saturating_sub(1 + prefix.len()).min(hash.len());
    format!("{prefix}_{}", &hash[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_names_of_upstream_tests() {
        for (prefix, id, chain) in [
            ("cali-pi-", "long-policy-name-that-gets-hashed", "cali-pi-_ffOMcf6pikpiZ6hgKcW"),
            ("cali-pi-", "gnp/long-policy-name-that-gets-hashed", "cali-pi-_PymyFHQQg3808jiz1OJ"),
            ("cali-pi-", "/long-policy-name-that-gets-hashed", "cali-pi-_FJ9yUkNpzshVDh2n7mg"),
            ("cali-pri-", "long-policy-name-that-gets-hashed", "cali-pri-_ffOMcf6pikpiZ6hgKc"),
            ("cali-pi-", "tier1/pol1", "cali-pi-tier1/pol1"),
            ("cali-pi-", "abc/knp.default.abcd", "cali-pi-abc/knp.default.abcd"),
            ("cali-pi-", "default/knp.default.a", "cali-pi-_ULUuQ9liUVfLlOeTwgj"),
            ("cali-pri-", "ksa.kube-system.coredns", "cali-pri-_u2Tn2rSoAPffvE7JO6"),
            ("cali-thfw-", "any-interface-at-all", "cali-thfw-_Nqh4HyA73udmyanQI"),
        ] {
            assert_eq!(chain_name(prefix, id), chain);
        }
    }

    #[test]
    fn interfaces_of_chains() {
        for (chain, interface) in [
            ("cali-tw-cali751425ce827", "cali751425ce827"),
            ("cali-fh-eth1", "eth1"),
            ("cali-thfw-br-lan", "br-lan"),
            ("cali-fh-any-interface-at-all", "*"),
            ("cali-thfw-_Nqh4HyA73udmyanQI", "*"),
        ] {
            assert_eq!(&*interface_of(chain), interface);
        }
    }

    #[test]
    fn host_endpoints_are_seen_from_the_endpoint() {
        let host = |stage, direction| Role::Endpoint(EndpointKind::Host(stage), direction);
        assert_eq!(role("filter", "cali-th-eth0"), host(Stage::Normal, Direction::Egress));
        assert_eq!(role("mangle", "cali-th-eth0"), host(Stage::Normal, Direction::Egress));
        assert_eq!(role("mangle", "cali-fh-eth0"), host(Stage::PreDnat, Direction::Ingress));
        assert_eq!(role("raw", "cali-fh-eth0"), host(Stage::Untracked, Direction::Ingress));
        assert_eq!(role("filter", "cali-fhfw-eth0"), host(Stage::Forward, Direction::Ingress));
        assert_eq!(role("filter", "cali-to-wl-dispatch-4"), Role::Dispatch(Direction::Ingress));
        assert_eq!(role("filter", "cali-to-host-endpoint"), Role::Other);
    }
}
