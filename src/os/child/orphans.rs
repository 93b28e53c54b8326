//! What a program leaves behind: processes that left its group (`setsid`) or outlived their parents. Touches: `/proc` and this process's
//! own children.
//!
//! This process adopts orphans, so that everything that a program starts remains its descendant. An environment variable marks which run a
//! process belongs to. As process 1 of a container, this process also gets unrelated orphans, which it only reaps.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitOptions, getpid, kill_process, set_child_subreaper, waitid, waitpid};

const MARK: &str = "CALICO_ACCOUNTANT_RUN";
/// The time limit for ending the remaining processes and everything that they start meanwhile.
const LONGEST: Duration = Duration::from_millis(500);
/// The interval between looks at killed processes.
const AGAIN: Duration = Duration::from_millis(1);

/// The running programs. The threads that started them wait for them.
static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn running() -> MutexGuard<'static, BTreeSet<u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One run of a program. Dropping it ends everything that the program has started.
pub struct Run {
    mark: String,
    program: u32,
}

impl Run {
    pub fn start(command: &mut Command) -> std::io::Result<(Child, Run)> {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        // Without this, init gets the orphans, and only a program's group ends with it.
        _ = set_child_subreaper(Some(getpid()));
        let mark = format!("{}.{}", getpid().as_raw_nonzero(), RUNS.fetch_add(1, Ordering::Relaxed));
        let mut running = running();
        let child = command.env(MARK, &mark).spawn()?;
        let program = child.id();
        running.insert(program);
        Ok((child, Run { mark: format!("{MARK}={mark}"), program }))
    }

    /// Kills remaining processes that are this process's children by now. Reports whether there were any.
    fn kill_orphans(&self) -> bool {
        let running = running();
        let mut found = false;
        for orphan in children().filter(|child| !running.contains(&child.as_raw_nonzero().get().unsigned_abs())) {
            if self.has_started(orphan) {
                _ = kill_process(orphan, Signal::KILL);
                found = true;
            }
            // Reaps it if it has ended.
            _ = waitpid(Some(orphan), WaitOptions::NOHANG);
        }
        found
    }

    fn has_started(&self, process: Pid) -> bool {
        let environment = fs::read(format!("/proc/{}/environ", process.as_raw_nonzero())).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|variable| variable == self.mark.as_bytes())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        running().remove(&self.program);
        let begun = Instant::now();
        // A process whose parent ended is now this process's child.
        while any_child() && self.kill_orphans() && begun.elapsed() < LONGEST {
            std::thread::sleep(AGAIN);
        }
    }
}

fn any_child() -> bool {
    !matches!(waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT), Err(Errno::CHILD))
}

fn children() -> impl Iterator<Item = Pid> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok().and_then(Pid::from_raw));
    let own = getpid().as_raw_nonzero().to_string();
    ids.filter(move |process| {
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).unwrap_or_default();
        // State and parent follow the name in parentheses.
        stat.rsplit(')').next().is_some_and(|rest| rest.split(' ').nth(2) == Some(&own))
    })
}
