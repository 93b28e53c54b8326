//! Files that are not the xtables lock, and back ends that need no lock.

use std::fs;
use std::time::{Duration, Instant};

use super::{Lock, WEB_1, alone, logged, run, up, write};
use crate::program::{Program, command_under};
use crate::support::can_run;
use crate::support::netns::{Namespace, sh};
use crate::support::scrape::{one, scrape};

#[test]
fn what_is_no_regular_file_is_no_lock_and_is_not_waited_for() {
    let Some(namespace) = Namespace::new("odd locks") else { return };
    let lock = Lock::new();
    namespace.run(|| {
        write("legacy", &[WEB_1], true);
        for (kind, make) in [("a directory", "mkdir"), ("a FIFO", "mkfifo")] {
            let path = lock.path().with_file_name(make);
            sh(&format!("{make} {}", path.display()));
            let program = Program::start(alone(&path));
            let begun = Instant::now();
            let samples = scrape(program.port());
            assert!(begun.elapsed() < Duration::from_secs(3), "{kind}");
            assert_eq!((up(&program), one(&samples, "calico_accountant_lock_held", &[])), (1.0, 0.0), "{kind}");
            assert_eq!(logged(&program, &["xtables lock", kind]), 1, "{:#?}", program.log());
            let (code, said) = run(alone(&path), &["check"]);
            assert!(code == Some(1) && said.contains("WRONG xtables lock") && said.contains(kind), "{said}");
        }
    });
}

/// A mounted lock file is replaced on the host. Writers lock the new one.
#[test]
fn a_mounted_file_that_was_replaced_is_not_the_lock() {
    let test = "a lock that was replaced";
    let Some(namespace) = Namespace::new(test) else { return };
    let lock = Lock::new();
    let mounted = lock.path().with_file_name("mounted");
    fs::write(&mounted, "").unwrap();
    if !can_run(test, rustix::process::geteuid().is_root(), "root") {
        return;
    }
    namespace.run(|| {
        write("legacy", &[WEB_1], true);
        let mount = format!("mount --bind {} {} && exec \"$0\"", lock.path().display(), mounted.display());
        let mut command = command_under("unshare", &["--mount", "sh", "-ec", &mount]);
        command.env_remove("ETCD_ENDPOINTS").env("DATASTORE_TYPE", "none").env("POD_LOGS_DIR", "/");
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("XTABLES_LOCKFILE", &mounted);
        let program = Program::start(command);
        assert_eq!(one(&scrape(program.port()), "calico_accountant_lock_held", &[]), 1.0, "{:#?}", program.log());
        fs::remove_file(lock.path()).unwrap();
        fs::write(lock.path(), "").unwrap();
        assert_eq!(one(&scrape(program.port()), "calico_accountant_lock_held", &[]), 0.0);
        program.await_log("was removed or replaced");
    });
}

/// Even if there is a legacy table of another program.
#[test]
fn nf_tables_need_no_lock() {
    for of in ["nft", "nftables"] {
        let Some(namespace) = Namespace::new("no lock needed") else { return };
        namespace.run(|| {
            sh("XTABLES_LOCKFILE=/dev/null iptables-legacy -A INPUT -s 192.0.2.1 -j DROP");
            write(of, &[WEB_1], true);
            let program = Program::start(alone("/no/such/lock".as_ref()));
            assert_eq!(one(&scrape(program.port()), "calico_accountant_lock_held", &[]), 1.0);
            assert_eq!(logged(&program, &["lock"]), 0, "{:#?}", program.log());
            let (_, said) = run(alone("/no/such/lock".as_ref()), &["check"]);
            assert!(!said.contains("xtables lock"), "{said}");
        });
    }
}
