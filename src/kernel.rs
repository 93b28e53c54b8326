//! Reads Calico's tables straight from the kernel, without a child process and without text: legacy tables with getsockopt(2), nf_tables
//! (iptables-nft's and Calico's own) over netlink. All give the same [`Snapshot`](crate::ruleset::Snapshot) as `iptables-save`. A reader
//! remembers the rules of its last read, and reads only the counters of rules that are unchanged. Counters of Calico's eBPF programs are
//! read with bpf(2).

pub mod bpf;
mod draft;
mod expressions;
pub mod legacy;
mod matches;
pub mod netlink;
pub mod nft;
mod tables;
pub mod trace;
mod xt;

use std::collections::BTreeSet;
use std::io;
use std::time::Instant;

use crate::ruleset::{Backend, Family};
pub(crate) use draft::{Bits, Draft};
pub use matches::{Matches, matches};
pub(crate) use xt::{add_comment, ct_state};

/// Returns which of `INPUT`, `FORWARD` and `OUTPUT` in the filter table have a jump to one of Calico's chains. Felix inserts it
/// (`felix/iptables/table.go`). Without it Calico's chains exist, and no packet passes through them.
pub fn hooks(backend: Backend, family: Family, deadline: Instant) -> io::Result<BTreeSet<&'static str>> {
    match backend {
        Backend::Legacy => legacy::hooks(family),
        Backend::Nft => nft::hooks(family, nft::Tables::Iptables("filter"), deadline),
        Backend::Native => nft::hooks(family, nft::Tables::Calico, deadline),
    }
}
