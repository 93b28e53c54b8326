//! Looks up pods of the whole cluster for a command: the node of a workload, and the exporters. Touches the API server. Needs only the
//! right to list pods.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::client::{Client, Limits, Question, encoded};
use super::configured::Configured;
use super::messages::read_list;
use crate::config::KubernetesConfig;
use crate::datastore::bounds::at_most;
use crate::datastore::error::{Error, ErrorKind};
use crate::datastore::http::{self, Requester as _};
use crate::datastore::inventory::{TooMany, Workload};

/// More than the number of nodes of the largest cluster.
const MOST: usize = 20_000;

/// Which pods to list. All conditions must hold.
#[derive(Debug, Clone, Copy, Default)]
pub struct Query<'a> {
    pub namespace: Option<&'a str>,
    pub name: Option<&'a str>,
    pub node: Option<&'a str>,
    /// A label selector, as for `kubectl -l`.
    pub labels: Option<&'a str>,
}

impl Query<'_> {
    fn path(&self) -> String {
        let collection = self.namespace.map_or_else(|| "/api/v1/pods".to_owned(), |ns| format!("/api/v1/namespaces/{}/pods", encoded(ns)));
        let fields = [("metadata.name", self.name), ("spec.nodeName", self.node)];
        let fields: Vec<String> = fields.iter().filter_map(|(field, value)| Some(format!("{field}={}", (*value)?))).collect();
        let mut path = format!("{collection}?limit=500");
        for (parameter, text) in [("fieldSelector", fields.join(",")), ("labelSelector", self.labels.unwrap_or_default().to_owned())] {
            if !text.is_empty() {
                path += &format!("&{parameter}={}", encoded(&text));
            }
        }
        path
    }
}

/// The needed fields of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    /// Empty until it is scheduled.
    pub node: String,
    pub address: Option<IpAddr>,
    pub host_network: bool,
    /// The pod has ended, and only its name is left.
    pub is_finished: bool,
    /// Kind and name of its owners. For a ReplicaSet of a Deployment, also the Deployment.
    owner: Vec<(String, String)>,
    /// An exporter's settings, as far as they are plain values in the pod.
    pub port: Option<u16>,
    pub listen_address: Option<IpAddr>,
    /// Why its containers do not run.
    pub problem: Option<String>,
}

impl Pod {
    /// Reports whether a Deployment, StatefulSet, … of this name owns it. `kind` is in lower case.
    pub fn belongs_to(&self, kind: &str, name: &str) -> bool {
        self.owner.iter().any(|(of, owner)| of.eq_ignore_ascii_case(kind) && owner == name)
    }
}

/// Asks as the exporter does, but with shorter timeouts.
pub struct Lookup(Client);

impl Lookup {
    pub fn new(config: &KubernetesConfig) -> Self {
        let limits = Limits::default();
        let (connect, answer, list) = (Duration::from_secs(3), Duration::from_secs(10), Duration::from_secs(30));
        let http = http::Limits { connect, answer, list, whole: list, ..limits.http };
        Lookup(Client::new(Arc::new(Configured::new(config.clone())), Limits { http, ..limits }))
    }

    pub fn pods(&mut self, query: Query<'_>) -> Result<Vec<Pod>, Error> {
        let (mut pods, began) = (Vec::new(), std::time::Instant::now());
        // From the server's memory, as of any time. The pages after the first are of the same moment.
        let mut page = "resourceVersion=0".to_owned();
        loop {
            self.0.in_time(began)?;
            let path = format!("{}&{page}", query.path());
            let question = Question { path: &path, accept: "application/json", verb: "list", resource: "pods" };
            let mut take = |object: &serde_json::value::RawValue| {
                match serde_json::from_str::<Object>(object.get()) {
                    Ok(object) => pods.push(object.pod()),
                    Err(error) => log::debug!("a pod is skipped, it cannot be understood: {error}"),
                }
                if pods.len() > MOST { Err(TooMany::of::<Workload>()) } else { Ok(()) }
            };
            let stream = self.0.get(&question)?;
            let read = read_list(stream, &mut take);
            if pods.len() > MOST {
                return Err(self.0.error(ErrorKind::TooMuch, format_args!("more than {MOST} pods")));
            }
            let Some(next) = read.map_err(|error| self.0.unreadable(error))?.next_page() else { return Ok(pods) };
            page = next;
        }
    }
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    labels: Option<Labels>,
    #[serde(default, deserialize_with = "at_most::<_, _, 100>")]
    owner_references: Vec<Owner>,
}

#[derive(Deserialize)]
struct Labels {
    #[serde(rename = "pod-template-hash")]
    template: Option<String>,
}

#[derive(Deserialize)]
struct Owner {
    kind: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    host_network: bool,
    #[serde(deserialize_with = "at_most::<_, _, 100>")]
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    #[serde(default, deserialize_with = "at_most::<_, _, 1000>")]
    env: Vec<Variable>,
}

#[derive(Deserialize)]
struct Variable {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    phase: String,
    reason: String,
    #[serde(rename = "hostIP")]
    host_ip: String,
    #[serde(rename = "podIP")]
    pod_ip: String,
    #[serde(deserialize_with = "at_most::<_, _, 100>")]
    container_statuses: Vec<ContainerStatus>,
}

