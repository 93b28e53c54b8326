//! Rights and tokens are lost and restored. Each loss gives one line that names what to repair, and each repair shows soon.

use std::time::Duration;

use calico_accountant::kubernetes::{Credentials, Limits};

use super::{Changing, SOON, bearer, credentials, down_but_served, pod, start_within, synced, troubled, workload};
use crate::support::certificates::Certificates;
use crate::support::kube::{ACCOUNT, Kube};
use crate::support::within;

const PODS: &str = "/api/v1/namespaces/prod/pods";

#[test]
fn rights_and_tokens() {
    let Some(kube) = Kube::start() else { return };
    let token = kube.account(&["/pods"]);
    kube.namespace("prod");
    kube.call("POST", PODS, &pod("old", "web"));
    let access = Changing::new(credentials(&kube, &kube.url(), token.clone()));
    // The server never ends a running watch because rights are lost. With short watches the loss shows.
    let limits = Limits { watch: Duration::from_secs(2), doubt: Duration::from_secs(2), ..Limits::default() };
    let inventory = start_within(access.clone(), limits);
    synced(&inventory);

    kube.grant(&[]);
    troubled(&inventory, &["watch pods of node node-1", &format!("system:serviceaccount:kube-system:{ACCOUNT}")]);
    down_but_served(&inventory, "prod", "old");
    kube.call("POST", PODS, &pod("denied", "web"));
    std::thread::sleep(Duration::from_secs(3));
    kube.grant(&["/pods"]);
    within(SOON, "a change after the rights are back", || workload(&inventory, "prod", "denied").is_some() && inventory.up());
    assert_eq!(inventory.resyncs(), 0);

    let replace = |token: &str| access.set(|credentials| credentials.authorization = bearer(token));
    replace("expired");
    troubled(&inventory, &["does not accept our token"]);
    std::thread::sleep(Duration::from_secs(3));
    let asked: usize = kube.asked().values().sum();
    kube.call("POST", PODS, &pod("expired", "web"));
    replace(&kube.token());
    within(SOON, "a change after the token was replaced", || workload(&inventory, "prod", "expired").is_some() && inventory.up());
    assert!(asked < 40, "a refused token is not sent over and over: {asked} questions");

    access.set(|credentials| credentials.authorization = None);
    troubled(&inventory, &["system:anonymous", "no token"]);
    replace(&token);
    within(SOON, "all is well", || inventory.up());
}

#[test]
fn certificates() {
    let Some(kube) = Kube::start() else { return };
    let other = Certificates::new(None);
    let read = |path| std::fs::read(path).unwrap();
    let good = credentials(&kube, &kube.url(), kube.account(&["/pods"]));
    let follow = |credentials: Credentials| start_within(Changing::new(credentials), Limits::default());

    let inventory = follow(Credentials { ca: Some(read(other.ca())), ..good.clone() });
    troubled(&inventory, &[&kube.url(), "not issued by the configured CA"]);
    let inventory = follow(Credentials { ca: Some(read(other.ca())), insecure: true, ..good.clone() });
    synced(&inventory);
    let inventory = follow(Credentials { ca: None, ..good.clone() });
    troubled(&inventory, &["CA"]);

    // The certificate's name is 127.0.0.1.
    let localhost = format!("https://localhost:{}", kube.port);
    let inventory = follow(Credentials { server: localhost.clone(), ..good.clone() });
    troubled(&inventory, &["certificate is not acceptable"]);
    let inventory = follow(Credentials { server: localhost, tls_server_name: Some("127.0.0.1".into()), ..good.clone() });
    synced(&inventory);

    // A client certificate without a common name identifies no user. With a certificate, the token is not needed.
    let mismatch = Some((read(other.client_cert()), read(kube.certificates.client_key())));
    let inventory = follow(Credentials { client: mismatch, ..good.clone() });
    troubled(&inventory, &["certificate and key do not fit"]);
    let inventory = follow(Credentials { server: kube.url().replace("https", "http"), ..good });
    within(Duration::from_secs(10), "plain HTTP to a TLS port", || !inventory.troubles().is_empty());
}
