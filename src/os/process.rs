//! Reads what the kernel reports about this process, for the conventional `process_*` metrics. Unreadable values are left out.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};

#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Process {
    /// `process_cpu_seconds_total`: user and system time, in seconds.
    pub cpu_seconds: Option<f64>,
    pub open_fds: Option<u64>,
    /// `process_max_fds`: the soft limit. `None` also if there is no limit.
    pub max_fds: Option<u64>,
    pub virtual_memory_bytes: Option<u64>,
    pub resident_memory_bytes: Option<u64>,
    pub threads: Option<u64>,
}

impl Process {
    pub fn read(proc: &Path) -> Self {
        let stat = fs::read_to_string(proc.join("self/stat")).unwrap_or_default();
        let field = |number| stat_field(&stat, number);
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let page = rustix::param::page_size() as u64;
        Self {
            cpu_seconds: field(14).zip(field(15)).map(|(user, system)| user.saturating_add(system) as f64 / ticks),
            open_fds: count_fds(&proc.join("self/fd")),
            max_fds: getrlimit(Resource::Nofile).current,
            virtual_memory_bytes: field(23),
            resident_memory_bytes: field(24).map(|pages| pages.saturating_mul(page)),
            threads: field(20),
        }
    }
}

/// Returns the CPU time of this process and of the children that it has waited for, in ticks of usually 10 ms.
pub fn cpu_time(proc: &Path) -> Option<Duration> {
    let stat = fs::read_to_string(proc.join("self/stat")).ok()?;
    let ticks = (14..=17).map(|number| stat_field(&stat, number)).sum::<Option<u64>>()?;
    Some(Duration::from_secs(ticks) / u32::try_from(rustix::param::clock_ticks_per_second()).ok()?)
}

/// Returns a field of `/proc/self/stat`, numbered as in proc(5). The second one is the program's name in parentheses and may contain any
/// character.
fn stat_field(stat: &str, number: usize) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}

/// Returns the number of open descriptors, without the one that reads this directory.
fn count_fds(directory: &Path) -> Option<u64> {
    Some((fs::read_dir(directory).ok()?.flatten().count() as u64).saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_be_called_anything() {
        let stat = "7 (a b) R) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 9 0 4242 10485760 256 18446744073709551615 1 1 0";
        let fields = |stat| [14, 15, 20, 23, 24].map(|number| stat_field(stat, number));
        assert_eq!(fields(stat), [150, 50, 9, 10_485_760, 256].map(Some));
        assert_eq!((fields("7 (x) S 1"), fields("")), ([None; 5], [None; 5]));
    }

    #[test]
    fn this_process_has_everything() {
        let process = Process::read(Path::new("/proc"));
        assert!(process.threads >= Some(1) && process.open_fds >= Some(3), "{process:?}");
        assert!(process.resident_memory_bytes > Some(0) && process.virtual_memory_bytes >= process.resident_memory_bytes);
        assert!(process.cpu_seconds.is_some() && process.max_fds >= process.open_fds);
    }

    #[test]
    fn what_was_used_counts_and_not_what_went_by() {
        let cpu_time = || cpu_time(Path::new("/proc")).unwrap();
        let before = cpu_time();
        std::process::Command::new("sh").args(["-c", "i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done"]).status().unwrap();
        assert!(cpu_time() > before, "a child's");
    }

    #[test]
    fn nothing_is_made_up() {
        assert_eq!(cpu_time(Path::new("/nonexistent")), None);
        let process = Process::read(Path::new("/nonexistent"));
        assert_eq!(Process { max_fds: None, ..process }, Process::default());
    }
}
