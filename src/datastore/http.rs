//! HTTP for the clients of both datastores: agents, timeouts, and the meaning of a broken connection. Opens no connection itself.

use std::fmt;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::tls::TlsConfig;
use ureq::{Agent, Proxy, RequestBuilder};

use super::error::{Error, ErrorKind};
use super::follow::{Ended, LARGEST_FRAME};
use super::tls::{self, Hints};

/// The maximum that is read of an error's body.
pub(crate) const LARGEST_ERROR: u64 = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For a connection, including the TLS handshake.
    pub connect: Duration,
    /// For an answer to begin, and between two reads of it.
    pub answer: Duration,
    pub whole: Duration,
    /// Silence after which a watch's connection is considered dead, and the watch is resumed where it ended.
    pub idle: Duration,
    /// For a whole list, including all its pages and values.
    pub list: Duration,
    /// Keys or objects on one page of a list.
    pub page: u32,
}

/// Errors that the clients of both datastores have in common.
pub(crate) trait Requester {
    /// The server's name in messages.
    fn server(&self) -> String;

    fn limits(&self) -> Limits;

    fn broken(&self, error: &ureq::Error) -> Error;

    fn error(&self, kind: ErrorKind, why: impl fmt::Display) -> Error {
        Error::at(&self.server(), kind, why)
    }

    /// An answer that is not from such a server.
    fn garbled(&self, why: impl fmt::Display) -> Error {
        self.error(ErrorKind::Garbled, why)
    }

    /// Checks that a list that began then is still within its time limit.
    fn in_time(&self, began: Instant) -> Result<(), Error> {
        let limit = self.limits().list;
        let error = || self.error(ErrorKind::TooMuch, format_args!("a list that did not end within {limit:?}"));
        if began.elapsed() < limit { Ok(()) } else { Err(error()) }
    }

    /// Returns why there is no next `frame` (the server's word for it) of a watch. A frame that is too large ends the watch, because
    /// another list is cheaper.
    fn interrupted(&self, error: io::Error, frame: &str) -> Result<Error, Ended> {
        match error.kind() {
            io::ErrorKind::FileTooLarge => Err(Ended::Relist(format!("a {frame} of the watch is larger than {LARGEST_FRAME} bytes"))),
            io::ErrorKind::InvalidData => Ok(self.garbled("a watch that is not a stream of JSON objects")),
            _ => Ok(self.broken(&error.into())),
        }
    }
}

/// Both datastores are inside the cluster. The environment's proxy leads outside, so only a proxy configured for the datastore is used.
pub(crate) fn config(limits: Limits, proxy: Option<Proxy>, tls: Option<TlsConfig>) -> Config {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .proxy(proxy)
        .max_redirects(0)
        .user_agent(concat!("calico-accountant/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(limits.connect))
        .timeout_connect(Some(limits.connect))
        .timeout_send_request(Some(limits.answer))
        .timeout_send_body(Some(limits.answer))
        .timeout_recv_response(Some(limits.answer));
    match tls {
        Some(tls) => config.tls_config(tls).build(),
        None => config.build(),
    }
}

/// Sets the time limits of `request`. The answer of a watch may take forever as long as data arrives.
pub(crate) fn timed<B>(request: RequestBuilder<B>, limits: Limits, is_watch: bool) -> RequestBuilder<B> {
    let pause = if is_watch { limits.idle } else { limits.answer };
    request.config().timeout_per_read(Some(pause)).timeout_recv_body((!is_watch).then_some(limits.whole)).build()
}

/// Returns the text of an error's answer. A partial text is sufficient, because the status is known.
pub(crate) fn error_text(body: impl Read) -> String {
    let mut bytes = Vec::new();
    _ = body.take(LARGEST_ERROR).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) fn broken(server: &str, error: &ureq::Error, hints: &Hints) -> Error {
    let of_tls = match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()),
        _ => None,
    };
    match (of_tls, error) {
        (Some(error), _) => Error::at(server, ErrorKind::Tls, tls::explain(error, hints)),
        (None, ureq::Error::Timeout(_)) => Error::at(server, ErrorKind::TimedOut, ""),
        (None, ureq::Error::Io(error)) => Error::at(server, ErrorKind::Unreachable, error),
        (None, error) => Error::at(server, ErrorKind::Unreachable, error),
    }
}
