//! TLS for the API server: turns PEM text into what ureq takes, checked before it is used. It reads nothing but, where no CA is
//! configured, the system's certificates.

use std::fs;
use std::sync::Arc;

use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use super::credentials::Credentials;
use crate::datastore::tls;

/// # Errors
/// When the PEM holds no certificate or key, or certificate and key do not belong together: one line.
pub(super) fn config(credentials: &Credentials) -> Result<TlsConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let roots = if credentials.insecure { Vec::new() } else { roots(credentials.ca.as_deref())? };
    let client = match &credentials.client {
        Some((cert, key)) => {
            let chain = tls::certificates(cert).ok_or("the client certificate is no certificate in PEM form")?;
            let private = PrivateKey::from_pem(key).map_err(|_| "the client key is no unencrypted private key in PEM form")?;
            tls::check_pair(&chain, key, &provider).map_err(|why| format!("client certificate and key do not fit: {why}"))?;
            Some(ClientCert::new_with_certs(&chain, private))
        }
        None => None,
    };
    let config = TlsConfig::builder().root_certs(RootCerts::from(roots)).client_cert(client);
    let config = config.disable_verification(credentials.insecure);
    Ok(config.unversioned_rustls_crypto_provider(provider).build())
}

fn roots(ca: Option<&[u8]>) -> Result<Vec<Certificate<'static>>, String> {
    if let Some(pem) = ca {
        return tls::certificates(pem).ok_or_else(|| "the CA is no certificate in PEM form".into());
    }
    let path = tls::system_bundle().ok_or("no CA is configured, and this system has no certificate bundle")?;
    let pem = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    tls::certificates(&pem).ok_or_else(|| format!("{}: no certificate in PEM form in this file", path.display()))
}

/// What a failed handshake means for the one who configured it.
pub(super) fn explain(error: &rustls::Error, configured: bool) -> String {
    use rustls::{AlertDescription as Alert, CertificateError as Bad};
    let ca = if configured { "the configured CA" } else { "the system's certificates (no CA is configured)" };
    match error {
        // A bad signature is a CA of the same name with another key: one that was made anew.
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            format!("its certificate was not issued by {ca}")
        }
        rustls::Error::InvalidCertificate(bad) => format!("its certificate is not acceptable: {bad}"),
        rustls::Error::AlertReceived(Alert::CertificateRequired | Alert::BadCertificate | Alert::UnknownCA) => {
            "it refuses our client certificate, or wants one".to_owned()
        }
        rustls::Error::InvalidMessage(_) => "it does not speak TLS: is this address plain http://?".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pem_is_refused_and_never_a_panic() {
        let refused = |credentials: Credentials| config(&credentials).unwrap_err();
        assert!(refused(Credentials { ca: Some(b"junk".to_vec()), ..Credentials::default() }).contains("CA"));
        let client = Some((b"junk".to_vec(), b"junk".to_vec()));
        let skip = Credentials { insecure: true, client, ..Credentials::default() };
        assert!(refused(skip).contains("client certificate"));
    }
}
