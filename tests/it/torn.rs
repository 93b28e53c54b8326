//! A thousand reads directly from the kernel while a writer never pauses, on each back end: each read shows the table as it was at one
//! instant, and none fails.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use calico_accountant::config::{BackendChoice, SourceChoice};
use calico_accountant::dataplane::{Dataplane, Options, Reader as _};
use calico_accountant::kernel::netlink::Socket;
use calico_accountant::kernel::nft;
use calico_accountant::ruleset::{Backend, Family, Snapshot};

use crate::kernel::{filter_table, load};
use crate::support::etcd::Scratch;
use crate::support::fixture;
use crate::support::netns::{Namespace, feed};

const READS: usize = 1000;

/// Two chains of the writer, far apart in the table. One holds a rule and the other none. Every commit moves the rule.
const CHAINS: [&str; 2] = ["cali-a-torn", "cali-z-torn"];

/// The count of a rule in a third chain, which every commit writes again.
const COUNT: u64 = 77;

/// What the writer commits in one transaction.
fn commit(backend: Backend, to: usize) -> String {
    let (full, empty) = (CHAINS[to], CHAINS[1 - to]);
    match backend {
        Backend::Native => format!(
            "flush chain ip calico filter-{empty}\nflush chain ip calico filter-{full}\nflush chain ip calico filter-cali-m-torn\n\
             add rule ip calico filter-{full} counter packets 1 bytes 1 drop\n\
             add rule ip calico filter-cali-m-torn counter packets {COUNT} bytes 1 drop comment \"cali:aaaaaaaaaaaaaaaa;\"\n"
        ),
        _ => format!(
            "*filter\n:{full} - [0:0]\n:{empty} - [0:0]\n:cali-m-torn - [0:0]\n[1:1] -A {full} -j DROP\n\
             [{COUNT}:1] -A cali-m-torn -m comment --comment cali:aaaaaaaaaaaaaaaa -j DROP\nCOMMIT\n"
        ),
    }
}

fn write(backend: Backend, lock: &std::path::Path, to: usize) {
    match backend {
        Backend::Native => feed("nft -f -", &commit(backend, to)),
        _ => feed(
            &format!("XTABLES_LOCKFILE={} iptables-{}-restore -c --noflush --wait 20", lock.display(), backend.as_str()),
            &commit(backend, to),
        ),
    }
}

fn prepare(backend: Backend) {
    match backend {
        Backend::Native => {
            feed("nft -f -", &fixture::text("captures/v3.32.1-native/t2/nft-ip.txt.gz"));
            for chain in ["cali-a-torn", "cali-m-torn", "cali-z-torn"] {
                feed("nft -f -", &format!("add chain ip calico filter-{chain}"));
            }
        }
        _ => load(backend.as_str(), &filter_table(if backend == Backend::Legacy { "v3.32.1-legacy" } else { "v3.32.1-nft" })),
    }
}

/// What every read must show: all chains and counters, except those of the writer's two chains.
fn lasting(table: &Snapshot) -> Vec<(String, Vec<u64>)> {
    let chains = table.ruleset.chains().iter().filter(|chain| !CHAINS.contains(&&*chain.name));
    let mut all: Vec<_> =
        chains.map(|chain| (chain.name.to_string(), table.counts_of(chain).iter().map(|count| count.packets).collect())).collect();
    all.sort();
    all
}

/// How many rules the writer's two chains have.
fn moving(table: &Snapshot) -> usize {
    table.ruleset.chains().iter().filter(|chain| CHAINS.contains(&&*chain.name)).map(|chain| chain.rules.len()).sum()
}

