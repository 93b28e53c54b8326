//! Readers that keep their last read. Whatever changes in the kernel's tables between two reads, they give the same as a new reader, and
//! they parse rules again only if these have changed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use calico_accountant::kernel::netlink::Socket;
use calico_accountant::kernel::{legacy, nft};
use calico_accountant::ruleset::{Backend, Family, Snapshot};

use crate::captures;
use crate::direct::canonical;
use crate::kernel::sets;
use crate::program::{self, Program};
use crate::simulation::random::Random;
use crate::support::fixture;
use crate::support::netns::{Namespace, feed, sh};
use crate::support::scrape::scrape;
use crate::support::{status, within};
use crate::table;

/// A reader of one back end.
enum Reader {
    Legacy(legacy::Reader),
    Nft(nft::Reader),
}

impl Reader {
    fn new(backend: Backend) -> Self {
        match backend {
            Backend::Legacy => Reader::Legacy(legacy::Reader::new(Family::V4, "filter")),
            Backend::Nft => Reader::Nft(nft::Reader::new(Family::V4, nft::Tables::Iptables("filter"))),
            Backend::Native => Reader::Nft(nft::Reader::new(Family::V4, nft::Tables::Calico)),
        }
    }

    fn read(&mut self) -> Vec<Snapshot> {
        match self {
            Reader::Legacy(reader) => vec![reader.read().unwrap()],
            Reader::Nft(reader) => reader.read(Instant::now() + Duration::from_secs(20)).unwrap(),
        }
    }
}

/// What an edit does to the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    Same,
    /// The same text, written again.
    Rewritten,
    Others,
}

/// Edits of iptables' tables. `IPT` is the program, `%` a number that differs from edit to edit.
const IPTABLES: [(&str, Rules); 12] = [
    ("$IPT -I $CHAIN 1 -s 192.0.2.% -j DROP; $IPT -D $CHAIN 1", Rules::Rewritten),
    ("$IPT -A $CHAIN -s 192.0.2.% -m comment --comment \"cali:aaaaaaaaaaaaaaa%\" -j DROP", Rules::Others),
    ("$IPT -I $CHAIN 2 -m mark --mark 0x%/0xffff -j RETURN", Rules::Others),
    ("$IPT -D $CHAIN 1", Rules::Others),
    ("$IPT -R $CHAIN 1 -p tcp -m comment --comment \"again %\" -j ACCEPT", Rules::Others),
    // iptables-nft 1.8.10 fails here, with "RULE_REPLACE failed". Nothing is changed then.
    ("$IPT -Z || true", Rules::Same),
    ("$IPT -Z $CHAIN || true", Rules::Same),
    ("$IPT -N cali-new-%; $IPT -A $CHAIN -j cali-new-%; $IPT -A cali-new-% -j ACCEPT", Rules::Others),
    ("$IPT -A FORWARD -s 192.0.2.% -j ACCEPT", Rules::Rewritten),
    ("$IPT -t nat -A PREROUTING -s 192.0.2.% -j ACCEPT", Rules::Same),
    ("$SAVE -c -t filter | sed -E \"s/^\\[[0-9]+:[0-9]+\\]/[%:%]/\" | $RESTORE -c", Rules::Rewritten),
    ("true", Rules::Same),
];

/// Edits of Calico's own tables.
const NATIVE: [(&str, Rules); 9] = [
    (
        "nft add rule ip calico $CHAIN ip saddr 192.0.2.% counter packets % bytes % drop comment '\"cali:aaaaaaaaaaaaaaa%; x\"'",
        Rules::Others,
    ),
    ("nft insert rule ip calico $CHAIN meta mark % counter return", Rules::Others),
    (
        "nft delete rule ip calico $CHAIN handle $(nft -a list chain ip calico $CHAIN | sed -n 's/.*# handle //p' | sed -n 2p)",
        Rules::Others,
    ),
    ("nft add chain ip calico filter-cali-new-%; nft add rule ip calico $CHAIN counter jump filter-cali-new-%", Rules::Others),
    ("nft add table ip other-%; nft add chain ip other-% c; nft add rule ip other-% c counter accept", Rules::Same),
    ("nft rename chain ip calico $CHAIN filter-cali-renamed-%; nft rename chain ip calico filter-cali-renamed-% $CHAIN", Rules::Same),
    ("nft rename chain ip calico $CHAIN filter-cali-renamed-%", Rules::Others),
    (
        "{ echo 'delete table ip calico'; nft list table ip calico | sed -E 's/packets [0-9]+ bytes/packets % bytes/'; } | nft -f -",
        Rules::Rewritten,
    ),
    ("true", Rules::Same),
];

