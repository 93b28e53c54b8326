//! A real etcd in a temporary directory, with its own ports. Killed when dropped.

use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use super::certificates::Certificates;
use super::{can_run, within};

/// A directory that is removed when dropped.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(format!("calico-accountant-test-{}-{}", std::process::id(), next()));
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

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

/// Returns an unused port. It is below the range from which the kernel takes ports for outgoing connections, so that it stays free while a
/// server is restarted.
pub fn free_port() -> u16 {
    loop {
        let port = 12_000 + ((std::process::id() as u16).wrapping_mul(97).wrapping_add(next())) % 18_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

#[derive(Default)]
pub struct Options {
    /// Further arguments.
    pub args: Vec<String>,
    /// Serve TLS and require client certificates.
    pub tls: Option<Certificates>,
    /// Run as this user, so that a packet filter can recognise its packets.
    pub uid: Option<u32>,
}

pub struct Etcd {
    child: Option<Child>,
    scratch: Scratch,
    data: PathBuf,
    pub port: u16,
    peer_port: u16,
    options: Options,
    /// All members of its cluster.
    cluster: String,
}

impl Etcd {
    /// Starts an etcd. Returns `None` with a message if etcd is not installed (an error under CI).
    pub fn start(options: Options) -> Option<Self> {
        let mut etcd = Self::prepare(options)?;
        etcd.start_again();
        Some(etcd)
    }

    /// Starts a cluster of two, which has no leader if one is killed.
    pub fn pair() -> Option<(Self, Self)> {
        let mut pair = Self::cluster([Options::default(), Options::default()])?.into_iter();
        pair.next().zip(pair.next())
    }

    /// Starts a cluster with a member for each of `options`.
    pub fn cluster<const N: usize>(options: [Options; N]) -> Option<Vec<Self>> {
        let mut members = options.into_iter().map(Self::prepare).collect::<Option<Vec<_>>>()?;
        let cluster = members.iter().map(Self::member).collect::<Vec<_>>().join(",");
        members.iter_mut().for_each(|member| member.cluster.clone_from(&cluster));
        Self::start_all(&mut members);
        Some(members)
    }

    /// Starts members that have no leader one by one.
    pub fn start_all(members: &mut [Self]) {
        members.iter_mut().for_each(Self::launch);
        members.iter().for_each(Self::wait_until_healthy);
    }

    fn prepare(options: Options) -> Option<Self> {
        let installed = Command::new("etcd").arg("--version").stdout(Stdio::null()).status().is_ok();
        if !can_run("a test with a real etcd", installed, "etcd") {
            return None;
        }
        let scratch = Scratch::new();
        if options.uid.is_some() {
            chown(scratch.path(), options.uid, None).unwrap();
        }
        let data = scratch.path().join("data");
        let mut etcd = Etcd { child: None, scratch, data, port: free_port(), peer_port: free_port(), options, cluster: String::new() };
        etcd.cluster = etcd.member();
        Some(etcd)
    }

    fn member(&self) -> String {
        format!("member-{0}=http://127.0.0.1:{0}", self.peer_port)
    }

    /// Starts an etcd with the default options.
    pub fn plain() -> Option<Self> {
        Self::start(Options::default())
    }

    /// Starts an etcd with further arguments.
    pub fn with(args: &[&str]) -> Option<Self> {
        Self::start(Options { args: args.iter().map(|&arg| arg.to_owned()).collect(), ..Options::default() })
    }

    fn scheme(&self) -> &'static str {
        if self.options.tls.is_some() { "https" } else { "http" }
    }

    /// Returns its certificates and its clients', if it serves TLS.
    pub fn certificates(&self) -> &Certificates {
        self.options.tls.as_ref().unwrap()
    }

    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme(), self.port)
    }

    /// Starts it after [`Etcd::kill`], with the same ports and data. Returns when it serves.
    pub fn start_again(&mut self) {
        self.launch();
        self.wait_until_healthy();
    }

    fn wait_until_healthy(&self) {
        // If there are users, only they may ask.
        let healthy = |user: &[&str]| self.try_etcdctl(&[user, &["endpoint", "health"]].concat()).is_ok();
        within(Duration::from_secs(20), "etcd is healthy", || healthy(&[]) || healthy(&["--user", "root:root"]));
    }

    fn launch(&mut self) {
        let (url, peer) = (self.url(), format!("http://127.0.0.1:{}", self.peer_port));
        let log = File::create(self.scratch.path().join("log")).unwrap();
        let mut command = Command::new("etcd");
        command
            .args(["--name", &format!("member-{}", self.peer_port), "--logger", "zap", "--log-level", "warn", "--data-dir"])
            .arg(&self.data);
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url, "--listen-peer-urls", &peer]);
        command.args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &self.cluster]);
        if let Some(tls) = &self.options.tls {
            command.arg("--cert-file").arg(tls.server_cert()).arg("--key-file").arg(tls.server_key());
            command.arg("--trusted-ca-file").arg(tls.ca()).arg("--client-cert-auth");
        }
        if let Some(uid) = self.options.uid {
            command.uid(uid);
        }
        let command = command.args(&self.options.args).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    /// Stops its process without ending it, like a disk that does not answer.
    pub fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// Continues it after [`Etcd::freeze`].
    pub fn thaw(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let child = rustix::process::Pid::from_child(self.child.as_ref().unwrap());
        rustix::process::kill_process(child, signal).unwrap();
    }

    /// Kills it, like a power failure.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Deletes all data. The next start is a new history, with fewer revisions.
    pub fn lose_data(&mut self) {
        self.kill();
        fs::remove_dir_all(&self.data).unwrap();
    }

    /// Sets the arguments of the next start.
    pub fn set_args(&mut self, args: &[&str]) {
        self.options.args = args.iter().map(|&arg| arg.to_owned()).collect();
    }

    /// Replaces its data by those of a snapshot. It must not be running.
    pub fn restore(&mut self, snapshot: &Path) {
        self.lose_data();
        // In etcd 3.6 this moved to a separate program.
        let program = if Command::new("etcdutl").arg("version").output().is_ok() { "etcdutl" } else { "etcdctl" };
        let mut command = Command::new(program);
        command.env("ETCDCTL_API", "3").args(["snapshot", "restore"]).arg(snapshot).arg("--data-dir").arg(&self.data);
        command.args(["--name", &format!("member-{}", self.peer_port), "--initial-cluster", &self.cluster]);
        command.args(["--initial-advertise-peer-urls", &format!("http://127.0.0.1:{}", self.peer_port)]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Returns the port for the other members.
    pub fn peer_port(&self) -> u16 {
        self.peer_port
    }

    /// Runs etcdctl. Returns its output.
    #[track_caller]
    pub fn etcdctl(&self, args: &[&str]) -> String {
        self.try_etcdctl(args).unwrap_or_else(|error| panic!("etcdctl {args:?}: {error}"))
    }

    fn try_etcdctl(&self, args: &[&str]) -> Result<String, String> {
        self.run_etcdctl(args, b"")
    }

    /// Runs etcdctl with an input. Returns its output, or its error.
    pub fn run_etcdctl(&self, args: &[&str], input: &[u8]) -> Result<String, String> {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--command-timeout=5s").args(["--endpoints", &self.url()]);
        if let Some(tls) = &self.options.tls {
            command.arg("--cacert").arg(tls.ca()).arg("--cert").arg(tls.client_cert()).arg("--key").arg(tls.client_key());
        }
        let mut child = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A program that does not read its input may end before everything is written.
        _ = child.stdin.take().unwrap().write_all(input);
        let output = child.wait_with_output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    #[track_caller]
    pub fn put(&self, (key, value): &(String, String)) {
        self.etcdctl(&["put", key, value]);
    }

    #[track_caller]
    pub fn delete(&self, key: &str) {
        self.etcdctl(&["del", key]);
    }

    /// Compacts all history.
    #[track_caller]
    pub fn compact(&self) {
        let status = self.etcdctl(&["endpoint", "status", "--write-out=json"]);
        let revision: serde_json::Value = serde_json::from_str(&status).unwrap();
        let revision = revision[0]["Status"]["header"]["revision"].as_u64().unwrap();
        self.etcdctl(&["compact", &revision.to_string()]);
    }

    /// Creates root and `user`, who may read keys with this `prefix`, and enables authentication.
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
