//! Asks the API server: connection, credentials, compression. In come paths, out go streams of the answers' bytes; it opens
//! connections and asks the [`Access`].

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;
use ureq::http::header::{AUTHORIZATION, CONTENT_ENCODING, HOST, RETRY_AFTER};
use ureq::http::{Response, Uri};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Body, Proxy};

use super::access::Access;
use super::credentials::Credentials;
use super::error::{Asked, Error};
use super::tls;

/// How much of an error's body is read.
const LARGEST_ERROR: u64 = 64 << 10;
/// A token that was refused is tried again after this, in case the server was wrong; twice as long each time.
const FIRST_HOLD: Duration = Duration::from_secs(1);
/// At most.
const LONGEST_HOLD: Duration = Duration::from_secs(30);

/// How long to wait for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For a connection, including the TLS handshake.
    pub connect: Duration,
    /// For an answer to begin, and between two reads of it.
    pub answer: Duration,
    /// For a whole answer.
    pub whole: Duration,
    /// Silence after which a watch's connection is taken for dead, and opened anew where it ended. Longer than the minute
    /// between two bookmarks.
    pub idle: Duration,
    /// How long the server is asked to keep a watch open.
    pub watch: Duration,
    /// Silence, over several watches, after which it is listed again: a server that was restored from a backup says nothing.
    pub silence: Duration,
    /// The same after an outage, when that is more likely.
    pub doubt: Duration,
    /// How often to look for an API that the server does not have.
    pub absent: Duration,
    /// For a whole list, of all its pages.
    pub list: Duration,
    /// Objects on one page of a list, where the server makes pages.
    pub page: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(30),
            whole: Duration::from_secs(120),
            idle: Duration::from_secs(90),
            // What Kubernetes' own clients ask for is 5 to 10 minutes.
            watch: Duration::from_secs(300),
            silence: Duration::from_secs(300),
            doubt: Duration::from_secs(30),
            absent: Duration::from_secs(300),
            list: Duration::from_secs(300),
            page: 500,
        }
    }
}

/// A question to the API server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    /// With its query.
    pub path: &'a str,
    /// The representation that is wanted.
    pub accept: &'a str,
    /// `list` or `watch`.
    pub verb: &'static str,
    /// Of what, for messages.
    pub resource: &'a str,
    /// Whether the answer is a stream that ends late.
    pub stream: bool,
}

/// A client of one API server.
pub(super) struct Client {
    access: Arc<dyn Access>,
    limits: Limits,
    connection: Option<Connection>,
    refused: Option<Refusal>,
    /// Where the last question went.
    server: String,
}

struct Connection {
    credentials: Credentials,
    agent: Agent,
    /// Whether it has answered before: then a break may only mean that it was closed for being idle.
    used: bool,
}

/// Credentials that the server does not accept: not worth another question for a while.
struct Refusal {
    credentials: Credentials,
    since: Instant,
    hold: Duration,
}

