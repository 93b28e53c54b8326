//! The manifests in `deploy/kustomize`, applied to a real API server, and the program run as they say.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use std::time::Duration;

use serde_json::{Value, json};

use super::{CAPTURED_PODS, captured_pods, ready};
use crate::kernel;
use crate::program::Program;
use crate::support::container::Host;
use crate::support::etcd::Etcd;
use crate::support::fakes::Fakes;
use crate::support::kube::{self, Kube};
use crate::support::kubectl::kustomize;
use crate::support::netns::Namespace;
use crate::support::scrape::{one, scrape, with};
use crate::support::{can_run, fixture, within};

/// The capture of the rules in the kernel, and of the etcd of the same cluster.
const CAPTURE: &str = "v3.28.5-legacy";
const OVERLAYS: [&str; 3] = ["kubernetes", "etcd", "none"];

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn overlay(name: &str) -> PathBuf {
    repository("deploy/kustomize/overlays").join(name)
}

/// Writes a user's kustomization into `folder`: an overlay with components.
fn with_components(folder: &Path, name: &str, components: &[&str]) {
    kustomization(folder, name, components, None);
}

/// The same, optionally for another namespace.
fn kustomization(folder: &Path, name: &str, components: &[&str], namespace: Option<&str>) {
    // kustomize does not accept absolute paths.
    let up = "../".repeat(folder.parent().unwrap().canonicalize().unwrap().join("x").components().count() - 1);
    let path = |path: PathBuf| format!("{up}{}", path.strip_prefix("/").unwrap().display());
    let components = components.iter().map(|component| path(repository("deploy/kustomize/components").join(component)));
    let mut kustomization = json!({"resources": [path(overlay(name))], "components": components.collect::<Vec<_>>()});
    namespace.into_iter().for_each(|namespace| kustomization["namespace"] = namespace.into());
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("kustomization.yaml"), kustomization.to_string()).unwrap();
}

