//! Reads the dataplane: the pinned maps, Felix's files about the programs, the interfaces' numbers → [`Snapshot`].
//! Touches `/sys/fs/bpf`, `/var/run/calico` and `/sys/class/net`; takes the right to call bpf(2).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::Level;

use super::dump;
use super::{Program, Shown, Snapshot, Verdicts};
use crate::felix::Direction;
use crate::inventory::Interface;
use crate::kernel::bpf::{Counters, OpenError};
use crate::logging;

/// The map of rule counters, and the one version of it that is known (Calico ≥ 3.25).
const RULES: &str = "cali_rule_ctrs";
const RULES_VERSION: u32 = 2;
/// The map of interface counters. Versions 2 to 6 differ in how many counters they have, not in those that matter here.
const INTERFACES: &str = "cali_counters";
const INTERFACES_VERSIONS: std::ops::RangeInclusive<u32> = 2..=6;
/// `CALI_REASON_ACCEPTED_BY_POLICY` and `CALI_REASON_DROPPED_BY_POLICY` in `felix/bpf-gpl/reasons.h`.
const ACCEPTED: usize = 2;
const REFUSED: usize = 4;
/// A program of the most instructions that the kernel takes is some 100 MB; Felix splits far earlier. In bytes.
const MOST_BYTES: u64 = 32 << 20;
/// More files than this are not looked at: a node has some hundreds of interfaces.
const MOST_FILES: usize = 20_000;

/// Why the dataplane could not be read. One line for the user.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// There is no map of rule counters under this folder.
    NoMap(PathBuf),
    /// The map's version is not known.
    Version(PathBuf),
    /// The map is laid out otherwise: its type, and the lengths of its keys and values.
    Layout(PathBuf, (u32, u32, u32)),
    /// The kernel did not let itself be read.
    Io(PathBuf, io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoMap(folder) => write!(
                f,
                "there is no map {RULES}{RULES_VERSION} in {}: it takes Calico's eBPF dataplane, 3.25 or later, and the host's {}",
                folder.display(),
                folder.ancestors().nth(2).unwrap_or(folder).display()
            ),
            Error::Version(path) => {
                write!(f, "the map {} has a version that is not known; known is {RULES}{RULES_VERSION}", path.display())
            }
            Error::Layout(path, (kind, key, value)) => write!(
                f,
                "the map {} has an unknown layout: type {kind}, keys of {key} and values of {value} bytes; known is type 5, 8 and 8",
                path.display()
            ),
            Error::Io(path, error) => {
                write!(f, "reading the map {} failed: {error}", path.display())?;
                match error.kind() {
                    io::ErrorKind::PermissionDenied => write!(f, "; it takes the capability BPF, and Linux 5.8 or later"),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for Error {}

/// Reads the dataplane again and again.
#[derive(Debug, Default)]
pub struct Reader {
    /// The folder of files about programs at the last read.
    folder: Folder,
}

/// What a folder looked like, and what its files said.
#[derive(Debug, Default)]
struct Folder {
    stamp: Option<Stamp>,
    files: BTreeMap<String, Dumped>,
}

/// By this a file, or a folder, is known to be the same as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Stamp { inode: metadata.ino(), length: metadata.len(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

/// A file about a program.
#[derive(Debug)]
struct Dumped {
    stamp: Stamp,
    /// What it says; or said, while it cannot be read.
    program: Option<Arc<Program>>,
    is_readable: bool,
    /// Whether its interface is there.
    is_live: bool,
    /// Whether all this was so at the last read.
    unchanged: bool,
}

/// Where things are pinned, under the mount of bpffs.
fn globals(bpffs: &Path) -> PathBuf {
    bpffs.join("tc/globals")
}

/// Whether Felix has pinned a map of rule counters here, of whatever version.
pub fn is_present(bpffs: &Path) -> bool {
    !versions(&globals(bpffs), RULES).is_empty()
}

/// The versions of a map that are pinned. One without a number is the first; names with other endings are Felix's while it replaces one.
fn versions(folder: &Path, name: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let version = |file: &str| match file.strip_prefix(name)? {
        "" => Some(1),
        number if number.bytes().all(|byte| byte.is_ascii_digit()) => Some(number.parse().unwrap_or(u32::MAX)),
        _ => None,
    };
    entries.filter_map(|entry| version(entry.ok()?.file_name().to_str()?)).collect()
}

impl Reader {
    /// Reads everything once. `sys` is `/sys`, `run` is Calico's own folder in `/var/run`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn read(&mut self, bpffs: &Path, sys: &Path, run: &Path) -> Result<Snapshot, Error> {
        let globals = globals(bpffs);
        let rules = open_rules(&globals)?;
        let interfaces = open_interfaces(&globals);
        let mut snapshot = Snapshot::default();
        let numbers = interface_numbers(sys);
        let verdicts = |when: &str| interfaces.as_ref().map(|(path, counters)| read_interfaces(counters, path, when)).unwrap_or_default();
        let before = verdicts("before");
        let path = globals.join(format!("{RULES}{RULES_VERSION}"));
        rules.read(&mut |id, packets| _ = snapshot.rules.insert(id, packets[0])).map_err(|error| Error::Io(path, error))?;
        let after = verdicts("after");
        for ((number, direction), (accepted, refused)) in before {
            if let (Some(name), Some((accepted_after, refused_after))) = (numbers.get(&number), after.get(&(number, direction))) {
                let verdicts = Verdicts { accepted: (accepted, *accepted_after), refused: (refused, *refused_after) };
                snapshot.interfaces.insert((Arc::clone(name), direction), verdicts);
            }
        }
        // Last: Felix loads a program first and writes its file then, so whatever has counted has its file by now.
        self.programs(&run.join("bpf/policy"), sys, &mut snapshot);
        Ok(snapshot)
    }

    fn programs(&mut self, path: &Path, sys: &Path, snapshot: &mut Snapshot) {
        let stamp = fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata));
        let mut last = std::mem::replace(&mut self.folder, Folder { stamp, files: BTreeMap::new() });
        let names = file_names(path).unwrap_or_else(|error| {
            let message = format_args!("{}: {error}; without these files nothing says which rules are whose", path.display());
            logging::once(Level::Warn, "policy programs", message);
            Vec::new()
        });
        let net = sys.join("class/net");
        for name in names {
            let Some((interface, ..)) = dump::parse_name(&name) else { continue };
            let is_live = net.join(interface).exists();
            let file = look_at(&path.join(&name), &name, is_live, last.files.remove(&name));
            self.folder.files.extend(file.map(|file| (name, file)));
        }
        let files = self.folder.files.values();
        snapshot.unchanged = stamp.is_some() && last.stamp == stamp && last.files.is_empty() && files.clone().all(|file| file.unchanged);
        snapshot.unreadable = files.clone().filter(|file| file.is_live && !file.is_readable).count();
        let shown = |file: &Dumped| {
            let program = Arc::clone(file.program.as_ref()?);
            Some(Shown { program, is_live: file.is_live, unchanged: file.unchanged })
        };
        snapshot.programs = files.filter_map(shown).collect();
        snapshot.complete = is_complete(&net, &snapshot.programs);
    }
}

