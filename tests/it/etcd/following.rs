//! Following an etcd without faults: every change shows, over every kind of connection.

use std::fs;
use std::path::Path;
use std::time::Duration;

use calico_accountant::config::EtcdConfig;
use calico_accountant::datastore::inventory::Inventory;
use calico_accountant::etcd::{LIMITS, Limits};

use super::{NODE, ROOT, SOON, app_of, config, endpoint, start, start_within, synced};
use crate::support::certificates::Certificates;
use crate::support::etcd::{Etcd, Options};
use crate::support::within;

/// Creates, relabels, moves and deletes a workload. Each change must show.
#[track_caller]
fn changes_show(etcd: &Etcd, inventory: &Inventory) {
    let web = endpoint(NODE, "prod", "web-0", "web");
    etcd.put(&web);
    within(SOON, "created", || app_of(inventory, "web-0").as_deref() == Some("web"));
    etcd.put(&endpoint(NODE, "prod", "web-0", "relabelled"));
    within(SOON, "relabelled", || app_of(inventory, "web-0").as_deref() == Some("relabelled"));
    let elsewhere = endpoint("node-12", "prod", "web-0", "web");
    etcd.put(&elsewhere);
    etcd.delete(&web.0);
    within(SOON, "moved away", || app_of(inventory, "web-0").is_none());
    etcd.put(&web);
    etcd.delete(&elsewhere.0);
    within(SOON, "moved back", || app_of(inventory, "web-0").as_deref() == Some("web"));
    etcd.delete(&web.0);
    within(SOON, "deleted", || app_of(inventory, "web-0").is_none());
    assert!(inventory.up());
    assert_eq!(inventory.resyncs(), 0);
}

#[test]
fn over_plain_http() {
    let Some(etcd) = Etcd::plain() else { return };
    let inventory = start(config(&etcd.url()));
    synced(&inventory);
    changes_show(&etcd, &inventory);
}

fn tls_config(etcd: &Etcd, certificates: &Certificates) -> EtcdConfig {
    EtcdConfig {
        ca_file: Some(certificates.ca()),
        client_cert: Some((certificates.client_cert(), certificates.client_key())),
        ..config(&etcd.url())
    }
}

#[test]
fn over_tls_with_a_client_certificate() {
    let certificates = Certificates::new(None);
    let Some(etcd) = Etcd::start(Options { tls: Some(certificates.clone()), ..Options::default() }) else { return };
    let limits = Limits { idle: Duration::from_secs(1), ..LIMITS };
    let inventory = start_within(tls_config(&etcd, &certificates), limits);
    synced(&inventory);
    // Long enough for the watch to be opened again. That is not a trouble.
    std::thread::sleep(Duration::from_millis(2500));
    assert!(inventory.up(), "{:?}", inventory.troubles());
    changes_show(&etcd, &inventory);
}

#[test]
fn a_renewed_client_certificate_is_taken_up() {
    let (good, bad) = (Certificates::new(None), Certificates::new(None));
    let Some(etcd) = Etcd::start(Options { tls: Some(good.clone()), ..Options::default() }) else { return };
    let inventory = start(EtcdConfig { ca_file: Some(good.ca()), ..tls_config(&etcd, &bad) });
    super::troubled(&inventory, &["client certificate", "ETCD_CERT_FILE"]);
    // The files are replaced one after the other. In between they do not fit, which must not be fatal.
    fs::copy(good.client_key(), bad.client_key()).unwrap();
    super::troubled(&inventory, &["ETCD_KEY_FILE", "does not fit"]);
    fs::copy(good.client_cert(), bad.client_cert()).unwrap();
    within(SOON, "the renewed certificate is used", || inventory.up() && inventory.synced());
}

