//! Errors of the connection to a datastore, each in one line that says where it happened, what happened, and what to do about it. Pure.

use std::fmt;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub(crate) kind: ErrorKind,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// The server's address or the credentials cannot be obtained: files, programs, PEM.
    Access,
    Unreachable,
    TimedOut,
    Tls,
    /// Our token or certificate is not accepted, or no longer. A new one may help.
    Unauthorized,
    WrongPassword,
    Denied,
    /// The server lacks the API, or etcd's JSON gateway.
    Absent,
    /// The requested position no longer exists, or does not exist yet.
    Expired,
    /// The server is running but cannot serve at present: no leader, stopping, overloaded.
    Busy {
        retry_after: Option<Duration>,
    },
    Refused,
    /// Implausibly much data, or data without end.
    TooMuch,
    /// An answer that is not from such a server.
    Garbled,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Error { kind, text: text.into() }
    }

    /// Creates an error with the text that is common to all servers. Messages name the `server` as in `etcd at https://host:2379`.
    pub(crate) fn at(server: &str, kind: ErrorKind, why: impl fmt::Display) -> Self {
        let text = match kind {
            ErrorKind::Unreachable => format!("{server} is not reachable: {why}"),
            ErrorKind::TimedOut => format!("{server} did not answer in time"),
            ErrorKind::Tls => format!("no TLS connection to {server}: {why}"),
            ErrorKind::Busy { .. } => format!("{server} cannot serve: {why}"),
            ErrorKind::Refused => format!("{server} answered {why}"),
            ErrorKind::TooMuch => format!("{server} sends too much: {why}"),
            ErrorKind::Garbled => format!("{server} sent something unexpected: {why}"),
            _ => format!("{server} {why}"),
        };
        Error { kind, text }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}
