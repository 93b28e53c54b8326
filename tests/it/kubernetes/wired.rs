//! The built program against a real API server: every way to configure it, and what it serves while pods, rights, tokens and the server
//! change.

use std::fs;
use std::process::Command;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use super::{CAPTURED_PODS, SOON, captured_pods, pod, ready};
use crate::program::{self, Program};
use crate::support::fakes::Fakes;
use crate::support::fixture;
use crate::support::kube::{ACCOUNT, Kube};
use crate::support::proxy::Proxy;
use crate::support::scrape::{one, scrape, with};
use crate::support::within;

const WEB: &str = "/api/v1/namespaces/shop/pods/web-1";

/// A node's tables, a folder for credentials, and the API server behind a proxy.
struct Node {
    kube: Kube,
    proxy: Proxy,
    fakes: Fakes,
}

impl Node {
    fn new() -> Option<Self> {
        let kube = Kube::start()?;
        captured_pods(&kube);
        kube.account(&["/pods"]);
        let proxy = Proxy::to(kube.port);
        let fakes = Fakes::tables(&fixture::text("captures/v3.32.1-legacy/t2/iptables-save.txt.gz"), "");
        let node = Node { kube, proxy, fakes };
        node.token("token");
        fs::copy(node.kube.certificates.ca(), node.fakes.path().join("ca.pem")).unwrap();
        Some(node)
    }

    /// Puts a new token, valid for ten minutes, into a file by renaming, as the kubelet does.
    fn token(&self, name: &str) {
        let file = self.fakes.file("token.new", &self.kube.token());
        fs::rename(file, self.fakes.path().join(name)).unwrap();
    }

    fn server(&self) -> String {
        format!("https://127.0.0.1:{}", self.proxy.port)
    }

    fn command(&self) -> Command {
        let mut command = program::command();
        command.env_remove("ETCD_ENDPOINTS").env("NODENAME", "node1").env("PATH", self.fakes.path());
        command
    }

    /// The program with a kubeconfig of one context.
    fn with(&self, cluster: &Value, user: &Value) -> Program {
        let kubeconfig = self.fakes.file("kubeconfig", &kubeconfig("here", cluster, user).to_string());
        let mut command = self.command();
        command.env("KUBECONFIG", kubeconfig);
        Program::start(command)
    }
}

fn kubeconfig(context: &str, cluster: &Value, user: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": context,
        "clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    })
}

/// Asserts that the program has its pods from the API server. Nothing else knows their `app`.
#[track_caller]
fn follows(what: &str, program: &Program) {
    ready(program);
    let samples = scrape(program.port());
    let labels = [("namespace", "shop"), ("pod", "web-1"), ("app", "web")];
    assert_eq!(with(&samples, "calico_accountant_workload_info", &labels).count(), 1, "{what}: {:#?}", program.log());
    assert_eq!(one(&samples, "calico_accountant_workloads", &[("state", "known")]), 9.0, "{what}");
}

#[test]
fn every_way_to_configure_it() {
    let Some(node) = Node::new() else { return };
    let cluster = json!({"server": node.server(), "certificate-authority": "ca.pem"});
    let by_token = json!({"tokenFile": "token"});
    follows("relative files", &node.with(&cluster, &by_token));

    let token = fs::read_to_string(node.fakes.path().join("token")).unwrap();
    let ca = BASE64_STANDARD.encode(fs::read(node.kube.certificates.ca()).unwrap());
    let inline = json!({"server": node.server(), "certificate-authority-data": ca});
    follows("inline data", &node.with(&inline, &json!({"token": token})));
    let localhost = node.server().replace("127.0.0.1", "localhost");
    let named = json!({"server": localhost, "certificate-authority": "ca.pem", "tls-server-name": "127.0.0.1"});
    follows("the name in the certificate", &node.with(&named, &by_token));
    follows("no check of the certificate", &node.with(&json!({"server": localhost, "insecure-skip-tls-verify": true}), &by_token));

    // The server takes the certificate's common name as the user.
    let (cert, key) = node.kube.certificates.client_named("user", &format!("system:serviceaccount:kube-system:{ACCOUNT}"));
    follows("a client certificate", &node.with(&cluster, &json!({"client-certificate": cert, "client-key": key})));
    let [cert, key] = [cert, key].map(|path| BASE64_STANDARD.encode(fs::read(path).unwrap()));
    let certificate = json!({"client-certificate-data": cert, "client-key-data": key});
    follows("an inline client certificate", &node.with(&cluster, &certificate));

    merged_files(&node, &cluster, &by_token);
    without_a_kubeconfig(&node, &token);
    a_plugin(&node, &cluster);
}

