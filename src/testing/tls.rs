//! TLS of a test's client, and whom it believes.

use std::io::ErrorKind::{
    BrokenPipe, Interrupted, InvalidData, InvalidInput, UnexpectedEof, WouldBlock,
};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

/// The client's end of TLS.
#[derive(Debug)]
pub(crate) struct Tls {
    keys: ClientConnection,
    /// Whether the server did not take all of a write in its time: nobody knows what of it has arrived.
    is_broken: bool,
}

impl Tls {
    /// A client that asks for `host`, as it stands in a request. Its handshake is still to be done.
    pub(crate) fn new(config: &Arc<ClientConfig>, host: &str) -> io::Result<Self> {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let name = name.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(name).map_err(|error| {
            io::Error::new(InvalidInput, format!("no host can be {host:?}: {error}"))
        })?;
        let keys = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        Ok(Self { keys, is_broken: false })
    }

    pub(crate) fn is_shaking_hands(&self) -> bool {
        self.keys.is_handshaking()
    }

    /// Goes on with the handshake.
    ///
    /// # Errors
    ///
    /// The server refuses, or nothing comes for the socket's timeout.
    pub(crate) fn shake_hands(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        self.keys.complete_io(stream).map(drop)
    }

    /// # Errors
    ///
    /// [`Interrupted`] when a part of a record came, of which nothing can be read yet.
    pub(crate) fn read(&mut self, stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(read) = self.read_opened(buffer) {
            return read;
        }
        self.keys.read_tls(stream)?;
        let processed = self.keys.process_new_packets();
        // What it has to say to that, an alert for example. Where it cannot, the next write says why.
        let _ = self.flush(stream);
        processed.map_err(|error| io::Error::new(InvalidData, error))?;
        self.read_opened(buffer).unwrap_or_else(|| Err(Interrupted.into()))
    }

    /// What can be read without the socket, if that is anything.
    fn read_opened(&mut self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        match self.keys.reader().read(buffer) {
            Err(error) if error.kind() == WouldBlock => None,
            Err(error) if error.kind() == UnexpectedEof => {
                let text = "the server ended the connection without the goodbye of TLS";
                Some(Err(io::Error::new(UnexpectedEof, text)))
            }
            read => Some(read),
        }
    }

    /// # Errors
    ///
    /// The server took nothing for the socket's timeout, and nothing can be sent from then on.
    pub(crate) fn write(&mut self, stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
        if self.is_broken {
            let text = "the server did not take all of what was sent before";
            return Err(io::Error::new(BrokenPipe, text));
        }
        let count = self.keys.writer().write(bytes)?;
        let flushed = self.flush(stream);
        self.is_broken = flushed.is_err();
        flushed.map(|()| count)
    }

    fn flush(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        while self.keys.wants_write() {
            self.keys.write_tls(stream)?;
        }
        Ok(())
    }
}

/// For clients that take any certificate: they talk to the server that the test has started, at the address that it told.
/// Whether it has the key of that certificate is looked at.
pub(crate) fn any_certificate() -> Arc<ClientConfig> {
    let provider = ring::default_provider();
    let any = AnyCertificate { algorithms: provider.signature_verification_algorithms };
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap_or_else(|error| panic!("rustls has no version of TLS: {error}"))
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(any))
        .with_no_client_auth();
    Arc::new(config)
}

#[derive(Debug)]
struct AnyCertificate {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