#[test]
fn the_demos_files_are_made_from_the_overlays() {
    if !can_run("comparing demo/ with deploy/kustomize", kube::built(), "scripts/kubernetes to have been run") {
        return;
    }
    for name in OVERLAYS {
        let demo = fs::read_to_string(repository("demo").join(format!("daemonset-{name}.yaml"))).unwrap();
        let objects: String = demo.lines().skip_while(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
        assert_eq!(objects, kustomize(&overlay(name)), "scripts/manifests makes demo/daemonset-{name}.yaml anew");
    }
}

#[test]
fn all_is_applied_without_a_warning_and_runs() {
    // This network namespace is the host's for the pods: it has the rules in the kernel, and the servers on its loopback interface.
    let Some(namespace) = Namespace::new("running the program as its manifests say") else { return };
    namespace.run(|| {
        let (Some(etcd), Some(kube)) = (Etcd::plain(), Kube::start()) else { return };
        kernel::load("legacy", &kernel::filter_table(CAPTURE));
        for line in fixture::text(&format!("captures/{CAPTURE}/etcd.jsonl.gz")).lines() {
            let stored: Value = serde_json::from_str(line).unwrap();
            etcd.put(&(stored["key"].as_str().unwrap().to_owned(), stored["value"].to_string()));
        }
        captured_pods(&kube);
        kube.define("monitoring.coreos.com", "v1", "PodMonitor", true);
        kube.define("crd.projectcalico.org", "v1", "NetworkPolicy", true);
        kube.define("crd.projectcalico.org", "v1", "GlobalNetworkPolicy", false);
        for name in OVERLAYS {
            kube.kubectl(&["apply", "-k", overlay(name).to_str().unwrap()]);
            runs(&kube, &etcd, name);
            if name == "kubernetes" {
                rights_are_enough_and_cannot_be_reduced(&kube, "captures/v3.32.1-legacy/t2/iptables-save.txt.gz", None);
                with_components(&kube.file("policies"), name, &["policies"]);
                kube.kubectl(&["apply", "-k", kube.file("policies").to_str().unwrap()]);
                rights_are_enough_and_cannot_be_reduced(&kube, "captures/go-exporter-v0.1.6/iptables-save.txt", Some("pods"));
            }
            with_the_operator(&kube, name);
        }
        for_the_ebpf_dataplane(&kube);
    });
}

/// All objects of an overlay and its components move to the other namespace, including the rights. None remains in the default one.
#[test]
fn everything_follows_into_another_namespace() {
    let Some(kube) = Kube::start() else { return };
    kube.define("monitoring.coreos.com", "v1", "PodMonitor", true);
    kube.define("security.openshift.io", "v1", "SecurityContextConstraints", false);
    kube.namespace("observability");
    for name in OVERLAYS {
        let components: &[&str] = match name {
            "kubernetes" => &["ebpf", "openshift", "podmonitor", "policies"],
            _ => &["ebpf", "openshift", "podmonitor"],
        };
        // Each component alone, and all together.
        let mut sets: Vec<Vec<&str>> = components.iter().map(|component| vec![*component]).collect();
        sets.extend([vec![], components.to_vec()]);
        for components in sets {
            let what = format!("{name} with {components:?}");
            let folder = kube.file("elsewhere");
            kustomization(&folder, name, &components, Some("observability"));
            assert!(!kustomize(&folder).contains("kube-system"), "{what}");
            kube.kubectl(&["apply", "-k", folder.to_str().unwrap()]);
            let pod = kube.call("GET", "/apis/apps/v1/namespaces/observability/daemonsets/calico-accountant", &Value::Null);
            assert_eq!(pod["spec"]["template"]["spec"]["serviceAccountName"], "calico-accountant", "{what}");
            let may = |verb, what| kube.account_may("observability", verb, what);
            assert_eq!(may("watch", "pods"), name == "kubernetes", "{what}");
            assert_eq!(may("watch", "networkpolicies.networking.k8s.io"), components.contains(&"policies"), "{what}");
            let constraints = "securitycontextconstraints.security.openshift.io/calico-accountant";
            assert_eq!(may("use", constraints), components.contains(&"openshift"), "{what}");
            assert!(!may("get", "secrets"), "{what}");
            assert!(!kube.account_may("kube-system", "watch", "pods"), "{what}");
            kube.kubectl(&["delete", "-k", folder.to_str().unwrap()]);
        }
    }
}

/// The component adds two capabilities and two folders, and changes nothing else.
fn for_the_ebpf_dataplane(kube: &Kube) {
    let folder = kube.file("ebpf");
    kube.kubectl(&["apply", "-k", overlay("none").to_str().unwrap()]);
    let spec = || pod_template(kube)["spec"].clone();
    let before = spec();
    with_components(&folder, "none", &["ebpf"]);
    kube.kubectl(&["apply", "-k", folder.to_str().unwrap()]);
    let mut expected = before;
    let push = |to: &mut Value, value: Value| to.as_array_mut().unwrap().push(value);
    for (name, path, propagation) in [("bpffs", "/sys/fs/bpf", Some("HostToContainer")), ("calico-run", "/var/run/calico", None)] {
        let mut mount = json!({"name": name, "mountPath": path, "readOnly": true});
        propagation.into_iter().for_each(|how| mount["mountPropagation"] = how.into());
        push(&mut expected["containers"][0]["volumeMounts"], mount);
        push(&mut expected["volumes"], json!({"name": name, "hostPath": {"path": path, "type": "Directory"}}));
    }
    for capability in ["BPF", "DAC_READ_SEARCH"] {
        push(&mut expected["containers"][0]["securityContext"]["capabilities"]["add"], capability.into());
    }
    assert_eq!(spec(), expected);
    kube.kubectl(&["delete", "-k", folder.to_str().unwrap()]);
}

/// With no more than what the pod has, the program reads the kernel and knows every pod of this datastore.
fn runs(kube: &Kube, etcd: &Etcd, name: &str) {
    let config = [("etcd_endpoints", etcd.url()), ("etcd_ca", String::new()), ("etcd_cert", String::new()), ("etcd_key", String::new())];
    let (host, none) = (Host::new(kube, "node1", &config), Fakes::new());
    fs::create_dir_all(host.file("/var/log/pods")).unwrap();
    fs::create_dir_all(host.file("/var/lib/calico")).unwrap();
    fs::write(host.file("/var/lib/calico/nodename"), "node1\n").unwrap();
    if name == "none" {
        CAPTURED_PODS.iter().for_each(|(ns, pod)| fs::create_dir(host.file(&format!("/var/log/pods/{ns}_{pod}_uid"))).unwrap());
    }
    let asked_before = kube.asked();
    let program = Program::start(host.command(&pod_template(kube)["spec"], none.path()));
    ready(&program);
    let samples = scrape(program.port());
    assert_eq!(one(&samples, "calico_accountant_up", &[]), 1.0, "{name}: {:#?}", program.log());
    assert_eq!(one(&samples, "calico_accountant_lock_held", &[]), 1.0, "{name}");
    assert_eq!(one(&samples, "calico_accountant_workloads", &[("state", "known")]), 9.0, "{name}");
    assert!(one(&samples, "calico_accountant_rules", &[("family", "ipv4")]) > 100.0);
    let app = if name == "none" { "" } else { "web" };
    let labels = [("namespace", "shop"), ("pod", "web-1"), ("node", "node1"), ("app", app)];
    assert_eq!(with(&samples, "calico_accountant_workload_info", &labels).count(), 1, "{name}: {:#?}", program.log());
    assert_eq!(name == "kubernetes", kube.asked() != asked_before, "no other asks the API server: {:?}", kube.asked());
    let status = fs::read_to_string(format!("/proc/{}/status", program.pid().as_raw_nonzero())).unwrap();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    // CAP_NET_ADMIN is bit 12, CAP_NET_RAW bit 13.
    assert_eq!(u64::from_str_radix(capabilities, 16).unwrap(), 3 << 12, "{name}");
}

/// With the whole role, nothing is missing. Without any one verb on any one resource, something is missing, and the log says what. One
/// resource may already be `known`.
fn rights_are_enough_and_cannot_be_reduced(kube: &Kube, table: &str, known: Option<&str>) {
    let (host, fakes) = (Host::new(kube, "node1", &[]), Fakes::tables(&fixture::text(table), ""));
    fs::create_dir_all(host.file("/var/log/pods")).unwrap();
    let start = || {
        let mut command = host.command(&pod_template(kube)["spec"], fakes.path());
        // Not what is in this kernel.
        command.env("SOURCE", "save").env("BACKEND", "nft");
        Program::start(command)
    };
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/calico-accountant";
    let whole = kube.call("GET", role, &Value::Null)["rules"].clone();
    let rights = rights(&whole);
    let program = start();
    // Readiness is not a condition: the datastore may not know the workloads of this table.
    let all_asked = |asked: &BTreeMap<_, _>| rights.iter().all(|(_, resource, verb)| asked.contains_key(&format!("{verb} {resource}")));
    within(Duration::from_secs(30), "all is asked for", || all_asked(&kube.asked()));
    assert_eq!(one(&scrape(program.port()), "calico_accountant_datastore_up", &[]), 1.0, "{:#?}", program.log());
    drop(program);
    for left_out in (0..rights.len()).filter(|&i| known != Some(&rights[i].1)) {
        let others = rights
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != left_out)
            .map(|(_, (group, resource, verb))| json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]}));
        kube.call("PATCH", role, &json!({"rules": others.collect::<Vec<_>>()}));
        let (group, resource, verb) = &rights[left_out];
        within(Duration::from_secs(5), "the right is gone", || !kube.allowed(verb, group, resource));
        let program = start();
        program.await_log(&format!("does not let us {verb} {resource}"));
        assert_eq!(one(&scrape(program.port()), "calico_accountant_datastore_up", &[]), 0.0);
    }
    kube.call("PATCH", role, &json!({"rules": whole}));
}

