//! The meaning of etcd's refusals, and what to do about them. Pure.

use super::messages::ErrorBody;
use crate::datastore::bounds::one_line;
use crate::datastore::error::{Error, ErrorKind};
use crate::datastore::follow::{Failure, Patience};

/// etcd's gateway connects to etcd's own gRPC port with the server certificate as client certificate.
const OWN_CERTIFICATE: &str = " (with --client-cert-auth, etcd's own certificate needs the extended key usage clientAuth too)";

pub(super) fn server(endpoint: &str) -> String {
    format!("etcd at {endpoint}")
}

/// Reports whether another member may succeed.
pub(super) fn elsewhere(error: &Error) -> bool {
    use ErrorKind::{Absent, Busy, Garbled, TimedOut, Tls, Unreachable};
    matches!(error.kind, Unreachable | TimedOut | Tls | Absent | Busy { .. } | Garbled)
}

pub(super) fn no_gateway(endpoint: &str) -> Error {
    let why = "serves no JSON gateway: start it with --enable-grpc-gateway=true (with etcd 3.4 and --config-file the file must say \
               so), and if it has --listen-client-http-urls, name one of those in ETCD_ENDPOINTS";
    Error::at(&server(endpoint), ErrorKind::Absent, why)
}

pub(super) fn bad_token(endpoint: &str, why: &str) -> Error {
    Error::at(&server(endpoint), ErrorKind::Unauthorized, format_args!("refuses the token it gave: {why}"))
}

pub(super) fn denied(endpoint: &str, user: Option<&str>, range: &str) -> Error {
    let why = match user {
        Some(user) => format!(
            "does not let user {user:?} read {range}: give a role of this user read permission, \
             etcdctl role grant-permission <role> --prefix=true read {range}"
        ),
        None => format!("does not let us read {range}: set ETCD_USERNAME and ETCD_PASSWORD"),
    };
    Error::at(&server(endpoint), ErrorKind::Denied, why)
}

pub(super) fn unavailable(endpoint: &str, why: &str) -> Error {
    let is_own = endpoint.starts_with("https:") && (why.contains("certificate") || why.contains("use of closed network connection"));
    let why = format_args!("{why}{}", if is_own { OWN_CERTIFICATE } else { "" });
    Error::at(&server(endpoint), ErrorKind::Busy { retry_after: None }, why)
}

