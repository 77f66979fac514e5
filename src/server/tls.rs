//! What a server needs for TLS: certificates and keys from files, the clients' certificates, and how to read them again.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::client::verify_server_name;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
    WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};

use crate::net::cryptography::provider;
use crate::net::tls;
use crate::server::error::Error;

/// The certificates of a server, with which it speaks TLS: `https` and `wss`. For [`Server::tls`](crate::http::Server::tls);
/// with the feature `tls`.
///
/// ```no_run
/// use rwf::http::{self, Server, Tls};
/// use rwf::prelude::*;
///
/// # fn chat(_: Socket) -> Result<(), Error> { Ok(()) }
/// fn main() -> Result<(), http::Error> {
///     let tls = Tls::files("fullchain.pem", "privkey.pem")?
///         .name("chat.example", "chat.pem", "chat-key.pem")?;
///     Server::new(vec![route!("/chat" => websocket(chat))]).bind("0.0.0.0:443").tls(tls).run()
/// }
/// ```
///
/// It is TLS 1.3 and 1.2, with ALPN `http/1.1`, and tickets by which clients come back without the whole handshake;
/// where clients show certificates there are no tickets, so that each handshake looks at them.
///
/// The cryptography is that of `ring`, or what the program has chosen for its whole process
/// ([`CryptoProvider::install_default`](rustls::crypto::CryptoProvider::install_default)) before it makes this.
///
/// The files are read once, and again when the server is told to: by SIGHUP under [`run`](crate::http::Server::run), by
/// [`reload_tls`](crate::http::ServerHandle::reload_tls) under [`spawn`](crate::http::Server::spawn). Connections that are open
/// keep what they have. Where a file is missing or wrong, everything stays as it was, and the log says why.
#[doc(alias("https", "wss", "ssl"))]
#[derive(Debug, Clone)]
pub struct Tls {
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    Files(Files),
    Program(Arc<ServerConfig>),
}

/// Where everything stands, and what was read there.
#[derive(Debug, Clone)]
struct Files {
    default: Pair,
    named: Vec<(String, Pair)>,
    clients: Option<Clients>,
}

/// A certificate with its chain, and its key.
#[derive(Debug, Clone)]
struct Pair {
    certificates: PathBuf,
    key: PathBuf,
    certified: Arc<CertifiedKey>,
}

