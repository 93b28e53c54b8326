//! The node has another name than Calico gives it.

use std::time::Duration;

use serde_json::json;

use super::{Lock, WEB_1, alone, logged, ready, run, write};
use crate::program::Program;
use crate::support::kube::Kube;
use crate::support::netns::Namespace;
use crate::support::scrape::scrape;
use crate::support::within;

const STORED: &str = "worker-02.mydomain.com";

/// With the right to list and watch pods only.
#[test]
fn the_api_servers_pods_name_the_similar_nodes() {
    let Some(namespace) = Namespace::new("another name of the node") else { return };
    let lock = Lock::new();
    namespace.run(|| {
        write("nft", &[WEB_1], true);
        let Some(kube) = Kube::start() else { return };
        kube.namespace("shop");
        let pod = |name: &str, node: &str| {
            let spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "i"}]});
            kube.call("POST", "/api/v1/namespaces/shop/pods", &json!({"metadata": {"name": name}, "spec": spec}));
        };
        pod("web-1", STORED);
        pod("other", "worker-03.mydomain.com");
        let token = kube.account(&["/pods"]);
        let with_name = |name: &str| {
            let mut command = alone(&lock.path());
            command.env("DATASTORE_TYPE", "kubernetes").env("K8S_API_ENDPOINT", kube.url()).env("K8S_API_TOKEN", &token);
            command.env("K8S_INSECURE_SKIP_TLS_VERIFY", "true").env("NODENAME", name);
            command
        };
        for name in ["worker-02", "Worker-02.mydomain.com"] {
            let program = Program::start(with_name(name));
            within(Duration::from_secs(10), "the doubt is said", || logged(&program, &[name, "the similar name", STORED, "NODENAME"]) == 1);
            let (status, text) = ready(&program);
            assert!(status == 503 && text.contains(STORED) && !text.contains("worker-03"), "{text}");
            (0..3).for_each(|_| _ = scrape(program.port()));
            assert_eq!(logged(&program, &["the similar name"]), 1, "{:#?}", program.log());
            let (code, said) = run(with_name(name), &["check"]);
            assert!(code == Some(1) && said.contains("WRONG workloads: 1 have rules") && said.contains(STORED), "{said}");
        }
        let program = Program::start(with_name(STORED));
        within(Duration::from_secs(10), "ready under its name", || ready(&program).0 == 200);
        assert_eq!(logged(&program, &["the datastore knows none"]), 0, "{:#?}", program.log());
    });
}
