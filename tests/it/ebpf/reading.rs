//! Kernels and nodes on which maps are read in another way than usual.

use super::*;
use crate::support::kernel::knows_not;

/// `BPF_MAP_LOOKUP_BATCH`
const LOOKUP_BATCH: u64 = 24;

/// The counts of packets, without the metrics that differ from one program to the next.
fn counts(port: u16) -> Samples {
    let is_count = |series: &str| series.split('{').next().is_some_and(|name| name.ends_with("packets_total"));
    scrape(port).into_iter().filter(|(series, _)| is_count(series)).collect()
}

#[test]
fn before_linux_5_6_maps_are_read_entry_by_entry() {
    on_a_node("before_linux_5_6_maps_are_read_entry_by_entry", || {
        const RULES: u64 = 2000;
        let map = rules();
        let interfaces = Map::pin(&format!("{GLOBALS}/cali_counters6"), PER_CPU_HASH, 27);
        workload("cali1", &[WEB, ALL]);
        workload("cali2", &[ALL]);
        let in_batches = Program::start(command());
        scrape(in_batches.port());
        knows_not(libc::SYS_bpf, &[LOOKUP_BATCH]);
        let one_by_one = Program::start(command());
        scrape(one_by_one.port());
        for round in 1..=3 {
            (RULES..2 * RULES).for_each(|id| map.set(id, &[round * id], &[round]));
            map.set(ACCEPT_WEB, &[round * 4], &[3]);
            map.set(ACCEPT_ALL, &[round * 5], &[round]);
            interfaces.set(counters_of("cali1", 1), &[0, 0, round * 4 + 3, 0, round], &[]);
            interfaces.set(counters_of("cali2", 1), &[0, 0, round * 6, 0, 0], &[0, 0, 0, 0, round]);
            let (expected, found) = (counts(in_batches.port()), counts(one_by_one.port()));
            assert!(expected.len() > 10);
            assert_eq!(found, expected);
            assert_eq!(unknown(&scrape(one_by_one.port())), (round * (RULES..2 * RULES).sum::<u64>() + round * RULES) as f64);
            assert_eq!(of_workload(&scrape(one_by_one.port()), "cali1", "shop/knp.default.web"), Some((round * 4 + 3) as f64));
        }
        map.remove(ACCEPT_WEB);
        assert_eq!(counts(one_by_one.port()), counts(in_batches.port()));
    });
}

/// This dataplane does not need iptables-save.
#[test]
fn who_asks_for_iptables_save_gets_the_programs_where_there_are_no_chains() {
    on_a_node("who_asks_for_iptables_save_gets_the_programs_where_there_are_no_chains", || {
        let map = rules();
        workload("cali1", &[WEB]);
        map.set(ACCEPT_WEB, &[5], &[]);
        let mut command = command();
        command.env("SOURCE", "save").env("PATH", "/nowhere");
        let program = Program::start(command);
        let up = |samples: &Samples| one(samples, "calico_accountant_up", &[]);
        let samples = scrape(program.port());
        assert_eq!((up(&samples), rule(&samples, "shop/knp.default.web", "0")), (1.0, 5.0), "{:?}", program.log());
        // If there are chains, only iptables-save may read them.
        feed("iptables-nft-restore", "*filter\n:cali-tw-cali1 - [0:0]\n-A cali-tw-cali1 -j DROP\nCOMMIT\n");
        let mut command = super::command();
        command.env("SOURCE", "save").env("PATH", "/nowhere");
        let program = Program::start(command);
        assert_eq!(up(&scrape(program.port())), 0.0);
        let missing = "neither iptables-nft-save, iptables-legacy-save nor iptables-save is on the search path (/nowhere)";
        within(PATIENCE, missing, || program.log().iter().any(|line| line.contains(missing)));
    });
}