#[derive(Deserialize)]
struct ContainerStatus {
    #[serde(default)]
    state: State,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct State {
    waiting: Option<Reason>,
    terminated: Option<Reason>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reason {
    reason: String,
    message: String,
}

impl Object {
    fn pod(self) -> Pod {
        let Object { metadata, spec, status } = self;
        let template = metadata.labels.and_then(|labels| labels.template).unwrap_or_default();
        let mut owner: Vec<(String, String)> = metadata.owner_references.into_iter().map(|owner| (owner.kind, owner.name)).collect();
        // The Deployment's controller names a ReplicaSet by its own name and the template's hash.
        let deployment =
            owner.iter().filter(|(kind, _)| kind == "ReplicaSet").find_map(|(_, name)| name.strip_suffix(&*template)?.strip_suffix('-'));
        owner.extend(deployment.map(|name| ("Deployment".to_owned(), name.to_owned())).filter(|_| !template.is_empty()));
        let variable = |name: &str| {
            let all = spec.containers.iter().flat_map(|container| &container.env);
            all.filter(|variable| variable.name == name).map(|variable| variable.value.trim()).next_back()
        };
        Pod {
            port: variable("METRICS_SERVER_PORT").and_then(|port| port.parse().ok()),
            listen_address: variable("LISTEN_ADDRESS").and_then(|address| address.parse().ok()),
            problem: status.problem(),
            is_finished: ["Succeeded", "Failed"].contains(&&*status.phase),
            address: status.pod_ip.parse().or_else(|_| status.host_ip.parse()).ok(),
            namespace: metadata.namespace,
            name: metadata.name,
            node: spec.node_name.unwrap_or_default(),
            host_network: spec.host_network,
            owner,
        }
    }
}

impl Status {
    fn problem(&self) -> Option<String> {
        let reason =
            self.container_statuses.iter().find_map(|container| container.state.waiting.as_ref().or(container.state.terminated.as_ref()));
        match reason {
            Some(Reason { reason, message }) if message.is_empty() => Some(reason.clone()),
            Some(Reason { reason, message }) => Some(format!("{reason}: {message}")),
            None if self.phase == "Running" || self.phase.is_empty() => None,
            None if self.reason.is_empty() => Some(self.phase.clone()),
            None => Some(format!("{}: {}", self.phase, self.reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(object: serde_json::Value) -> Pod {
        serde_json::from_value::<Object>(object).unwrap().pod()
    }

    #[test]
    fn conditions_are_the_servers() {
        assert_eq!(Query::default().path(), "/api/v1/pods?limit=500");
        let all = Query { namespace: Some("shop"), name: Some("web-1"), node: Some("n&1"), labels: Some("app in (a,b)") };
        let fields = "fieldSelector=metadata.name%3Dweb-1%2Cspec.nodeName%3Dn%261";
        assert_eq!(all.path(), format!("/api/v1/namespaces/shop/pods?limit=500&{fields}&labelSelector=app%20in%20%28a%2Cb%29"));
    }

    #[test]
    fn a_deployments_pods_are_known_by_their_replica_set() {
        let owned = |kind: &str, name: &str, hash: &str| {
            let labels = json!({"pod-template-hash": hash});
            let metadata = json!({"name": "p", "namespace": "n", "labels": labels, "ownerReferences": [{"kind": kind, "name": name}]});
            pod(json!({ "metadata": metadata }))
        };
        let web = owned("ReplicaSet", "web-7d4b", "7d4b");
        assert!(web.belongs_to("deployment", "web") && web.belongs_to("replicaset", "web-7d4b") && !web.belongs_to("deployment", "we"));
        assert!(owned("StatefulSet", "db", "").belongs_to("statefulset", "db"));
        for (kind, name, hash) in [("ReplicaSet", "web-7d4b", ""), ("ReplicaSet", "web-7d4b", "other"), ("Job", "web-7d4b", "7d4b")] {
            assert!(!owned(kind, name, hash).belongs_to("deployment", "web"), "{kind} {name} {hash}");
        }
    }

    #[test]
    fn an_exporters_settings_and_troubles() {
        let env = json!([{"name": "LISTEN_ADDRESS", "value": "127.0.0.1"}, {"name": "NODENAME", "valueFrom": {}}, {"name": "METRICS_SERVER_PORT", "value": "9010"}]);
        let of = |status: serde_json::Value| {
            let spec = json!({"nodeName": "n1", "hostNetwork": true, "containers": [{"env": env}]});
            pod(json!({"metadata": {"name": "a", "namespace": "b"}, "spec": spec, "status": status}))
        };
        let running = of(json!({"phase": "Running", "podIP": "10.0.0.1", "containerStatuses": [{"state": {"running": {}}}]}));
        assert_eq!((running.port, running.listen_address), (Some(9010), "127.0.0.1".parse().ok()));
        assert_eq!((running.address, running.problem, running.host_network), ("10.0.0.1".parse().ok(), None, true));
        let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
        for (status, problem) in [
            (json!({"phase": "Pending", "containerStatuses": [{"state": waiting}]}), "ImagePullBackOff: no such image"),
            (json!({"phase": "Pending"}), "Pending"),
            (json!({"phase": "Failed", "reason": "Evicted"}), "Failed: Evicted"),
        ] {
            assert_eq!(of(status).problem.as_deref(), Some(problem));
        }
    }
}
