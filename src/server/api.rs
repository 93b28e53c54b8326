//! The page's JSON API: returns the answer for a path. Pure, apart from asking the [`Application`]. See `docs/api.md`.

use serde::Serialize;

use super::Application;
use crate::report::{Flows, Milliseconds, network_policies};

pub(super) const PREFIX: &str = "/api/v1/";
/// The paths whose answers depend on the query.
pub(super) const BY_QUERY: [&str; 3] = ["/api/v1/witnesses", "/api/v1/flows", "/api/v1/allow"];

/// The paths as an error lists them.
const PATHS: &str =
    "status, workloads, workloads/{interface}, drops, policies, policies/{policy}, host-endpoints, witnesses, flows and allow";

/// `target` is the path with its query.
pub(super) fn answer(app: &dyn Application, target: &str) -> (u16, Vec<u8>) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut parts = path.strip_prefix(PREFIX).unwrap_or_default().split('/');
    let (what, which, rest) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    match (what, which, rest) {
        ("status", None, None) => json(&app.report().status),
        ("workloads", None, None) => json(&app.report().workloads()),
        ("workloads", Some(interface), None) => one(interface, "no workload has rules on interface", |name| app.report().workload(name)),
        ("drops", None, None) => json(&app.past()),
        ("policies", None, None) => json(&app.report().policies()),
        ("policies", Some(policy), None) => one(policy, "no policy here is called", |name| app.policy(name)),
        ("host-endpoints", None, None) => json(&app.report().host_endpoints()),
        ("witnesses", None, None) => witnesses(app, query),
        ("flows", None, None) => json(&app.witnesses(None).flows(field(query, "interface").as_deref(), field(query, "policy").as_deref())),
        ("allow", None, None) => allow(app, query),
        _ => failed(404, &format!("not found; there are {PATHS}")),
    }
}

fn one<T: Serialize>(encoded: &str, what: &str, find: impl FnOnce(&str) -> Option<T>) -> (u16, Vec<u8>) {
    let Some(name) = decoded(encoded) else { return failed(404, &format!("this is not well encoded: {encoded:?}")) };
    find(&name).map_or_else(|| failed(404, &format!("{what} {name:?}")), |answer| json(&answer))
}

/// Returns the value of a field of the query.
fn field(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| decoded(pair.strip_prefix(name)?.strip_prefix('=')?))
}

fn witnesses(app: &dyn Application, query: &str) -> (u16, Vec<u8>) {
    let since = field(query, "since").map(|since| since.parse::<f64>().ok().filter(|seconds| seconds.is_finite() && *seconds >= 0.0));
    match since {
        Some(None) => failed(400, "since: expected seconds since 1970, as in time"),
        seconds => json(&app.witnesses(seconds.flatten().map(|seconds| (seconds * 1e3).round() as Milliseconds))),
    }
}

/// Returns policies that would accept the packets that a policy was observed to accept.
fn allow(app: &dyn Application, query: &str) -> (u16, Vec<u8>) {
    let Some(policy) = field(query, "policy") else {
        return failed(400, "policy: expected the name of a policy, as in /api/v1/policies");
    };
    let answer = app.witnesses(None);
    let flows = Flows::of(answer.witnesses.iter().map(|line| &**line).filter(|line| line.flow.is_accepted_by(&policy)));
    json(&serde_json::json!({ "policy": policy, "packets": flows.packets, "network_policies": network_policies(flows.iter()) }))
}

fn json(answer: &impl Serialize) -> (u16, Vec<u8>) {
    serde_json::to_vec(answer).map_or_else(|error| failed(500, &error.to_string()), |json| (200, json))
}

fn failed(status: u16, error: &str) -> (u16, Vec<u8>) {
    (status, serde_json::json!({ "error": error }).to_string().into_bytes())
}

/// Decodes `%2F` and the like.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = after.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_decoded() {
        for (text, expected) in [("cali1", "cali1"), ("a%2fb%25", "a/b%"), ("%C3%A4", "ä")] {
            assert_eq!(decoded(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["%", "%+1", "%ff", "%4"] {
            assert_eq!(decoded(text), None, "{text}");
        }
    }
}
