//! The demo, `demo/run`: a node in a network namespace, real rules, real etcd, and packets every few seconds. Runs until dropped.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::etcd::Scratch;
use super::netns::Namespace;
use super::within;

pub struct Demo {
    child: Child,
    /// The address of its exporter, `host:port`.
    pub address: String,
    _scratch: Scratch,
}

impl Demo {
    /// Starts a demo. Returns `None` with a message if network namespaces cannot be created.
    pub fn start(test: &str) -> Option<Self> {
        drop(Namespace::new(test)?);
        let scratch = Scratch::new();
        let out = scratch.path().join("out");
        let (stdout, stderr) = (File::create(&out).unwrap(), File::create(scratch.path().join("err")).unwrap());
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/run"));
        command.env("ACCOUNTANT", env!("CARGO_BIN_EXE_calico-accountant")).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let mut demo = Demo { child: command.spawn().unwrap(), address: String::new(), _scratch: scratch };
        let address = || {
            let said = fs::read_to_string(&out).unwrap();
            let url = said.lines().find(|line| line.contains("All metrics:"))?.split("http://").nth(1)?.to_owned();
            url.strip_suffix("/metrics").map(str::to_owned)
        };
        within(Duration::from_secs(60), "the demo runs", || address().is_some());
        demo.address = address().unwrap();
        Some(demo)
    }

    /// Returns the network namespace of its node.
    pub fn node(&self) -> String {
        format!("accountant-{}-node", self.child.id())
    }

    /// Ends it like Ctrl-C, after which it removes what it created.
    pub fn end(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.end();
    }
}
