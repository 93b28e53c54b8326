//! The chart installed, upgraded and uninstalled on a real API server.

use serde_json::Value;

use crate::support::helm::{Helm, chart};
use crate::support::kube::Kube;

use super::{VARIANTS, values};

const DAEMONSETS: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets";

/// One release after another, each changed into the next.
#[test]
fn a_real_api_server_takes_every_variant() {
    let Some(helm) = Helm::built("the chart on a real API server") else { return };
    let Some(kube) = Kube::start() else { return };
    for kind in ["PodMonitor", "PrometheusRule"] {
        kube.define("monitoring.coreos.com", "v1", kind, true);
    }
    kube.define("crd.projectcalico.org", "v1", "GlobalNetworkPolicy", false);
    for variant in VARIANTS {
        let (chart, values) = (chart(), values(variant));
        let command = ["upgrade", "--install", "calico-accountant", chart.to_str().unwrap(), "-f", values.to_str().unwrap()];
        let said = helm.on(&kube, &command);
        assert!(said.contains("STATUS: deployed") && said.contains("rollout status daemonset/"), "{variant}: {said}");
        check_rights(&kube, variant);
    }
    assert_eq!(kube.call("GET", DAEMONSETS, &Value::Null)["items"].as_array().unwrap().len(), 1, "the last variant has another name");
    kube.kubectl(&["get", "globalnetworkpolicies.crd.projectcalico.org", "default.drops"]);
    helm.on(&kube, &["uninstall", "calico-accountant"]);
    let left = kube.kubectl(&["get", "daemonsets,serviceaccounts,configmaps,podmonitors,prometheusrules", "-A", "-o", "name"]);
    assert!(!left.contains("calico-accountant") && !left.contains("drops"), "{left}");
    assert!(kube.gone("/apis/rbac.authorization.k8s.io/v1/clusterroles/calico-accountant"));
    assert!(kube.gone("/apis/crd.projectcalico.org/v1/globalnetworkpolicies/default.drops"));
}

/// What the account may do, as the API server sees it.
fn check_rights(kube: &Kube, variant: &str) {
    let may = |verb: &str, resource: &str| {
        let account = "system:serviceaccount:kube-system:calico-accountant";
        let output = kube.try_kubectl(&["auth", "can-i", verb, resource, "--as", account, "-n", "shop"]);
        String::from_utf8_lossy(&output.stdout).trim() == "yes"
    };
    let rights = [may("watch", "pods"), may("watch", "networkpolicies.networking.k8s.io"), may("get", "secrets"), may("delete", "pods")];
    let expected = match variant {
        "kubernetes" => [true, true, false, false],
        "monitoring" => [true, false, false, false],
        _ => [false; 4],
    };
    assert_eq!(rights, expected, "{variant}");
}