/// Whose certificates are taken of clients.
#[derive(Debug, Clone)]
struct Clients {
    authorities: PathBuf,
    may_have_none: bool,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl Tls {
    /// A certificate, followed by those that lead to its authority, and its private key, each in a PEM file: what Let's
    /// Encrypt calls `fullchain.pem` and `privkey.pem`. The key is not encrypted. It is one of ECDSA over P-256 or
    /// P-384, of Ed25519, or of RSA with 2,048 to 4,096 bits; other cryptography than `ring`'s may take more.
    ///
    /// # Errors
    ///
    /// A file cannot be read or holds something else, or the key is another certificate's: the error names the file.
    pub fn files(certificates: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self, Error> {
        let default = Pair::read(certificates.into(), key.into())?;
        Ok(Files { default, named: Vec::new(), clients: None }.into())
    }

    /// A further certificate, for the clients that ask for the host `name` (SNI). All others get the first one, and so do
    /// those that connect to an IP address, who ask for no name. Each host of a certificate for several, or for `*.example`, is
    /// named by itself.
    ///
    /// # Errors
    ///
    /// As for [`files`](Self::files), or no client could ask for that name, or it has a certificate already, or this one is not
    /// for it; and for [`config`](Self::config), which has a way of its own.
    pub fn name(
        self,
        name: impl Into<String>,
        certificates: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, Error> {
        let mut files = self.into_files("name")?;
        let name = asked_name(&name.into())?;
        if files.named.iter().any(|(other, _)| *other == name) {
            return Err(setting(format!(
                "has two certificates for the name {name:?}; leave one out"
            )));
        }
        let pair = Pair::read(certificates.into(), key.into())?;
        pair.check_name(&name)?;
        files.named.push((name, pair));
        Ok(files.into())
    }

    /// Takes only clients that show a certificate of one of the authorities in this PEM file:
    /// [`Request::client_certificate`](crate::http::Request::client_certificate) tells whose. Others do not get through the
    /// handshake. Who leaves keeps a connection that is open, and comes in again as long as the certificate is valid: lists of
    /// revoked ones take a [`config`](Self::config).
    ///
    /// # Errors
    ///
    /// The file cannot be read or holds no certificate; and for [`config`](Self::config), which has a way of its own.
    pub fn require_client_certificates(
        self,
        authorities: impl Into<PathBuf>,
    ) -> Result<Self, Error> {
        self.clients(authorities.into(), false)
    }

    /// Like [`require_client_certificates`](Self::require_client_certificates), but takes clients without a certificate too.
    /// A wrong one is not taken.
    ///
    /// # Errors
    ///
    /// As for [`require_client_certificates`](Self::require_client_certificates).
    pub fn allow_client_certificates(self, authorities: impl Into<PathBuf>) -> Result<Self, Error> {
        self.clients(authorities.into(), true)
    }

    fn clients(self, authorities: PathBuf, may_have_none: bool) -> Result<Self, Error> {
        let mut files = self.into_files("client certificates")?;
        files.clients = Some(Clients::read(authorities, may_have_none)?);
        Ok(files.into())
    }

    /// A configuration of the program's own, for what the files do not give: other ciphers, certificates from elsewhere, lists
    /// of revoked clients. It is used as it is; give it ALPN `http/1.1`, and a ticketer.
    ///
    /// Code of the program in it, such as a resolver of certificates, runs on the connection's thread. Nothing else is
    /// sent or received on that connection meanwhile, so it must not send there itself.
    ///
    /// ```
    /// use rwf::http::Tls;
    /// use rwf::rustls::{self, ServerConfig};
    /// use rwf::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    ///
    /// fn modern(
    ///     certificate: CertificateDer<'static>,
    ///     key: PrivateKeyDer<'static>,
    /// ) -> Result<Tls, rustls::Error> {
    ///     let provider = rustls::crypto::ring::default_provider();
    ///     let mut config = ServerConfig::builder_with_provider(provider.into())
    ///         .with_protocol_versions(&[&rustls::version::TLS13])?
    ///         .with_no_client_auth()
    ///         .with_single_cert(vec![certificate], key)?;
    ///     config.alpn_protocols = vec![b"http/1.1".to_vec()];
    ///     Ok(Tls::config(config))
    /// }
    /// # let _ = modern;
    /// ```
    #[must_use]
    pub fn config(config: impl Into<Arc<ServerConfig>>) -> Self {
        Self { source: Source::Program(config.into()) }
    }

    fn into_files(self, what: &str) -> Result<Files, Error> {
        match self.source {
            Source::Files(files) => Ok(files),
            Source::Program(_) => Err(setting(format!(
                "has a configuration of the program's own, which has to have the {what} too"
            ))),
        }
    }
}

impl From<Files> for Tls {
    fn from(files: Files) -> Self {
        Self { source: Source::Files(files) }
    }
}

/// The TLS of a running server.
#[derive(Debug)]
pub(crate) struct TlsConfig {
    source: Source,
    /// For the connections to come.
    current: Mutex<Arc<ServerConfig>>,
}

impl TlsConfig {
    /// # Errors
    ///
    /// No connection could begin with it.
    pub(crate) fn new(Tls { source }: Tls) -> Result<Self, Error> {
        let config = match &source {
            Source::Files(files) => files.config()?,
            Source::Program(config) if config.max_early_data_size > 0 => {
                let reason = "has a configuration that takes early data, which nobody would read; \
                              leave `max_early_data_size` at 0";
                return Err(setting(reason.to_owned()));
            }
            Source::Program(config) => Arc::clone(config),
        };
        let this = Self { source, current: Mutex::new(config) };
        this.begin().map_err(|error| setting(format!("cannot work: {error}")))?;
        Ok(this)
    }

    /// TLS for a new connection.
    pub(crate) fn begin(&self) -> io::Result<tls::Tls> {
        let config = Arc::clone(&self.current.lock());
        tls::Tls::new(config).map_err(io::Error::other)
    }

    /// Whether it can be [reloaded](Self::reload).
    pub(crate) fn has_files(&self) -> bool {
        matches!(self.source, Source::Files(_))
    }

    /// Reads all files again. Tickets that clients have from before bring them no further than a whole handshake, which
    /// looks at their certificates anew.
    pub(crate) fn reload(&self) -> Result<(), Error> {
        let Source::Files(files) = &self.source else {
            let reason = "has a configuration of the program's own, and no files to read again";
            return Err(setting(reason.to_owned()));
        };
        let config = files.read_again()?.config()?;
        let old = std::mem::replace(&mut *self.current.lock(), config);
        drop(old);
        Ok(())
    }
}

impl Files {
    fn read_again(&self) -> Result<Self, Error> {
        let mut named = Vec::new();
        for (name, pair) in &self.named {
            let pair = pair.read_again()?;
            pair.check_name(name)?;
            named.push((name.clone(), pair));
        }
        let clients = self.clients.as_ref();
        let clients = clients
            .map(|clients| Clients::read(clients.authorities.clone(), clients.may_have_none));
        Ok(Self { default: self.default.read_again()?, named, clients: clients.transpose()? })
    }

    fn config(&self) -> Result<Arc<ServerConfig>, Error> {
        let unfit = |error: rustls::Error| setting(format!("cannot work: {error}"));
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(unfit)?;
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => builder.with_client_cert_verifier(Arc::clone(&clients.verifier)),
        };
        let named = self.named.iter();
        let certificates = Certificates {
            default: Arc::clone(&self.default.certified),
            by_name: named.map(|(name, pair)| (name.clone(), pair.certified.clone())).collect(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(certificates));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Sessions are kept by the clients: no number of them takes memory here.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if self.clients.is_none() {
            config.ticketer = ring::Ticketer::new().map_err(unfit)?;
        } else {
            // Whoever came back with a ticket would not be asked for a certificate, which may have expired meanwhile.
            config.send_tls13_tickets = 0;
        }
        Ok(Arc::new(config))
    }
}

impl Pair {
    fn read(certificates: PathBuf, key: PathBuf) -> Result<Self, Error> {
        let chain = read_certificates(&certificates)?;
        let private = read_key(&key)?;
        let certified = CertifiedKey::from_der(chain, private, &provider());
        let certified = certified.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                let certificates = certificates.display();
                wrong(&key, &format!("it is not the key of the certificate in {certificates}"))
            }
            rustls::Error::InvalidCertificate(_) => wrong(&certificates, &error),
            // What a provider says of a key that it does not take.
            rustls::Error::General(reason) => wrong(
                &key,
                &format!(
                    "{reason}; take a key of ECDSA over P-256 or P-384, of Ed25519, or of RSA with \
                     2,048 to 4,096 bits"
                ),
            ),
            error => wrong(&key, &error),
        })?;
        Ok(Self { certificates, key, certified: Arc::new(certified) })
    }

