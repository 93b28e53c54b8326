//! The configuration's credentials for the follower: read and run anew as requests need them.

use std::sync::{Mutex, PoisonError};

use super::access::{Access, Credentials};
use super::credentials;
use crate::config::KubernetesConfig;

/// What the configuration says, kept up to date.
#[derive(Debug)]
pub struct Configured {
    access: credentials::Access,
    /// What was given last, in case the server refuses it.
    last: Mutex<Option<credentials::Credentials>>,
}

impl Configured {
    /// Nothing is read or run yet.
    pub fn new(config: KubernetesConfig) -> Self {
        Configured { access: credentials::Access::new(config), last: Mutex::new(None) }
    }
}

impl Access for Configured {
    fn current(&self) -> Result<Credentials, String> {
        let found = self.access.credentials().map_err(|error| error.to_string())?;
        let credentials = Credentials {
            server: found.server.clone(),
            ca: found.ca.clone(),
            client_cert: found.client.clone(),
            insecure_skip_tls_verify: found.insecure,
            tls_server_name: found.tls_server_name.clone(),
            proxy: found.proxy.as_ref().map(|proxy| proxy.reveal().to_owned()),
            token: found.token().map(str::to_owned),
            basic: found.authorization().filter(|_| found.token().is_none()),
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        Ok(credentials)
    }

    fn refused(&self) {
        if let Some(last) = &*self.last.lock().unwrap_or_else(PoisonError::into_inner) {
            self.access.refused(last);
        }
    }
}
