//! What the tables of a read mean. Parsed once, as long as their rules are the same. Pure state.

use std::sync::Arc;

use super::{Catalog, ChainNames, Labels, Pipelines};
use crate::ruleset::{Interned, Ruleset};

#[derive(Debug)]
pub struct Structure {
    pub ruleset: Arc<Ruleset>,
    pub pipelines: Pipelines,
    pub labels: Labels,
}

#[derive(Debug, Default)]
pub struct Structures {
    pub tables: Vec<Structure>,
    pub catalog: Catalog,
    names: Interned<str>,
    chain_names: ChainNames,
    renamed: bool,
}

impl Structures {
    pub fn rename(&mut self, chain_names: ChainNames) {
        self.chain_names = chain_names;
        self.renamed = true;
    }

    /// Takes in the rules of a read. A ruleset that is the same object as at the last read is not parsed again.
    pub fn update<'a>(&mut self, rulesets: impl IntoIterator<Item = &'a Arc<Ruleset>>) {
        let mut before = std::mem::take(&mut self.tables);
        let mut changed = std::mem::take(&mut self.renamed);
        for ruleset in rulesets {
            let known = before.iter().position(|table| Arc::ptr_eq(&table.ruleset, ruleset)).map(|place| before.swap_remove(place));
            changed |= known.is_none();
            self.tables.push(known.unwrap_or_else(|| Structure {
                ruleset: Arc::clone(ruleset),
                pipelines: Pipelines::new(ruleset),
                labels: Labels::default(),
            }));
        }
        if changed || !before.is_empty() {
            drop(before);
            self.catalog = Catalog::default();
            self.names.forget_unused();
            for Structure { ruleset, pipelines, labels } in &mut self.tables {
                *labels = Labels::new(ruleset, pipelines, &self.chain_names, &mut self.names);
                self.catalog.add(ruleset, pipelines, labels);
            }
        }
    }

    /// Returns the number of policy chains without a name. Only the datastore can give it (Calico ≤ 3.21).
    pub fn unnamed(&self) -> usize {
        self.tables.iter().map(|table| table.labels.unnamed).sum()
    }

    pub fn unrecognised(&self) -> u64 {
        self.tables.iter().map(|table| table.ruleset.unreadable + table.pipelines.unrecognised.len() as u64).sum()
    }
}
