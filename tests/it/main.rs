//! Integration tests, one crate: faster to link than one for each file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod etcd;
mod support;
