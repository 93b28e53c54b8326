//! Reads and checks the configured certificate files before they are used.

use std::fmt;
use std::fs;
use std::path::Path;

use ureq::tls::{Certificate, ClientCert, TlsConfig};

use crate::config::EtcdConfig;
use crate::datastore::error::{Error, ErrorKind};
use crate::datastore::tls::{self, BadKey, Hints};

const CA_VARIABLE: &str = "ETCD_CA_CERT_FILE";
const CERT_VARIABLE: &str = "ETCD_CERT_FILE";
const KEY_VARIABLE: &str = "ETCD_KEY_FILE";

/// Reads the files. Called for each new connection, which so uses rotated certificates.
pub(super) fn read(config: &EtcdConfig) -> Result<TlsConfig, Error> {
    let why = "not set, and this system has no certificate bundle: name the file with etcd's CA certificate";
    let ca = config.ca_file.clone().or_else(tls::system_bundle).ok_or_else(|| bad_file(Path::new("no file"), CA_VARIABLE, why))?;
    let roots = certificates(&ca, CA_VARIABLE)?;
    let client = config.client_cert.as_ref().map(|(cert, key)| read_client(cert, key)).transpose()?;
    Ok(tls::config(roots, client, false))
}

fn certificates(path: &Path, variable: &str) -> Result<Vec<Certificate<'static>>, Error> {
    let pem = fs::read(path).map_err(|error| bad_file(path, variable, error))?;
    tls::certificates(&pem).ok_or_else(|| bad_file(path, variable, "no certificate in PEM form in this file"))
}

fn read_client(cert: &Path, key: &Path) -> Result<ClientCert, Error> {
    let chain = certificates(cert, CERT_VARIABLE)?;
    let pem = fs::read(key).map_err(|error| bad_file(key, KEY_VARIABLE, error))?;
    tls::client_cert(&chain, &pem).map_err(|bad| match bad {
        BadKey::NoKey => bad_file(key, KEY_VARIABLE, "no unencrypted private key in PEM form in this file"),
        BadKey::Unsupported => bad_file(key, KEY_VARIABLE, format_args!("a key of this kind cannot be used: {}", tls::KEYS)),
        BadKey::Unfit(why) => bad_file(key, KEY_VARIABLE, format_args!("does not fit {CERT_VARIABLE} {}: {why}", cert.display())),
    })
}

fn bad_file(path: &Path, variable: &str, why: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Access, format!("{variable}: {}: {why}", path.display()))
}

pub(super) fn hints(config: &EtcdConfig) -> Hints {
    let ca = match &config.ca_file {
        Some(path) => format!("{CA_VARIABLE} {}", path.display()),
        None => format!("the system's certificates ({CA_VARIABLE} is not set)"),
    };
    let given = match &config.client_cert {
        Some((path, _)) => format!("the one in {}", path.display()),
        None => "none is set".to_owned(),
    };
    Hints {
        issuer: format!("any CA in {ca}: name the CA that issued etcd's server certificate"),
        client: format!("it requires a client certificate issued by its CA ({given}): check {CERT_VARIABLE} and {KEY_VARIABLE}"),
        url: "endpoint",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(ca_file: &Path) -> EtcdConfig {
        EtcdConfig { endpoints: Vec::new(), discovery: None, credentials: None, ca_file: Some(ca_file.to_owned()), client_cert: None }
    }

    #[test]
    fn a_bad_ca_file_is_named_with_its_variable() {
        for (path, why) in
            [("/nonexistent/ca.pem", "No such file or directory (os error 2)"), ("Cargo.toml", "no certificate in PEM form in this file")]
        {
            let error = read(&config(Path::new(path))).unwrap_err().to_string();
            assert_eq!(error, format!("ETCD_CA_CERT_FILE: {path}: {why}"));
        }
    }

    #[test]
    fn an_unknown_issuer_names_the_ca_file() {
        let error = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let text = tls::explain(&error, &hints(&config(Path::new("/etc/ca.pem"))));
        assert!(text.contains("ETCD_CA_CERT_FILE /etc/ca.pem"), "{text}");
    }
}