impl Client {
    pub fn new(access: Arc<dyn Access>, limits: Limits) -> Self {
        Client { access, limits, connection: None, refused: None, server: String::new() }
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The server's URL, as of the last question.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Asks, and returns the stream of the answer's bytes.
    ///
    /// # Errors
    /// When the server cannot be reached, or refuses.
    pub fn get(&mut self, question: &Question<'_>) -> Result<Box<dyn Read>, Error> {
        let credentials = self.credentials()?;
        if self.held(&credentials) {
            return Err(self.unauthorized(&credentials));
        }
        match self.ask(&credentials, question) {
            Err(Error::Unauthorized { .. }) => self.again(credentials, question),
            other => {
                self.refused = None;
                other
            }
        }
    }

    /// Closes the connections.
    pub fn reconnect(&mut self) {
        self.connection = None;
    }

    /// The credentials were refused: with what replaced them, if something has.
    fn again(&mut self, refused: Credentials, question: &Question<'_>) -> Result<Box<dyn Read>, Error> {
        self.access.refused(&refused);
        let credentials = self.credentials()?;
        let answer = match credentials == refused {
            true => Err(self.unauthorized(&credentials)),
            false => self.ask(&credentials, question),
        };
        if matches!(answer, Err(Error::Unauthorized { .. })) {
            let hold = match &self.refused {
                Some(before) if before.credentials == credentials => before.hold.saturating_mul(2).min(LONGEST_HOLD),
                _ => FIRST_HOLD,
            };
            self.refused = Some(Refusal { credentials, since: Instant::now(), hold });
        }
        answer
    }

    fn held(&self, credentials: &Credentials) -> bool {
        self.refused.as_ref().is_some_and(|refusal| refusal.credentials == *credentials && refusal.since.elapsed() < refusal.hold)
    }

    fn unauthorized(&self, credentials: &Credentials) -> Error {
        Error::Unauthorized { server: credentials.server.clone(), token: credentials.token().is_some() }
    }

    fn credentials(&mut self) -> Result<Credentials, Error> {
        let credentials = self.access.current().map_err(|error| Error::Access { why: error.to_string() })?;
        self.server.clone_from(&credentials.server);
        Ok(credentials)
    }

    fn ask(&mut self, credentials: &Credentials, question: &Question<'_>) -> Result<Box<dyn Read>, Error> {
        let used = self.connect(credentials)?;
        let answer = match self.send(credentials, question) {
            // Idle connections are closed after a while, which is noticed only now.
            Err(Error::Unreachable { .. }) if used => {
                self.reconnect();
                self.connect(credentials)?;
                self.send(credentials, question)
            }
            other => other,
        };
        match (&answer, &mut self.connection) {
            (Ok(_), Some(connection)) => connection.used = true,
            _ => self.connection = None,
        }
        let response = answer?;
        match response.status().as_u16() {
            200 => Ok(decoded(response)),
            status => Err(self.answered(status, response, credentials, question)),
        }
    }

    /// Sees to it that there are connections with these credentials; whether they were used before.
    fn connect(&mut self, credentials: &Credentials) -> Result<bool, Error> {
        if let Some(connection) = self.connection.as_ref().filter(|connection| connection.credentials.same_connection(credentials)) {
            return Ok(connection.used);
        }
        let agent = self.agent(credentials)?;
        self.connection = Some(Connection { credentials: credentials.clone(), agent, used: false });
        Ok(false)
    }

    fn agent(&self, credentials: &Credentials) -> Result<Agent, Error> {
        let access = |why| Error::Access { why };
        let proxy = credentials.proxy.as_ref().map(|proxy| Proxy::new(proxy.reveal())).transpose();
        let proxy = proxy.map_err(|error| access(format!("the proxy for the API server cannot be used: {error}")))?;
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // As for etcd: the environment's proxy for the outside is no way to the inside. A kubeconfig may name one that is.
            .proxy(proxy)
            .max_redirects(0)
            .user_agent(concat!("calico-accountant/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(self.limits.connect))
            .timeout_connect(Some(self.limits.connect))
            .timeout_send_request(Some(self.limits.answer))
            .timeout_recv_response(Some(self.limits.answer));
        if credentials.server.starts_with("https:") {
            config = config.tls_config(tls::config(credentials).map_err(access)?);
        }
        let resolver = match &credentials.tls_server_name {
            Some(_) => {
                ServerName { server: Some(credentials.server.parse().map_err(|_| access(not_a_url(credentials)))?), ..Default::default() }
            }
            None => ServerName::default(),
        };
        Ok(Agent::with_parts(config.build(), DefaultConnector::default(), resolver))
    }

    fn send(&self, credentials: &Credentials, question: &Question<'_>) -> Result<Response<Body>, Error> {
        let Some(Connection { agent, .. }) = &self.connection else { return Err(self.broken(ureq::Error::ConnectionFailed)) };
        let (url, host) = address(credentials, question.path).ok_or_else(|| Error::Access { why: not_a_url(credentials) })?;
        let pause = if question.stream { self.limits.idle } else { self.limits.answer };
        let mut request = agent
            .get(url)
            .config()
            .timeout_per_read(Some(pause))
            .timeout_recv_body((!question.stream).then_some(self.limits.whole))
            .build()
            .header("Accept", question.accept)
            // A watch is never compressed: a proxy that does would hold back what happened.
            .header("Accept-Encoding", if question.stream { "identity" } else { "gzip" });
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        if let Some(authorization) = credentials.authorization() {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.call().map_err(|error| self.broken(error))
    }

    fn answered(&self, status: u16, response: Response<Body>, credentials: &Credentials, question: &Question<'_>) -> Error {
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let mut body = Vec::new();
        // What arrived of the text is good enough: the status is known.
        let _ = decoded(response).take(LARGEST_ERROR).read_to_end(&mut body);
        let asked = self.asked(question.verb, question.resource, credentials.token().is_some());
        Error::answered(asked, status, retry_after, &String::from_utf8_lossy(&body))
    }

    /// A question, as errors tell it.
    pub fn asked<'a>(&'a self, verb: &'static str, resource: &'a str, token: bool) -> Asked<'a> {
        Asked { server: &self.server, verb, resource, token }
    }

    /// Says what a transport's error means.
    pub fn broken(&self, error: ureq::Error) -> Error {
        let server = self.server.clone();
        let configured = self.connection.as_ref().is_some_and(|connection| connection.credentials.ca.is_some());
        match error {
            ureq::Error::Timeout(_) => Error::TimedOut { server },
            ureq::Error::Rustls(error) => Error::Tls { server, why: tls::explain(&error, configured) },
            ureq::Error::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(inner) => Error::Tls { server, why: tls::explain(inner, configured) },
                None => Error::Unreachable { server, why: error.to_string() },
            },
            other => Error::Unreachable { server, why: other.to_string() },
        }
    }

    /// Says what an error while reading JSON means.
    pub fn unreadable(&self, error: serde_json::Error) -> Error {
        match error.is_io() {
            true => self.broken(ureq::Error::from(io::Error::from(error))),
            false => self.garbled(error),
        }
    }

    /// An answer that is not what an API server answers.
    pub fn garbled(&self, why: impl ToString) -> Error {
        Error::Garbled { server: self.server.clone(), why: why.to_string() }
    }
}

fn not_a_url(credentials: &Credentials) -> String {
    format!("{:?} is not the URL of an API server", credentials.server)
}

fn decoded(response: Response<Body>) -> Box<dyn Read> {
    let gzip = response.headers().get(CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip");
    let body = response.into_body().into_reader();
    if gzip { Box::new(MultiGzDecoder::new(body)) } else { Box::new(body) }
}

/// The URL of `path`, and where its certificate has another name, that name in the URL and the host for the `Host` header.
fn address(credentials: &Credentials, path: &str) -> Option<(String, Option<String>)> {
    let Some(name) = &credentials.tls_server_name else { return Some((format!("{}{path}", credentials.server), None)) };
    let server: Uri = credentials.server.parse().ok()?;
    let host = server.authority()?.as_str();
    let port = server.port_u16().map_or_else(String::new, |port| format!(":{port}"));
    let prefix = server.path().trim_end_matches('/');
    Some((format!("{}://{name}{port}{prefix}{path}", server.scheme_str()?), Some(host.to_owned())))
}

/// Looks up the configured server, even where the URL has the name of its certificate instead: ureq checks the certificate
/// against the name in the URL.
#[derive(Debug, Default)]
struct ServerName {
    server: Option<Uri>,
    dns: DefaultResolver,
}

impl Resolver for ServerName {
    fn resolve(&self, uri: &Uri, config: &ureq::config::Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.dns.resolve(self.server.as_ref().unwrap_or(uri), config, timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificates_name_goes_into_the_url_and_the_servers_into_the_header() {
        let plain = Credentials { server: "https://10.0.0.1:6443/k8s/clusters/a".into(), ..Credentials::default() };
        assert_eq!(address(&plain, "/api").unwrap(), ("https://10.0.0.1:6443/k8s/clusters/a/api".into(), None));
        let named = Credentials { tls_server_name: Some("kubernetes".into()), ..plain };
        let expected = ("https://kubernetes:6443/k8s/clusters/a/api".into(), Some("10.0.0.1:6443".into()));
        assert_eq!(address(&named, "/api").unwrap(), expected);
        assert_eq!(address(&Credentials { server: "no url".into(), ..named }, "/api"), None);
    }
}
