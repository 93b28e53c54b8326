//! Captured rulesets and datastores under `tests/fixtures`; those ending in `.gz` are unpacked on the way.

use std::io::Read;
use std::path::{Path, PathBuf};

/// Where fixtures are.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// The text of a fixture.
pub fn text(name: &str) -> String {
    let path = path(name);
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if !name.ends_with(".gz") {
        return String::from_utf8(bytes).unwrap();
    }
    let mut text = String::new();
    flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
    text
}
