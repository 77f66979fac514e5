//! What the peers have for TLS: rustls as it comes, with its own choice of cryptography, or with that of rwf.

use std::env;
use std::error::Error;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// For a server that was told `PORT CERTIFICATE KEY`; nothing without the last two.
pub fn server_config() -> Result<Option<Arc<ServerConfig>>, Box<dyn Error>> {
    let files: Vec<String> = env::args().skip(2).collect();
    let [certificate, key] = files.as_slice() else { return Ok(None) };
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(key)?;
    let provider = chosen_provider().unwrap_or_else(aws_lc_rs::default_provider);
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Some(Arc::new(config)))
}

/// What `CRYPTOGRAPHY` asks for. The workspace has two, so that rustls knows no default of its own.
pub fn chosen_provider() -> Option<CryptoProvider> {
    match &*env::var("CRYPTOGRAPHY").ok()? {
        "ring" => Some(ring::default_provider()),
        _ => Some(aws_lc_rs::default_provider()),
    }
}
