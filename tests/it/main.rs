//! Drives the built program from outside: one crate, because one is faster to link than many.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod config;
mod http;
mod program;
mod server;
