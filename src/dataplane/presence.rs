//! Whether the kernel has legacy tables or nf_tables. Touches `/proc` only, so a look never changes anything in the kernel.
//!
//! A file that may not be read is an error here. It never means that there are no tables.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::ruleset::{Backend, Family};

/// The file that cannot be read, so that the answer is unknown.
pub type Unreadable = String;

/// How a part of the kernel is recognised: by a module's line, or by a symbol if it is built in.
struct Code {
    module: &'static str,
    symbol: &'static str,
    place: usize,
}

const NF_TABLES: Code = Code { module: "nf_tables ", symbol: " nft_do_chain", place: 0 };
const IP_TABLES: Code = Code { module: "ip_tables ", symbol: " ipt_do_table", place: 1 };
const IP6_TABLES: Code = Code { module: "ip6_tables ", symbol: " ip6t_do_table", place: 2 };

#[derive(Debug)]
pub struct Presence {
    proc: PathBuf,
    /// Which of them are built in. The kernel's symbols are 10 MB, and do not change.
    built_in: [OnceLock<bool>; 3],
}

impl Presence {
    pub fn new(proc: PathBuf) -> Self {
        Presence { proc, built_in: Default::default() }
    }

    /// Reports whether the kernel has this table of this back end. Any other way to look for it would load it.
    pub fn has(&self, backend: Backend, family: Family, table: &str) -> Result<bool, Unreadable> {
        let (names, code) = match (backend, family) {
            (Backend::Legacy, Family::V4) => ("net/ip_tables_names", &IP_TABLES),
            (Backend::Legacy, Family::V6) => ("net/ip6_tables_names", &IP6_TABLES),
            (Backend::Nft | Backend::Native, _) => return self.has_code(&NF_TABLES),
        };
        // Only root may read the names (mode 0440). Without them, the modules can still show that no legacy table exists.
        match content(&self.proc.join(names)) {
            Ok(names) => Ok(names.is_some_and(|names| names.lines().any(|name| name == table))),
            Err(unreadable) if self.has_code(code)? => Err(unreadable),
            Err(_) => Ok(false),
        }
    }

    fn has_code(&self, code: &Code) -> Result<bool, Unreadable> {
        let modules = content(&self.proc.join("modules"))?;
        let is_module = modules.is_some_and(|modules| modules.lines().any(|line| line.starts_with(code.module)));
        let built_in = || names_symbol(&self.proc.join("kallsyms"), code.symbol.as_bytes());
        Ok(is_module || *self.built_in[code.place].get_or_init(built_in))
    }
}

/// Returns a file's text, or `None` if there is no such file: a kernel without modules, without IPv6, or without this kind of table.
fn content(path: &Path) -> Result<Option<String>, Unreadable> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
    }
}

/// Reports whether the kernel's symbols contain this one. If there are no symbols, it is assumed.
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

    fn proc(test: &str) -> (PathBuf, impl Fn(Backend, Family) -> Result<bool, String>) {
        let proc = std::env::temp_dir().join(format!("accountant-{test}-{}", std::process::id()));
        std::fs::create_dir_all(proc.join("net")).unwrap();
        std::fs::write(proc.join("kallsyms"), "0000 T other\n0000 t nft_do_chain_x\n").unwrap();
        let at = proc.clone();
        (proc, move |backend, family| Presence::new(at.clone()).has(backend, family, "filter"))
    }

    #[test]
    fn what_the_kernel_has_is_read_off_proc() {
        let (proc, has) = proc("proc");
        assert!(!has(Backend::Legacy, Family::V4).unwrap());
        std::fs::write(proc.join("net/ip_tables_names"), "mangle\n").unwrap();
        assert!(!has(Backend::Legacy, Family::V4).unwrap());
        std::fs::write(proc.join("net/ip_tables_names"), "mangle\nfilter\n").unwrap();
        assert!(has(Backend::Legacy, Family::V4).unwrap() && !has(Backend::Legacy, Family::V6).unwrap());
        assert!(!has(Backend::Nft, Family::V4).unwrap());
        std::fs::write(proc.join("kallsyms"), "0000 T nft_do_chain\n").unwrap();
        assert!(has(Backend::Nft, Family::V4).unwrap());
        std::fs::remove_file(proc.join("kallsyms")).unwrap();
        assert!(has(Backend::Native, Family::V4).unwrap(), "without symbols it is assumed");
        std::fs::remove_dir_all(proc).unwrap();
    }

    /// Not even root can read a directory as a file.
    #[test]
    fn what_cannot_be_read_is_not_taken_for_absent() {
        let (proc, has) = proc("unreadable");
        for names in ["ip_tables_names", "ip6_tables_names"] {
            std::fs::create_dir_all(proc.join("net").join(names)).unwrap();
        }
        std::fs::write(proc.join("modules"), "ip_tables 1 0 - Live 0x0\n").unwrap();
        let error = has(Backend::Legacy, Family::V4).unwrap_err();
        assert!(error.contains("net/ip_tables_names cannot be read: "), "{error}");
        assert!(!has(Backend::Legacy, Family::V6).unwrap(), "without the module there is none");
        std::fs::write(proc.join("kallsyms"), "0000 T ip6t_do_table\n").unwrap();
        assert!(has(Backend::Legacy, Family::V6).is_err());
        std::fs::remove_file(proc.join("modules")).unwrap();
        std::fs::create_dir(proc.join("modules")).unwrap();
        assert!(has(Backend::Legacy, Family::V4).is_err() && has(Backend::Nft, Family::V4).is_err());
        std::fs::remove_dir_all(proc).unwrap();
    }
}