/// Each single right of a role: group, resource, verb.
fn rights(rules: &Value) -> Vec<(String, String, String)> {
    let texts = |list: &Value| list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let mut rights = Vec::new();
    for rule in rules.as_array().unwrap() {
        for (group, resource) in texts(&rule["apiGroups"]).iter().flat_map(|g| texts(&rule["resources"]).into_iter().map(move |r| (g, r))) {
            rights.extend(texts(&rule["verbs"]).into_iter().map(|verb| (group.clone(), resource.clone(), verb)));
        }
    }
    rights
}

/// Adds the component for the Prometheus operator.
fn with_the_operator(kube: &Kube, name: &str) {
    let folder = kube.file(name);
    let annotations = || pod_template(kube).pointer("/metadata/annotations").cloned();
    assert_eq!(annotations().unwrap()["prometheus.io/port"], "9009");
    with_components(&folder, name, &["podmonitor"]);
    kube.kubectl(&["apply", "-k", folder.to_str().unwrap()]);
    assert_eq!(annotations(), None, "a Prometheus finds it by one of the two ways");
    let monitor = kube.kubectl(&["get", "podmonitors", "-n", "kube-system", "calico-accountant", "-o", "json"]);
    let monitor: Value = serde_json::from_str(&monitor).unwrap();
    let template = pod_template(kube);
    assert_eq!(monitor["spec"]["selector"]["matchLabels"], template["metadata"]["labels"]);
    let port = &template["spec"]["containers"][0]["ports"][0];
    assert_eq!((&monitor["spec"]["podMetricsEndpoints"][0]["port"], &port["containerPort"]), (&port["name"], &json!(9009)));
    kube.kubectl(&["delete", "-k", folder.to_str().unwrap()]);
}

fn pod_template(kube: &Kube) -> Value {
    let daemonset = kube.call("GET", "/apis/apps/v1/namespaces/kube-system/daemonsets/calico-accountant", &Value::Null);
    daemonset["spec"]["template"].clone()
}
