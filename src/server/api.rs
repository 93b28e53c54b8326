//! The JSON behind the page: a path → an answer of the API. Pure, apart from asking the [`Application`]. See `docs/api.md`.

use serde::Serialize;

use super::Application;

pub(super) const PREFIX: &str = "/api/v1/";

pub(super) fn answer(app: &dyn Application, path: &str) -> (u16, Vec<u8>) {
    let mut parts = path.strip_prefix(PREFIX).unwrap_or_default().split('/');
    let (what, which, rest) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    match (what, which, rest) {
        ("status", None, None) => json(&app.report().status),
        ("workloads", None, None) => json(&app.report().workloads()),
        ("workloads", Some(interface), None) => one(interface, "no workload has rules on interface", |name| app.report().workload(name)),
        ("drops", None, None) => json(&app.past()),
        ("policies", None, None) => json(&app.report().policies()),
        ("policies", Some(policy), None) => one(policy, "no policy here is called", |name| app.report().policy(name)),
        ("host-endpoints", None, None) => json(&app.report().host_endpoints()),
        _ => failed(
            404,
            "not found; there are status, workloads, workloads/{interface}, drops, policies, policies/{policy} and host-endpoints",
        ),
    }
}

fn one<T: Serialize>(encoded: &str, what: &str, find: impl FnOnce(&str) -> Option<T>) -> (u16, Vec<u8>) {
    let Some(name) = decoded(encoded) else { return failed(404, &format!("this is not well encoded: {encoded:?}")) };
    find(&name).map_or_else(|| failed(404, &format!("{what} {name:?}")), |answer| json(&answer))
}

fn json(answer: &impl Serialize) -> (u16, Vec<u8>) {
    serde_json::to_vec(answer).map_or_else(|error| failed(500, &error.to_string()), |json| (200, json))
}

fn failed(status: u16, error: &str) -> (u16, Vec<u8>) {
    (status, serde_json::json!({ "error": error }).to_string().into_bytes())
}

/// `%2F` and its like.
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
