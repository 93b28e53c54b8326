//! The etcd follower against real etcds, and against a fake for what a real one cannot be made to do.

mod cluster;
mod discovery;
mod errors;
pub mod fake;
mod following;
mod outages;
mod scale;

use std::sync::Arc;
use std::time::{Duration, Instant};

use calico_accountant::config::EtcdConfig;
use calico_accountant::datastore::inventory::Inventory;
use calico_accountant::etcd::{LIMITS, Limits, follow};

use crate::support::within;

const ROOT: &str = "/calico/resources/v3/projectcalico.org/";
const NODE: &str = "node-1";
/// The documents promise that a change shows this soon once etcd is reachable.
const SOON: Duration = Duration::from_secs(2);

fn config(endpoint: &str) -> EtcdConfig {
    EtcdConfig { endpoints: vec![endpoint.to_owned()], discovery: None, credentials: None, ca_file: None, client_cert: None }
}

fn start(config: EtcdConfig) -> Arc<Inventory> {
    start_within(config, LIMITS)
}

fn start_within(config: EtcdConfig, limits: Limits) -> Arc<Inventory> {
    let inventory = Arc::new(Inventory::new());
    follow(config, NODE.to_owned(), Arc::clone(&inventory), limits).unwrap();
    inventory
}

/// Key and value of a workload endpoint, as Calico's CNI plugin writes it.
pub fn endpoint(node: &str, namespace: &str, pod: &str, app: &str) -> (String, String) {
    let double = |name: &str| name.replace('-', "--");
    let name = format!("{}-k8s-{}-eth0", double(node), double(pod));
    let value = serde_json::json!({
        "kind": "WorkloadEndpoint",
        "apiVersion": "projectcalico.org/v3",
        "metadata": {
            "name": name, "namespace": namespace, "uid": "bc69cf17-a2c0-49c6-8860-edc846cf7775",
            "creationTimestamp": "2024-11-23T11:32:49Z",
            "labels": {
                "app": app, "pod-template-hash": "7c9d5b6f48", "projectcalico.org/namespace": namespace,
                "projectcalico.org/orchestrator": "k8s", "projectcalico.org/serviceaccount": "default",
            },
        },
        "spec": {
            "orchestrator": "k8s", "node": node, "pod": pod, "endpoint": "eth0", "interfaceName": format!("cali{pod}"),
            "containerID": "16c2885525297d1180848aeac75b8fbddaf5e28db93c81cd95b65cf4fd93f906",
            "ipNetworks": ["10.65.0.15/32"], "profiles": [format!("kns.{namespace}"), format!("ksa.{namespace}.default")],
            "mac": "ee:ee:ee:ee:ee:ee", "serviceAccountName": "default",
        },
    });
    (format!("{ROOT}workloadendpoints/{namespace}/{name}"), value.to_string())
}

fn app_of(inventory: &Inventory, pod: &str) -> Option<String> {
    inventory.workload(&format!("cali{pod}")).map(|workload| workload.app.clone())
}

#[track_caller]
fn synced(inventory: &Inventory) {
    within(Duration::from_secs(10), "the first list", || inventory.synced());
}

/// Waits for a trouble with all of `words` in one line.
#[track_caller]
fn troubled(inventory: &Inventory, words: &[&str]) {
    let began = Instant::now();
    let fits = |trouble: &String| !trouble.contains('\n') && words.iter().all(|word| trouble.contains(word));
    while !inventory.troubles().iter().any(fits) {
        assert!(began.elapsed() < Duration::from_secs(15), "no trouble with {words:?} but {:?}", inventory.troubles());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!inventory.up());
}
