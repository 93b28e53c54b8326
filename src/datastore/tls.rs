//! TLS for the clients of both datastores: the system's certificates, the meaning of failed handshakes, and PEM text, which is checked
//! before ureq gets it, because ureq panics on a certificate and key that rustls refuses. Reads nothing but the system's bundle.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription as Alert, CertificateError as Bad, ClientConfig, RootCertStore};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// The files in which distributions keep trusted certificates as PEM (the list of Go's crypto/x509).
const SYSTEM_BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Returns the file with the system's trusted certificates: `SSL_CERT_FILE`, or the distribution's file.
pub(crate) fn system_bundle() -> Option<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from).filter(|path| !path.as_os_str().is_empty());
    named.or_else(|| SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|path| path.exists()))
}

pub(crate) fn certificates(pem: &[u8]) -> Option<Vec<Certificate<'static>>> {
    let certificates: Vec<_> = parse_pem(pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    (!certificates.is_empty()).then_some(certificates)
}

/// The keys that ring supports.
pub(crate) const KEYS: &str = "supported are RSA keys of 2048 to 8192 bits, ECDSA keys of the curves P-256 and P-384, and Ed25519 keys";

pub(crate) enum BadKey {
    NoKey,
    /// The key is not of a kind in [`KEYS`].
    Unsupported,
    /// rustls does not accept it with its certificate, for this reason.
    Unfit(String),
}

pub(crate) fn client_cert(chain: &[Certificate<'static>], key: &[u8]) -> Result<ClientCert, BadKey> {
    let private = PrivateKey::from_pem(key).map_err(|_| BadKey::NoKey)?;
    let parsed = PrivateKeyDer::from_pem_slice(key).map_err(|_| BadKey::NoKey)?;
    ring::sign::any_supported_type(&parsed).map_err(|_| BadKey::Unsupported)?;
    check_pair(chain, parsed).map_err(BadKey::Unfit)?;
    Ok(ClientCert::new_with_certs(chain, private))
}

fn check_pair(chain: &[Certificate<'_>], key: PrivateKeyDer<'static>) -> Result<(), String> {
    let chain = chain.iter().map(|certificate| CertificateDer::from(certificate.der().to_vec())).collect();
    let versions = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let builder = versions.map_err(|error| error.to_string())?.with_root_certificates(RootCertStore::empty());
    builder.with_client_auth_cert(chain, key).map(|_| ()).map_err(|error| error.to_string())
}

/// With `insecure`, the server's certificate is not checked.
pub(crate) fn config(roots: Vec<Certificate<'static>>, client: Option<ClientCert>, insecure: bool) -> TlsConfig {
    let config = TlsConfig::builder().root_certs(RootCerts::from(roots)).client_cert(client).disable_verification(insecure);
    config.unversioned_rustls_crypto_provider(provider()).build()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

pub(crate) struct Hints {
    /// The expected issuer of the server's certificate.
    pub issuer: String,
    /// What to do if the server does not accept our certificate.
    pub client: String,
    pub url: &'static str,
}

pub(crate) fn explain(error: &rustls::Error, hints: &Hints) -> String {
    match error {
        // A bad signature means a CA of the same name with another key, because it was recreated.
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer) => format!("its certificate was not issued by {}", hints.issuer),
        // ring also reports an unsupported signature as bad.
        rustls::Error::InvalidCertificate(Bad::BadSignature) => {
            format!("its certificate was not issued by {}, or with a key of a kind that cannot be checked: {KEYS}", hints.issuer)
        }
        rustls::Error::InvalidCertificate(
            Bad::UnsupportedSignatureAlgorithmContext { .. } | Bad::UnsupportedSignatureAlgorithmForPublicKeyContext { .. },
        ) => format!("its certificate was issued with a key of a kind that cannot be checked: {KEYS}"),
        rustls::Error::AlertReceived(Alert::HandshakeFailure) => {
            format!("it has no key or cipher that we can use, too: {KEYS}")
        }
        rustls::Error::InvalidCertificate(bad) => format!("its certificate is not acceptable: {bad}"),
        rustls::Error::AlertReceived(Alert::CertificateRequired | Alert::BadCertificate | Alert::UnknownCA) => hints.client.clone(),
        rustls::Error::InvalidMessage(_) => format!("it does not speak TLS: use http:// in this {}", hints.url),
        other => other.to_string(),
    }
}
