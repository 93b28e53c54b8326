//! Finds and runs `iptables-save` and `ip6tables-save`, and parses their text while they write it → [`Snapshot`]. Touches child processes.

pub mod text;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use log::Level;

use crate::os::child;
use crate::os::logging;
use crate::ruleset::{Backend, Family, Snapshot};

/// The most time and output that one child may take. The largest nodes have about 100,000 rules.
const MOST: Most = Most { time: Duration::from_secs(6), rules: 2_000_000, bytes: 1 << 30 };

#[derive(Debug, Clone, Copy)]
struct Most {
    time: Duration,
    rules: usize,
    bytes: usize,
}

#[derive(Debug)]
pub struct Programs {
    search_path: OsString,
    /// The back end of each plain `iptables-save` program, so that each is asked once.
    kinds: Mutex<HashMap<PathBuf, Backend>>,
}

impl Programs {
    /// The programs on the process's search path, or in the usual folders if it has none.
    pub fn on_search_path() -> Self {
        let search_path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/sbin:/usr/bin:/bin".into());
        Programs { search_path, kinds: Mutex::default() }
    }

    pub fn search_path(&self) -> String {
        self.search_path.to_string_lossy().into_owned()
    }

    pub fn any(&self) -> bool {
        [Backend::Nft, Backend::Legacy].into_iter().any(|backend| self.find(backend, Family::V4).is_some())
    }

    /// Returns `iptables-nft-save`, `iptables-legacy-save`, or a plain `iptables-save` of that back end. Felix does the same
    /// (`FindBestBinary`).
    pub fn find(&self, backend: Backend, family: Family) -> Option<PathBuf> {
        let stem = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        child::find(&format!("{stem}-{}-save", backend.as_str()), &self.search_path).or_else(|| {
            let plain = child::find(&format!("{stem}-save"), &self.search_path)?;
            let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
            let kind = *kinds.entry(plain.clone()).or_insert_with(|| backend_of(&plain));
            (kind == backend).then_some(plain)
        })
    }

    pub fn save(&self, backend: Backend, family: Family, table: &'static str, deadline: Instant) -> Result<Vec<Snapshot>, String> {
        let Some(program) = self.find(backend, family) else {
            let message = format_args!(
                "no save program for {} tables of iptables-{} is installed: they are left out",
                family.as_str(),
                backend.as_str()
            );
            logging::once(Level::Warn, &format!("no program {} {}", family.as_str(), backend.as_str()), message);
            return Ok(Vec::new());
        };
        let time = MOST.time.min(deadline.saturating_duration_since(Instant::now()));
        let parser = text::Parser::new(family, backend, table);
        save(&program, parser, table, Most { time, ..MOST }).map(|table| vec![table])
    }
}

/// Returns the back end of a plain `iptables-save`: `v1.8.9 (nf_tables)`, `v1.8.9 (legacy)`. Before 1.8 there was only legacy.
fn backend_of(program: &Path) -> Backend {
    let mut version = Vec::new();
    let asked = child::run(program, &["--version"], MOST.time, &mut |piece| {
        version.extend_from_slice(&piece[..piece.len().min(200)]);
        Ok(())
    });
    if asked.is_ok() && version.windows(9).any(|word| word == b"nf_tables") { Backend::Nft } else { Backend::Legacy }
}

fn save(program: &Path, mut parser: text::Parser, table: &str, most: Most) -> Result<Snapshot, String> {
    let mut bytes = 0;
    let result = child::run(program, &["-t", table, "-c"], most.time, &mut |piece| {
        bytes += piece.len();
        parser.push(piece);
        match bytes > most.bytes || parser.rule_count() > most.rules {
            true => Err(format!("it printed more than {} rules or {} bytes", most.rules, most.bytes)),
            false => Ok(()),
        }
    });
    result.map_err(|error| format!("{} {error}", program.display()))?;
    if let Some(line) = parser.first_unreadable() {
        let message = format_args!("{}: skipping a line that is not a rule: {line:?}", program.display());
        logging::once(Level::Warn, &format!("unreadable {}", program.display()), message);
    }
    parser.finish().map_err(|error| format!("{}: {error}", program.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Each limit exceeded by itself, and neither exceeded.
    #[test]
    fn a_flood_is_refused_long_before_the_deadline() {
        let program = std::env::temp_dir().join(format!("accountant-flood-{}", std::process::id()));
        let begin = "echo '*filter'; echo ':cali-pi-x - [0:0]'";
        let save_from = |script: &str, most| {
            std::fs::write(&program, format!("#!/bin/sh\n{begin}; {script}\n")).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            let parser = text::Parser::new(Family::V4, Backend::Nft, "filter");
            save(&program, parser, "filter", most).map(|table| table.ruleset.rule_count())
        };
        let (time, rules, bytes) = (Duration::from_secs(60), 1000, 1 << 20);
        for most in [Most { time, rules, bytes: 1 << 30 }, Most { time, rules: 1 << 30, bytes }] {
            let (begun, error) = (Instant::now(), save_from("yes '[1:1] -A cali-pi-x -j ACCEPT'", most).unwrap_err());
            assert!(error.contains("was killed: it printed more than"), "{error}");
            assert!(begun.elapsed() < Duration::from_secs(30));
        }
        let least = save_from("yes '[1:1] -A cali-pi-x -j ACCEPT' | head -n 1000; echo COMMIT", Most { time, rules, bytes });
        assert_eq!(least.unwrap(), 1000);
        std::fs::remove_file(program).unwrap();
    }
}
