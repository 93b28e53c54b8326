//! Names without a datastore: the kubelet's folders for pods' logs (`<namespace>_<pod>_<uid>`), matched to interfaces by the hash from
//! which Calico makes their names, and addresses from the node's routes. Touches those folders and `/proc/net`.
//!
//! It needs neither a token nor a certificate and asks no server. Only labels such as `app` are not available this way.

pub(crate) mod routes;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use crate::datastore::inventory::{Interface, Object, Workload, ip_label};

/// A folder that was changed less than this ago may change again without a new modification time.
const SETTLING: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub struct PodLogs {
    folder: PathBuf,
    proc: PathBuf,
    node: String,
    pods: Mutex<Pods>,
}

#[derive(Debug, Default)]
struct Pods {
    by_hash: HashMap<String, Pod>,
    /// The folder's modification time at that read, if it had not changed for a while.
    settled: Option<SystemTime>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pod {
    namespace: String,
    name: String,
}

impl PodLogs {
    /// Creates a reader of the folders in `folder` for the pods of `node`, without reading anything. `proc` is `/proc`.
    pub fn new(folder: PathBuf, proc: PathBuf, node: String) -> Self {
        PodLogs { folder, proc, node, pods: Mutex::default() }
    }

    /// Returns the workloads on these interfaces that are pods with a folder. Reads the folders again only for an unknown interface and if
    /// something has changed. Reads the routes each time, because a pod of the same name may return with another address.
    pub fn workloads(&self, interfaces: &[&str]) -> io::Result<HashMap<String, Arc<Workload>>> {
        let pods = self.pods_on(interfaces)?;
        if pods.is_empty() {
            return Ok(HashMap::new());
        }
        let mut addresses = routes::of_interfaces(&self.proc, &|interface| pods.contains_key(interface));
        let workload = |(interface, pod): (&str, Pod)| {
            let networks = addresses.remove(interface).unwrap_or_default();
            let workload = Workload {
                interface: Interface::Name(interface.to_owned()),
                namespace: pod.namespace,
                pod: pod.name,
                ip: ip_label(networks.iter().map(String::as_str)),
                node: self.node.clone(),
                orchestrator: "k8s".into(),
                ..Workload::default()
            };
            (interface.to_owned(), Arc::new(workload))
        };
        Ok(pods.clone().into_iter().map(workload).collect())
    }

    fn pods_on<'a>(&self, interfaces: &[&'a str]) -> io::Result<HashMap<&'a str, Pod>> {
        let failed = |error: io::Error| {
            let remedy = "mount the host's folder, or set POD_LOGS_DIR";
            io::Error::new(error.kind(), format!("cannot read the pods' names from {}: {error} ({remedy})", self.folder.display()))
        };
        let modified = self.folder.metadata().and_then(|meta| meta.modified()).map_err(failed)?;
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let hashes: Vec<_> = interfaces.iter().filter_map(|interface| Some((*interface, Interface::split(interface)?.1))).collect();
        if pods.settled != Some(modified) && hashes.iter().any(|(_, hash)| !pods.by_hash.contains_key(*hash)) {
            *pods = Pods::read(&self.folder, modified).map_err(failed)?;
        }
        Ok(hashes.into_iter().filter_map(|(interface, hash)| Some((interface, pods.by_hash.get(hash)?.clone()))).collect())
    }
}

impl Pods {
    fn read(folder: &Path, modified: SystemTime) -> io::Result<Self> {
        let names = folder.read_dir()?.take(Workload::MOST).filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let by_hash =
            names.filter_map(|name| Pod::of_folder(&name)).map(|pod| (Interface::suffix_of(&pod.namespace, &pod.name), pod)).collect();
        let is_settled = SystemTime::now().duration_since(modified).is_ok_and(|age| age > SETTLING);
        Ok(Pods { by_hash, settled: is_settled.then_some(modified) })
    }
}

