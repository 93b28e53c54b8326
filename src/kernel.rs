//! Calico's tables straight from the kernel, without a child and without text: legacy tables over getsockopt(2), nf_tables (iptables-nft's
//! and Calico's own) over netlink. All give the same [`Ruleset`](crate::ruleset::Ruleset) as `iptables-save` does. Counters of Calico's
//! eBPF programs over bpf(2).

pub mod bpf;
mod expressions;
pub mod legacy;
mod netlink;
pub mod nft;
mod sys;
mod xt;
