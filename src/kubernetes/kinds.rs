//! The kinds of objects that are read from the API server: their paths, and their conversion to objects of the inventory. Asks the server
//! which API group Calico uses.

use std::io::Read;

use super::client::{Client, Question, encoded};
use super::messages::{Envelope, Groups};
use super::pods;
use crate::config::ApiGroup;
use crate::datastore::error::{Error, ErrorKind};
use crate::datastore::follow::LARGEST_FRAME;
use crate::datastore::inventory::{Kept, PolicyKind, StoredPolicy, Workload};

/// One kind of object: a collection of the API server, a part of the inventory.
pub(super) trait Kind {
    type Object: Kept;

    /// Whether `metadata` is sufficient.
    const METADATA_ONLY: bool;

    /// The kind's name in messages.
    fn name(&self) -> String;

    fn prefix(&self) -> String {
        String::new()
    }

    /// Returns the path of the collection, with a query if only a part of it is of interest. May ask the server.
    fn path(&self, client: &mut Client) -> Result<String, Error>;

    /// Reports whether this problem is acceptable: the server lacks the API, or we lack the right to read it.
    fn may_be(&self, _missing: ErrorKind) -> bool {
        false
    }

    /// Parses an object. Returns `None` if it is irrelevant.
    fn parse(&self, envelope: &Envelope<'_>, object: &str) -> serde_json::Result<Option<Self::Object>>;
}

pub(super) struct Pods {
    pub node: String,
}

impl Kind for Pods {
    type Object = Workload;

    const METADATA_ONLY: bool = false;

    fn name(&self) -> String {
        format!("pods of node {}", self.node)
    }

    fn path(&self, _client: &mut Client) -> Result<String, Error> {
        Ok(format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}", encoded(&self.node)))
    }

    fn parse(&self, _envelope: &Envelope<'_>, object: &str) -> serde_json::Result<Option<Workload>> {
        pods::workload(object, &self.node)
    }
}

/// The names of the policies in one collection.
pub(super) struct Policies {
    kind: PolicyKind,
    plural: &'static str,
    /// Group and version. `None` for Calico's own policies, which have two possible groups.
    group: Option<&'static str>,
    api_group: ApiGroup,
}

impl Policies {
    /// Returns all kinds for which Felix creates chains.
    pub fn all(api_group: ApiGroup) -> [Policies; 6] {
        let (admin, cluster) = (Some("policy.networking.k8s.io/v1alpha1"), Some("policy.networking.k8s.io/v1alpha2"));
        [
            (PolicyKind::NetworkPolicy, "networkpolicies", None),
            (PolicyKind::GlobalNetworkPolicy, "globalnetworkpolicies", None),
            (PolicyKind::KubernetesNetworkPolicy, "networkpolicies", Some("networking.k8s.io/v1")),
            (PolicyKind::AdminNetworkPolicy, "adminnetworkpolicies", admin),
            (PolicyKind::BaselineAdminNetworkPolicy, "baselineadminnetworkpolicies", admin),
            (PolicyKind::ClusterNetworkPolicy, "clusternetworkpolicies", cluster),
        ]
        .map(|(kind, plural, group)| Policies { kind, plural, group, api_group })
    }
}

impl Kind for Policies {
    type Object = StoredPolicy;

    const METADATA_ONLY: bool = true;

    fn name(&self) -> String {
        let group = self.group.map_or("projectcalico.org", |group| group.split('/').next().unwrap_or_default());
        format!("{}.{group}", self.plural)
    }

    fn prefix(&self) -> String {
        format!("{}/", self.name())
    }

    fn path(&self, client: &mut Client) -> Result<String, Error> {
        let group = match (self.group, self.api_group) {
            (Some(group), _) => group,
            (None, ApiGroup::Crd) => CRD,
            (None, ApiGroup::V3) => V3,
            (None, ApiGroup::Discover) => calico_group(client)?,
        };
        Ok(format!("/apis/{group}/{}", self.plural))
    }

    fn may_be(&self, missing: ErrorKind) -> bool {
        match missing {
            ErrorKind::Absent => true,
            // These kinds exist only with Calico ≥ 3.29, whose chains have the policies' names anyway. No demo role includes them.
            ErrorKind::Denied => self.group.is_some_and(|group| group.starts_with("policy.")),
            _ => false,
        }
    }

    fn parse(&self, envelope: &Envelope<'_>, _object: &str) -> serde_json::Result<Option<StoredPolicy>> {
        let namespace = envelope.namespace().map(str::to_owned);
        Ok(Some(StoredPolicy { kind: self.kind, namespace, name: envelope.name().to_owned() }))
    }
}

const CRD: &str = "crd.projectcalico.org/v1";
const V3: &str = "projectcalico.org/v3";

/// Finds the group in which Calico's own policies are stored. If both groups are served, the v3 one is Calico's API server, which returns
/// other names than the stored ones. Upstream: `k8s/discovery.go` (≥ 3.32).
fn calico_group(client: &mut Client) -> Result<&'static str, Error> {
    let question = Question { path: "/apis", accept: "application/json", verb: "get", resource: "the API groups" };
    let answer = match client.get(&question) {
        Ok(answer) => answer,
        // No special right is needed for this, but just after a server's start everything is denied.
        Err(error) if matches!(error.kind, ErrorKind::Denied | ErrorKind::Absent | ErrorKind::Refused) => return Ok(CRD),
        Err(error) => return Err(error),
    };
    let answer = std::io::BufReader::new(answer.take(LARGEST_FRAME as u64));
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
    fn the_v3_group_counts_only_alone() {
        let stored = |names: &[&str]| {
            let groups: Vec<_> = names.iter().map(|name| format!(r#"{{"name":"{name}","versions":[]}}"#)).collect();
            stored_in(&serde_json::from_str(&format!(r#"{{"kind":"APIGroupList","groups":[{}]}}"#, groups.join(","))).unwrap())
        };
        assert_eq!(stored(&["apps", "projectcalico.org"]), V3);
        // If the stored group is served too, these are Calico's API server.
        assert_eq!(stored(&["projectcalico.org", "crd.projectcalico.org"]), CRD);
        assert_eq!(stored(&["apps"]), CRD);
    }

    #[test]
    fn collections_of_one_plural_do_not_share_their_keys() {
        let all = Policies::all(ApiGroup::Discover);
        assert_eq!(
            all.each_ref().map(Kind::prefix),
            [
                "networkpolicies.projectcalico.org/",
                "globalnetworkpolicies.projectcalico.org/",
                "networkpolicies.networking.k8s.io/",
                "adminnetworkpolicies.policy.networking.k8s.io/",
                "baselineadminnetworkpolicies.policy.networking.k8s.io/",
                "clusternetworkpolicies.policy.networking.k8s.io/",
            ]
        );
        assert_eq!(all.map(|policies| policies.may_be(ErrorKind::Denied)), [false, false, false, true, true, true]);
    }
}
