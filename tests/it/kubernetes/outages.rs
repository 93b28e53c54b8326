//! The API server, or the network to it, fails and comes back. The cache is served meanwhile, and changes show soon after.

use std::time::Duration;

use calico_accountant::datastore::http;
use calico_accountant::kubernetes::Limits;
use serde_json::{Value, json};

use super::{Changing, SOON, app_of, bearer, credentials, down_but_served, ip_of, pod, start, start_within, synced, workload};
use crate::support::kube::Kube;
use crate::support::proxy::Proxy;
use crate::support::within;

const PODS: &str = "/api/v1/namespaces/prod/pods";

/// A server with the pod `old`, and a token.
fn with_one() -> Option<(Kube, String)> {
    let kube = Kube::start()?;
    let token = kube.account(&["/pods"]);
    kube.namespace("prod");
    kube.call("POST", PODS, &pod("old", "web"));
    Some((kube, token))
}

fn through(proxy: &Proxy) -> String {
    format!("https://127.0.0.1:{}", proxy.port)
}

#[test]
fn restarts_and_lost_history() {
    let Some((mut kube, token)) = with_one() else { return };
    let proxy = Proxy::to(kube.port);
    let inventory = start(Changing::new(credentials(&kube, &through(&proxy), token)));
    synced(&inventory);

    // After a short disconnect, the watch resumes, and nothing is listed again.
    proxy.cut();
    down_but_served(&inventory, "prod", "old");
    kube.call("POST", PODS, &pod("during", "web"));
    proxy.restore();
    within(SOON, "a change during the disconnect", || workload(&inventory, "prod", "during").is_some() && inventory.up());
    assert_eq!(inventory.resyncs(), 0);

    // A restart, as after a power cut. The server does not serve everything immediately.
    kube.kill();
    down_but_served(&inventory, "prod", "old");
    kube.start_again();
    kube.call("PATCH", &format!("{PODS}/during"), &json!({"metadata": {"labels": {"app": "restarted"}}}));
    within(SOON, "a change after the restart", || app_of(&inventory, "prod", "during").as_deref() == Some("restarted") && inventory.up());

    // The history was compacted during the outage, and the server's own cache of it is lost. Only a list helps.
    proxy.cut();
    down_but_served(&inventory, "prod", "old");
    kube.call("DELETE", &format!("{PODS}/during?gracePeriodSeconds=0"), &Value::Null);
    kube.call("POST", PODS, &pod("after", "web"));
    kube.kill();
    kube.etcd.compact();
    kube.start_again();
    let before = inventory.resyncs();
    proxy.restore();
    within(SOON, "changes within the compacted history", || {
        workload(&inventory, "prod", "after").is_some() && workload(&inventory, "prod", "during").is_none() && inventory.up()
    });
    assert_eq!(inventory.resyncs(), before + 1);
    assert_eq!(app_of(&inventory, "prod", "old").as_deref(), Some("web"));
}

/// The connection is open, but nothing comes through any more. The only sign is silence.
#[test]
fn a_half_open_connection_is_noticed_by_its_silence() {
    let Some((kube, token)) = with_one() else { return };
    let proxy = Proxy::to(kube.port);
    let idle = Duration::from_secs(3);
    let access = Changing::new(credentials(&kube, &through(&proxy), token));
    let limits = Limits::default();
    let inventory = start_within(access, Limits { http: http::Limits { idle, ..limits.http }, ..limits });
    synced(&inventory);
    kube.call("POST", PODS, &pod("before", "web"));
    within(SOON, "a change before", || workload(&inventory, "prod", "before").is_some());
    proxy.freeze();
    kube.call("PATCH", &format!("{PODS}/before/status"), &json!({"status": {"phase": "Running", "podIP": "10.65.1.2"}}));
    within(idle + SOON, "a change the dead connection did not bring", || {
        ip_of(&inventory, "prod", "before").as_deref() == Some("10.65.1.2")
    });
    assert!(inventory.up());
    assert_eq!(inventory.resyncs(), 0);
}

/// The server ends watches when their time is up. That is not a trouble, and needs no new connection.
#[test]
fn watches_end_in_time() {
    let Some((kube, token)) = with_one() else { return };
    let proxy = Proxy::to(kube.port);
    let limits = Limits { watch: Duration::from_secs(2), ..Limits::default() };
    let inventory = start_within(Changing::new(credentials(&kube, &through(&proxy), token)), limits);
    synced(&inventory);
    for n in 0..4 {
        let name = format!("pod-{n}");
        kube.call("POST", PODS, &pod(&name, "web"));
        within(SOON, "a change", || workload(&inventory, "prod", &name).is_some());
        std::thread::sleep(Duration::from_millis(1500));
        assert!(inventory.up(), "{:?}", inventory.troubles());
    }
    let asked = kube.asked();
    assert!(asked["watch pods"] >= 3 && asked["list pods"] == 1, "{asked:?}");
    assert_eq!(proxy.open(), 1);
}

/// etcd comes back with fewer revisions. The server starts with it, accepts the watch from the future, and is silent forever.
#[test]
fn a_restored_backup_is_listed_again() {
    let Some((mut kube, token)) = with_one() else { return };
    for n in 0..40 {
        kube.call("POST", PODS, &pod(&format!("filler-{n}"), "web"));
    }
    let proxy = Proxy::to(kube.port);
    let limits = Limits { doubt: Duration::from_secs(3), ..Limits::default() };
    // The service account is lost with the data; a certificate would not be.
    let access = Changing::new(credentials(&kube, &through(&proxy), token));
    let inventory = start_within(access.clone(), limits);
    synced(&inventory);
    proxy.cut();
    kube.kill();
    kube.etcd.lose_data();
    down_but_served(&inventory, "prod", "old");
    kube.etcd.start_again();
    kube.start_again();
    let token = kube.account(&["/pods"]);
    access.set(|credentials| credentials.authorization = bearer(&token));
    kube.namespace("prod");
    kube.call("POST", PODS, &pod("restored", "web"));
    proxy.restore();
    within(Duration::from_secs(3) + 2 * SOON, "the restored state", || {
        workload(&inventory, "prod", "restored").is_some() && workload(&inventory, "prod", "old").is_none()
    });
    kube.call("POST", PODS, &pod("later", "web"));
    within(SOON, "a change of the restored state", || workload(&inventory, "prod", "later").is_some());
}
