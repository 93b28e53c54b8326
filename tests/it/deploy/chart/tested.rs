//! `helm test`: its pod runs as its manifest says, on a node without Calico's rules, and on one with rules and an exporter.

use std::fs;
use std::process::Output;

use serde_json::{Value, json};

use crate::kernel;
use crate::kubernetes::{captured_pods, ready};
use crate::program::{Program, await_some};
use crate::support::container::Host;
use crate::support::fakes::Fakes;
use crate::support::helm::{Helm, IMAGE, chart};
use crate::support::kube::Kube;
use crate::support::netns::Namespace;

const POD: &str = "/api/v1/namespaces/kube-system/pods/calico-accountant-check";
const DAEMONSET: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets/calico-accountant";

#[test]
fn helm_test_says_whether_a_node_has_what_it_needs() {
    let Some(helm) = Helm::built("`helm test` of the chart") else { return };
    let Some(namespace) = Namespace::new("`helm test` of the chart") else { return };
    namespace.run(|| {
        let Some(kube) = Kube::start() else { return };
        captured_pods(&kube);
        let host = Host::new(&kube, "node1", &[]);
        fs::create_dir_all(host.file("/var/log/pods")).unwrap();
        helm.on(&kube, "kube-system", &["install", "calico-accountant", chart().to_str().unwrap(), IMAGE[0], IMAGE[1]]);

        let (test, check) = tested(&helm, &kube, &host);
        let said = String::from_utf8_lossy(&test.stderr);
        assert!(!test.status.success() && said.contains("pod calico-accountant-check failed"), "{said}");
        assert!(check.contains("wrong") && check.contains("none answers at http://127.0.0.1:9009"), "{check}");

        kernel::load("legacy", &kernel::filter_table("v3.32.1-legacy"));
        let none = Fakes::new();
        let exporter = Program::start(host.command(&kube.call("GET", DAEMONSET, &Value::Null)["spec"]["template"]["spec"], none.path()));
        ready(&exporter);
        let (test, check) = tested(&helm, &kube, &host);
        let said = String::from_utf8_lossy(&test.stdout);
        assert!(test.status.success() && said.contains("Phase:          Succeeded"), "{said}{check}");
        assert!(!check.contains("wrong") && check.contains("one answers at http://127.0.0.1:9009"), "{check}");
        assert!(kube.gone(POD), "it is left where it failed, to be looked at");
    });
}

/// The output of `helm test` and of its pod. This function does the kubelet's part.
fn tested(helm: &Helm, kube: &Kube, host: &Host) -> (Output, String) {
    std::thread::scope(|scope| {
        let test = scope.spawn(|| helm.try_on(kube, "kube-system", &["test", "calico-accountant", "--timeout", "60s"]));
        let pod = || -> Option<Value> {
            let (status, text) = kube.try_call("GET", POD, None).ok()?;
            serde_json::from_str(&text).ok().filter(|pod: &Value| status == 200 && pod["status"]["phase"] == "Pending")
        };
        let pod = await_some(pod, || "the test's pod".into());
        let none = Fakes::new();
        let output = host.command(&pod["spec"], none.path()).output().unwrap();
        let phase = if output.status.success() { "Succeeded" } else { "Failed" };
        kube.call("PATCH", &format!("{POD}/status"), &json!({"status": {"phase": phase}}));
        let check = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (test.join().unwrap(), check)
    })
}
