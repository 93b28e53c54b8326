//! Which Calico policy accepts or drops each workload's packets, and how many?
//!
//! The modules in the order in which data flows. Each one uses only its neighbours:
//!
//! ```text
//!  kernel ─────► Ruleset ──► Pipelines ──► Ledger ──► Totals ──► text, report
//!  (dataplane,   (ruleset)   (felix)      (accounting)        ▲  (metrics, report; server, cli)
//!   iptables, nftables,                                       │
//!   kernel, ebpf)                                             │
//!  datastore ──► Inventory (RwLock) ──────────────────────────┘
//!  (etcd, kubernetes)
//! ```
//!
//! `watch` shows single packets instead: `kernel::trace` marks some and receives what they met, and [`witness`] shows which policy it was.
//!
//! Reading (child processes, sockets, files) stays at the edges. Everything in between is pure, so that each stage is tested on captured
//! input without root. [`exporter`] is one scrape from end to end.

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
pub mod witness;
