//! A real etcd in a temporary directory, on ports of its own; killed when dropped.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use super::certificates::Certificates;
use super::{can_run, within};

/// A directory that is removed when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new directory.
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("calico-accountant-test-{}-{}", std::process::id(), next()));
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn next() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A port nobody listens on. Below the range from which the kernel takes ports for outgoing connections, so that it stays free
/// while a server is restarted.
pub fn free_port() -> u16 {
    loop {
        let port = 12_000 + ((std::process::id() as u16).wrapping_mul(97).wrapping_add(next())) % 18_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// How to start an etcd.
#[derive(Default)]
pub struct Options {
    /// Further arguments.
    pub args: Vec<String>,
    /// Serve TLS and demand client certificates.
    pub tls: Option<Certificates>,
}

/// A running etcd.
pub struct Etcd {
    child: Option<Child>,
    scratch: Scratch,
    data: PathBuf,
    pub port: u16,
    peer_port: u16,
    options: Options,
}

impl Etcd {
    /// Starts one; `None`, said aloud, where etcd is not installed (an error under CI).
    pub fn start(options: Options) -> Option<Self> {
        let mut etcd = Self::prepare(options)?;
        etcd.start_again();
        Some(etcd)
    }

    /// Starts a cluster of two, which has no leader when one is killed.
    pub fn pair() -> Option<(Self, Self)> {
        let (mut one, mut two) = (Self::prepare(Options::default())?, Self::prepare(Options::default())?);
        let cluster = format!("{},{}", one.member(), two.member());
        for etcd in [&mut one, &mut two] {
            etcd.set_args(&["--initial-cluster", &cluster]);
            etcd.launch();
        }
        one.wait_until_healthy();
        two.wait_until_healthy();
        Some((one, two))
    }

    fn prepare(options: Options) -> Option<Self> {
        let installed = Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_ok();
        if !can_run("a test with a real etcd", installed, "etcd") {
            return None;
        }
        let scratch = Scratch::new();
        let data = scratch.path().join("data");
        Some(Etcd { child: None, scratch, data, port: free_port(), peer_port: free_port(), options })
    }

    fn member(&self) -> String {
        format!("member-{0}=http://127.0.0.1:{0}", self.peer_port)
    }

    /// A plain one.
    pub fn plain() -> Option<Self> {
        Self::start(Options::default())
    }

    /// With other arguments.
    pub fn with(args: &[&str]) -> Option<Self> {
        Self::start(Options { args: args.iter().map(|&arg| arg.to_owned()).collect(), tls: None })
    }

    fn scheme(&self) -> &'static str {
        if self.options.tls.is_some() { "https" } else { "http" }
    }

    /// Its certificates and its clients', where it serves TLS.
    pub fn certificates(&self) -> &Certificates {
        self.options.tls.as_ref().unwrap()
    }

    /// The endpoint's URL.
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme(), self.port)
    }

    /// Starts it after [`Etcd::kill`], on the same ports and data; returns when it serves.
    pub fn start_again(&mut self) {
        self.launch();
        self.wait_until_healthy();
    }

    fn wait_until_healthy(&self) {
        within(Duration::from_secs(20), "etcd is healthy", || self.try_etcdctl(&["endpoint", "health"]).is_ok());
    }

    fn launch(&mut self) {
        let (url, peer) = (self.url(), format!("http://127.0.0.1:{}", self.peer_port));
        let log = File::create(self.scratch.path().join("log")).unwrap();
        let mut command = Command::new("etcd");
        command
            .args(["--name", &format!("member-{}", self.peer_port), "--logger", "zap", "--log-level", "warn", "--data-dir"])
            .arg(&self.data);
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url, "--listen-peer-urls", &peer]);
        command.args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &self.member()]);
        if let Some(tls) = &self.options.tls {
            command.arg("--cert-file").arg(tls.server_cert()).arg("--key-file").arg(tls.server_key());
            command.arg("--trusted-ca-file").arg(tls.ca()).arg("--client-cert-auth");
        }
        let command = command.args(&self.options.args).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Stops it without ending it, as a disk that does not answer does.
    pub fn freeze(&self) {
        let child = rustix::process::Pid::from_child(self.child.as_ref().unwrap());
        rustix::process::kill_process(child, rustix::process::Signal::STOP).unwrap();
    }

    /// Kills it, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Forgets all data: the next start is a new history, with fewer revisions.
    pub fn lose_data(&mut self) {
        self.kill();
        fs::remove_dir_all(&self.data).unwrap();
    }

    /// Sets the arguments of the next start.
    pub fn set_args(&mut self, args: &[&str]) {
        self.options.args = args.iter().map(|&arg| arg.to_owned()).collect();
    }

    /// Runs etcdctl; its output.
    #[track_caller]
    pub fn etcdctl(&self, args: &[&str]) -> String {
        self.try_etcdctl(args).unwrap_or_else(|error| panic!("etcdctl {args:?}: {error}"))
    }

    fn try_etcdctl(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--command-timeout=5s").args(["--endpoints", &self.url()]);
        if let Some(tls) = &self.options.tls {
            command.arg("--cacert").arg(tls.ca()).arg("--cert").arg(tls.client_cert()).arg("--key").arg(tls.client_key());
        }
        let output = command.args(args).output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// Writes one object.
    #[track_caller]
    pub fn put(&self, (key, value): &(String, String)) {
        self.etcdctl(&["put", key, value]);
    }

    /// Deletes one object.
    #[track_caller]
    pub fn delete(&self, key: &str) {
        self.etcdctl(&["del", key]);
    }

    /// Drops all history.
    #[track_caller]
    pub fn compact(&self) {
        let status = self.etcdctl(&["endpoint", "status", "--write-out=json"]);
        let revision: serde_json::Value = serde_json::from_str(&status).unwrap();
        let revision = revision[0]["Status"]["header"]["revision"].as_u64().unwrap();
        self.etcdctl(&["compact", &revision.to_string()]);
    }

    /// Creates root and `user`, who may read what starts with `prefix`, and turns authentication on.
    #[track_caller]
    pub fn enable_auth(&self, user: &str, password: &str, prefix: &str) {
        self.etcdctl(&["user", "add", "root:root"]);
        self.etcdctl(&["user", "grant-role", "root", "root"]);
        self.etcdctl(&["user", "add", &format!("{user}:{password}")]);
        self.etcdctl(&["role", "add", "reader"]);
        self.etcdctl(&["role", "grant-permission", "reader", "--prefix=true", "read", prefix]);
        self.etcdctl(&["user", "grant-role", user, "reader"]);
        self.etcdctl(&["auth", "enable"]);
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}
