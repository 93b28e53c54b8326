//! Runs a program and hands on its output as it arrives. Touches: one child process, its pipes. However the run ends, the child and
//! everything that it started are killed and reaped.

mod orphans;

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The size of the pipe and of one read, in bytes. With a smaller pipe, a large table would cost a context switch for each page.
const PIPE_SIZE: usize = 1 << 20;
/// From this many bytes of output on, the pipe is left to fill before each read. A reader woken for every page slows down the writer.
const LARGE: usize = 256 << 10;
/// How long it is left to fill. iptables-save writes about 100 kB in this time.
const GATHER: Duration = Duration::from_millis(1);
/// The maximum kept from the child's standard error, in bytes.
const KEPT_ERROR: usize = 2048;

#[derive(Debug)]
pub enum ChildError {
    Start(io::Error),
    Read(io::Error),
    TimedOut(Duration),
    Refused(String),
    Failed { status: ExitStatus, stderr: String },
}

impl fmt::Display for ChildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChildError::Start(error) => write!(f, "cannot be started: {error}"),
            ChildError::Read(error) => write!(f, "cannot be read from: {error}"),
            ChildError::TimedOut(after) => write!(f, "was killed: it had not ended after {:.1} s", after.as_secs_f64()),
            ChildError::Refused(why) => write!(f, "was killed: {why}"),
            ChildError::Failed { status, stderr } => {
                match (status.code(), status.signal()) {
                    (Some(code), _) => write!(f, "ended with exit code {code}")?,
                    (_, Some(signal)) => write!(f, "was ended by signal {signal}")?,
                    _ => write!(f, "ended abnormally")?,
                }
                if stderr.is_empty() { Ok(()) } else { write!(f, ": {stderr}") }
            }
        }
    }
}

/// The environment variables that are passed on.
const ENVIRONMENT: [&str; 3] = ["PATH", "LD_LIBRARY_PATH", "XTABLES_LIBDIR"];

pub fn find(name: &str, search_path: &OsStr) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let is_program = |path: &Path| path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0);
    std::env::split_paths(search_path).map(|folder| folder.join(name)).find(|path| is_program(path))
}

/// Runs a program. It gets only those environment variables that locate programs and libraries, and no passwords.
pub fn run(program: &Path, args: &[&str], limit: Duration, take: Take<'_>) -> Result<(), ChildError> {
    let environment = ENVIRONMENT.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    run_command(Command::new(program).args(args).env_clear().envs(environment), limit, take)
}

/// Gets each piece of output. An error refuses further output.
pub type Take<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), String>;

/// Like [`run()`] for a command with its own environment. Sets the standard streams and the process group.
pub fn run_command(command: &mut Command, limit: Duration, take: Take<'_>) -> Result<(), ChildError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // In its own process group, which is killed at the end.
    let (child, orphans) = orphans::Run::start(command.process_group(0)).map_err(ChildError::Start)?;
    let mut run = Run { child, _orphans: orphans, deadline: Instant::now() + limit, limit };
    let stderr = run.output(take)?;
    let status = run.wait()?;
    match status.success() {
        true => Ok(()),
        false => Err(ChildError::Failed { status, stderr: one_line(&stderr) }),
    }
}

/// A running child. Dropping it kills and reaps the child, and then its orphans.
struct Run {
    child: Child,
    _orphans: orphans::Run,
    deadline: Instant,
    limit: Duration,
}

impl Drop for Run {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            if let Some(group) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
                _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            _ = self.child.kill();
            _ = self.child.wait();
        }
    }
}

impl Run {
    /// Reads both pipes until the output ends. Returns what was written to standard error.
    fn output(&mut self, take: Take<'_>) -> Result<Vec<u8>, ChildError> {
        let (stdout, stderr) = (self.child.stdout.take(), self.child.stderr.take());
        let (Some(mut stdout), Some(mut stderr)) = (stdout, stderr) else { return Ok(Vec::new()) };
        // May fail: an unprivileged user may have a lower limit.
        _ = rustix::pipe::fcntl_setpipe_size(&stdout, PIPE_SIZE);
        let mut buffer = vec![0; PIPE_SIZE];
        let (mut kept, mut stdout_open, mut stderr_open, mut total) = (Vec::new(), true, true, 0);
        while stdout_open {
            let (out_ready, err_ready) = self.wait_for(&stdout, stderr_open.then_some(&stderr))?;
            if err_ready {
                stderr_open = keep(&mut stderr, &mut buffer, &mut kept)?;
            }
            if out_ready {
                let n = read(&mut stdout, &mut buffer)?;
                take(&buffer[..n]).map_err(ChildError::Refused)?;
                stdout_open = n > 0;
                total += n;
                if stdout_open && total > LARGE {
                    std::thread::sleep(GATHER);
                }
            }
        }
        // Reads what the child writes before it ends, without waiting for processes that it may have started.
        while stderr_open && kept.len() < KEPT_ERROR && self.wait().is_ok() && readable(&stderr)? {
            stderr_open = keep(&mut stderr, &mut buffer, &mut kept)?;
        }
        Ok(kept)
    }

