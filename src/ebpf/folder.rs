//! Reads the programs from Felix's folder of files about policy programs, and finds which are unchanged since the last read. Touches
//! `/var/run/calico` and `/sys/class/net`. An unchanged file is not read again.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use log::Level;

use super::dump;
use super::{Program, Shown, Snapshot};
use crate::datastore::inventory::Interface;
use crate::felix::Direction;
use crate::os::logging;
use crate::os::privileges::searching;

/// The largest file in bytes. The file of a program with the kernel's maximum of instructions has about 100 MB; Felix splits programs far
/// earlier.
const MOST_BYTES: u64 = 32 << 20;
/// The maximum number of files. A node has some hundreds of interfaces.
const MOST_FILES: usize = 20_000;

#[derive(Debug, Default)]
pub struct Folder {
    stamp: Option<Stamp>,
    files: BTreeMap<String, Dumped>,
}

/// Identifies a version of a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        let (modified, changed) = ((metadata.mtime(), metadata.mtime_nsec()), (metadata.ctime(), metadata.ctime_nsec()));
        Stamp { inode: metadata.ino(), length: metadata.len(), modified, changed }
    }

    /// Reports whether the next change would alter the stamp. File systems have time steps of up to two seconds.
    fn is_settled(&self, now: SystemTime) -> bool {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(0));
        now.saturating_sub(self.changed.0.max(self.modified.0)) > 2
    }
}

#[derive(Debug)]
struct Dumped {
    stamp: Stamp,
    /// Whether the stamp proves that the file is unchanged.
    is_settled: bool,
    program: Option<Arc<Program>>,
    is_readable: bool,
    is_live: bool,
    /// Whether all this was the same at the last read.
    unchanged: bool,
}

impl Folder {
    /// Adds what the files contain to `snapshot`. `net` is the folder of interfaces.
    pub fn read(&mut self, path: &Path, net: &Path, snapshot: &mut Snapshot) {
        searching(|| self.enter(path, net, snapshot));
    }

    fn enter(&mut self, path: &Path, net: &Path, snapshot: &mut Snapshot) {
        let stamp = fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata));
        let mut last = std::mem::replace(self, Folder { stamp, files: BTreeMap::new() });
        let names = file_names(path).unwrap_or_else(|error| {
            let remedy = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "; this needs the capability DAC_READ_SEARCH, because Felix creates the folder \
                    with mode 0600"
                }
                _ => "",
            };
            let message = format_args!("{}: {error}; without these files the policies of the rules are unknown{remedy}", path.display());
            logging::once(Level::Warn, "policy programs", message);
            snapshot.unlisted = Some(error.kind());
            Vec::new()
        });
        let now = SystemTime::now();
        let interfaces: Option<HashSet<String>> = file_names(net).map(HashSet::from_iter).ok();
        for name in names {
            let Some(parsed) = dump::Name::parse(&name) else { continue };
            let is_live = interfaces.as_ref().is_some_and(|interfaces| interfaces.contains(parsed.interface));
            let file = look_at(&path.join(&name), parsed, is_live, last.files.remove(&name), now);
            self.files.extend(file.map(|file| (name, file)));
        }
        let files = self.files.values();
        snapshot.unchanged = stamp.is_some() && last.stamp == stamp && last.files.is_empty() && files.clone().all(|file| file.unchanged);
        snapshot.unreadable = files.clone().filter(|file| file.is_live && !file.is_readable).count();
        let shown = |file: &Dumped| {
            let program = Arc::clone(file.program.as_ref()?);
            Some(Shown { program, is_live: file.is_live, unchanged: file.unchanged })
        };
        snapshot.programs = files.filter_map(shown).collect();
        snapshot.complete = interfaces.is_some_and(|interfaces| is_complete(&interfaces, &snapshot.programs));
    }
}

fn file_names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(folder)?.take(MOST_FILES);
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

/// Reports whether every interface with a workload's name has files for both directions. One without files may have any rule.
fn is_complete(interfaces: &HashSet<String>, programs: &[Shown]) -> bool {
    let workloads = || programs.iter().map(|shown| &*shown.program).filter(|program| program.is_workload);
    let prefixes: BTreeSet<&str> = workloads().map(|program| prefix(&program.interface)).collect();
    let shown: BTreeSet<(&str, Direction)> = workloads().map(|program| (&*program.interface, program.direction)).collect();
    let is_workloads = |name: &&String| prefixes.contains(prefix(name));
    interfaces.iter().filter(is_workloads).all(|name| Direction::ALL.into_iter().all(|direction| shown.contains(&(name, direction))))
}

