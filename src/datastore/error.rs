//! What can go wrong between us and a datastore, each in one line that says where, what and what to do about it; pure.

use std::fmt;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub(crate) kind: ErrorKind,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// Where the server is or what proves who we are cannot be had: files, programs, PEM.
    Access,
    Unreachable,
    TimedOut,
    Tls,
    /// Our token or certificate is not accepted, or not any more; a new one may help.
    Unauthorized,
    WrongPassword,
    Denied,
    /// The server does not have the API, or etcd's JSON gateway.
    Absent,
    /// The position asked for is gone, or not there yet.
    Expired,
    /// The server is there and cannot serve at present: no leader, stopping, overloaded.
    Busy {
        retry_after: Option<Duration>,
    },
    Refused,
    /// More than can be true, or without end.
    TooMuch,
    /// An answer that such a server does not give.
    Garbled,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Error { kind, text: text.into() }
    }

    /// One that is told alike of each `server`, which messages name as in `etcd at https://host:2379`.
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
