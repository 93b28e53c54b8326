//! Chooses how to reach the Kubernetes API server as Calico's client does: variables, kubeconfig files, the pod's service account. The
//! configuration names files instead of containing them, because they may be rotated. Upstream: `CreateKubernetesClientset` of libcalico-go
//! (`lib/backend/k8s/client.go`) and client-go's `tools/clientcmd`.

mod context;
mod kubeconfig;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::syntax::{check_certificate, check_private_key, is_service_link};
use super::values::{Values, ignored_service_link};
use super::{ConfigError, Remark, World};
use context::{Overrides, join_host_port};
use kubeconfig::Kubeconfig;

/// An API server and our identity there. `Debug` shows no secret.
#[derive(Debug, Clone, PartialEq)]
pub struct KubernetesConfig {
    /// `https://host:port` or `http://…`, with a path if a proxy serves several clusters. No slash at the end.
    pub server: String,
    /// The CA certificates for the server's certificate. `None` means the system's.
    pub ca: Option<Pem>,
    pub client: Option<(Pem, Pem)>,
    pub authentication: Authentication,
    pub insecure: bool,
    /// The name in the server's certificate, if it is not the host of `server`.
    pub tls_server_name: Option<String>,
    /// The proxy in the kubeconfig, which may contain a password.
    pub proxy: Option<Secret>,
    pub api_group: ApiGroup,
    /// The source of the configuration, for messages.
    pub origin: String,
}

/// A text that must not appear in logs and messages.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(secret: impl Into<String>) -> Self {
        Secret(secret.into())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(secret: T) -> Self {
        Secret(secret.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Certificates or a key.
#[derive(Clone, PartialEq)]
pub enum Pem {
    /// A file, which may be replaced at any time.
    File(PathBuf),
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

/// Our proof of identity, in addition to a client certificate.
#[derive(Debug, Clone, PartialEq)]
pub enum Authentication {
    None,
    /// A token that never changes.
    Token(Secret),
    /// A file with the current token, and a token to use while the file cannot be read.
    TokenFile(PathBuf, Option<Secret>),
    Basic(Secret, Secret),
    Exec(Box<ExecPlugin>),
}

/// A credential plugin: `users[].user.exec` of a kubeconfig.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecPlugin {
    /// `client.authentication.k8s.io/v1` or `…/v1beta1`.
    pub api_version: String,
    /// A path, or a name on the search path.
    pub command: PathBuf,
    pub args: Vec<Secret>,
    /// Added to our own environment.
    pub env: Vec<(String, Secret)>,
    pub provide_cluster_info: bool,
    pub cluster_config: Option<serde_json::Value>,
    pub install_hint: Option<String>,
}

/// The API group of Calico's own objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiGroup {
    /// Ask the server. Use v3 only if it has no other group.
    Discover,
    /// `crd.projectcalico.org/v1`: every release.
    Crd,
    /// `projectcalico.org/v3`: Calico ≥ 3.32, if installed that way.
    V3,
}

const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Returns `None` if no API server is configured.
pub(super) fn resolve(values: &Values<'_>, world: &World<'_>, remarks: &mut Vec<Remark>) -> Result<Option<KubernetesConfig>, ConfigError> {
    let overrides = overrides(values)?;
    let (kubeconfig, origin) = load(values, world, overrides.server.is_some(), remarks)?;
    let chosen = context::resolve(&kubeconfig, &overrides, &origin, remarks).map_err(|why| ConfigError(format!("{origin}: {why}")))?;
    let config = if chosen.is_some() { chosen } else { in_cluster(&overrides, world, remarks)? };
    let Some(mut config) = config else { return Ok(None) };
    config.api_group = api_group(values)?;
    check_files(&config, world)?;
    remarks.push(Remark::info(format!("Kubernetes API server {} (from {})", config.server, config.origin)));
    if config.insecure {
        remarks.push(Remark::warn("the API server's certificate is not checked (insecure-skip-tls-verify)"));
    }
    Ok(Some(config))
}

fn overrides(values: &Values<'_>) -> Result<Overrides, ConfigError> {
    let text = |name| Ok::<_, ConfigError>(values.text(name)?.map(|(_, text)| text));
    // Calico ≥ 3.6 reads the first one by accident. Older releases read the second one, which is also the documented one.
    let token = match text("CALICO_K8SAPITOKEN")? {
        Some(token) => Some(token),
        None => text("K8S_API_TOKEN")?,
    };
    Ok(Overrides {
        context: text("K8S_CURRENT_CONTEXT")?,
        server: text("K8S_API_ENDPOINT")?,
        ca: values.path("K8S_CA_FILE")?,
        cert: values.path("K8S_CERT_FILE")?,
        key: values.path("K8S_KEY_FILE")?,
        token: token.map(Secret::new),
        insecure: values.boolean("K8S_INSECURE_SKIP_TLS_VERIFY")?.unwrap_or(false),
    })
}

/// `projectcalico.org/v3` in any case, otherwise the other one (Calico ≥ 3.32).
fn api_group(values: &Values<'_>) -> Result<ApiGroup, ConfigError> {
    Ok(match values.text("CALICO_API_GROUP")? {
        None => ApiGroup::Discover,
        Some((_, group)) if group.eq_ignore_ascii_case("projectcalico.org/v3") => ApiGroup::V3,
        Some(_) => ApiGroup::Crd,
    })
}

/// Returns the kubeconfig and its source. A single file must exist. Among several, missing ones are skipped, as in kubectl.
fn load(values: &Values<'_>, world: &World<'_>, has_server: bool, remarks: &mut Vec<Remark>) -> Result<(Kubeconfig, String), ConfigError> {
    let Some(said) = values.get("KUBECONFIG") else {
        return if has_server { Ok((Kubeconfig::default(), "K8S_API_ENDPOINT".into())) } else { home(world) };
    };
    let files: Vec<PathBuf> = std::env::split_paths(&said.value).filter(|path| !path.as_os_str().is_empty()).collect();
    let mut merged = Kubeconfig::default();
    for file in &files {
        let content = match (world.read_file)(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && files.len() > 1 => {
                remarks.push(Remark::warn(format!("{}: {file:?} does not exist", said.by)));
                continue;
            }
            Err(error) => return Err(ConfigError(format!("{}: cannot read {file:?}: {error}", said.by))),
            Ok(content) => content,
        };
        merged.merge(parse(&content, file, &format!("{}: ", said.by))?);
    }
    Ok((merged, format!("{} {:?}", said.by, said.value.to_string_lossy())))
}

/// Returns `$HOME/.kube/config`, if it exists. It has priority over the pod's service account.
fn home(world: &World<'_>) -> Result<(Kubeconfig, String), ConfigError> {
    let home = (world.variable)("HOME").filter(|home| !home.is_empty());
    let Some(path) = home.map(|home| Path::new(&home).join(".kube/config")) else {
        return Ok((Kubeconfig::default(), "the environment".into()));
    };
    match (world.read_file)(&path) {
        Ok(content) => Ok((parse(&content, &path, "")?, path.display().to_string())),
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => {
            Ok((Kubeconfig::default(), "the environment".into()))
        }
        Err(error) => Err(ConfigError(format!("cannot read {path:?}: {error}"))),
    }
}

fn parse(content: &[u8], path: &Path, by: &str) -> Result<Kubeconfig, ConfigError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    kubeconfig::parse(content, folder).map_err(|why| ConfigError(format!("{by}{}:{why}", path.display())))
}

