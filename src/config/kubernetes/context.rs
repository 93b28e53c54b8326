//! Combines a merged kubeconfig and its overrides into one [`KubernetesConfig`], by the rules of Kubernetes' client-go. Pure.

use std::net::Ipv6Addr;
use std::path::PathBuf;

use super::kubeconfig::{Cluster, Data, Exec, Kubeconfig, User};
use super::{ApiGroup, Authentication, ExecPlugin, KubernetesConfig, Pem, Secret};
use crate::config::Remark;
use crate::config::syntax::is_authority;

/// The plugin protocol's versions that Kubernetes itself still supports, and the name of the extension with a plugin's configuration.
const EXEC_VERSIONS: [&str; 2] = ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"];
const EXEC_EXTENSION: &str = "client.authentication.k8s.io/exec";

/// The variables that add to or override the kubeconfig.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    pub context: Option<String>,
    pub server: Option<String>,
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub token: Option<Secret>,
    pub insecure: bool,
}

/// Returns `None` if no cluster is selected, so that the pod's service account is used.
pub(super) fn resolve(
    kubeconfig: &Kubeconfig,
    overrides: &Overrides,
    origin: &str,
    remarks: &mut Vec<Remark>,
) -> Result<Option<KubernetesConfig>, String> {
    let (cluster, user) = chosen(kubeconfig, overrides)?;
    let (cluster, user) = (override_cluster(cluster, overrides), override_user(user, overrides));
    let client = client(&user, remarks)?;
    let authentication = authentication(user, &cluster)?;
    if cluster == Cluster::default() {
        return Ok(None);
    }
    let insecure = cluster.insecure_skip_tls_verify.unwrap_or(false);
    let ca = pem(cluster.certificate_authority, cluster.certificate_authority_data, "certificate-authority")?;
    if insecure && ca.is_some() {
        return Err("a CA, and not to check the server's certificate (insecure-skip-tls-verify): only one of the two".into());
    }
    let server = not_empty(cluster.server).ok_or("no server for the cluster")?;
    let tls = ca.is_some() || client.is_some() || insecure;
    let server = server_url(&server, if tls { "https" } else { "http" })?;
    Ok(Some(KubernetesConfig {
        server,
        ca,
        client,
        authentication,
        insecure,
        tls_server_name: not_empty(cluster.tls_server_name),
        proxy: not_empty(cluster.proxy_url).map(Secret::new),
        api_group: ApiGroup::Discover,
        origin: origin.to_owned(),
    }))
}

fn not_empty(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// Returns the cluster and user of the context. Without a context, both are empty.
fn chosen(kubeconfig: &Kubeconfig, overrides: &Overrides) -> Result<(Cluster, User), String> {
    let (name, by) = match (&overrides.context, &kubeconfig.current_context) {
        (Some(name), _) => (name, "K8S_CURRENT_CONTEXT"),
        (None, Some(name)) => (name, "current-context"),
        (None, None) => return Ok(Default::default()),
    };
    let context = kubeconfig.contexts.get(name).ok_or_else(|| format!("there is no context {name:?}, which {by} names"))?;
    let missing = |kind: &str, named: &str| format!("there is no {kind} {named:?}, which context {name:?} names");
    let cluster = match context.cluster.as_deref() {
        None | Some("") => Cluster::default(),
        Some(cluster) => kubeconfig.clusters.get(cluster).cloned().ok_or_else(|| missing("cluster", cluster))?,
    };
    let user = match context.user.as_deref() {
        None | Some("") => User::default(),
        Some(user) => kubeconfig.users.get(user).cloned().ok_or_else(|| missing("user", user))?,
    };
    Ok((cluster, user))
}

fn override_cluster(mut cluster: Cluster, overrides: &Overrides) -> Cluster {
    if let Some(server) = &overrides.server {
        // The name belonged to the other server.
        (cluster.server, cluster.tls_server_name) = (Some(server.clone()), None);
    }
    if overrides.insecure {
        cluster.insecure_skip_tls_verify = Some(true);
    }
    if overrides.ca.is_some() || overrides.insecure {
        cluster.certificate_authority.clone_from(&overrides.ca);
        cluster.certificate_authority_data = None;
    }
    cluster
}

fn override_user(mut user: User, overrides: &Overrides) -> User {
    if let Some(cert) = &overrides.cert {
        (user.client_certificate, user.client_certificate_data) = (Some(cert.clone()), None);
    }
    if let Some(key) = &overrides.key {
        (user.client_key, user.client_key_data) = (Some(key.clone()), None);
    }
    if let Some(token) = &overrides.token {
        (user.token, user.token_file) = (Some(token.reveal().to_owned()), None);
    }
    user
}

fn pem(file: Option<PathBuf>, data: Option<Data>, what: &str) -> Result<Option<Pem>, String> {
    let file = file.filter(|file| !file.as_os_str().is_empty());
    match (file, data.filter(|data| !data.0.is_empty())) {
        (Some(_), Some(_)) => Err(format!("both {what} and {what}-data: only one of the two")),
        (Some(file), None) => Ok(Some(Pem::File(file))),
        (None, data) => Ok(data.map(|Data(pem)| Pem::Inline(pem))),
    }
}

fn client(user: &User, remarks: &mut Vec<Remark>) -> Result<Option<(Pem, Pem)>, String> {
    let cert = pem(user.client_certificate.clone(), user.client_certificate_data.clone(), "client-certificate")?;
    let key = pem(user.client_key.clone(), user.client_key_data.clone(), "client-key")?;
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some((cert, key))),
        (Some(_), None) => Err("a client certificate without its key (client-key, K8S_KEY_FILE)".into()),
        (None, Some(_)) => {
            remarks.push(Remark::warn("a client key has no effect without its certificate (client-certificate, K8S_CERT_FILE)"));
            Ok(None)
        }
        (None, None) => Ok(None),
    }
}

