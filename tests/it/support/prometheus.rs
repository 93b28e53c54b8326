//! A real Prometheus that scrapes one target, and what it remembers of it.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::etcd::Scratch;
use crate::http;
use crate::program::await_some;

/// Ends when dropped.
pub struct Prometheus {
    process: Child,
    port: u16,
    _folder: Scratch,
}

/// Whether there is one on this machine.
pub fn is_installed() -> bool {
    Command::new("prometheus").arg("--version").output().is_ok_and(|output| output.status.success())
}

impl Prometheus {
    /// Starts one and waits for its first successful scrape.
    pub fn scraping(port: u16, interval: Duration, timeout: Duration) -> Self {
        let (folder, own) = (Scratch::new(), free_port());
        let (interval, timeout) = (interval.as_millis(), timeout.as_millis());
        let config = format!(
            "global: {{scrape_interval: {interval}ms, scrape_timeout: {timeout}ms}}\n\
             scrape_configs: [{{job_name: accountant, static_configs: [{{targets: ['127.0.0.1:{port}']}}]}}]\n"
        );
        fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{own}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let prometheus = Self { process, port: own, _folder: folder };
        await_some(|| (prometheus.query("max(up)") == Some(1.0)).then_some(()), || "Prometheus's first scrape".into());
        prometheus
    }

    /// The value of an expression that has one, now. Percent-encoding is the caller's.
    pub fn query(&self, expression: &str) -> Option<f64> {
        let answer = http::get(self.port, &format!("/api/v1/query?query={expression}")).ok()?;
        let answer: serde_json::Value = serde_json::from_slice(&answer.body).ok()?;
        answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
