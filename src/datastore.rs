//! What both datastores share: the loop that follows one, limits on its size, HTTP with timeouts, TLS and errors, and the result, the
//! inventory. Pod logs are used if neither datastore knows a workload.

pub mod addresses;
pub(crate) mod bounds;
pub(crate) mod dns;
pub mod error;
pub mod follow;
pub mod http;
pub mod inventory;
pub mod podlogs;
pub(crate) mod tls;
