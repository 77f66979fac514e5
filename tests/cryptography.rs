//! Which cryptography TLS has: what the program has chosen for its whole process. Alone in its process for that.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::tls::{IDENTITY, TlsWire};
use common::{Echo, Raw, start, status, upgrade_request};
use rustls::CipherSuite;
use rustls::crypto::ring;
use rwf::http::Server;
use rwf::prelude::*;

#[test]
fn the_cryptography_of_the_whole_process_is_taken_where_the_program_has_chosen_one() {
    let negotiated = || {
        let server = start(Server::new(vec![route!("/" => Echo)]).tls(IDENTITY.tls()));
        let mut raw = Raw::from(TlsWire::connect(server.local_addr()).unwrap());
        let (head, _) = raw.ask(&upgrade_request("/", ""));
        assert_eq!(status(&head), 101, "{head}");
        raw.stream.tls().client.lock().negotiated_cipher_suite().unwrap().suite()
    };
    assert_ne!(negotiated(), CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
    let mut chosen = ring::default_provider();
    chosen.cipher_suites.retain(|it| it.suite() == CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
    chosen.install_default().unwrap();
    assert_eq!(negotiated(), CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
}
