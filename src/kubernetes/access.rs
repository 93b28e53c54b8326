//! How to reach the API server, as of now. In comes nothing; out go an address and what proves who we are. Implementations may
//! read files and run programs; the one here has values that never change.

use std::fmt;

/// Gives what a request needs, anew for each request: tokens and certificates are replaced while the program runs.
pub trait Access: Send + Sync {
    /// What the next request is to use. Called before each of them, so what is dear to get is kept in between.
    ///
    /// # Errors
    /// One line for the user: what cannot be read or run, and what to do about it. Never contains a secret.
    fn current(&self) -> Result<Credentials, String>;

    /// The API server does not accept what [`Access::current`] gave: what was kept is to be forgotten.
    fn refused(&self) {}
}

/// Where the API server is, and what proves who we are to it and it to us. `Debug` never shows a secret.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    /// `https://host:port`, perhaps with a path, without a slash at its end.
    pub server: String,
    /// The certificates to trust, in PEM; `None` for the system's.
    pub ca: Option<Vec<u8>>,
    /// Our certificate and its key, in PEM.
    pub client_cert: Option<(Vec<u8>, Vec<u8>)>,
    /// Trust any certificate.
    pub insecure_skip_tls_verify: bool,
    /// The name that the server's certificate is checked against, when it is not the one in `server`.
    pub tls_server_name: Option<String>,
    /// The proxy to go through, as a URL.
    pub proxy: Option<String>,
    /// The bearer token. An empty one would make us anonymous and is an error.
    pub token: Option<String>,
    /// The `Authorization` header where there is no token: a user and a password.
    pub basic: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("server", &self.server)
            .field("ca", &self.ca.is_some())
            .field("client_cert", &self.client_cert.is_some())
            .field("insecure_skip_tls_verify", &self.insecure_skip_tls_verify)
            .field("tls_server_name", &self.tls_server_name)
            .field("proxy", &self.proxy.is_some())
            .field("token", &self.token.is_some())
            .field("basic", &self.basic.is_some())
            .finish()
    }
}

impl Credentials {
    /// Whether a connection made with `other` would do for these.
    pub(super) fn same_connection(&self, other: &Self) -> bool {
        let connection = |of: &Self| Credentials { token: None, basic: None, ..of.clone() };
        connection(self) == connection(other)
    }
}

/// The same for ever.
#[derive(Debug, Clone)]
pub struct Fixed(pub Credentials);

impl Access for Fixed {
    fn current(&self) -> Result<Credentials, String> {
        Ok(self.0.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_secret() {
        let credentials = Credentials {
            client_cert: Some((b"cert".to_vec(), b"private".to_vec())),
            token: Some("s3cret".into()),
            ..Credentials::default()
        };
        let text = format!("{credentials:?}");
        assert!(!text.contains("s3cret") && !text.contains("112"), "{text}");
    }

    #[test]
    fn a_new_token_needs_no_new_connection_but_a_new_certificate_does() {
        let old = Credentials { server: "https://a".into(), token: Some("1".into()), ..Credentials::default() };
        assert!(old.same_connection(&Credentials { token: None, ..old.clone() }));
        assert!(!old.same_connection(&Credentials { ca: Some(Vec::new()), ..old.clone() }));
    }
}
