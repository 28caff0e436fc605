//! TLS to a database server: rustls with `ring`, the server's name proven unless the operator chose otherwise.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{self, CryptoProvider};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error as RustlsError, RootCertStore, SignatureScheme,
};

use super::WireError;

/// How to make the TLS session of one connection.
pub(super) struct TlsSession {
    pub(super) connector: TlsConnector,
    pub(super) name: ServerName<'static>,
}

/// TLS that proves the server's name by `ca_file`, or by the system's authorities.
///
/// # Errors
/// `Tls` for a file without certificates, no system authorities, or a host that is not a name.
pub(super) fn verified(host: &str, ca_file: Option<&Path>) -> Result<TlsSession, WireError> {
    let provider = Arc::new(crypto::ring::default_provider());
    let roots = Arc::new(match ca_file {
        Some(path) => roots_of_file(path)?,
        None => roots_of_system()?,
    });
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(|e| WireError::Tls(e.to_string()))?;
    session(host, provider, verifier)
}

/// TLS with whoever answers.
///
/// # Errors
/// `Tls` for a host that is not a name.
pub(super) fn unverified(host: &str) -> Result<TlsSession, WireError> {
    let provider = Arc::new(crypto::ring::default_provider());
    let verifier = Arc::new(AcceptAnyone(provider.clone()));
    session(host, provider, verifier)
}

fn session(
    host: &str,
    provider: Arc<CryptoProvider>,
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<TlsSession, WireError> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| WireError::Tls(format!("{host:?} is not a name a certificate can have")))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| WireError::Tls(e.to_string()))?
        .dangerous() // rustls' word for any verifier that is handed over, ours of `verified` included
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(TlsSession {
        connector: TlsConnector::from(Arc::new(config)),
        name,
    })
}

fn roots_of_file(path: &Path) -> Result<RootCertStore, WireError> {
    let failed = |why: String| WireError::Tls(format!("reading authorities from {}: {why}", path.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| failed(e.to_string()))? {
        let certificate = certificate.map_err(|e| failed(e.to_string()))?;
        roots.add(certificate).map_err(|e| failed(e.to_string()))?;
    }
    match roots.is_empty() {
        true => Err(failed("it has no certificate".into())),
        false => Ok(roots),
    }
}

fn roots_of_system() -> Result<RootCertStore, WireError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    match added {
        0 => Err(WireError::Tls(
            "the system has no certificate authorities; name a CA file".into(),
        )),
        _ => Ok(roots),
    }
}

/// Accepts every certificate; still proves that the other end holds its key.
#[derive(Debug)]
struct AcceptAnyone(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        crypto::verify_tls12_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        crypto::verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
