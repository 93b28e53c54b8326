//! Calls to etcd's JSON gateway: which endpoint, which prefix, which token. In come requests, out go answers' bytes; it
//! opens connections and reads certificate files.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read};
use std::time::Duration;

use serde::Serialize;
use ureq::http::Response;
use ureq::{Agent, Body, BodyReader};

use super::error::Error;
use super::messages::{AuthenticateRequest, AuthenticateResponse};
use super::tls;
use crate::config::EtcdConfig;

/// etcd ≥ 3.4, 3.3 and ≤ 3.2. Tried in this order, on 404 the next.
const PREFIXES: [&str; 3] = ["/v3", "/v3beta", "/v3alpha"];
/// How much of an error's body is read.
const LARGEST_ERROR: u64 = 64 << 10;
/// How much of an answer is read. A page of 5000 keys takes 2 MB at most, the value of one key 2 MB unless etcd was allowed more.
const LARGEST_ANSWER: u64 = 8 << 20;

/// How long to wait for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For a connection, including the TLS handshake.
    pub connect: Duration,
    /// For an answer to begin, and between two reads of it.
    pub answer: Duration,
    /// For a whole answer.
    pub whole: Duration,
    /// Silence after which a watch is taken for dead and opened again where it ended. Shorter than the ten minutes between
    /// etcd's progress notifications, so that a dead connection is noticed in time; so a cluster in which nothing happens
    /// between two compactions is listed again after the second, which is cheap where nothing happens.
    pub idle: Duration,
    /// For a whole list, of all its pages and values.
    pub list: Duration,
    /// Keys on one page of a list.
    pub page: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            // Half of what the Go client allows: with several endpoints, a dead host delays the next by this.
            connect: Duration::from_secs(5),
            // etcd itself gives up after 7 s without a quorum, and says so.
            answer: Duration::from_secs(10),
            whole: Duration::from_secs(60),
            idle: Duration::from_secs(75),
            // 50,000 endpoints take less than a second.
            list: Duration::from_secs(300),
            // The gateway of etcd ≤ 3.3 cannot pass on more than 4 MiB: 5000 of the longest possible keys still fit.
            page: 5000,
        }
    }
}

/// A client of one etcd cluster: one endpoint at a time, the next when that one fails.
pub struct Gateway {
    config: EtcdConfig,
    limits: Limits,
    /// In random order, so that the exporters of many nodes spread over the members.
    endpoints: Vec<Endpoint>,
    current: usize,
    agent: Option<Agent>,
    token: Option<String>,
    /// etcd said that it has no users; it is asked again after each failure.
    without_users: bool,
}

struct Endpoint {
    url: String,
    /// Which of [`PREFIXES`] answered last.
    prefix: usize,
}

/// A question to the gateway.
struct Question<'a> {
    path: &'a str,
    body: &'a [u8],
    /// The keys it is about, for messages.
    range: &'a str,
    token: Option<&'a str>,
    /// Whether the answer is a stream without end.
    stream: bool,
}

impl Gateway {
    /// A client that has not connected yet.
    pub fn new(config: EtcdConfig, limits: Limits) -> Self {
        let mut endpoints: Vec<_> = config.endpoints.iter().map(|url| Endpoint { url: url.clone(), prefix: 0 }).collect();
        let random = RandomState::new();
        endpoints.sort_by_cached_key(|endpoint| {
            let mut hasher = random.build_hasher();
            hasher.write(endpoint.url.as_bytes());
            hasher.finish()
        });
        Gateway { config, limits, endpoints, current: 0, agent: None, token: None, without_users: false }
    }

    /// The endpoint that is asked at present.
    pub fn endpoint(&self) -> &str {
        self.endpoints.get(self.current).map_or("(no endpoint)", |endpoint| &endpoint.url)
    }

    /// The time-outs and sizes it works with.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The configured user.
    pub fn user(&self) -> Option<&str> {
        self.config.credentials.as_ref().map(|(user, _)| user.as_str())
    }

    /// Asks `path` about the keys under `range` and returns the answer's bytes.
    ///
    /// # Errors
    /// When no endpoint answers, or one refuses.
    pub fn ask(&mut self, path: &str, request: &impl Serialize, range: &str) -> Result<Vec<u8>, Error> {
        self.anywhere(path, request, range, false, |body| {
            let mut bytes = Vec::new();
            body.into_with_config().limit(LARGEST_ANSWER).reader().read_to_end(&mut bytes)?;
            Ok(bytes)
        })
    }

