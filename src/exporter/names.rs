//! Names for workloads that the datastore does not know. Touches files: it reads the folders of pods' logs on the node.

use std::collections::HashMap;
use std::sync::Arc;

use super::Scraper;
use super::state::State;
use crate::datastore::inventory::Workload;

impl Scraper {
    /// Looks on the node for workloads that the datastore does not know. If there is a datastore, it is no problem if the folder is
    /// missing.
    pub(super) fn name_the_unknown(&self, state: &mut State) -> Arc<HashMap<String, Arc<Workload>>> {
        state.found = Arc::new(self.find_the_unknown(state));
        Arc::clone(&state.found)
    }

    fn find_the_unknown(&self, state: &mut State) -> HashMap<String, Arc<Workload>> {
        let unknown: Vec<&str> = state.interfaces().filter(|interface| self.inventory.workload(interface).is_none()).collect();
        if unknown.is_empty() && self.options.datastore.is_some() {
            return HashMap::new();
        }
        let found = self.pod_logs.workloads(&unknown);
        match &found {
            Ok(_) => state.complaint_of_names.went_well("pods can be named"),
            Err(error) if self.options.datastore.is_some() && error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => state.complaint_of_names.failed("naming pods", error),
        }
        if self.options.datastore.is_none() {
            self.inventory.touch();
            self.inventory.set_trouble("pod log folders", found.as_ref().err().map(ToString::to_string));
        }
        found.unwrap_or_default()
    }
}
