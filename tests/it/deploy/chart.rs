//! The Helm chart: what it renders from values, what it refuses, and whether a real API server accepts it.

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

/// The variants of values that are tried, in the chart's `ci` folder. The last one has another release name.
const VARIANTS: [&str; 8] = ["kubernetes", "v3", "etcd", "none", "monitoring", "proxy", "openshift", "everything"];

fn values(variant: &str) -> PathBuf {
    super::path(&format!("deploy/helm/calico-accountant/ci/{variant}-values.yaml"))
}

/// The only object of a kind.
#[track_caller]
fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found: Vec<_> = objects.iter().filter(|object| object["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "{kind}");
    found[0]
}

/// Kinds of objects, and how many there are of each.
fn kinds(objects: &[Value]) -> BTreeMap<&str, usize> {
    let mut kinds = BTreeMap::new();
    for object in objects {
        *kinds.entry(object["kind"].as_str().unwrap()).or_default() += 1;
    }
    kinds
}
