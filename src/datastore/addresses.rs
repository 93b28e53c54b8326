//! Finds workloads by address, as far as the datastore knows those of this node. Pure, except for the inventory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::inventory::{Inventory, Workload};

pub struct Addresses {
    inventory: Arc<Inventory>,
    version: u64,
    by_address: HashMap<IpAddr, Arc<Workload>>,
}

impl Addresses {
    pub fn new(inventory: Arc<Inventory>) -> Self {
        Addresses { inventory, version: u64::MAX, by_address: HashMap::new() }
    }

    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// Updates the addresses if workloads have changed.
    pub fn now(&mut self) -> &Self {
        let version = self.inventory.workloads_version();
        if version != self.version {
            self.version = version;
            let addresses = |workload: &Arc<Workload>| {
                let all = workload.ip.split(',').filter_map(|network| network.split('/').next()?.parse().ok());
                all.map(|address| (address, Arc::clone(workload))).collect::<Vec<_>>()
            };
            let living = self.inventory.workloads().into_iter().filter(|(_, workload)| !workload.is_finished);
            self.by_address = living.flat_map(|(_, workload)| addresses(&workload)).collect();
        }
        self
    }

    /// Returns a pod of this node by its interface.
    pub fn pod_on(&self, interface: &str) -> Option<Arc<Workload>> {
        self.inventory.workload(interface).filter(|workload| !workload.pod.is_empty())
    }

    /// Returns a pod of this node by its address.
    pub fn pod_at(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.by_address.get(&address).filter(|workload| !workload.pod.is_empty())
    }
}
