//! Reads the eBPF dataplane: the pinned maps, Felix's files about the programs, the interfaces' indexes → [`Snapshot`]. Touches
//! `/sys/fs/bpf` and `/sys/class/net`. Needs the right to call bpf(2).

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use foldhash::fast::RandomState;
use log::Level;

use super::folder::Folder;
use super::{IdMap, Snapshot, Verdicts};
use crate::felix::Direction;
use crate::kernel::bpf::{Counters, Layout, OpenError};
use crate::os::logging;

/// The map of rule counters, and the only known version of it (Calico ≥ 3.25).
const RULES: &str = "cali_rule_ctrs";
const RULES_VERSION: u32 = 2;
/// The map of interface counters. Versions 2 to 6 differ in their number of counters, but not in the relevant ones.
const INTERFACES: &str = "cali_counters";
const INTERFACES_VERSIONS: std::ops::RangeInclusive<u32> = 2..=6;
/// `CALI_REASON_ACCEPTED_BY_POLICY` and `CALI_REASON_DROPPED_BY_POLICY` in `felix/bpf-gpl/reasons.h`.
const ACCEPTED: usize = 2;
const REFUSED: usize = 4;
/// The maximum number of interfaces.
const MOST_INTERFACES: usize = 20_000;

#[derive(Debug)]
pub enum Error {
    NoMap(PathBuf),
    Version(PathBuf),
    Layout(PathBuf, Layout),
    Io(PathBuf, io::Error),
    Folder(PathBuf, io::Error),
}

