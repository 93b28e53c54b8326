//! How to reach the API server, as of now. In comes nothing, out come [`Credentials`]. Implementations may read files and run
//! programs; the one here has values that never change.

use super::credentials::Credentials;
use crate::datastore::error::Error;

/// Gives what a request needs, anew for each request: tokens and certificates are replaced while the program runs.
pub trait Access: Send + Sync {
    /// What the next request is to use. Called before each of them, so what is dear to get is kept in between.
    fn current(&self) -> Result<Credentials, Error>;

    /// The API server does not accept these, which [`Access::current`] gave: what was kept of them is to be forgotten.
    fn refused(&self, _credentials: &Credentials) {}
}

#[derive(Debug, Clone)]
pub struct Fixed(pub Credentials);

impl Access for Fixed {
    fn current(&self) -> Result<Credentials, Error> {
        Ok(self.0.clone())
    }
}