fn file_names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(folder)?.take(MOST_FILES);
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

/// Whether every interface that is named like a workload's has files for both directions. One that has none may hold any rule.
fn is_complete(net: &Path, programs: &[Shown]) -> bool {
    let workloads = || programs.iter().map(|shown| &*shown.program).filter(|program| program.is_workload);
    let prefixes: BTreeSet<&str> = workloads().map(|program| prefix(&program.interface)).collect();
    let shown: BTreeSet<(&str, Direction)> = workloads().map(|program| (&*program.interface, program.direction)).collect();
    let Ok(interfaces) = file_names(net) else { return false };
    let is_workloads = |name: &&String| prefixes.contains(prefix(name));
    interfaces.iter().filter(is_workloads).all(|name| Direction::ALL.into_iter().all(|direction| shown.contains(&(name, direction))))
}

/// What precedes the hash in the name of a workload's interface.
fn prefix(interface: &str) -> &str {
    let hash = interface.len().checked_sub(Interface::SUFFIX).filter(|start| *start > 0 && interface.is_char_boundary(*start));
    hash.map_or(interface.trim_end_matches(|c: char| c.is_ascii_digit()), |start| &interface[..start])
}

/// Looks at a file again; reads it only if it has changed. While Felix writes it, it is cut short: then what it said before is what is
/// known of its rules, but no longer that the program is the same.
fn look_at(path: &Path, name: &str, is_live: bool, last: Option<Dumped>) -> Option<Dumped> {
    let stamp = Stamp::of(&fs::metadata(path).ok()?);
    let last = match last {
        Some(last) if last.stamp == stamp && last.is_readable => {
            return Some(Dumped { unchanged: last.is_live == is_live, is_live, ..last });
        }
        last => last,
    };
    let read = read_program(path, name).map_err(|error| {
        let message = format_args!("{}: {error}; rules of this program may not be known", path.display());
        logging::once(Level::Warn, "policy program", message);
    });
    let is_readable = read.is_ok();
    let program = read.ok().map(Arc::new).or_else(|| last?.program);
    Some(Dumped { stamp, program, is_readable, is_live, unchanged: false })
}

