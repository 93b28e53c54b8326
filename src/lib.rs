//! Which Calico policy accepts or drops each workload's packets, and how many?
//!
//! The modules in the order in which data flows; nothing reaches around a neighbour:
//!
//! ```text
//!  kernel ───► Ruleset ──► Pipelines ──► Ledger ──► Totals ──► text, report
//!  (dataplane, (ruleset)   (felix)      (ledger)  (attribution) (metrics, report; server, cli)
//!   iptables,                                         ▲
//!   kernel)                                           │
//!  datastore ──► Inventory (RwLock) ──────────────────┘
//!  (etcd,        (inventory)
//!   kubernetes)
//! ```
//!
//! Saved tables can take the kernel's place ([`saved`], [`nftables`]). What the datastore does not know, [`podlogs`] names from the node's
//! own files.
//!
//! Reading (child process, sockets, files) stays at the edges; everything between is pure, so that each stage is
//! tested on captured input without root.

pub mod accounting;
pub mod app;
pub mod attribution;
pub mod bounds;
pub mod child;
pub mod cli;
pub mod config;
pub mod dataplane;
pub mod dns;
pub mod ebpf;
pub mod etcd;
pub mod felix;
pub mod follow;
pub mod inventory;
pub mod iptables;
pub mod kernel;
pub mod kubernetes;
pub mod ledger;
pub mod logging;
pub mod metrics;
pub mod nftables;
pub mod podlogs;
pub mod privileges;
pub mod process;
pub mod report;
pub mod ruleset;
pub mod saved;
pub mod scraper;
pub mod server;
mod sys;
mod tls;
pub mod web;
