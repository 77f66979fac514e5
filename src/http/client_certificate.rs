//! A client's certificate, which TLS has checked: whose it is.

use std::fmt;
use std::sync::Arc;

use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::oid::db::rfc4519;

/// The certificate by which a client has shown who it is: from
/// [`Request::client_certificate`](crate::http::Request::client_certificate). One of the server's authorities has signed it, and it
/// was valid when the connection began.
///
/// `Debug` shows the subject.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    der: Arc<[u8]>,
}

impl ClientCertificate {
    pub(crate) fn new(der: Vec<u8>) -> Self {
        Self { der: der.into() }
    }

    /// The whole certificate, in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its subject, as RFC 4514 writes it, the last part first: `CN=anna,O=Example`. `None` where it cannot be read.
    ///
    /// What an authority lets people put there is its own affair: whoever is let in by a part of it trusts the authority for
    /// that part.
    #[must_use]
    pub fn subject(&self) -> Option<String> {
        Some(self.decoded()?.tbs_certificate().subject().to_string())
    }

    /// The common name in its subject; `None` where there is none, or more than one.
    #[must_use]
    pub fn common_name(&self) -> Option<String> {
        let certificate = self.decoded()?;
        let subject = certificate.tbs_certificate().subject();
        let names = subject.iter().filter(|attribute| attribute.oid == rfc4519::COMMON_NAME);
        if names.count() > 1 {
            return None;
        }
        Some(subject.common_name().ok()??.into())
    }

    fn decoded(&self) -> Option<Certificate> {
        Certificate::from_der(&self.der).ok()
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientCertificate").field(&self.subject()).finish()
    }
}
