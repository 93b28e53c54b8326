//! Which policy a policy chain belongs to. Pure. From Calico 3.22 on, the comment on the chain's first rule names it. Before that, only
//! hashes of the datastore's names do.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::names::{self, policy_id};
use crate::datastore::inventory::{PolicyKind, StoredPolicy};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PolicyName {
    /// `NetworkPolicy`, `GlobalNetworkPolicy`, …; `Policy` if the release did not distinguish kinds (3.22 to 3.31).
    pub kind: Arc<str>,
    pub namespace: Option<Arc<str>>,
    pub name: Arc<str>,
}

impl PolicyName {
    /// Parses the last comment of a chain's first rule: `Policy default/knp.default.foo ingress` (3.22 to 3.31),
    /// `GlobalNetworkPolicy foo egress` (≥ 3.32), `Profile kns.default ingress`. Upstream: `felix/rules/policy.go`.
    pub fn from_comment(comment: &str) -> Option<Self> {
        // Annotations of rules are comments too, but they always contain a '=', which no name does.
        if comment.contains('=') {
            return None;
        }
        let mut words = comment.split(' ');
        let (kind, name, direction) = (words.next()?, words.next()?, words.next()?);
        let kind_is_known = kind == "Profile" || kind.ends_with("Policy");
        if words.next().is_some() || name.is_empty() || !kind_is_known || !matches!(direction, "ingress" | "egress") {
            return None;
        }
        Some(Self::new(kind, name))
    }

    /// Splits a name that begins with its namespace, if it has one.
    fn new(kind: &str, name: &str) -> Self {
        let (namespace, name) = name.split_once('/').map_or((None, name), |(namespace, name)| (Some(namespace.into()), name));
        PolicyName { kind: kind.into(), namespace, name: name.into() }
    }

    /// Parses the same at the end of a comment that contains several (Calico's own nftables tables).
    pub fn from_end_of_comment(comment: &str) -> Option<Self> {
        let mut words = comment.rsplitn(4, ' ');
        let (direction, name, kind) = (words.next()?, words.next()?, words.next()?);
        Self::from_comment(&format!("{kind} {name} {direction}"))
    }

    /// Parses the name of a chain that is not hashed, as in Calico's own nftables tables since 3.30: `cali-pi-np/shop/web` (≥ 3.32),
    /// `cali-pi-<tier>/shop/default.web` before.
    pub fn from_long_chain(chain: &str) -> Option<Self> {
        let (first, rest) = policy_id(chain).filter(|id| !id.starts_with('_'))?.split_once('/')?;
        let kind = match first {
            "np" => "NetworkPolicy",
            "gnp" => "GlobalNetworkPolicy",
            "knp" => "KubernetesNetworkPolicy",
            "kcnp" => "KubernetesClusterNetworkPolicy",
            _ => "Policy",
        };
        Some(Self::new(kind, rest))
    }

    /// Parses the name of a chain that is not hashed, up to 3.21: `cali-po-shop/default.web`, `cali-pi-default.deny-all`.
    pub fn from_chain(chain: &str) -> Option<Self> {
        let policy = Self::new("Policy", policy_id(chain).filter(|id| !id.starts_with('_'))?);
        (!policy.name.is_empty()).then_some(policy)
    }

    /// Returns the tier, if the name contains it. Up to 3.31 it always does.
    pub fn tier(&self) -> Option<&str> {
        match &*self.kind {
            "Policy" => Some(tier_from_name(&self.name)),
            "KubernetesNetworkPolicy" => Some("default"),
            _ => None,
        }
    }

    fn from_store(policy: &StoredPolicy, era: Era) -> Self {
        let (kind, name) = match era {
            Era::Name | Era::TierAndName => ("Policy", legacy_name(policy)),
            Era::KindAndName => (kind_and_short(policy.kind).0, policy.name.as_str().into()),
        };
        PolicyName { kind: kind.into(), namespace: policy.namespace.as_deref().map(Into::into), name: name.into() }
    }

