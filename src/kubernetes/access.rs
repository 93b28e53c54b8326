//! How to reach the API server at present: [`Access`] returns [`Credentials`]. Implementations may read files and run programs.
//! `Credentials` itself is an implementation that never changes.

use std::fmt;

use crate::config::Secret;
use crate::datastore::error::Error;

/// Provides what each request needs, because tokens and certificates are replaced while the program runs.
pub trait Access: Send + Sync {
    /// Returns the credentials for the next request. Called before each request, so expensive results are cached.
    fn current(&self) -> Result<Credentials, Error>;

    /// The API server does not accept these credentials from [`Access::current`]. Cached parts of them must be dropped.
    fn refused(&self, _credentials: &Credentials) {}
}

/// The API server's address, and the credentials of both sides. `Debug` shows no secret.
#[derive(Clone, PartialEq, Default)]
pub struct Credentials {
    /// The server's URL: `https://host:port`, optionally with a path, without a slash at the end.
    pub server: String,
    /// The certificates to trust, in PEM form. `None` means the system's.
    pub ca: Option<Vec<u8>>,
    pub client: Option<(Vec<u8>, Vec<u8>)>,
    pub insecure: bool,
    /// The name to expect in the server's certificate instead of the URL's host.
    pub tls_server_name: Option<String>,
    /// The proxy's URL, which may contain a password.
    pub proxy: Option<Secret>,
    pub authorization: Option<Authorization>,
}

#[derive(Clone, PartialEq)]
pub enum Authorization {
    /// A token. With an empty one, the server would treat us as anonymous and deny everything.
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

    /// Reports whether a connection made with these can carry requests with `other`: everything except the header is the same.
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
