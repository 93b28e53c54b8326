//! What can go wrong between us and the API server, each with one line that says where, what and what to do about it; pure.

use std::fmt;
use std::time::Duration;

use super::messages::Status;
use crate::datastore::bounds::one_line;
use crate::datastore::follow::{Failure, Patience};

/// Why the API server could not be asked, or did not answer the question.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// Where the server is or what proves who we are cannot be had: files, programs, PEM.
    Access {
        /// What is wrong, and with what.
        why: String,
    },
    /// No connection, or it broke.
    Unreachable {
        /// The server's URL.
        server: String,
        /// The system's words.
        why: String,
    },
    /// No answer in time.
    TimedOut {
        /// The server's URL.
        server: String,
    },
    /// The TLS handshake failed.
    Tls {
        /// The server's URL.
        server: String,
        /// What failed and what to check.
        why: String,
    },
    /// 401: the token or certificate is not accepted, or not any more.
    Unauthorized {
        /// The server's URL.
        server: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// 403: the user may not do this.
    Denied {
        /// The server's URL.
        server: String,
        /// What was asked for: `list`, `watch`.
        verb: &'static str,
        /// What it was to be done to.
        resource: String,
        /// The server's words, which name the user.
        why: String,
    },
    /// 404: the server has no such API.
    Absent {
        /// The server's URL.
        server: String,
        /// What it does not have.
        resource: String,
    },
    /// The position asked for is gone, or not there yet.
    Expired {
        /// The server's words.
        why: String,
    },
    /// The server is there and cannot serve at present.
    Busy {
        /// The server's URL.
        server: String,
        /// The server's words.
        why: String,
        /// When to ask again, if it said so.
        retry_after: Option<Duration>,
    },
    /// Any other refusal.
    Refused {
        /// The server's URL.
        server: String,
        /// The HTTP status.
        status: u16,
        /// The server's words.
        why: String,
    },
    /// More than can be true, or without end.
    TooMuch {
        /// The server's URL.
        server: String,
        /// Of what.
        why: String,
    },
    /// An answer that is not what an API server answers.
    Garbled {
        /// The server's URL.
        server: String,
        /// What is wrong with it.
        why: String,
    },
}

/// What was asked, as far as errors tell it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// The server's URL.
    pub server: &'a str,
    /// `list` or `watch`.
    pub verb: &'static str,
    /// Of what.
    pub resource: &'a str,
    /// Whether with a token.
    pub token: bool,
}

impl Error {
    /// What an answer with this status, `Retry-After` and body says is wrong.
    pub(super) fn answered(asked: Asked<'_>, code: u16, retry_after: Option<u32>, body: &str) -> Self {
        // Some bodies are plain text, some statuses lack half of their fields.
        let mut status = serde_json::from_str::<Status>(body).unwrap_or_default();
        if status.message.is_empty() {
            status.message = body.trim().lines().next().unwrap_or_default().to_owned();
        }
        status.code = code;
        Self::said(asked, &status, retry_after)
    }