fn read_program(path: &Path, name: &str) -> Result<Program, String> {
    let (interface, direction, family) = dump::parse_name(name).ok_or("its name says no interface")?;
    let mut content = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    let length = file.take(MOST_BYTES + 1).read_to_end(&mut content).map_err(|error| error.to_string())?;
    if length as u64 > MOST_BYTES {
        return Err(format!("it is longer than {MOST_BYTES} bytes"));
    }
    dump::parse(&content, interface, direction, family)
}

fn open_rules(globals: &Path) -> Result<Counters, Error> {
    let versions = versions(globals, RULES);
    let path = globals.join(format!("{RULES}{RULES_VERSION}"));
    match versions.iter().max() {
        None => return Err(Error::NoMap(globals.to_owned())),
        // An older one may be left over from an upgrade; a newer one is where the programs count now.
        Some(&newest) if newest != RULES_VERSION => {
            let number = if newest == 1 { String::new() } else { newest.to_string() };
            return Err(Error::Version(globals.join(format!("{RULES}{number}"))));
        }
        Some(_) => {}
    }
    match Counters::open(&path) {
        Ok(counters) if counters.counters == 1 => Ok(counters),
        Ok(counters) => Err(Error::Layout(path, (5, 8, counters.counters as u32 * 8))),
        Err(OpenError::Io(error)) => Err(Error::Io(path, error)),
        Err(OpenError::Other(kind, key, value)) => Err(Error::Layout(path, (kind, key, value))),
    }
}

/// The newest map of interface counters, if its version is known. Without it the rules are still counted.
fn open_interfaces(globals: &Path) -> Option<(PathBuf, Counters)> {
    let newest = versions(globals, INTERFACES).into_iter().max()?;
    let path = globals.join(format!("{INTERFACES}{newest}"));
    let opened = INTERFACES_VERSIONS.contains(&newest).then(|| Counters::open(&path).ok()).flatten();
    let counters = opened.filter(|counters| counters.counters > REFUSED);
    if counters.is_none() {
        let message = format_args!("the map {} is not known: totals of workloads are left out", path.display());
        logging::once(Level::Warn, "map of interface counters", message);
    }
    Some((path, counters?))
}

/// Accepted and refused packets by the interface's number and direction.
type Totals = BTreeMap<(u32, Direction), (u64, u64)>;

fn read_interfaces(counters: &Counters, path: &Path, when: &str) -> Totals {
    let mut totals = Totals::new();
    let result = counters.read(&mut |key, packets| {
        // struct counters_key { ifindex, hook }: numbers of 32 bits, one after the other.
        let [a, b, c, d, hook @ ..] = key.to_ne_bytes();
        let direction = match u32::from_ne_bytes(hook) {
            // Seen from the host: what it receives, the workload has sent.
            0 => Direction::Egress,
            1 => Direction::Ingress,
            _ => return,
        };
        totals.insert((u32::from_ne_bytes([a, b, c, d]), direction), (packets[ACCEPTED], packets[REFUSED]));
    });
    if let Err(error) = result {
        let message = format_args!("reading the map {} failed: {error}; totals of workloads are left out", path.display());
        logging::once(Level::Warn, when, message);
        totals.clear();
    }
    totals
}

/// The interfaces by their numbers.
fn interface_numbers(sys: &Path) -> BTreeMap<u32, Arc<str>> {
    let Ok(entries) = fs::read_dir(sys.join("class/net")) else { return BTreeMap::new() };
    let number = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let number = fs::read_to_string(entry.path().join("ifindex")).ok()?.trim_end().parse().ok()?;
        Some((number, entry.file_name().to_str()?.into()))
    };
    entries.filter_map(number).collect()
}
