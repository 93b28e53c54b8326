//! Runs the program as a pod's container according to its manifest: environment, mounts, capabilities, a read-only root, and the service
//! account's token. Does the work of the kubelet and a container runtime, without either.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::etcd::Scratch;
use super::kube::Kube;
use crate::program;

const SECRETS: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The pod's node, and what the pod gets there.
pub struct Host<'a> {
    pub kube: &'a Kube,
    pub node: &'a str,
    /// The content of the ConfigMaps, by key.
    pub config: &'a [(&'a str, String)],
    scratch: Scratch,
}

impl<'a> Host<'a> {
    /// Creates a node without any files.
    pub fn new(kube: &'a Kube, node: &'a str, config: &'a [(&'a str, String)]) -> Self {
        let host = Host { kube, node, config, scratch: Scratch::new() };
        ["host", "root", "account"].iter().for_each(|folder| fs::create_dir_all(host.scratch.path().join(folder)).unwrap());
        host
    }

    /// Returns the path of a file or folder of the node.
    pub fn file(&self, path: &str) -> PathBuf {
        self.scratch.path().join("host").join(path.trim_start_matches('/'))
    }

    /// Returns the command for the pod's specification, with `programs` (`iptables-save`) first on its search path.
    pub fn command(&self, pod: &Value, programs: &Path) -> Command {
        let container = &pod["containers"][0];
        let mut script = String::from("set -e; cd \"$1\"; mount -t tmpfs tmpfs root\n");
        script += "for d in bin sbin lib lib64 usr etc dev proc; do if [ -L /$d ]; then cp -a /$d root/; elif [ -d /$d ]; then mkdir root/$d; \
                   mount --rbind /$d root/$d; fi; done\n";
        script += "touch root/accountant; mount --bind \"$2\" root/accountant; mkdir root/programs; mount --bind \"$3\" root/programs\n";
        // The files that fake programs print.
        script += "mkdir -p \"root$3\"; mount --bind \"$3\" \"root$3\"\n";
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            script += &self.mount(pod, mount);
        }
        if pod["automountServiceAccountToken"] == true {
            self.project();
            script += &format!("mkdir -p root{SECRETS}; mount --bind account root{SECRETS}\n");
        }
        let security = &container["securityContext"];
        if security["readOnlyRootFilesystem"] == true {
            script += "mount -o remount,ro root\n";
        }
        script += &format!("shift 3; exec chroot root setpriv {} /accountant \"$@\"", privileges(security));
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &script, "sh"]);
        command.arg(self.scratch.path()).arg(program::binary()).arg(programs);
        command.args(container["args"].as_array().into_iter().flatten().map(|arg| arg.as_str().unwrap()));
        command.env_clear().env("PATH", "/programs:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("KUBERNETES_SERVICE_HOST", "127.0.0.1").env("KUBERNETES_SERVICE_PORT", self.kube.port.to_string());
        command.env("METRICS_SERVER_PORT", "0").env("LISTEN_ADDRESS", "127.0.0.1");
        for variable in container["env"].as_array().into_iter().flatten() {
            command.env(variable["name"].as_str().unwrap(), self.value(variable));
        }
        command
    }

    /// Writes the service account's token, as the kubelet projects it.
    fn project(&self) {
        let account = self.scratch.path().join("account");
        fs::write(account.join("token"), self.kube.token()).unwrap();
        fs::copy(self.kube.certificates.ca(), account.join("ca.crt")).unwrap();
    }

    fn value(&self, variable: &Value) -> String {
        let from = &variable["valueFrom"];
        match (variable["value"].as_str(), from["fieldRef"]["fieldPath"].as_str(), from["configMapKeyRef"]["key"].as_str()) {
            (Some(value), ..) => value.to_owned(),
            (_, Some("spec.nodeName"), _) => self.node.to_owned(),
            (_, _, Some(key)) => self.config.iter().find(|(name, _)| *name == key).unwrap().1.clone(),
            _ => panic!("{variable}"),
        }
    }

    fn mount(&self, pod: &Value, mount: &Value) -> String {
        let volumes = pod["volumes"].as_array().unwrap();
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).unwrap_or_else(|| panic!("no volume for {mount}"));
        let inside = mount["mountPath"].as_str().unwrap();
        let source = self.file(volume["hostPath"]["path"].as_str().unwrap_or(inside));
        match volume["hostPath"]["type"].as_str() {
            Some("Directory") => assert!(source.is_dir(), "{mount}"),
            Some("File") => assert!(source.is_file(), "{mount}"),
            Some("FileOrCreate") => {
                fs::create_dir_all(source.parent().unwrap()).unwrap();
                fs::File::options().append(true).create(true).open(&source).unwrap();
            }
            _ => fs::create_dir_all(&source).unwrap(),
        }
        let make = if source.is_dir() {
            format!("mkdir -p root{inside}")
        } else {
            format!("mkdir -p root{inside}; rmdir root{inside}; touch root{inside}")
        };
        let read_only = if mount["readOnly"] == true { format!("; mount -o remount,bind,ro root{inside}") } else { String::new() };
        format!("{make}; mount --bind '{}' root{inside}{read_only}\n", source.display())
    }
}

/// Returns the arguments for `setpriv` that have the same effect as a container runtime.
fn privileges(security: &Value) -> String {
    assert_eq!((&security["privileged"], &security["runAsUser"]), (&Value::Bool(false), &Value::from(0)));
    assert_eq!(security["capabilities"]["drop"], serde_json::json!(["ALL"]));
    let added =
        security["capabilities"]["add"].as_array().unwrap().iter().map(|name| format!(",+{}", name.as_str().unwrap().to_lowercase()));
    let set: String = std::iter::once("-all".to_owned()).chain(added).collect();
    let more = if security["allowPrivilegeEscalation"] == false { " --no-new-privs" } else { "" };
    format!("--bounding-set={set} --inh-caps={set}{more}")
}
