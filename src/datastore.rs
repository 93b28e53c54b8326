//! What both datastores share: following one until the end of time, taking no more than can be true, HTTP with its time-outs, TLS and
//! errors, and what comes of it, the inventory. Pod logs stand in where neither knows a workload.

pub mod addresses;
pub(crate) mod bounds;
pub(crate) mod dns;
pub mod error;
pub mod follow;
pub mod http;
pub mod inventory;
pub mod podlogs;
pub(crate) mod tls;
