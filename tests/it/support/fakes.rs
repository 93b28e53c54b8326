//! Programs of a test's own in place of `iptables-save`, in a folder that is the whole search path but for the shell's tools.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::etcd::Scratch;

/// A folder of fake programs.
pub struct Fakes(Scratch);

impl Fakes {
    /// An empty one.
    pub fn new() -> Self {
        Fakes(Scratch::new())
    }

    /// Both families of iptables-nft: IPv4 runs `script`, IPv6 prints nothing.
    pub fn nft(script: &str) -> Self {
        let fakes = Fakes::new();
        fakes.set("iptables-nft-save", script);
        fakes.set("ip6tables-nft-save", "");
        fakes
    }

    /// Both families of iptables-nft print these texts.
    pub fn tables(v4: &str, v6: &str) -> Self {
        let fakes = Fakes::new();
        fakes.prints("iptables-nft-save", v4);
        fakes.prints("ip6tables-nft-save", v6);
        fakes
    }

    /// A program that runs a shell script, instead of the one that had this name.
    ///
    /// Another process writes it: had this one the file open for writing, a process that another test starts at the same time
    /// would inherit that for a moment, and until it is gone the kernel refuses to run the program (ETXTBSY). And it is moved into
    /// place, so that a program that is running is never written to.
    pub fn set(&self, name: &str, script: &str) {
        const WRITE: &str = r#"printf '%s\n' "$2" >"$1.new" && chmod 755 "$1.new" && mv "$1.new" "$1""#;
        let program = format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{script}");
        let mut write = Command::new("/bin/sh");
        write.args(["-c", WRITE, "sh"]).arg(self.0.path().join(name)).arg(program);
        assert!(write.status().unwrap().success());
    }

    /// A program that prints a text.
    pub fn prints(&self, name: &str, text: &str) {
        let file = self.file(&format!("{name}.out"), text);
        self.set(name, &format!("cat '{}'", file.display()));
    }

    /// A file beside the programs.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// The search path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}