    /// What a [`Status`] says is wrong.
    pub(super) fn said(asked: Asked<'_>, status: &Status, retry_after: Option<u32>) -> Self {
        let (server, resource, why) = (asked.server.to_owned(), asked.resource.to_owned(), one_line(&status.message));
        let retry_after = retry_after.or(Some(status.retry_after()).filter(|&seconds| seconds > 0));
        match status.code {
            _ if status.expired() => Error::Expired { why },
            401 => Error::Unauthorized { server, token: asked.token },
            403 => Error::Denied { server, verb: asked.verb, resource, why },
            404 => Error::Absent { server, resource },
            429 | 500.. => Error::Busy { server, why, retry_after: retry_after.map(|seconds| Duration::from_secs(seconds.into())) },
            status => Error::Refused { server, status, why },
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Access { why } => f.write_str(why),
            Error::Unreachable { server, why } => write!(f, "the API server at {server} is not reachable: {why}"),
            Error::TimedOut { server } => write!(f, "the API server at {server} did not answer in time"),
            Error::Tls { server, why } => write!(f, "no TLS connection to the API server at {server}: {why}"),
            Error::Unauthorized { server, token: true } => {
                write!(f, "the API server at {server} does not accept our token: it has expired, or its service account is gone")
            }
            Error::Unauthorized { server, token: false } => {
                write!(f, "the API server at {server} does not accept our credentials: there is no token, check the client certificate")
            }
            Error::Denied { server, verb, resource, why } => {
                write!(f, "the API server at {server} does not let us {verb} {resource}: ")?;
                match why.contains("\"system:anonymous\"") {
                    true => write!(f, "no token or certificate of ours was accepted ({why})"),
                    false => write!(f, "give this user a ClusterRole that may list and watch it ({why})"),
                }
            }
            Error::Absent { server, resource } => write!(f, "the API server at {server} has no {resource}"),
            Error::Expired { why } => f.write_str(why),
            Error::Busy { server, why, .. } => write!(f, "the API server at {server} cannot serve: {why}"),
            Error::Refused { server, status, why } => write!(f, "the API server at {server} answered {status}: {why}"),
            Error::TooMuch { server, why } => write!(f, "the API server at {server} sends too much: {why}"),
            Error::Garbled { server, why } => write!(f, "the API server at {server} sent something unexpected: {why}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let patience = match error {
            Error::Busy { retry_after: Some(delay), .. } => Patience::Told(delay),
            Error::Unreachable { .. } | Error::TimedOut { .. } | Error::Expired { .. } | Error::Busy { .. } | Error::Garbled { .. } => {
                Patience::Away
            }
            // Files are looked at and rights given within minutes, or nobody is there to do it.
            Error::Access { .. } | Error::Unauthorized { .. } | Error::Denied { .. } => Patience::Rights,
            Error::Tls { .. } | Error::Absent { .. } | Error::Refused { .. } | Error::TooMuch { .. } => Patience::Repair,
        };
        Failure { reason: error.to_string(), patience }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::bounds::LONGEST_REASON;

    fn answered(code: u16, retry_after: Option<u32>, body: &str) -> Error {
        Error::answered(Asked { server: "https://k", verb: "list", resource: "pods", token: true }, code, retry_after, body)
    }

    #[test]
    fn answers_are_told_apart() {
        let body = r#"{"kind":"Status","message":"Unauthorized","reason":"Unauthorized","code":401}"#;
        assert_eq!(answered(401, None, body), Error::Unauthorized { server: "https://k".into(), token: true });
        assert_eq!(answered(404, None, "404 page not found\n"), Error::Absent { server: "https://k".into(), resource: "pods".into() });
        let body = r#"{"message":"storage is (re)initializing","reason":"TooManyRequests","details":{"retryAfterSeconds":1},"code":429}"#;
        let second = Some(Duration::from_secs(1));
        assert!(matches!(answered(429, None, body), Error::Busy { retry_after, .. } if retry_after == second));
        assert!(matches!(answered(429, Some(1), "slow down"), Error::Busy { retry_after, .. } if retry_after == second));
        assert!(matches!(answered(504, None, r#"{"metadata":{},"code":504}"#), Error::Busy { retry_after: None, .. }));
        assert!(matches!(answered(410, None, r#"{"reason":"Expired","metadata":{"continue":"x"}}"#), Error::Expired { .. }));
        assert!(matches!(answered(302, None, "<html>"), Error::Refused { status: 302, .. }));
    }

    #[test]
    fn a_denial_names_user_verb_and_resource() {
        let body = r#"{"message":"pods is forbidden: User \"system:serviceaccount:kube-system:nobody\" cannot list resource \"pods\"","code":403}"#;
        let text = answered(403, None, body).to_string();
        assert!(text.contains("list pods") && text.contains("kube-system:nobody") && !text.contains('\n'), "{text}");
        let body = r#"{"message":"pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\"","code":403}"#;
        assert!(answered(403, None, body).to_string().contains("no token"));
    }

    #[test]
    fn text_from_outside_is_cut() {
        let Error::Refused { why, .. } = answered(418, None, &format!("\u{1b}[31m{}\nsecond", "é".repeat(500))) else {
            panic!("not a plain refusal");
        };
        assert!(why.starts_with("[31mé") && why.ends_with("é…") && why.len() <= LONGEST_REASON, "{why}");
    }
}
