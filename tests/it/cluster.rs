//! The commands for all nodes. They run as `kubectl exec` runs them in an exporter's container, with the pods of a real API server and real
//! exporters on nodes that are network namespaces. They also run as kubectl's plugin, and on a hundred nodes that only serve a report.

mod witnesses;

use std::io;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use calico_accountant::datastore::inventory::Interface;
use calico_accountant::report::Report;
use calico_accountant::server::{Application, Limits, Listener};
use serde_json::{Value, json};

use crate::captures::CAPTURED_PODS;
use crate::commands::{all_fields_are_documented, drawn};
use crate::deploy;
use crate::kernel::{filter_table, load};
use crate::program::{self, Program};
use crate::report::of_capture;
use crate::support::container::Host;
use crate::support::etcd::Scratch;
use crate::support::fakes::Fakes;
use crate::support::kube::{ADMIN, Kube, program as kube_program};
use crate::support::netns::{Namespace, sh};
use crate::support::within;

/// The hub is node1; `10.9.2.2` is node2.
const CAPTURE: &str = "v3.32.1-legacy";

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Makes a pod as its controller, the scheduler and a kubelet would: with an owner, on a node, running at an address.
fn pod(kube: &Kube, namespace: &str, name: &str, node: &str, more: &Value, status: &Value) {
    let mut pod = json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [{"name": "main", "image": "registry.example/app:1"}]}});
    merge(&mut pod, more);
    let path = format!("/api/v1/namespaces/{namespace}/pods");
    kube.call("POST", &path, &pod);
    kube.call("PATCH", &format!("{path}/{name}/status"), &json!({ "status": status }));
}

fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            more.iter().for_each(|(key, value)| merge(into.entry(key).or_insert(Value::Null), value))
        }
        (into, more) => *into = more.clone(),
    }
}

pub fn running(address: &str) -> Value {
    json!({"phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "hostIP": address})
}

/// Makes the exporter's pod on a node, as the DaemonSet's controller does.
fn exporter(kube: &Kube, template: &Value, node: &str, status: &Value) {
    let mut more = template.clone();
    more["spec"]["nodeName"] = node.into();
    pod(kube, "kube-system", &format!("calico-accountant-{node}"), node, &more, status);
}

/// Lets a node's processes reach the API server at the same address as on the hub.
fn forward(from: &Namespace, port: u16) {
    let listener = from.run(|| TcpListener::bind(("127.0.0.1", port)).unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            for (mut from, mut to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
                std::thread::spawn(move || io::copy(&mut from, &mut to).and_then(|_| to.shutdown(std::net::Shutdown::Write)));
            }
        }
    });
}

/// The captured table with other pods in it.
fn renamed(table: &str) -> String {
    CAPTURED_PODS.iter().fold(table.to_owned(), |table, (namespace, pod)| {
        table.replace(&Interface::suffix_of(namespace, pod), &Interface::suffix_of(namespace, &format!("{pod}-n2")))
    })
}

#[test]
fn from_any_exporters_container_for_any_pod() {
    let (Some(hub), Some(second)) = (Namespace::new("a cluster of nodes"), Namespace::new("a cluster of nodes")) else { return };
    hub.run(|| {
        let Some(kube) = Kube::start() else { return };
        sh(&format!("ip link add n2 type veth peer name up0 netns {}; ip addr add 10.9.2.1/24 dev n2; ip link set n2 up", second.name()));
        second.run(|| sh("for i in 2 5 6; do ip addr add 10.9.2.$i/24 dev up0; done; ip link set up0 up"));
        load("legacy", &filter_table(CAPTURE));
        // A firewall at 10.9.2.5, like a policy on a host endpoint that lets nobody in.
        second.run(|| {
            load("legacy", &renamed(&filter_table(CAPTURE)));
            sh("iptables-legacy -I INPUT -d 10.9.2.5 -j DROP");
        });
        forward(&second, kube.port);
        pods(&kube);
        kube.kubectl(&["apply", "-k", deploy::path("deploy/kustomize/overlays/kubernetes").to_str().unwrap()]);
        let template =
            kube.call("GET", "/apis/apps/v1/namespaces/kube-system/daemonsets/calico-accountant", &Value::Null)["spec"]["template"].clone();
        let (first_host, second_host, none) = (Host::new(&kube, "node1", &[]), Host::new(&kube, "node2", &[]), Fakes::new());
        let start = |host: &Host, address: &str| {
            std::fs::create_dir_all(host.file("/var/log/pods")).unwrap();
            let mut command = host.command(&template["spec"], none.path());
            command.env("LISTEN_ADDRESS", address);
            Program::start(command)
        };
        let _programs = [start(&first_host, "::"), second.run(|| start(&second_host, "10.9.2.2"))];
        _programs.iter().for_each(|program| assert_eq!(program.port(), 9009));
        exporter(&kube, &template, "node1", &running("10.9.2.1"));
        exporter(&kube, &template, "node2", &running("10.9.2.2"));
        let run = |args: &[&str]| first_host.command(&template["spec"], none.path()).args(args).output().unwrap();
        within(Duration::from_secs(20), "both know their pods", || {
            let found = run(&["workloads", "--cluster", "-n", "shop"]);
            found.status.success() && text(&found).contains("shop/web-1 ") && text(&found).contains("shop/web-1-n2 ")
        });
        all_is_well(&run);
        by_the_plugin(&kube, &none);
        some_nodes_do_not_answer(&kube, &template, &run);
    });
}

