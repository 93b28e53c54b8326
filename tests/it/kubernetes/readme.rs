//! The README's steps from nothing to "which policy drops this pod's packets". Its commands are run literally against a real API server. In
//! place of controllers and a kubelet, the test makes the DaemonSet's pods and runs one as its container.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::{captured_pods, ready};
use crate::cluster::running;
use crate::documents;
use crate::kernel;
use crate::program::{self, Program, await_some};
use crate::support::container::Host;
use crate::support::fakes::Fakes;
use crate::support::kube::{ADMIN, Kube, program as kubernetes};
use crate::support::netns::Namespace;
use crate::support::within;

const DAEMONSET: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets/calico-accountant";
const PODS: &str = "/api/v1/namespaces/kube-system/pods";
/// The exporter's pod on the node of the pod that the README asks about.
const THE_ONE: &str = "calico-accountant-b2f7x";

/// Makes an administrator's kubectl. The commands of `exec` run here.
fn kubectl(kube: &Kube, folder: &Path) {
    let config = kube.file("kubeconfig");
    fs::write(&config, kube.kubeconfig(ADMIN)).unwrap();
    // The kubelet creates it (FileOrCreate).
    let lock = kube.file("xtables.lock");
    fs::write(&lock, "").unwrap();
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *' exec '*)\n  [ \"$1 $2 $3 $4 $5\" = '-n kube-system exec ds/calico-accountant --' ] || exit 9\n  shift 5\n  \
         exec env METRICS_SERVER_PORT=9009 LISTEN_ADDRESS=127.0.0.1 DATASTORE_TYPE=kubernetes KUBECONFIG={} NODENAME=node1 \
         XTABLES_LOCKFILE={} \"$@\";;\nesac\n\
         exec {} --server {} --token {ADMIN} --certificate-authority {} --cache-dir {} \"$@\"\n",
        config.display(),
        lock.display(),
        kubernetes("kubectl").display(),
        kube.url(),
        kube.certificates.ca().display(),
        kube.file("kubectl-cache").display()
    );
    let file = folder.join("kubectl");
    fs::write(&file, script).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    symlink(program::binary(), folder.join("calico-accountant")).unwrap();
}

/// Does what the DaemonSet's controller, the scheduler and the kubelets would do.
fn roll_out<'a>(kube: &Kube, host: &Host<'a>, none: &Fakes) -> Program {
    let daemonset = || -> Option<Value> {
        let (status, text) = kube.try_call("GET", DAEMONSET, None).ok()?;
        let daemonset: Value = serde_json::from_str(&text).ok().filter(|_| status == 200)?;
        let image = daemonset.pointer("/spec/template/spec/containers/0/image")?.as_str()?;
        (image == "registry.example/calico-accountant:1.0.0").then_some(daemonset)
    };
    let daemonset = await_some(daemonset, || "the DaemonSet with its image".into());
    fs::create_dir_all(host.file("/var/log/pods")).unwrap();
    let program = Program::start(host.command(&daemonset["spec"]["template"]["spec"], none.path()));
    ready(&program);
    for (name, node) in [("calico-accountant-a1c9d", "node2"), (THE_ONE, "node1")] {
        let mut pod = daemonset["spec"]["template"].clone();
        pod["metadata"]["name"] = name.into();
        pod["spec"]["nodeName"] = node.into();
        kube.call("POST", PODS, &pod);
    }
    kube.call("PATCH", &format!("{PODS}/{THE_ONE}/status"), &json!({"status": running("127.0.0.1")}));
    let status = json!({"observedGeneration": daemonset["metadata"]["generation"], "currentNumberScheduled": 2, "desiredNumberScheduled": 2,
        "updatedNumberScheduled": 2, "numberAvailable": 2, "numberReady": 2, "numberMisscheduled": 0});
    kube.call("PATCH", &format!("{DAEMONSET}/status"), &json!({"status": status}));
    program
}

#[test]
fn from_nothing_to_the_policy_that_drops() {
    let Some(namespace) = Namespace::new("the README's way to the policy that drops") else { return };
    namespace.run(|| {
        let Some(kube) = Kube::start() else { return };
        kernel::load("legacy", &kernel::filter_table("v3.32.1-legacy"));
        captured_pods(&kube);
        let (host, none, programs) = (Host::new(&kube, "node1", &[]), Fakes::new(), kube.file("programs"));
        fs::create_dir_all(&programs).unwrap();
        kubectl(&kube, &programs);
        let mut shell = Command::new("sh");
        let commands = documents::run_by("kubernetes::readme::from_nothing_to_the_policy_that_drops").concat();
        shell.args(["-euc", &commands]).current_dir(env!("CARGO_MANIFEST_DIR"));
        shell.env_clear().env("PATH", format!("{}:/usr/bin:/bin", programs.display())).env("KUBECONFIG", "/dev/null");
        let (program, output) = std::thread::scope(|scope| {
            let shell = scope.spawn(|| shell.output().unwrap());
            (roll_out(&kube, &host, &none), shell.join().unwrap())
        });
        let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success() && errors.is_empty(), "{said}{errors}{:#?}", program.log());
        assert!(said.contains("daemon set \"calico-accountant\" successfully rolled out"), "{said}");
        assert!(said.contains("shop/web-1") && said.contains("Counted by the exporter of node node1 at http://127.0.0.1:9009"), "{said}");
        assert!(said.lines().any(|line| line.contains("NetworkPolicy shop/web-deny")), "{said}");
        within(Duration::from_secs(5), "the account asked for pods", || kube.asked().contains_key("list pods"));
    });
}
