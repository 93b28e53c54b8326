//! What is deployed with the program: unit, alerts, dashboards, chart. Each is tried with the program that will read it.

mod chart;
pub mod dashboards;
mod firing;
pub mod promql;
pub mod rules;
pub mod scraped;
mod systemd;

use std::path::{Path, PathBuf};

/// The path of a file or folder of the repository.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The text of a file of the repository.
#[track_caller]
fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// krew takes the manifest: the rules are those of `validate-krew-manifest`.
#[test]
fn krews_manifest_names_what_the_plugins_archive_has() {
    let manifest: serde_json::Value = yaml_serde::from_str(&text("deploy/krew.yaml").replace("VERSION", "1.0.0")).unwrap();
    let spec = &manifest["spec"];
    assert_eq!((&manifest["apiVersion"], &manifest["kind"]), (&"krew.googlecontainertools.github.com/v1alpha2".into(), &"Plugin".into()));
    assert!(spec["version"] == "v1.0.0" && spec["shortDescription"].as_str().unwrap().len() <= 50, "{spec:#}");
    let platform = &spec["platforms"][0];
    let bin = platform["bin"].as_str().unwrap();
    // kubectl finds a plugin by its file name.
    assert_eq!(bin, format!("kubectl-{}", manifest["metadata"]["name"].as_str().unwrap()));
    let files: Vec<&str> = platform["files"].as_array().unwrap().iter().map(|file| file["from"].as_str().unwrap()).collect();
    let release = text("scripts/release");
    let packed = release.lines().find(|line| line.contains("pack ") && line.contains(bin)).unwrap();
    assert!(files.contains(&bin) && files.iter().all(|file| packed.contains(file)), "{files:?} of {packed}");
    assert!(
        path("deploy")
            .join(bin)
            .metadata()
            .is_ok_and(|script| std::os::unix::fs::PermissionsExt::mode(&script.permissions()) & 0o111 == 0o111)
    );
}
