//! The chart's objects, compared with the manifests and with the files from which they are made.

use calico_accountant::config::settings::SETTINGS;
use serde_json::{Value, json};

use crate::program::command;
use crate::support::can_run;
use crate::support::helm::{Helm, IMAGE, chart, complaints};
use crate::support::kube;
use crate::support::kubectl::kustomize;

use super::super::dashboards::dashboards;
use super::super::{path, text};
use super::{VARIANTS, kinds, of_kind, values};

#[test]
fn helm_finds_no_fault_in_any_variant() {
    let Some(helm) = Helm::built("helm lint") else { return };
    for variant in VARIANTS {
        let report = helm.run(&["lint", "--strict", chart().to_str().unwrap(), "-f", values(variant).to_str().unwrap()]);
        assert!(report.contains("1 chart(s) linted, 0 chart(s) failed"), "{variant}: {report}");
    }
}

#[test]
fn the_chart_is_of_the_programs_version() {
    let chart: Value = yaml_serde::from_str(&text("deploy/helm/calico-accountant/Chart.yaml")).unwrap();
    assert_eq!((&chart["version"], &chart["appVersion"]), (&json!(env!("CARGO_PKG_VERSION")), &json!(env!("CARGO_PKG_VERSION"))));
}

/// The part of a pod's specification that must be the same in both ways of deployment.
fn pod(daemonset: &Value) -> Value {
    let mut spec = daemonset["spec"]["template"]["spec"].clone();
    let sort = |list: &mut Value| list.as_array_mut().unwrap().sort_by_key(|item| item["name"].to_string());
    sort(&mut spec["volumes"]);
    let container = &mut spec["containers"][0];
    sort(&mut container["env"]);
    sort(&mut container["volumeMounts"]);
    let container = container.as_object_mut().unwrap();
    container.remove("image");
    // Kubernetes sets this if the chart does not.
    container.remove("imagePullPolicy");
    spec
}

#[test]
fn the_chart_and_the_manifests_say_the_same() {
    let Some(helm) = Helm::built("chart beside manifests") else { return };
    if !can_run("chart beside manifests", kube::built(), "scripts/kubernetes to have been run") {
        return;
    }
    for (variant, datastore) in [("kubernetes", "kubernetes"), ("etcd", "etcdv3"), ("none", "none")] {
        let objects = helm.template(&chart(), &["--set", &format!("datastore.type={datastore}")]);
        let theirs = kustomize(&path(&format!("deploy/kustomize/overlays/{variant}")));
        let theirs: Vec<Value> = theirs.split("\n---\n").map(|document| yaml_serde::from_str(document).unwrap()).collect();
        let ours: Vec<_> = objects.iter().filter(|object| object["kind"] != "Pod").cloned().collect();
        assert_eq!(kinds(&ours), kinds(&theirs), "{variant}: all but the pod of `helm test`");
        let (ours, theirs) = (|kind| of_kind(&objects, kind), |kind| of_kind(&theirs, kind));
        assert_eq!(pod(ours("DaemonSet")), pod(theirs("DaemonSet")), "{variant}");
        for place in ["/spec/updateStrategy", "/spec/template/metadata/annotations"] {
            assert_eq!(ours("DaemonSet").pointer(place), theirs("DaemonSet").pointer(place), "{variant}");
        }
        assert_eq!(ours("ServiceAccount")["automountServiceAccountToken"], theirs("ServiceAccount")["automountServiceAccountToken"]);
        if datastore == "kubernetes" {
            assert_eq!(ours("ClusterRole")["rules"], theirs("ClusterRole")["rules"]);
            for part in ["roleRef", "subjects"] {
                assert_eq!(ours("ClusterRoleBinding")[part], theirs("ClusterRoleBinding")[part]);
            }
        }
    }
}

/// With any values: two capabilities, nothing to write to, a token only if it is used.
#[test]
fn every_variant_has_the_least_rights() {
    let Some(helm) = Helm::built("the chart's rights") else { return };
    for variant in VARIANTS {
        let objects = helm.template(&chart(), &["-f", values(variant).to_str().unwrap()]);
        let spec = &of_kind(&objects, "DaemonSet")["spec"]["template"]["spec"];
        let container = &spec["containers"][0];
        let mut expected = json!({
            "runAsUser": 0, "privileged": false, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}, "seccompProfile": {"type": "RuntimeDefault"},
        });
        if variant == "v3" {
            expected["capabilities"]["add"] = json!(["NET_ADMIN", "NET_RAW", "BPF", "DAC_READ_SEARCH"]);
        }
        if variant == "openshift" {
            expected["seLinuxOptions"] = json!({"type": "spc_t"});
        }
        assert_eq!(container["securityContext"], expected, "{variant}");
        let environment = container["env"].as_array().unwrap();
        let kubernetes = environment.contains(&json!({"name": "DATASTORE_TYPE", "value": "kubernetes"}));
        let token = kubernetes || variant == "proxy";
        assert_eq!(
            (&spec["automountServiceAccountToken"], kinds(&objects).contains_key("ClusterRole")),
            (&json!(token), token),
            "{variant}"
        );
        let volumes = spec["volumes"].as_array().unwrap();
        for volume in volumes.iter().filter(|volume| volume.get("hostPath").is_some()) {
            let mounts = container["volumeMounts"].as_array().unwrap();
            assert!(mounts.iter().any(|mount| mount["name"] == volume["name"] && mount["readOnly"] == true), "{variant}: {volume}");
        }
    }
}

