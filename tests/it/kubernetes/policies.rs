//! The names of policies are read only when they are wanted, from every group that has policies.

use std::time::Duration;

use calico_accountant::datastore::inventory::Inventory;
use calico_accountant::felix::ChainNames;
use calico_accountant::kubernetes::Limits;
use serde_json::{Value, json};

use super::{Changing, SOON, credentials, start, start_within, synced, troubled};
use crate::support::kube::{Kube, plural};
use crate::support::within;

const CRD: &str = "crd.projectcalico.org";
const V3: &str = "projectcalico.org";
const POLICY: &str = "policy.networking.k8s.io";
/// The rights of a role for Calico ≤ 3.21.
const RIGHTS: [&str; 4] =
    ["/pods", "networking.k8s.io/networkpolicies", "crd.projectcalico.org/networkpolicies", "crd.projectcalico.org/globalnetworkpolicies"];

/// Makes the policy `[namespace/]name`.
#[track_caller]
fn make(kube: &Kube, group_version: &str, kind: &str, name: &str) {
    let (place, name) = name.split_once('/').map_or((String::new(), name), |(ns, name)| (format!("namespaces/{ns}/"), name));
    let body = json!({"apiVersion": group_version, "kind": kind, "metadata": {"name": name}, "spec": {"podSelector": {}}});
    kube.call("POST", &format!("/apis/{group_version}/{place}{}", plural(kind)), &body);
}

/// The label of the policy that has a chain of this name.
fn label(inventory: &Inventory, chain: &str) -> Option<String> {
    let policy = ChainNames::new(&inventory.policies()).resolve(&[chain]).pop()??;
    Some(policy.label("default"))
}

#[test]
fn names_of_every_kind() {
    let Some(kube) = Kube::start() else { return };
    let token = kube.account(&RIGHTS);
    kube.namespace("prod");
    kube.define(CRD, "v1", "NetworkPolicy", true);
    kube.define(CRD, "v1", "GlobalNetworkPolicy", false);
    make(&kube, "crd.projectcalico.org/v1", "NetworkPolicy", "prod/default.db");
    make(&kube, "crd.projectcalico.org/v1", "GlobalNetworkPolicy", "default.deny-all");
    make(&kube, "networking.k8s.io/v1", "NetworkPolicy", "prod/web");
    let limits = Limits { absent: Duration::from_secs(2), ..Limits::default() };
    let inventory = start_within(Changing::new(credentials(&kube, &kube.url(), token)), limits);
    synced(&inventory);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(inventory.policies(), []);
    assert!(kube.asked().keys().all(|asked| asked.ends_with(" pods")), "{:?}", kube.asked());

    inventory.want_policies();
    within(Duration::from_secs(4), "the policies", || inventory.policies().len() == 3);
    assert_eq!(label(&inventory, "cali-pi-prod/default.db").as_deref(), Some("prod/default.db"));
    assert_eq!(label(&inventory, "cali-po-default.deny-all").as_deref(), Some("default.deny-all"));
    assert_eq!(label(&inventory, "cali-pi-prod/knp.default.web").as_deref(), Some("prod/knp.default.web"));
    // There is no right to the newer kinds of Kubernetes, and these kinds do not exist either.
    std::thread::sleep(Duration::from_secs(1));
    assert!(inventory.up(), "{:?}", inventory.troubles());

    changes(&kube, &inventory);
    the_schema_changes(&kube, &inventory);
    a_kind_comes_and_goes(&kube, &inventory);
    assert_eq!(inventory.skipped_objects(), 0);
}

fn changes(kube: &Kube, inventory: &Inventory) {
    make(kube, "networking.k8s.io/v1", "NetworkPolicy", "prod/api");
    within(SOON, "a policy is made", || label(inventory, "cali-pi-prod/knp.default.api").is_some());
    kube.call("DELETE", "/apis/networking.k8s.io/v1/namespaces/prod/networkpolicies/api", &Value::Null);
    within(SOON, "a policy is deleted", || label(inventory, "cali-pi-prod/knp.default.api").is_none());
}

/// An upgrade of Calico ends the watches of its kinds, and their history.
fn the_schema_changes(kube: &Kube, inventory: &Inventory) {
    let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/networkpolicies.{CRD}");
    let mut definition = kube.call("GET", &path, &Value::Null);
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["description"] = json!("another");
    kube.call("PUT", &path, &definition);
    std::thread::sleep(Duration::from_secs(1));
    make(kube, "crd.projectcalico.org/v1", "NetworkPolicy", "prod/default.cache");
    within(2 * SOON, "a policy under the new schema", || label(inventory, "cali-pi-prod/default.cache").is_some());
    within(SOON, "no trouble", || inventory.up());
}

/// The role has rights to a kind that does not exist yet. The kind is added, and later removed.
fn a_kind_comes_and_goes(kube: &Kube, inventory: &Inventory) {
    kube.grant(&[&RIGHTS[..], &["policy.networking.k8s.io/clusternetworkpolicies"]].concat());
    kube.define(POLICY, "v1alpha2", "ClusterNetworkPolicy", false);
    make(kube, "policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "guard");
    within(Duration::from_secs(6), "a kind that came later", || label(inventory, "cali-pi-kcnp/guard").as_deref() == Some("kcnp.guard"));
    let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/clusternetworkpolicies.{POLICY}");
    kube.call("DELETE", &path, &Value::Null);
    within(Duration::from_secs(6), "a kind that went", || label(inventory, "cali-pi-kcnp/guard").is_none());
    within(SOON, "no trouble", || inventory.up());
}

/// Calico ≥ 3.32 may be installed with only the v3 group. Its policies are looked for there, and a missing right is reported.
#[test]
fn calicos_v3_group() {
    let Some(kube) = Kube::start() else { return };
    let token = kube.account(&["/pods", "networking.k8s.io/networkpolicies", "projectcalico.org/networkpolicies"]);
    kube.namespace("prod");
    kube.define(V3, "v3", "NetworkPolicy", true);
    kube.define(V3, "v3", "GlobalNetworkPolicy", false);
    make(&kube, "projectcalico.org/v3", "NetworkPolicy", "prod/db");
    let inventory = start(Changing::new(credentials(&kube, &kube.url(), token)));
    inventory.want_policies();
    within(Duration::from_secs(5), "the policies", || inventory.policies().len() == 1);
    assert_eq!(label(&inventory, "cali-pi-np/prod/db").as_deref(), Some("prod/default.db"));
    troubled(&inventory, &["list globalnetworkpolicies.projectcalico.org", "calico-accountant"]);
    kube.grant(&[
        "/pods",
        "networking.k8s.io/networkpolicies",
        "projectcalico.org/networkpolicies",
        "projectcalico.org/globalnetworkpolicies",
    ]);
    within(SOON, "the right is given", || inventory.up());
}