/// Returns the service account of this pod, or `None` outside of pods. Of the overrides, only a token applies here.
fn in_cluster(overrides: &Overrides, world: &World<'_>, remarks: &mut Vec<Remark>) -> Result<Option<KubernetesConfig>, ConfigError> {
    let variable = |name| (world.variable)(name).and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty());
    let (Some(host), Some(mut port)) = (variable("KUBERNETES_SERVICE_HOST"), variable("KUBERNETES_SERVICE_PORT")) else { return Ok(None) };
    if is_service_link(&port) {
        // The port is of a Service named kubernetes-service. The API server's own Service has its port here too.
        remarks.push(ignored_service_link("KUBERNETES_SERVICE_PORT", &port));
        port = variable("KUBERNETES_SERVICE_PORT_HTTPS").unwrap_or_else(|| "443".to_owned());
    }
    let token = Path::new(SERVICE_ACCOUNT).join("token");
    if (world.read_file)(&token).is_err() {
        return Ok(None);
    }
    let ca = Path::new(SERVICE_ACCOUNT).join("ca.crt");
    let has_ca = (world.read_file)(&ca).is_ok();
    if !has_ca {
        remarks.push(Remark::warn(format!("{ca:?} cannot be read: trusting the system's certificates instead")));
    }
    let authentication = match &overrides.token {
        Some(token) => Authentication::Token(token.clone()),
        None => Authentication::TokenFile(token, None),
    };
    Ok(Some(KubernetesConfig {
        server: format!("https://{}", join_host_port(&host, &port)),
        ca: has_ca.then_some(Pem::File(ca)),
        client: None,
        authentication,
        insecure: false,
        tls_server_name: None,
        proxy: None,
        api_group: ApiGroup::Discover,
        origin: "the pod's service account".into(),
    }))
}

/// Reads each file once, so that a mistake shows at the start and not as a failed handshake.
fn check_files(config: &KubernetesConfig, world: &World<'_>) -> Result<(), ConfigError> {
    let origin = &config.origin;
    let content = |pem: &Pem| match pem {
        Pem::File(path) => (world.read_file)(path)
            .map(|content| (format!("{path:?}"), content))
            .map_err(|error| ConfigError(format!("{origin}: cannot read {path:?}: {error}"))),
        Pem::Inline(pem) => Ok(("the kubeconfig".to_owned(), pem.clone())),
    };
    if let Some(ca) = &config.ca {
        let (place, pem) = content(ca)?;
        check_certificate(origin, &format!("{place} (CA)"), &pem)?;
    }
    if let Some((cert, key)) = &config.client {
        let (place, pem) = content(cert)?;
        check_certificate(origin, &format!("{place} (client certificate)"), &pem)?;
        let (place, pem) = content(key)?;
        check_private_key(origin, &format!("{place} (client key)"), &pem)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