    fn read_again(&self) -> Result<Self, Error> {
        Self::read(self.certificates.clone(), self.key.clone())
    }

    fn check_name(&self, name: &str) -> Result<(), Error> {
        let certificate = self.certified.end_entity_cert().and_then(ParsedCertificate::try_from);
        let asked =
            ServerName::try_from(name).map_err(|error| rustls::Error::General(error.to_string()));
        certificate
            .and_then(|certificate| verify_server_name(&certificate, &asked?))
            .map_err(|error| wrong(&self.certificates, &format!("it is not for {name}: {error}")))
    }
}

/// The name as clients ask for it.
///
/// # Errors
///
/// None does.
fn asked_name(name: &str) -> Result<String, Error> {
    let why = match ServerName::try_from(name) {
        Ok(ServerName::DnsName(_)) => match name.strip_suffix('.') {
            None => return Ok(name.to_ascii_lowercase()),
            Some(host) => format!("clients ask without the dot at its end: write {host:?}"),
        },
        Ok(ServerName::IpAddress(_)) => {
            "clients that connect to an address ask for no name: they get the certificate of \
             `Tls::files`, or what a `Tls::config` gives them"
                .to_owned()
        }
        _ if name.is_empty() => "it is empty: write the host's name".to_owned(),
        _ if name.starts_with("*.") => {
            "clients ask for one host: name each of them by itself, with the same certificate"
                .to_owned()
        }
        _ if !name.is_ascii() => "clients ask for it in ASCII: write it as `xn--…`".to_owned(),
        _ => "no host can have it: write the host alone, without scheme, port and path".to_owned(),
    };
    Err(setting(format!("has a certificate for the name {name:?}, and {why}")))
}

impl Clients {
    fn read(authorities: PathBuf, may_have_none: bool) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        for authority in read_certificates(&authorities)? {
            roots.add(authority).map_err(|error| wrong(&authorities, &error))?;
        }
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let builder = if may_have_none { builder.allow_unauthenticated() } else { builder };
        let verifier = builder.build().map_err(|error| wrong(&authorities, &error))?;
        Ok(Self { authorities, may_have_none, verifier })
    }
}

/// All certificates of a server, for clients that say which host they want, and for others.
#[derive(Debug)]
struct Certificates {
    default: Arc<CertifiedKey>,
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let named = name.and_then(|name| self.by_name.get(&name));
        Some(Arc::clone(named.unwrap_or(&self.default)))
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let content = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&content).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => {
            Err(wrong(path, &nothing_found("certificate", &content)))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(wrong(path, &error)),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let content = read(path)?;
    PrivateKeyDer::from_pem_slice(&content).map_err(|error| match error {
        // The second is how OpenSSL wrote it before PKCS #8.
        _ if contains(&content, b"ENCRYPTED PRIVATE KEY")
            || contains(&content, b"Proc-Type: 4,ENCRYPTED") =>
        {
            wrong(
                path,
                &"the private key in it is encrypted; put it there as `openssl pkey` writes it",
            )
        }
        pem::Error::NoItemsFound => wrong(path, &nothing_found("private key", &content)),
        error => wrong(path, &error),
    })
}

/// That there is no such thing in a file, and why, where that can be seen.
fn nothing_found(what: &str, content: &[u8]) -> String {
    const BYTE_ORDER_MARKS: [&[u8]; 3] = [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff"];
    let why = if BYTE_ORDER_MARKS.iter().any(|mark| content.starts_with(mark)) {
        ": it begins with a byte order mark; save it as plain ASCII"
    } else if content.first() == Some(&0x30) && !content.is_ascii() {
        ": it is DER; take PEM, which `openssl` makes of it with `-inform DER`"
    } else {
        ""
    };
    format!("no {what} is in it{why}")
}

fn contains(content: &[u8], text: &[u8]) -> bool {
    content.windows(text.len()).any(|window| window == text)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| wrong(path, &error))
}

fn wrong(file: &Path, reason: &impl ToString) -> Error {
    Error::TlsFile { file: file.to_owned(), reason: reason.to_string() }
}

fn setting(reason: String) -> Error {
    Error::Setting { name: "tls", reason }
}
