//! What can go wrong between us and etcd, each with one line that says where, what and what to do about it; pure.

use std::fmt;
use std::path::{Path, PathBuf};

use super::messages::ErrorBody;
use crate::datastore::bounds::one_line;
use crate::datastore::follow::{Failure, Patience};

/// Why etcd could not be asked, or did not answer the question.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// A TLS file cannot be read or does not hold what it should.
    File {
        /// The file.
        path: PathBuf,
        /// The variable that names it.
        variable: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// No connection, or it broke.
    Unreachable {
        /// The endpoint's URL.
        endpoint: String,
        /// The system's words.
        why: String,
    },
    /// No answer in time.
    TimedOut {
        /// The endpoint's URL.
        endpoint: String,
    },
    /// The TLS handshake failed.
    Tls {
        /// The endpoint's URL.
        endpoint: String,
        /// What failed and what to check.
        why: String,
    },
    /// The endpoint serves no JSON gateway under any of its names.
    NoGateway {
        /// The endpoint's URL.
        endpoint: String,
    },
    /// etcd takes users from certificates' common names, which its gateway cannot do.
    CommonName {
        /// The endpoint's URL.
        endpoint: String,
    },
    /// The token is missing, unknown or out of date; a new one may help.
    Token {
        /// The endpoint's URL.
        endpoint: String,
        /// etcd's words.
        why: String,
    },
    /// etcd wants a user and none is configured.
    NoUser {
        /// The endpoint's URL.
        endpoint: String,
    },
    /// User or password are wrong.
    WrongPassword {
        /// The endpoint's URL.
        endpoint: String,
        /// The user.
        user: String,
    },
    /// The user may not read the range.
    Denied {
        /// The endpoint's URL.
        endpoint: String,
        /// The user, if there is one.
        user: Option<String>,
        /// The prefix of the keys.
        range: String,
    },
    /// The revision asked for is gone, or not there yet.
    Revision {
        /// etcd's words.
        why: String,
    },
    /// The member cannot serve at present (no leader, stopping, overloaded).
    Unavailable {
        /// The endpoint's URL.
        endpoint: String,
        /// etcd's words.
        why: String,
    },
    /// Any other refusal.
    Refused {
        /// The endpoint's URL.
        endpoint: String,
        /// The HTTP status.
        status: u16,
        /// etcd's words.
        why: String,
    },
    /// More than can be true, or without end.
    TooMuch {
        /// The endpoint's URL.
        endpoint: String,
        /// Of what.
        why: String,
    },
    /// An answer that is not what etcd answers.
    Garbled {
        /// The endpoint's URL.
        endpoint: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Error {
    /// A TLS file that is no good.
    pub(super) fn file(path: &Path, variable: &'static str, why: impl fmt::Display) -> Self {
        Error::File { path: path.to_owned(), variable, why: why.to_string() }
    }

    /// Whether another member may do better.
    pub(super) fn elsewhere(&self) -> bool {
        use Error::{Garbled, NoGateway, TimedOut, Tls, Unavailable, Unreachable};
        matches!(self, Unreachable { .. } | TimedOut { .. } | Tls { .. } | NoGateway { .. } | Unavailable { .. } | Garbled { .. })
    }

    /// What the answer with this status and body says is wrong; `user` and `range` are those of the question.
    pub(super) fn answered(endpoint: &str, status: u16, body: &str, user: Option<&str>, range: &str) -> Self {
        let endpoint = endpoint.to_owned();
        let json = serde_json::from_str::<ErrorBody>(body).unwrap_or_default();
        let text = one_line(if json.text().is_empty() { body } else { json.text() });
        let user = user.map(str::to_owned);
        if text.starts_with("CommonName of client") {
            return Error::CommonName { endpoint };
        }
        match refusal(&text, json.code(), status) {
            Refusal::Token if user.is_none() => Error::NoUser { endpoint },
            Refusal::Token => Error::Token { endpoint, why: text },
            Refusal::Password => Error::WrongPassword { endpoint, user: user.unwrap_or_default() },
            Refusal::Denied => Error::Denied { endpoint, user, range: range.to_owned() },
            Refusal::Revision => Error::Revision { why: text },
            Refusal::Unavailable => Error::Unavailable { endpoint, why: text },
            Refusal::Other => Error::Refused { endpoint, status, why: text },
        }
    }
}

/// The kinds of refusal that are treated differently.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Token,
    Password,
    Denied,
    Revision,
    Unavailable,
    Other,
}

/// The kind of a refusal, by its gRPC code, HTTP status and text. The text comes first: code 3 and HTTP 400 mean many things.
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

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::File { path, variable, why } => write!(f, "{variable}: {}: {why}", path.display()),
            Error::Unreachable { endpoint, why } => write!(f, "etcd at {endpoint} is not reachable: {why}"),
            Error::TimedOut { endpoint } => write!(f, "etcd at {endpoint} did not answer in time"),
            Error::Tls { endpoint, why } => write!(f, "no TLS connection to etcd at {endpoint}: {why}"),
            Error::NoGateway { endpoint } => write!(
                f,
                "etcd at {endpoint} serves no JSON gateway: start it with --enable-grpc-gateway=true (with etcd 3.4 and --config-file \
                 the file must say so), and if it has --listen-client-http-urls, name one of those in ETCD_ENDPOINTS"
            ),
            Error::CommonName { endpoint } => write!(
                f,
                "etcd at {endpoint} takes its users from the common names of client certificates, which its JSON gateway cannot do: \
                 use a client certificate without a common name (ETCD_CERT_FILE), and ETCD_USERNAME with ETCD_PASSWORD"
            ),
            Error::Token { endpoint, why } => write!(f, "etcd at {endpoint} refuses the token it gave: {why}"),
            Error::NoUser { endpoint } => {
                write!(f, "etcd at {endpoint} has authentication enabled: set ETCD_USERNAME and ETCD_PASSWORD")
            }
            Error::WrongPassword { endpoint, user } => {
                write!(f, "etcd at {endpoint} refuses user {user:?}: check ETCD_USERNAME and ETCD_PASSWORD")
            }
            Error::Denied { endpoint, user, range } => match user {
                Some(user) => write!(
                    f,
                    "etcd at {endpoint} does not let user {user:?} read {range}: give a role of this user read \
                     permission, etcdctl role grant-permission <role> --prefix=true read {range}"
                ),
                None => write!(f, "etcd at {endpoint} does not let us read {range}: set ETCD_USERNAME and ETCD_PASSWORD"),
            },
            Error::Revision { why } => f.write_str(why),
            Error::Unavailable { endpoint, why } => {
                write!(f, "etcd at {endpoint} cannot serve: {why}")?;
                // etcd's gateway dials etcd's own gRPC port with the server certificate as client certificate.
                let itself =
                    endpoint.starts_with("https:") && (why.contains("certificate") || why.contains("use of closed network connection"));
                f.write_str(match itself {
                    true => " (with --client-cert-auth, etcd's own certificate needs the extended key usage clientAuth too)",
                    false => "",
                })
            }
            Error::Refused { endpoint, status, why } => write!(f, "etcd at {endpoint} answered {status}: {why}"),
            Error::TooMuch { endpoint, why } => write!(f, "etcd at {endpoint} sends too much: {why}"),
            Error::Garbled { endpoint, why } => write!(f, "etcd at {endpoint} sent something unexpected: {why}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let patience = match error {
            // The next attempt logs in, for which etcd hashes the password with bcrypt: slow on purpose.
            Error::WrongPassword { .. } | Error::Token { .. } => Patience::Repair,
            // Each attempt is as much work as the one before.
            Error::TooMuch { .. } => Patience::Repair,
            _ => Patience::Away,
        };
        Failure { reason: error.to_string(), patience }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::bounds::LONGEST_REASON;

    const AT: &str = "http://etcd:2379";

    fn answered(status: u16, body: &str) -> Error {
        Error::answered(AT, status, body, Some("reader"), "/calico/")
    }

    #[test]
    fn answers_are_told_apart() {
        let why = "etcdserver: invalid auth token".to_owned();
        let body = r#"{"error":"etcdserver: invalid auth token","message":"etcdserver: invalid auth token","code":16}"#;
        assert_eq!(answered(401, body), Error::Token { endpoint: AT.into(), why });
        let body = r#"{"error":"etcdserver: permission denied","code":7}"#;
        let denied = Error::Denied { endpoint: AT.into(), user: Some("reader".into()), range: "/calico/".into() };
        assert_eq!(answered(403, body), denied);
        let body = r#"{"code": 11, "message": "etcdserver: mvcc: required revision has been compacted"}"#;
        assert!(matches!(answered(400, body), Error::Revision { .. }));
        let body = "CommonName of client sending a request against gateway will be ignored and not used as expected\n";
        assert_eq!(answered(400, body), Error::CommonName { endpoint: AT.into() });
        let body = r#"{"error":"etcdserver: authentication failed, invalid user ID or password","code":3}"#;
        assert!(matches!(answered(400, body), Error::WrongPassword { .. }));
        assert_eq!(Failure::from(answered(400, body)).patience, Patience::Repair, "each attempt costs etcd a hash");
        assert!(matches!(answered(503, r#"{"error":"etcdserver: no leader","code":14}"#), Error::Unavailable { .. }));
        let body = r#"{"error":"etcdserver: user name is empty","code":3}"#;
        assert!(matches!(answered(400, body), Error::Token { .. }));
        assert_eq!(Error::answered(AT, 400, body, None, "/calico/"), Error::NoUser { endpoint: AT.into() });
    }

    #[test]
    fn text_from_outside_is_cut() {
        let Error::Refused { status: 421, why, .. } = answered(421, &format!("{}\nsecond line", "é".repeat(500))) else {
            panic!("not a plain refusal");
        };
        assert!(why.ends_with("é…") && why.len() <= LONGEST_REASON, "{why}");
    }

    #[test]
    fn a_denial_names_user_and_range() {
        let text = answered(403, "").to_string();
        assert!(text.contains("\"reader\"") && text.contains("/calico/") && !text.contains('\n'), "{text}");
    }
}
