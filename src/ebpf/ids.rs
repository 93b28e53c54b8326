//! Computes the IDs of policies' rules from the policies' names, for rules that no file shows. Pure.
//!
//! Calico up to 3.29 hashes action, owner, direction, index and name (`ruleMatchID` in `felix/dataplane/linux/bpf_ep_mgr.go`). Since 3.30
//! it hashes the prefix under which the rule would log its flows (`felix/rules/nflogprefix.go`), as long as flow logs are off. The number
//! of a policy's rules need not be known, because 64-bit hashes do not collide by chance.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Known, Owner, Policy, RuleId};
use crate::felix::{Decision, Direction, HashedName, limited_id};

/// The maximum number of rules that are tried for each policy.
const MOST_RULES: u32 = 256;
/// The length in bytes from which prefixes are cut and hashed.
const LONG_PREFIX: usize = 63;

pub fn resolve(ids: &HashSet<RuleId>, policies: &[HashedName]) -> HashMap<RuleId, Known> {
    let mut found = HashMap::new();
    for (names, direction) in policies.iter().flat_map(|names| Direction::ALL.map(|direction| (names, direction))) {
        let policy = Arc::new(Policy::new(names.policy.clone(), &names.tier));
        for (index, (action, letter, decision)) in (0..MOST_RULES).flat_map(|index| ACTIONS.map(|action| (index, action))) {
            let old = hash(&[action, "Policy", direction_word(direction), &index.to_string(), &names.hashed]);
            let new = flow_id(letter, direction, index, &names.hashed);
            for id in [old, new].into_iter().filter(|id| ids.contains(id)) {
                found.insert(id, Known { owner: Owner::Policy(Arc::clone(&policy), index), decision, direction });
            }
        }
    }
    found
}

/// Actions as a word, as a prefix's letter, and as a decision. Rules that log do not count.
const ACTIONS: [(&str, char, Decision); 4] =
    [("allow", 'A', Decision::Accept), ("deny", 'D', Decision::Deny), ("pass", 'P', Decision::Pass), ("next-tier", 'P', Decision::Pass)];

fn direction_word(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "Ingress",
        Direction::Egress => "Egress",
    }
}

/// Since 3.30: the hash of `API0|np/shop/web`.
fn flow_id(action: char, direction: Direction, index: u32, name: &str) -> RuleId {
    let direction = &direction_word(direction)[..1];
    let prefix = format!("{action}P{direction}{index}|{name}");
    match prefix.len() {
        ..LONG_PREFIX => hash(&[&prefix]),
        length => match (prefix.get(..10), prefix.get(length - 10..)) {
            (Some(start), Some(end)) => hash(&[start, &limited_id("", &prefix, LONG_PREFIX - 21), "_", end]),
            // Names are ASCII.
            _ => hash(&[&prefix]),
        },
    }
}

fn hash(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::inventory::{PolicyKind, StoredPolicy};
    use crate::felix::hashed_names;

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(hash(&[]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash(&["foo", "bar"]), 0x8594_4171_f739_67e8);
    }

    /// The prefixes are from upstream's tests.
    #[test]
    fn prefixes_are_cut_as_upstream_does() {
        for (letter, direction, index, name, prefix) in [
            ('D', Direction::Egress, 1, "short", "DPE1|short"),
            (
                'D',
                Direction::Ingress,
                88,
                "012345678901234567890123456789012345678901234567890123456",
                "DPI88|0123_S7GBfc7R7_4bzrXpbzglqoJrRG_UxIP0CuYjRWshz_7890123456",
            ),
            (
                'D',
                Direction::Egress,
                1,
                "quite-a-long-namespace/quite-a-long-tier-name.quite-a-long-policy-name",
                "DPE1|quite_nnW4FYptgISH4G3jdI6KJWVcEx19s0BDp2On0wVAY_olicy-name",
            ),
        ] {
            assert_eq!(flow_id(letter, direction, index, name), hash(&[prefix]), "{prefix}");
        }
    }

    #[test]
    fn ids_are_found_by_names_alone() {
        let policies = [
            StoredPolicy { kind: PolicyKind::KubernetesNetworkPolicy, namespace: Some("shop".into()), name: "web".into() },
            StoredPolicy::calico(None, "security.guard".into()),
        ];
        let names: Vec<HashedName> = policies.iter().flat_map(hashed_names).collect();
        let ids = [
            hash(&["allowPolicyIngress0shop/knp.default.web"]),
            hash(&["denyPolicyEgress255security.guard"]),
            hash(&["API3|shop/knp.default.web"]),
            hash(&["PPE12|security.guard"]),
            hash(&["API0|knp/shop/web"]),
            hash(&["allowPolicyIngress256shop/knp.default.web"]),
            hash(&["allowProfileIngress0kns.shop"]),
            0,
        ];
        let found = resolve(&HashSet::from(ids), &names);
        let shown = |id: &u64| {
            let Known { owner: Owner::Policy(policy, index), decision, direction } = found.get(id)? else { return None };
            Some(format!("{} {} {index} {decision:?} {direction:?}", policy.label, policy.tier))
        };
        let expected = [
            Some("shop/knp.default.web default 0 Accept Ingress"),
            Some("security.guard security 255 Deny Egress"),
            Some("shop/knp.default.web default 3 Accept Ingress"),
            Some("security.guard security 12 Pass Egress"),
            Some("shop/knp.default.web default 0 Accept Ingress"),
            None,
            None,
            None,
        ];
        assert_eq!(ids.each_ref().map(shown), expected.map(|text| text.map(str::to_owned)));
    }
}
