//! HTTP as the clients of both datastores speak it: agents, time-outs, and what a broken connection means. Opens no connection itself.

use std::fmt;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::tls::TlsConfig;
use ureq::{Agent, Proxy, RequestBuilder};

use super::error::{Error, ErrorKind};
use super::follow::{Ended, LARGEST_FRAME};
use super::tls::{self, Hints};

/// How much of an error's body is read.
pub(crate) const LARGEST_ERROR: u64 = 64 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For a connection, including the TLS handshake.
    pub connect: Duration,
    /// For an answer to begin, and between two reads of it.
    pub answer: Duration,
    pub whole: Duration,
    /// Silence after which a watch's connection is taken for dead, and the watch opened again where it ended.
    pub idle: Duration,
    /// For a whole list, of all its pages and values.
    pub list: Duration,
    /// Keys or objects on one page of a list.
    pub page: u32,
}

/// What the clients of both datastores say of what goes wrong.
pub(crate) trait Requester {
    /// Who is asked, as messages name it.
    fn server(&self) -> String;

    fn limits(&self) -> Limits;

    fn broken(&self, error: &ureq::Error) -> Error;

    fn error(&self, kind: ErrorKind, why: impl fmt::Display) -> Error {
        Error::at(&self.server(), kind, why)
    }

    /// An answer that such a server does not give.
    fn garbled(&self, why: impl fmt::Display) -> Error {
        self.error(ErrorKind::Garbled, why)
    }

    /// Whether a list that began then may go on.
    fn in_time(&self, began: Instant) -> Result<(), Error> {
        let limit = self.limits().list;
        let error = || self.error(ErrorKind::TooMuch, format_args!("a list that did not end within {limit:?}"));
        if began.elapsed() < limit { Ok(()) } else { Err(error()) }
    }

    /// Why there is no next `frame`, as the server's words call it, of a watch; or that another list is cheaper than a frame so large.
    fn interrupted(&self, error: io::Error, frame: &str) -> Result<Error, Ended> {
        match error.kind() {
            io::ErrorKind::FileTooLarge => Err(Ended::Relist(format!("a {frame} of the watch is larger than {LARGEST_FRAME} bytes"))),
            io::ErrorKind::InvalidData => Ok(self.garbled("a watch that is not a stream of JSON objects")),
            _ => Ok(self.broken(&error.into())),
        }
    }
}

/// Both datastores are inside the cluster: the environment's proxy for the outside is no way there, only one that is named for them.
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

/// Bounds `request` in time; the answer of a watch may take for ever as long as something comes.
pub(crate) fn timed<B>(request: RequestBuilder<B>, limits: Limits, is_watch: bool) -> RequestBuilder<B> {
    let pause = if is_watch { limits.idle } else { limits.answer };
    request.config().timeout_per_read(Some(pause)).timeout_recv_body((!is_watch).then_some(limits.whole)).build()
}

/// The text of an answer that is an error. What arrived of it is good enough: the status is known.
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
