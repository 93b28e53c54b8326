//! The follower of the Kubernetes datastore against real API servers, and against a fake for what a real one cannot be made to do.

mod counts;
mod fake;
mod faults;
mod following;
mod manifests;
mod outages;
mod policies;
mod readme;
mod rights;
mod scale;
mod wired;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use calico_accountant::config::{ApiGroup, Secret};
use calico_accountant::datastore::inventory::{Inventory, Workload};
use calico_accountant::kubernetes::{Access, Authorization, Credentials, Error, Limits, follow};
use serde_json::{Value, json};

use crate::captures::CAPTURED_PODS;
use crate::http;
use crate::program::{Program, await_some};
use crate::support::kube::Kube;
use crate::support::within;

const NODE: &str = "node-1";
/// The documents promise that a change shows this soon once it can.
const SOON: Duration = Duration::from_secs(2);

/// Credentials that a test can replace, as files can be replaced.
#[derive(Clone)]
struct Changing(Arc<Mutex<Credentials>>);

impl Changing {
    fn new(credentials: Credentials) -> Self {
        Changing(Arc::new(Mutex::new(credentials)))
    }

    fn set(&self, change: impl FnOnce(&mut Credentials)) {
        change(&mut self.0.lock().unwrap());
    }
}

impl Access for Changing {
    fn current(&self) -> Result<Credentials, Error> {
        Ok(self.0.lock().unwrap().clone())
    }
}

fn credentials(kube: &Kube, url: &str, token: String) -> Credentials {
    let ca = std::fs::read(kube.certificates.ca()).unwrap();
    Credentials { server: url.to_owned(), ca: Some(ca), authorization: bearer(&token), ..Credentials::default() }
}

fn bearer(token: &str) -> Option<Authorization> {
    Some(Authorization::Bearer(Secret::new(token)))
}

fn start(access: impl Access + 'static) -> Arc<Inventory> {
    start_within(access, Limits::default())
}

fn start_within(access: impl Access + 'static, limits: Limits) -> Arc<Inventory> {
    let inventory = Arc::new(Inventory::new());
    follow(Arc::new(access), NODE.to_owned(), ApiGroup::Discover, Arc::clone(&inventory), limits).unwrap();
    inventory
}

#[track_caller]
fn synced(inventory: &Inventory) {
    within(Duration::from_secs(10), "the first list", || inventory.synced());
}

/// A pod as Kubernetes stores it before its node has done anything.
fn pod(name: &str, app: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app": app}},
        "spec": {"nodeName": NODE, "containers": [{"name": "main", "image": "registry.example/app:1"}]},
    })
}

fn workload(inventory: &Inventory, namespace: &str, name: &str) -> Option<Arc<Workload>> {
    let all = inventory.workloads().into_iter();
    all.map(|(_, workload)| workload).find(|workload| workload.namespace == namespace && workload.pod == name)
}

fn app_of(inventory: &Inventory, namespace: &str, name: &str) -> Option<String> {
    workload(inventory, namespace, name).map(|workload| workload.app.clone())
}

fn ip_of(inventory: &Inventory, namespace: &str, name: &str) -> Option<String> {
    workload(inventory, namespace, name).map(|workload| workload.ip.clone())
}

/// Asserts that the follower notices that the datastore is unavailable, and that what is known is still served.
#[track_caller]
fn down_but_served(inventory: &Inventory, namespace: &str, name: &str) {
    within(Duration::from_secs(5), "the outage is noticed", || !inventory.up());
    assert!(workload(inventory, namespace, name).is_some(), "the cache is served");
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

/// Makes the pods of the captures.
pub fn captured_pods(kube: &Kube) {
    ["infra", "shop"].iter().for_each(|namespace| kube.namespace(namespace));
    for (namespace, name) in CAPTURED_PODS {
        let mut pod = pod(name, name.split('-').next().unwrap());
        pod["spec"]["nodeName"] = json!("node1");
        kube.call("POST", &format!("/api/v1/namespaces/{namespace}/pods"), &pod);
    }
}

/// Waits until the program is ready.
#[track_caller]
pub fn ready(program: &Program) {
    let ready = || http::get(program.port(), "/readyz").ok().filter(|answer| answer.status == 200);
    await_some(ready, || format!("readiness: {:#?}", program.log()));
}