/// Returns the error for an answer with this status and body. `user` and `range` are those of the request.
pub(super) fn answered(endpoint: &str, status: u16, body: &str, user: Option<&str>, range: &str) -> Error {
    let json = serde_json::from_str::<ErrorBody>(body).unwrap_or_default();
    let text = one_line(if json.text().is_empty() { body } else { json.text() });
    let at = |kind, why: &str| Error::at(&server(endpoint), kind, why);
    if text.starts_with("CommonName of client") {
        let why = "takes its users from the common names of client certificates, which its JSON gateway cannot do: use a client \
                   certificate without a common name (ETCD_CERT_FILE), and ETCD_USERNAME with ETCD_PASSWORD";
        return at(ErrorKind::Denied, why);
    }
    match refusal(&text, json.code(), status) {
        Refusal::Token if user.is_none() => at(ErrorKind::Denied, "has authentication enabled: set ETCD_USERNAME and ETCD_PASSWORD"),
        Refusal::Token => bad_token(endpoint, &text),
        Refusal::Password => {
            let user = user.unwrap_or_default();
            at(ErrorKind::WrongPassword, &format!("refuses user {user:?}: check ETCD_USERNAME and ETCD_PASSWORD"))
        }
        Refusal::Denied => denied(endpoint, user, range),
        Refusal::Revision => Error::new(ErrorKind::Expired, text),
        Refusal::Unavailable => unavailable(endpoint, &text),
        Refusal::Other => at(ErrorKind::Refused, &format!("{status}: {text}")),
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Token,
    Password,
    Denied,
    Revision,
    Unavailable,
    Other,
}

/// Classifies a refusal by its gRPC code, HTTP status and text. The text has priority: code 3 and HTTP 400 have many meanings.
pub(super) fn refusal(text: &str, code: u32, status: u16) -> Refusal {
    let says = |words: &str| text.contains(words);
    if says("user name is empty") || says("revision of auth store is old") || says("invalid auth token") || code == 16 || status == 401 {
        Refusal::Token
    } else if says("invalid user ID or password") {
        Refusal::Password
    } else if says("permission denied") || code == 7 || status == 403 {
        Refusal::Denied
    } else if says("has been compacted") || says("is a future revision") {
        Refusal::Revision
    } else if matches!(code, 1 | 4 | 8 | 14) || status == 429 || status >= 500 || says("no leader") {
        Refusal::Unavailable
    } else {
        Refusal::Other
    }
}

/// Attempts are cheap, except to log in (etcd hashes the password with bcrypt, which is slow on purpose) and to read again what is too
/// much.
pub(super) fn failure(error: Error) -> Failure {
    let patience = match error.kind {
        ErrorKind::WrongPassword | ErrorKind::Unauthorized | ErrorKind::TooMuch => Patience::Repair,
        _ => Patience::Away,
    };
    Failure { reason: error.to_string(), patience }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::bounds::LONGEST_REASON;

    fn said(status: u16, body: &str, user: Option<&str>) -> (ErrorKind, String) {
        let error = answered("http://etcd:2379", status, body, user, "/calico/");
        let text = error.to_string();
        (error.kind, text.strip_prefix("etcd at http://etcd:2379 ").unwrap_or(&text).to_owned())
    }

    const MAY_NOT_READ: &str = "does not let user \"reader\" read /calico/: give a role of this user read permission, \
                                etcdctl role grant-permission <role> --prefix=true read /calico/";

    #[test]
    fn answers_are_told_apart() {
        use ErrorKind::{Denied, Expired, Unauthorized, WrongPassword};
        let (reader, busy) = (Some("reader"), ErrorKind::Busy { retry_after: None });
        for (status, message, code, user, kind, text) in [
            (401, "invalid auth token", 16, reader, Unauthorized, "refuses the token it gave: invalid auth token"),
            (400, "user name is empty", 3, reader, Unauthorized, "refuses the token it gave: user name is empty"),
            (400, "user name is empty", 3, None, Denied, "has authentication enabled: set ETCD_USERNAME and ETCD_PASSWORD"),
            (403, "permission denied", 7, None, Denied, "does not let us read /calico/: set ETCD_USERNAME and ETCD_PASSWORD"),
            (403, "", 0, reader, Denied, MAY_NOT_READ),
            (400, "mvcc: required revision has been compacted", 11, reader, Expired, "mvcc: required revision has been compacted"),
            (503, "no leader", 14, reader, busy, "cannot serve: no leader"),
            (
                400,
                "authentication failed, invalid user ID or password",
                3,
                reader,
                WrongPassword,
                "refuses user \"reader\": check ETCD_USERNAME and ETCD_PASSWORD",
            ),
        ] {
            let body = serde_json::json!({ "error": message, "code": code }).to_string();
            assert_eq!(said(status, &body, user), (kind, text.to_owned()));
        }
        let (kind, text) = said(400, "CommonName of client sending a request against gateway will be ignored\n", reader);
        assert!(kind == Denied && text.starts_with("takes its users from the common names of client certificates"), "{text}");
        // Each login costs etcd a hash.
        assert_eq!([WrongPassword, Denied].map(|kind| failure(Error::new(kind, "")).patience), [Patience::Repair, Patience::Away]);
    }

    #[test]
    fn text_from_outside_is_cut() {
        let (kind, text) = said(421, &format!("{}\nsecond line", "é".repeat(500)), None);
        let why = text.strip_prefix("answered 421: ").unwrap();
        assert!(kind == ErrorKind::Refused && why.ends_with("é…") && why.len() <= LONGEST_REASON, "{why}");
    }
}
