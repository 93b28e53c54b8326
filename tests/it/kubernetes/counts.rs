//! Every captured ruleset, with its workloads as pods of a real API server and, separately, as folders of pods' logs: the program counts
//! what was sent, under the right pods. In all captures, the interfaces are hashes of their pods' names, as real Calico makes them. Host
//! endpoints are not pods; `captures.rs` tests them.

use std::collections::BTreeMap;
use std::process::Command;

use calico_accountant::datastore::inventory::{PolicyKind, StoredPolicy};
use calico_accountant::ruleset::Family;
use serde_json::{Value, json};

use super::{CAPTURED_PODS, captured_pods, ready};
use crate::captures::{self, Key};
use crate::program::{self, Program};
use crate::support::etcd::Scratch;
use crate::support::fakes::Fakes;
use crate::support::fixture;
use crate::support::kube::Kube;
use crate::support::netns::{Namespace, feed, sh};
use crate::support::scrape::{Samples, labels, parse, scrape};

const NATIVE: [&str; 4] = ["v3.29.7-native", "v3.31.7-native", "v3.32.1-native", "v3.32.1-native-reject"];
/// Calico 3.29 shortens long names and hashes the names of chains. Only a datastore knows the names.
const UNNAMED: &str = "v3.29.7-native";
const GO: &str = "captures/go-exporter-v0.1.6";

#[test]
fn the_same_under_the_right_pods() {
    // Real tables need their own network namespace, and the API server has to be in it too.
    let Some(namespace) = Namespace::new("every capture with its pods") else { return };
    namespace.run(|| {
        let Some(kube) = Kube::start() else { return };
        captured_pods(&kube);
        policies(&kube, &captures::stored_policies(UNNAMED));
        let node = Node::new(&kube);
        for way in [Way::Pods, Way::Folders] {
            captures::CAPTURES.iter().for_each(|(capture, _)| node.by_iptables(way, capture));
            NATIVE.iter().for_each(|capture| node.by_netlink(way, capture));
        }
        the_go_exporters_table(&kube, &node);
    });
}

/// Where names come from.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Pods,
    Folders,
}

struct Node {
    scratch: Scratch,
    server: String,
    token: String,
}

impl Node {
    fn new(kube: &Kube) -> Self {
        let token = kube.account(&["/pods", "networking.k8s.io/networkpolicies", "crd.projectcalico.org/*"]);
        let node = Node { scratch: Scratch::new(), server: kube.url(), token };
        node.folders(&CAPTURED_PODS.map(|(namespace, pod)| (namespace.to_owned(), pod.to_owned())));
        node
    }

    fn folders(&self, pods: &[(String, String)]) {
        for (namespace, pod) in pods {
            std::fs::create_dir_all(self.scratch.path().join(format!("{namespace}_{pod}_uid"))).unwrap();
        }
    }

    fn command(&self, way: Way) -> Command {
        let mut command = program::command();
        command.env_remove("ETCD_ENDPOINTS").env("NODENAME", "node1");
        match way {
            Way::Pods => command.env("K8S_API_ENDPOINT", &self.server).env("K8S_API_TOKEN", &self.token),
            Way::Folders => command.env("DATASTORE_TYPE", "none").env("POD_LOGS_DIR", self.scratch.path()),
        };
        command.env("K8S_INSECURE_SKIP_TLS_VERIFY", "true");
        command
    }

    fn by_iptables(&self, way: Way, capture: &str) {
        let text = |at: &str, family: &str| fixture::text(&format!("captures/{capture}/{at}/{family}-save.txt.gz"));
        let fakes = Fakes::tables(&text("t0", "iptables"), &text("t0", "ip6tables"));
        let mut command = self.command(way);
        command.env("PATH", fakes.path());
        check(way, capture, command, || {
            fakes.prints("iptables-nft-save", &text("t2", "iptables"));
            fakes.prints("ip6tables-nft-save", &text("t2", "ip6tables"));
        });
    }

