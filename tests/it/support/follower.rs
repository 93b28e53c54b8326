//! Runs a follower of a datastore in its own process, so that its cost can be measured. The process is this test program, started again to
//! run the one test that follows.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use calico_accountant::datastore::inventory::Inventory;
use rustix::process::Pid;
use serde_json::{Value, json};

use super::status;

const JOB: &str = "FOLLOWER_JOB";
const MARK: &str = "state: ";

pub struct Follower {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// The content of a follower's inventory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct State {
    pub up: bool,
    pub troubles: Vec<String>,
    /// The number of repeated lists.
    pub resyncs: u64,
    /// The label `app` of each workload, by its key in the datastore.
    pub workloads: BTreeMap<String, String>,
}

/// The resources that a process has used so far.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// CPU time on all processors.
    pub cpu: Duration,
    /// Resident memory, in kB.
    pub memory: usize,
    pub threads: usize,
    pub descriptors: usize,
}

impl Cost {
    /// Reads the cost of a running process.
    pub fn of(process: Pid) -> Self {
        let id = process.as_raw_nonzero();
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        // User and system time, in hundredths of a second, follow the name in parentheses.
        let after = stat.rsplit(')').next().unwrap().split_ascii_whitespace().skip(11).take(2);
        let ticks: u64 = after.map(|ticks| ticks.parse::<u64>().unwrap()).sum();
        let descriptors = std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count();
        let (memory, threads) = (status(process, "VmRSS"), status(process, "Threads"));
        Cost { cpu: Duration::from_millis(ticks * 10), memory, threads, descriptors }
    }
}

/// In the test that [`Follower::start`] names: returns what to follow. `None` in an ordinary run, in which the test has nothing to do.
pub fn job() -> Option<Value> {
    std::env::var(JOB).ok().map(|job| serde_json::from_str(&job).unwrap())
}

/// In that test: answers requests for the inventory's content until its input ends.
pub fn answer(inventory: &Inventory) {
    for _ in std::io::stdin().lines() {
        let workloads: BTreeMap<_, _> = inventory.workloads().into_iter().map(|(key, workload)| (key, workload.app.clone())).collect();
        let (up, troubles, resyncs) = (inventory.up() && inventory.synced(), inventory.troubles(), inventory.resyncs());
        println!("\n{MARK}{}", json!({"up": up, "troubles": troubles, "resyncs": resyncs, "workloads": workloads}));
    }
}

impl Follower {
    /// Starts `test`, which calls [`job`] and [`answer`].
    pub fn start(test: &str, job: &Value) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]).env(JOB, job.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (ask, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Follower { child, ask, answers }
    }

    /// Returns the content of its inventory.
    #[track_caller]
    pub fn state(&mut self) -> State {
        self.ask.write_all(b"\n").unwrap();
        loop {
            let mut line = String::new();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "the follower has ended");
            let Some(state) = line.strip_prefix(MARK) else { continue };
            let state: Value = serde_json::from_str(state).unwrap();
            let texts = |value: &Value| value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect();
            let workloads = state["workloads"].as_object().unwrap().iter();
            return State {
                up: state["up"] == true,
                troubles: texts(&state["troubles"]),
                resyncs: state["resyncs"].as_u64().unwrap(),
                workloads: workloads.map(|(key, app)| (key.clone(), app.as_str().unwrap().to_owned())).collect(),
            };
        }
    }

    /// Returns the resources that it has used so far.
    pub fn cost(&self) -> Cost {
        Cost::of(Pid::from_child(&self.child))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
