//! Runs the previous exporter in Go (0.1.6), if `BASELINE` names its binary, so that it is scraped on the same table in the same run. It
//! runs `iptables-save`, and does not support Calico's own nftables tables.

use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use calico_accountant::ruleset::Backend;
use rustix::process::Pid;

use crate::http;
use crate::program::await_some;
use crate::support::etcd::{Etcd, Scratch};
use crate::table;

/// The running program.
pub struct Baseline {
    child: Child,
    port: u16,
    _programs: Scratch,
}

impl Baseline {
    /// Starts it. Returns `None` if it was not requested, or cannot read these tables.
    pub fn start(etcd: &Etcd, policies: usize, lock: &Path, backend: Backend) -> Option<Self> {
        let binary = std::env::var_os("BASELINE").filter(|_| backend != Backend::Native)?;
        (0..policies).for_each(|policy| etcd.put(&table::policy(policy)));
        // It only knows one name of the program.
        let programs = Scratch::new();
        symlink(format!("/usr/sbin/iptables-{}-save", backend.as_str()), programs.path().join("iptables-save")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(binary);
        command.env_clear().env("PATH", programs.path()).env("XTABLES_LOCKFILE", lock).env("NODENAME", "node-1");
        command.env("DATASTORE_TYPE", "etcdv3").env("ETCD_ENDPOINTS", etcd.url()).env("METRICS_SERVER_PORT", port.to_string());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let baseline = Baseline { child, port, _programs: programs };
        // It sends chunked texts, which are only complete when the connection ends.
        let get = || http::request(port, "GET", "/metrics", "Connection: close\r\n").ok();
        let has_workloads = || get().filter(|answer| answer.text().contains("policy_accept_counter{"));
        await_some(has_workloads, || "BASELINE's metrics".into());
        Some(baseline)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
