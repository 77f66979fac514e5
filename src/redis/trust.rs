//! Whom to take for a Redis over TLS, and why one is not taken, in words.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore};

use crate::base::rule::Unfit;
use crate::base::shown::Shown;
use crate::net::cryptography::provider;

/// Whose certificates are believed.
#[derive(Debug, Clone, Default)]
pub(crate) enum Trust {
    /// Those of the public authorities.
    #[default]
    Public,
    /// Those of the authorities in a file.
    File(PathBuf),
    /// Those that the program's configuration believes.
    Program(Arc<ClientConfig>),
}

impl Trust {
    /// The setting that it comes from, if it comes from one.
    pub(crate) fn setting(&self) -> Option<&'static str> {
        match self {
            Self::Public => None,
            Self::File(_) => Some("root_certificates"),
            Self::Program(_) => Some("tls_config"),
        }
    }

    /// What it makes of TLS; files are read here.
    pub(crate) fn config(&self) -> Result<Arc<ClientConfig>, Unfit> {
        let roots = match self {
            Self::Public => webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect(),
            Self::File(path) => read(path).map_err(|reason| Unfit {
                name: "root_certificates",
                reason: format!("cannot use {}: {reason}", path.display()),
            })?,
            Self::Program(config) => return Ok(Arc::clone(config)),
        };
        let unfit = |error: Error| Unfit {
            name: "Cluster::redis",
            reason: format!("cannot work with TLS: {error}"),
        };
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(unfit)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }
}

fn read(path: &PathBuf) -> Result<RootCertStore, String> {
    let content = std::fs::read(path).map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&content) {
        let added = certificate.map_err(|error| error.to_string());
        roots.add(added?).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("no certificate is in it".to_owned()) } else { Ok(roots) }
}

/// Why TLS has failed, and what to do.
pub(crate) fn explain(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => explain_certificate(error),
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "it wants a certificate of this node: `Cluster::tls_config` takes one".to_owned()
        }
        Error::AlertReceived(
            alert @ (AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::DecryptError
            | AlertDescription::HandshakeFailure),
        ) => {
            format!(
                "it does not take the certificate of this node, or wants one: `Cluster::tls_config` \
                 gives it ({alert:?})"
            )
        }
        Error::InvalidMessage(_) => {
            "it does not speak TLS: write redis:// for a Redis without, or use its port for TLS"
                .to_owned()
        }
        error => format!("TLS with it fails: {}", Shown::text(error)),
    }
}

fn explain_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::NotValidForNameContext { expected, presented } => {
            let presented = presented.join(", ");
            format!(
                "its certificate is not for {}, the host of the address, but for {}: use a name that \
                 it is for",
                expected.to_str(),
                Shown::text(if presented.is_empty() { "no host" } else { &presented }),
            )
        }
        // The second where an authority of the same name is known.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is of no authority that is known here: give the authority's, in a PEM \
             file, to `Cluster::root_certificates`"
                .to_owned()
        }
        CertificateError::ExpiredContext { .. } | CertificateError::Expired => {
            "its certificate has expired, or the clock of this machine is wrong".to_owned()
        }
        CertificateError::NotValidYetContext { .. } | CertificateError::NotValidYet => {
            "its certificate is not valid yet, or the clock of this machine is wrong".to_owned()
        }
        error => format!("its certificate cannot be believed: {}", Shown::text(error)),
    }
}
