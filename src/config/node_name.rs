//! The node's name: the order of calico-node itself, plus the variable of the Go exporter's demo.

use std::path::{Path, PathBuf};

use super::values::Values;
use super::{ConfigError, Remark, World};

const NODENAME_FILE: &str = "/var/lib/calico/nodename";
/// Contains the result of `gethostname`, without a system call of its own.
const HOSTNAME_FILE: &str = "/proc/sys/kernel/hostname";

/// Returns the first that is set of: `NODENAME`, the nodename file, `NODE_NAME`, `HOSTNAME` in lower case, the host's name in lower case.
/// calico-node does the same (`DetermineNodeName`), except for `NODE_NAME`, which it does not use.
pub(super) fn resolve(values: &Values<'_>, world: &World<'_>, remarks: &mut Vec<Remark>) -> Result<String, ConfigError> {
    let (name, source) =
        find(values, world)?.ok_or_else(|| ConfigError("NODENAME: not set, and the node's name is not known otherwise".into()))?;
    remarks.push(Remark::info(format!("node name {name:?} (from {source})")));
    Ok(name)
}

fn find(values: &Values<'_>, world: &World<'_>) -> Result<Option<(String, String)>, ConfigError> {
    if let Some((said, name)) = values.text("NODENAME")? {
        return Ok(Some((name, said.by)));
    }
    // An unreadable file is not an error, as in calico-node, because few pods mount it.
    let path = values.path("CALICO_NODENAME_FILE")?.unwrap_or_else(|| PathBuf::from(NODENAME_FILE));
    let file = || Some((content(world, &path)?, path.display().to_string()));
    let named = |variable: &str| Some((environment(world, variable)?, variable.to_owned()));
    let lower = |(name, source): (String, String)| (name.to_lowercase(), source);
    let host = || Some((content(world, Path::new(HOSTNAME_FILE))?, "the host's name".to_owned()));
    Ok(file().or_else(|| named("NODE_NAME")).or_else(|| named("HOSTNAME").map(lower)).or_else(|| host().map(lower)))
}

fn environment(world: &World<'_>, variable: &str) -> Option<String> {
    not_blank(&(world.variable)(variable)?.to_string_lossy())
}

fn content(world: &World<'_>, path: &Path) -> Option<String> {
    not_blank(&String::from_utf8_lossy(&(world.read_file)(path).ok()?))
}

fn not_blank(text: &str) -> Option<String> {
    Some(text.trim()).filter(|text| !text.is_empty()).map(str::to_owned)
}
