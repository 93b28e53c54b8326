//! Fake programs in place of `iptables-save`, in a folder that is the whole search path, except for the shell's tools.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::etcd::Scratch;

pub struct Fakes(Scratch);

impl Fakes {
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

    /// Creates or replaces a program that runs a shell script.
    ///
    /// Another process writes it. If this process had the file open for writing, a process that another test starts at the same time would
    /// inherit the descriptor for a moment. Until it is closed, the kernel refuses to run the program (ETXTBSY). The file is moved into
    /// place, so that a running program is never written to.
    pub fn set(&self, name: &str, script: &str) {
        const WRITE: &str = r#"printf '%s\n' "$2" >"$1.new" && chmod 755 "$1.new" && mv "$1.new" "$1""#;
        let program = format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{script}");
        let mut write = Command::new("/bin/sh");
        write.args(["-c", WRITE, "sh"]).arg(self.0.path().join(name)).arg(program);
        assert!(write.status().unwrap().success());
    }

    /// Creates a program that prints a text.
    pub fn prints(&self, name: &str, text: &str) {
        let file = self.file(&format!("{name}.out"), text);
        self.set(name, &format!("cat '{}'", file.display()));
    }

    /// Creates a file next to the programs.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Returns the search path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}