/// Each key replaces the chart's key of the same name, whatever its value.
#[test]
fn the_security_context_can_be_another() {
    let Some(helm) = Helm::built("the chart's securityContext") else { return };
    let set = "seLinuxOptions.type=spc_t,seLinuxOptions.level=s0,securityContext.readOnlyRootFilesystem=false,securityContext.runAsUser=7,\
               securityContext.seccompProfile.type=Unconfined,securityContext.capabilities.add={NET_ADMIN}";
    let objects = helm.template(&chart(), &["--set", set]);
    let found = &of_kind(&objects, "DaemonSet")["spec"]["template"]["spec"]["containers"][0]["securityContext"];
    let expected = json!({
        "runAsUser": 7, "privileged": false, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": false,
        "capabilities": {"add": ["NET_ADMIN"]}, "seccompProfile": {"type": "Unconfined"},
        "seLinuxOptions": {"type": "spc_t", "level": "s0"},
    });
    assert_eq!(found, &expected);
}

/// The constraints allow what the pod asks for. The chart's are the same as the component's.
#[test]
fn security_context_constraints_allow_the_pod_and_no_more() {
    let Some(helm) = Helm::built("the chart's constraints") else { return };
    let objects = helm.template(&chart(), &["--set", "securityContextConstraints.create=true,ebpf.enabled=true"]);
    let strip = |object: &Value| {
        let mut object = object.clone();
        object["metadata"] = json!({"name": object["metadata"]["name"]});
        object
    };
    let ours = strip(of_kind(&objects, "SecurityContextConstraints"));
    let theirs: Value = yaml_serde::from_str(&text("deploy/kustomize/components/openshift/scc.yaml")).unwrap();
    assert_eq!(ours, strip(&theirs));
    let pod = &of_kind(&objects, "DaemonSet")["spec"]["template"]["spec"];
    let asked = &pod["containers"][0]["securityContext"];
    assert_eq!((&ours["allowedCapabilities"], &ours["allowHostNetwork"]), (&asked["capabilities"]["add"], &pod["hostNetwork"]));
    assert_eq!(ours["seLinuxContext"]["seLinuxOptions"], asked["seLinuxOptions"]);
    for volume in pod["volumes"].as_array().unwrap() {
        let kind = volume.as_object().unwrap().keys().find(|key| *key != "name").unwrap();
        assert!(ours["volumes"].as_array().unwrap().contains(&json!(kind)), "{volume}");
    }
    let privileged = "securityContextConstraints.create=true,securityContext.privileged=true,securityContext.allowPrivilegeEscalation=true";
    let objects = helm.template(&chart(), &["--set", privileged]);
    let constraints = of_kind(&objects, "SecurityContextConstraints");
    assert_eq!((&constraints["allowPrivilegedContainer"], &constraints["allowPrivilegeEscalation"]), (&json!(true), &json!(true)));
}

/// Only if eBPF is enabled.
#[test]
fn the_ebpf_dataplane_takes_two_capabilities_and_two_folders() {
    let Some(helm) = Helm::built("the chart for eBPF") else { return };
    let objects = helm.template(&chart(), &["--set", "ebpf.enabled=true"]);
    let container = &of_kind(&objects, "DaemonSet")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["securityContext"]["capabilities"]["add"], json!(["NET_ADMIN", "NET_RAW", "BPF", "DAC_READ_SEARCH"]));
    for mount in [
        json!({"name": "bpffs", "mountPath": "/sys/fs/bpf", "mountPropagation": "HostToContainer", "readOnly": true}),
        json!({"name": "calico-run", "mountPath": "/var/run/calico", "readOnly": true}),
    ] {
        assert!(container["volumeMounts"].as_array().unwrap().contains(&mount), "{mount}");
    }
    let old = helm.template(&chart(), &["--set", "ebpf.enabled=true,ebpf.capability=SYS_ADMIN"]);
    let container = &of_kind(&old, "DaemonSet")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["securityContext"]["capabilities"]["add"], json!(["NET_ADMIN", "NET_RAW", "SYS_ADMIN", "DAC_READ_SEARCH"]));
}

#[test]
fn dashboards_are_the_files() {
    let Some(helm) = Helm::built("the chart's dashboards") else { return };
    let objects = helm.template(&chart(), &["--set", "dashboards.enabled=true"]);
    let maps: Vec<_> = objects.iter().filter(|object| object["kind"] == "ConfigMap").collect();
    assert_eq!(maps.len(), dashboards().len());
    for map in maps {
        assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
        let (name, content) = map["data"].as_object().unwrap().iter().next().unwrap();
        let file = text(&format!("deploy/grafana/{}", name.strip_prefix("calico-accountant-").unwrap()));
        assert_eq!(content.as_str().unwrap(), file.trim());
    }
}