/// The first file with a value wins. Any file may have any part.
fn merged_files(node: &Node, cluster: &Value, user: &Value) {
    let nowhere = json!({"server": "https://127.0.0.1:1"});
    let folder = node.fakes.path();
    let write = |name: &str, content: &Value| fs::write(folder.join(name), content.to_string()).unwrap();
    write("clusters", &json!({"clusters": [{"name": "c", "cluster": cluster}]}));
    let others = kubeconfig("nowhere", &nowhere, user);
    write("others", &others);
    let files = ["missing", "clusters", "others"].map(|name| folder.join(name).display().to_string()).join(":");
    let mut command = node.command();
    command.env("KUBECONFIG", files).env("K8S_CURRENT_CONTEXT", "here");
    follows("merged files", &Program::start(command));

    fs::create_dir(folder.join(".kube")).unwrap();
    let mut at_home = kubeconfig("here", cluster, user);
    at_home["clusters"][0]["cluster"]["certificate-authority"] = json!("../ca.pem");
    at_home["users"][0]["user"]["tokenFile"] = json!("../token");
    write(".kube/config", &at_home);
    let mut command = node.command();
    command.env("HOME", folder);
    follows("the home directory's", &Program::start(command));
}

fn without_a_kubeconfig(node: &Node, token: &str) {
    let mut command = node.command();
    command.env("K8S_API_ENDPOINT", node.server()).env("K8S_CA_FILE", node.fakes.path().join("ca.pem"));
    command.env("K8S_API_TOKEN", token);
    follows("variables", &Program::start(command));
}

/// A plugin's token is used until the server refuses it. Then the plugin runs again.
fn a_plugin(node: &Node, cluster: &Value) {
    let folder = node.fakes.path().display().to_string();
    let credential = r#"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"token":"%s"}}"#;
    node.fakes.set("plugin", &format!("cd '{folder}'; echo run >>runs; printf '{credential}' \"$(cat token)\""));
    let exec = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin", "interactiveMode": "Never"}});
    let program = node.with(cluster, &exec);
    follows("a plugin", &program);
    let runs = || fs::read_to_string(format!("{folder}/runs")).unwrap().lines().count();
    assert_eq!(runs(), 1);
    the_account_is_made_anew(&node.kube);
    node.token("token");
    let asked = node.kube.asked();
    node.proxy.cut();
    node.proxy.restore();
    let relabelled = || app_is(&program, "relabelled");
    within(Duration::from_secs(30), "another token", || runs() == 2);
    node.kube.call("PATCH", WEB, &json!({"metadata": {"labels": {"app": "relabelled"}}}));
    within(SOON, "a change seen with the second token", relabelled);
    assert!(node.kube.asked() != asked);
}

/// Replaces the account. The old one's tokens become invalid when the server's cache of them expires (10 s).
fn the_account_is_made_anew(kube: &Kube) {
    let path = format!("/api/v1/namespaces/kube-system/serviceaccounts/{ACCOUNT}");
    kube.call("DELETE", &path, &Value::Null);
    kube.service_account("kube-system", ACCOUNT);
}

fn app_is(program: &Program, app: &str) -> bool {
    with(&scrape(program.port()), "calico_accountant_workload_info", &[("pod", "web-1"), ("app", app)]).count() == 1
}

fn ip_is(program: &Program, ip: &str) -> bool {
    with(&scrape(program.port()), "calico_accountant_workload_info", &[("pod", "web-1"), ("ip", ip)]).count() == 1
}

fn known(program: &Program) -> f64 {
    one(&scrape(program.port()), "calico_accountant_workloads", &[("state", "known")])
}

fn is_up(program: &Program) -> bool {
    one(&scrape(program.port()), "calico_accountant_datastore_up", &[]) == 1.0
}

#[track_caller]
fn down_but_served(program: &Program) {
    within(Duration::from_secs(30), "the outage shows", || !is_up(program));
    assert_eq!(known(program), 9.0, "the cache is served");
}

#[test]
fn whatever_happens_shows_soon() {
    let Some(mut node) = Node::new() else { return };
    let cluster = json!({"server": node.server(), "certificate-authority": "ca.pem"});
    let program = node.with(&cluster, &json!({"tokenFile": "token"}));
    follows("at first", &program);
    pods(&node, &program);
    rights_and_tokens(&node, &program);
    the_server(&mut node, &program);
    // The server answers lists without a minimum version from its cache, which does not need etcd.
    node.kube.etcd.freeze();
    follows("with a frozen etcd", &node.with(&cluster, &json!({"tokenFile": "token"})));
    assert_eq!(known(&program), 9.0);
}

/// How many running workloads have no rules.
fn without_rules(program: &Program) -> f64 {
    one(&scrape(program.port()), "calico_accountant_workloads", &[("state", "without_rules")])
}

