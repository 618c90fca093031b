//! TLS to what runs on the hosts, over streams that a host dials.
//!
//! Whom to trust, and with which certificate to show oneself, is said by files of the host: those that its own
//! services use. They are read into memory and kept nowhere else. The service's certificate is always verified,
//! against the CA and against the address or name that was dialled.

use std::error::Error;
use std::io;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{CertificateError, ClientConfig, RootCertStore, crypto::ring};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{Connect, TlsConnector};

use crate::host::transport::Failure;
use crate::host::{BoxStream, Host, HostError};

/// Longer files of certificates are none, in bytes; a whole system's CAs are about 200 KiB.
const LIMIT: u64 = 1 << 20;

/// The files of a host by which a service is spoken to over TLS.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// The CA that signed the service's certificate (PEM), an absolute path on the host.
    pub ca: String,
    /// The certificate to show where the service wants one (PEM), an absolute path on the host. None by default.
    #[serde(default)]
    pub cert: Option<String>,
    /// The key of `cert` (PEM, not encrypted). By default it is in the file of `cert`.
    #[serde(default)]
    pub key: Option<String>,
}

impl TlsFiles {
    /// # Errors
    /// A path is not absolute, or there is a key without a certificate.
    pub(crate) fn validate(&self) -> Result<(), String> {
        if self.key.is_some() && self.cert.is_none() {
            return Err("`tls` has a `key` without its `cert`".to_owned());
        }
        let mut paths = [Some(&self.ca), self.cert.as_ref(), self.key.as_ref()].into_iter().flatten();
        match paths.find(|path| !path.starts_with('/')) {
            Some(path) => Err(format!("`{path}` in `tls` is no absolute path on the host")),
            None => Ok(()),
        }
    }
}

/// Whom to trust, and how to show oneself.
#[derive(Clone)]
pub(crate) struct Tls {
    files: TlsFiles,
    config: Arc<ClientConfig>,
}

impl Tls {
    /// Reads the files from the host. `protocol` is what is to be spoken (ALPN), empty where that isn't asked.
    ///
    /// # Errors
    /// A file is missing or isn't what it should be.
    pub(crate) async fn load(host: &dyn Host, files: &TlsFiles, protocol: &[u8]) -> Result<Self, HostError> {
        let key = files.key.as_ref().or(files.cert.as_ref());
        let (ca, cert, key) = tokio::try_join!(
            host.read(&files.ca, LIMIT),
            read(host, files.cert.as_deref()),
            read(host, key.map(String::as_str)),
        )?;
        Self::new(files, ca.as_deref(), cert.as_deref(), key.as_deref(), protocol).map_err(|message| {
            HostError::Failed {
                host: host.name().to_owned(),
                message: format!("TLS: {message}"),
                detail: None,
            }
        })
    }

    fn new(
        files: &TlsFiles,
        ca: Option<&[u8]>,
        cert: Option<&[u8]>,
        key: Option<&[u8]>,
        protocol: &[u8],
    ) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&files.ca, ca)? {
            roots.add(certificate).map_err(|error| format!("{} holds no CA: {error}", files.ca))?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
        let mut config = match &files.cert {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let chain = certificates(path, cert)?;
                let at = files.key.as_ref().unwrap_or(path);
                let bytes = key.ok_or_else(|| format!("there is no {at}"))?;
                let key = PrivateKeyDer::from_pem_slice(bytes)
                    .map_err(|_| format!("{at} holds no key that can be read (PEM, not encrypted)"))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| format!("{path} and {at} don't belong together: {error}"))?
            }
        };
        if !protocol.is_empty() {
            config.alpn_protocols = vec![protocol.to_vec()];
        }
        Ok(Self { files: files.clone(), config: Arc::new(config) })
    }

    /// The handshake. `address` is what was dialled, and what the certificate must be made out to.
    ///
    /// # Errors
    /// What is wrong, in words that follow the service's name, with what to do about it.
    pub(crate) async fn handshake(
        &self,
        stream: BoxStream,
        address: &str,
    ) -> Result<TlsStream<BoxStream>, Failure> {
        let name = server_name(address)?;
        self.begin(name, stream).await.map_err(|error| self.broken_off(&error, address))
    }

    pub(super) fn begin<S>(&self, name: ServerName<'static>, stream: S) -> Connect<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        TlsConnector::from(self.config.clone()).connect(name, stream)
    }

    pub(super) fn broken_off(&self, error: &io::Error, address: &str) -> Failure {
        match self.explain(error, address) {
            Some(words) => Failure::Refused(words),
            None => Failure::Lost(format!("the TLS handshake was broken off ({error}): does it speak TLS?")),
        }
    }

    /// What an error of TLS means, where it is one. Also after the handshake: in TLS 1.3 a service refuses a
    /// client's certificate only then.
    pub(crate) fn explain(&self, error: &(dyn Error + 'static), address: &str) -> Option<String> {
        let ca = &self.files.ca;
        Some(match tls_error(error)? {
            rustls::Error::InvalidCertificate(why) => match why {
                CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
                    "its certificate was not signed by the CA in {ca}: name the CA that signed it, or give the service a certificate of that CA"
                ),
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "its certificate has expired: renew it, and reload the service".to_owned()
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    "its certificate is not valid yet: compare the clocks".to_owned()
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    format!(
                        "its certificate is not made out to {address}: make one whose subject alternative names hold it"
                    )
                }
                other => format!("its certificate is refused: {other}"),
            },
            rustls::Error::AlertReceived(alert) => match &self.files.cert {
                None => {
                    format!("it refuses a client without a certificate ({alert:?}): name `cert` and `key`")
                }
                Some(cert) => {
                    format!(
                        "it refuses the client certificate {cert} ({alert:?}): is it of the CA that it trusts?"
                    )
                }
            },
            rustls::Error::InvalidMessage(_) => "it doesn't speak TLS: is it configured to?".to_owned(),
            other => format!("TLS: {other}"),
        })
    }
}

/// What a certificate must be made out to.
pub(super) fn server_name(address: &str) -> Result<ServerName<'static>, Failure> {
    ServerName::try_from(address.to_owned())
        .map_err(|_| Failure::Refused(format!("`{address}` can't be the name in a certificate")))
}

async fn read(host: &dyn Host, path: Option<&str>) -> Result<Option<Vec<u8>>, HostError> {
    match path {
        Some(path) => host.read(path, LIMIT).await,
        None => Ok(None),
    }
}

fn certificates(path: &str, bytes: Option<&[u8]>) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = bytes.ok_or_else(|| format!("there is no {path}"))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(format!("{path} holds no certificate (PEM)")),
    }
}

/// The error of TLS among an error's causes. An I/O error keeps it inside, not among its sources.
fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let found = inner.and_then(|inner| inner.downcast_ref()).or_else(|| error.downcast_ref());
        if found.is_some() {
            return found;
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
