//! etcd fails and comes back in every way that it can. The cache is served meanwhile.

use std::time::Duration;

use calico_accountant::config::EtcdConfig;
use calico_accountant::datastore::inventory::Inventory;
use calico_accountant::etcd::{LIMITS, Limits};

use super::{NODE, SOON, app_of, config, endpoint, start, start_within, synced};
use crate::support::certificates::Certificates;
use crate::support::etcd::{Etcd, Options, free_port};
use crate::support::proxy::Proxy;
use crate::support::within;

#[track_caller]
fn down_but_served(inventory: &Inventory) {
    within(Duration::from_secs(5), "the outage is noticed", || !inventory.up());
    assert_eq!(app_of(inventory, "old").as_deref(), Some("web"), "the cache is served");
    assert!(inventory.synced());
}

/// An etcd with one workload, `old`.
fn with_one(options: Options) -> Option<Etcd> {
    let etcd = Etcd::start(options)?;
    etcd.put(&endpoint(NODE, "prod", "old", "web"));
    Some(etcd)
}

#[track_caller]
fn survives_a_restart(etcd: &mut Etcd, inventory: &Inventory) {
    synced(inventory);
    etcd.kill();
    down_but_served(inventory);
    std::thread::sleep(Duration::from_secs(3));
    down_but_served(inventory);
    etcd.start_again();
    etcd.put(&endpoint(NODE, "prod", "new", "web"));
    within(SOON, "a change after the restart", || app_of(inventory, "new").is_some() && inventory.up());
    assert_eq!(app_of(inventory, "old").as_deref(), Some("web"));
    assert_eq!(inventory.resyncs(), 0, "the same history is resumed, not listed again");
}

#[test]
fn a_restart_with_the_same_data() {
    let Some(mut etcd) = with_one(Options::default()) else { return };
    let inventory = start(config(&etcd.url()));
    survives_a_restart(&mut etcd, &inventory);
}

#[test]
fn a_restart_with_tls() {
    let certificates = Certificates::new(None);
    let Some(mut etcd) = with_one(Options { tls: Some(certificates.clone()), ..Options::default() }) else { return };
    let client_cert = Some((certificates.client_cert(), certificates.client_key()));
    let inventory = start(EtcdConfig { ca_file: Some(certificates.ca()), client_cert, ..config(&etcd.url()) });
    survives_a_restart(&mut etcd, &inventory);
}

#[test]
fn started_before_etcd() {
    let Some(mut etcd) = with_one(Options::default()) else { return };
    etcd.kill();
    let inventory = start(config(&etcd.url()));
    within(Duration::from_secs(5), "a refused connection is reported", || {
        inventory.troubles().iter().any(|trouble| trouble.contains("not reachable"))
    });
    assert!(!inventory.synced());
    etcd.start_again();
    within(SOON, "the first list", || app_of(&inventory, "old").is_some());
}

#[test]
fn history_is_compacted_while_disconnected() {
    let Some(etcd) = with_one(Options::default()) else { return };
    let proxy = Proxy::to(etcd.port);
    let inventory = start(config(&proxy.url()));
    synced(&inventory);
    proxy.cut();
    down_but_served(&inventory);
    etcd.put(&endpoint(NODE, "prod", "new", "web"));
    etcd.delete(&endpoint(NODE, "prod", "old", "web").0);
    etcd.compact();
    down_but_served(&inventory);
    proxy.restore();
    within(SOON, "changes within the compacted history", || {
        app_of(&inventory, "new").is_some() && app_of(&inventory, "old").is_none() && inventory.up()
    });
    assert_eq!(inventory.resyncs(), 1);
}

#[test]
fn a_short_disconnect_is_resumed_without_a_list() {
    let Some(etcd) = with_one(Options::default()) else { return };
    let proxy = Proxy::to(etcd.port);
    let inventory = start(config(&proxy.url()));
    synced(&inventory);
    proxy.cut();
    down_but_served(&inventory);
    etcd.delete(&endpoint(NODE, "prod", "old", "web").0);
    proxy.restore();
    within(SOON, "a deletion during the disconnect", || app_of(&inventory, "old").is_none());
    assert_eq!(inventory.resyncs(), 0);
}

