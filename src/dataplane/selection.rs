//! Which back end holds Calico's rules. Pure, but for looking at what the kernel has, which never changes anything in it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::ruleset::{Backend, Family};

/// What was found in one back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub backend: Backend,
    /// Workload chains.
    pub chains: usize,
    /// Workload chains whose interface exists now.
    pub live: usize,
    /// Packets that all rules of workload chains have counted.
    pub packets: u64,
}

/// After how long without a packet the other back ends are looked at: Calico may have moved and left its old rules behind.
pub const LOOK_AROUND: Duration = Duration::from_secs(60);

/// Which back end is read, over time.
#[derive(Debug, Default)]
pub struct Selection {
    chosen: Option<Backend>,
    /// Whether another back end looks just as good.
    doubtful: bool,
    last: Vec<Finding>,
    last_look: Option<Instant>,
}

impl Selection {
    /// The back end that is enough to read now; `None` if all must be looked at.
    pub fn chosen(&self) -> Option<Backend> {
        self.chosen.filter(|_| !self.doubtful)
    }

    /// Takes in how many workload chains the chosen back end has and what they have counted; returns whether it is enough to read it.
    pub fn stays(&mut self, backend: Backend, chains: usize, packets: u64, now: Instant) -> bool {
        let before = self.last.iter_mut().find(|finding| finding.backend == backend);
        let moved = before.as_ref().is_none_or(|before| before.packets != packets);
        if let Some(before) = before {
            before.packets = packets;
        }
        if moved {
            self.last_look = Some(now);
        }
        let looked_lately = self.last_look.is_some_and(|last| now.duration_since(last) < LOOK_AROUND);
        chains > 0 && looked_lately
    }

    /// Chooses among everything that was found: the back end whose interfaces exist, then the one whose counters move, then the
    /// one chosen before, then the newer.
    pub fn choose(&mut self, found: &[Finding], now: Instant) -> Option<Backend> {
        let moved = |f: &Finding| self.last.iter().any(|last| last.backend == f.backend && last.packets != f.packets);
        let rank = |f: &Finding| (f.live, moved(f), self.chosen == Some(f.backend), f.backend);
        let best = found.iter().filter(|f| f.chains > 0).max_by_key(|f| rank(f)).copied();
        let rival = |f: &&Finding| best.is_some_and(|best| f.backend != best.backend && f.chains > 0 && f.live == best.live);
        let decided = best.is_some_and(|best| moved(&best));
        self.doubtful = !decided && found.iter().any(|f| rival(&f));
        self.chosen = best.map(|best| best.backend);
        self.last = found.to_vec();
        self.last_look = Some(now);
        self.chosen
    }
}

/// Whether the kernel has this legacy table of this family. Looking for it in any other way would load it.
pub fn has_legacy_table(proc: &Path, family: Family, table: &str) -> bool {
    let names = match family {
        Family::V4 => "net/ip_tables_names",
        Family::V6 => "net/ip6_tables_names",
    };
    std::fs::read_to_string(proc.join(names)).is_ok_and(|names| names.lines().any(|name| name == table))
}

/// Whether the kernel has nf_tables, as a module or built in; asking over netlink would load it.
pub fn has_nf_tables(proc: &Path) -> bool {
    static BUILT_IN: OnceLock<bool> = OnceLock::new();
    let is_module = std::fs::read_to_string(proc.join("modules")).is_ok_and(|m| m.lines().any(|line| line.starts_with("nf_tables ")));
    is_module || *BUILT_IN.get_or_init(|| names_symbol(&proc.join("kallsyms"), b" nft_do_chain"))
}

/// Whether the kernel's symbols hold this one. Without symbols nothing is known: then it is assumed.
fn names_symbol(kallsyms: &Path, symbol: &[u8]) -> bool {
    let Ok(file) = File::open(kallsyms) else { return true };
    let (mut symbols, mut line, mut any) = (BufReader::with_capacity(1 << 16, file), Vec::new(), false);
    while symbols.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        if line.trim_ascii_end().ends_with(symbol) {
            return true;
        }
        any = true;
        line.clear();
    }
    !any
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(backend: Backend, live: usize, packets: u64) -> Finding {
        Finding { backend, chains: 2, live, packets }
    }

    #[test]
    fn living_interfaces_win() {
        let mut selection = Selection::default();
        let now = Instant::now();
        assert_eq!(selection.choose(&[found(Backend::Legacy, 2, 9), found(Backend::Nft, 0, 9)], now), Some(Backend::Legacy));
        assert_eq!(selection.chosen(), Some(Backend::Legacy));
        let empty = Finding { chains: 0, ..found(Backend::Nft, 0, 0) };
        assert_eq!(Selection::default().choose(&[empty], now), None);
    }

    #[test]
    fn of_two_that_look_alike_the_one_that_counts() {
        let mut selection = Selection::default();
        let now = Instant::now();
        assert_eq!(selection.choose(&[found(Backend::Legacy, 2, 9), found(Backend::Nft, 2, 9)], now), Some(Backend::Nft));
        assert_eq!(selection.chosen(), None, "both must be read until one moves");
        assert_eq!(selection.choose(&[found(Backend::Legacy, 2, 10), found(Backend::Nft, 2, 9)], now), Some(Backend::Legacy));
        assert_eq!(selection.chosen(), Some(Backend::Legacy));
    }

    #[test]
    fn others_are_looked_at_when_chains_go_or_nothing_has_moved_for_long() {
        let mut selection = Selection::default();
        let now = Instant::now();
        selection.choose(&[found(Backend::Legacy, 2, 9)], now);
        assert!(!selection.stays(Backend::Legacy, 0, 9, now));
        selection.choose(&[found(Backend::Legacy, 2, 9)], now);
        assert!(selection.stays(Backend::Legacy, 2, 9, now + LOOK_AROUND / 2));
        assert!(!selection.stays(Backend::Legacy, 2, 9, now + LOOK_AROUND));
        assert!(selection.stays(Backend::Legacy, 2, 10, now + LOOK_AROUND));
    }

    #[test]
    fn what_the_kernel_has_is_read_off_proc() {
        let proc = std::env::temp_dir().join(format!("accountant-proc-{}", std::process::id()));
        std::fs::create_dir_all(proc.join("net")).unwrap();
        assert!(!has_legacy_table(&proc, Family::V4, "filter"));
        std::fs::write(proc.join("net/ip_tables_names"), "mangle\n").unwrap();
        assert!(!has_legacy_table(&proc, Family::V4, "filter"));
        std::fs::write(proc.join("net/ip_tables_names"), "mangle\nfilter\n").unwrap();
        assert!(has_legacy_table(&proc, Family::V4, "filter") && !has_legacy_table(&proc, Family::V6, "filter"));
        std::fs::write(proc.join("kallsyms"), "0000 T other\n0000 t nft_do_chain_x\n").unwrap();
        assert!(!names_symbol(&proc.join("kallsyms"), b" nft_do_chain"));
        std::fs::write(proc.join("kallsyms"), "0000 T nft_do_chain\n").unwrap();
        assert!(names_symbol(&proc.join("kallsyms"), b" nft_do_chain"));
        assert!(names_symbol(&proc.join("nothing"), b" nft_do_chain"));
        std::fs::remove_dir_all(proc).unwrap();
    }
}
