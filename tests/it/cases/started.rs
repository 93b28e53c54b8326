//! Cases of the program's surroundings: its environment, its manifests, the datastore.

use serde_json::json;

use super::live::load;
use super::{Case, Said};
use crate::http;
use crate::program::Program;
use crate::support::etcd::Etcd;
use crate::support::kube;
use crate::support::kubectl::kustomize;
use crate::support::netns::Namespace;
use crate::support::scrape::scrape;
use crate::support::{can_run, fixture};

/// An etcd with the workload endpoint of pod shop/web-1 on a node.
pub fn etcd_with(node: &str) -> Option<Etcd> {
    let etcd = Etcd::plain()?;
    let name = format!("{}-k8s-web--1-eth0", node.replace('-', "--"));
    let endpoint = json!({
        "kind": "WorkloadEndpoint", "apiVersion": "projectcalico.org/v3",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": "web", "projectcalico.org/orchestrator": "k8s"}},
        "spec": {"orchestrator": "k8s", "node": node, "pod": "web-1", "endpoint": "eth0", "ipNetworks": ["10.65.0.9/32"],
            "profiles": ["kns.shop"], "interfaceName": "cali751425ce827"},
    });
    etcd.put(&(format!("/calico/resources/v3/projectcalico.org/workloadendpoints/shop/{name}"), endpoint.to_string()));
    Some(etcd)
}

pub fn service_link(case: &Case) -> Option<()> {
    let linked = |args: &[&str]| {
        let mut program = case.program(args);
        program.env("METRICS_SERVER_SERVICE_HOST", "10.43.106.12").env("METRICS_SERVER_SERVICE_PORT", "443");
        program.env("METRICS_SERVER_PORT_443_TCP", "tcp://10.43.106.12:443").env("METRICS_SERVER_PORT", "tcp://10.43.106.12:443");
        program
    };
    Namespace::new(case.0)?.run(|| {
        let program = Program::start(linked(&[]));
        assert_eq!(program.port(), 9009);
        let said = |line: &&String| line.contains("METRICS_SERVER_PORT") && line.contains("service link");
        assert_eq!(program.log().iter().filter(said).count(), 1, "{:#?}", program.log());
        let checked = Said::of(&mut linked(&["check"]));
        assert!(checked.out.contains("exporter: one answers at http://127.0.0.1:9009"), "{checked:?}");
    });
    if !can_run(case.0, kube::built(), "scripts/kubernetes to have been run") {
        return None;
    }
    for overlay in ["kubernetes", "etcd", "none"] {
        let manifest = kustomize(&fixture::path("../../deploy/kustomize/overlays").join(overlay));
        assert!(manifest.contains("enableServiceLinks: false"), "{overlay}");
        assert!(manifest.contains("- name: METRICS_SERVER_PORT\n          value: \"9009\"\n"), "{overlay}: {manifest}");
    }
    Some(())
}

pub fn another_node_name(case: &Case) -> Option<()> {
    let (stored, similar) = ("worker-02.mydomain.com", ["worker-02", "Worker-02.mydomain.com"]);
    let sees = || {
        load("legacy", &case.text("pd1.txt"));
        let etcd = etcd_with(stored)?;
        for name in similar {
            let of_node = |args: &[&str]| {
                let mut program = case.program(args);
                program.env("DATASTORE_TYPE", "etcdv3").env("ETCD_ENDPOINTS", etcd.url()).env("NODENAME", name);
                program.env("POD_LOGS_DIR", "/nonexistent");
                program
            };
            let checked = Said::of(&mut of_node(&["check"]));
            assert!(checked.code == Some(1) && !checked.out.contains("All is well."), "{checked:?}");
            assert!(checked.has_line(&[stored]), "{checked:?}");
            let program = Program::start(of_node(&[]));
            scrape(program.port());
            program.await_log(stored);
            scrape(program.port());
            assert_eq!(program.log().iter().filter(|line| line.contains(stored)).count(), 1, "{:#?}", program.log());
            let ready = http::get(program.port(), "/readyz").unwrap();
            assert!(ready.status == 503 && ready.text().contains(stored), "{ready:?}");
        }
        Some(())
    };
    Namespace::new(case.0)?.run(sees)
}