fn prefix(interface: &str) -> &str {
    let hash = interface.len().checked_sub(Interface::SUFFIX).filter(|start| *start > 0 && interface.is_char_boundary(*start));
    hash.map_or(interface.trim_end_matches(|c: char| c.is_ascii_digit()), |start| &interface[..start])
}

/// Reads a file again only if it has changed or may have. While Felix writes a file, it is truncated. Then the previous rules are kept, but
/// the program no longer counts as unchanged.
fn look_at(path: &Path, name: dump::Name, is_live: bool, last: Option<Dumped>, now: SystemTime) -> Option<Dumped> {
    let stamp = Stamp::of(&fs::metadata(path).ok()?);
    let (last, same) = match last {
        Some(last) if last.stamp == stamp && last.is_readable && last.is_settled => {
            return Some(Dumped { unchanged: last.is_live == is_live, is_live, ..last });
        }
        Some(last) => (last.program, last.stamp == stamp && last.is_readable && last.is_live == is_live),
        None => (None, false),
    };
    let read = read_program(path, name).map_err(|error| {
        let message = format_args!("{}: {error}; rules of this program may be unknown", path.display());
        logging::once(Level::Warn, "policy program", message);
    });
    let (is_readable, is_settled) = (read.is_ok(), stamp.is_settled(now));
    let (program, unchanged) = match (read, last) {
        (Ok(read), Some(last)) if *last == read => (Some(last), same),
        (read, last) => (read.ok().map(Arc::new).or(last), false),
    };
    Some(Dumped { stamp, is_settled, program, is_readable, is_live, unchanged })
}

fn read_program(path: &Path, name: dump::Name) -> Result<Program, String> {
    let mut content = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    let length = file.take(MOST_BYTES + 1).read_to_end(&mut content).map_err(|error| error.to_string())?;
    if length as u64 > MOST_BYTES {
        return Err(format!("it is longer than {MOST_BYTES} bytes"));
    }
    dump::parse(&content, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "cali1_ingress_v4.json";

    fn file(path: &Path, policy: &str) -> Stamp {
        let comments = ["Start of tier default", &format!("Start of policy default.{policy}")];
        let dump = serde_json::json!({ "ifacename": "cali1", "policyInfo": [{ "inst": vec![0; 8], "comments": comments }] });
        fs::write(path, dump.to_string()).unwrap();
        Stamp::of(&fs::metadata(path).unwrap())
    }

    fn says(dumped: &Dumped) -> (String, bool) {
        (dumped.program.as_ref().unwrap().policies[0].0.label.to_string(), dumped.unchanged)
    }

    /// The clocks of file systems advance in steps of milliseconds or seconds. A rewritten file of the same length may have the same times.
    #[test]
    fn a_file_that_is_written_again_within_the_same_moment_is_read_again() {
        let folder = std::env::temp_dir().join(format!("accountant-dumps-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (path, name) = (folder.join(NAME), dump::Name::parse(NAME).unwrap());
        let (now, later) = (SystemTime::now(), SystemTime::now() + std::time::Duration::from_secs(4));
        file(&path, "a");
        let first = look_at(&path, name, true, None, now).unwrap();
        assert_eq!(says(&first), ("default.a".into(), false));
        let stamp = file(&path, "b");
        let second = look_at(&path, name, true, Some(Dumped { stamp, ..first }), now).unwrap();
        assert_eq!(says(&second), ("default.b".into(), false), "the same stamp, too young to be trusted");
        // As long as the content is the same, the program is unchanged. At the second read, the file is old enough to be trusted.
        let third = look_at(&path, name, true, Some(second), later).unwrap();
        assert_eq!((says(&third), third.is_settled), (("default.b".into(), true), true));
        let stamp = file(&path, "c");
        let fourth = look_at(&path, name, true, Some(Dumped { stamp, ..third }), later).unwrap();
        assert_eq!(says(&fourth), ("default.b".into(), true), "it is not even opened");
        let fifth = look_at(&path, name, true, Some(fourth), later).unwrap();
        assert_eq!(says(&fifth), ("default.b".into(), true));
        let sixth = look_at(&path, name, true, Some(Dumped { stamp: Stamp { inode: 0, ..stamp }, ..fifth }), later).unwrap();
        assert_eq!(says(&sixth), ("default.c".into(), false));
        fs::remove_dir_all(folder).unwrap();
    }
}
