//! The HTTP client of a running exporter's API.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Duration;

use serde::de::DeserializeOwned;
use ureq::Agent;

use crate::config::Config;
use crate::os::plain;
use crate::report::Status;

/// The largest answer in bytes. 250 workloads with 50 policies each make some megabytes.
const LARGEST: u64 = 256 << 20;

pub struct Client {
    agent: Agent,
    pub url: String,
}

/// The time limits for a connection, and for the whole answer.
#[derive(Debug, Clone, Copy)]
pub struct Patience(pub Duration, pub Duration);

/// The limits for an exporter that is usually on this host.
const NEAR: Patience = Patience(Duration::from_secs(2), Duration::from_secs(20));

/// Why there is no answer, in one line, and a hint for a request from another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub text: String,
    pub hint: &'static str,
}

impl From<Failure> for String {
    fn from(failure: Failure) -> String {
        failure.text
    }
}

impl Client {
    pub fn url_of(config: &Config) -> String {
        match config.listen_address {
            address if address.is_unspecified() => format!("http://127.0.0.1:{}", config.port),
            IpAddr::V4(address) => format!("http://{address}:{}", config.port),
            IpAddr::V6(address) => format!("http://[{address}]:{}", config.port),
        }
    }

    pub fn new(url: &str, Patience(connect, whole): Patience) -> Self {
        let config = Agent::config_builder()
            .timeout_connect(Some(connect))
            .timeout_global(Some(whole))
            .http_status_as_error(false)
            // The exporter is in the cluster.
            .proxy(None);
        Client { agent: config.build().into(), url: url.to_owned() }
    }

    /// Returns a client of the exporter at this address, if it answers and has this API.
    pub fn find(url: &str) -> Result<Self, String> {
        let client = Self::new(url, NEAR);
        client.ask::<Status>("status")?;
        Ok(client)
    }

    pub fn ask<T: DeserializeOwned>(&self, what: &str) -> Result<T, Failure> {
        let url = format!("{}/api/v1/{what}", self.url);
        let no = |why: String| Failure { text: format!("{} {why}", self.url), hint: "" };
        let mut response = self.agent.get(&url).call().map_err(|error| self.failure(&error))?;
        if response.status() == 421 {
            let why = response.body_mut().read_to_string().unwrap_or_default();
            return Err(no(format!("refuses: {}", why.lines().next().unwrap_or_default())));
        }
        if response.status() != 200 {
            return Err(no(format!("answers {}: it is not an exporter of version 1 or newer", response.status())));
        }
        let reader = response.body_mut().with_config().limit(LARGEST).reader();
        serde_json::from_reader(std::io::BufReader::new(reader)).map_err(|error| match error.is_io() {
            true => self.failure(&std::io::Error::from(error).into()),
            false => no(format!("gives no answer of this API: {error}")),
        })
    }

    fn failure(&self, error: &ureq::Error) -> Failure {
        let (why, hint) = match error {
            ureq::Error::Timeout(ureq::Timeout::Connect) => ("does not answer", DROPPED),
            ureq::Error::Timeout(_) => ("does not answer in time", ""),
            ureq::Error::Io(error) if error.kind() == ErrorKind::TimedOut => ("does not answer in time", ""),
            ureq::Error::Io(error) if error.kind() == ErrorKind::ConnectionRefused => {
                ("refuses the connection: nothing listens there", REFUSED)
            }
            ureq::Error::Io(error) if UNREACHABLE.contains(&error.kind()) => ("cannot be reached", DROPPED),
            ureq::Error::Io(error) => return Failure { text: format!("{} fails: {}", self.url, plain(&error.to_string())), hint: "" },
            error => return Failure { text: format!("{} fails: {}", self.url, plain(&error.to_string())), hint: "" },
        };
        Failure { text: format!("{} {why}", self.url), hint }
    }
}

const DROPPED: &str = "a policy on the node's host endpoint, or a firewall, lets nobody in at that port";
const REFUSED: &str = "LISTEN_ADDRESS may be 127.0.0.1 there, METRICS_SERVER_PORT another, or the exporter is down";
const UNREACHABLE: [ErrorKind; 3] = [ErrorKind::HostUnreachable, ErrorKind::NetworkUnreachable, ErrorKind::PermissionDenied];

pub fn encoded(text: &str) -> String {
    let encoded = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(encoded).collect()
}
