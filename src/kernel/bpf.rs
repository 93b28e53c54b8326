//! Reads a pinned BPF map of counters and sums the values of all CPUs. Uses bpf(2), in batches if the kernel supports them.

use std::io;
use std::path::Path;

pub use crate::os::sys::bpf::{Layout, OpenError};
use crate::os::sys::bpf::{Map, Position};

/// The approximate memory of a batch in bytes.
const BATCH: usize = 1 << 20;
/// The maximum number of walks. If an entry is deleted while keys are walked one by one, the walk restarts.
const ROUNDS: usize = 4;

/// A map of counters: keys of 8 bytes, and one or more 64-bit counters as the value.
#[derive(Debug)]
pub struct Counters {
    pub map: Map,
    pub counters: usize,
}

impl Counters {
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let map = Map::open(path)?;
        if map.key != 8 || !map.value.is_multiple_of(8) {
            return Err(OpenError::Other(map.layout()));
        }
        let counters = map.value / 8;
        Ok(Counters { map, counters })
    }

    /// Passes every entry to `each` once or more: the key, and the counters summed over all CPUs. An entry that is added or deleted
    /// meanwhile may be missed.
    pub fn read(&self, each: &mut dyn FnMut(u64, &[u64])) -> io::Result<()> {
        let mut sums = vec![0u64; self.counters];
        let mut entry = |key: &[u8], values: &[u8]| {
            sums.fill(0);
            for cpu in values.chunks_exact(self.map.value) {
                for (sum, value) in sums.iter_mut().zip(cpu.as_chunks().0) {
                    *sum = sum.wrapping_add(u64::from_ne_bytes(*value));
                }
            }
            each(number(key), &sums);
        };
        match self.by_batches(&mut entry) {
            // Linux before 5.6 does not support batches, or not for this type of map.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | ENOTSUPP | libc::EOPNOTSUPP)) => self.one_by_one(&mut entry),
            result => result,
        }
    }

    fn by_batches(&self, each: &mut dyn FnMut(&[u8], &[u8])) -> io::Result<()> {
        let mut room = (BATCH / self.map.all_values).clamp(16, self.map.most_entries.max(16));
        // Memory allocated as zeros is only backed by pages that the kernel fills.
        let buffers = |room: usize| (vec![0; room * self.map.key], vec![0; room * self.map.all_values]);
        let (mut keys, mut values) = buffers(room);
        let (mut from, mut to) = (None, Position::default());
        loop {
            let (count, is_last) = match self.map.lookup_batch(from, &mut to, &mut keys, &mut values) {
                // A bucket of the hash holds more entries than the buffers.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) && room < self.map.most_entries => {
                    room = (room * 2).min(self.map.most_entries);
                    (keys, values) = buffers(room);
                    continue;
                }
                result => result?,
            };
            let entries = keys.chunks_exact(self.map.key).zip(values.chunks_exact(self.map.all_values));
            entries.take(count).for_each(|(key, values)| each(key, values));
            if is_last {
                return Ok(());
            }
            from = Some(to);
        }
    }

    fn one_by_one(&self, each: &mut dyn FnMut(&[u8], &[u8])) -> io::Result<()> {
        let (mut key, mut next) = (vec![0; self.map.key], vec![0; self.map.key]);
        let mut values = vec![0; self.map.all_values];
        let mut more = self.map.next_key(None, &mut next)?;
        for _ in 0..self.map.most_entries * ROUNDS {
            if !more {
                return Ok(());
            }
            std::mem::swap(&mut key, &mut next);
            if self.map.lookup(&key, &mut values)? {
                each(&key, &values);
            }
            more = self.map.next_key(Some(&key), &mut next)?;
        }
        Err(io::Error::other("its entries change too fast"))
    }
}

/// The kernel's internal code for an unsupported operation. User space has no such code.
const ENOTSUPP: i32 = 524;

fn number(bytes: &[u8]) -> u64 {
    bytes.try_into().map(u64::from_ne_bytes).unwrap_or(0)
}
