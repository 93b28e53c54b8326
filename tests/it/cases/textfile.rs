//! Cases of node_exporter's textfile collector, which reads files of `metrics --output`.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Case, Said};
use crate::http;
use crate::program::command_after;
use crate::support::etcd::{Scratch, free_port};
use crate::support::{can_run, within};

/// A real node_exporter with no other collector. It is killed when dropped.
struct NodeExporter {
    child: Child,
    port: u16,
    log: Scratch,
}

impl NodeExporter {
    fn start(test: &str, folder: &Scratch) -> Option<Self> {
        const PROGRAM: &str = "prometheus-node-exporter";
        let installed = Command::new(PROGRAM).arg("--version").output().is_ok_and(|output| output.status.success());
        if !can_run(test, installed, PROGRAM) {
            return None;
        }
        let (port, log) = (free_port(), Scratch::new());
        let mut command = Command::new(PROGRAM);
        command.args(["--collector.disable-defaults", "--collector.textfile"]).arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.arg(format!("--collector.textfile.directory={}", folder.path().display()));
        let errors = File::create(log.path().join("log")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors).spawn().unwrap();
        let exporter = NodeExporter { child, port, log };
        within(Duration::from_secs(20), "node_exporter answers", || http::get(port, "/").is_ok());
        Some(exporter)
    }

    /// What it answers. The body is chunked.
    fn metrics(&self) -> String {
        let agent = ureq::Agent::config_builder().proxy(None).build().new_agent();
        agent.get(format!("http://127.0.0.1:{}/metrics", self.port)).call().unwrap().body_mut().read_to_string().unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log.path().join("log")).unwrap()
    }
}

impl Drop for NodeExporter {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

pub fn node_exporter_takes_the_file(case: &Case) -> Option<()> {
    let folder = Scratch::new();
    let file = folder.path().join("calico.prom");
    let wrote = case.says(&["metrics", "--ruleset", "basic.txt", "--output", file.to_str().unwrap()]);
    assert_eq!(wrote.code, Some(0), "{wrote:?}");
    assert!(!case.says(&["metrics", "--ruleset", "basic.txt"]).out.contains("process_"));
    let node_exporter = NodeExporter::start(case.0, &folder)?;
    let metrics = node_exporter.metrics();
    assert!(metrics.contains("\ncalico_accountant_up 1\n") && metrics.contains("\nnode_textfile_scrape_error 0\n"), "{metrics}");
    assert!(!node_exporter.log().contains("error gathering metrics"), "{}", node_exporter.log());
    Some(())
}

pub fn mode_of_the_file(case: &Case) -> Option<()> {
    for umask in ["077", "027", "000"] {
        let folder = Scratch::new();
        let file = folder.path().join("calico.prom");
        let mut program = command_after(&format!("umask {umask}"));
        program.args(["metrics", "--ruleset"]).arg(case.file("basic.txt")).arg("--output").arg(&file);
        let wrote = Said::of(&mut program);
        assert_eq!(wrote.code, Some(0), "{wrote:?}");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o644, "umask {umask}");
    }
    Some(())
}