    fn by_netlink(&self, way: Way, capture: &str) {
        // The API server's own packets must not count, because a table with lower counts than before means that counters began again.
        let is_local = |line: &&str| line.contains("jump filter-cali-INPUT") || line.contains("jump filter-cali-OUTPUT");
        let without_local = |text: String| text.lines().filter(|line| !is_local(line)).fold(String::new(), |text, line| text + line + "\n");
        let file = |at: &str, file: &str| without_local(fixture::text(&format!("captures/{capture}/{at}/{file}.txt.gz")));
        let text = |at: &str| ["nft-ip", "nft-ip6"].map(|name| file(at, name)).concat();
        feed("nft -f -", &text("t0"));
        let mut command = self.command(way);
        command.env("BACKEND", "nftables").env("SOURCE", "kernel");
        // In one transaction, so that no read sees an incomplete table.
        check(way, capture, command, || feed("nft -f -", &format!("delete table ip calico\ndelete table ip6 calico\n{}", text("t2"))));
        sh("nft delete table ip calico; nft delete table ip6 calico");
    }
}

/// Asserts that between two scrapes with traffic between them, everything increases by what was sent.
#[track_caller]
fn check(way: Way, capture: &str, command: Command, traffic: impl FnOnce()) {
    let program = Program::start(command);
    ready(&program);
    let truth: Value = serde_json::from_str(&fixture::text(&format!("captures/{capture}/t2/ground-truth.json.gz"))).unwrap();
    let interface = |pod: &str| truth["interfaces"][pod].as_str().unwrap_or_default().to_owned();
    let before = totals(&scrape(program.port()), &interface);
    traffic();
    let after = totals(&scrape(program.port()), &interface);
    let mut increases = captures::increases(&before, &after);
    let mut sent = captures::ground_truth(capture, "t2", &Family::ALL);
    sent.retain(|(interface, ..), _| interface.starts_with("cali"));
    if way == Way::Folders && capture == UNNAMED {
        [&mut increases, &mut sent].into_iter().for_each(without_policies);
    }
    captures::compare(&format!("{capture} by {way:?}"), &increases, &sent);
    assert!(increases.values().sum::<u64>() > 500, "{capture} by {way:?}");
}

/// Replaces the counts of policies by their sum for each verdict.
fn without_policies(counts: &mut BTreeMap<Key, u64>) {
    let mut sums = BTreeMap::new();
    for ((interface, direction, item), packets) in std::mem::take(counts) {
        let verdict = item.split_once(' ').filter(|(verdict, _)| ["Accept", "Deny", "Pass"].contains(verdict));
        let item = verdict.map_or(item.clone(), |(verdict, _)| verdict.to_owned());
        *sums.entry((interface, direction, item)).or_default() += packets;
    }
    *counts = sums;
}

/// The totals of a scrape, by the interface of each sample's pod.
#[track_caller]
fn totals(samples: &Samples, interface_of: &dyn Fn(&str) -> String) -> BTreeMap<Key, u64> {
    let mut totals = BTreeMap::new();
    for (series, value) in samples {
        let labels = labels(series);
        let get = |name: &str| labels.get(name).copied().unwrap_or_default();
        let item = match series.split('{').next().unwrap().trim_start_matches("calico_accountant_") {
            "established_packets_total" => "established".to_owned(),
            "profile_packets_total" => format!("profile {}", get("profile")),
            "policy_packets_total" => format!("{} {}", verdict(get("verdict")), get("policy")),
            "drop_packets_total" => match get("reason") {
                "no_policy" => format!("no policy {}", get("tier")),
                "policy" => format!("refused {}", get("tier")),
                other => other.replace('_', ""),
            },
            _ => continue,
        };
        let interface = interface_of(&format!("{}/{}", get("namespace"), get("pod")));
        assert_eq!(interface, get("interface"), "{series}");
        let direction = if get("direction") == "ingress" { "ingress" } else { "egress" };
        assert!(totals.insert((interface, direction, item), *value as u64).is_none(), "{series} comes twice");
    }
    totals
}

fn verdict(label: &str) -> &'static str {
    match label {
        "accept" => "Accept",
        "deny" => "Deny",
        "pass" => "Pass",
        _ => "DenyOrPass",
    }
}

/// Makes policies in the API server, as Calico and Kubernetes store them.
fn policies(kube: &Kube, policies: &[StoredPolicy]) {
    kube.define("crd.projectcalico.org", "v1", "NetworkPolicy", true);
    kube.define("crd.projectcalico.org", "v1", "GlobalNetworkPolicy", false);
    policies.iter().for_each(|policy| make(kube, policy));
}

