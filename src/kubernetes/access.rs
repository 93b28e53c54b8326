//! How to reach the API server, as of now: [`Access`] gives [`Credentials`]. Implementations may read files and run programs; credentials
//! themselves are one that never changes.

use std::fmt;

use crate::config::Secret;
use crate::datastore::error::Error;

/// Gives what a request needs, anew for each request: tokens and certificates are replaced while the program runs.
pub trait Access: Send + Sync {
    /// What the next request is to use. Called before each of them, so what is dear to get is kept in between.
    fn current(&self) -> Result<Credentials, Error>;

    /// The API server does not accept these, which [`Access::current`] gave: what was kept of them is to be forgotten.
    fn refused(&self, _credentials: &Credentials) {}
}

/// Where the API server is, and what proves who we are to it and it to us. `Debug` shows no secret.
#[derive(Clone, PartialEq, Default)]
pub struct Credentials {
    /// The server's URL: `https://host:port`, perhaps with a path, without a slash at the end.
    pub server: String,
    /// The certificates to trust, in PEM form; `None` for the system's.
    pub ca: Option<Vec<u8>>,
    pub client: Option<(Vec<u8>, Vec<u8>)>,
    pub insecure: bool,
    /// The name to expect in the server's certificate instead of the URL's host.
    pub tls_server_name: Option<String>,
    /// The proxy's URL; may hold a password.
    pub proxy: Option<Secret>,
    pub authorization: Option<Authorization>,
}

#[derive(Clone, PartialEq)]
pub enum Authorization {
    /// A token. An empty one would make us nobody, whom the server then forbids everything.
    Bearer(Secret),
    /// `user:password` in base64.
    Basic(Secret),
}

impl Credentials {
    pub fn token(&self) -> Option<&str> {
        match &self.authorization {
            Some(Authorization::Bearer(token)) => Some(token.reveal()),
            _ => None,
        }
    }

    pub fn authorization(&self) -> Option<String> {
        self.authorization.as_ref().map(|authorization| match authorization {
            Authorization::Bearer(token) => format!("Bearer {}", token.reveal()),
            Authorization::Basic(encoded) => format!("Basic {}", encoded.reveal()),
        })
    }

    /// Whether a connection made with these can carry requests with `other`: all but the header is the same.
    pub fn same_connection(&self, other: &Credentials) -> bool {
        *self == Credentials { authorization: self.authorization.clone(), ..other.clone() }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Access for Credentials {
    fn current(&self) -> Result<Credentials, Error> {
        Ok(self.clone())
    }
}