fn reads_beside_a_writer(backend: Backend, choice: BackendChoice) {
    let Some(namespace) = Namespace::new("reads beside a writer") else { return };
    let scratch = Scratch::new();
    let lock = scratch.path().join("lock");
    std::fs::write(&lock, "").unwrap();
    namespace.run(|| {
        prepare(backend);
        write(backend, &lock, 0);
        let options = Options {
            backend: choice,
            source: SourceChoice::Kernel,
            lock_path: lock.clone(),
            lock_wait: Duration::from_secs(20),
            proc: "/proc/thread-self".into(),
            ..Options::default()
        };
        let mut dataplane = Dataplane::new(options, None);
        let mut read = || dataplane.read(Instant::now() + Duration::from_secs(20)).unwrap().tables.remove(0);
        let first = lasting(&read());
        assert!(first.len() > 20 && first.iter().any(|(_, counts)| counts.contains(&COUNT)));
        let (done, commits, here) = (AtomicBool::new(false), AtomicUsize::new(0), Namespace::here());
        let complaints = std::thread::scope(|scope| {
            scope.spawn(|| {
                here.enter();
                while !done.load(Ordering::Relaxed) {
                    write(backend, &lock, commits.fetch_add(1, Ordering::Relaxed) % 2);
                }
            });
            let mut complaints = String::new();
            let mut count = 0;
            while count < READS || commits.load(Ordering::Relaxed) < 50 {
                count += 1;
                let table = read();
                let read = lasting(&table);
                if read != first || moving(&table) != 1 {
                    let differ = read.iter().zip(&first).find(|(now, before)| now != before);
                    _ = writeln!(complaints, "read {count}: {} moving rules, {differ:?}", moving(&table));
                }
            }
            done.store(true, Ordering::Relaxed);
            complaints
        });
        assert!(complaints.is_empty(), "{backend:?}, {} commits:\n{complaints}", commits.load(Ordering::Relaxed));
    });
}

#[test]
fn a_thousand_reads_of_legacy_tables() {
    reads_beside_a_writer(Backend::Legacy, BackendChoice::Legacy);
}

#[test]
fn a_thousand_reads_of_iptables_nft() {
    reads_beside_a_writer(Backend::Nft, BackendChoice::Nft);
}

#[test]
fn a_thousand_reads_of_calicos_own_tables() {
    reads_beside_a_writer(Backend::Native, BackendChoice::Native);
}

/// Makes the kernel drop answers: nobody reads them, and the buffer is full. The next receive fails with ENOBUFS.
fn overrun(socket: Socket) -> Socket {
    /// `NFT_MSG_GETGEN` of `NFNL_SUBSYS_NFTABLES`
    const GET_GENERATION: u16 = 10 << 8 | 16;
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 0).unwrap();
    // struct nlmsghdr: length, type, flags (a request), sequence, port. struct nfgenmsg.
    let mut request = 20u32.to_ne_bytes().to_vec();
    request.extend([GET_GENERATION.to_ne_bytes(), 1u16.to_ne_bytes()].concat());
    request.extend([0; 12]);
    let send = || rustix::net::send(&socket, &request, rustix::net::SendFlags::empty());
    for _ in 0..100 {
        _ = send();
    }
    socket
}

#[test]
fn a_socket_that_was_overrun_is_left_for_another() {
    let Some(namespace) = Namespace::new("netlink overruns") else { return };
    namespace.run(|| {
        prepare(Backend::Native);
        let mut reader = nft::Reader::new(Family::V4, nft::Tables::Calico);
        let deadline = || Instant::now() + Duration::from_secs(20);
        let first = reader.read(deadline()).unwrap();
        assert!(first.iter().map(|table| table.ruleset.rule_count()).sum::<usize>() >= 500, "as many as two sockets are for");
        let (mut opened, until) = (0, deadline());
        let again = reader.read_by(until, &mut || {
            opened += 1;
            let socket = Socket::open(until)?;
            // The first sockets of three reads, and the second socket of the fourth.
            Ok(if opened <= 3 || opened == 5 { overrun(socket) } else { socket })
        });
        assert!(again.unwrap() == first);
        let has_cpus = std::thread::available_parallelism().unwrap().get() > 1;
        assert_eq!(opened, if has_cpus { 7 } else { 4 });
        // Finally, the deadline passes.
        let until = Instant::now() + Duration::from_millis(200);
        let error = reader.read_by(until, &mut || Socket::open(until).map(overrun)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{error}");
        assert!(Instant::now() < until + Duration::from_secs(5));
    });
}
