//! Which cryptography TLS has.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};

/// What the program has chosen for its whole process, or else that of `ring`.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(ring::default_provider()))
}
