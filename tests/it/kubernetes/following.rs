//! Following an API server without faults: every change of a pod shows.

use std::time::Duration;

use calico_accountant::datastore::inventory::Inventory;
use serde_json::{Value, json};

use super::{Changing, SOON, app_of, credentials, ip_of, pod, start, synced, workload};
use crate::support::kube::Kube;
use crate::support::proxy::Proxy;
use crate::support::within;

#[test]
fn pods_come_and_go() {
    let Some(kube) = Kube::start() else { return };
    let token = kube.account(&["/pods"]);
    kube.namespace("prod");
    kube.call("POST", "/api/v1/namespaces/prod/pods", &pod("early", "web"));
    let proxy = Proxy::to(kube.port);
    let inventory = start(Changing::new(credentials(&kube, &format!("https://127.0.0.1:{}", proxy.port), token)));
    synced(&inventory);
    assert_eq!(app_of(&inventory, "prod", "early").as_deref(), Some("web"));

    a_life(&kube, &inventory);
    a_slow_death(&kube, &inventory);
    skipped(&kube, &inventory);
    a_namespace_of_the_same_name(&kube, &inventory);

    assert!(inventory.up(), "{:?}", inventory.troubles());
    assert_eq!((inventory.resyncs(), inventory.skipped_objects()), (0, 0));
    assert_eq!(proxy.open(), 1, "one connection");
    let asked = kube.asked();
    assert_eq!(asked.into_iter().collect::<Vec<_>>(), [("list pods".to_owned(), 1), ("watch pods".to_owned(), 1)]);
}

/// A pod is made, gets addresses of both families and another label, finishes, and is deleted with a grace period.
fn a_life(kube: &Kube, inventory: &Inventory) {
    let path = "/api/v1/namespaces/prod/pods/web-0";
    kube.call("POST", "/api/v1/namespaces/prod/pods", &pod("web-0", "web"));
    within(SOON, "made", || ip_of(inventory, "prod", "web-0").as_deref() == Some(""));
    let made = workload(inventory, "prod", "web-0").unwrap();
    assert_eq!((made.orchestrator.as_str(), made.service_account.as_str(), made.node.as_str()), ("k8s", "default", super::NODE));
    for interface in ["caliaa960f0d82e", "eniaa960f0d82e"] {
        assert_eq!(inventory.workload(interface).as_deref(), Some(&*made), "{interface}");
    }

    let running = json!({"status": {"phase": "Running", "podIP": "10.65.1.2", "podIPs": [{"ip": "10.65.1.2"}, {"ip": "fd00:65::1:2"}]}});
    kube.call("PATCH", &format!("{path}/status"), &running);
    within(SOON, "addresses", || ip_of(inventory, "prod", "web-0").as_deref() == Some("10.65.1.2,fd00:65::1:2/128"));
    kube.call("PATCH", path, &json!({"metadata": {"labels": {"app": "relabelled"}}}));
    within(SOON, "a label", || app_of(inventory, "prod", "web-0").as_deref() == Some("relabelled"));
    kube.call("PATCH", &format!("{path}/status"), &json!({"status": {"phase": "Succeeded"}}));
    within(SOON, "finished", || ip_of(inventory, "prod", "web-0").as_deref() == Some(""));
    assert_eq!(app_of(inventory, "prod", "web-0").as_deref(), Some("relabelled"), "its name is kept");

    kube.call("DELETE", path, &Value::Null);
    within(SOON, "deleted", || workload(inventory, "prod", "web-0").is_none());
}

/// A pod is deleted with a grace period. It exists until its node says that it has ended, but its addresses may be removed before.
fn a_slow_death(kube: &Kube, inventory: &Inventory) {
    let path = "/api/v1/namespaces/prod/pods/web-1";
    kube.call("POST", "/api/v1/namespaces/prod/pods", &pod("web-1", "web"));
    kube.call("PATCH", &format!("{path}/status"), &json!({"status": {"phase": "Running", "podIP": "10.65.1.3"}}));
    within(SOON, "running", || ip_of(inventory, "prod", "web-1").as_deref() == Some("10.65.1.3"));
    kube.call("DELETE", &format!("{path}?gracePeriodSeconds=30"), &Value::Null);
    kube.call("PATCH", path, &json!({"metadata": {"annotations": {"cni.projectcalico.org/podIP": ""}}}));
    within(SOON, "its addresses are taken back", || ip_of(inventory, "prod", "web-1").as_deref() == Some(""));
    kube.call("DELETE", &format!("{path}?gracePeriodSeconds=0"), &Value::Null);
    within(SOON, "deleted", || workload(inventory, "prod", "web-1").is_none());
}

/// Pods of other nodes, pods of the node's own network, and a pod that is bound to the node later.
fn skipped(kube: &Kube, inventory: &Inventory) {
    let pods = "/api/v1/namespaces/prod/pods";
    let mut host = pod("host", "web");
    host["spec"]["hostNetwork"] = json!(true);
    let mut other = pod("other", "web");
    other["spec"]["nodeName"] = json!("node-12");
    let mut pending = pod("pending", "web");
    pending["spec"].as_object_mut().unwrap().remove("nodeName");
    for pod in [&host, &other, &pending] {
        kube.call("POST", pods, pod);
    }
    let binding =
        json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "pending"}, "target": {"kind": "Node", "name": super::NODE}});
    kube.call("POST", &format!("{pods}/pending/binding"), &binding);
    within(SOON, "bound to the node", || workload(inventory, "prod", "pending").is_some());
    assert!(workload(inventory, "prod", "host").is_none() && workload(inventory, "prod", "other").is_none());
}

fn a_namespace_of_the_same_name(kube: &Kube, inventory: &Inventory) {
    kube.namespace("brief");
    kube.call("POST", "/api/v1/namespaces/brief/pods", &pod("a", "first"));
    within(SOON, "in the first", || app_of(inventory, "brief", "a").as_deref() == Some("first"));
    kube.delete_namespace("brief");
    within(SOON, "gone with the first", || workload(inventory, "brief", "a").is_none());
    within(Duration::from_secs(5), "the namespace is gone", || kube.gone("/api/v1/namespaces/brief"));
    kube.namespace("brief");
    kube.call("POST", "/api/v1/namespaces/brief/pods", &pod("a", "second"));
    within(SOON, "in the second", || app_of(inventory, "brief", "a").as_deref() == Some("second"));
}
