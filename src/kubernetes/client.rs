//! The client of the API server: connection, credentials, compression. Returns streams of the answers' bytes. Opens connections and calls
//! the [`Access`].

use std::fmt::Write;
use std::fs;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;
use ureq::config::Config;
use ureq::http::header::{AUTHORIZATION, CONTENT_ENCODING, HOST, RETRY_AFTER};
use ureq::http::{Response, Uri};
use ureq::tls::{Certificate, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Body, Proxy};

use super::access::{Access, Credentials};
use super::error::{Asked, answered, server, unauthorized};
use crate::datastore::error::{Error, ErrorKind};
use crate::datastore::http::{self, Requester as _};
use crate::datastore::tls::{self, BadKey, Hints};

/// The time after which a refused token is tried again, in case the server was wrong. It doubles each time.
const FIRST_HOLD: Duration = Duration::from_secs(1);
/// The maximum of that time.
const LONGEST_HOLD: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub http: http::Limits,
    /// How long the server is asked to keep a watch open.
    pub watch: Duration,
    /// Silence, over several watches, after which it is listed again, because a server that was restored from a backup sends nothing.
    pub silence: Duration,
    /// The same after an outage, when this is more likely.
    pub doubt: Duration,
    /// How often to look for an API that the server does not have.
    pub absent: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            http: http::Limits {
                connect: Duration::from_secs(5),
                answer: Duration::from_secs(30),
                whole: Duration::from_secs(120),
                // Longer than the minute between two bookmarks.
                idle: Duration::from_secs(90),
                list: Duration::from_secs(300),
                page: 500,
            },
            // Kubernetes' own clients ask for 5 to 10 minutes.
            watch: Duration::from_secs(300),
            silence: Duration::from_secs(300),
            doubt: Duration::from_secs(30),
            absent: Duration::from_secs(300),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub path: &'a str,
    pub accept: &'a str,
    /// `get`, `list` or `watch`.
    pub verb: &'static str,
    pub resource: &'a str,
}

impl Question<'_> {
    fn is_watch(&self) -> bool {
        self.verb == "watch"
    }
}

pub(super) struct Client {
    access: Arc<dyn Access>,
    pub limits: Limits,
    connection: Option<Connection>,
    refused: Option<Refusal>,
    pub url: String,
}

struct Connection {
    credentials: Credentials,
    agent: Agent,
    /// Whether it has been used. Then a failure may only mean that the idle connection was closed.
    used: bool,
}

/// Credentials that the server does not accept, which are not tried again for a while.
struct Refusal {
    credentials: Credentials,
    since: Instant,
    hold: Duration,
}

impl Client {
    pub fn new(access: Arc<dyn Access>, limits: Limits) -> Self {
        Client { access, limits, connection: None, refused: None, url: String::new() }
    }

    pub fn get(&mut self, question: &Question<'_>) -> Result<Box<dyn Read>, Error> {
        let credentials = self.credentials()?;
        if self.held(&credentials) {
            return Err(unauthorized(&self.url, credentials.token().is_some()));
        }
        match self.ask(&credentials, question) {
            Err(error) if error.kind == ErrorKind::Unauthorized => self.again(credentials, question),
            other => {
                self.refused = None;
                other
            }
        }
    }

    pub fn reconnect(&mut self) {
        self.connection = None;
    }

