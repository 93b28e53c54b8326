//! The effect of each value on the objects that it is for.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::helm::{Helm, chart, complaints};

use super::super::text;
use super::{of_kind, values};

/// The chart has no default for the image's registry.
#[test]
fn no_registry_is_assumed() {
    let Some(helm) = Helm::built("the chart's image") else { return };
    for set in ["port=9009", "image.repository=team/calico-accountant"] {
        let output = helm.try_run(&["template", "x", chart().to_str().unwrap(), "--set", set]);
        let said = complaints(&output);
        assert!(
            !output.status.success() && said.contains("image.registry: say where the image is, for none is published"),
            "{set}: {said}"
        );
    }
    let version = env!("CARGO_PKG_VERSION");
    for (set, expected) in [
        ("image.registry=localhost", format!("localhost/calico-accountant:{version}")),
        ("image.registry=reg:5000/team,image.tag=v7", "reg:5000/team/calico-accountant:v7".into()),
        ("image.registry=,image.repository=reg.example/x/accountant", format!("reg.example/x/accountant:{version}")),
        ("image.registry=a,global.imageRegistry=mirror.example", format!("mirror.example/calico-accountant:{version}")),
    ] {
        let objects = helm.template(&chart(), &["--set", set]);
        let image = |kind| {
            of_kind(&objects, kind).pointer(if kind == "Pod" { "/spec" } else { "/spec/template/spec" }).unwrap()["containers"][0]["image"]
                .clone()
        };
        assert_eq!((image("DaemonSet"), image("Pod")), (json!(expected), json!(expected)), "{set}");
    }
    let proxy = helm.template(&chart(), &["--set", "kubeRBACProxy.enabled=true,global.imageRegistry=mirror.example"]);
    let image = &of_kind(&proxy, "DaemonSet")["spec"]["template"]["spec"]["containers"][1]["image"];
    assert!(image.as_str().unwrap().starts_with("mirror.example/brancz/kube-rbac-proxy:v"), "{image}");
    // Nor do the manifests.
    for file in
        ["deploy/kustomize/base/daemonset.yaml", "demo/daemonset-kubernetes.yaml", "demo/daemonset-etcd.yaml", "demo/daemonset-none.yaml"]
    {
        assert!(text(file).contains("image: registry.invalid/calico-accountant:"), "{file}");
    }
}

