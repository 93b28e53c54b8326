//! The Kubernetes API server: who we are to it. In comes the configuration; out go credentials that are valid now.

mod credentials;
mod exec;
mod timestamp;

pub use credentials::{Access, Credentials, Error};
