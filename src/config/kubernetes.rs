//! How to reach the Kubernetes API server, as Calico's client decides it: variables, kubeconfig files, the pod's service account.
//! In comes the [`World`](super::World), out goes a [`KubernetesConfig`] whose files are named but not kept: they may be rotated.

mod kubeconfig;
mod resolve;
mod select;

use std::fmt;
use std::path::PathBuf;

pub(super) use resolve::resolve;

/// An API server and who we are to it. `Debug` shows no secret.
#[derive(Debug, Clone, PartialEq)]
pub struct KubernetesConfig {
    /// `https://host:port` or `http://…`, with a path where a proxy serves several clusters; no slash at the end.
    pub server: String,
    /// Certificates that the server's must be signed by; `None` for those of the system.
    pub ca: Option<Pem>,
    /// Client certificate and private key.
    pub client: Option<(Pem, Pem)>,
    /// What goes into the `Authorization` header.
    pub authentication: Authentication,
    /// Whether the server's certificate is not checked.
    pub insecure: bool,
    /// The name in the server's certificate, where it is not the host of `server`.
    pub tls_server_name: Option<String>,
    /// The proxy that a kubeconfig asks for; may hold a password.
    pub proxy: Option<Secret>,
    /// Where Calico's own objects are (`CALICO_API_GROUP`).
    pub api_group: ApiGroup,
    /// Where all this was said, for messages.
    pub origin: String,
}

/// Something that must not be seen in logs and messages.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps it.
    pub fn new(secret: impl Into<String>) -> Self {
        Secret(secret.into())
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Certificates or a key in PEM form.
#[derive(Clone, PartialEq)]
pub enum Pem {
    /// In a file that may be replaced at any time.
    File(PathBuf),
    /// Inside the kubeconfig.
    Inline(Vec<u8>),
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pem::File(path) => write!(f, "{path:?}"),
            Pem::Inline(_) => f.write_str("(inline)"),
        }
    }
}

/// What proves to the server who we are, beside a client certificate.
#[derive(Debug, Clone, PartialEq)]
pub enum Authentication {
    /// Nothing.
    None,
    /// A token that never changes.
    Token(Secret),
    /// A file that holds the token of the hour; and a token for as long as the file cannot be read.
    TokenFile(PathBuf, Option<Secret>),
    /// User and password.
    Basic(Secret, Secret),
    /// A program that gets a token or a client certificate.
    Exec(Box<ExecPlugin>),
}

/// A credential plugin: `users[].user.exec` of a kubeconfig.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecPlugin {
    /// `client.authentication.k8s.io/v1` or `…/v1beta1`.
    pub api_version: String,
    /// A path, or a name on the search path.
    pub command: PathBuf,
    /// Its arguments.
    pub args: Vec<Secret>,
    /// Variables that it gets beside ours.
    pub env: Vec<(String, Secret)>,
    /// Whether it is told about the cluster.
    pub provide_cluster_info: bool,
    /// What the kubeconfig says about the cluster for this plugin alone.
    pub cluster_config: Option<serde_json::Value>,
    /// What to do where the program is missing.
    pub install_hint: Option<String>,
}

/// Where Calico keeps its own objects: `CALICO_API_GROUP`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiGroup {
    /// Ask the server: v3 only where it has nothing else.
    Discover,
    /// `crd.projectcalico.org/v1`: every release.
    Crd,
    /// `projectcalico.org/v3`: Calico ≥ 3.32, where it was installed so.
    V3,
}

#[cfg(test)]
mod tests;
