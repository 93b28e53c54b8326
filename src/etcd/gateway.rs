//! Calls etcd's JSON gateway, and chooses the endpoint, the prefix and the token. Opens connections and reads certificate files.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::time::Duration;

use serde_json::{Value, json};
use ureq::http::Response;
use ureq::{Agent, Body, BodyReader};

use super::certificates;
use super::error::{answered, elsewhere, no_gateway, server};
use super::messages::AuthenticateResponse;
use crate::config::EtcdConfig;
use crate::datastore::error::{Error, ErrorKind};
use crate::datastore::http::{self, LARGEST_ERROR, Limits, Requester};

/// etcd ≥ 3.4, 3.3 and ≤ 3.2. Tried in this order. On 404 the next one is tried.
const PREFIXES: [&str; 3] = ["/v3", "/v3beta", "/v3alpha"];
/// The maximum that is read of an answer. A page of 5000 keys has at most 2 MB, and a value has 2 MB unless etcd allows more.
const LARGEST_ANSWER: u64 = 8 << 20;

pub const LIMITS: Limits = Limits {
    // Half of the Go client's limit. With several endpoints, a dead host delays the next one by this.
    connect: Duration::from_secs(5),
    // etcd itself gives up after 7 s without a quorum, and reports it.
    answer: Duration::from_secs(10),
    whole: Duration::from_secs(60),
    // Shorter than the ten minutes between etcd's progress notifications, so that a dead connection is noticed in time. If nothing happens
    // between two compactions, the second one causes another list, which is cheap in such a cluster.
    idle: Duration::from_secs(75),
    // 50,000 endpoints take less than a second.
    list: Duration::from_secs(300),
    // The gateway of etcd ≤ 3.3 can pass on at most 4 MiB, which is enough for 5000 of the longest possible keys.
    page: 5000,
};

/// A client of one etcd cluster. Uses one endpoint at a time, and the next one when it fails.
pub struct Gateway {
    config: EtcdConfig,
    limits: Limits,
    /// In random order, so that the exporters of many nodes are spread over the members.
    endpoints: Vec<Endpoint>,
    current: usize,
    agent: Option<Agent>,
    token: Option<String>,
    /// etcd reported that it has no users. It is asked again after each failure.
    without_users: bool,
}

struct Endpoint {
    url: String,
    /// The index in [`PREFIXES`] of the one that answered last.
    prefix: usize,
}

struct Question<'a> {
    path: &'a str,
    body: &'a str,
    /// The range of keys, for messages.
    range: &'a str,
    is_watch: bool,
}

impl Gateway {
    pub fn new(config: EtcdConfig, limits: Limits) -> Self {
        let mut endpoints: Vec<_> = config.endpoints.iter().map(|url| Endpoint { url: url.clone(), prefix: 0 }).collect();
        let random = RandomState::new();
        endpoints.sort_by_cached_key(|endpoint| random.hash_one(&endpoint.url));
        Gateway { config, limits, endpoints, current: 0, agent: None, token: None, without_users: false }
    }

    pub fn endpoint(&self) -> &str {
        self.endpoints.get(self.current).map_or("(no endpoint)", |endpoint| &endpoint.url)
    }

    pub fn user(&self) -> Option<&str> {
        self.config.credentials.as_ref().map(|(user, _)| user.as_str())
    }

    pub fn ask(&mut self, path: &str, request: &Value, range: &str) -> Result<Vec<u8>, Error> {
        let question = Question { path, body: &request.to_string(), range, is_watch: false };
        self.anywhere(&question, |body| bytes(body, LARGEST_ANSWER))
    }

