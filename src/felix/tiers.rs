//! Which tier is which, in Calico's own nftables tables. Pure.
//!
//! Up to 3.32, Felix ignores comments when it checks whether a rule is still right. So if a tier is added before another or replaces it,
//! the old `Start of tier …` can remain. The tier's last rules have the right name, and up to 3.31 so do the names of its policies. If
//! two tiers of an endpoint still share a name, it is removed unless it is certain.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Pipeline, Pipelines, Tier};
use crate::ruleset::ChainId;

pub fn settle(pipelines: &mut Pipelines) {
    let mut endpoints = std::mem::take(&mut pipelines.endpoints);
    let certain = endpoints.iter().flat_map(|pipeline| &pipeline.tiers).filter(|tier| tier.is_named_at_end);
    // A policy is in one tier only.
    let certain: HashMap<ChainId, Arc<str>> =
        certain.flat_map(|tier| policies(tier, pipelines).into_iter().map(|policy| (policy, Arc::clone(&tier.name)))).collect();
    for tier in endpoints.iter_mut().flat_map(|pipeline| &mut pipeline.tiers).filter(|tier| !tier.is_named_at_end) {
        let by_name = |policy: &ChainId| Some(pipelines.policy(*policy)?.name.as_ref()?.tier()?.into());
        let known = policies(tier, pipelines);
        if let Some(name) = known.iter().find_map(|policy| certain.get(policy).cloned().or_else(|| by_name(policy))) {
            (tier.name, tier.is_named_at_end) = (name, true);
        }
    }
    endpoints.iter_mut().for_each(forget_doubles);
    pipelines.endpoints = endpoints;
}

/// Returns the policies of a tier, including those in groups.
fn policies(tier: &Tier, pipelines: &Pipelines) -> Vec<ChainId> {
    tier.targets.iter().flat_map(|target| pipelines.policies_in(target.chain).chain([target.chain])).collect()
}

/// No endpoint has a tier twice. If two have the same name, one of them is wrong.
fn forget_doubles(pipeline: &mut Pipeline) {
    let names: Vec<Arc<str>> = pipeline.tiers.iter().map(|tier| Arc::clone(&tier.name)).collect();
    for tier in pipeline.tiers.iter_mut().filter(|tier| !tier.is_named_at_end) {
        if names.iter().filter(|name| **name == tier.name).count() > 1 {
            tier.name = "".into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iptables::text::Parser;
    use crate::ruleset::{Backend, Family};

    /// Returns the name of the tier of the first of two endpoints. Both begin with an old comment. `policy` is the comment of its policy.
    fn tier(policy: &str, second: &str) -> String {
        let rules = [
            ("cali-pi-_p", format!("-m comment --comment \"{policy} ingress\" -s 10.0.0.2 -j DROP")),
            ("cali-tw-cali1", "-m comment --comment \"Start of tier old\" -j MARK --set-xmark 0x0/0x20000".into()),
            ("cali-tw-cali1", "-m mark --mark 0x0/0x20000 -j cali-pi-_p".into()),
            ("cali-tw-cali1", "-m comment --comment \"Return if policy accepted\" -m mark --mark 0x10000/0x10000 -j RETURN".into()),
            ("cali-tw-cali2", "-m comment --comment \"Start of tier old\" -j MARK --set-xmark 0x0/0x20000".into()),
            ("cali-tw-cali2", "-m mark --mark 0x0/0x20000 -j cali-pi-_p".into()),
            ("cali-tw-cali2", "-m comment --comment \"Return if policy accepted\" -m mark --mark 0x10000/0x10000 -j RETURN".into()),
            ("cali-tw-cali2", second.into()),
        ];
        let line = |(place, (chain, rule)): (usize, (&str, String))| {
            format!("[0:0] -A {chain} -m comment --comment \"cali:{place:a<16}\" {rule}\n")
        };
        let mut parser = Parser::new(Family::V4, Backend::Native, "filter");
        parser.push(format!("*filter\n{}COMMIT\n", rules.into_iter().enumerate().map(line).collect::<String>()).as_bytes());
        let pipelines = Pipelines::new(&parser.finish().unwrap().ruleset);
        pipelines.endpoints.iter().find(|pipeline| &*pipeline.interface == "cali1").unwrap().tiers[0].name.to_string()
    }

    #[test]
    fn policies_know_their_tier_better_than_an_old_comment() {
        let (end, other) = (
            "-m comment --comment \"End of tier young. Drop if no policies passed packet\" -m mark --mark 0x0/0x20000 -j DROP",
            "-j cali-pri-kns.a",
        );
        assert_eq!(tier("Policy young.p", other), "young", "up to 3.31 a policy's name begins with its tier");
        assert_eq!(tier("GlobalNetworkPolicy p", end), "young", "at another endpoint the tier's end says it");
        assert_eq!(tier("GlobalNetworkPolicy p", other), "old", "nothing contradicts");
    }
}
