//! Integration tests in one crate, which links faster than many: real captures, real etcd, real kernel tables, and the built program run
//! from outside.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attacks;
mod busy;
mod captures;
mod cases;
mod check;
mod churn;
mod clients;
mod cluster;
mod commands;
mod config;
mod deploy;
mod direct;
mod documents;
mod ebpf;
mod etcd;
mod exposition;
mod failures;
mod fleet;
mod foreign;
mod fuzzed;
mod generated;
mod hostile;
mod http;
mod kernel;
mod kubernetes;
mod kubernetes_access;
mod live;
mod matches;
mod names;
mod page;
mod privileges;
mod program;
mod report;
mod reread;
mod runs;
mod secrets;
mod series;
mod server;
mod sight;
mod simulation;
mod soak;
mod support;
/// The table of a large node.
#[path = "../../benches/table.rs"]
#[allow(dead_code)]
mod table;
mod torn;
mod watch;
mod witnesses;