fn make(kube: &Kube, policy: &StoredPolicy) {
    let place = policy.namespace.as_ref().map(|namespace| format!("namespaces/{namespace}/")).unwrap_or_default();
    let (api, kind, name) = match (policy.name.strip_prefix("knp.default."), policy.kind) {
        (Some(name), _) => ("networking.k8s.io/v1", "NetworkPolicy", name),
        (None, PolicyKind::GlobalNetworkPolicy) => ("crd.projectcalico.org/v1", "GlobalNetworkPolicy", policy.name.as_str()),
        (None, _) => ("crd.projectcalico.org/v1", "NetworkPolicy", policy.name.as_str()),
    };
    let plural = crate::support::kube::plural(kind);
    let body = json!({"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": {"podSelector": {}}});
    kube.call("POST", &format!("/apis/{api}/{place}{plural}"), &body);
}

/// Tests Calico 3.10, which does not write the names of policies into its rules. With pods and policies in the API server, the series are
/// exactly those of the Go exporter. With folders alone, each pod has the same counts.
fn the_go_exporters_table(kube: &Kube, node: &Node) {
    let mut pods = Vec::new();
    for line in fixture::text(&format!("{GO}/etcd.jsonl")).lines() {
        let (key, value) = stored(line);
        let meta = &value["metadata"];
        let namespace = meta["namespace"].as_str().map(str::to_owned);
        match key.split('/').nth(5).unwrap() {
            "workloadendpoints" => {
                let (namespace, name) = (namespace.unwrap(), value["spec"]["pod"].as_str().unwrap().to_owned());
                pod_of_endpoint(kube, &namespace, &name, &value);
                pods.push((namespace, name));
            }
            "networkpolicies" | "globalnetworkpolicies" => {
                make(kube, &StoredPolicy::calico(namespace, meta["name"].as_str().unwrap().to_owned()));
            }
            _ => {}
        }
    }
    node.folders(&pods);
    let fakes = Fakes::tables(&fixture::text(&format!("{GO}/iptables-save.txt")), "");
    let theirs = inherited(&parse(&fixture::text(&format!("{GO}/metrics.txt"))));
    for way in [Way::Pods, Way::Folders] {
        let mut command = node.command(way);
        command.env("PATH", fakes.path());
        let program = Program::start(command);
        ready(&program);
        let ours = inherited(&scrape(program.port()));
        match way {
            Way::Pods => assert_eq!(ours, theirs),
            Way::Folders => assert_eq!(by_pod(&ours), by_pod(&theirs)),
        }
    }
}

fn stored(line: &str) -> (String, Value) {
    let (key, value): (String, String) = serde_json::from_str(line).unwrap();
    (key, serde_json::from_str(&value).unwrap())
}

fn pod_of_endpoint(kube: &Kube, namespace: &str, name: &str, endpoint: &Value) {
    kube.namespace(namespace);
    let mut pod = super::pod(name, endpoint["metadata"]["labels"]["app"].as_str().unwrap());
    pod["spec"]["nodeName"] = json!("node1");
    let path = format!("/api/v1/namespaces/{namespace}/pods");
    kube.call("POST", &path, &pod);
    let ip = endpoint["spec"]["ipNetworks"][0].as_str().unwrap().trim_end_matches("/32");
    let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}});
    kube.call("PATCH", &format!("{path}/{name}/status"), &status);
}

/// The series of pods under the names of the Go exporter.
fn inherited(samples: &Samples) -> Samples {
    let names = ["no_policy_drop_counter", "policy_accept_counter", "policy_accept_drop_counter"];
    samples.iter().filter(|(series, _)| names.contains(&series.split('{').next().unwrap())).map(|(s, v)| (s.clone(), *v)).collect()
}

/// The counts of pods by metric, summed over policies, addresses and `app`.
fn by_pod(samples: &Samples) -> BTreeMap<[String; 4], f64> {
    let mut sums = BTreeMap::new();
    for (series, value) in samples {
        let labels = labels(series);
        let name = series.split('{').next().unwrap();
        let key = [name, labels["pod_namespace"], labels["pod"], labels["type"]].map(str::to_owned);
        *sums.entry(key).or_default() += value;
    }
    sums
}
