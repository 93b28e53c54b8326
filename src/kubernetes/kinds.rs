//! What is read from the API server, from which path, and what becomes of it. In come objects; out go changes of the
//! [`Inventory`]. To find out which API group Calico uses, it asks the server.

use std::fmt::Write;
use std::io::Read;
use std::sync::Arc;

use super::client::{Client, Question};
use super::error::Error;
use super::messages::{Envelope, Groups, LARGEST_OBJECT};
use super::{CalicoApi, pods};
use crate::datastore::inventory::{Inventory, Object, PolicyKind, StoredPolicy, Table, TooMany, Workload};

/// One kind of object: a collection of the API server's, a part of the inventory.
pub(super) trait Kind {
    /// What an object becomes.
    type Object: Object;

    /// Whether `metadata` is all that is needed.
    const METADATA_ONLY: bool;

    /// What is followed, as messages name it.
    fn name(&self) -> &str;

    /// The path of the collection, and a query if only a part of it is of interest.
    ///
    /// # Errors
    /// When the server has to be asked and does not answer.
    fn path(&self, client: &mut Client) -> Result<String, Error>;

    /// Whether the server may do without the API.
    fn may_be_absent(&self) -> bool;

    /// Whether we may do without the right to read it.
    fn may_be_denied(&self) -> bool;

    /// What the object is to us; `None` if it is none of ours.
    ///
    /// # Errors
    /// When it cannot be understood.
    fn parse(&self, envelope: &Envelope<'_>, object: &str) -> serde_json::Result<Option<Self::Object>>;

    /// The object's key in the inventory.
    fn key(&self, envelope: &Envelope<'_>) -> String;

    /// Takes over a full list.
    ///
    /// # Errors
    /// There are too many objects; nothing is changed.
    fn replace(&mut self, objects: Table<Self::Object>) -> Result<(), TooMany>;

    /// Takes over one new or changed object.
    ///
    /// # Errors
    /// There are too many objects; nothing is changed.
    fn put(&mut self, key: &str, object: Self::Object) -> Result<(), TooMany>;

    /// Forgets one object.
    fn delete(&mut self, key: &str);
}

/// The pods of one node.
pub(super) struct Pods {
    node: String,
    name: String,
    inventory: Arc<Inventory>,
}

impl Pods {
    pub fn new(node: String, inventory: Arc<Inventory>) -> Self {
        Pods { name: format!("pods of node {node}"), node, inventory }
    }
}

impl Kind for Pods {
    type Object = Workload;

    const METADATA_ONLY: bool = false;

    fn name(&self) -> &str {
        &self.name
    }

    fn path(&self, _client: &mut Client) -> Result<String, Error> {
        Ok(format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}", encoded(&self.node)))
    }

    fn may_be_absent(&self) -> bool {
        false
    }

    fn may_be_denied(&self) -> bool {
        false
    }

    fn parse(&self, _envelope: &Envelope<'_>, object: &str) -> serde_json::Result<Option<Workload>> {
        pods::workload(object, &self.node)
    }

    fn key(&self, envelope: &Envelope<'_>) -> String {
        envelope.key()
    }

    fn replace(&mut self, objects: Table<Workload>) -> Result<(), TooMany> {
        self.inventory.replace_workloads(objects);
        self.inventory.mark_synced();
        Ok(())
    }

    fn put(&mut self, key: &str, workload: Workload) -> Result<(), TooMany> {
        self.inventory.put_workload(key, workload)
    }

    fn delete(&mut self, key: &str) {
        self.inventory.remove_workload(key);
    }
}

/// A text as part of a query.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => encoded.push(byte.into()),
            _ => _ = write!(encoded, "%{byte:02X}"),
        }
    }
    encoded
}

/// One collection of policies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Collection {
    kind: PolicyKind,
    plural: &'static str,
    /// Group and version; `None` for Calico's own, of which there are two.
    group: Option<&'static str>,
}

impl Collection {
    /// All from which Felix makes chains.
    pub const ALL: [Collection; 6] = [
        Collection { kind: PolicyKind::NetworkPolicy, plural: "networkpolicies", group: None },
        Collection { kind: PolicyKind::GlobalNetworkPolicy, plural: "globalnetworkpolicies", group: None },
        Collection { kind: PolicyKind::KubernetesNetworkPolicy, plural: "networkpolicies", group: Some("networking.k8s.io/v1") },
        Collection {
            kind: PolicyKind::AdminNetworkPolicy,
            plural: "adminnetworkpolicies",
            group: Some("policy.networking.k8s.io/v1alpha1"),
        },
        Collection {
            kind: PolicyKind::BaselineAdminNetworkPolicy,
            plural: "baselineadminnetworkpolicies",
            group: Some("policy.networking.k8s.io/v1alpha1"),
        },
        Collection {
            kind: PolicyKind::ClusterNetworkPolicy,
            plural: "clusternetworkpolicies",
            group: Some("policy.networking.k8s.io/v1alpha2"),
        },
    ];
}

/// The names of the policies in one collection.
pub(super) struct Policies {
    collection: Collection,
    calico_api: CalicoApi,
    name: String,
    /// What its keys in the inventory start with.
    prefix: String,
    inventory: Arc<Inventory>,
    listed: bool,
}

