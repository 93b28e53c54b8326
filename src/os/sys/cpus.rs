//! The number of values that the kernel keeps for a per-CPU counter. Touches `/sys/devices/system/cpu`.

use std::fs;
use std::io;

/// The highest number of CPUs that a kernel can be built for (`CONFIG_NR_CPUS`).
const MOST: usize = 8192;

/// Returns the number of possible CPUs, present or not. Each entry has this many values.
pub fn possible() -> io::Result<usize> {
    const POSSIBLE: &str = "/sys/devices/system/cpu/possible";
    let list = fs::read_to_string(POSSIBLE).map_err(|error| io::Error::new(error.kind(), format!("{POSSIBLE}: {error}")))?;
    count(list.trim_end()).filter(|cpus| (1..=MOST).contains(cpus)).ok_or_else(|| {
        let message = format!("{POSSIBLE}: {:?} is not a list of CPUs", list.trim_end());
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

/// `0-3,8,10-11` → 7
fn count(list: &str) -> Option<usize> {
    list.split(',').try_fold(0usize, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn possible_cpus_are_counted() {
        for (list, cpus) in
            [("0", Some(1)), ("0-1", Some(2)), ("0-3,8,10-11", Some(7)), ("", None), ("3-0", None), ("0-", None), ("x", None)]
        {
            assert_eq!(count(list), cpus, "{list:?}");
        }
        assert!(possible().unwrap() >= 1);
    }
}
