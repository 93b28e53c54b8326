//! A large cluster: how many bytes, how much memory and how many requests the program needs.

use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use super::NODE;
use crate::program::{self, Program};
use crate::support::etcd::Etcd;
use crate::support::fakes::Fakes;
use crate::support::kube::Kube;
use crate::support::proxy::Proxy;
use crate::support::scrape::{one, scrape};
use crate::support::{fixture, within};

const PODS: usize = 5_000;
/// How many of the pods are on this node.
const OWN: usize = 110;

/// A pod as large as in real clusters: three containers, probes, variables, and the managers of each field.
fn pod(n: usize) -> Value {
    let mut pod: Value = serde_json::from_str(&fixture::text("kubernetes/pod.json")).unwrap();
    let node = if n.is_multiple_of(PODS / OWN) && n / (PODS / OWN) < OWN { NODE.to_owned() } else { format!("node-{}", 2 + n % 500) };
    // Random digits, which do not compress.
    let random = |salt: usize| format!("{:016x}", (n * 31 + salt + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let meta = &mut pod["metadata"];
    meta["name"] = json!(format!("deployment-{}-7c9d5b6f48-{n:05}", n % 700));
    meta["namespace"] = json!(format!("namespace-{}", n % 40));
    meta["uid"] = json!(format!("{}-{}", random(0), random(1)));
    meta["annotations"]["cni.projectcalico.org/containerID"] = json!(format!("{}{}{}{}", random(2), random(3), random(4), random(5)));
    let ip = format!("10.{}.{}.{}", 64 + n % 64, n / 250 % 250, n % 250);
    pod["status"]["podIP"] = json!(ip);
    pod["status"]["podIPs"] = json!([{"ip": ip}]);
    pod["spec"]["nodeName"] = json!(node);
    let container = pod["spec"]["containers"][0].clone();
    let fields = pod["metadata"]["managedFields"][0].clone();
    for (index, name) in ["proxy", "metrics"].into_iter().enumerate() {
        let mut another = container.clone();
        another["name"] = json!(name);
        let value = |i| json!({"name": format!("VARIABLE_{i}"), "value": random(10 + 20 * index + i)});
        another["env"] = (0..12).map(value).collect();
        let get = json!({"path": "/healthz", "port": 8080, "scheme": "HTTP"});
        another["livenessProbe"] = json!({"httpGet": get, "periodSeconds": 10, "timeoutSeconds": 1, "failureThreshold": 3});
        pod["spec"]["containers"].as_array_mut().unwrap().push(another);
        pod["metadata"]["managedFields"].as_array_mut().unwrap().push(fields.clone());
    }
    let status = |name: &str| {
        json!({"name": name, "containerID": format!("containerd://{}{}{}", random(60), random(61), name), "ready": true,
        "image": "registry.example/app:1", "imageID": format!("registry.example/app@sha256:{}{}", random(62), random(63)), "restartCount": 0})
    };
    pod["status"]["containerStatuses"] = ["main", "proxy", "metrics"].map(status).to_vec().into();
    pod
}

/// Writes the pods into etcd, where the API server finds them.
fn fill(etcd: &Etcd) {
    let agent = ureq::Agent::new_with_defaults();
    let puts: Vec<_> = (0..PODS)
        .map(pod)
        .map(|pod| {
            let text = |field: &str| pod["metadata"][field].as_str().unwrap().to_owned();
            let key = format!("/registry/pods/{}/{}", text("namespace"), text("name"));
            let [key, value] = [key, pod.to_string()].map(|text| BASE64_STANDARD.encode(text));
            format!(r#"{{"request_put":{{"key":"{key}","value":"{value}"}}}}"#)
        })
        .collect();
    for batch in puts.chunks(64) {
        agent.post(format!("{}/v3/kv/txn", etcd.url())).send(format!(r#"{{"success":[{}]}}"#, batch.join(","))).unwrap();
    }
}

#[test]
fn the_start_is_frugal() {
    let Some(etcd) = Etcd::with(&["--quota-backend-bytes=4294967296"]) else { return };
    fill(&etcd);
    let Some(kube) = Kube::on(etcd) else { return };
    let token = kube.account(&["/pods"]);
    let proxy = Proxy::to(kube.port);
    let fakes = Fakes::tables("*filter\nCOMMIT\n", "");
    let mut command = program::command();
    command.env_remove("ETCD_ENDPOINTS").env("NODENAME", NODE).env("PATH", fakes.path());
    command.env("K8S_API_ENDPOINT", format!("https://127.0.0.1:{}", proxy.port)).env("K8S_API_TOKEN", token);
    // Proxies of the environment are not for the API server. If the program used this one, nothing would work.
    command.env("K8S_CA_FILE", kube.certificates.ca()).env("HTTPS_PROXY", "http://127.0.0.1:1").env("ALL_PROXY", "http://127.0.0.1:1");
    let program = Program::start(command);
    // There are no rules, so the program is not ready.
    let has_listed = || one(&scrape(program.port()), "calico_accountant_workloads", &[("state", "without_rules")]) == OWN as f64;
    within(Duration::from_secs(60), "the list of pods", has_listed);
    // After this, a scrape has asked for policies if it needs them.
    std::thread::sleep(Duration::from_secs(2));
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid().as_raw_nonzero())).unwrap();
    let figure = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name} in {status}"));
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let (bytes, peak) = (proxy.received(), figure("VmHWM:"));
    // The program's file has debugging information here and is larger than the shipped one. So its pages count only if the shipped program
    // is tested.
    let data = peak - figure("RssFile:");
    println!("{OWN} of {PODS} pods: {bytes} bytes, {peak} kB resident at most, {data} kB of them not the program's file");
    assert!(bytes <= 150_000, "{bytes} bytes");
    assert!(data <= 6_000, "{data} kB");
    assert!(peak <= 12_000 || std::env::var_os("ACCOUNTANT").is_none(), "{peak} kB");
    // Then one watch on one connection, and no policies, because no rules need their names.
    assert_eq!(kube.asked().into_iter().collect::<Vec<_>>(), [("list pods".to_owned(), 1), ("watch pods".to_owned(), 1)]);
    assert_eq!(proxy.open(), 1);
}
