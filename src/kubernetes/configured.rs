//! Turns the configuration into current credentials: files are read each time, rotating tokens are followed, plugins are run when their
//! last answer has expired. Touches: the files that the configuration names, and a plugin's process.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::access::{Access, Authorization, Credentials};
use super::exec::{self, Issued};
use crate::config::{Authentication, KubernetesConfig, Pem, Secret};
use crate::datastore::error::{Error, ErrorKind};

/// The time limit of a plugin. Some ask a cloud's API, which may be slow.
const PLUGIN_LIMIT: Duration = Duration::from_secs(30);
/// The maximum that is read of a file, in bytes.
const LARGEST_FILE: u64 = 4 << 20;

/// The configured access to one API server. All of its clients share it, so that a plugin runs once for all of them.
#[derive(Debug)]
pub struct Configured {
    config: KubernetesConfig,
    plugin_limit: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last token that a file contained, used while the file is unreadable.
    last_token: Option<Secret>,
    issued: Option<Issued>,
}

impl Configured {
    /// Creates the access without reading or running anything. A plugin may take 30 s.
    pub fn new(config: KubernetesConfig) -> Self {
        Self::within(config, PLUGIN_LIMIT)
    }

    pub fn within(config: KubernetesConfig, plugin_limit: Duration) -> Self {
        Configured { config, plugin_limit, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn authenticate(&self, credentials: &mut Credentials) -> Result<(), Error> {
        let bearer = |token: &Secret, from: &str| checked(token.reveal(), from).map(|token| Some(Authorization::Bearer(token)));
        credentials.authorization = match &self.config.authentication {
            Authentication::None => None,
            Authentication::Token(token) => bearer(token, &self.config.origin)?,
            Authentication::TokenFile(path, otherwise) => Some(Authorization::Bearer(self.token_of(path, otherwise.as_ref())?)),
            Authentication::Basic(user, password) => {
                let encoded = STANDARD.encode(format!("{}:{}", user.reveal(), password.reveal()));
                Some(Authorization::Basic(Secret::new(encoded)))
            }
            Authentication::Exec(plugin) => {
                let mut state = self.state();
                let now = SystemTime::now();
                let issued = match state.issued.take().filter(|issued| issued.is_valid(now)) {
                    Some(issued) => issued,
                    None => exec::run(plugin, &self.config, credentials.ca.as_deref(), self.plugin_limit)?,
                };
                let issued = state.issued.insert(issued);
                // A certificate of the kubeconfig itself has priority, as in client-go.
                credentials.client = credentials.client.take().or_else(|| issued.client.clone());
                issued.token.clone().map(Authorization::Bearer)
            }
        };
        Ok(())
    }

    /// Reads a token. A projected token is replaced through a symbolic link, so a read never gets a partial one, but it may be missing for
    /// a moment.
    fn token_of(&self, path: &Path, otherwise: Option<&Secret>) -> Result<Secret, Error> {
        let mut state = self.state();
        let read = read(path).and_then(|bytes| checked(&String::from_utf8_lossy(&bytes), &path.display().to_string()));
        match read {
            Ok(token) => {
                state.last_token = Some(token.clone());
                Ok(token)
            }
            Err(error) => state.last_token.as_ref().or(otherwise).cloned().ok_or(error),
        }
    }
}

impl Access for Configured {
    /// Returns the current credentials. Reads small files, and runs a plugin only if its last answer has expired or was refused.
    fn current(&self) -> Result<Credentials, Error> {
        let config = &self.config;
        let mut credentials = Credentials {
            server: config.server.clone(),
            ca: config.ca.as_ref().map(content).transpose()?,
            client: config.client.as_ref().map(|(cert, key)| content(cert).and_then(|cert| Ok((cert, content(key)?)))).transpose()?,
            insecure: config.insecure,
            tls_server_name: config.tls_server_name.clone(),
            proxy: config.proxy.clone(),
            authorization: None,
        };
        self.authenticate(&mut credentials)?;
        Ok(credentials)
    }

    /// Makes the plugin be asked again. If several threads were refused with the same credentials, only the first call has an effect.
    fn refused(&self, credentials: &Credentials) {
        let mut state = self.state();
        let same = |issued: &mut Issued| {
            issued.token.as_ref().map(Secret::reveal) == credentials.token()
                && (issued.client.is_none() || issued.client == credentials.client)
        };
        state.issued.take_if(same);
    }
}

/// Trims and checks a token. With an empty one, the server would treat us as anonymous and deny everything.
fn checked(token: &str, from: &str) -> Result<Secret, Error> {
    let token = token.trim();
    match !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(Secret::new(token)),
        false => Err(no_access(format_args!("the token in {from} is empty or malformed"))),
    }
}

fn content(pem: &Pem) -> Result<Vec<u8>, Error> {
    match pem {
        Pem::File(path) => read(path),
        Pem::Inline(pem) => Ok(pem.clone()),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let read = || -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        File::open(path)?.take(LARGEST_FILE).read_to_end(&mut content)?;
        Ok(content)
    };
    read().map_err(|error| no_access(format_args!("{}: {error}", path.display())))
}

/// The error never contains a secret.
fn no_access(why: fmt::Arguments<'_>) -> Error {
    Error::new(ErrorKind::Access, format!("credentials for the Kubernetes API server: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ApiGroup;

    fn access(authentication: Authentication) -> Configured {
        Configured::new(KubernetesConfig {
            server: "https://api:6443".into(),
            ca: Some(Pem::Inline(b"ca".to_vec())),
            client: None,
            authentication,
            insecure: false,
            tls_server_name: None,
            proxy: Some(Secret::new("http://user:hunter2@proxy")),
            api_group: ApiGroup::Discover,
            origin: "a test".into(),
        })
    }

    #[test]
    fn headers() {
        let header = |authentication| access(authentication).current().unwrap().authorization();
        assert_eq!(header(Authentication::None), None);
        assert_eq!(header(Authentication::Token(Secret::new("t\n"))).as_deref(), Some("Bearer t"));
        let basic = Authentication::Basic(Secret::new("user"), Secret::new("hunter2"));
        assert_eq!(header(basic).as_deref(), Some("Basic dXNlcjpodW50ZXIy"));
    }

    #[test]
    fn a_token_that_cannot_stand_in_a_header_is_refused_and_not_repeated() {
        for token in ["", " \n", "hunter2\r\nX: y", "hunter2 x", "hunter2\u{e9}"] {
            let error = access(Authentication::Token(Secret::new(token))).current().unwrap_err();
            assert_eq!(error.to_string(), "credentials for the Kubernetes API server: the token in a test is empty or malformed");
        }
    }

    #[test]
    fn no_secret_is_ever_shown() {
        let access = access(Authentication::Basic(Secret::new("hunter2"), Secret::new("hunter2")));
        let credentials = access.current().unwrap();
        assert!(!format!("{access:?} {credentials:?}").contains("hunter2"));
    }

    #[test]
    fn connections_are_kept_while_only_the_token_changes() {
        let (one, two) = (access(Authentication::Token(Secret::new("a"))), access(Authentication::Token(Secret::new("b"))));
        let (one, two) = (one.current().unwrap(), two.current().unwrap());
        assert!(one != two && one.same_connection(&two));
        assert!(!one.same_connection(&Credentials { ca: None, ..two.clone() }));
        assert!(!one.same_connection(&Credentials { tls_server_name: Some("x".into()), ..two }));
    }
}
