//! The manifests in `deploy/kustomize`, applied to a real API server, and the program run as they say.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::can_run;
use crate::support::kube::{self, Kube};
use crate::support::kubectl::kustomize;

const OVERLAYS: [&str; 3] = ["kubernetes", "etcd", "none"];

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn overlay(name: &str) -> PathBuf {
    repository("deploy/kustomize/overlays").join(name)
}

/// A kustomization of a user's own, in `folder`: an overlay with components.
fn with_components(folder: &Path, name: &str, components: &[&str]) {
    // kustomize takes no absolute paths.
    let up = "../".repeat(folder.parent().unwrap().canonicalize().unwrap().join("x").components().count() - 1);
    let path = |path: PathBuf| format!("{up}{}", path.strip_prefix("/").unwrap().display());
    let components = components.iter().map(|component| path(repository("deploy/kustomize/components").join(component)));
    let kustomization = serde_json::json!({"resources": [path(overlay(name))], "components": components.collect::<Vec<_>>()});
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("kustomization.yaml"), kustomization.to_string()).unwrap();
}

#[test]
fn the_demos_files_are_made_from_the_overlays() {
    if !can_run("comparing demo/ with deploy/kustomize", kube::built(), "scripts/kubernetes to have been run") {
        return;
    }
    for name in OVERLAYS {
        let demo = fs::read_to_string(repository("demo").join(format!("daemonset-{name}.yaml"))).unwrap();
        let objects: String = demo.lines().skip_while(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
        assert_eq!(objects, kustomize(&overlay(name)), "scripts/manifests makes demo/daemonset-{name}.yaml anew");
    }
}

#[test]
fn all_is_applied_without_a_warning() {
    let Some(kube) = Kube::start() else { return };
    kube.define("monitoring.coreos.com", "v1", "PodMonitor", true);
    for name in OVERLAYS {
        let folder = kube.file(name);
        kube.kubectl(&["apply", "-k", overlay(name).to_str().unwrap()]);
        let daemonset = || kube.call("GET", "/apis/apps/v1/namespaces/kube-system/daemonsets/calico-accountant", &Value::Null);
        let annotations = "/spec/template/metadata/annotations";
        assert_eq!(daemonset().pointer(annotations).unwrap()["prometheus.io/port"], "9009");
        with_components(&folder, name, &["podmonitor"]);
        kube.kubectl(&["apply", "-k", folder.to_str().unwrap()]);
        assert_eq!(daemonset().pointer(annotations), None, "a Prometheus finds it by one of the two ways");
        kube.kubectl(&["get", "podmonitors", "-n", "kube-system", "calico-accountant"]);
        kube.kubectl(&["delete", "-k", folder.to_str().unwrap()]);
    }
}
