//! Helm, as users run it on the chart: alone, and as administrator of a real API server.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::etcd::Scratch;
use super::kube::{ADMIN, Kube};
use super::{built, can_run};

/// The image's registry, which the chart requires. A test's own values have priority.
pub const IMAGE: [&str; 2] = ["--set", "image.registry=registry.example"];

/// The built Helm, with its own home folder.
pub struct Helm(Scratch);

pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/helm/calico-accountant")
}

impl Helm {
    /// Returns `None` with a message if `scripts/helm` has not been run.
    pub fn built(test: &str) -> Option<Self> {
        can_run(test, program().exists(), "scripts/helm to have been run").then(|| Helm(Scratch::new()))
    }

    /// Returns a path in its folder, also for a test's files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs Helm, also if it fails.
    pub fn try_run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(program());
        command.env_clear().env("HOME", self.0.path()).env("KUBECONFIG", "/dev/null").stdin(Stdio::null());
        command.args(args).output().unwrap()
    }

    /// Runs Helm. Returns its output. An error or a warning fails the test.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> String {
        succeeded(&self.try_run(args), args)
    }

    /// Runs Helm on a namespace of an API server. An error or a warning fails the test.
    #[track_caller]
    pub fn on(&self, kube: &Kube, namespace: &str, args: &[&str]) -> String {
        succeeded(&self.try_on(kube, namespace, args), args)
    }

    /// Runs Helm on a namespace of an API server, also if it fails.
    pub fn try_on(&self, kube: &Kube, namespace: &str, args: &[&str]) -> Output {
        let (url, ca) = (kube.url(), kube.certificates.ca());
        let to = ["--kube-apiserver", &url, "--kube-token", ADMIN, "--kube-ca-file", ca.to_str().unwrap(), "--namespace", namespace];
        self.try_run(&[args, &to].concat())
    }

    /// Returns the objects of a chart with further arguments.
    #[track_caller]
    pub fn template(&self, chart: &Path, args: &[&str]) -> Vec<Value> {
        let text = self
            .run(&[&["template", "calico-accountant", chart.to_str().unwrap(), "--namespace", "kube-system"], &IMAGE[..], args].concat());
        let documents = text.split("\n---\n").filter(|document| document.lines().any(|line| !line.starts_with(['#', '-'])));
        documents.map(|document| yaml_serde::from_str(document).unwrap_or_else(|error| panic!("{error}: {document}"))).collect()
    }
}

#[track_caller]
fn succeeded(output: &Output, args: &[&str]) -> String {
    let complaints = complaints(output);
    assert!(output.status.success() && complaints.is_empty(), "helm {args:?}: {complaints}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Returns the text on standard error, except messages about the chart's links.
pub fn complaints(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    said.lines().filter(|line| !line.contains("found symbolic link in path")).collect::<Vec<_>>().join("\n")
}

/// Returns the path of the program from `scripts/helm`.
pub fn program() -> PathBuf {
    built::program("helm", "helm.sh/helm/v3", "helm")
}
