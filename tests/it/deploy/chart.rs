//! The Helm chart: what it makes of values, what it refuses, and that a real API server takes it.

mod alerts;
mod applied;
mod documented;
mod monitored;
mod proxied;
mod readme;
mod rendered;
mod tested;
mod values;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

/// Values of each variant that is tried, in the chart's `ci`; the last has another name.
const VARIANTS: [&str; 8] = ["kubernetes", "v3", "etcd", "none", "monitoring", "proxy", "openshift", "everything"];

fn values(variant: &str) -> PathBuf {
    super::path(&format!("deploy/helm/calico-accountant/ci/{variant}-values.yaml"))
}

/// The one object of a kind.
#[track_caller]
fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found: Vec<_> = objects.iter().filter(|object| object["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "{kind}");
    found[0]
}

/// Kinds of objects, and how many there are.
fn kinds(objects: &[Value]) -> BTreeMap<&str, usize> {
    let mut kinds = BTreeMap::new();
    for object in objects {
        *kinds.entry(object["kind"].as_str().unwrap()).or_default() += 1;
    }
    kinds
}