#[test]
fn bad_values_are_refused_by_name() {
    let Some(helm) = Helm::built("the chart's schema") else { return };
    for (set, complaint) in [
        ("datastore.type=etcd", "at '/datastore/type': value must be one of 'etcdv3', 'kubernetes', 'none'"),
        ("datastore.etcd.endpoints=10.0.0.1:2379", "at '/datastore/etcd/endpoints'"),
        ("datastor.type=none", "additional properties 'datastor' not allowed"),
        ("settings.logLevl=info", "at '/settings': additional properties 'logLevl' not allowed"),
        ("settings.logLevel=loud", "at '/settings/logLevel': value must be one of"),
        ("settings.minimumCounter=-1", "at '/settings/minimumCounter': minimum: got -1, want 0"),
        ("settings.sampleInterval=often", "at '/settings/sampleInterval'"),
        ("port=70000", "at '/port': maximum: got 70,000, want 65,535"),
        ("port=metrics", "at '/port': got string, want integer"),
        ("image.digest=latest", "at '/image/digest'"),
        ("nodeName=node-1", "at '/nodeName': value must be one of 'auto', 'spec.nodeName', 'file'"),
        ("tolerations=all", "at '/tolerations': got string, want array"),
        ("networkPolicy.apiVersion=networking.k8s.io/v1", "at '/networkPolicy/apiVersion': value must be one of"),
        (
            "kubeRBACProxy.enabled=true,settings.listenAddress=10.0.0.1",
            "settings.listenAddress: with kubeRBACProxy, the exporter listens at",
        ),
        ("kubeRBACProxy.enabled=true,podMonitor.enabled=true", "podMonitor.endpoint: kubeRBACProxy asks who Prometheus is"),
        ("podMonitor.enabled=true,serviceMonitor.enabled=true", "podMonitor.enabled, serviceMonitor.enabled: one of the two"),
        ("datastore.type=none,podLogs.enabled=false", "podLogs.enabled: without a datastore (datastore.type: none), the pods' log folders"),
    ] {
        let output = helm.try_run(&["template", "x", chart().to_str().unwrap(), IMAGE[0], IMAGE[1], "--set", set]);
        let said = complaints(&output);
        assert!(!output.status.success() && said.contains(complaint), "{set}: {said}");
    }
}

/// Each setting is an environment variable of the program, and the schema knows it.
#[test]
fn the_charts_settings_are_the_programs() {
    let values: Value = yaml_serde::from_str(&text("deploy/helm/calico-accountant/values.yaml")).unwrap();
    let schema: Value = serde_json::from_str(&text("deploy/helm/calico-accountant/values.schema.json")).unwrap();
    for name in values["settings"].as_object().unwrap().keys() {
        let variable: String =
            name.chars().flat_map(|c| [c.is_ascii_uppercase().then_some('_'), Some(c.to_ascii_uppercase())]).flatten().collect();
        assert!(SETTINGS.iter().any(|setting| setting.name == variable), "{variable}");
        assert!(schema["properties"]["settings"]["properties"][name].is_object(), "{name}");
    }
}

/// The program accepts what the schema accepts: the choices are the same.
#[test]
fn the_schemas_choices_are_the_programs() {
    let schema: Value = serde_json::from_str(&text("deploy/helm/calico-accountant/values.schema.json")).unwrap();
    let settings = &schema["properties"]["settings"]["properties"];
    for (variable, choice) in [
        ("METRIC_NAMES", &settings["metricNames"]),
        ("ZERO_SERIES", &settings["zeroSeries"]),
        ("BACKEND", &settings["backend"]),
        ("SOURCE", &settings["source"]),
        ("WITNESSES", &settings["witnesses"]),
        ("LOG_LEVEL", &settings["logLevel"]),
        ("LOG_FORMAT", &settings["logFormat"]),
        ("DATASTORE_TYPE", &schema["properties"]["datastore"]["properties"]["type"]),
    ] {
        let output = command().env(variable, "nonsense").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let ours = choice["enum"].as_array().unwrap().iter().filter_map(Value::as_str).filter(|choice| !choice.is_empty());
        assert_eq!(said.rsplit_once("one of ").map(|(_, theirs)| theirs), Some(ours.collect::<Vec<_>>().join(", ").as_str()), "{said}");
    }
}

/// The package holds the files that the folder only links to.
#[test]
fn the_packaged_chart_is_whole() {
    let Some(helm) = Helm::built("the packaged chart") else { return };
    helm.run(&["package", chart().to_str().unwrap(), "--destination", helm.file("").to_str().unwrap()]);
    let package = helm.file(&format!("calico-accountant-{}.tgz", env!("CARGO_PKG_VERSION")));
    let monitoring = values("monitoring");
    let args = ["-f", monitoring.to_str().unwrap()];
    assert_eq!(helm.template(&package, &args), helm.template(&chart(), &args));
}
