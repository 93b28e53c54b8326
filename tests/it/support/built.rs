//! Programs that scripts build from Go modules for the tests, and store outside of `target/`.

use std::path::{Path, PathBuf};

/// Returns the path of a program. It contains the version that `tests/FOLDER/go.mod` requires of a module.
pub fn program(folder: &str, module: &str, name: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder).join("go.mod");
    let text = std::fs::read_to_string(file).unwrap();
    let required = |line: &str| {
        let line = line.trim().strip_prefix("require").unwrap_or(line).trim();
        line.strip_prefix(module)?.strip_prefix(' ').map(|version| version.split(' ').next().unwrap().to_owned())
    };
    let version = text.lines().find_map(required).unwrap();
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache");
    let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(home, PathBuf::from);
    cache.join("calico-accountant").join(format!("{name}-{version}"))
}