/// Makes the pods of the tables, with owners, and Calico's own.
fn pods(kube: &Kube) {
    ["infra", "shop"].iter().for_each(|namespace| kube.namespace(namespace));
    kube.service_account("kube-system", "default");
    for (namespace, name) in CAPTURED_PODS {
        for (node, name) in [("node1", name.to_owned()), ("node2", format!("{name}-n2"))] {
            let app = name.split('-').next().unwrap().to_owned();
            let labels = json!({"app": app, "pod-template-hash": "7d4b"});
            let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{app}-7d4b"), "uid": "1"});
            pod(
                kube,
                namespace,
                &name,
                node,
                &json!({"metadata": {"labels": labels, "ownerReferences": [owner]}}),
                &json!({"phase": "Running"}),
            );
        }
    }
    for node in ["node1", "node2"] {
        pod(kube, "kube-system", &format!("calico-{node}"), node, &json!({"metadata": {"labels": {"k8s-app": "calico-node"}}}), &json!({}));
    }
    pod(kube, "shop", "pending", "", &json!({}), &json!({"phase": "Pending"}));
    let of_host = json!({"spec": {"hostNetwork": true}});
    pod(kube, "shop", "of-host", "node1", &of_host, &json!({"phase": "Running"}));
}

fn all_is_well(run: &dyn Fn(&[&str]) -> Output) {
    for (args, code, expected) in [
        (
            &["explain", "--cluster", "shop/web-1-n2"][..],
            0,
            &["shop/web-1-n2  interface", "of node node2 at http://10.9.2.2:9009", "INGRESS"][..],
        ),
        (&["explain", "--cluster", "web-1"], 0, &["shop/web-1  interface", "of node node1 at http://10.9.2.1:9009"]),
        (&["explain", "--cluster", "-n", "shop", "deploy/web"], 0, &["shop/web-1 ", "shop/web-2 ", "shop/web-1-n2 ", "shop/web-2-n2 "]),
        (&["explain", "--cluster", "app=db"], 0, &["shop/db-0 ", "shop/db-0-n2 "]),
        (&["explain", "--cluster", "shop/nobody"], 1, &["calico-accountant: the cluster has no pod shop/nobody\n"]),
        (&["explain", "--cluster", "-n", "shop", "deploy/nobody"], 1, &["the cluster has no pod of deployment shop/nobody\n"]),
        (&["explain", "--cluster", "shop/pending"], 1, &["pod shop/pending has no node yet\n"]),
        (&["explain", "--cluster", "shop/of-host"], 1, &["node node1: pod shop/of-host is in its node's own network"]),
        (&["top", "--cluster", "--once"], 0, &["2 nodes answered. Counted for ", "shop/web-1-n2", " node2 ", " node1 ", "no_policy"]),
        (&["policies", "--cluster"], 0, &["2 nodes answered.", "NODES", "Never hit: no rule"]),
        (
            &["check", "--cluster"],
            0,
            &["ok    nodes: each of the 2 nodes that run Calico has an exporter", "ok    exporter: 2 answer, and are well", "All is well."],
        ),
        (&["check", "--cluster", "--selector", "app=nobody"], 1, &["no pod with the labels app=nobody"]),
        (&["top", "--nodes", "10.9.2.1,10.9.2.2"], 0, &["2 nodes answered.", " 10.9.2.2 "]),
        (&["explain", "--nodes", "10.9.2.1,10.9.2.2", "shop/web-2-n2"], 0, &["of node 10.9.2.2 at http://10.9.2.2:9009"]),
    ] {
        let output = run(args);
        let found = text(&output);
        assert!(output.status.code() == Some(code) && expected.iter().all(|part| found.contains(part)), "{args:?} {expected:?}: {found}");
    }
    // `-n` selects one namespace only.
    assert!(!text(&run(&["top", "--cluster", "-n", "shop"])).contains("infra/"));
    let json = |args: &[&str]| serde_json::from_slice::<Value>(&run(args).stdout).unwrap();
    let all = json(&["explain", "--cluster", "-n", "shop", "deploy/web", "--json"]);
    assert_eq!(
        (all["answers"].as_array().unwrap().len(), &all["answers"][3]["status"]["node"], &all["silent"]),
        (4, &json!("node2"), &json!([]))
    );
    let policies = json(&["policies", "--cluster", "--json"]);
    [&all, &policies, &json(&["top", "--cluster", "--json"])].into_iter().for_each(all_fields_are_documented);
    assert!(policies["nodes"] == 2 && policies["policies"].as_array().unwrap().iter().all(|policy| policy["nodes"] == 2), "{policies:#}");
    let unused = json(&["policies", "--cluster", "--never-hit", "--json"])["policies"].as_array().unwrap().clone();
    assert!(!unused.is_empty() && unused.iter().all(|policy| policy["hit"] == false), "{unused:#?}");
}

