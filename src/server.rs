//! HTTP: requests in; metrics, health and a landing page out. Knows the program only through [`Application`].

mod routes;
mod serving;
mod socket;

use std::sync::Arc;
use std::time::Duration;

pub use serving::{Limits, serve};
pub use socket::bind;

/// What the server shows. All methods are called from several threads at once.
pub trait Application: Send + Sync {
    /// The text of `/metrics`, Prometheus text format 0.0.4.
    fn metrics(&self) -> Arc<Vec<u8>>;

    /// Whether the program has what it needs for complete metrics; else one line that says what is missing.
    ///
    /// # Errors
    /// The reason why not, for `/readyz`.
    fn ready(&self) -> Result<(), String>;

    /// The node's name, for the landing page.
    fn node_name(&self) -> &str;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Longer than usual scrape intervals, so that Prometheus keeps its connection.
            silence: Duration::from_secs(75),
            stall: Duration::from_secs(5),
            response: Duration::from_secs(15),
        }
    }
}
