//! Chooses the datastore and how to reach it by the rules of libcalico-go's client, and checks the settings before connecting.

use std::path::PathBuf;

use super::syntax::{check_certificate, check_private_key, is_authority};
use super::values::{Said, Values};
use super::{ConfigError, Datastore, EtcdConfig, Remark, Secret, World};

/// The explicit type has priority. Otherwise it is etcd if there are endpoints (or a domain to find them), else Kubernetes, as in Calico ≥
/// 3.17.
pub(super) fn resolve(values: &Values<'_>, world: &World<'_>, remarks: &mut Vec<Remark>) -> Result<Datastore, ConfigError> {
    let has_etcd = values.text("ETCD_ENDPOINTS")?.is_some() || values.text("ETCD_DISCOVERY_SRV")?.is_some();
    match values.get("DATASTORE_TYPE") {
        None if has_etcd => etcd(values, world, remarks),
        None => kubernetes(values, world, remarks, "DATASTORE_TYPE and ETCD_ENDPOINTS: not set,"),
        Some(said) => match said.text()? {
            "etcdv3" => etcd(values, world, remarks),
            "kubernetes" => kubernetes(values, world, remarks, &format!("{}: \"kubernetes\",", said.by)),
            "none" => Ok(Datastore::None),
            _ => Err(said.refuse("one of etcdv3, kubernetes, none")),
        },
    }
}

fn kubernetes(values: &Values<'_>, world: &World<'_>, remarks: &mut Vec<Remark>, because: &str) -> Result<Datastore, ConfigError> {
    let config = super::kubernetes::resolve(values, world, remarks)?;
    config.map(|config| Datastore::Kubernetes(Box::new(config))).ok_or_else(|| {
        let looked = "neither KUBECONFIG nor K8S_API_ENDPOINT nor a pod's service account says where the API server is";
        ConfigError(format!("{because} but {looked}"))
    })
}

fn etcd(values: &Values<'_>, world: &World<'_>, remarks: &mut Vec<Remark>) -> Result<Datastore, ConfigError> {
    let (endpoints, discovery) = match (values.text("ETCD_ENDPOINTS")?, values.text("ETCD_DISCOVERY_SRV")?) {
        (Some((endpoints, _)), Some((discovery, _))) => {
            return Err(ConfigError(format!("{} and {}: only one of the two may be set", endpoints.by, discovery.by)));
        }
        (None, None) => return Err(ConfigError("ETCD_ENDPOINTS: not set, but the datastore is etcdv3".into())),
        (None, Some((said, domain))) => (None, Some(self::domain(&said, &domain)?)),
        (endpoints, None) => (endpoints, None),
    };
    let ca_file = values.get("ETCD_CA_CERT_FILE").map(|said| checked(&said, world, check_certificate)).transpose()?;
    let client_cert = client_cert(values, world)?;
    let default_scheme = if ca_file.is_some() || client_cert.is_some() { "https" } else { "http" };
    // If there is a domain, the follower looks up the endpoints when it starts, because DNS may not be available yet.
    let endpoints = endpoints.map(|(said, list)| self::endpoints(&said, &list, default_scheme)).transpose()?.unwrap_or_default();
    Ok(Datastore::Etcd(EtcdConfig { endpoints, discovery, credentials: credentials(values, remarks)?, ca_file, client_cert }))
}

fn domain(said: &Said, text: &str) -> Result<String, ConfigError> {
    let domain = text.trim_end_matches('.');
    let good = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    let is_domain = domain.len() <= 200 && domain.split('.').all(good);
    if is_domain { Ok(domain.to_owned()) } else { Err(said.refuse("a DNS domain, such as example.org")) }
}

/// Returns user and password, which only have an effect together, as in Calico. One alone causes a warning.
fn credentials(values: &Values<'_>, remarks: &mut Vec<Remark>) -> Result<Option<(String, Secret)>, ConfigError> {
    let read = |name| values.get(name).map(|said| said.text().map(str::to_owned)).transpose();
    match (read("ETCD_USERNAME")?, read("ETCD_PASSWORD")?) {
        (Some(user), Some(password)) => Ok(Some((user, Secret::new(password)))),
        (None, None) => Ok(None),
        (user, _) => {
            let (set, unset) = if user.is_some() { ("ETCD_USERNAME", "ETCD_PASSWORD") } else { ("ETCD_PASSWORD", "ETCD_USERNAME") };
            remarks.push(Remark::warn(format!("{set} has no effect without {unset}")));
            Ok(None)
        }
    }
}

/// Splits the list of endpoints. Calico does not trim them, but blanks are never intended, so this does.
fn endpoints(said: &Said, list: &str, default_scheme: &str) -> Result<Vec<String>, ConfigError> {
    let parts = list.split(',').map(str::trim).filter(|part| !part.is_empty());
    let endpoints = parts.map(|part| endpoint(said, part, default_scheme)).collect::<Result<Vec<_>, _>>()?;
    if endpoints.is_empty() {
        return Err(said.refuse(ENDPOINTS_ALLOWED));
    }
    Ok(endpoints)
}

const ENDPOINTS_ALLOWED: &str = "http:// or https:// URLs of host and port, separated by commas";

fn endpoint(said: &Said, part: &str, default_scheme: &str) -> Result<String, ConfigError> {
    if said.value.to_string_lossy().contains('@') {
        // The URL is not repeated, because the text before the @ contains a password.
        return Err(ConfigError(format!("{}: no user or password in an endpoint; set ETCD_USERNAME and ETCD_PASSWORD", said.by)));
    }
    let (scheme, rest) =
        part.split_once("://").map_or((default_scheme.to_owned(), part), |(scheme, rest)| (scheme.to_ascii_lowercase(), rest));
    let authority = rest.trim_end_matches('/');
    if !["http", "https"].contains(&scheme.as_str()) || !is_authority(authority) {
        return Err(said.refuse(ENDPOINTS_ALLOWED));
    }
    Ok(format!("{scheme}://{authority}"))
}

fn client_cert(values: &Values<'_>, world: &World<'_>) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
    match (values.get("ETCD_CERT_FILE"), values.get("ETCD_KEY_FILE")) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => Ok(Some((checked(&cert, world, check_certificate)?, checked(&key, world, check_private_key)?))),
        (Some(cert), None) => Err(ConfigError(format!("{}: needs ETCD_KEY_FILE, which is not set", cert.by))),
        (None, Some(key)) => Err(ConfigError(format!("{}: needs ETCD_CERT_FILE, which is not set", key.by))),
    }
}

type Check = fn(&str, &str, &[u8]) -> Result<(), ConfigError>;

/// Reads a file once, so that a mistake shows at the start and not as a failed handshake.
fn checked(said: &Said, world: &World<'_>, check: Check) -> Result<PathBuf, ConfigError> {
    let path = PathBuf::from(&said.value);
    let pem = (world.read_file)(&path).map_err(|error| ConfigError(format!("{}: cannot read {path:?}: {error}", said.by)))?;
    check(&said.by, &format!("{path:?}"), &pem).map(|()| path)
}