    /// Opens a watch. Its stream returns an error after [`Limits::idle`] without a byte.
    pub fn watch(&mut self, request: &Value, range: &str) -> Result<BodyReader<'static>, Error> {
        let question = Question { path: "/watch", body: &request.to_string(), range, is_watch: true };
        self.anywhere(&question, |body| Ok(body.into_reader()))
    }

    /// Closes all connections. The next one reads the certificates again.
    pub fn reconnect(&mut self) {
        self.agent = None;
    }

    /// Leaves this endpoint for the next. Drops the token too: with one from before a restored backup, etcd waits for something that never
    /// comes.
    pub fn move_on(&mut self) {
        self.reconnect();
        self.forget_token();
        self.current = (self.current + 1) % self.endpoints.len().max(1);
    }

    pub fn forget_token(&mut self) {
        self.token = None;
        self.without_users = false;
    }

    /// Tries each endpoint once, beginning with the current one.
    fn anywhere<T>(&mut self, question: &Question<'_>, take: impl Fn(Body) -> io::Result<T>) -> Result<T, Error> {
        let mut result = Err(Error::at(&server("(none)"), ErrorKind::Unreachable, "ETCD_ENDPOINTS names no endpoint"));
        for _ in 0..self.endpoints.len() {
            result = self.as_user(question, &take);
            match &result {
                Err(error) if elsewhere(error) => self.move_on(),
                _ => break,
            }
        }
        result
    }

    /// Sends a token if there are users, and a new one if etcd refuses the old one.
    fn as_user<T>(&mut self, question: &Question<'_>, take: impl Fn(Body) -> io::Result<T>) -> Result<T, Error> {
        self.log_in()?;
        match self.post(question, self.token.clone(), &take) {
            Err(error) if error.kind == ErrorKind::Unauthorized => {
                self.forget_token();
                self.log_in()?;
                self.post(question, self.token.clone(), take)
            }
            other => other,
        }
    }

    fn log_in(&mut self) -> Result<(), Error> {
        let Some((name, password)) = &self.config.credentials else { return Ok(()) };
        if self.token.is_some() || self.without_users {
            return Ok(());
        }
        let body = json!({ "name": name, "password": password.reveal() }).to_string();
        // Without a token: etcd 3.4 refuses an old one here too.
        let question = Question { path: "/auth/authenticate", body: &body, range: "", is_watch: false };
        match self.post(&question, None, |body| bytes(body, LARGEST_ERROR)) {
            Ok(bytes) => {
                let answer: AuthenticateResponse = serde_json::from_slice(&bytes).map_err(|error| self.garbled(error))?;
                self.token = Some(answer.token);
            }
            // 412 in etcd 3.4, 400 in others.
            Err(error) if error.kind == ErrorKind::Refused && error.to_string().contains("authentication is not enabled") => {
                self.without_users = true;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Tries each prefix, beginning with the one that answered last, until the answer is not 404.
    fn post<T>(&mut self, question: &Question<'_>, token: Option<String>, take: impl Fn(Body) -> io::Result<T>) -> Result<T, Error> {
        let agent = self.agent()?;
        for _ in PREFIXES {
            let response = self.send(&agent, question, token.as_deref())?;
            match response.status().as_u16() {
                200 => return take(response.into_body()).map_err(|error| self.broken(&error.into())),
                404 => self.next_prefix(),
                status => {
                    let text = http::error_text(response.into_body().into_reader());
                    return Err(answered(self.endpoint(), status, &text, self.user(), question.range));
                }
            }
        }
        Err(no_gateway(self.endpoint()))
    }

    fn send(&self, agent: &Agent, question: &Question<'_>, token: Option<&str>) -> Result<Response<Body>, Error> {
        let prefix = self.endpoints.get(self.current).map_or(PREFIXES[0], |endpoint| PREFIXES[endpoint.prefix]);
        let url = format!("{}{prefix}{}", self.endpoint(), question.path);
        let mut request = http::timed(agent.post(url), self.limits, question.is_watch)
            // This header distinguishes the gateway's calls in etcd (grpcgateway-accept).
            .header("Accept", "application/json")
            .header("Content-Type", "application/json");
        if question.is_watch {
            // Without it, a member that has lost its leader leaves a watch open and silent.
            request = request.header("Grpc-Metadata-Hasleader", "true");
        }
        if let Some(token) = token {
            // Unchanged: etcd does not use "Bearer".
            request = request.header("Authorization", token);
        }
        request.send(question.body.as_bytes()).map_err(|error| self.broken(&error))
    }

    fn next_prefix(&mut self) {
        if let Some(endpoint) = self.endpoints.get_mut(self.current) {
            endpoint.prefix = (endpoint.prefix + 1) % PREFIXES.len();
        }
    }

    /// Connections are kept between calls, so that the point reads of a list share one.
    fn agent(&mut self) -> Result<Agent, Error> {
        if let Some(agent) = &self.agent {
            return Ok(agent.clone());
        }
        // The scheme decides: http:// is plain even if TLS files are set.
        let is_tls = self.config.endpoints.iter().any(|endpoint| endpoint.starts_with("https:"));
        let tls = is_tls.then(|| certificates::read(&self.config)).transpose()?;
        Ok(self.agent.insert(http::config(self.limits, None, tls).new_agent()).clone())
    }
}

impl Requester for Gateway {
    fn server(&self) -> String {
        server(self.endpoint())
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn broken(&self, error: &ureq::Error) -> Error {
        let broken = http::broken(&self.server(), error, &certificates::hints(&self.config));
        if broken.kind != ErrorKind::Unreachable || !is_closed(error) {
            return broken;
        }
        // In TLS 1.3 the client finishes the handshake before the server has checked its certificate, so a refusal may only show as a
        // closed connection. TLS to a plain port of etcd, or plain HTTP to a TLS port, also shows like this.
        let check = match self.endpoint().starts_with("https:") {
            true => "that it accepts the client certificate (ETCD_CERT_FILE and ETCD_KEY_FILE), and that the endpoint is not http://",
            false => "that the endpoint is not https://",
        };
        self.error(ErrorKind::Unreachable, format_args!("it closed the connection; if this continues, check {check}"))
    }
}

fn is_closed(error: &ureq::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error, ureq::Error::Io(error) if matches!(error.kind(), UnexpectedEof | ConnectionReset | BrokenPipe))
}

fn bytes(body: Body, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    body.into_with_config().limit(most).reader().read_to_end(&mut bytes)?;
    Ok(bytes)
}