    /// Asks again after credentials were refused, if they have been replaced.
    fn again(&mut self, refused: Credentials, question: &Question<'_>) -> Result<Box<dyn Read>, Error> {
        self.access.refused(&refused);
        let credentials = self.credentials()?;
        let answer = match credentials == refused {
            true => Err(unauthorized(&self.url, credentials.token().is_some())),
            false => self.ask(&credentials, question),
        };
        if answer.as_ref().is_err_and(|error| error.kind == ErrorKind::Unauthorized) {
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

    fn credentials(&mut self) -> Result<Credentials, Error> {
        let credentials = self.access.current()?;
        self.url.clone_from(&credentials.server);
        Ok(credentials)
    }

    fn ask(&mut self, credentials: &Credentials, question: &Question<'_>) -> Result<Box<dyn Read>, Error> {
        let used = self.connect(credentials)?;
        let answer = match self.send(credentials, question) {
            // The server closes idle connections after a while, which is only noticed now.
            Err(error) if used && error.kind == ErrorKind::Unreachable => {
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
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(decoded(response));
        }
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let asked = Asked { url: &self.url, verb: question.verb, resource: question.resource, token: credentials.token().is_some() };
        Err(answered(asked, status, retry_after, &http::error_text(decoded(response))))
    }

    /// Makes sure that there is a connection with these credentials. Reports whether it was used before.
    fn connect(&mut self, credentials: &Credentials) -> Result<bool, Error> {
        if let Some(connection) = self.connection.as_ref().filter(|connection| connection.credentials.same_connection(credentials)) {
            return Ok(connection.used);
        }
        let agent = agent(credentials, self.limits.http)?;
        self.connection = Some(Connection { credentials: credentials.clone(), agent, used: false });
        Ok(false)
    }

    fn send(&self, credentials: &Credentials, question: &Question<'_>) -> Result<Response<Body>, Error> {
        let Some(Connection { agent, .. }) = &self.connection else { return Err(self.broken(&ureq::Error::ConnectionFailed)) };
        let (url, host) = address(credentials, question.path).ok_or_else(|| not_a_url(credentials))?;
        let mut request = http::timed(agent.get(url), self.limits.http, question.is_watch())
            .header("Accept", question.accept)
            // A watch is never compressed, because a proxy that compresses would delay events.
            .header("Accept-Encoding", if question.is_watch() { "identity" } else { "gzip" });
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        if let Some(authorization) = credentials.authorization() {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.call().map_err(|error| self.broken(&error))
    }

    pub fn unreadable(&self, error: serde_json::Error) -> Error {
        if error.is_io() { self.broken(&io::Error::from(error).into()) } else { self.garbled(error) }
    }
}

impl http::Requester for Client {
    fn server(&self) -> String {
        server(&self.url)
    }

    fn limits(&self) -> http::Limits {
        self.limits.http
    }

    fn broken(&self, error: &ureq::Error) -> Error {
        let has_ca = self.connection.as_ref().is_some_and(|connection| connection.credentials.ca.is_some());
        let issuer = if has_ca { "the configured CA" } else { "the system's certificates (no CA is configured)" };
        let client = "it refuses our client certificate, or requires one";
        http::broken(&self.server(), error, &Hints { issuer: issuer.into(), client: client.into(), url: "address" })
    }
}

fn no_access(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Access, why)
}

fn not_a_url(credentials: &Credentials) -> Error {
    no_access(format!("{:?} is not the URL of an API server", credentials.server))
}

fn agent(credentials: &Credentials, limits: http::Limits) -> Result<Agent, Error> {
    let proxy = credentials.proxy.as_ref().map(|proxy| Proxy::new(proxy.reveal())).transpose();
    let proxy = proxy.map_err(|error| no_access(format!("the proxy for the API server cannot be used: {error}")))?;
    let tls = credentials.server.starts_with("https:").then(|| tls_config(credentials)).transpose().map_err(no_access)?;
    let server = || credentials.server.parse().map_err(|_| not_a_url(credentials));
    let server = credentials.tls_server_name.as_ref().map(|_| server()).transpose()?;
    let resolver = ServerName { server, dns: DefaultResolver::default() };
    Ok(Agent::with_parts(http::config(limits, proxy, tls), DefaultConnector::default(), resolver))
}

fn tls_config(credentials: &Credentials) -> Result<TlsConfig, String> {
    let roots = if credentials.insecure { Vec::new() } else { roots(credentials.ca.as_deref())? };
    let client = match &credentials.client {
        Some((cert, key)) => {
            let chain = tls::certificates(cert).ok_or("the client certificate is not a certificate in PEM form")?;
            let client = tls::client_cert(&chain, key).map_err(|bad| match bad {
                BadKey::NoKey => "the client key is not an unencrypted private key in PEM form".into(),
                BadKey::Unsupported => format!("a client key of this kind cannot be used: {}", tls::KEYS),
                BadKey::Unfit(why) => format!("client certificate and key do not fit: {why}"),
            });
            Some(client?)
        }
        None => None,
    };
    Ok(tls::config(roots, client, credentials.insecure))
}

fn roots(ca: Option<&[u8]>) -> Result<Vec<Certificate<'static>>, String> {
    if let Some(pem) = ca {
        return tls::certificates(pem).ok_or_else(|| "the CA is not a certificate in PEM form".into());
    }
    let path = tls::system_bundle().ok_or("no CA is configured, and this system has no certificate bundle")?;
    let pem = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    tls::certificates(&pem).ok_or_else(|| format!("{}: no certificate in PEM form in this file", path.display()))
}

fn decoded(response: Response<Body>) -> Box<dyn Read> {
    let gzip = response.headers().get(CONTENT_ENCODING).is_some_and(|encoding| encoding == "gzip");
    let body = response.into_body().into_reader();
    if gzip { Box::new(MultiGzDecoder::new(body)) } else { Box::new(body) }
}

/// Returns the URL of `path` and the `Host` header. If the certificate has another name, the URL has that name and the header the real
/// host.
fn address(credentials: &Credentials, path: &str) -> Option<(String, Option<String>)> {
    let Some(name) = &credentials.tls_server_name else { return Some((format!("{}{path}", credentials.server), None)) };
    let server: Uri = credentials.server.parse().ok()?;
    let host = server.authority()?.as_str();
    let port = server.port_u16().map_or_else(String::new, |port| format!(":{port}"));
    let prefix = server.path().trim_end_matches('/');
    Some((format!("{}://{name}{port}{prefix}{path}", server.scheme_str()?), Some(host.to_owned())))
}

/// Looks up the configured server, even if the URL has the certificate's name instead, against which ureq checks the certificate.
#[derive(Debug)]
struct ServerName {
    server: Option<Uri>,
    dns: DefaultResolver,
}

impl Resolver for ServerName {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        self.dns.resolve(self.server.as_ref().unwrap_or(uri), config, timeout)
    }
}

/// Encodes a text for a query.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => encoded.push(byte.into()),
            _ => _ = write!(encoded, "%{byte:02X}"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_cannot_change_the_question() {
        assert_eq!(encoded("node-1.example.org"), "node-1.example.org");
        assert_eq!(encoded("a&watch=1 ü"), "a%26watch%3D1%20%C3%BC");
    }

    #[test]
    fn what_is_no_pem_is_refused_and_never_a_panic() {
        let refused = |credentials: Credentials| tls_config(&credentials).unwrap_err();
        assert!(refused(Credentials { ca: Some(b"junk".to_vec()), ..Credentials::default() }).contains("CA"));
        let client = Some((b"junk".to_vec(), b"junk".to_vec()));
        let skip = Credentials { insecure: true, client, ..Credentials::default() };
        assert!(refused(skip).contains("client certificate"));
    }

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
