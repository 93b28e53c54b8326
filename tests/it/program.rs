//! The built program as a child process with a known environment. It is killed when dropped.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// How long to wait for anything before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The path of the built program, or of another build that `ACCOUNTANT` names, for example the static one.
pub fn binary() -> String {
    std::env::var("ACCOUNTANT").unwrap_or_else(|_| env!("CARGO_BIN_EXE_calico-accountant").to_owned())
}

/// The program with a minimal valid environment and nothing else in it.
pub fn command() -> Command {
    with_environment(Command::new(binary()))
}

/// The same, started by a shell after `setup`.
pub fn command_after(setup: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("{setup}; exec '{}' \"$@\"", binary()), "sh"]);
    with_environment(command)
}

/// The same, started by another program.
pub fn command_under(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).arg(binary());
    with_environment(command)
}

fn with_environment(mut command: Command) -> Command {
    command.env_clear().stdin(Stdio::null());
    command.env("NODENAME", "node-1").env("ETCD_ENDPOINTS", "http://127.0.0.1:1");
    command.env("METRICS_SERVER_PORT", "0").env("LISTEN_ADDRESS", "127.0.0.1");
    command
}

/// The running program.
pub struct Program {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

impl Program {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (stderr, lines) = (child.stderr.take().unwrap(), Arc::clone(&log));
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                lines.lock().unwrap().push(line.unwrap());
            }
        });
        Self { child, log }
    }

    /// Everything logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Waits for a log line with this text.
    pub fn await_log(&self, text: &str) -> String {
        await_some(|| self.log().into_iter().find(|line| line.contains(text)), || format!("{text:?} in {:#?}", self.log()))
    }

    /// Waits until the program listens. Returns its port.
    pub fn port(&self) -> u16 {
        let line = self.await_log("listening on ");
        let port = line.trim_end_matches(['"', '}']).rsplit(':').next().unwrap();
        port.parse().unwrap_or_else(|_| panic!("{line}"))
    }

    pub fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Waits until the program ends. Returns its exit code, or `None` after a signal.
    pub fn exit_code(&mut self) -> Option<i32> {
        let status = await_some(|| self.child.try_wait().unwrap(), || "the end of the process".into());
        status.code()
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Polls until there is a result. After [`PATIENCE`], fails with what `what` says.
pub fn await_some<T>(mut poll: impl FnMut() -> Option<T>, what: impl Fn() -> String) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {}", what());
        thread::sleep(Duration::from_millis(10));
    }
}