    /// Opens a watch and returns its stream, which yields an error after [`Limits::idle`] without a byte.
    ///
    /// # Errors
    /// When no endpoint answers, or one refuses.
    pub fn watch(&mut self, request: &impl Serialize, range: &str) -> Result<BodyReader<'static>, Error> {
        self.anywhere("/watch", request, range, true, |body| Ok(body.into_reader()))
    }

    /// Closes all connections; certificates are read anew for the next one.
    pub fn reconnect(&mut self) {
        self.agent = None;
    }

    /// Leaves this endpoint for the next. The token goes too: one from before a restored backup makes etcd wait, without an
    /// answer, for a state that never comes.
    pub fn move_on(&mut self) {
        self.reconnect();
        self.forget_token();
        self.current = (self.current + 1) % self.endpoints.len().max(1);
    }

    /// Asks for a new token before the next question.
    pub fn forget_token(&mut self) {
        self.token = None;
        self.without_users = false;
    }

    /// Each endpoint once, beginning with the current one.
    fn anywhere<T>(
        &mut self,
        path: &str,
        request: &impl Serialize,
        range: &str,
        stream: bool,
        take: impl Fn(Body) -> io::Result<T>,
    ) -> Result<T, Error> {
        let body = self.encode(request)?;
        let mut question = Question { path, body: &body, range, token: None, stream };
        let mut result = Err(Error::Unreachable { endpoint: "(none)".into(), why: "ETCD_ENDPOINTS names no endpoint".into() });
        for _ in 0..self.endpoints.len() {
            result = self.as_user(&mut question, &take);
            match &result {
                Err(error) if error.elsewhere() => self.move_on(),
                _ => break,
            }
        }
        result
    }

    /// With a token, if there are users; with a new one if etcd does not like the old one.
    fn as_user<T>(&mut self, question: &mut Question<'_>, take: impl Fn(Body) -> io::Result<T>) -> Result<T, Error> {
        self.log_in()?;
        match self.post(question, &take) {
            Err(Error::Token { .. }) => {
                self.forget_token();
                self.log_in()?;
                self.post(question, take)
            }
            other => other,
        }
    }

    fn log_in(&mut self) -> Result<(), Error> {
        let Some((name, password)) = &self.config.credentials else { return Ok(()) };
        if self.token.is_some() || self.without_users {
            return Ok(());
        }
        let body = self.encode(&AuthenticateRequest { name, password })?;
        // Without a token: etcd 3.4 refuses an old one here too.
        let question = Question { path: "/auth/authenticate", body: &body, range: "", token: None, stream: false };
        let answer = self.post_raw(&question, |body| {
            let mut bytes = Vec::new();
            body.into_with_config().limit(LARGEST_ERROR).reader().read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        match answer {
            Ok(bytes) => {
                let answer: AuthenticateResponse = serde_json::from_slice(&bytes).map_err(|error| self.garbled(error))?;
                self.token = Some(answer.token);
            }
            // 412 in etcd 3.4, 400 in others.
            Err(Error::Refused { why, .. }) if why.contains("authentication is not enabled") => self.without_users = true,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn post<T>(&mut self, question: &Question<'_>, take: impl Fn(Body) -> io::Result<T>) -> Result<T, Error> {
        let token = self.token.clone();
        self.post_raw(&Question { token: token.as_deref(), ..*question }, take)
    }

    /// Under each prefix, beginning with the one that answered last, until one is not 404.
    fn post_raw<T>(&mut self, question: &Question<'_>, take: impl Fn(Body) -> io::Result<T>) -> Result<T, Error> {
        let agent = self.agent()?;
        for _ in PREFIXES {
            let response = self.send(&agent, question)?;
            match response.status().as_u16() {
                200 => return take(response.into_body()).map_err(|error| self.broken(error.into())),
                404 => self.next_prefix(),
                status => return Err(self.refused(status, response, question)),
            }
        }
        Err(Error::NoGateway { endpoint: self.endpoint().to_owned() })
    }

    fn send(&self, agent: &Agent, question: &Question<'_>) -> Result<Response<Body>, Error> {
        let prefix = self.endpoints.get(self.current).map_or(PREFIXES[0], |endpoint| PREFIXES[endpoint.prefix]);
        let url = format!("{}{prefix}{}", self.endpoint(), question.path);
        let pause = if question.stream { self.limits.idle } else { self.limits.answer };
        let mut request = agent
            .post(url)
            .config()
            .timeout_per_read(Some(pause))
            .timeout_recv_body((!question.stream).then_some(self.limits.whole))
            .build()
            // etcd tells the gateway's calls from others by this header (grpcgateway-accept).
            .header("Accept", "application/json")
            .header("Content-Type", "application/json");
        if question.stream {
            // Without it, a member that lost its leader leaves a watch open and silent.
            request = request.header("Grpc-Metadata-Hasleader", "true");
        }
        if let Some(token) = question.token {
            // As it is: etcd knows no "Bearer".
            request = request.header("Authorization", token);
        }
        request.send(question.body).map_err(|error| self.broken(error))
    }

    fn refused(&self, status: u16, response: Response<Body>, question: &Question<'_>) -> Error {
        let mut body = Vec::new();
        // What arrived of the text is good enough: the status is known.
        let _ = response.into_body().into_reader().take(LARGEST_ERROR).read_to_end(&mut body);
        let text = String::from_utf8_lossy(&body);
        Error::answered(self.endpoint(), status, &text, self.user(), question.range)
    }

    /// Says what a transport's error means.
    pub fn broken(&self, error: ureq::Error) -> Error {
        let endpoint = self.endpoint().to_owned();
        match error {
            ureq::Error::Timeout(_) => Error::TimedOut { endpoint },
            ureq::Error::Rustls(error) => Error::Tls { endpoint, why: tls::explain(&error, &self.config) },
            ureq::Error::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(inner) => Error::Tls { endpoint, why: tls::explain(inner, &self.config) },
                None if closed(error.kind()) => {
                    // Of TLS 1.3 the client's part is over before the server has looked at its certificate: a refusal can show
                    // as no more than this. And so do TLS at a plain port of etcd, and the other way round.
                    let check = match endpoint.starts_with("https:") {
                        true => {
                            "that it accepts the client certificate (ETCD_CERT_FILE and ETCD_KEY_FILE), and that the endpoint is not http://"
                        }
                        false => "that the endpoint is not https://",
                    };
                    let why = format!("it closed the connection; if this goes on, check {check}");
                    Error::Unreachable { endpoint, why }
                }
                None => Error::Unreachable { endpoint, why: error.to_string() },
            },
            other => Error::Unreachable { endpoint, why: other.to_string() },
        }
    }

    /// An answer that is not what etcd answers.
    pub fn garbled(&self, why: impl ToString) -> Error {
        Error::Garbled { endpoint: self.endpoint().to_owned(), why: why.to_string() }
    }

    fn next_prefix(&mut self) {
        if let Some(endpoint) = self.endpoints.get_mut(self.current) {
            endpoint.prefix = (endpoint.prefix + 1) % PREFIXES.len();
        }
    }

    fn encode(&self, request: &impl Serialize) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(request).map_err(|error| self.garbled(error))
    }

    /// Connections are kept between calls, so that the point reads of a list share one.
    fn agent(&mut self) -> Result<Agent, Error> {
        if let Some(agent) = &self.agent {
            return Ok(agent.clone());
        }
        let agent = self.new_agent()?;
        self.agent = Some(agent.clone());
        Ok(agent)
    }

    fn new_agent(&self) -> Result<Agent, Error> {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            // etcd is inside the cluster: a proxy for the outside, as containers often have in their environment, is no way there.
            .proxy(None)
            .max_redirects(0)
            .user_agent(concat!("calico-accountant/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(self.limits.connect))
            .timeout_connect(Some(self.limits.connect))
            .timeout_send_request(Some(self.limits.answer))
            .timeout_send_body(Some(self.limits.answer))
            .timeout_recv_response(Some(self.limits.answer));
        // Endpoints say themselves what they are: http:// is plain even when TLS files are set.
        if self.config.endpoints.iter().any(|endpoint| endpoint.starts_with("https:")) {
            config = config.tls_config(tls::read(&self.config)?);
        }
        Ok(config.build().new_agent())
    }
}

fn closed(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}