/// Each problem is named once, for all nodes that have it. What is known is still shown.
fn some_nodes_do_not_answer(kube: &Kube, template: &Value, run: &dyn Fn(&[&str]) -> Output) {
    let status = |node: &str| format!("/api/v1/namespaces/kube-system/pods/calico-accountant-{node}/status");
    let mut local = template.clone();
    local["spec"]["containers"][0]["env"].as_array_mut().unwrap().push(json!({"name": "LISTEN_ADDRESS", "value": "127.0.0.1"}));
    exporter(kube, &local, "node3", &running("10.9.2.3"));
    exporter(kube, template, "node5", &running("10.9.2.5"));
    exporter(kube, template, "node6", &running("10.9.2.6"));
    let waiting = json!({"name": "calico-accountant", "ready": false, "restartCount": 0, "image": "i", "imageID": "", "state": {"waiting": {"reason": "ImagePullBackOff"}}});
    exporter(kube, template, "node7", &json!({"phase": "Pending", "podIP": "10.9.2.7", "containerStatuses": [waiting]}));
    pod(kube, "kube-system", "calico-node8", "node8", &json!({"metadata": {"labels": {"k8s-app": "calico-node"}}}), &json!({}));
    pod(kube, "shop", "web-on-5", "node5", &json!({}), &json!({"phase": "Running"}));
    let problems = [
        ("node3", "LISTEN_ADDRESS is 127.0.0.1: only its own node can ask it"),
        ("node5", "does not answer"),
        ("node6", "refuses the connection: nothing listens there"),
        ("node7", "its pod kube-system/calico-accountant-node7 does not run: ImagePullBackOff"),
    ];
    let (began, output) = (Instant::now(), run(&["top", "--cluster"]));
    let found = text(&output);
    assert!(output.status.code() == Some(1) && found.contains("2 of 6 nodes answered.") && found.contains("shop/web-1-n2"), "{found}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    problems.iter().for_each(|(node, why)| assert!(found.contains(&format!("No answer of {node}: {why}")), "{node} {why}: {found}"));
    assert!(found.contains("(a policy on the node's host endpoint, or a firewall, lets nobody in at that port)"), "{found}");

    let output = run(&["check", "--cluster"]);
    let found = text(&output);
    problems.iter().for_each(|(node, why)| assert!(found.contains(&format!("WRONG exporter: {node}: {why}")), "{node} {why}: {found}"));
    assert!(output.status.code() == Some(1) && found.contains("WRONG nodes: node8: without an exporter"), "{found}");
    let answer: Value = serde_json::from_slice(&run(&["check", "--cluster", "--json"]).stdout).unwrap();
    all_fields_are_documented(&answer);
    all_fields_are_documented(&serde_json::from_slice(&run(&["top", "--cluster", "--json"]).stdout).unwrap());
    assert_eq!((&answer["result"], &answer["findings"][0]["nodes"]), (&json!("wrong"), &json!(["node8"])), "{answer:#}");

    let output = run(&["explain", "--cluster", "shop/web-on-5"]);
    assert!(text(&output).contains("node node5: http://10.9.2.5:9009 does not answer (a policy"), "{}", text(&output));
    let never = text(&run(&["policies", "--cluster"]));
    assert!(never.contains("Never hit on the nodes that answered; what the others count is not known."), "{never}");
    kube.call("PATCH", &status("node5"), &json!({"status": running("10.9.2.9")}));
    let output = text(&run(&["explain", "--cluster", "shop/web-on-5"]));
    assert!(output.contains("node node5: http://10.9.2.9:9009 "), "{output}");
}

/// kubectl and the API server are real. `exec` needs a kubelet, so the command runs here instead.
fn by_the_plugin(kube: &Kube, fakes: &Fakes) {
    let kubectl = kube_program("kubectl").display().to_string();
    let account = fakes.file("account", &kube.kubeconfig(&kube.token()));
    let inside = format!("DATASTORE_TYPE=kubernetes NODENAME=node1 KUBECONFIG={} {}", account.display(), program::binary());
    // The arguments before `exec` must lead to that DaemonSet.
    let fake = format!(
        "case \" $* \" in *' exec '*) ;; *) exec {kubectl} \"$@\" ;; esac\nset -e; before=; while [ \"$1\" != exec ]; do before=\"$before $1\"; shift; done; shift\n\
         if [ -t 0 ]; then [ \"$1 $2\" = '--stdin --tty' ]; shift 2; fi\n\
         {kubectl} $before get \"$1\" >/dev/null; [ \"$2 $3\" = '-- calico-accountant' ]; shift 3; {inside} \"$@\""
    );
    fakes.set("kubectl", &fake);
    let config = fakes.file("config", &kube.kubeconfig(ADMIN));
    std::os::unix::fs::symlink(deploy::path("deploy/kubectl-accountant"), fakes.path().join("kubectl-accountant")).unwrap();
    // In a terminal, the command has a terminal too.
    let (config_file, folder) = (config.display(), fakes.path().display());
    let environment = format!("env -i KUBECONFIG={config_file} HOME={folder} PATH={folder}:/usr/bin:/bin");
    let screens = drawn("cols 100 rows 20", "sleep 4; printf q", &format!("{environment} {kubectl} accountant top -n shop"));
    assert!(screens[0].starts_with("2 nodes answered. Counted for ") && screens[0].contains("shop/web-1-n2"), "{screens:#?}");
    let run = |args: &[&str]| {
        let mut command = Command::new(&kubectl);
        command.arg("accountant").args(args).env_clear().env("KUBECONFIG", &config).env("HOME", fakes.path());
        command.env("PATH", format!("{}:/usr/bin:/bin", fakes.path().display())).output().unwrap()
    };
    for (args, code, expected) in [
        (&["explain", "shop/web-1-n2"][..], 0, "of node node2 at http://10.9.2.2:9009"),
        (&["--context=here", "--exporter-namespace", "kube-system", "explain", "-n", "shop", "deploy/web"], 0, "shop/web-2-n2 "),
        (&["top", "-n", "shop"], 0, "2 nodes answered."),
        (&["check"], 0, "All is well."),
        (&["policies", "--never-hit"], 0, "Never hit: no rule"),
        (&["watch", "shop/web-1-n2"], 1, "node node2: its exporter traces no packets (set WITNESSES=drops there"),
        (&["explain", "shop/nobody"], 1, "calico-accountant: the cluster has no pod shop/nobody"),
        (&["--context=nowhere", "check"], 1, "context \"nowhere\" does not exist"),
        (&["--exporter-namespace=shop", "check"], 1, "daemonsets.apps \"calico-accountant\" not found"),
        (&["--release", "calico", "check"], 1, "daemonsets.apps \"calico-calico-accountant\" not found"),
        (&["--context"], 2, "kubectl accountant: --context: a value is missing"),
        (&["--nope"], 2, "--nope: there is no such option before the command"),
        (&["serve"], 2, "serve: there is no such command: explain, watch, top, policies, workloads, check"),
        (&[], 2, "a command is missing"),
        (&["--help"], 0, "Usage: kubectl accountant"),
        (&["explain", "--help"], 0, "Usage: calico-accountant explain NAMESPACE/POD [flags]"),
    ] {
        let output = run(args);
        assert!(output.status.code() == Some(code) && text(&output).contains(expected), "{args:?} {expected}: {}", text(&output));
    }
}

/// A node with a fixed report.
struct Simulated(Arc<Report>);

impl Application for Simulated {
    fn metrics(&self) -> Arc<Vec<u8>> {
        Arc::default()
    }

    /// Takes as long as reading a large table. One node after the other would take 5 s.
    fn report(&self) -> Arc<Report> {
        std::thread::sleep(Duration::from_millis(50));
        Arc::clone(&self.0)
    }

    fn ready(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Serves reports at 127.9.0.1 and the following addresses. The pod `web-1` of node 7 is `web-1-of-7`. Returns the port.
fn simulate(nodes: u8) -> u16 {
    let (whole, mut port) = (of_capture(CAPTURE), 0);
    let interface = format!("cali{}", Interface::suffix_of("shop", "web-1"));
    for node in 1..=nodes {
        let mut report = (*whole).clone();
        report.status.node = format!("node{node}");
        let web = report.workloads.iter_mut().find(|endpoint| *endpoint.workload.interface == *interface).unwrap();
        (web.workload.namespace, web.workload.pod) = ("shop".into(), format!("web-1-of-{node}").into());
        let address = IpAddr::from([127, 9, 0, node]);
        let listener = Listener::bind(address, port, Limits::default()).unwrap();
        port = listener.address().unwrap().port();
        std::thread::spawn(move || listener.serve(Arc::new(Simulated(Arc::new(report)))));
    }
    port
}

#[test]
fn a_hundred_nodes_answer_at_once() {
    const NODES: u8 = 100;
    let Some(kube) = Kube::start() else { return };
    let port = simulate(NODES);
    let token = kube.account(&["/pods"]);
    kube.namespace("shop");
    kube.service_account("kube-system", "default");
    for node in 1..=NODES {
        let name = format!("node{node}");
        let labels = json!({"metadata": {"labels": {"app.kubernetes.io/name": "calico-accountant"}}});
        pod(&kube, "kube-system", &format!("exporter-{node}"), &name, &labels, &running(&format!("127.9.0.{node}")));
        pod(
            &kube,
            "shop",
            &format!("web-1-of-{node}"),
            &name,
            &json!({"metadata": {"labels": {"app": "web"}}}),
            &json!({"phase": "Running"}),
        );
    }
    pod(&kube, "shop", "web-2", "node3", &json!({}), &json!({"phase": "Running"}));
    let scratch = Scratch::new();
    let write = |name: &str, text: &str| -> String {
        std::fs::write(scratch.path().join(name), text).unwrap();
        scratch.path().join(name).display().to_string()
    };
    let config = write("kubeconfig", &kube.kubeconfig(&token));
    let nodes = write("nodes", &(1..=NODES).map(|node| format!("127.9.0.{node}\n")).collect::<String>());
    let run = |args: &[&str]| {
        let mut command = program::command();
        command.env_remove("ETCD_ENDPOINTS").env("DATASTORE_TYPE", "kubernetes").env("KUBECONFIG", Path::new(&config));
        let began = Instant::now();
        let output = command.env("METRICS_SERVER_PORT", port.to_string()).args(args).output().unwrap();
        (began.elapsed(), output)
    };
    let top = format!("{} top --nodes {nodes} --metrics-server-port {port} --datastore-type none", program::binary());
    let screens = drawn("cols 80 rows 24", "sleep 7; printf q", &top);
    let lines: Vec<&str> = screens.last().unwrap().lines().map(str::trim_end).collect();
    assert!(screens.len() > 1 && lines[0].starts_with("100 nodes answered. Counted for "), "{lines:#?}");
    assert!(
        lines[2].contains("NODE") && lines[3].contains("127.9.0.") && lines.iter().all(|line| line.chars().count() <= 80),
        "{lines:#?}"
    );
    for (args, expected) in [
        (&["explain", "--cluster", "shop/web-1-of-77"][..], "of node node77"),
        (&["top", "--cluster"], "100 nodes answered."),
        // Its exporter has rules for it, but no name.
        (&["explain", "--cluster", "shop/web-2"], "of node node3"),
        (&["check", "--cluster"], "node12 and 95 more: some have rules and no name"),
        (&["policies", "--cluster"], "100 nodes answered."),
        (&["explain", "--nodes", &nodes, "shop/web-1-of-77"], "of node 127.9.0.77"),
    ] {
        // The machine may be busy for a while.
        let mut fastest = Duration::MAX;
        within(Duration::from_secs(60), &format!("{args:?} in 2 s"), || {
            let (took, output) = run(args);
            assert!(text(&output).contains(expected), "{args:?}: {}", text(&output));
            fastest = fastest.min(took);
            fastest < Duration::from_secs(2)
        });
        println!("{args:?}: {fastest:?}");
    }
}
