//! One follower's part of the inventory: objects of one kind whose keys have the same prefix.

use std::collections::HashSet;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::{Inventory, Kept, Table, TooMany};

/// The maximum number of objects that are reported as not understood.
const MOST_REPORTED: usize = 1000;

pub(crate) struct Part<T> {
    inventory: Arc<Inventory>,
    prefix: String,
    listed: bool,
    reported: HashSet<String>,
    objects: PhantomData<fn(T)>,
}

impl<T: Kept> Part<T> {
    pub fn new(inventory: Arc<Inventory>, prefix: impl Into<String>) -> Self {
        Part { inventory, prefix: prefix.into(), listed: false, reported: HashSet::new(), objects: PhantomData }
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Stores a full list. On failure, stores none of it.
    pub fn replace(&mut self, objects: Table<T>) -> Result<(), TooMany> {
        self.inventory.replace(&self.prefix, objects)?;
        if self.listed || !T::IS_ASKED_FOR {
            self.inventory.mark_synced();
        }
        self.listed = true;
        Ok(())
    }

    /// Stores an object that is new or has changed. `None` means that it is irrelevant, or has become so.
    pub fn put(&self, key: &str, object: Option<T>) -> Result<(), TooMany> {
        match object {
            Some(object) => self.inventory.put(key, object),
            None => {
                self.remove(key);
                Ok(())
            }
        }
    }

    pub fn remove(&self, key: &str) {
        self.inventory.remove::<T>(key);
    }

    /// Counts an object that cannot be understood, and logs it once.
    pub fn skip(&mut self, key: &str, message: fmt::Arguments<'_>) {
        self.inventory.skip_object();
        if self.reported.len() < MOST_REPORTED && self.reported.insert(key.to_owned()) {
            log::warn!("{message}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{StoredPolicy, Workload};
    use super::*;

    #[test]
    fn only_later_lists_of_policies_are_resyncs() {
        let inventory = Arc::new(Inventory::new());
        let mut workloads = Part::<Workload>::new(Arc::clone(&inventory), "");
        workloads.replace(Table::default()).unwrap();
        assert!(inventory.synced());
        let mut policies = Part::new(Arc::clone(&inventory), "p/");
        for resyncs in [0, 1] {
            policies.replace(vec![("p/a".to_owned(), StoredPolicy::calico(None, "a".into()))].try_into().unwrap()).unwrap();
            assert_eq!((inventory.policies().len(), inventory.resyncs()), (1, resyncs));
        }
    }

    #[test]
    fn each_object_that_is_skipped_counts() {
        let inventory = Arc::new(Inventory::new());
        let mut workloads = Part::<Workload>::new(Arc::clone(&inventory), "");
        (0..2).for_each(|_| workloads.skip("a", format_args!("a is skipped")));
        assert_eq!(inventory.skipped_objects(), 2);
        assert_eq!(workloads.reported.len(), 1);
    }
}
