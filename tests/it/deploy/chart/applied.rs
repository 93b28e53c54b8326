//! The chart installed, upgraded, rolled back and uninstalled on a real API server.

use std::fs;

use serde_json::Value;

use crate::support::helm::{Helm, IMAGE, chart};
use crate::support::kube::Kube;

use super::{VARIANTS, values};

/// Installs one variant and upgrades it to each of the others in turn, in two namespaces.
#[test]
fn a_real_api_server_takes_every_variant() {
    let Some(helm) = Helm::built("the chart on a real API server") else { return };
    let Some(kube) = Kube::start() else { return };
    define(&kube);
    kube.namespace("observability");
    VARIANTS.iter().for_each(|variant| dry_run(&helm, &kube, "observability", variant, false));
    for namespace in ["kube-system", "observability"] {
        for variant in VARIANTS {
            let said = install(&helm, &kube, namespace, &["-f", values(variant).to_str().unwrap()]);
            assert!(said.contains("STATUS: deployed") && said.contains("rollout status daemonset/"), "{variant}: {said}");
            dry_run(&helm, &kube, namespace, variant, true);
            check_rights(&kube, namespace, variant);
        }
        let daemonsets = format!("/apis/apps/v1/namespaces/{namespace}/daemonsets");
        assert_eq!(kube.call("GET", &daemonsets, &Value::Null)["items"].as_array().unwrap().len(), 1, "the last variant has another name");
        kube.kubectl(&["get", "globalnetworkpolicies.crd.projectcalico.org", "default.drops"]);
        helm.on(&kube, namespace, &["uninstall", "calico-accountant"]);
        let kinds = "daemonsets,serviceaccounts,services,configmaps,podmonitors,servicemonitors,prometheusrules,roles";
        let left = kube.kubectl(&["get", kinds, "-A", "-o", "name"]);
        assert!(!left.contains("calico-accountant") && !left.contains("drops"), "{left}");
        assert!(kube.gone("/apis/rbac.authorization.k8s.io/v1/clusterroles/calico-accountant"));
        assert!(kube.gone("/apis/crd.projectcalico.org/v1/globalnetworkpolicies/default.drops"));
        assert!(kube.gone("/apis/security.openshift.io/v1/securitycontextconstraints/calico-accountant"));
    }
}

/// Defines the kinds of which the chart has objects or to which it grants rights, except Kubernetes' own.
fn define(kube: &Kube) {
    for kind in ["PodMonitor", "ServiceMonitor", "PrometheusRule"] {
        kube.define("monitoring.coreos.com", "v1", kind, true);
    }
    kube.define("crd.projectcalico.org", "v1", "GlobalNetworkPolicy", false);
    kube.define("crd.projectcalico.org", "v1", "NetworkPolicy", true);
    kube.define("projectcalico.org", "v3", "NetworkPolicy", true);
    kube.define("security.openshift.io", "v1", "SecurityContextConstraints", false);
}

/// The server accepts each object without a warning and without an unknown field. The pod of `helm test` needs its account first.
fn dry_run(helm: &Helm, kube: &Kube, namespace: &str, variant: &str, installed: bool) {
    let (values, file) = (values(variant), helm.file("objects.yaml"));
    let which: &[&str] = if installed { &["--show-only", "templates/tests/check.yaml"] } else { &["--no-hooks"] };
    let args =
        ["template", "calico-accountant", chart().to_str().unwrap(), "-n", namespace, "-f", values.to_str().unwrap()].map(str::to_owned);
    let args: Vec<&str> = args.iter().map(String::as_str).chain(which.iter().copied()).collect();
    fs::write(&file, helm.run(&args)).unwrap();
    let said = kube.kubectl(&["apply", "--dry-run=server", "--validate=strict", "-f", file.to_str().unwrap()]);
    assert!(said.lines().count() > 0 && said.lines().all(|line| line.ends_with("(server dry run)")), "{variant}: {said}");
}

fn install(helm: &Helm, kube: &Kube, namespace: &str, args: &[&str]) -> String {
    helm.on(kube, namespace, &[&["upgrade", "--install", "calico-accountant", chart().to_str().unwrap()], &IMAGE[..], args].concat())
}