#[test]
fn with_a_password_and_a_token_that_expires() {
    let Some(etcd) = Etcd::with(&["--auth-token-ttl", "2"]) else { return };
    etcd.enable_auth("reader", "secret", &format!("{ROOT}workloadendpoints/"));
    let user = EtcdConfig { credentials: Some(("reader".into(), "secret".into())), ..config(&etcd.url()) };
    // The watch is opened again after each 4 s of silence. The token has expired by then.
    let inventory = start_within(user, Limits { idle: Duration::from_secs(4), ..LIMITS });
    synced(&inventory);
    let put = |pod: &str| {
        let (key, value) = endpoint(NODE, "prod", pod, "web");
        etcd.etcdctl(&["--user", "root:root", "put", &key, &value]);
    };
    put("a");
    within(SOON, "a change", || app_of(&inventory, "a").is_some());
    std::thread::sleep(Duration::from_secs(9));
    put("b");
    within(SOON, "a change after the token expired twice", || app_of(&inventory, "b").is_some());
    assert_eq!(inventory.resyncs(), 0);
    assert!(inventory.up(), "{:?}", inventory.troubles());
}

#[test]
fn authentication_enabled_while_following() {
    let Some(etcd) = Etcd::plain() else { return };
    let user = EtcdConfig { credentials: Some(("reader".into(), "secret".into())), ..config(&etcd.url()) };
    let inventory = start_within(user, Limits { idle: Duration::from_secs(1), ..LIMITS });
    synced(&inventory);
    etcd.enable_auth("reader", "secret", ROOT);
    let (key, value) = endpoint(NODE, "prod", "a", "web");
    etcd.etcdctl(&["--user", "root:root", "put", &key, &value]);
    std::thread::sleep(Duration::from_secs(2));
    within(SOON, "a change after authentication was enabled", || app_of(&inventory, "a").is_some());
}

#[test]
fn policies_are_read_only_when_wanted_and_then_followed() {
    let Some(etcd) = Etcd::plain() else { return };
    let put = |key: &str| etcd.put(&(format!("{ROOT}{key}"), "{}".into()));
    put("networkpolicies/prod/knp.default.web");
    put("globalnetworkpolicies/default.deny-all");
    put("globalnetworksets/default.set");
    let inventory = start(config(&etcd.url()));
    synced(&inventory);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(inventory.policies().is_empty());
    inventory.want_policies();
    within(SOON, "the policies", || inventory.policies().len() == 2);
    put("networkpolicies/prod/default.new");
    within(SOON, "a new policy", || inventory.policies().iter().any(|policy| policy.name == "default.new"));
    etcd.delete(&format!("{ROOT}globalnetworkpolicies/default.deny-all"));
    within(SOON, "a deleted policy", || inventory.policies().iter().all(|policy| policy.namespace.is_some()));
    assert_eq!(inventory.resyncs(), 0);
}

#[test]
fn what_a_real_calico_wrote_is_listed_page_by_page() {
    let Some(etcd) = Etcd::plain() else { return };
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/etcd/calico-v3.25.2.jsonl");
    for line in fs::read_to_string(fixture).unwrap().lines() {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        etcd.put(&(object["key"].as_str().unwrap().to_owned(), object["value"].to_string()));
    }
    let junk = format!("{ROOT}workloadendpoints/infra/node1-k8s-junk-eth0");
    etcd.put(&(junk, "{\"spec\":".into()));
    let inventory = std::sync::Arc::new(Inventory::new());
    let limits = Limits { page: 3, ..LIMITS };
    calico_accountant::etcd::follow(config(&etcd.url()), "node1".into(), std::sync::Arc::clone(&inventory), limits).unwrap();
    inventory.want_policies();
    synced(&inventory);
    assert_eq!(inventory.workload_count(), 9);
    assert_eq!(inventory.skipped_objects(), 1);
    let client = inventory.workload("calied49c38c025").unwrap();
    assert_eq!((client.namespace.as_str(), client.pod.as_str(), client.app.as_str()), ("infra", "client-0", "client"));
    assert_eq!(client.ip, "10.65.0.15,fd00:65::15/128");
    assert_eq!(client.service_account, "default");
    within(SOON, "the policies", || inventory.policies().iter().any(|policy| policy.name == "default.extra"));
}