    fn wait_for(&self, stdout: &impl AsFd, stderr: Option<&impl AsFd>) -> Result<(bool, bool), ChildError> {
        let events = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        let mut fds = vec![PollFd::new(stdout, events)];
        fds.extend(stderr.map(|stderr| PollFd::new(stderr, events)));
        loop {
            let left = self.deadline.checked_duration_since(Instant::now()).ok_or(ChildError::TimedOut(self.limit))?;
            match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
                Ok(0) => return Err(ChildError::TimedOut(self.limit)),
                Ok(_) => return Ok((!fds[0].revents().is_empty(), fds.get(1).is_some_and(|fd| !fd.revents().is_empty()))),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(ChildError::Read(error.into())),
            }
        }
    }

    fn wait(&mut self) -> Result<ExitStatus, ChildError> {
        loop {
            if let Some(status) = self.child.try_wait().map_err(ChildError::Read)? {
                return Ok(status);
            }
            if Instant::now() >= self.deadline {
                return Err(ChildError::TimedOut(self.limit));
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}

fn readable(fd: &impl AsFd) -> Result<bool, ChildError> {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(poll(&mut fds, Some(&now)).map_err(|error| ChildError::Read(error.into()))? > 0 && fds[0].revents().contains(PollFlags::IN))
}

/// Keeps the beginning of standard error. Reports whether more may follow.
fn keep(from: &mut impl Read, buffer: &mut [u8], kept: &mut Vec<u8>) -> Result<bool, ChildError> {
    let n = read(from, buffer)?;
    kept.extend_from_slice(&buffer[..n.min(KEPT_ERROR - kept.len())]);
    Ok(n > 0)
}

fn read(from: &mut impl Read, buffer: &mut [u8]) -> Result<usize, ChildError> {
    loop {
        match from.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map_err(ChildError::Read),
        }
    }
}

fn one_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> (Result<(), ChildError>, Vec<u8>) {
        let mut output = Vec::new();
        let result = run(Path::new("/bin/sh"), &["-c", script], limit, &mut |piece| {
            output.extend_from_slice(piece);
            if output.len() > 4 << 20 { Err("more than 4 MiB".into()) } else { Ok(()) }
        });
        (result, output)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn output_comes_whole() {
        let (result, output) = sh("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; echo note >&2", LONG);
        result.unwrap();
        assert!(output.ends_with(b"line 2999\n"));
    }

    #[test]
    fn a_failure_tells_code_and_what_was_said() {
        let (result, _) = sh("echo one >&2; echo; echo two >&2; exit 4", LONG);
        assert_eq!(result.unwrap_err().to_string(), "ended with exit code 4: one; two");
        let (result, _) = sh("kill -9 $$", LONG);
        assert_eq!(result.unwrap_err().to_string(), "was ended by signal 9");
    }

    #[test]
    fn one_that_hangs_is_killed_with_all_it_started() {
        let begun = Instant::now();
        let (result, output) = sh("echo $$; sleep 100 & sleep 100", Duration::from_millis(300));
        assert!(matches!(result, Err(ChildError::TimedOut(_))));
        assert!(begun.elapsed() < Duration::from_secs(5));
        let group = String::from_utf8(output).unwrap().trim().to_owned();
        while lives(&group) {
            assert!(begun.elapsed() < Duration::from_secs(5), "what it has started lives on");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its first two children are in their own sessions. The second one is already an orphan.
    #[test]
    fn what_left_its_group_ends_too() {
        const SLEEP: &str = "setsid sleep 1000 >/dev/null 2>&1 & echo $!; (setsid sleep 1000 >/dev/null 2>&1 & echo $!);";
        for (end, fails) in [("sleep 1000", true), ("yes; exit", true), ("exit 3", true), ("sleep 0.1", false)] {
            let (result, output) = sh(&format!("{SLEEP} {end}"), Duration::from_secs(2));
            assert_eq!(result.is_err(), fails, "{end}: {result:?}");
            let text = String::from_utf8(output).unwrap();
            let pids: Vec<_> = text.lines().filter_map(|line| line.parse::<u32>().ok()).collect();
            assert_eq!(pids.len(), 2, "{text}");
            let begun = Instant::now();
            while pids.iter().any(|pid| Path::new(&format!("/proc/{pid}")).exists()) {
                assert!(begun.elapsed() < Duration::from_secs(5), "{end}: {pids:?}");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// Reports whether any process of this group is more than a zombie that init has to reap.
    fn lives(group: &str) -> bool {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let stats = processes.filter_map(|process| std::fs::read_to_string(process.path().join("stat")).ok());
        // State, parent and group follow the name in parentheses.
        let of_group = |stat: &String| stat.rsplit(')').next().is_some_and(|rest| rest.split(' ').nth(3) == Some(group));
        stats.filter(of_group).any(|stat| !stat.contains(") Z "))
    }

    #[test]
    fn one_that_closes_its_output_and_stays_is_killed_too() {
        let (result, _) = sh("exec >&- 2>&-; sleep 100", Duration::from_millis(300));
        assert!(matches!(result, Err(ChildError::TimedOut(_))));
    }

    #[test]
    fn one_that_floods_is_stopped() {
        let (result, output) = sh("yes 2>/dev/null", LONG);
        assert_eq!(result.unwrap_err().to_string(), "was killed: more than 4 MiB");
        assert!(output.len() < 6 << 20);
        let (result, _) = sh("yes >&2", Duration::from_millis(300));
        assert!(matches!(result, Err(ChildError::TimedOut(_))));
    }

    #[test]
    fn one_that_is_not_there() {
        let error = run(Path::new("/no/such/program"), &[], LONG, &mut |_| Ok(())).unwrap_err();
        assert!(error.to_string().starts_with("cannot be started: No such file"), "{error}");
        assert_eq!(find("no-such-program", OsStr::new("/bin:/usr/bin")), None);
        assert!(find("sh", OsStr::new("/nowhere:/bin")).is_some());
    }
}
