//! Integration tests, one crate: real captures, real etcd, real kernel tables, the real binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod captures;
mod support;