/// Makes random edits. After each, compares a reader that continues with a new one.
fn edit_and_compare(backend: Backend, edits: &[(&str, Rules)], rounds: usize) {
    let mut random = Random::new(7);
    let mut lasting = Reader::new(backend);
    let mut last = lasting.read();
    for round in 0..rounds {
        let (edit, rules) = random.pick(edits);
        let prefix = if backend == Backend::Native { "filter-" } else { "" };
        // Chains of policies: the rules that refer to them do not change.
        let chains: Vec<_> = last[0].ruleset.chains().iter().filter(|c| c.name.starts_with("cali-pi-") && c.rules.len() > 2).collect();
        let chain = format!("{prefix}{}", random.pick(&chains).name);
        let program = format!("IPT=iptables-{0}; SAVE=iptables-{0}-save; RESTORE=iptables-{0}-restore; CHAIN={chain}", backend.as_str());
        let edit = edit.replace('%', &(round + 1).to_string());
        sh(&format!("export XTABLES_LOCKFILE=/dev/null; {program}; {edit}"));
        let (read, fresh) = (lasting.read(), Reader::new(backend).read());
        assert_eq!(read.len(), fresh.len());
        for (read, fresh) in read.iter().zip(&fresh) {
            let (read, fresh) = (canonical(read), canonical(fresh));
            let differ: Vec<_> = fresh.iter().filter(|(chain, rules)| read.get(*chain) != Some(rules)).collect();
            let names = |table: &BTreeMap<String, _>| table.keys().cloned().collect::<Vec<_>>();
            assert!(differ.is_empty(), "{backend:?}, round {round}: {edit}: {differ:#?}\nread as {:#?}", read.get(differ[0].0));
            assert_eq!(names(&read), names(&fresh), "{backend:?}, round {round}: {edit}");
        }
        let shared = read.iter().zip(&last).all(|(a, b)| a.shares_rules_with(b));
        match rules {
            Rules::Same => assert!(shared, "round {round}: {edit}"),
            Rules::Others => assert!(!shared, "round {round}: {edit}"),
            Rules::Rewritten => {}
        }
        last = read;
    }
}

#[test]
fn readers_that_remember_say_what_new_ones_say() {
    for (capture, backend) in [("v3.32.1-legacy", Backend::Legacy), ("v3.32.1-nft", Backend::Nft)] {
        let Some(namespace) = Namespace::new("reading again") else { return };
        namespace.run(|| {
            let text = fixture::text(&format!("captures/{capture}/t2/iptables-save.txt.gz"));
            feed("ipset restore", &sets(&text, Family::V4));
            feed(&format!("XTABLES_LOCKFILE=/dev/null iptables-{}-restore -c", backend.as_str()), &text);
            edit_and_compare(backend, &IPTABLES, 60);
        });
    }
    let Some(namespace) = Namespace::new("reading again") else { return };
    namespace.run(|| {
        feed("nft -f -", &fixture::text("captures/v3.32.1-native/t2/nft-ip.txt.gz"));
        edit_and_compare(Backend::Native, &NATIVE, 60);
    });
}

#[test]
fn large_nf_tables_are_read_by_two_sockets() {
    for (backend, edits) in [(Backend::Nft, &IPTABLES[..]), (Backend::Native, &NATIVE)] {
        let Some(namespace) = Namespace::new("large nf_tables") else { return };
        let size = table::Size { workloads: 20, policies: 20, group: 1 };
        namespace.run(|| {
            match backend {
                Backend::Native => feed("nft -f -", &table::native(size)),
                _ => feed("iptables-nft-restore -c", &table::table(size)),
            }
            let Reader::Nft(mut reader) = Reader::new(backend) else { return };
            let until = Instant::now() + Duration::from_secs(20);
            let mut opened = 0;
            let mut read = || {
                let open = &mut || {
                    opened += 1;
                    Socket::open(until)
                };
                let snapshots = reader.read_by(until, open).unwrap();
                (snapshots, opened)
            };
            let first = read();
            assert_eq!(first.1, 1, "nothing is known to be large");
            let again = read();
            let sockets = std::thread::available_parallelism().unwrap().get().min(2);
            assert_eq!(again.1 - first.1, sockets, "where there is a CPU for each");
            assert!(again.0 == first.0 && again.0[0].shares_rules_with(&first.0[0]), "all chains are recognised");
            edit_and_compare(backend, edits, 20);
        });
    }
}

/// The table has about 11 MB of entries.
#[test]
fn large_legacy_tables_are_recognised_and_not_kept() {
    let Some(namespace) = Namespace::new("large legacy tables") else { return };
    let text = table::table(table::Size { workloads: 100, policies: 40, group: 1 });
    namespace.run(|| {
        for (family, program, text) in [
            (Family::V4, "iptables", text.clone()),
            (Family::V6, "ip6tables", text.replace("-s 10.", "-s fd00::").replace(".0.0/16", "/128")),
        ] {
            feed(&format!("XTABLES_LOCKFILE=/dev/null {program}-legacy-restore -c"), &text);
            let saved = captures::parse(&sh(&format!("{program}-legacy-save -c -t filter")), family, Backend::Legacy, "filter");
            let mut reader = legacy::Reader::new(family, "filter");
            let first = reader.read().unwrap();
            assert!(canonical(&first) == canonical(&saved), "{program}-save says the same");
            for _ in 0..5 {
                let again = reader.read().unwrap();
                assert!(again == first && again.shares_rules_with(&first), "rules that are the same are recognised");
            }
        }
        edit_and_compare(Backend::Legacy, &IPTABLES, 12);
        entries_are_given_back();
    });
}

/// Asserts that the memory of the table's entries, in kB as in `/proc`, is only in the peak.
fn entries_are_given_back() {
    const ENTRIES: usize = 10 << 10;
    let mut command = program::command();
    command.env("BACKEND", "legacy").env("XTABLES_LOCKFILE", "/dev/null");
    let program = Program::start(command);
    let port = program.port();
    for _ in 0..3 {
        assert!(scrape(port).len() > 1000);
    }
    // The program may be making a read of its own at this moment.
    within(Duration::from_secs(5), "the entries are given back", || {
        let (held, peak) = (status(program.pid(), "VmRSS"), status(program.pid(), "VmHWM"));
        held + ENTRIES / 2 < peak
    });
}
