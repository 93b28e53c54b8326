//! Calico's tables straight from the kernel, without a child and without text: legacy tables over getsockopt(2), nf_tables (iptables-nft's
//! and Calico's own) over netlink. All give the same [`Snapshot`](crate::ruleset::Snapshot) as `iptables-save` does. A reader remembers
//! the rules of its last read, and only picks up the counters of those that are still there.
//! Counters of Calico's eBPF programs come over bpf(2).

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

/// The chains of the filter table, of `INPUT`, `FORWARD` and `OUTPUT`, that have a jump to one of Calico's. Felix inserts it
/// (`felix/iptables/table.go`); without it Calico's chains are there, and no packet passes through them.
pub fn hooks(backend: Backend, family: Family, deadline: Instant) -> io::Result<BTreeSet<&'static str>> {
    match backend {
        Backend::Legacy => legacy::hooks(family),
        Backend::Nft => nft::hooks(family, nft::Tables::Iptables("filter"), deadline),
        Backend::Native => nft::hooks(family, nft::Tables::Calico, deadline),
    }
}
