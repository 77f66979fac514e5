//! The TLS of the tests: the certificate of their servers, and clients that believe it.

use std::io::ErrorKind::{InvalidData, UnexpectedEof, WouldBlock};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use rcgen::{CertifiedKey, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use rwf::http::Tls;

use super::{DEADLINE, Folder};

/// The host that the certificate is for.
pub const HOST: &str = "localhost";

/// The server of the tests, which each process makes anew, so that it does not expire.
pub static IDENTITY: LazyLock<Identity> = LazyLock::new(|| Identity::new(&[HOST]));

/// Who a server is, and a client that believes it.
#[derive(Debug)]
pub struct Identity {
    pub certificate: CertificateDer<'static>,
    /// As they stand in files.
    pub certificate_pem: String,
    pub key_pem: String,
}

impl Identity {
    pub fn new(names: &[&str]) -> Self {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let made: CertifiedKey<KeyPair> = rcgen::generate_simple_self_signed(names).unwrap();
        Self {
            certificate: made.cert.der().clone(),
            certificate_pem: made.cert.pem(),
            key_pem: made.signing_key.serialize_pem(),
        }
    }

    /// What a server takes.
    pub fn tls(&self) -> Tls {
        let folder = Folder::new();
        let certificate = folder.write("cert.pem", &self.certificate_pem);
        Tls::files(certificate, folder.write("key.pem", &self.key_pem)).unwrap()
    }

    /// A client that believes this server alone.
    pub fn client(&self) -> ClientConfig {
        self.client_of(&[&rustls::version::TLS13, &rustls::version::TLS12])
    }

    /// The same for these versions of TLS.
    pub fn client_of(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config
    }
}

/// A client's end of a connection over TLS; clones share it.
#[derive(Debug)]
pub struct TlsWire {
    pub socket: TcpStream,
    pub state: Arc<TlsState>,
}

#[derive(Debug)]
pub struct TlsState {
    pub client: Mutex<ClientConnection>,
    /// Held by whoever reads the socket, with what was read and nobody has taken.
    received: Mutex<Received>,
    /// Held by whoever writes to the socket, with what it did not take by its timeout.
    unsent: Mutex<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Received {
    bytes: Vec<u8>,
    taken: usize,
}

impl Received {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    fn copy_to(&self, buffer: &mut [u8]) -> usize {
        let count = self.rest().len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.rest()[..count]);
        count
    }
}

impl TlsWire {
    /// Connects as a usual client of the tests' server.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        static CLIENT: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| Arc::new(IDENTITY.client()));
        let wire = Self::connect_with(address, Arc::clone(&CLIENT), HOST)?;
        // One that is refused learns it again from its first read or write.
        let _ = wire.shake_hands();
        Ok(wire)
    }

    /// Connects to the server of that name. The handshake comes with the first read or write, or by
    /// [`shake_hands`](Self::shake_hands).
    pub fn connect_with(
        address: SocketAddr,
        config: Arc<ClientConfig>,
        name: &'static str,
    ) -> io::Result<Self> {
        let socket = TcpStream::connect_timeout(&address, DEADLINE)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.set_write_timeout(Some(DEADLINE))?;
        let name = ServerName::try_from(name).unwrap();
        let mut client = ClientConnection::new(config, name).unwrap();
        client.set_buffer_limit(None);
        let state = TlsState {
            client: Mutex::new(client),
            received: Mutex::default(),
            unsent: Mutex::default(),
        };
        Ok(Self { socket, state: Arc::new(state) })
    }

    /// Has the handshake done, if it is not.
    pub fn shake_hands(&self) -> io::Result<()> {
        self.state.shake_hands(&self.socket)
    }

    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, state: Arc::clone(&self.state) })
    }

    /// What comes next, which stays; zero at the end of the stream.
    pub fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut received = self.state.received.lock();
        self.state.fill(&self.socket, &mut received)?;
        Ok(received.copy_to(buffer))
    }

    /// Ends the stream in good order, as a client that has said all.
    pub fn say_goodbye(&self) {
        self.state.client.lock().send_close_notify();
        self.state.write(&self.socket, &[]).unwrap();
        let _ = self.socket.shutdown(std::net::Shutdown::Write);
    }
}

impl Read for &TlsWire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut received = self.state.received.lock();
        self.state.fill(&self.socket, &mut received)?;
        let count = received.copy_to(buffer);
        received.taken += count;
        Ok(count)
    }
}

impl Write for &TlsWire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.state.write(&self.socket, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl TlsState {
    fn shake_hands(&self, mut socket: &TcpStream) -> io::Result<()> {
        let mut client = self.client.lock();
        while client.is_handshaking() {
            client.complete_io(&mut socket)?;
        }
        Ok(())
    }

    /// Waits until something can be read, or the server has said goodbye.
    fn fill(&self, socket: &TcpStream, received: &mut Received) -> io::Result<()> {
        if !received.rest().is_empty() {
            return Ok(());
        }
        (received.taken, received.bytes) = (0, Vec::new());
        self.shake_hands(socket)?;
        let mut arrived = vec![0; 32 << 10];
        while received.bytes.is_empty() {
            let count = (&*socket).read(&mut arrived)?;
            let mut client = self.client.lock();
            let state = client.process_new_packets().map_err(invalid)?;
            if count == 0 {
                let is_end = state.peer_has_closed();
                return if is_end { Ok(()) } else { Err(UnexpectedEof.into()) };
            }
            let mut arrived = &arrived[..count];
            while !arrived.is_empty() {
                let taken = client.read_tls(&mut arrived)?;
                let state = client.process_new_packets().map_err(invalid)?;
                let mut opened = vec![0; state.plaintext_bytes_to_read()];
                client.reader().read_exact(&mut opened)?;
                received.bytes.append(&mut opened);
                if taken == 0 {
                    break;
                }
            }
        }
        Ok(())
    }

    fn write(&self, socket: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        self.shake_hands(socket)?;
        let mut unsent = self.unsent.lock();
        send(socket, &mut unsent)?;
        let mut client = self.client.lock();
        let count = client.writer().write(&bytes[..bytes.len().min(16 << 10)])?;
        while client.wants_write() {
            client.write_tls(&mut *unsent)?;
        }
        drop(client);
        match send(socket, &mut unsent) {
            // It goes out with the next write.
            Err(error) if error.kind() == WouldBlock && count > 0 => {}
            result => result?,
        }
        Ok(count)
    }
}

fn send(socket: &TcpStream, unsent: &mut Vec<u8>) -> io::Result<()> {
    while !unsent.is_empty() {
        let count = (&*socket).write(unsent)?;
        unsent.drain(..count);
    }
    Ok(())
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(InvalidData, error)
}
