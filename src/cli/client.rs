//! The API of a running exporter, asked over HTTP.

use std::net::IpAddr;
use std::time::Duration;

use serde::de::DeserializeOwned;
use ureq::Agent;

use crate::config::Config;
use crate::report::Status;

/// More than this is no answer of the API: 250 workloads with 50 policies each make some megabytes.
const LARGEST: u64 = 256 << 20;

pub struct Client {
    agent: Agent,
    pub url: String,
}

impl Client {
    pub fn url_of(config: &Config) -> String {
        match config.listen_address {
            address if address.is_unspecified() => format!("http://127.0.0.1:{}", config.port),
            IpAddr::V4(address) => format!("http://{address}:{}", config.port),
            IpAddr::V6(address) => format!("http://[{address}]:{}", config.port),
        }
    }

    /// Of the exporter at this address, if one answers and has this API.
    pub fn find(url: &str) -> Result<Self, String> {
        let agent = Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(2)))
            .timeout_global(Some(Duration::from_secs(20)))
            .http_status_as_error(false)
            // It is on this host, as a rule.
            .proxy(None)
            .build()
            .into();
        let client = Client { agent, url: url.to_owned() };
        client.ask::<Status>("status")?;
        Ok(client)
    }

    pub fn ask<T: DeserializeOwned>(&self, what: &str) -> Result<T, String> {
        let url = format!("{}/api/v1/{what}", self.url);
        let mut response = self.agent.get(&url).call().map_err(|error| format!("asking {url} failed: {error}"))?;
        if response.status() == 421 {
            let why = response.body_mut().read_to_string().unwrap_or_default();
            return Err(format!("{url} refuses: {}", why.lines().next().unwrap_or_default()));
        }
        if response.status() != 200 {
            return Err(format!("{url} answers {}: it is not an exporter of version 1 or newer", response.status()));
        }
        let reader = response.body_mut().with_config().limit(LARGEST).reader();
        serde_json::from_reader(std::io::BufReader::new(reader)).map_err(|error| format!("{url} gives no answer of this API: {error}"))
    }
}

pub fn encoded(text: &str) -> String {
    let encoded = |byte: u8| match byte {
        byte if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(encoded).collect()
}