impl Error {
    pub fn is_denied(&self) -> bool {
        matches!(self, Error::Io(_, error) | Error::Folder(_, error) if error.kind() == io::ErrorKind::PermissionDenied)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoMap(folder) => write!(
                f,
                "there is no map {RULES}{RULES_VERSION} in {}: this needs Calico's eBPF dataplane, 3.25 or later, and the host's {}",
                folder.display(),
                folder.ancestors().nth(2).unwrap_or(folder).display()
            ),
            Error::Version(path) => {
                write!(f, "the map {} has an unknown version; known is {RULES}{RULES_VERSION}", path.display())
            }
            Error::Layout(path, Layout { kind, key, value }) => write!(
                f,
                "the map {} has an unknown layout: type {kind}, keys of {key} and values of {value} bytes; known is type 5, 8 and 8",
                path.display()
            ),
            Error::Folder(path, error) => write!(
                f,
                "{} cannot be read: {error}, so it is unknown whether Calico's eBPF dataplane is here: run as root (runAsUser: 0), or \
                 set BACKEND",
                path.display()
            ),
            Error::Io(path, error) => {
                write!(f, "reading the map {} failed: {error}", path.display())?;
                match error.kind() {
                    io::ErrorKind::PermissionDenied => write!(
                        f,
                        "; this needs the capability BPF (SYS_ADMIN before Linux 5.8), which is kept only with BACKEND=ebpf, or if \
                         the map exists at the start"
                    ),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl std::error::Error for Error {}

#[derive(Debug, Default)]
pub struct Reader {
    folder: Folder,
    /// The number of entries in the map of rules at the last read.
    rules: usize,
}

/// Returns the folder of Felix's pinned maps in the bpffs mount.
fn globals(bpffs: &Path) -> PathBuf {
    bpffs.join("tc/globals")
}

/// Reports whether Felix has pinned a map of rule counters here, of any version.
pub fn is_present(bpffs: &Path) -> Result<bool, Error> {
    let globals = globals(bpffs);
    versions(&globals, RULES).map(|versions| !versions.is_empty()).map_err(|error| Error::Folder(globals, error))
}

fn pinned(folder: &Path, name: &str, version: u32) -> PathBuf {
    let version = if version == 1 { String::new() } else { version.to_string() };
    folder.join(format!("{name}{version}"))
}

/// Returns the pinned versions of a map. A name without a number is version 1. Felix uses other endings while it replaces a map.
fn versions(folder: &Path, name: &str) -> io::Result<Vec<u32>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let version = |file: &str| match file.strip_prefix(name)? {
        "" => Some(1),
        number if number.bytes().all(|byte| byte.is_ascii_digit()) => Some(number.parse().unwrap_or(u32::MAX)),
        _ => None,
    };
    Ok(entries.filter_map(|entry| version(entry.ok()?.file_name().to_str()?)).collect())
}

impl Reader {
    /// Reads everything once. `run` is Calico's folder in `/var/run`.
    pub fn read(&mut self, bpffs: &Path, run: &Path) -> Result<Snapshot, Error> {
        let globals = globals(bpffs);
        let rules = open_rules(&globals)?;
        let interfaces = open_interfaces(&globals);
        let before = read_interfaces(&interfaces);
        let counts = self.read_rules(&rules).map_err(|error| Error::Io(pinned(&globals, RULES, RULES_VERSION), error))?;
        let after = read_interfaces(&interfaces);
        let mut snapshot = Snapshot { rules: Arc::new(counts), rule_map: rules.map.id, ..Snapshot::default() };
        let net = Path::new("/sys/class/net");
        if let Some(counted) = before.zip(after).and_then(|(before, after)| by_name(net, &before, &after)) {
            snapshot.interface_maps = interfaces.iter().map(|(_, counters)| counters.map.id).collect();
            snapshot.interfaces = counted;
        }
        // Last, because Felix loads a program before it writes its file. So every program that has counted has its file by now.
        self.folder.read(&run.join("bpf/policy"), net, &mut snapshot);
        Ok(snapshot)
    }

    fn read_rules(&mut self, rules: &Counters) -> io::Result<IdMap<u64>> {
        let mut counts = IdMap::with_capacity_and_hasher(self.rules, RandomState::default());
        rules.read(&mut |id, packets| _ = counts.insert(id, packets[0]))?;
        self.rules = counts.len();
        Ok(counts)
    }
}

fn open_rules(globals: &Path) -> Result<Counters, Error> {
    let versions = versions(globals, RULES).map_err(|error| Error::Folder(globals.to_owned(), error))?;
    let path = pinned(globals, RULES, RULES_VERSION);
    match versions.into_iter().max() {
        None => return Err(Error::NoMap(globals.to_owned())),
        // An older version may remain from an upgrade. In a newer one the programs count now.
        Some(newest) if newest != RULES_VERSION => return Err(Error::Version(pinned(globals, RULES, newest))),
        Some(_) => {}
    }
    match Counters::open(&path) {
        Ok(counters) if counters.counters == 1 => Ok(counters),
        Ok(counters) => Err(Error::Layout(path, counters.map.layout())),
        Err(OpenError::Io(error)) => Err(Error::Io(path, error)),
        Err(OpenError::Other(layout)) => Err(Error::Layout(path, layout)),
    }
}

/// Opens the maps of interface counters. After an upgrade, maps of other releases remain pinned. Programs count in one of them and the
/// others do not change, so they are summed. Returns an empty list if a version is unknown, because programs may count there.
fn open_interfaces(globals: &Path) -> Vec<(PathBuf, Counters)> {
    let mut maps = Vec::new();
    let Ok(mut versions) = versions(globals, INTERFACES) else { return maps };
    versions.sort_unstable();
    for version in versions {
        let path = pinned(globals, INTERFACES, version);
        let opened = INTERFACES_VERSIONS.contains(&version).then(|| Counters::open(&path).ok()).flatten();
        let Some(counters) = opened.filter(|counters| counters.counters > REFUSED) else {
            let message = format_args!("the map {} is not known: totals of workloads are left out", path.display());
            logging::once(Level::Warn, "map of interface counters", message);
            return Vec::new();
        };
        maps.push((path, counters));
    }
    maps
}

/// Accepted and refused packets by interface index and direction.
type Totals = HashMap<(u32, Direction), (u64, u64), RandomState>;

fn read_interfaces(maps: &[(PathBuf, Counters)]) -> Option<Totals> {
    let mut totals = Totals::default();
    for (path, counters) in maps {
        // An entry may occur more than once.
        let mut of_map = Totals::default();
        let result = counters.read(&mut |key, packets| {
            // struct counters_key { ifindex, hook }: two 32-bit numbers.
            let [a, b, c, d, hook @ ..] = key.to_ne_bytes();
            let direction = match u32::from_ne_bytes(hook) {
                // As seen from the host: what it receives, the workload has sent.
                0 => Direction::Egress,
                1 => Direction::Ingress,
                _ => return,
            };
            of_map.insert((u32::from_ne_bytes([a, b, c, d]), direction), (packets[ACCEPTED], packets[REFUSED]));
        });
        if let Err(error) = result {
            let message = format_args!("reading the map {} failed: {error}; totals of workloads are left out", path.display());
            logging::once(Level::Warn, "interface counters", message);
            return None;
        }
        for (key, (accepted, refused)) in of_map {
            let total = totals.entry(key).or_default();
            *total = (total.0.saturating_add(accepted), total.1.saturating_add(refused));
        }
    }
    Some(totals)
}

/// Returns the counts of all interfaces by name. An interface without entries has seen no packet.
fn by_name(net: &Path, before: &Totals, after: &Totals) -> Option<BTreeMap<(Arc<str>, Direction), Verdicts>> {
    let mut interfaces = BTreeMap::new();
    let entries = fs::read_dir(net).ok()?;
    for entry in entries.take(MOST_INTERFACES).flatten() {
        let Some((number, name)) = number(&entry.path().join("ifindex")).zip(entry.file_name().into_string().ok()) else { continue };
        let name: Arc<str> = name.into();
        for direction in Direction::ALL {
            let key = (number, direction);
            if let Some(after) = after.get(&key) {
                let before = before.get(&key).copied().unwrap_or_default();
                let verdicts = Verdicts { accepted: (before.0, after.0), refused: (before.1, after.1), number };
                interfaces.insert((Arc::clone(&name), direction), verdicts);
            }
        }
    }
    Some(interfaces)
}

fn number(path: &Path) -> Option<u32> {
    let mut text = [0; 16];
    let length = File::open(path).ok()?.read(&mut text).ok()?;
    std::str::from_utf8(&text[..length]).ok()?.trim_end().parse().ok()
}
