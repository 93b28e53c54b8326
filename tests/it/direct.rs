//! Tables read directly from the kernel: the same rules and counters as `iptables-save` prints, and the counts that were sent.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use calico_accountant::felix::{ChainNames, Direction, Pipelines};
use calico_accountant::kernel::{legacy, nft};
use calico_accountant::nftables;
use calico_accountant::ruleset::{Backend, Count, Family, Snapshot, Verdict};

use crate::captures::{self, Pipeline};
use crate::kernel::sets;
use crate::support::fixture;
use crate::support::netns::{Namespace, feed, sh};

/// A rule with the names of its chains and comments.
pub type Rule = (String, u64, String, Vec<String>);

/// A table, independent of the order in which a reader found its chains.
pub fn canonical(table: &Snapshot) -> BTreeMap<String, Vec<Rule>> {
    let ruleset = &table.ruleset;
    let name = |chain| ruleset.chain(chain).name.to_string();
    let comment = |id: &calico_accountant::ruleset::CommentId| ruleset.comments()[id.0 as usize].to_string();
    let rule = |id| {
        let rule = ruleset.rule(id);
        let verdict = match rule.verdict {
            Verdict::Jump(chain) => format!("jump {}", name(chain)),
            Verdict::Goto(chain) => format!("goto {}", name(chain)),
            Verdict::Nflog(prefix) => format!("nflog {:?}", prefix.as_ref().map(comment)),
            verdict => format!("{verdict:?}"),
        };
        let text = format!(
            "{:?} {:?} {:?} {} {} {verdict}",
            ruleset.hash(id),
            rule.mark,
            rule.ctstate,
            rule.other_matches,
            rule.counts_before_match
        );
        (text, table.packets(id), verdict, ruleset.comments_of(id).iter().map(comment).collect())
    };
    ruleset.chains().iter().map(|chain| (chain.name.to_string(), chain.rule_ids().map(rule).collect())).collect()
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

#[test]
fn the_kernel_and_iptables_save_say_the_same() {
    for (capture, backend) in captures::CAPTURES.into_iter().chain(captures::OTHER_CAPTURES) {
        let Some(namespace) = Namespace::new("reading the kernel") else { return };
        namespace.run(|| {
            for (family, program) in [(Family::V4, "iptables"), (Family::V6, "ip6tables")] {
                let text = fixture::text(&format!("captures/{capture}/t2/{program}-save.txt.gz"));
                feed("ipset restore", &sets(&text, family));
                feed(&format!("XTABLES_LOCKFILE=/dev/null {program}-{}-restore -c", backend.as_str()), &text);
                for table in ["filter", "mangle", "raw"] {
                    let saved = sh(&format!("{program}-{}-save -c -t {table}", backend.as_str()));
                    let saved = captures::parse(&saved, family, backend, table);
                    let read = match backend {
                        Backend::Legacy => legacy::Reader::new(family, table).read().unwrap(),
                        _ => nft::Reader::new(family, nft::Tables::Iptables(table)).read(deadline()).unwrap().remove(0),
                    };
                    assert_eq!(read.ruleset.unreadable, 0);
                    let (read, saved) = (canonical(&read), canonical(&saved));
                    for (chain, rules) in &saved {
                        assert_eq!(read.get(chain), Some(rules), "{capture} {program} {table} {chain}");
                    }
                    assert_eq!(read.len(), saved.len());
                }
            }
        });
    }
}

#[test]
fn calicos_own_tables_give_what_was_sent() {
    for capture in captures::NATIVE_CAPTURES {
        for families in [&[Family::V4][..], &[Family::V6], &Family::ALL] {
            for at in ["t1", "t2"] {
                let truth = captures::ground_truth(capture, at, families);
                if truth.is_empty() {
                    continue;
                }
                let Some(first) = captures::native(capture, "t0", families) else { return };
                let mut exporter = Pipeline::default();
                // Calico 3.29 shortens long names and hashes the names of chains. Only the datastore knows the names.
                exporter.rename(ChainNames::new(&captures::stored_policies(capture)));
                exporter.read(&first);
                assert_eq!(exporter.unrecognised, 0, "{capture}");
                let before = exporter.totals();
                exporter.read(&captures::native(capture, at, families).unwrap());
                let context = format!("{capture} {at} {families:?}");
                captures::told(capture, &context, &captures::increases(&before, &exporter.totals()), &truth);
            }
        }
    }
}

/// Like `captures::real_changes_are_survived_exactly`, with readers that keep state.
#[test]
fn real_changes_of_calicos_own_tables_are_survived_exactly() {
    for capture in ["v3.29.7-native", "v3.32.1-native"] {
        let Some(namespace) = Namespace::new("changes of Calico's own tables") else { return };
        let mut readers = Family::ALL.map(|family| nft::Reader::new(family, nft::Tables::Calico));
        namespace.run(|| {
            let changes = captures::changes(capture);
            assert_eq!(changes.len(), 11, "{capture}");
            for change in changes {
                let mut exporter = Pipeline::default();
                exporter.rename(ChainNames::new(&captures::stored_policies(capture)));
                let (mut seen, mut last) = (Vec::new(), Vec::new());
                for at in ["before", "after", "after-traffic"] {
                    let file = |name| fixture::text(&format!("captures/{capture}/{change}/{at}/nft-{name}.txt.gz"));
                    feed("nft -f -", &format!("flush ruleset\n{}{}", file("ip"), file("ip6")));
                    let tables: Vec<_> = readers.iter_mut().flat_map(|reader| reader.read(deadline()).unwrap()).collect();
                    last = tables.iter().map(|table| as_replaced_in(&last, table)).collect();
                    exporter.read(&last);
                    assert_eq!(exporter.unrecognised, 0, "{capture} {change}");
                    seen.push(exporter.totals());
                }
                captures::survived_exactly(&format!("{capture} {change}"), &seen);
            }
        });
    }
}

/// The table with the handles that it has if Felix replaces rules one by one, as up to Calico 3.32: rules and chains that existed before
/// keep theirs.
fn as_replaced_in(before: &[Snapshot], table: &Snapshot) -> Snapshot {
    const NEW: u64 = 1_000_000;
    let Some(before) = before.iter().find(|before| before.ruleset.id() == table.ruleset.id()) else { return table.clone() };
    let mut counts = Vec::new();
    let mut handles = Vec::new();
    for (id, chain) in table.ruleset.chain_ids() {
        let then = before.ruleset.chain_ids().find(|(_, then)| then.name == chain.name);
        let rules = then.map(|(_, then)| before.counts_of(then)).unwrap_or_default();
        handles.push(match then {
            Some((then, _)) => before.chain_handle(then).unwrap(),
            None => NEW + table.chain_handle(id).unwrap(),
        });
        for (place, count) in table.counts_of(chain).iter().enumerate() {
            let handle = rules.get(place).map_or(NEW + count.handle, |rule| rule.handle);
            counts.push(Count { handle, ..*count });
        }
    }
    Snapshot::new(table.ruleset.clone(), counts, handles)
}

/// The handles of chains and of their rules, by chain.
fn handles(table: &Snapshot) -> BTreeMap<String, (Option<u64>, Vec<u64>)> {
    let rules = |chain| table.counts_of(chain).iter().map(|count| count.handle).collect();
    table.ruleset.chain_ids().map(|(id, chain)| (chain.name.to_string(), (table.chain_handle(id), rules(chain)))).collect()
}

#[test]
fn the_kernel_and_nft_say_the_same() {
    for capture in captures::NATIVE_CAPTURES {
        let Some(namespace) = Namespace::new("nft's JSON") else { return };
        namespace.run(|| {
            for (family, name) in [(Family::V4, "ip"), (Family::V6, "ip6")] {
                feed("nft -f -", &fixture::text(&format!("captures/{capture}/t2/nft-{name}.txt.gz")));
                let read = nft::Reader::new(family, nft::Tables::Calico).read(deadline()).unwrap();
                let lists = ["-j list ruleset", "-n -a list ruleset", "-a list ruleset", "list ruleset"].map(String::from);
                for list in lists.into_iter().chain([format!("-j list table {name} calico"), format!("-nn -a list table {name} calico")]) {
                    let (text, has_handles) = (sh(&format!("nft {list}")), list.starts_with("-j") || list.contains("-a"));
                    let parse = if list.starts_with("-j") { nftables::parse } else { nftables::text::parse };
                    let all = parse(text.as_bytes()).unwrap();
                    let listed: Vec<_> = all.iter().filter(|table| table.ruleset.family == family).collect();
                    assert_eq!(listed.len(), read.len());
                    for (read, listed) in read.iter().zip(listed) {
                        let place = |table: &Snapshot| (table.ruleset.id(), table.ruleset.backend, table.ruleset.unreadable);
                        assert_eq!((place(read), read.ruleset.unreadable), (place(listed), 0));
                        assert!(!has_handles || handles(read) == handles(listed), "{capture} {name} {list}");
                        let (read, listed) = (canonical(read), canonical(listed));
                        for (chain, rules) in &read {
                            assert_eq!(listed.get(chain), Some(rules), "{capture} {name} {list} {chain}");
                        }
                        assert_eq!(read.len(), listed.len());
                    }
                }
            }
        });
    }
}

/// Felix up to 3.32 may leave an old `Start of tier` in front of another tier.
#[test]
fn a_tier_goes_by_its_own_name_behind_the_start_of_another() {
    let Some(namespace) = Namespace::new("tiers") else { return };
    let text = fixture::text("captures/stale-tier/nft-ip.txt.gz");
    let tiers = |text: &str| -> Vec<String> {
        let tables = namespace.run(|| {
            feed("nft -f -", &format!("flush ruleset\n{text}"));
            nft::Reader::new(Family::V4, nft::Tables::Calico).read(deadline()).unwrap()
        });
        let pipelines = Pipelines::new(&tables.iter().find(|table| table.ruleset.table == "filter").unwrap().ruleset);
        let to_pod = pipelines.endpoints.iter().find(|p| p.direction == Direction::Ingress && !p.tiers.is_empty()).unwrap();
        to_pod.tiers.iter().map(|tier| tier.name.to_string()).collect()
    };
    assert!(text.contains("Start of tier default") && !text.contains("Start of tier middle"));
    assert_eq!(tiers(&text), ["first", "middle", "default"]);
    // If the tier passes on what no policy decided, nothing else has its name.
    let passing: Vec<&str> = text.lines().filter(|line| !line.contains("End of tier middle")).collect();
    assert_eq!(tiers(&format!("{}\n", passing.join("\n"))), ["first", "", "default"]);
}
