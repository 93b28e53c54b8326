//! kubectl, as users run it: as administrator of a real API server, and without a server to process manifests.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::kube::{ADMIN, Kube, program};

/// Returns the output of `kubectl kustomize` for a folder: the objects as YAML. kubectl must have been built ([`super::kube::built`]).
#[track_caller]
pub fn kustomize(folder: &Path) -> String {
    succeed(bare().arg("kustomize").arg(folder).output().unwrap(), &format!("kustomize {}", folder.display()))
}

impl Kube {
    /// Runs kubectl as the administrator. Returns its output. An error or a warning fails the test.
    #[track_caller]
    pub fn kubectl(&self, args: &[&str]) -> String {
        succeed(self.try_kubectl(args), &args.join(" "))
    }

    /// Runs kubectl, also if it fails. Warnings are on standard error.
    pub fn try_kubectl(&self, args: &[&str]) -> Output {
        let mut command = bare();
        command.args(["--server", &self.url(), "--token", ADMIN, "--certificate-authority"]).arg(self.certificates.ca());
        // It caches the server's kinds in this folder, and must not use them for another server on the same port.
        command.arg("--cache-dir").arg(self.file("kubectl-cache"));
        command.args(args).output().unwrap()
    }
}

/// Returns a kubectl without any cluster.
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
