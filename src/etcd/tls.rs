//! TLS for etcd: reads the certificate files that the configuration names, and checks them before they are used.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use super::error::Error;
use crate::config::EtcdConfig;
use crate::datastore::tls;

const CA_VARIABLE: &str = "ETCD_CA_CERT_FILE";
const CERT_VARIABLE: &str = "ETCD_CERT_FILE";
const KEY_VARIABLE: &str = "ETCD_KEY_FILE";

/// Reads the files anew: rotated certificates are taken up by the next connection.
///
/// # Errors
/// When a file cannot be read, holds no certificate or key, or certificate and key do not belong together.
pub(super) fn read(config: &EtcdConfig) -> Result<TlsConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = read_roots(config.ca_file.as_deref())?;
    let client = match &config.client_cert {
        Some((cert, key)) => Some(read_client(cert, key, &provider)?),
        None => None,
    };
    let tls = TlsConfig::builder().root_certs(RootCerts::from(roots)).client_cert(client);
    Ok(tls.unversioned_rustls_crypto_provider(provider).build())
}

fn read_roots(ca_file: Option<&Path>) -> Result<Vec<Certificate<'static>>, Error> {
    match ca_file {
        Some(path) => certificates(path, CA_VARIABLE),
        None => certificates(&system_bundle()?, CA_VARIABLE),
    }
}

fn system_bundle() -> Result<PathBuf, Error> {
    tls::system_bundle().ok_or_else(|| {
        let why = "not set, and this system has no certificate bundle: name the file with etcd's CA certificate";
        Error::file(Path::new("no file"), CA_VARIABLE, why)
    })
}

fn certificates(path: &Path, variable: &'static str) -> Result<Vec<Certificate<'static>>, Error> {
    let pem = fs::read(path).map_err(|error| Error::file(path, variable, error))?;
    tls::certificates(&pem).ok_or_else(|| Error::file(path, variable, "no certificate in PEM form in this file"))
}

fn read_client(cert: &Path, key: &Path, provider: &Arc<CryptoProvider>) -> Result<ClientCert, Error> {
    let chain = certificates(cert, CERT_VARIABLE)?;
    let pem = fs::read(key).map_err(|error| Error::file(key, KEY_VARIABLE, error))?;
    let private =
        PrivateKey::from_pem(&pem).map_err(|_| Error::file(key, KEY_VARIABLE, "no unencrypted private key in PEM form in this file"))?;
    let pair = tls::check_pair(&chain, &pem, provider);
    pair.map_err(|why| Error::file(key, KEY_VARIABLE, format!("does not fit {CERT_VARIABLE} {}: {why}", cert.display())))?;
    Ok(ClientCert::new_with_certs(&chain, private))
}

/// What a failed handshake means for the one who configured it.
pub(super) fn explain(error: &rustls::Error, config: &EtcdConfig) -> String {
    use rustls::{AlertDescription as Alert, CertificateError as Bad};
    let ca = match &config.ca_file {
        Some(path) => format!("{CA_VARIABLE} {}", path.display()),
        None => format!("the system's certificates ({CA_VARIABLE} is not set)"),
    };
    match error {
        // A bad signature is a CA of the same name with another key: one that was made anew.
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            format!("its certificate was not issued by any CA in {ca}: name the CA that issued etcd's server certificate")
        }
        rustls::Error::InvalidCertificate(bad) => format!("its certificate is not acceptable: {bad}"),
        rustls::Error::AlertReceived(Alert::CertificateRequired | Alert::BadCertificate | Alert::UnknownCA) => {
            let given = match &config.client_cert {
                Some((path, _)) => format!("the one in {}", path.display()),
                None => "none is set".to_owned(),
            };
            format!("it wants a client certificate that its CA issued ({given}): check {CERT_VARIABLE} and {KEY_VARIABLE}")
        }
        rustls::Error::InvalidMessage(_) => "it does not speak TLS: is this endpoint plain http://?".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(ca_file: &Path) -> EtcdConfig {
        EtcdConfig { endpoints: Vec::new(), discovery: None, credentials: None, ca_file: Some(ca_file.to_owned()), client_cert: None }
    }

    #[test]
    fn a_missing_ca_file_is_named_with_its_variable() {
        let error = read(&config(Path::new("/nonexistent/ca.pem"))).unwrap_err().to_string();
        assert_eq!(error, "ETCD_CA_CERT_FILE: /nonexistent/ca.pem: No such file or directory (os error 2)");
    }

    #[test]
    fn a_file_without_certificates_is_refused() {
        let error = read(&config(Path::new("Cargo.toml"))).unwrap_err().to_string();
        assert_eq!(error, "ETCD_CA_CERT_FILE: Cargo.toml: no certificate in PEM form in this file");
    }

    #[test]
    fn an_unknown_issuer_names_the_ca_file() {
        let error = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let text = explain(&error, &config(Path::new("/etc/ca.pem")));
        assert!(text.contains("ETCD_CA_CERT_FILE /etc/ca.pem"), "{text}");
    }
}