impl Policies {
    pub fn new(collection: Collection, calico_api: CalicoApi, inventory: Arc<Inventory>) -> Self {
        let group = collection.group.map_or("projectcalico.org", |group| group.split('/').next().unwrap_or_default());
        let name = format!("{}.{group}", collection.plural);
        Policies { collection, calico_api, prefix: format!("{name}/"), name, inventory, listed: false }
    }
}

impl Kind for Policies {
    type Object = StoredPolicy;

    const METADATA_ONLY: bool = true;

    fn name(&self) -> &str {
        &self.name
    }

    fn path(&self, client: &mut Client) -> Result<String, Error> {
        let group = match (self.collection.group, self.calico_api) {
            (Some(group), _) => group,
            (None, CalicoApi::Crd) => CRD,
            (None, CalicoApi::V3) => V3,
            (None, CalicoApi::Discover) => calico_group(client)?,
        };
        Ok(format!("/apis/{group}/{}", self.collection.plural))
    }

    fn may_be_absent(&self) -> bool {
        true
    }

    /// Those of Calico ≥ 3.29 and of nobody's demo roles are; its chains name themselves anyway.
    fn may_be_denied(&self) -> bool {
        self.collection.group.is_some_and(|group| group.starts_with("policy."))
    }

    fn parse(&self, envelope: &Envelope<'_>, _object: &str) -> serde_json::Result<Option<StoredPolicy>> {
        let namespace = envelope.namespace().map(str::to_owned);
        Ok(Some(StoredPolicy { kind: self.collection.kind, namespace, name: envelope.name().to_owned() }))
    }

    fn key(&self, envelope: &Envelope<'_>) -> String {
        format!("{}{}", self.prefix, envelope.key())
    }

    fn replace(&mut self, objects: Table<StoredPolicy>) -> Result<(), TooMany> {
        self.inventory.replace_policies_under(&self.prefix, objects)?;
        // The first list came because it was asked for; only the later ones make up for something missed.
        if self.listed {
            self.inventory.mark_synced();
        }
        self.listed = true;
        Ok(())
    }

    fn put(&mut self, key: &str, policy: StoredPolicy) -> Result<(), TooMany> {
        self.inventory.put_policy(key, policy)
    }

    fn delete(&mut self, key: &str) {
        self.inventory.remove_policy(key);
    }
}

const CRD: &str = "crd.projectcalico.org/v1";
const V3: &str = "projectcalico.org/v3";

/// Where Calico's own policies are stored. Where both groups are served, the v3 one is Calico's API server, which gives them
/// other names than the stored ones. Upstream: `k8s/discovery.go` (≥ 3.32).
fn calico_group(client: &mut Client) -> Result<&'static str, Error> {
    let question = Question { path: "/apis", accept: "application/json", verb: "get", resource: "the API groups", stream: false };
    let answer = match client.get(&question) {
        Ok(answer) => answer,
        // Nobody needs a right to it, but just after a start of the server nobody has any right.
        Err(Error::Denied { .. } | Error::Absent { .. } | Error::Refused { .. }) => return Ok(CRD),
        Err(error) => return Err(error),
    };
    let answer = std::io::BufReader::new(answer.take(LARGEST_OBJECT as u64));
    let groups: Groups = serde_json::from_reader(answer).map_err(|error| client.unreadable(error))?;
    Ok(stored_in(&groups))
}

fn stored_in(groups: &Groups) -> &'static str {
    if groups.has("projectcalico.org") && !groups.has("crd.projectcalico.org") { V3 } else { CRD }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nodes_name_cannot_change_the_question() {
        assert_eq!(encoded("node-1.example.org"), "node-1.example.org");
        assert_eq!(encoded("a&watch=1 ü"), "a%26watch%3D1%20%C3%BC");
    }

    #[test]
    fn the_v3_group_counts_only_alone() {
        let stored = |names: &[&str]| {
            let groups: Vec<_> = names.iter().map(|name| format!(r#"{{"name":"{name}","versions":[]}}"#)).collect();
            stored_in(&serde_json::from_str(&format!(r#"{{"kind":"APIGroupList","groups":[{}]}}"#, groups.join(","))).unwrap())
        };
        assert_eq!(stored(&["apps", "projectcalico.org"]), V3);
        // Beside the stored ones, these are Calico's API server.
        assert_eq!(stored(&["projectcalico.org", "crd.projectcalico.org"]), CRD);
        assert_eq!(stored(&["apps"]), CRD);
    }

    #[test]
    fn collections_of_one_plural_do_not_share_their_keys() {
        let inventory = Arc::new(Inventory::new());
        let mut all = Collection::ALL.map(|collection| Policies::new(collection, CalicoApi::Discover, Arc::clone(&inventory)));
        for policies in &mut all {
            let policy = StoredPolicy { kind: policies.collection.kind, namespace: Some("prod".into()), name: "web".into() };
            let envelope = serde_json::from_str(r#"{"metadata":{"name":"web","namespace":"prod"}}"#).unwrap();
            policies.replace(vec![(policies.key(&envelope), policy)].try_into().unwrap()).unwrap();
        }
        assert_eq!(inventory.policies().len(), 6);
        all[2].delete("networkpolicies.networking.k8s.io/prod/web");
        all[0].replace(Table::default()).unwrap();
        assert_eq!(inventory.policies().len(), 4);
        assert_eq!(all[2].name(), "networkpolicies.networking.k8s.io");
        assert_eq!(all.map(|policies| policies.may_be_denied()), [false, false, false, true, true, true]);
    }
}
