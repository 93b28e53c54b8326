//! What TLS clients of every datastore need: the system's certificates, and a check of PEM text before ureq sees it, because
//! ureq panics on a certificate and key that rustls refuses. Reads nothing but the system's bundle.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use ureq::tls::{Certificate, PemItem, parse_pem};

/// Where distributions keep the certificates they trust, as PEM in one file (the list of Go's crypto/x509).
const SYSTEM_BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The file with the certificates that the system trusts: `SSL_CERT_FILE`, else where distributions have it.
pub(crate) fn system_bundle() -> Option<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from).filter(|path| !path.as_os_str().is_empty());
    named.or_else(|| SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()))
}

/// The certificates in PEM text; `None` if there is none.
pub(crate) fn certificates(pem: &[u8]) -> Option<Vec<Certificate<'static>>> {
    let certificates: Vec<_> = parse_pem(pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    (!certificates.is_empty()).then_some(certificates)
}

/// Whether rustls takes a certificate chain with this key, in PEM.
///
/// # Errors
/// What rustls says against them.
pub(crate) fn check_pair(chain: &[Certificate<'_>], key: &[u8], provider: &Arc<CryptoProvider>) -> Result<(), String> {
    let chain = chain.iter().map(|certificate| CertificateDer::from(certificate.der().to_vec())).collect();
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| error.to_string())?;
    let versions = ClientConfig::builder_with_provider(Arc::clone(provider)).with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| error.to_string())?.with_root_certificates(RootCertStore::empty());
    builder.with_client_auth_cert(chain, key).map(|_| ()).map_err(|error| error.to_string())
}
