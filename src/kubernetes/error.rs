//! The meaning of the API server's refusals, and what to do about them. Pure.

use std::time::Duration;

use super::messages::Status;
use crate::datastore::bounds::one_line;
use crate::datastore::error::{Error, ErrorKind};
use crate::datastore::follow::{Failure, Patience};

pub(super) fn server(url: &str) -> String {
    format!("the API server at {url}")
}

/// The request, as far as errors mention it.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub url: &'a str,
    pub verb: &'a str,
    pub resource: &'a str,
    pub token: bool,
}

/// Returns the error for an answer with this status, `Retry-After` and body.
pub(super) fn answered(asked: Asked<'_>, code: u16, retry_after: Option<u32>, body: &str) -> Error {
    // Some bodies are plain text, and some statuses lack half of their fields.
    let mut status = serde_json::from_str::<Status>(body).unwrap_or_default();
    if status.message.is_empty() {
        status.message = body.trim().lines().next().unwrap_or_default().to_owned();
    }
    status.code = code;
    said(asked, &status, retry_after)
}

pub(super) fn said(asked: Asked<'_>, status: &Status, retry_after: Option<u32>) -> Error {
    let Asked { url, verb, resource, token } = asked;
    let why = one_line(&status.message);
    let at = |kind, why: &str| Error::at(&server(url), kind, why);
    match status.code {
        _ if status.expired() => Error::new(ErrorKind::Expired, why),
        401 => unauthorized(url, token),
        403 => {
            let advice = match why.contains("\"system:anonymous\"") {
                true => "no token or certificate of ours was accepted",
                false => "give this user a ClusterRole that may list and watch it",
            };
            at(ErrorKind::Denied, &format!("does not let us {verb} {resource}: {advice} ({why})"))
        }
        404 => at(ErrorKind::Absent, &format!("has no {resource}")),
        429 | 500.. => {
            let seconds = retry_after.or(Some(status.retry_after()).filter(|&seconds| seconds > 0));
            at(ErrorKind::Busy { retry_after: seconds.map(|seconds| Duration::from_secs(seconds.into())) }, &why)
        }
        status => at(ErrorKind::Refused, &format!("{status}: {why}")),
    }
}

/// `token` says whether one was sent.
pub(super) fn unauthorized(url: &str, token: bool) -> Error {
    let why = match token {
        true => "does not accept our token: it has expired, or its service account is gone",
        false => "does not accept our credentials: there is no token, check the client certificate",
    };
    Error::at(&server(url), ErrorKind::Unauthorized, why)
}

pub(super) fn failure(error: Error) -> Failure {
    use ErrorKind::{Absent, Access, Busy, Denied, Expired, Garbled, Refused, TimedOut, Tls, TooMuch, Unauthorized, Unreachable};
    let patience = match error.kind {
        Busy { retry_after: Some(delay) } => Patience::Told(delay),
        Unreachable | TimedOut | Expired | Busy { .. } | Garbled => Patience::Away,
        // Files are repaired and rights granted within minutes, or nobody is available to do it.
        Access | Unauthorized | ErrorKind::WrongPassword | Denied => Patience::Rights,
        Tls | Absent | Refused | TooMuch => Patience::Repair,
    };
    Failure { reason: error.to_string(), patience }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::bounds::LONGEST_REASON;

    fn of(code: u16, retry_after: Option<u32>, body: &str) -> (ErrorKind, String) {
        let asked = Asked { url: "https://k", verb: "list", resource: "pods", token: true };
        let error = answered(asked, code, retry_after, body);
        let text = error.to_string();
        (error.kind, text.strip_prefix("the API server at https://k ").unwrap_or(&text).to_owned())
    }

    #[test]
    fn answers_are_told_apart() {
        use ErrorKind::{Absent, Expired, Refused, Unauthorized};
        let busy = |seconds: Option<u64>| ErrorKind::Busy { retry_after: seconds.map(Duration::from_secs) };
        let initializing = r#"{"message":"(re)initializing","reason":"TooManyRequests","details":{"retryAfterSeconds":1},"code":429}"#;
        let expired = r#"{"reason":"Expired","message":"too old","metadata":{"continue":"x"}}"#;
        for (code, retry_after, body, kind, text) in [
            (401, None, "", Unauthorized, "does not accept our token: it has expired, or its service account is gone"),
            (404, None, "404 page not found\n", Absent, "has no pods"),
            (429, None, initializing, busy(Some(1)), "cannot serve: (re)initializing"),
            (429, Some(1), "slow down", busy(Some(1)), "cannot serve: slow down"),
            (504, None, r#"{"code":504}"#, busy(None), r#"cannot serve: {"code":504}"#),
            (410, None, expired, Expired, "too old"),
            (302, None, "<html>", Refused, "answered 302: <html>"),
        ] {
            assert_eq!(of(code, retry_after, body), (kind, text.to_owned()));
        }
    }

    #[test]
    fn a_denial_names_user_verb_and_resource() {
        for (user, advice) in [
            ("system:serviceaccount:kube-system:nobody", "give this user a ClusterRole that may list and watch it"),
            ("system:anonymous", "no token or certificate of ours was accepted"),
        ] {
            let why = format!(r#"pods is forbidden: User "{user}" cannot list resource "pods""#);
            let text = format!("does not let us list pods: {advice} ({why})");
            assert_eq!(of(403, None, &serde_json::json!({ "message": why }).to_string()), (ErrorKind::Denied, text));
        }
    }

    #[test]
    fn text_from_outside_is_cut() {
        let (kind, text) = of(418, None, &format!("\u{1b}[31m{}\nsecond", "é".repeat(500)));
        let why = text.strip_prefix("answered 418: ").unwrap();
        assert!(kind == ErrorKind::Refused && why.starts_with("[31mé") && why.ends_with("é…") && why.len() <= LONGEST_REASON, "{why}");
    }
}