impl Pod {
    /// Parses `<namespace>_<pod>_<uid>`. None of the three can contain an underscore. A static pod's UID is the hash of its manifest.
    fn of_folder(name: &str) -> Option<Self> {
        let mut parts = name.split('_');
        let (namespace, pod, uid) = (parts.next()?, parts.next()?, parts.next()?);
        let good = |name: &str, longest| {
            (1..=longest).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
        };
        let is_pod = parts.next().is_none() && good(namespace, 63) && good(pod, 253) && !uid.is_empty();
        is_pod.then(|| Pod { namespace: namespace.to_owned(), name: pod.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn pod(namespace: &str, name: &str) -> Pod {
        Pod { namespace: namespace.into(), name: name.into() }
    }

    #[test]
    fn folders() {
        for (name, expected) in [
            ("shop_web-1_0f6c2e0e-7d0c-4f0f-9f5e-2d1f2a0c7a11", Some(("shop", "web-1"))),
            ("kube-system_etcd-node.a_8c0e3d6c5cb4a3c2b0b2f0f3a9f7c0de", Some(("kube-system", "etcd-node.a"))),
            ("shop_web-1", None),
            ("shop_web-1_", None),
            ("shop_web_1_uid", None),
            ("_web_uid", None),
            ("shop_\"}evil{_uid", None),
            ("Shop_web_uid", None),
            (&format!("shop_{}_uid", "a".repeat(254)), None),
            ("lost+found", None),
        ] {
            assert_eq!(Pod::of_folder(name), expected.map(|(namespace, name)| pod(namespace, name)), "{name}");
        }
    }

    struct Node(PathBuf);

    impl Node {
        fn new(test: &str) -> Self {
            let root = std::env::temp_dir().join(format!("calico-accountant-podlogs-{test}-{}", std::process::id()));
            _ = fs::remove_dir_all(&root);
            fs::create_dir_all(root.join("pods")).unwrap();
            fs::create_dir_all(root.join("proc/net")).unwrap();
            Node(root)
        }

        fn pod_logs(&self) -> PodLogs {
            PodLogs::new(self.0.join("pods"), self.0.join("proc"), "node-1".into())
        }

        fn add(&self, folder: &str) {
            fs::create_dir(self.0.join("pods").join(folder)).unwrap();
        }

        fn route(&self, interface: &str, destination: &str) {
            let line = format!("Iface\tDestination\n{interface}\t{destination}\t00000000\t0005\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n");
            fs::write(self.0.join("proc/net/route"), line).unwrap();
        }
    }

    impl Drop for Node {
        fn drop(&mut self) {
            _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_pod_has_its_names_and_addresses() {
        let node = Node::new("names");
        node.add("shop_web-1_uid");
        node.route("cali751425ce827", &format!("{:08X}", u32::from_ne_bytes([10, 65, 0, 11])));
        let found = node.pod_logs().workloads(&["cali751425ce827", "eth0", "cali00000000000"]).unwrap();
        let expected = Workload {
            interface: Interface::Name("cali751425ce827".into()),
            namespace: "shop".into(),
            pod: "web-1".into(),
            ip: "10.65.0.11".into(),
            node: "node-1".into(),
            orchestrator: "k8s".into(),
            ..Workload::default()
        };
        assert_eq!(found, HashMap::from([("cali751425ce827".to_owned(), Arc::new(expected))]));
    }

    #[test]
    fn new_pods_and_new_addresses_are_seen() {
        let node = Node::new("new");
        let pod_logs = node.pod_logs();
        let ip = || pod_logs.workloads(&["cali751425ce827"]).unwrap().get("cali751425ce827").map(|workload| workload.ip.clone());
        assert_eq!(ip(), None);
        node.add("shop_web-1_uid");
        assert_eq!(ip().as_deref(), Some(""));
        for last in [11, 12] {
            node.route("cali751425ce827", &format!("{:08X}", u32::from_ne_bytes([10, 65, 0, last])));
            assert_eq!(ip(), Some(format!("10.65.0.{last}")));
        }
    }

    #[test]
    fn the_folder_is_not_read_again_while_nothing_changes() {
        let node = Node::new("same");
        let pod_logs = node.pod_logs();
        let old = SystemTime::now() - Duration::from_secs(60);
        let touch = |time| fs::File::open(node.0.join("pods")).unwrap().set_modified(time).unwrap();
        touch(old);
        assert!(pod_logs.workloads(&["cali751425ce827"]).unwrap().is_empty());
        node.add("shop_web-1_uid");
        touch(old);
        assert!(pod_logs.workloads(&["cali751425ce827"]).unwrap().is_empty());
        touch(old + Duration::from_secs(1));
        assert_eq!(pod_logs.workloads(&["cali751425ce827"]).unwrap().len(), 1);
    }

    #[test]
    fn without_the_folder_there_is_an_error() {
        let pod_logs = PodLogs::new("/no/such/folder".into(), "/proc".into(), "n".into());
        let error = pod_logs.workloads(&[]).unwrap_err().to_string();
        assert!(error.contains("/no/such/folder: No such file") && error.contains("POD_LOGS_DIR"), "{error}");
    }
}
