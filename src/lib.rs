//! Which Calico policy accepts or drops each workload's packets, and how many?
//!
//! The modules in the order in which data flows; nothing reaches around a neighbour:
//!
//! ```text
//!  kernel ─────► Ruleset ──► Pipelines ──► Ledger ──► Totals ──► text, report
//!  (dataplane,   (ruleset)   (felix)      (accounting)          (metrics, report; server, cli)
//!   iptables, nftables,                       ▲
//!   kernel, ebpf)                             │
//!  datastore ──► Inventory (RwLock) ──────────┘
//!  (etcd, kubernetes)
//! ```
//!
//! Reading (child process, sockets, files) stays at the edges; everything between is pure, so that each stage is
//! tested on captured input without root. [`exporter`] is one scrape from one end to the other.

pub mod accounting;
pub mod cli;
pub mod config;
pub mod dataplane;
pub mod datastore;
pub mod ebpf;
pub mod etcd;
pub mod exporter;
pub mod felix;
pub mod iptables;
pub mod kernel;
pub mod kubernetes;
pub mod metrics;
pub mod nftables;
pub mod os;
pub mod report;
pub mod ruleset;
pub mod server;
pub mod web;
