//! Packets that the kernel traced from rule to rule between two reads: what policies surely decided of each endpoint's packets. Such a
//! packet is in all counters of this interval and of no other. So it is subtracted from them and credited to its policy, and the rest is
//! divided as usual. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use super::ChainKey;
use super::totals::Verdict;
use crate::felix::Decision;
use crate::witness::{Endpoint, Witness};

/// What one policy decided of one endpoint's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Decisions {
    accept: u64,
    deny: u64,
    pass: u64,
}

impl Decisions {
    pub fn of(self, verdict: Verdict) -> u64 {
        match verdict {
            Verdict::Accept => self.accept,
            Verdict::Deny => self.deny,
            Verdict::Pass => self.pass,
            Verdict::DenyOrPass => self.deny + self.pass,
        }
    }

    fn add(&mut self, decision: Decision) {
        match decision {
            Decision::Accept => self.accept += 1,
            Decision::Deny => self.deny += 1,
            Decision::Pass => self.pass += 1,
            Decision::Log => {}
        }
    }
}

#[derive(Debug, Clone, Default)]
pub struct Witnessed {
    /// By the endpoint's chain and the policy's.
    of_endpoints: HashMap<ChainKey, HashMap<Arc<str>, Decisions>>,
    of_policies: HashMap<ChainKey, Decisions>,
}

impl Witnessed {
    pub fn add(&mut self, witness: &Witness) {
        let Endpoint { table, chain, .. } = &*witness.endpoint;
        for decision in &witness.decisions {
            let policy = || Arc::clone(&decision.chain);
            let of_endpoint = self.of_endpoints.entry((*table, Arc::clone(chain))).or_default();
            of_endpoint.entry(policy()).or_default().add(decision.decision);
            self.of_policies.entry((*table, policy())).or_default().add(decision.decision);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.of_policies.is_empty()
    }

    pub fn of_endpoint(&self, endpoint: &ChainKey, policy: &str) -> Decisions {
        self.of_endpoints.get(endpoint).and_then(|policies| policies.get(policy)).copied().unwrap_or_default()
    }

    /// Returns what one policy decided, over all endpoints.
    pub fn of_policy(&self, policy: &ChainKey) -> Decisions {
        self.of_policies.get(policy).copied().unwrap_or_default()
    }
}

/// What was traced in a group, per workload and policy.
pub struct Cells(pub Vec<Vec<Decisions>>);

impl Cells {
    pub fn row(&self, place: usize, verdict: Verdict) -> u64 {
        self.0[place].iter().map(|cell| cell.of(verdict)).sum()
    }

    pub fn column(&self, index: usize, verdict: Verdict) -> u64 {
        self.0.iter().map(|cells| cells[index].of(verdict)).sum()
    }
}