/// A token has priority over a plugin's, as in client-go.
fn authentication(user: User, cluster: &Cluster) -> Result<Authentication, String> {
    if not_empty(user.impersonate).is_some() {
        return Err("impersonation (as) is not supported".into());
    }
    let token = not_empty(user.token).map(Secret::new);
    let token_file = user.token_file.filter(|file| !file.as_os_str().is_empty());
    let (name, password) = (not_empty(user.username), not_empty(user.password));
    let basic = (name.is_some() || password.is_some())
        .then(|| Authentication::Basic(Secret::new(name.unwrap_or_default()), Secret::new(password.unwrap_or_default())));
    match (token, token_file, basic) {
        (None, None, Some(basic)) => Ok(basic),
        (_, _, Some(_)) => Err("a token and a user name with password: only one of the two".into()),
        (token, Some(file), None) => Ok(Authentication::TokenFile(file, token)),
        (Some(token), None, None) => Ok(Authentication::Token(token)),
        (None, None, None) => match (user.auth_provider, user.exec) {
            (Some(provider), _) => {
                let name = provider.name.unwrap_or_default();
                Err(format!("auth-provider {name:?} is not supported: use a token, a client certificate or an exec plugin"))
            }
            (None, Some(exec)) => exec_plugin(exec, cluster).map(|plugin| Authentication::Exec(Box::new(plugin))),
            (None, None) => Ok(Authentication::None),
        },
    }
}

fn exec_plugin(exec: Exec, cluster: &Cluster) -> Result<ExecPlugin, String> {
    let api_version = exec.api_version.unwrap_or_default();
    if !EXEC_VERSIONS.contains(&api_version.as_str()) {
        return Err(format!("exec: apiVersion {api_version:?} is not supported, only {}", EXEC_VERSIONS.join(" and ")));
    }
    match exec.interactive_mode.as_deref() {
        None | Some("" | "Never" | "IfAvailable") => {}
        Some("Always") => return Err("exec: interactiveMode \"Always\" is not supported: the exporter has no terminal".into()),
        Some(other) => return Err(format!("exec: interactiveMode {other:?} is not allowed: one of Never, IfAvailable")),
    }
    let command = exec.command.filter(|command| !command.as_os_str().is_empty()).ok_or("exec: no command")?;
    let env = exec.env.into_iter().flatten().map(|variable| (variable.name, Secret::new(variable.value))).collect::<Vec<_>>();
    if env.iter().any(|(name, _)| name.is_empty() || name.contains(['=', '\0'])) {
        return Err("exec: a variable in env without a proper name".into());
    }
    let for_plugin = cluster.extensions.iter().flatten().find(|extension| extension.name == EXEC_EXTENSION);
    Ok(ExecPlugin {
        api_version,
        command,
        args: exec.args.into_iter().flatten().map(Secret::new).collect(),
        env,
        provide_cluster_info: exec.provide_cluster_info.unwrap_or(false),
        cluster_config: for_plugin.and_then(|extension| extension.extension.clone()),
        install_hint: not_empty(exec.install_hint),
    })
}

/// Returns the server's URL with a scheme and without a slash at the end. The scheme may be missing, as in client-go.
fn server_url(text: &str, default_scheme: &str) -> Result<String, String> {
    let (scheme, rest) = text.split_once("://").unwrap_or((default_scheme, text));
    let (scheme, rest) = (scheme.to_ascii_lowercase(), rest.trim_end_matches('/'));
    let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
    if authority.contains('@') {
        // The URL is not repeated, because the text before the @ contains a password.
        return Err("no user or password in the server's URL".into());
    }
    let good_path = path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
    if !["http", "https"].contains(&scheme.as_str()) || !is_authority(authority) || !good_path {
        return Err(format!("server {text:?} is not allowed: an http:// or https:// URL"));
    }
    Ok(format!("{scheme}://{authority}{path}"))
}

/// Returns `host:port`, with brackets around IPv6 addresses.
pub(super) fn join_host_port(host: &str, port: &str) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(address) => format!("[{address}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    }
}
