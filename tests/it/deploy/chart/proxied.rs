//! The exporter behind a real kube-rbac-proxy on a real API server, with the arguments and rights that the chart gives it.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::fakes::Fakes;
use crate::support::helm::{Helm, IMAGE, chart};
use crate::support::kube::{ACCOUNT, Kube, unverified};
use crate::support::{built, can_run, within};

use super::super::scraped::captured;

/// The proxy's address, as if it were the node's. The exporter has 127.0.0.1.
const NODE: &str = "127.0.0.2";

/// Ends with the test.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[test]
fn only_who_may_reads_through_a_real_proxy() {
    let test = "a real kube-rbac-proxy";
    let program = built::program("kube-rbac-proxy", "github.com/brancz/kube-rbac-proxy", "kube-rbac-proxy");
    if !can_run(test, program.exists(), "scripts/kube-rbac-proxy to have been run") {
        return;
    }
    let Some(helm) = Helm::built(test) else { return };
    let Some(kube) = Kube::start() else { return };
    let fakes = Fakes::nft("");
    let exporter = captured(&fakes);
    let set = format!("datastore.type=none,kubeRBACProxy.enabled=true,port={}", exporter.port());
    let args = ["install", ACCOUNT, chart().to_str().unwrap(), IMAGE[0], IMAGE[1], "--set", &set].map(str::to_owned);
    helm.on(&kube, "kube-system", &args.iter().map(String::as_str).collect::<Vec<_>>());

    let daemonset = kube.call("GET", "/apis/apps/v1/namespaces/kube-system/daemonsets/calico-accountant", &Value::Null);
    let containers = daemonset["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    let container = containers.iter().find(|container| container["name"] == "kube-rbac-proxy").unwrap();
    let image = container["image"].as_str().unwrap();
    assert!(program.to_str().unwrap().ends_with(image.rsplit(':').next().unwrap()), "{image} is not what is tried: {program:?}");

    let (account, log) = (fakes.file("account", &kube.kubeconfig(&kube.token())), fakes.path().join("proxy.log"));
    let mut command = Command::new(&program);
    command.args(container["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap().replace("$(HOST_IP)", NODE)));
    command.arg("--kubeconfig").arg(account).env_clear().stdin(Stdio::null()).stdout(Stdio::null());
    let _proxy = Proxy(command.stderr(File::create(&log).unwrap()).spawn().unwrap());

    // Of two accounts, one may read.
    ["prometheus", "somebody"].iter().for_each(|account| kube.service_account("kube-system", account));
    kube.kubectl(&["create", "clusterrole", "reads-metrics", "--verb=get", "--non-resource-url=/metrics"]);
    kube.kubectl(&["create", "clusterrolebinding", "reads", "--clusterrole=reads-metrics", "--serviceaccount=kube-system:prometheus"]);
    let agent = unverified();
    let ask = |path: &str, token: &str| {
        let mut request = agent.get(format!("https://{NODE}:{}{path}", exporter.port()));
        if !token.is_empty() {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        request.call().map(|mut answer| (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap()))
    };
    within(Duration::from_secs(20), "the proxy listens", || ask("/metrics", "").is_ok());
    let status = |path: &str, token: &str| ask(path, token).unwrap().0;
    let (prometheus, somebody) = (kube.token_of("prometheus"), kube.token_of("somebody"));
    let said = || std::fs::read_to_string(&log).unwrap();
    let (read, text) = ask("/metrics", &prometheus).unwrap();
    assert!(read == 200 && text.contains("calico_accountant_up 1"), "{read} {text}: {}", said());
    assert_eq!((status("/metrics", ""), status("/metrics", "wrong"), status("/metrics", &somebody)), (401, 401, 403), "{}", said());
    for path in ["/", "/api/v1/workloads", "/healthz", "/metrics/x"] {
        assert_eq!(status(path, &prometheus), 404, "{path}");
    }
    // The kubelet asks the exporter directly, on the node.
    let probe = &containers.iter().find(|container| container["name"] == ACCOUNT).unwrap()["readinessProbe"]["httpGet"];
    assert_eq!((&probe["host"], &probe["port"]), (&json!("127.0.0.1"), &json!(exporter.port())));
    // The rights are the chart's. Without them, the proxy cannot authenticate anyone.
    helm.on(&kube, "kube-system", &["uninstall", ACCOUNT]);
    let later = kube.token_of("prometheus");
    within(Duration::from_secs(10), "the proxy may not ask any more", || status("/metrics", &later) != 200);
}
