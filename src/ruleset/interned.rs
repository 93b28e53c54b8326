//! Equal values that are kept once, so that they are the same objects from read to read.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

#[derive(Debug)]
pub struct Interned<T: ?Sized>(HashSet<Arc<T>>);

impl<T: ?Sized> Default for Interned<T> {
    fn default() -> Self {
        Interned(HashSet::new())
    }
}

impl<T: ?Sized + Eq + Hash + ToOwned> Interned<T>
where
    Arc<T>: From<T::Owned>,
{
    pub fn get(&mut self, value: &T) -> Arc<T> {
        if let Some(known) = self.0.get(value) {
            return Arc::clone(known);
        }
        let value = Arc::from(value.to_owned());
        self.0.insert(Arc::clone(&value));
        value
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub fn forget_unused(&mut self) {
        self.0.retain(|value| Arc::strong_count(value) > 1);
    }
}
