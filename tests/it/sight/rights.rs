//! What may not be read is not taken for missing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::{Lock, WEB_1, logged, ready, run, up, write};
use crate::program::{Program, command_under};
use crate::support::netns::{Namespace, sh};

/// The program as another user than root, with the two capabilities.
fn nobody(lock: &Lock) -> Command {
    let capabilities = ["--inh-caps=+net_admin,+net_raw", "--ambient-caps=+net_admin,+net_raw"];
    let mut command = command_under("setpriv", &[&["--reuid=65534", "--regid=65534", "--clear-groups"][..], &capabilities].concat());
    command.env_remove("ETCD_ENDPOINTS").env("DATASTORE_TYPE", "none").env("POD_LOGS_DIR", "/");
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("XTABLES_LOCKFILE", lock.path()).env("SOURCE", "kernel");
    command.env("BPFFS_DIR", "/no/bpffs");
    command
}

#[test]
fn legacy_tables_that_may_not_be_looked_for_are_not_absent() {
    let Some(namespace) = Namespace::new("legacy tables without root") else { return };
    let lock = Lock::new();
    fs::set_permissions(lock.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
    namespace.run(|| {
        write("legacy", &[WEB_1], true);
        for backend in ["auto", "legacy"] {
            let mut command = nobody(&lock);
            command.env("BACKEND", backend);
            let program = Program::start(command);
            assert_eq!((up(&program), up(&program)), (0.0, 0.0), "{backend}: {:#?}", program.log());
            let (status, text) = ready(&program);
            assert!(status == 503 && text.contains("/proc/net/ip_tables_names cannot be read: Permission denied"), "{backend}: {text}");
            assert_eq!(logged(&program, &["ip_tables_names cannot be read"]), 1, "{:#?}", program.log());
        }
        let (code, said) = run(nobody(&lock), &["check"]);
        assert!(code == Some(1) && said.contains("WRONG rules: /proc/net/ip_tables_names cannot be read"), "{said}");
        // If other tables have the rules, these are read. The log says what may be elsewhere.
        sh("XTABLES_LOCKFILE=/dev/null iptables-legacy -F && iptables-legacy -X");
        write("nft", &[WEB_1], true);
        let program = Program::start(nobody(&lock));
        assert_eq!((up(&program), up(&program)), (1.0, 1.0), "{:#?}", program.log());
        assert_eq!(logged(&program, &["outside of nft", "ip_tables_names"]), 1, "{:#?}", program.log());
    });
}

#[test]
fn a_bpffs_that_may_not_be_looked_into_is_not_empty() {
    let Some(namespace) = Namespace::new("a bpffs without rights") else { return };
    let lock = Lock::new();
    let bpffs = lock.0.path().join("bpf");
    fs::create_dir_all(bpffs.join("tc/globals")).unwrap();
    fs::set_permissions(lock.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(bpffs.join("tc"), fs::Permissions::from_mode(0o700)).unwrap();
    namespace.run(|| {
        let mut command = nobody(&lock);
        command.env("BPFFS_DIR", &bpffs).env("BACKEND", "auto");
        // Root may read its own folder. There the tables are missing.
        let mut root = super::alone(&lock.path());
        root.env("BPFFS_DIR", &bpffs);
        let program = Program::start(root);
        assert!(ready(&program).1.contains("none of Calico's chains is here"));
        write("nft", &[WEB_1], true);
        let program = Program::start(command);
        assert_eq!(up(&program), 1.0, "with endpoints in tables it does not matter: {:#?}", program.log());
        let mut command = nobody(&lock);
        command.env("BPFFS_DIR", &bpffs).env("BACKEND", "ebpf");
        let program = Program::start(command);
        assert_eq!(up(&program), 0.0);
        assert!(ready(&program).1.contains("tc/globals cannot be read: Permission denied"), "{}", ready(&program).1);
    });
}