    /// Returns the `policy` label: the name that the Go exporter gave (`PolicyKey.Name` of Calico ≤ 3.31). For ≥ 3.32 it is made again, so
    /// that series survive the upgrade. `tier` is the tier that refers to the policy.
    pub fn label(&self, tier: &str) -> String {
        let name = &*self.name;
        let legacy_prefix = ["default.", "knp.", "ossg."].iter().any(|prefix| name.starts_with(prefix));
        let name = match &*self.kind {
            "KubernetesNetworkPolicy" => format!("knp.default.{name}"),
            "KubernetesClusterNetworkPolicy" => format!("kcnp.{name}"),
            "NetworkPolicy" | "GlobalNetworkPolicy" if tier == "default" && !legacy_prefix => format!("default.{name}"),
            _ => name.to_owned(),
        };
        with_namespace(self.namespace.as_deref(), &name)
    }

    /// Returns kind, namespace and name. Calico stores Kubernetes policies under its own names, and up to 3.31 puts the tier into names.
    pub fn as_written(&self, tier: &str) -> (String, String, String) {
        let namespace = self.namespace.as_deref().unwrap_or_default().to_owned();
        for (prefix, kind) in [
            ("knp.default.", "KubernetesNetworkPolicy"),
            ("kanp.adminnetworkpolicy.", "AdminNetworkPolicy"),
            ("kbanp.baselineadminnetworkpolicy.", "BaselineAdminNetworkPolicy"),
        ] {
            if let Some(name) = self.name.strip_prefix(prefix) {
                return (kind.to_owned(), namespace, name.to_owned());
            }
        }
        let kind = match (&*self.kind, namespace.is_empty()) {
            ("Policy", true) => "GlobalNetworkPolicy",
            ("Policy", false) => "NetworkPolicy",
            (kind, _) => kind,
        };
        let name = self.name.strip_prefix("default.").filter(|_| tier == "default").unwrap_or(&self.name);
        (kind.to_owned(), namespace, name.to_owned())
    }
}

fn with_namespace(namespace: Option<&str>, name: &str) -> String {
    namespace.map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"))
}

/// The three ways in which releases formed a chain's name from a policy's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Era {
    /// ≤ 3.28: the name.
    Name,
    /// 3.29 to 3.31: tier and name.
    TierAndName,
    /// ≥ 3.32: kind, namespace and name.
    KindAndName,
}

impl Era {
    const ALL: [Era; 3] = [Era::Name, Era::TierAndName, Era::KindAndName];

    /// Returns what is hashed; `None` if no release of the era had policies of this kind.
    fn id(self, policy: &StoredPolicy) -> Option<String> {
        use PolicyKind::{AdminNetworkPolicy, BaselineAdminNetworkPolicy, ClusterNetworkPolicy};
        let admin = matches!(policy.kind, AdminNetworkPolicy | BaselineAdminNetworkPolicy);
        let cluster = policy.kind == ClusterNetworkPolicy;
        let in_namespace = |name: &str| with_namespace(policy.namespace.as_deref(), name);
        match self {
            Era::Name => (!admin && !cluster).then(|| in_namespace(&legacy_name(policy))),
            Era::TierAndName => {
                let name = legacy_name(policy);
                (!cluster).then(|| format!("{}/{}", tier_from_name(&name), in_namespace(&name)))
            }
            Era::KindAndName => (!admin).then(|| format!("{}/{}", kind_and_short(policy.kind).1, in_namespace(&policy.name))),
        }
    }
}

/// Returns the name that Calico ≤ 3.31 gives a policy. Kubernetes policies get a prefix that no Calico policy can have.
/// Upstream: `libcalico-go/lib/names/policy.go`.
fn legacy_name(policy: &StoredPolicy) -> Cow<'_, str> {
    let prefix = match policy.kind {
        PolicyKind::NetworkPolicy | PolicyKind::GlobalNetworkPolicy => return policy.name.as_str().into(),
        PolicyKind::KubernetesNetworkPolicy => "knp.default.",
        PolicyKind::AdminNetworkPolicy => "kanp.adminnetworkpolicy.",
        PolicyKind::BaselineAdminNetworkPolicy => "kbanp.baselineadminnetworkpolicy.",
        PolicyKind::ClusterNetworkPolicy => "kcnp.",
    };
    format!("{prefix}{}", policy.name).into()
}

