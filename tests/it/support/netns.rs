//! Network namespaces for a test. A thread enters one, and so does everything that it starts.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A namespace that is deleted when dropped.
pub struct Namespace(String);

impl Namespace {
    /// Creates a namespace with its loopback up. Returns `None` with a message if that is not possible.
    pub fn new(test: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("accountant-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let made = Command::new("ip").args(["netns", "add", &name]).stderr(Stdio::null()).status().is_ok_and(|s| s.success());
        super::can_run(test, made, "root and network namespaces").then(|| {
            let namespace = Namespace(name);
            namespace.run(|| sh("ip link set lo up"));
            namespace
        })
    }

    /// Returns its name, for `ip … netns`.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Runs a function inside.
    pub fn run<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.0)).unwrap();
        let thread = || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            inside()
        };
        std::thread::scope(|scope| match scope.spawn(thread).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

/// The namespace of a thread, which another thread can enter.
pub struct Here(File);

impl Namespace {
    /// Returns the calling thread's namespace.
    pub fn here() -> Here {
        Here(File::open("/proc/thread-self/ns/net").unwrap())
    }
}

impl Here {
    /// Moves the calling thread there.
    pub fn enter(&self) {
        move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

/// Runs a shell script that must succeed. Returns its output.
#[track_caller]
pub fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Feeds a text to a command that must succeed.
#[track_caller]
pub fn feed(command: &str, text: &str) {
    use std::io::Write;
    let mut child = Command::new("sh");
    child.args(["-c", command]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").spawn().unwrap();
    let stdin = child.stdin.take().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stdin = stdin;
            _ = stdin.write_all(text.as_bytes());
        });
    });
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}
