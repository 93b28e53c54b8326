//! Integration tests, one crate: faster to link than one for each file.

mod etcd;
mod support;