/// Returns how Calico ≥ 3.32 names a kind, in comments and in what it hashes (`felix/types/policy_id.go`).
fn kind_and_short(kind: PolicyKind) -> (&'static str, &'static str) {
    match kind {
        PolicyKind::NetworkPolicy => ("NetworkPolicy", "np"),
        PolicyKind::GlobalNetworkPolicy => ("GlobalNetworkPolicy", "gnp"),
        PolicyKind::KubernetesNetworkPolicy => ("KubernetesNetworkPolicy", "knp"),
        PolicyKind::ClusterNetworkPolicy => ("KubernetesClusterNetworkPolicy", "kcnp"),
        // These releases do not have them. Kinds without a short form are written out.
        PolicyKind::AdminNetworkPolicy => ("AdminNetworkPolicy", "AdminNetworkPolicy"),
        PolicyKind::BaselineAdminNetworkPolicy => ("BaselineAdminNetworkPolicy", "BaselineAdminNetworkPolicy"),
    }
}

/// Upstream: `names.TierFromPolicyName` (3.29 to 3.31).
fn tier_from_name(name: &str) -> &str {
    match name.split_once('.') {
        Some(("knp" | "ossg", _)) | None => "default",
        Some(("kanp", _)) => "adminnetworkpolicy",
        Some(("kbanp", _)) => "baselineadminnetworkpolicy",
        Some((tier, _)) => tier,
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashedName {
    pub policy: PolicyName,
    pub tier: Arc<str>,
    pub hashed: String,
}

/// Returns the names of a policy in all eras in which they contain its tier. Since 3.32, those of Calico's own policies need not.
pub fn hashed_names(policy: &StoredPolicy) -> impl Iterator<Item = HashedName> + '_ {
    Era::ALL.into_iter().filter_map(|era| {
        let tier = match era {
            Era::Name | Era::TierAndName => tier_from_name(&legacy_name(policy)).into(),
            // In etcd, kube-controllers store Kubernetes policies as Calico policies under such names.
            Era::KindAndName if policy.kind == PolicyKind::KubernetesNetworkPolicy || policy.name.starts_with("knp.default.") => {
                "default".into()
            }
            Era::KindAndName => return None,
        };
        Some(HashedName { policy: PolicyName::from_store(policy, era), tier, hashed: era.id(policy)? })
    })
}

/// Names for chains that do not contain theirs, from the datastore's policies.
#[derive(Debug, Default)]
pub struct ChainNames {
    /// By the part after `cali-pi-` or `cali-po-`. Two eras can give two policies the same chain name.
    policies: HashMap<String, Vec<(Era, PolicyName)>>,
}

impl ChainNames {
    pub fn new(policies: &[StoredPolicy]) -> Self {
        let mut names = ChainNames::default();
        for policy in policies {
            for era in Era::ALL {
                let Some(id) = era.id(policy) else { continue };
                names.policies.entry(names::limited_policy_id(&id)).or_default().push((era, PolicyName::from_store(policy, era)));
            }
        }
        names
    }

    /// Returns the policies of these chains (`cali-pi-…`, `cali-po-…`), in their order; `None` for unknown ones. If a chain fits two
    /// policies, the one of the era of most other chains is taken.
    pub fn resolve(&self, chains: &[&str]) -> Vec<Option<PolicyName>> {
        let candidates: Vec<&[(Era, PolicyName)]> = chains.iter().map(|chain| self.candidates(chain)).collect();
        let votes = |era| candidates.iter().filter(|&&c| matches!(c, [(of, _)] if *of == era)).count();
        // If two eras have as many votes, the older one wins (`max_by_key` takes the last), because only ≤ 3.21 depends on hashes.
        let winner = Era::ALL.into_iter().rev().max_by_key(|&era| votes(era));
        let pick = |c: &[(Era, PolicyName)]| c.iter().find(|(era, _)| Some(*era) == winner).or(c.first()).map(|(_, name)| name.clone());
        candidates.into_iter().map(pick).collect()
    }

    fn candidates(&self, chain: &str) -> &[(Era, PolicyName)] {
        policy_id(chain).and_then(|id| self.policies.get(id)).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::felix::names::chain_name;

    fn stored(name: &str) -> StoredPolicy {
        match name.split_once('/') {
            Some((namespace, name)) => StoredPolicy::calico(Some(namespace.into()), name.into()),
            None => StoredPolicy::calico(None, name.into()),
        }
    }

    #[test]
    fn each_era_hashes_something_else() {
        for (policy, era, chain) in [
            ("default/knp.default.allow-web", Era::Name, "_QMREAWxglfqoREwyt41"),
            ("default/knp.default.allow-web", Era::TierAndName, "_Vm_1cJRadOrYgBn0juc"),
            ("default/knp.default.allow-web", Era::KindAndName, "_Vwyll1T_8l3haZwDKEy"),
            ("default/default.foo", Era::KindAndName, "_kqoeN6Z7AHVWsiBmNgW"),
            ("default.foo", Era::Name, "default.foo"),
            ("default.foo", Era::TierAndName, "default/default.foo"),
            ("sec.block", Era::KindAndName, "gnp/sec.block"),
            ("default/sec.block", Era::TierAndName, "_Yns9rBWYiHPt4ct_Lks"),
            ("openstack/ossg.default.SGID-default", Era::TierAndName, "_P9QWgV3Kq3APHUg1jSk"),
        ] {
            assert_eq!(chain_name("cali-pi-", &era.id(&stored(policy)).unwrap()), format!("cali-pi-{chain}"), "{policy}");
        }
    }

    /// In the Kubernetes datastore, Kubernetes policies have their own names.
    #[test]
    fn policies_of_kubernetes_get_the_names_that_each_era_gave_them() {
        use PolicyKind::{AdminNetworkPolicy, BaselineAdminNetworkPolicy, ClusterNetworkPolicy, KubernetesNetworkPolicy};
        let chain = |kind, namespace: Option<&str>, name: &str, era: Era| {
            let policy = StoredPolicy { kind, namespace: namespace.map(str::to_owned), name: name.to_owned() };
            Some(chain_name("cali-pi-", &era.id(&policy)?))
        };
        let knp = |era| chain(KubernetesNetworkPolicy, Some("default"), "allow-web", era).unwrap();
        assert_eq!(Era::ALL.map(knp), ["cali-pi-_QMREAWxglfqoREwyt41", "cali-pi-_Vm_1cJRadOrYgBn0juc", "cali-pi-_l7X9Omtz7dibbh9L3Lp"]);
        let foo = |kind| Era::ALL.map(|era| chain(kind, None, "foo", era));
        assert_eq!(foo(AdminNetworkPolicy), [None, Some("cali-pi-_wKHgR68sWmHadUmyakG".into()), None]);
        assert_eq!(foo(ClusterNetworkPolicy), [None, None, Some("cali-pi-kcnp/foo".into())]);
        let baseline = StoredPolicy { kind: BaselineAdminNetworkPolicy, namespace: None, name: "default".into() };
        let id = "baselineadminnetworkpolicy/kbanp.baselineadminnetworkpolicy.default";
        assert_eq!(Era::ALL.map(|era| era.id(&baseline)), [None, Some(id.into()), None]);
    }

    #[test]
    fn a_hashed_name_is_labelled_alike_in_every_era() {
        let stored = |kind, name: &str| StoredPolicy { kind, namespace: Some("shop".into()), name: name.into() };
        let policies = [stored(PolicyKind::KubernetesNetworkPolicy, "web"), stored(PolicyKind::NetworkPolicy, "default.db")];
        let names = ChainNames::new(&policies);
        for era in Era::ALL {
            let chains = policies.each_ref().map(|policy| chain_name("cali-po-", &era.id(policy).unwrap()));
            let labels: Vec<_> =
                names.resolve(&chains.each_ref().map(String::as_str)).into_iter().map(|n| n.unwrap().label("default")).collect();
            assert_eq!(labels, ["shop/knp.default.web", "shop/default.db"], "{era:?}");
        }
    }

    #[test]
    fn names_come_out_of_comments() {
        let name = PolicyName::from_comment("KubernetesNetworkPolicy default/foo ingress").unwrap();
        assert_eq!((&*name.kind, name.namespace.as_deref(), &*name.name), ("KubernetesNetworkPolicy", Some("default"), "foo"));
        assert!(PolicyName::from_comment("Policy default.deny-all egress").unwrap().namespace.is_none());
        for other in ["owner=team-a", "Policy x", "Policy a b ingress", "Drop if no ingress", "Policy  ingress", "Policy a=b ingress"] {
            assert_eq!(PolicyName::from_comment(other), None, "{other}");
        }
    }

    #[test]
    fn names_in_calicos_own_tables() {
        let name = PolicyName::from_end_of_comment("owner=team-a NetworkPolicy shop/rich ingress").unwrap();
        assert_eq!(name.label("default"), "shop/default.rich");
        assert_eq!(PolicyName::from_end_of_comment("GlobalNetworkPolicy very-long-name-that-is-c"), None);
    }

    /// In Calico's own tables since 3.30, and before comments contained them.
    #[test]
    fn names_in_chains() {
        for (chain, long, old) in [
            ("cali-pi-np/shop/rich", Some("shop/default.rich"), Some("np/shop/rich")),
            ("cali-po-gnp/base", Some("default.base"), Some("gnp/base")),
            ("cali-pi-default/shop/default.web", Some("shop/default.web"), Some("default/shop/default.web")),
            ("cali-pi-platform/platform.guard", Some("platform.guard"), Some("platform/platform.guard")),
            ("cali-po-infra-1/default.dmz", Some("default.dmz"), Some("infra-1/default.dmz")),
            ("cali-pi-default.deny-all", None, Some("default.deny-all")),
            ("cali-pi-_9tjSCz6Yv0P45r-9ylU", None, None),
            ("cali-pri-kns.default", None, None),
        ] {
            let label = |name: Option<PolicyName>| name.map(|name| name.label("default"));
            assert_eq!(label(PolicyName::from_long_chain(chain)).as_deref(), long, "{chain}");
            assert_eq!(label(PolicyName::from_chain(chain)).as_deref(), old, "{chain}");
        }
    }

    /// As the Go exporter labelled them, and as users write them.
    #[test]
    fn names_are_labelled_and_written() {
        for (comment, tier, label, written) in [
            ("Policy default/knp.default.foo ingress", "default", "default/knp.default.foo", "KubernetesNetworkPolicy default/foo"),
            ("Policy default.deny-all egress", "default", "default.deny-all", "GlobalNetworkPolicy /deny-all"),
            ("Policy sec.block egress", "sec", "sec.block", "GlobalNetworkPolicy /sec.block"),
            ("Policy shop/default.web ingress", "default", "shop/default.web", "NetworkPolicy shop/web"),
            ("Policy kanp.adminnetworkpolicy.x ingress", "adminnetworkpolicy", "kanp.adminnetworkpolicy.x", "AdminNetworkPolicy /x"),
            ("KubernetesNetworkPolicy default/foo ingress", "default", "default/knp.default.foo", "KubernetesNetworkPolicy default/foo"),
            ("NetworkPolicy shop/knp.default.foo ingress", "default", "shop/knp.default.foo", "KubernetesNetworkPolicy shop/foo"),
            ("NetworkPolicy shop/web ingress", "default", "shop/default.web", "NetworkPolicy shop/web"),
            ("NetworkPolicy shop/default.web ingress", "default", "shop/default.web", "NetworkPolicy shop/web"),
            ("NetworkPolicy a/ossg.default.1 ingress", "default", "a/ossg.default.1", "NetworkPolicy a/ossg.default.1"),
            ("GlobalNetworkPolicy base ingress", "default", "default.base", "GlobalNetworkPolicy /base"),
            ("GlobalNetworkPolicy platform.guard ingress", "platform", "platform.guard", "GlobalNetworkPolicy /platform.guard"),
            ("GlobalNetworkPolicy guard ingress", "platform", "guard", "GlobalNetworkPolicy /guard"),
            ("KubernetesClusterNetworkPolicy foo ingress", "kube-admin", "kcnp.foo", "KubernetesClusterNetworkPolicy /foo"),
        ] {
            let policy = PolicyName::from_comment(comment).unwrap();
            let (kind, namespace, name) = policy.as_written(tier);
            assert_eq!((&*policy.label(tier), &*format!("{kind} {namespace}/{name}")), (label, written), "{comment}");
        }
    }

    #[test]
    fn a_name_that_fits_two_eras_follows_the_other_chains() {
        let names = ChainNames::new(&[stored("default/default.foo"), stored("default.foo"), stored("default.only")]);
        let resolve = |chains: &[&str]| names.resolve(chains).into_iter().map(|n| n.map(|n| n.namespace)).collect::<Vec<_>>();
        assert_eq!(resolve(&["cali-pi-default/default.foo"]), [Some(Some("default".into()))]);
        assert_eq!(resolve(&["cali-pi-default/default.foo", "cali-po-default/default.only"])[0], Some(None));
        assert_eq!(resolve(&["cali-pi-unknown"]), [None]);
    }
}
