//! The chart installed, upgraded and uninstalled on a real API server.

use serde_json::Value;

use crate::support::helm::{Helm, chart};
use crate::support::kube::Kube;

use super::{VARIANTS, values};

/// One release after another, each changed into the next, in two namespaces.
#[test]
fn a_real_api_server_takes_every_variant() {
    let Some(helm) = Helm::built("the chart on a real API server") else { return };
    let Some(kube) = Kube::start() else { return };
    for kind in ["PodMonitor", "PrometheusRule"] {
        kube.define("monitoring.coreos.com", "v1", kind, true);
    }
    kube.define("crd.projectcalico.org", "v1", "GlobalNetworkPolicy", false);
    kube.define("security.openshift.io", "v1", "SecurityContextConstraints", false);
    kube.namespace("observability");
    for namespace in ["kube-system", "observability"] {
        for variant in VARIANTS {
            let said = install(&helm, &kube, namespace, &["-f", values(variant).to_str().unwrap()]);
            assert!(said.contains("STATUS: deployed") && said.contains("rollout status daemonset/"), "{variant}: {said}");
            check_rights(&kube, namespace, variant);
        }
        let daemonsets = format!("/apis/apps/v1/namespaces/{namespace}/daemonsets");
        assert_eq!(kube.call("GET", &daemonsets, &Value::Null)["items"].as_array().unwrap().len(), 1, "the last variant has another name");
        kube.kubectl(&["get", "globalnetworkpolicies.crd.projectcalico.org", "default.drops"]);
        helm.on(&kube, namespace, &["uninstall", "calico-accountant"]);
        let left = kube.kubectl(&["get", "daemonsets,serviceaccounts,configmaps,podmonitors,prometheusrules,roles", "-A", "-o", "name"]);
        assert!(!left.contains("calico-accountant") && !left.contains("drops"), "{left}");
        assert!(kube.gone("/apis/rbac.authorization.k8s.io/v1/clusterroles/calico-accountant"));
        assert!(kube.gone("/apis/crd.projectcalico.org/v1/globalnetworkpolicies/default.drops"));
        assert!(kube.gone("/apis/security.openshift.io/v1/securitycontextconstraints/calico-accountant"));
    }
}

fn install(helm: &Helm, kube: &Kube, namespace: &str, args: &[&str]) -> String {
    helm.on(kube, namespace, &[&["upgrade", "--install", "calico-accountant", chart().to_str().unwrap()], args].concat())
}

/// The notes say so where the namespace's Pod Security Standard refuses the pods, and what they say to do helps.
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
        let output = helm.try_on(&kube, "observability", &["upgrade", "calico-accountant", chart().to_str().unwrap()]);
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

/// What the account may do, as the API server sees it; that of another namespace may nothing.
fn check_rights(kube: &Kube, namespace: &str, variant: &str) {
    let constraints = "securitycontextconstraints.security.openshift.io/calico-accountant";
    let asked =
        [("watch", "pods"), ("watch", "networkpolicies.networking.k8s.io"), ("use", constraints), ("get", "secrets"), ("delete", "pods")];
    let rights = |namespace: &str| asked.map(|(verb, what)| kube.account_may(namespace, verb, what));
    let expected = match variant {
        "kubernetes" => [true, true, false, false, false],
        "monitoring" => [true, false, false, false, false],
        "openshift" => [true, false, true, false, false],
        _ => [false; 5],
    };
    assert_eq!(rights(namespace), expected, "{variant}");
    let other = if namespace == "kube-system" { "observability" } else { "kube-system" };
    assert_eq!(rights(other), [false; 5], "{variant}");
}
