//! kubectl, as users run it: against a real API server as its administrator, and alone for what it makes of manifests.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::kube::{ADMIN, Kube, program};

/// What `kubectl kustomize` makes of a folder: the objects as YAML. It has to have been built ([`super::kube::built`]).
#[track_caller]
pub fn kustomize(folder: &Path) -> String {
    succeed(bare().arg("kustomize").arg(folder).output().unwrap(), &format!("kustomize {}", folder.display()))
}

impl Kube {
    /// Runs kubectl as the administrator; what it prints. An error or a warning is a failure of the test.
    #[track_caller]
    pub fn kubectl(&self, args: &[&str]) -> String {
        succeed(self.try_kubectl(args), &args.join(" "))
    }

    /// The same, whatever becomes of it. Warnings are on standard error.
    pub fn try_kubectl(&self, args: &[&str]) -> Output {
        let mut command = bare();
        command.args(["--server", &self.url(), "--token", ADMIN, "--certificate-authority"]).arg(self.certificates.ca());
        // What it learns of the server's kinds it keeps there; nothing of that is for another server on the same port.
        command.arg("--cache-dir").arg(self.file("kubectl-cache"));
        command.args(args).output().unwrap()
    }
}

/// kubectl that knows no cluster.
fn bare() -> Command {
    let mut command = Command::new(program("kubectl"));
    command.env_clear().env("KUBECONFIG", "/dev/null").stdin(Stdio::null());
    command
}

#[track_caller]
fn succeed(output: Output, what: &str) -> String {
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "kubectl {what}: {complaints}");
    String::from_utf8(output.stdout).unwrap()
}
