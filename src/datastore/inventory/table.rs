//! Objects by key, with limits on their number and size. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::objects::{StoredPolicy, Workload};
use crate::datastore::bounds::{LONGEST_KEY, LONGEST_TEXT, cut};

/// The approximate memory limit of a table's objects, in bytes.
const MOST_BYTES: usize = 24 << 20;
/// The approximate memory of an object apart from itself and its texts: its entries in the maps, in bytes.
const PLACE: usize = 100;

pub trait Object: Sized {
    const MOST: usize;
    /// The objects' name in messages, in the plural.
    const NAME: &'static str;

    fn texts(&mut self) -> Vec<&mut String>;
}

impl Object for Workload {
    /// A node runs some hundred pods at most, but failed ones stay listed: 12,500 in a cluster by the default of its controllers.
    const MOST: usize = 20_000;
    const NAME: &'static str = "workloads on this node";

    fn texts(&mut self) -> Vec<&mut String> {
        let Workload { interface, namespace, pod, app, ip, node, orchestrator, service_account, is_finished: _ } = self;
        vec![interface.text(), namespace, pod, app, ip, node, orchestrator, service_account]
    }
}

impl Object for StoredPolicy {
    /// Of all kinds together. Felix programs some thousand at most.
    const MOST: usize = 50_000;
    const NAME: &'static str = "policies";

    fn texts(&mut self) -> Vec<&mut String> {
        self.namespace.iter_mut().chain([&mut self.name]).collect()
    }
}

/// There are implausibly many objects: the datastore is broken or hostile. Nothing is changed then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooMany {
    what: &'static str,
    most: usize,
}

impl TooMany {
    pub fn of<T: Object>() -> Self {
        TooMany { what: T::NAME, most: T::MOST }
    }
}

impl fmt::Display for TooMany {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "more than {} {}, or {} MiB of their names", self.most, self.what, MOST_BYTES >> 20)
    }
}

impl std::error::Error for TooMany {}

/// Objects ordered by the datastore's keys. Long texts and keys are cut.
#[derive(Debug)]
pub struct Table<T> {
    objects: BTreeMap<String, Entry<T>>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry<T> {
    object: Arc<T>,
    bytes: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { objects: BTreeMap::new(), bytes: 0 }
    }
}

impl<T: Object> Table<T> {
    /// Adds or replaces the object under `key`. Returns the stored object and the one that it replaced.
    pub fn insert(&mut self, key: &str, mut object: T) -> Result<(Arc<T>, Option<Arc<T>>), TooMany> {
        let key = cut(key, LONGEST_KEY);
        let mut bytes = size_of::<T>() + PLACE + key.len();
        for text in object.texts() {
            if text.len() > LONGEST_TEXT {
                *text = cut(text, LONGEST_TEXT).into_owned();
            }
            bytes += text.len();
        }
        let (objects, before) = match self.objects.get(&*key) {
            Some(before) => (self.objects.len(), before.bytes),
            None => (self.objects.len() + 1, 0),
        };
        Self::bounded(objects, self.bytes - before + bytes)?;
        let object = Arc::new(object);
        let replaced = self.objects.insert(key.into_owned(), Entry { object: Arc::clone(&object), bytes });
        self.bytes = self.bytes - before + bytes;
        Ok((object, replaced.map(|entry| entry.object)))
    }

    pub fn replace_under(&mut self, prefix: &str, objects: Table<T>) -> Result<(), TooMany> {
        let before = self.objects.iter().filter(|(key, _)| key.starts_with(prefix));
        let (count, bytes) = before.fold((0, 0), |(count, bytes), (_, entry)| (count + 1, bytes + entry.bytes));
        Self::bounded(self.objects.len() - count + objects.objects.len(), self.bytes - bytes + objects.bytes)?;
        self.objects.retain(|key, _| !key.starts_with(prefix));
        self.bytes = self.bytes - bytes + objects.bytes;
        self.objects.extend(objects.objects);
        Ok(())
    }

    fn bounded(objects: usize, bytes: usize) -> Result<(), TooMany> {
        if objects > T::MOST || bytes > MOST_BYTES { Err(TooMany::of::<T>()) } else { Ok(()) }
    }
}

impl<T> Table<T> {
    pub fn remove(&mut self, key: &str) -> Option<Arc<T>> {
        let Entry { object, bytes } = self.objects.remove(&*cut(key, LONGEST_KEY))?;
        self.bytes -= bytes;
        Some(object)
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&String, &Arc<T>)> {
        self.objects.iter().map(|(key, entry)| (key, &entry.object))
    }
}

impl<T: Object> TryFrom<Vec<(String, T)>> for Table<T> {
    type Error = TooMany;

    fn try_from(objects: Vec<(String, T)>) -> Result<Self, TooMany> {
        let mut table = Table::default();
        objects.into_iter().try_for_each(|(key, object)| table.insert(&key, object).map(|_| ()))?;
        Ok(table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str) -> StoredPolicy {
        StoredPolicy::calico(None, name.into())
    }

    #[test]
    fn no_more_than_can_be_true_is_kept() {
        let mut table = Table::default();
        for n in 0..StoredPolicy::MOST {
            table.insert(&n.to_string(), policy("a")).unwrap();
        }
        assert_eq!(table.insert("more", policy("a")).unwrap_err().to_string(), "more than 50000 policies, or 24 MiB of their names");
        assert!(table.insert("7", policy("b")).is_ok(), "one that is there may change");
        table.remove("8").unwrap();
        assert!(table.insert("more", policy("a")).is_ok());
    }

    #[test]
    fn long_texts_are_cut_and_their_sum_is_bounded() {
        let long = "x".repeat(1 << 20);
        let of = |text: &str| Workload {
            namespace: text.into(),
            pod: text.into(),
            app: text.into(),
            ip: text.into(),
            node: text.into(),
            orchestrator: text.into(),
            service_account: text.into(),
            ..Workload::default()
        };
        let mut table = Table::default();
        let stored = (0..Workload::MOST).take_while(|n| table.insert(&format!("{n} {long}"), of(&long)).is_ok()).count();
        assert!((4000..6000).contains(&stored), "{stored}");
        let (key, workload) = table.iter().next().map(|(key, workload)| (key.clone(), Arc::clone(workload))).unwrap();
        assert_eq!((key.len(), workload.app.len(), workload.app.capacity()), (LONGEST_KEY, LONGEST_TEXT, LONGEST_TEXT));
        assert!(table.remove(&format!("0 {long}")).is_some());
        (1..stored).for_each(|n| _ = table.remove(&format!("{n} {long}")));
        assert_eq!((table.objects.len(), table.bytes), (0, 0));
    }

    #[test]
    fn what_is_under_a_prefix_is_replaced_whole_or_not_at_all() {
        let mut table = Table::try_from(vec![("a/1".into(), policy("1")), ("b/1".into(), policy("1"))]).unwrap();
        let many = (0..StoredPolicy::MOST).map(|n| (format!("a/{n}"), policy("a"))).collect::<Vec<_>>();
        assert!(table.replace_under("a/", Table::try_from(many).unwrap()).is_err());
        assert_eq!(table.objects.len(), 2);
        table.replace_under("a/", Table::try_from(vec![("a/2".into(), policy("22"))]).unwrap()).unwrap();
        assert_eq!(table.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["a/2", "b/1"]);
        ["a/2", "b/1"].iter().for_each(|key| _ = table.remove(key));
        assert_eq!(table.bytes, 0);
    }
}
