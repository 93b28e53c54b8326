//! The findings of `check` on Calico's eBPF dataplane. Pure.

use std::collections::HashSet;
use std::io::ErrorKind;

use super::findings::Findings;
use crate::config::Config;
use crate::ebpf::Snapshot;

pub fn programs(config: &Config, read: &Snapshot, findings: &mut Findings) {
    let (entries, workloads) = (read.rules.len(), workloads(read).collect::<HashSet<_>>().len());
    findings.ok("rules", format!("{entries} have counted on the eBPF dataplane, {workloads} workloads have programs"));
    findings.note("eBPF", "rules are counted for the node, not for each workload").hint(
        "counts of a workload start with the exporter, and only certain ones are shown; established connections and host endpoints \
         are not counted",
    );
    let folder = config.calico_run.join("bpf/policy");
    match (read.programs.is_empty(), read.unreadable, read.complete) {
        (true, ..) if read.unlisted == Some(ErrorKind::PermissionDenied) => findings
            .wrong("programs", format!("{} may not be read, so the policies of the rules are unknown", folder.display()))
            .hint("Felix makes this folder with mode 0600: add the capability DAC_READ_SEARCH (securityContext.capabilities.add)"),
        (true, ..) => findings
            .wrong("programs", format!("{} does not name the policies of the rules", folder.display()))
            .hint("mount the host's /var/run/calico (read-only is enough); Felix writes there as long as BPFPolicyDebugEnabled is true"),
        (false, 0, true) => findings.ok("programs", format!("{} describes them all", folder.display())),
        (false, 0, false) => findings
            .warn("programs", format!("{} does not describe those of all workloads", folder.display()))
            .hint("until it does, nothing is attributed to workloads; that is normal briefly, while pods start"),
        (false, unreadable, _) => findings
            .warn("programs", format!("{unreadable} files in {} cannot be read or understood", folder.display()))
            .hint("their rules may not be known, and nothing is attributed to workloads until they are"),
    };
    if read.interface_maps.is_empty() && workloads > 0 {
        findings.note("eBPF", "no known map counts packets per interface (Calico 3.25)").hint("totals of workloads are missing");
    }
}

/// Returns the interfaces of workloads that have programs.
pub fn workloads(read: &Snapshot) -> impl Iterator<Item = &str> {
    read.programs.iter().filter(|shown| shown.is_live && shown.program.is_workload).map(|shown| &*shown.program.interface)
}
