//! Cases of tables in the kernel, each in its own network namespace.

use std::path::Path;

use super::started::etcd_with;
use super::{Case, Said};
use crate::http;
use crate::program::Program;
use crate::support::etcd::Scratch;
use crate::support::netns::{Namespace, feed};
use crate::support::scrape::{one, parse, scrape, with};

/// Loads a table into the kernel, even while another process holds the machine's lock.
pub fn load(backend: &str, table: &str) {
    feed(&format!("XTABLES_LOCKFILE=/dev/null iptables-{backend}-restore -c"), table);
}

pub fn two_backends(case: &Case) -> Option<()> {
    Namespace::new(case.0)?.run(|| {
        load("nft", &case.text("stale-nft.txt"));
        load("legacy", &case.text("live-legacy.txt"));
        for command in [&["check"][..], &["metrics"], &["explain", "cali751425ce827"]] {
            let said = case.says(command);
            assert!(said.has_line(&["legacy", "nft", "BACKEND"]), "{said:?}");
        }
        let program = Program::start(case.program(&[]));
        for _ in 0..3 {
            scrape(program.port());
        }
        load("legacy", &case.text("live-legacy-later.txt"));
        let samples = scrape(program.port());
        assert!(with(&samples, "calico_accountant_backend_info", &[("backend", "legacy")]).count() > 0, "{:#?}", program.log());
        let said = |line: &&String| line.contains("legacy") && line.contains("nft") && line.contains("BACKEND");
        assert_eq!(program.log().iter().filter(said).count(), 1, "{:#?}", program.log());
    });
    Some(())
}

pub fn no_rules(case: &Case) -> Option<()> {
    // Rules in the other back end, and none at all.
    for (table, backend) in [(Some(case.text("rules.txt")), "legacy"), (None, "auto")] {
        let sees = || {
            let etcd = etcd_with("node-1")?;
            if let Some(table) = &table {
                load("nft", table);
            }
            let mut command = case.program(&[]);
            command.env("DATASTORE_TYPE", "etcdv3").env("ETCD_ENDPOINTS", etcd.url()).env("BACKEND", backend);
            let program = Program::start(command);
            let up = || one(&scrape(program.port()), "calico_accountant_up", &[]);
            assert_eq!((up(), up()), (0.0, 0.0), "{:#?}", program.log());
            let ready = http::get(program.port(), "/readyz").unwrap();
            assert!(ready.status == 503 && ready.text().contains("none of Calico's chains"), "{ready:?}");
            let said = program.log().iter().filter(|line| line.contains("none of Calico's chains")).count();
            assert_eq!(said, 1, "{:#?}", program.log());
            Some(())
        };
        Namespace::new(case.0)?.run(sees)?;
    }
    Some(())
}

pub fn lock_is_a_directory(case: &Case) -> Option<()> {
    let scratch = Scratch::new();
    let with_lock = |args: &[&str], lock: &Path| Said::of(case.program(args).env("XTABLES_LOCKFILE", lock));
    Namespace::new(case.0)?.run(|| {
        load("legacy", &case.text("basic.txt"));
        let checked = with_lock(&["check"], scratch.path());
        assert!(checked.has_line(&["lock", "directory"]), "{checked:?}");
        assert!(!checked.out.contains("was taken"), "{checked:?}");
        let samples = parse(&with_lock(&["metrics"], scratch.path()).out);
        assert_eq!(one(&samples, "calico_accountant_lock_held", &[]), 0.0);
    });
    Some(())
}