#[test]
fn all_objects_follow_into_another_namespace() {
    let Some(helm) = Helm::built("the chart's namespaceOverride") else { return };
    let set = "namespaceOverride=elsewhere,prometheusRule.enabled=true,podMonitor.enabled=true,dashboards.enabled=true,service.enabled=true,\
               securityContextConstraints.create=true";
    let objects = helm.template(&chart(), &["--set", set]);
    for object in &objects {
        assert!(!object.to_string().contains(r#""namespace":"kube-system""#), "{object}");
    }
    assert_eq!(objects.iter().filter(|object| object["metadata"]["namespace"] == "elsewhere").count(), objects.len() - 3);
    // The objects for Prometheus and Grafana may be in other namespaces than the exporter.
    let set = "prometheusRule.enabled=true,prometheusRule.namespace=rules,podMonitor.enabled=true,podMonitor.namespace=monitors";
    let objects = helm.template(&chart(), &["--set", set]);
    let place = |kind| of_kind(&objects, kind)["metadata"]["namespace"].clone();
    assert_eq!(
        (place("PrometheusRule"), place("PodMonitor"), place("DaemonSet")),
        (json!("rules"), json!("monitors"), json!("kube-system"))
    );
    assert_eq!(of_kind(&objects, "PodMonitor")["spec"]["namespaceSelector"], json!({"matchNames": ["kube-system"]}));
}

#[test]
fn the_pod_monitor_is_that_of_the_manifests() {
    let Some(helm) = Helm::built("the chart's PodMonitor") else { return };
    let objects = helm.template(&chart(), &["--set", "podMonitor.enabled=true"]);
    let theirs: Value = yaml_serde::from_str(&text("deploy/kustomize/components/podmonitor/podmonitor.yaml")).unwrap();
    assert_eq!(of_kind(&objects, "PodMonitor")["spec"]["podMetricsEndpoints"], theirs["spec"]["podMetricsEndpoints"]);
    let template = &of_kind(&objects, "DaemonSet")["spec"]["template"];
    assert_eq!(template["metadata"].get("annotations"), None, "a Prometheus finds it by one of the two ways");
    let selector = of_kind(&objects, "PodMonitor")["spec"]["selector"]["matchLabels"].clone();
    assert_eq!(selector, template["metadata"]["labels"]);
}

#[test]
fn a_monitor_says_what_prometheus_does() {
    let Some(helm) = Helm::built("the chart's monitors") else { return };
    let objects = helm.template(&chart(), &["-f", values("monitoring").to_str().unwrap()]);
    let spec = &of_kind(&objects, "PodMonitor")["spec"];
    let endpoint = &spec["podMetricsEndpoints"][0];
    assert_eq!((&spec["sampleLimit"], &spec["attachMetadata"]), (&json!(50000), &json!({"node": true})));
    assert_eq!((&endpoint["interval"], &endpoint["scrapeTimeout"], &endpoint["honorLabels"]), (&json!("30s"), &json!("10s"), &json!(true)));
    let targets: Vec<_> = endpoint["relabelings"].as_array().unwrap().iter().map(|relabeling| &relabeling["targetLabel"]).collect();
    assert_eq!(targets, ["node", "zone"], "the chart's own, then the user's");
    assert_eq!(endpoint["metricRelabelings"][0]["action"], "drop");
}

/// The exporter behind the proxy can only be reached through it. The ServiceMonitor scrapes the proxy.
#[test]
fn the_proxy_stands_before_the_exporter() {
    let Some(helm) = Helm::built("the chart's kube-rbac-proxy") else { return };
    let objects = helm.template(&chart(), &["-f", values("proxy").to_str().unwrap()]);
    let pod = &of_kind(&objects, "DaemonSet")["spec"]["template"]["spec"];
    let [exporter, proxy] = [&pod["containers"][0], &pod["containers"][1]];
    let environment = exporter["env"].as_array().unwrap();
    assert!(environment.contains(&json!({"name": "LISTEN_ADDRESS", "value": "127.0.0.1"})), "{environment:?}");
    assert_eq!((exporter.get("ports"), &proxy["ports"]), (None, &json!([{"name": "metrics", "containerPort": 9009}])));
    assert_eq!(exporter["readinessProbe"]["httpGet"], json!({"path": "/readyz", "port": 9009, "host": "127.0.0.1"}));
    let args: Vec<_> = proxy["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
    for arg in [
        "--secure-listen-address=[$(HOST_IP)]:9009",
        "--upstream=http://127.0.0.1:9009/",
        "--allow-paths=/metrics",
        "--client-ca-file=/tls/ca.crt",
        "--v=2",
    ] {
        assert!(args.contains(&arg), "{args:?}");
    }
    let rules = of_kind(&objects, "ClusterRole")["rules"].to_string();
    assert!(rules.contains("tokenreviews") && rules.contains("subjectaccessreviews") && !rules.contains("pods"), "{rules}");
    let monitor = of_kind(&objects, "ServiceMonitor");
    let endpoint = &monitor["spec"]["endpoints"][0];
    let tls = json!({"insecureSkipVerify": false, "serverName": "exporter", "ca": {"secret": {"name": "exporter-tls", "key": "ca.crt"}}});
    assert_eq!((&endpoint["scheme"], &endpoint["tlsConfig"]), (&json!("https"), &tls));
    assert_eq!((&monitor["spec"]["labelLimit"], &monitor["spec"]["targetLabels"]), (&json!(40), &json!(["team"])));
    let service = of_kind(&objects, "Service");
    assert_eq!((&service["spec"]["clusterIP"], &service["spec"]["ipFamilyPolicy"]), (&json!("None"), &json!("PreferDualStack")));
    assert_eq!(monitor["spec"]["selector"]["matchLabels"], service["spec"]["selector"]);
}

/// The DaemonSet must not select the pod of `helm test`, and that pod must not use the exporter's port.
#[test]
fn the_tests_pod_is_no_exporter() {
    let Some(helm) = Helm::built("the chart's `helm test`") else { return };
    let objects = helm.template(&chart(), &[]);
    let (daemonset, pod) = (of_kind(&objects, "DaemonSet"), of_kind(&objects, "Pod"));
    let selector = daemonset["spec"]["selector"]["matchLabels"].as_object().unwrap();
    assert!(selector.iter().any(|(label, value)| &pod["metadata"]["labels"][label] != value), "{pod}");
    let mut expected = daemonset["spec"]["template"]["spec"].clone();
    expected["restartPolicy"] = "Never".into();
    expected["containers"][0]["args"] = json!(["check"]);
    for field in ["ports", "livenessProbe", "readinessProbe"] {
        expected["containers"][0].as_object_mut().unwrap().remove(field).unwrap();
    }
    assert_eq!(pod["spec"], expected);
}

#[test]
fn every_value_has_its_effect() {
    let Some(helm) = Helm::built("the chart's values") else { return };
    let objects = helm.template(&chart(), &["-f", values("everything").to_str().unwrap()]);
    let daemonset = of_kind(&objects, "DaemonSet");
    on_the_container(&daemonset["spec"]["template"]["spec"]["containers"][0]);
    on_the_pod(daemonset);
    on_other_objects(&objects);
}

fn on_the_container(container: &Value) {
    assert_eq!(container["image"], json!(format!("registry.example/calico-accountant@sha256:{}", "0123456789abcdef".repeat(4))));
    assert_eq!(container["imagePullPolicy"], "Always");
    assert_eq!((&container["args"], &container["resources"]["limits"]["cpu"]), (&json!(["--log-format=logfmt"]), &json!("1")));
    let environment: BTreeMap<_, _> = container["env"].as_array().unwrap().iter().map(|set| (set["name"].as_str().unwrap(), set)).collect();
    for (variable, value) in [
        ("DATASTORE_TYPE", "etcdv3"),
        ("ETCD_ENDPOINTS", "https://10.0.0.1:2379,https://10.0.0.2:2379"),
        ("ETCD_CA_CERT_FILE", "/calico-secrets/etcd-ca"),
        ("ETCD_CERT_FILE", "/calico-secrets/etcd-cert"),
        ("ETCD_KEY_FILE", "/calico-secrets/etcd-key"),
        ("ETCD_USERNAME", "reader"),
        ("LISTEN_ADDRESS", "127.0.0.1"),
        ("ALLOWED_HOSTS", "accountant.example.org,other.example.org"),
        ("GRAFANA_URL", "https://grafana.example.org"),
        ("METRICS_SERVER_PORT", "9010"),
        ("MINIMUM_COUNTER", "3000000"),
        ("METRIC_NAMES", "all"),
        ("ZERO_SERIES", "omit"),
        ("METRIC_FAMILIES", "-policy_info,-workload_info"),
        ("BACKEND", "nft"),
        ("SOURCE", "kernel"),
        ("XTABLES_LOCK_WAIT", "5s"),
        ("SAMPLE_INTERVAL", "10s"),
        ("WITNESSES", "drops"),
        ("WITNESS_RATE", "2000"),
        ("WITNESS_LOG", "true"),
        ("LOG_LEVEL", "debug"),
        ("LOG_FORMAT", "json"),
    ] {
        assert_eq!(environment[variable]["value"], value, "{variable}");
    }
    assert_eq!(environment["NODENAME"]["valueFrom"]["fieldRef"]["fieldPath"], "spec.nodeName");
    assert_eq!(container["ports"], json!([{"name": "metrics", "containerPort": 9010}]));
    // The kubelet's probes go to the port on which the program listens.
    assert_eq!(container["livenessProbe"]["httpGet"], json!({"path": "/healthz", "port": "metrics", "host": "127.0.0.1"}));
    let probes = ["livenessProbe/periodSeconds", "readinessProbe/failureThreshold", "startupProbe/failureThreshold"];
    assert_eq!(probes.map(|field| container.pointer(&format!("/{field}")).and_then(Value::as_u64)), [Some(30), Some(5), Some(30)]);
    let mounts: Vec<_> = container["volumeMounts"].as_array().unwrap().iter().map(|mount| mount["mountPath"].as_str().unwrap()).collect();
    assert_eq!(mounts, ["/run/xtables.lock", "/calico-secrets", "/more"]);
}

fn on_the_pod(daemonset: &Value) {
    let template = &daemonset["spec"]["template"];
    let spec = &template["spec"];
    assert_eq!(daemonset["metadata"]["name"], "drops");
    let labels = json!({"app.kubernetes.io/name": "accountant", "app.kubernetes.io/instance": "calico-accountant", "c": "calico-accountant",
        "team": "calico-accountant-team"});
    assert_eq!(template["metadata"], json!({"annotations": {"a": "b"}, "labels": labels}));
    for (field, value) in [
        ("serviceAccountName", json!("own")),
        ("imagePullSecrets", json!([{"name": "mirror"}, {"name": "registry"}])),
        ("priorityClassName", json!("system-node-critical")),
        ("terminationGracePeriodSeconds", json!(5)),
        ("dnsPolicy", json!("None")),
        ("dnsConfig", json!({"nameservers": ["10.0.0.10"]})),
        ("initContainers", json!([{"name": "first", "image": "registry.example/first:1"}])),
    ] {
        assert_eq!(spec[field], value, "{field}");
    }
    assert_eq!(spec["containers"][1]["name"], "beside");
    assert_eq!(
        (&daemonset["spec"]["revisionHistoryLimit"], &daemonset["spec"]["updateStrategy"]),
        (&json!(3), &json!({"type": "OnDelete"}))
    );
    assert_eq!(daemonset["metadata"]["annotations"], json!({"contact": "network", "owner": "network"}));
    let terms = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
    assert_eq!(terms, &json!([{"matchExpressions": [{"key": "x", "operator": "Exists"}]}]), "in place of the chart's");
}

fn on_other_objects(objects: &[Value]) {
    let service = &of_kind(objects, "Service")["spec"];
    assert_eq!((&service["type"], &service["ports"][0]["port"], service.get("clusterIP")), (&json!("NodePort"), &json!(80), None));
    let more: Vec<_> = objects.iter().filter(|object| object["kind"] == "ConfigMap").map(|map| &map["metadata"]["name"]).collect();
    assert_eq!(more, ["drops-more", "drops-text"]);
    for object in objects.iter().filter(|object| object["kind"] != "ConfigMap") {
        let common = (&object["metadata"]["labels"]["team"], &object["metadata"]["annotations"]["contact"]);
        assert_eq!(common, (&json!("calico-accountant-team"), &json!("network")), "{object}");
    }
    let policy = of_kind(objects, "GlobalNetworkPolicy");
    assert_eq!((&policy["apiVersion"], &policy["metadata"]["name"]), (&json!("crd.projectcalico.org/v1"), &json!("default.drops")));
    assert_eq!(policy["spec"]["ingress"][0]["source"], json!({"nets": ["10.1.0.0/16"]}));
    assert_eq!(policy["spec"]["ingress"][1]["action"], "Deny");
    // Before DNAT, only ports that a rule names are denied. The node's other ports are left as they are.
    assert_eq!((&policy["spec"]["preDNAT"], &policy["spec"]["ingress"][1]["destination"]["ports"]), (&json!(true), &json!([9010])));
}
