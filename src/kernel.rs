//! Calico's tables straight from the kernel, without a child and without text: legacy tables over getsockopt(2), nf_tables (iptables-nft's
//! and Calico's own) over netlink. All give the same [`Snapshot`](crate::ruleset::Snapshot) as `iptables-save` does. A reader remembers
//! the rules of its last read, and only picks up the counters of those that are still there.
//! Counters of Calico's eBPF programs come over bpf(2).

pub mod bpf;
mod expressions;
pub mod legacy;
pub mod netlink;
pub mod nft;
mod xt;

pub(crate) use xt::{add_comment, ct_state};
