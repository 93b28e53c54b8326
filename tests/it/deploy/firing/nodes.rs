//! Nodes that break and recover, and a fake kube-state-metrics that tells Prometheus which nodes exist.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::program::{self, Program};
use crate::support::etcd::{Scratch, free_port};
use crate::support::fakes::Fakes;
use crate::support::fixture;

/// A node with an exporter. Its tables are what fake programs print.
pub struct Node {
    pub fakes: Fakes,
    scratch: Scratch,
    pub port: u16,
    settings: Vec<(&'static str, String)>,
    pub program: Option<Program>,
}

impl Node {
    pub fn start(settings: &[(&'static str, &str)], backend: &str, moment: &str) -> Self {
        let settings = settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let mut node = Node { fakes: Fakes::new(), scratch: Scratch::new(), port: free_port(), settings, program: None };
        ["iptables-legacy-save", "ip6tables-legacy-save", "ip6tables-nft-save"].iter().for_each(|name| node.fakes.set(name, ""));
        node.shows(backend, moment, |text| text);
        fs::write(node.lock(), "").unwrap();
        node.start_again();
        node
    }

    pub fn lock(&self) -> PathBuf {
        self.scratch.path().join("lock")
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Replaces its tables by these.
    pub fn shows(&self, backend: &str, moment: &str, change: impl Fn(String) -> String) {
        let text = fixture::text(&format!("captures/v3.28.5-legacy/{moment}/iptables-save.txt.gz"));
        self.fakes.prints(&format!("iptables-{backend}-save"), &change(text));
    }

    pub fn start_again(&mut self) {
        self.program = None;
        let mut command = program::command();
        command
            .env("PATH", self.fakes.path())
            .env("DATASTORE_TYPE", "none")
            .env("POD_LOGS_DIR", "/")
            .env("SAMPLE_INTERVAL", "0")
            .env("SOURCE", "save");
        command.env("METRICS_SERVER_PORT", self.port.to_string()).env("XTABLES_LOCKFILE", self.lock()).env("XTABLES_LOCK_WAIT", "50ms");
        command.envs(self.settings.iter().map(|(name, value)| (*name, value)));
        let program = Program::start(command);
        program.port();
        self.program = Some(program);
    }
}

/// A fake kube-state-metrics: says which nodes exist.
pub struct Nodes {
    pub port: u16,
    pub text: Arc<Mutex<String>>,
}

impl Nodes {
    pub fn serve() -> Self {
        let (port, text) = (free_port(), Arc::new(Mutex::new(String::new())));
        let (listener, shown) = (TcpListener::bind(("127.0.0.1", port)).unwrap(), Arc::clone(&text));
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                _ = stream.read(&mut [0; 4096]);
                let body = shown.lock().unwrap().clone();
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close\r\nContent-Length: ";
                _ = write!(stream, "{head}{}\r\n\r\n{body}", body.len());
            }
        });
        Nodes { port, text }
    }

    pub fn are(&self, names: &[&str]) {
        let series = names.iter().map(|name| format!("kube_node_info{{node=\"{name}\"}} 1\n"));
        *self.text.lock().unwrap() = "# TYPE kube_node_info gauge\n".to_owned() + &series.collect::<String>();
    }
}
