//! What the peers have for TLS: rustls as it comes, with its own choice of cryptography.

use std::env;
use std::error::Error;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// For a server that was told `PORT CERTIFICATE KEY`; nothing without the last two.
pub fn server_config() -> Result<Option<Arc<ServerConfig>>, Box<dyn Error>> {
    let files: Vec<String> = env::args().skip(2).collect();
    let [certificate, key] = files.as_slice() else { return Ok(None) };
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    // The workspace has the cryptography of rwf too, so that rustls knows no default.
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Some(Arc::new(config)))
}
