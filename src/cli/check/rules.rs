//! The findings of `check` about Calico's tables: the number of rules, whether packets reach them, whether they are read under the lock,
//! and whether they are understood. Touches the kernel's built-in chains.

use std::time::Instant;

use super::PATIENCE;
use super::findings::Findings;
use crate::cli::terminal::not_understood;
use crate::config::{Config, Datastore};
use crate::dataplane::Reading;
use crate::felix::{Structures, names};
use crate::kernel;
use crate::ruleset::{Backend, Family, Ruleset};

pub fn rules(config: &Config, reading: &Reading, findings: &mut Findings) {
    for family in Family::ALL {
        let tables: Vec<_> = reading.tables.iter().filter(|table| table.ruleset.family == family).collect();
        let Some(first) = tables.first() else { continue };
        let count: usize = tables.iter().map(|table| table.ruleset.rule_count()).sum();
        let (family, backend) = (family.as_str(), first.ruleset.backend.as_str());
        findings.ok("rules", format!("{count} of {family} in the {backend} dataplane, read by {}", reading.source));
    }
    let backend = reading.tables.first().map(|table| table.ruleset.backend);
    for (backend, rival) in backend.into_iter().flat_map(|backend| reading.rivals.iter().map(move |rival| (backend, rival))) {
        let text = rival.of(backend);
        _ = if rival.evidence.is_some() { findings.warn("rules", text) } else { findings.wrong("rules", text) };
    }
    // A wrapper of iptables-save may show another table, which does not match the kernel's built-in chains.
    if reading.source == "kernel" {
        hooks(reading, findings);
    }
    lock(config, reading, findings);
    let mut structures = Structures::default();
    structures.update(reading.tables.iter().map(|table| &table.ruleset));
    if structures.unrecognised() > 0 {
        findings
            .warn("rules", not_understood(structures.unrecognised()))
            .hint("please report this, with the output of iptables-save -c or nft -j list ruleset");
    }
    if structures.unnamed() > 0 && config.datastore == Datastore::None {
        findings
            .warn("policies", "the rules do not name them (Calico before 3.22)")
            .hint("only a datastore has the names; chain names are shown");
    }
}

/// Checks whether the built-in chains of the filter table lead to Calico's, as Felix sets them up (`felix/rules/static.go`).
fn hooks(reading: &Reading, findings: &mut Findings) {
    let tables = reading.tables.iter().map(|table| &*table.ruleset).filter(|ruleset| ruleset.table == "filter");
    for ruleset in tables {
        let family = ruleset.family.as_str();
        let found = match kernel::hooks(ruleset.backend, ruleset.family, Instant::now() + PATIENCE) {
            Ok(found) => found,
            Err(error) => {
                findings.warn("hooks", format!("the kernel's own chains of {family} cannot be read: {error}"));
                continue;
            }
        };
        let list = expected(ruleset).filter(|hook| !found.contains(hook)).collect::<Vec<_>>().join(", ");
        if list.is_empty() {
            findings.ok("hooks", format!("the kernel's own chains lead to Calico's ({family})"));
            continue;
        }
        let text = format!("no rule of {list} leads to Calico's chains ({family}): policies are not enforced for the packets there");
        findings.wrong("hooks", text).hint(
            "something has removed Felix's rules, a firewall reload for example; Felix puts them back at its next refresh, or when \
             calico-node is restarted",
        );
    }
}

/// Returns the expected hooks: `FORWARD` if there are workloads, and each of the others if Calico has a chain for it.
fn expected(ruleset: &Ruleset) -> impl Iterator<Item = &'static str> {
    let has = |prefix: &str| ruleset.chains().iter().any(|chain| chain.name.starts_with(prefix));
    let workloads = ruleset.chains().iter().any(|chain| names::workload_in(&chain.name).is_some());
    let expected = [("FORWARD", workloads || has(names::FORWARD)), ("INPUT", has(names::INPUT)), ("OUTPUT", has(names::OUTPUT))];
    expected.into_iter().filter(|(_, is_expected)| *is_expected).map(|(hook, _)| hook)
}

fn lock(config: &Config, reading: &Reading, findings: &mut Findings) {
    if let Some(problem) = &reading.lock_problem {
        findings
            .wrong("xtables lock", problem)
            .hint("mount the host's /run/xtables.lock (read-only is enough); without it, reads may see counters at zero");
    } else if reading.tables.iter().any(|table| table.ruleset.backend == Backend::Legacy) {
        let (path, waited) = (config.lock_path.display(), reading.lock_waited.as_millis());
        findings.ok("xtables lock", format!("{path} was taken in {waited} ms"));
    }
}