/// A pod that waits for its rules counts as without rules, a finished one does not.
fn finished_pods(kube: &Kube, program: &Program) {
    assert_eq!(without_rules(program), 0.0);
    for (name, phase) in [("job-a", "Succeeded"), ("job-b", "Failed")] {
        let mut job = pod(name, "job");
        job["spec"]["nodeName"] = json!("node1");
        kube.call("POST", "/api/v1/namespaces/shop/pods", &job);
        within(SOON, "without rules", || without_rules(program) == 1.0);
        kube.call("PATCH", &format!("/api/v1/namespaces/shop/pods/{name}/status"), &json!({"status": {"phase": phase}}));
        within(SOON, phase, || without_rules(program) == 0.0);
    }
    assert_eq!(known(program), 9.0);
}

/// Pods get addresses and labels, finish, and are deleted. A namespace is deleted and made again.
fn pods(node: &Node, program: &Program) {
    let kube = &node.kube;
    finished_pods(kube, program);
    let status = json!({"status": {"phase": "Running", "podIP": "10.65.0.11", "podIPs": [{"ip": "10.65.0.11"}, {"ip": "fd00:65::11"}]}});
    kube.call("PATCH", &format!("{WEB}/status"), &status);
    within(SOON, "addresses", || ip_is(program, "10.65.0.11,fd00:65::11/128"));
    kube.call("PATCH", WEB, &json!({"metadata": {"labels": {"app": "relabelled"}}}));
    within(SOON, "a label", || app_is(program, "relabelled"));
    kube.call("PATCH", &format!("{WEB}/status"), &json!({"status": {"phase": "Succeeded"}}));
    within(SOON, "finished", || ip_is(program, ""));
    kube.call("DELETE", &format!("{WEB}?gracePeriodSeconds=0"), &Value::Null);
    within(SOON, "deleted", || known(program) == 8.0);
    kube.delete_namespace("shop");
    within(SOON, "gone with its namespace", || known(program) == 5.0);
    within(Duration::from_secs(5), "the namespace is gone", || kube.gone("/api/v1/namespaces/shop"));
    kube.namespace("shop");
    for (namespace, name) in CAPTURED_PODS.into_iter().filter(|(namespace, _)| *namespace == "shop") {
        let mut again = pod(name, "again");
        again["spec"]["nodeName"] = json!("node1");
        kube.call("POST", &format!("/api/v1/namespaces/{namespace}/pods"), &again);
    }
    within(SOON, "in the namespace made anew", || known(program) == 9.0 && app_is(program, "again"));
}

/// A loss of either shows with the next request, which a broken connection causes.
fn rights_and_tokens(node: &Node, program: &Program) {
    let again = |app: &str| node.kube.call("PATCH", WEB, &json!({"metadata": {"labels": {"app": app}}}));
    node.kube.grant(&[]);
    within(Duration::from_secs(5), "the right is gone", || !node.kube.allowed("watch", "", "pods"));
    node.proxy.cut();
    node.proxy.restore();
    down_but_served(program);
    program.await_log("does not let us watch pods of node node1");
    again("with-rights");
    node.kube.grant(&["/pods"]);
    within(SOON, "the rights are back", || is_up(program) && app_is(program, "with-rights"));

    the_account_is_made_anew(&node.kube);
    // Connections are broken until the server's cache of the old token has expired.
    within(Duration::from_secs(30), "the old token is refused", || {
        node.proxy.cut();
        node.proxy.restore();
        std::thread::sleep(Duration::from_secs(1));
        program.log().iter().any(|line| line.contains("does not accept our token"))
    });
    down_but_served(program);
    again("with-a-token");
    node.token("token");
    within(SOON, "the token is replaced", || is_up(program) && app_is(program, "with-a-token"));
}

/// The server is restarted, then once more while the connection to it is broken and its history is compacted.
fn the_server(node: &mut Node, program: &Program) {
    node.kube.kill();
    down_but_served(program);
    node.kube.start_again();
    node.kube.call("PATCH", WEB, &json!({"metadata": {"labels": {"app": "restarted"}}}));
    within(SOON, "a change after a restart", || is_up(program) && app_is(program, "restarted"));
    node.proxy.cut();
    down_but_served(program);
    node.kube.call("DELETE", &format!("{WEB}?gracePeriodSeconds=0"), &Value::Null);
    node.kube.kill();
    node.kube.etcd.compact();
    node.kube.start_again();
    node.proxy.restore();
    within(SOON, "a deletion in lost history", || is_up(program) && known(program) == 8.0);
    program.await_log("listing again");
    let mut web = pod("web-1", "web");
    web["spec"]["nodeName"] = json!("node1");
    node.kube.call("POST", "/api/v1/namespaces/shop/pods", &web);
    within(SOON, "a pod made after it", || known(program) == 9.0);
}