/// etcd comes back with fewer revisions under the same cluster id. A watch from the old revision would be silent forever.
#[test]
fn a_restored_backup_is_listed_again() {
    let Some(mut etcd) = with_one(Options::default()) else { return };
    for n in 0..5 {
        etcd.put(&endpoint(NODE, "prod", &format!("filler-{n}"), "web"));
    }
    let inventory = start(config(&etcd.url()));
    synced(&inventory);
    etcd.lose_data();
    down_but_served(&inventory);
    etcd.start_again();
    etcd.put(&endpoint(NODE, "prod", "restored", "web"));
    within(SOON, "the restored state", || app_of(&inventory, "restored").is_some() && app_of(&inventory, "old").is_none());
    etcd.put(&endpoint(NODE, "prod", "later", "web"));
    within(SOON, "a change of the restored state", || app_of(&inventory, "later").is_some());
}

/// Another cluster is behind the same address, with more revisions than the old one. Only its id differs.
#[test]
fn another_cluster_is_listed_again() {
    let Some(mut etcd) = with_one(Options::default()) else { return };
    let inventory = start(config(&etcd.url()));
    synced(&inventory);
    etcd.lose_data();
    etcd.set_args(&["--initial-cluster-token", "another"]);
    down_but_served(&inventory);
    let proxy_free = free_port();
    let port = std::mem::replace(&mut etcd.port, proxy_free);
    etcd.start_again();
    for n in 0..5 {
        etcd.put(&endpoint(NODE, "prod", &format!("new-{n}"), "web"));
    }
    etcd.kill();
    etcd.port = port;
    etcd.start_again();
    within(SOON, "the other cluster's state", || app_of(&inventory, "new-0").is_some() && app_of(&inventory, "old").is_none());
    assert_eq!(inventory.resyncs(), 1);
}

#[test]
fn a_dead_endpoint_is_left_for_a_live_one() {
    let Some(etcd) = with_one(Options::default()) else { return };
    let (one, two) = (Proxy::to(etcd.port), Proxy::to(etcd.port));
    one.cut();
    let endpoints = vec![one.url(), two.url(), format!("http://127.0.0.1:{}", free_port())];
    let inventory = start(EtcdConfig { endpoints, ..config("") });
    synced(&inventory);
    one.restore();
    two.cut();
    etcd.put(&endpoint(NODE, "prod", "new", "web"));
    within(SOON, "a change over the other endpoint", || app_of(&inventory, "new").is_some() && inventory.up());
    assert_eq!(inventory.resyncs(), 0);
}

/// The connection is open, but nothing comes through any more. The only sign is silence.
#[test]
fn a_half_open_connection_is_noticed_by_its_silence() {
    let Some(etcd) = with_one(Options::default()) else { return };
    let proxy = Proxy::to(etcd.port);
    let idle = Duration::from_secs(2);
    let inventory = start_within(config(&proxy.url()), Limits { idle, ..LIMITS });
    synced(&inventory);
    etcd.put(&endpoint(NODE, "prod", "before", "web"));
    within(SOON, "a change before", || app_of(&inventory, "before").is_some());
    proxy.freeze();
    etcd.put(&endpoint(NODE, "prod", "during", "web"));
    within(idle + SOON, "a change the dead connection did not bring", || app_of(&inventory, "during").is_some());
    assert_eq!(inventory.resyncs(), 0);
}

/// A member without a leader does not know of changes. It says so only because the request asks for it.
#[test]
fn a_member_that_lost_its_leader_is_not_trusted() {
    let Some((one, mut two)) = Etcd::pair() else { return };
    one.put(&endpoint(NODE, "prod", "old", "web"));
    let inventory = start(config(&one.url()));
    synced(&inventory);
    two.kill();
    within(Duration::from_secs(20), "the loss of the leader is noticed", || !inventory.up());
    assert_eq!(app_of(&inventory, "old").as_deref(), Some("web"), "the cache is served");
    two.start_again();
    one.put(&endpoint(NODE, "prod", "new", "web"));
    within(SOON, "a change after there is a leader again", || app_of(&inventory, "new").is_some());
    assert_eq!(inventory.resyncs(), 0);
}
