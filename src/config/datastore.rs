//! Which datastore, and how to reach it: the rules of libcalico-go's client, checked before anything connects.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::values::{Said, Values};
use super::{ConfigError, Datastore, EtcdConfig, Remark, World};

/// Explicit type, else etcd if there are endpoints (or a domain to find them by), else Kubernetes: Calico ≥ 3.17, which
/// also covers the older default.
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
    let endpoints = values.text("ETCD_ENDPOINTS")?;
    let discovery = values.text("ETCD_DISCOVERY_SRV")?;
    match (&endpoints, &discovery) {
        (Some((endpoints, _)), Some((discovery, _))) => {
            return Err(ConfigError(format!("{} and {}: only one of the two may be set", endpoints.by, discovery.by)));
        }
        (None, None) => return Err(ConfigError("ETCD_ENDPOINTS: not set, but the datastore is etcdv3".into())),
        _ => {}
    }
    let discovery = discovery.map(|(said, domain)| self::domain(&said, &domain)).transpose()?;
    let (ca_file, client_cert) = tls_files(values, world)?;
    let default_scheme = if ca_file.is_some() || client_cert.is_some() { "https" } else { "http" };
    let endpoints = endpoints.map(|(said, list)| self::endpoints(&said, &list, default_scheme)).transpose()?;
    let (endpoints, credentials) = (endpoints.unwrap_or_default(), credentials(values, remarks)?);
    Ok(Datastore::Etcd(EtcdConfig { endpoints, discovery, credentials, ca_file, client_cert }))
}

/// A domain whose endpoints are asked for when the follower starts: DNS may not be there yet.
fn domain(said: &Said, domain: &str) -> Result<String, ConfigError> {
    let domain = domain.trim_end_matches('.');
    let good = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    match domain.len() <= 200 && domain.split('.').all(good) {
        true => Ok(domain.to_owned()),
        false => Err(said.refuse("a DNS domain, such as example.org")),
    }
}

/// User and password count only together, as in Calico; one alone is worth a warning.
fn credentials(values: &Values<'_>, remarks: &mut Vec<Remark>) -> Result<Option<(String, String)>, ConfigError> {
    let read = |name| values.get(name).map(|said| said.text().map(str::to_owned)).transpose();
    match (read("ETCD_USERNAME")?, read("ETCD_PASSWORD")?) {
        (Some(user), Some(password)) => Ok(Some((user, password))),
        (None, None) => Ok(None),
        (user, _) => {
            let (set, unset) = if user.is_some() { ("ETCD_USERNAME", "ETCD_PASSWORD") } else { ("ETCD_PASSWORD", "ETCD_USERNAME") };
            remarks.push(Remark { level: log::Level::Warn, text: format!("{set} has no effect without {unset}") });
            Ok(None)
        }
    }
}

/// The endpoints between the commas. Calico does not trim them; blanks there are never meant, so this does.
fn endpoints(said: &Said, list: &str, default_scheme: &str) -> Result<Vec<String>, ConfigError> {
    let parts = list.split(',').map(str::trim).filter(|part| !part.is_empty());
    let endpoints = parts.map(|part| endpoint(said, part, default_scheme)).collect::<Result<Vec<_>, _>>()?;
    if endpoints.is_empty() {
        return Err(said.refuse(ENDPOINTS_ALLOWED));
    }
    Ok(endpoints)
}

const ENDPOINTS_ALLOWED: &str = "http:// or https:// URLs of host and port, separated by commas";

/// One endpoint with its scheme and without a trailing slash.
fn endpoint(said: &Said, part: &str, default_scheme: &str) -> Result<String, ConfigError> {
    if said.value.to_string_lossy().contains('@') {
        // Not repeated: what stands before the @ is a password.
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

/// Host, or IPv6 address in brackets, with or without a port.
pub(super) fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
        Some((v6, "")) => return v6.parse::<std::net::Ipv6Addr>().is_ok(),
        Some((v6, port)) => match port.strip_prefix(':') {
            Some(port) if v6.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", Some(port)),
            _ => return false,
        },
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let good_host = !host.is_empty() && host.chars().all(|c| c.is_alphanumeric() || "-._".contains(c));
    good_host && port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// The CA file, and the client's certificate and key; each is read once, so that a mistake shows at the start and not as
/// a failed handshake.
#[allow(clippy::type_complexity)] // Three paths, of which two belong together.
fn tls_files(values: &Values<'_>, world: &World<'_>) -> Result<(Option<PathBuf>, Option<(PathBuf, PathBuf)>), ConfigError> {
    let ca_file = values.get("ETCD_CA_CERT_FILE").map(|said| certificate(&said, world)).transpose()?;
    let client_cert = match (values.get("ETCD_CERT_FILE"), values.get("ETCD_KEY_FILE")) {
        (None, None) => None,
        (Some(cert), Some(key)) => Some((certificate(&cert, world)?, private_key(&key, world)?)),
        (Some(cert), None) => return Err(ConfigError(format!("{}: needs ETCD_KEY_FILE, which is not set", cert.by))),
        (None, Some(key)) => return Err(ConfigError(format!("{}: needs ETCD_CERT_FILE, which is not set", key.by))),
    };
    Ok((ca_file, client_cert))
}

fn certificate(said: &Said, world: &World<'_>) -> Result<PathBuf, ConfigError> {
    let (path, pem) = read(said, world)?;
    check_certificate(&said.by, &format!("{path:?}"), &pem)?;
    Ok(path)
}

/// Whether there is a certificate; `by` and `place` are for the message.
pub(super) fn check_certificate(by: &str, place: &str, pem: &[u8]) -> Result<(), ConfigError> {
    match CertificateDer::pem_slice_iter(pem).next() {
        Some(Ok(_)) => Ok(()),
        _ => Err(ConfigError(format!("{by}: no certificate in PEM form in {place}"))),
    }
}

fn private_key(said: &Said, world: &World<'_>) -> Result<PathBuf, ConfigError> {
    let (path, pem) = read(said, world)?;
    check_private_key(&said.by, &format!("{path:?}"), &pem)?;
    Ok(path)
}

/// Whether there is a private key; `by` and `place` are for the message.
pub(super) fn check_private_key(by: &str, place: &str, pem: &[u8]) -> Result<(), ConfigError> {
    match PrivateKeyDer::from_pem_slice(pem) {
        Ok(_) => Ok(()),
        Err(_) => Err(ConfigError(format!("{by}: no unencrypted private key in PEM form in {place}"))),
    }
}

fn read(said: &Said, world: &World<'_>) -> Result<(PathBuf, Vec<u8>), ConfigError> {
    let path = Path::new(&said.value);
    let content = (world.read_file)(path).map_err(|error| ConfigError(format!("{}: cannot read {path:?}: {error}", said.by)))?;
    Ok((path.to_owned(), content))
}
