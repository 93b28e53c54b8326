//! A real Prometheus on loopback, with a test's own targets and rules. Killed when dropped.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Pid;
use serde_json::{Value, json};
use ureq::Agent;

use super::etcd::{Scratch, free_port};
use super::within;

pub struct Prometheus {
    child: Child,
    port: u16,
    agent: Agent,
    _scratch: Scratch,
}

/// Reports whether Prometheus is installed.
pub fn is_installed() -> bool {
    Command::new("prometheus").arg("--version").output().is_ok_and(|output| output.status.success())
}

impl Prometheus {
    /// Starts one and waits for its first successful scrape.
    pub fn scraping(port: u16, interval: Duration, timeout: Duration) -> Self {
        let milliseconds = |duration: Duration| format!("{}ms", duration.as_millis());
        let prometheus = Self::start(&json!({
            "global": {"scrape_interval": milliseconds(interval), "scrape_timeout": milliseconds(timeout)},
            "scrape_configs": [{"job_name": "accountant", "static_configs": [{"targets": [format!("127.0.0.1:{port}")]}]}],
        }));
        within(Duration::from_secs(30), "Prometheus's first scrape", || prometheus.value("max(up)") == Some(1.0));
        prometheus
    }

    /// Starts one that scrapes these targets (`host:port`) as `job` each second, and evaluates the rules as often.
    pub fn with_rules(job: &str, targets: &[&str], rules: &Path) -> Self {
        Self::start(&json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [rules],
            "scrape_configs": [{"job_name": job, "honor_labels": true, "static_configs": [{"targets": targets}]}],
        }))
    }

    /// Starts one with this configuration.
    pub fn start(config: &Value) -> Self {
        let (scratch, port) = (Scratch::new(), free_port());
        let file = scratch.path().join("prometheus.yaml");
        fs::write(&file, config.to_string()).unwrap();
        let mut command = Command::new("prometheus");
        command.arg("--config.file").arg(&file).arg("--storage.tsdb.path").arg(scratch.path().join("data"));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).arg("--log.level=warn");
        let log = File::create(scratch.path().join("log")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let agent = Agent::config_builder().proxy(None).http_status_as_error(false).build().new_agent();
        let prometheus = Prometheus { child, port, agent, _scratch: scratch };
        let ready = || prometheus.try_call("/-/ready", &[]).is_ok_and(|(status, _)| status == 200);
        within(Duration::from_secs(30), "Prometheus is ready", ready);
        prometheus
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn try_call(&self, path: &str, parameters: &[(&str, &str)]) -> Result<(u16, String), ureq::Error> {
        let request = self.agent.get(format!("http://127.0.0.1:{}{path}", self.port));
        let mut response = request.query_pairs(parameters.iter().copied()).call()?;
        Ok((response.status().as_u16(), response.body_mut().read_to_string()?))
    }

    /// Returns the answer of its API. An error answer fails the test.
    #[track_caller]
    pub fn call(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let (status, text) = self.try_call(path, parameters).unwrap();
        assert_eq!(status, 200, "{path} {parameters:?}: {text}");
        serde_json::from_str::<Value>(&text).unwrap()["data"].take()
    }

    /// Returns the samples of an instant query: labels and value.
    #[track_caller]
    pub fn query(&self, expression: &str) -> Vec<(Value, f64)> {
        let result = self.call("/api/v1/query", &[("query", expression)])["result"].take();
        let Value::Array(samples) = result else { panic!("{expression}: no vector: {result}") };
        samples.iter().map(|sample| (sample["metric"].clone(), sample["value"][1].as_str().unwrap().parse().unwrap())).collect()
    }

    /// Returns the current value of an expression, if it has one.
    #[track_caller]
    pub fn value(&self, expression: &str) -> Option<f64> {
        self.query(expression).first().map(|(_, value)| *value)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
