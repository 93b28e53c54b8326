//! Configuration mistakes: each gives one line that names what to repair.

use std::time::Duration;

use calico_accountant::config::EtcdConfig;

use super::{NODE, ROOT, SOON, app_of, config, endpoint, start, synced, troubled};
use crate::support::certificates::Certificates;
use crate::support::etcd::{Etcd, Options};
use crate::support::within;

#[test]
fn the_gateway_is_disabled() {
    let Some(etcd) = Etcd::with(&["--enable-grpc-gateway=false"]) else { return };
    let inventory = start(config(&etcd.url()));
    troubled(&inventory, &[&etcd.url(), "no JSON gateway", "--enable-grpc-gateway"]);
}

#[test]
fn users_are_taken_from_common_names() {
    let certificates = Certificates::new(Some("root"));
    let Some(etcd) = Etcd::start(Options { tls: Some(certificates.clone()), ..Options::default() }) else { return };
    etcd.enable_auth("reader", "secret", ROOT);
    let tls = EtcdConfig {
        ca_file: Some(certificates.ca()),
        client_cert: Some((certificates.client_cert(), certificates.client_key())),
        ..config(&etcd.url())
    };
    let inventory = start(tls.clone());
    troubled(&inventory, &[&etcd.url(), "common name", "ETCD_USERNAME"]);
    // Also with a password: the gateway refuses even to authenticate.
    let inventory = start(EtcdConfig { credentials: Some(("reader".into(), "secret".into())), ..tls });
    troubled(&inventory, &[&etcd.url(), "common name", "ETCD_USERNAME"]);
}

#[test]
fn the_ca_is_a_wrong_one() {
    let (certificates, other) = (Certificates::new(None), Certificates::new(None));
    let Some(etcd) = Etcd::start(Options { tls: Some(certificates.clone()), ..Options::default() }) else { return };
    let client_cert = Some((certificates.client_cert(), certificates.client_key()));
    let inventory = start(EtcdConfig { ca_file: Some(other.ca()), client_cert, ..config(&etcd.url()) });
    troubled(&inventory, &[&etcd.url(), "ETCD_CA_CERT_FILE", other.ca().to_str().unwrap()]);
}

#[test]
fn the_client_certificate_is_missing() {
    let certificates = Certificates::new(None);
    let Some(etcd) = Etcd::start(Options { tls: Some(certificates.clone()), ..Options::default() }) else { return };
    let inventory = start(EtcdConfig { ca_file: Some(certificates.ca()), ..config(&etcd.url()) });
    troubled(&inventory, &[&etcd.url(), "client certificate", "ETCD_CERT_FILE"]);
}

#[test]
fn tls_to_a_plain_endpoint_and_the_other_way_round() {
    let certificates = Certificates::new(None);
    let Some(plain) = Etcd::plain() else { return };
    let https = format!("https://127.0.0.1:{}", plain.port);
    let inventory = start(EtcdConfig { ca_file: Some(certificates.ca()), ..config(&https) });
    troubled(&inventory, &[&https, "http://"]);
    let Some(tls) = Etcd::start(Options { tls: Some(certificates), ..Options::default() }) else { return };
    let http = format!("http://127.0.0.1:{}", tls.port);
    let inventory = start(config(&http));
    troubled(&inventory, &[&http, "https://"]);
}

#[test]
fn permission_is_denied() {
    let Some(etcd) = Etcd::plain() else { return };
    etcd.put(&endpoint(NODE, "prod", "a", "web"));
    etcd.enable_auth("nosy", "secret", &format!("{ROOT}globalnetworkpolicies/"));
    let user = |name: &str, password: &str| EtcdConfig { credentials: Some((name.into(), password.into())), ..config(&etcd.url()) };
    let inventory = start(user("nosy", "secret"));
    troubled(&inventory, &["\"nosy\"", &format!("{ROOT}workloadendpoints/"), "permission"]);
    let inventory = start(user("nosy", "wrong"));
    troubled(&inventory, &["\"nosy\"", "ETCD_PASSWORD"]);
    let inventory = start(config(&etcd.url()));
    troubled(&inventory, &["authentication enabled", "ETCD_USERNAME"]);
}

/// A repair by etcd's administrator shows as soon as a change does.
#[test]
fn permission_is_granted_at_last() {
    let Some(etcd) = Etcd::plain() else { return };
    etcd.put(&endpoint(NODE, "prod", "a", "web"));
    etcd.enable_auth("reader", "secret", &format!("{ROOT}globalnetworkpolicies/"));
    let inventory = start(EtcdConfig { credentials: Some(("reader".into(), "secret".into())), ..config(&etcd.url()) });
    troubled(&inventory, &["\"reader\"", "permission"]);
    // The delays between attempts have reached their maximum.
    std::thread::sleep(Duration::from_secs(5));
    let workloads = format!("{ROOT}workloadendpoints/");
    etcd.etcdctl(&["--user", "root:root", "role", "grant-permission", "reader", "--prefix=true", "read", &workloads]);
    within(SOON, "the permission is used", || inventory.up() && app_of(&inventory, "a").is_some());
}

/// A role for workload endpoints is enough until policies are wanted.
#[test]
fn the_smallest_role_is_enough() {
    let Some(etcd) = Etcd::plain() else { return };
    etcd.put(&endpoint(NODE, "prod", "a", "web"));
    etcd.enable_auth("reader", "secret", &format!("{ROOT}workloadendpoints/"));
    let inventory = start(EtcdConfig { credentials: Some(("reader".into(), "secret".into())), ..config(&etcd.url()) });
    synced(&inventory);
    assert!(app_of(&inventory, "a").is_some());
    inventory.want_policies();
    troubled(&inventory, &["\"reader\"", &format!("{ROOT}networkpolicies/")]);
}
