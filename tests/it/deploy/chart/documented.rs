//! What the documents say about the chart: their commands run against a real API server, and the chart accepts their values.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::support::helm::{Helm, IMAGE, chart, program};
use crate::support::kube::{ADMIN, Kube};

use super::super::{path, text};

/// The code blocks of a kind (`sh`, `yaml`) in a document.
fn blocks(document: &str, kind: &str) -> Vec<String> {
    let (text, begin) = (text(document), format!("```{kind}\n"));
    let blocks = text.split(&begin).skip(1).map(|rest| rest.split_once("```").unwrap().0.to_owned());
    blocks.collect()
}

#[test]
fn the_documents_commands_install_the_chart() {
    let Some(helm) = Helm::built("the documents' commands for Helm") else { return };
    let Some(kube) = Kube::start() else { return };
    for kind in ["PodMonitor", "PrometheusRule"] {
        kube.define("monitoring.coreos.com", "v1", kind, true);
    }
    kube.define("security.openshift.io", "v1", "SecurityContextConstraints", false);
    let wrapper = format!(
        "#!/bin/sh\nexec {} --kube-apiserver {} --kube-token {ADMIN} --kube-ca-file {} \"$@\"\n",
        program().display(),
        kube.url(),
        kube.certificates.ca().display()
    );
    fs::write(helm.file("helm"), wrapper).unwrap();
    fs::set_permissions(helm.file("helm"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut run = 0;
    for document in ["README.md", "docs/chart.md", "docs/selinux.md", "deploy/helm/calico-accountant/README.md"] {
        let commands: String = blocks(document, "sh").concat().replace("\\\n", " ");
        let installing = commands.lines().filter(|line| line.starts_with("helm ") && line.contains("install calico-accountant "));
        for command in installing {
            let namespace = command.split_once("--namespace ").unwrap().1.split(' ').next().unwrap();
            let uninstall = format!("helm uninstall calico-accountant --namespace {namespace}");
            let mut shell = Command::new("sh");
            shell.args(["-euc", &format!("{command}; {uninstall}")]).current_dir(path("")).env_clear();
            shell
                .env("PATH", format!("{}:/usr/bin:/bin", helm.file("").display()))
                .env("HOME", helm.file(""))
                .env("KUBECONFIG", "/dev/null");
            let output = shell.output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("STATUS: deployed"), "{document}: {command}: {said}{output:?}");
            run += 1;
        }
    }
    assert!(run >= 5, "{run}");
}

#[test]
fn the_documents_values_are_taken() {
    let Some(helm) = Helm::built("the documents' values") else { return };
    let values = |block: &String| ["podMonitor:", "prometheusRule:"].iter().any(|key| block.starts_with(key));
    let blocks: Vec<_> = blocks("docs/chart.md", "yaml").into_iter().filter(values).collect();
    assert!(blocks.len() >= 2);
    for block in blocks {
        let file = helm.file("values.yaml");
        fs::write(&file, &block).unwrap();
        helm.run(&["template", "x", chart().to_str().unwrap(), IMAGE[0], IMAGE[1], "-f", file.to_str().unwrap()]);
    }
}