/// Upgrades to other values, even to another name, and rolls back. Everything is as before, and nothing of the upgrade remains.
#[test]
fn an_upgrade_can_be_rolled_back() {
    let Some(helm) = Helm::built("upgrade and rollback of the chart") else { return };
    let Some(kube) = Kube::start() else { return };
    define(&kube);
    let kinds =
        "daemonsets,serviceaccounts,services,configmaps,podmonitors,servicemonitors,prometheusrules,clusterroles,clusterrolebindings";
    // The objects, without the fields that each write changes.
    let objects = || {
        let selector = "app.kubernetes.io/instance=calico-accountant";
        let list = kube.kubectl(&["get", kinds, "-A", "-l", selector, "-o", "json"]);
        let mut list = serde_json::from_str::<Value>(&list).unwrap()["items"].take();
        for object in list.as_array_mut().unwrap() {
            for field in ["resourceVersion", "generation", "uid", "creationTimestamp", "managedFields"] {
                object["metadata"].as_object_mut().unwrap().remove(field);
            }
            if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
                annotations.remove("deprecated.daemonset.template.generation");
            }
        }
        list
    };
    install(&helm, &kube, "kube-system", &["-f", values("monitoring").to_str().unwrap()]);
    let before = objects();
    assert_eq!(before.as_array().unwrap().len(), 10, "{before}");
    for variant in ["proxy", "everything"] {
        install(&helm, &kube, "kube-system", &["-f", values(variant).to_str().unwrap()]);
        assert_ne!(objects(), before, "{variant}");
        let said = helm.on(&kube, "kube-system", &["rollback", "calico-accountant", "1"]);
        assert!(said.contains("Rollback was a success"), "{said}");
        let after = objects();
        for (before, after) in before.as_array().unwrap().iter().zip(after.as_array().unwrap()) {
            assert_eq!(before, after, "{variant}");
        }
        assert_eq!(before, after, "{variant}");
    }
    // A refused upgrade changes nothing.
    let output = helm.try_on(&kube, "kube-system", &["upgrade", "calico-accountant", chart().to_str().unwrap(), "--set", "port=0"]);
    assert!(!output.status.success());
    assert_eq!(objects(), before);
}

/// The notes say if the namespace's Pod Security Standard refuses the pods, and the remedy that they name works.
#[test]
fn the_notes_know_the_namespaces_pod_security_standard() {
    let Some(helm) = Helm::built("the chart and Pod Security Standards") else { return };
    let Some(kube) = Kube::start() else { return };
    kube.namespace("observability");
    let admitted = |name: &str| {
        let daemonset = "/apis/apps/v1/namespaces/observability/daemonsets/calico-accountant";
        let mut pod = kube.call("GET", daemonset, &Value::Null)["spec"]["template"].take();
        pod["metadata"]["name"] = name.into();
        kube.try_call("POST", "/api/v1/namespaces/observability/pods", Some(&pod)).unwrap()
    };
    let label = |standard: &str| {
        let set = format!("pod-security.kubernetes.io/enforce={standard}");
        kube.kubectl(&["label", "--overwrite", "namespace", "observability", &set]);
    };
    const ADVICE: &str = "kubectl label --overwrite namespace observability pod-security.kubernetes.io/enforce=privileged";
    assert!(!install(&helm, &kube, "observability", &[]).contains("Pod Security"));
    for standard in ["baseline", "restricted"] {
        label(standard);
        let output = helm.try_on(&kube, "observability", &["upgrade", "calico-accountant", chart().to_str().unwrap(), IMAGE[0], IMAGE[1]]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(&format!("enforces the Pod Security Standard \"{standard}\"")) && said.contains(ADVICE), "{said}");
        let (status, refusal) = admitted("refused");
        assert!(status == 403 && refusal.contains("violates PodSecurity"), "{refusal}");
    }
    kube.kubectl(&ADVICE.split(' ').skip(1).collect::<Vec<_>>());
    let (status, answer) = admitted("admitted");
    assert_eq!(status, 201, "{answer}");
    assert!(!install(&helm, &kube, "observability", &[]).contains("Pod Security"));
}

/// Checks the account's rights as the API server sees them. The account of the same name in another namespace has none.
fn check_rights(kube: &Kube, namespace: &str, variant: &str) {
    let constraints = "securitycontextconstraints.security.openshift.io/calico-accountant";
    let asked = [
        ("watch", "pods"),
        ("watch", "networkpolicies.networking.k8s.io"),
        ("list", "networkpolicies.crd.projectcalico.org"),
        ("list", "networkpolicies.projectcalico.org"),
        ("use", constraints),
        ("create", "subjectaccessreviews.authorization.k8s.io"),
        ("get", "secrets"),
        ("delete", "pods"),
    ];
    let rights = |namespace: &str| -> Vec<&str> {
        asked.iter().filter(|(verb, what)| kube.account_may(namespace, verb, what)).map(|(_, what)| *what).collect()
    };
    let expected: &[&str] = match variant {
        "kubernetes" => &["pods", "networkpolicies.networking.k8s.io", "networkpolicies.crd.projectcalico.org"],
        "v3" => &["pods", "networkpolicies.networking.k8s.io", "networkpolicies.projectcalico.org"],
        "monitoring" => &["pods"],
        "openshift" => &["pods", constraints],
        "proxy" => &["subjectaccessreviews.authorization.k8s.io"],
        _ => &[],
    };
    assert_eq!(rights(namespace), expected, "{variant}");
    let other = if namespace == "kube-system" { "observability" } else { "kube-system" };
    assert_eq!(rights(other), [""; 0], "{variant}");
}
