//! TLS in the server: certificates and names, who gets through the handshake and who does not, and what requests tell of it.
//! That the promises hold over it is in `tests/over_tls.rs`.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::tls::{HOST, IDENTITY, Identity, TlsWire};
use common::{
    DEADLINE, Echo, Folder, Guest, Raw, answer, client_frame, get, header, serve, start, status,
    upgrade_request, wait_until,
};
use parking_lot::Mutex;
use rustls::crypto::CipherSuiteCommon;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::{ClientConfig, ServerConfig, SupportedCipherSuite, Tls12CipherSuite};
use rwf::controller::Websocket;
use rwf::http::{Route, Server, ServerHandle, Tls};
use rwf::prelude::*;
use rwf::stats::Refusal;

/// Tells what is said about a request.
fn whoami(request: &Request) -> Result<Response, Error> {
    let certificate = request.client_certificate();
    Ok(Response::new().text(format!(
        "secure={} subject={:?} name={:?}",
        request.is_secure(),
        certificate.and_then(|certificate| certificate.subject()),
        certificate.and_then(|certificate| certificate.common_name()),
    )))
}

fn routes() -> Vec<Route> {
    vec![route!("/" => whoami), route!("/echo" => Echo)]
}

fn server(tls: Tls) -> ServerHandle {
    start(Server::new(routes()).tls(tls))
}

fn connect(server: &ServerHandle, config: ClientConfig, name: &'static str) -> io::Result<Raw> {
    let wire = TlsWire::connect_with(server.local_addr(), Arc::new(config), name)?;
    wire.shake_hands()?;
    Ok(wire.into())
}

fn open(address: SocketAddr, path: &str) -> Raw {
    let mut raw = Raw::from(TlsWire::connect(address).unwrap());
    let (head, _) = raw.ask(&upgrade_request(path, ""));
    assert_eq!(status(&head), 101, "{head}");
    raw
}

/// Tells how its connections ended.
fn ends() -> (Route, Receiver<(u16, String)>) {
    let (sender, ends) = channel();
    let sender = Mutex::new(sender);
    let endpoint = move |mut socket: Socket| {
        socket.iter().for_each(drop);
        let closed = socket.closed();
        let end = closed.map(|closed| (closed.code.into(), closed.reason.to_string()));
        sender.lock().send(end.unwrap_or_default())?;
        Ok(())
    };
    (route!("/" => websocket(endpoint)), ends)
}

#[test]
fn both_versions_are_spoken_with_alpn_and_tickets_that_spare_the_whole_handshake() {
    let server = server(IDENTITY.tls());
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = Arc::new(IDENTITY.client_of(&[version]));
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let wire =
                TlsWire::connect_with(server.local_addr(), Arc::clone(&config), HOST).unwrap();
            wire.shake_hands().unwrap();
            let mut raw = Raw::from(wire);
            let (head, body) = raw.ask(&get("/"));
            assert_eq!((status(&head), body.starts_with("secure=true")), (200, true), "{body}");
            let client = raw.stream.tls().client.lock();
            assert_eq!(client.protocol_version(), Some(version.version));
            assert_eq!(client.alpn_protocol(), Some(&b"http/1.1"[..]));
            kinds.push(client.handshake_kind());
        }
        let kinds = kinds.into_iter().flatten().collect::<Vec<_>>();
        let expected = [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed];
        assert_eq!(kinds, expected, "{version:?}");
    }
    let mut config = IDENTITY.client();
    config.alpn_protocols = vec![b"h2".to_vec()];
    assert!(connect(&server, config, HOST).is_err(), "a client that speaks h2 alone got in");
    let mut config = IDENTITY.client();
    config.alpn_protocols = Vec::new();
    connect(&server, config, HOST).expect("a client without ALPN gets in");
}

#[test]
fn a_name_has_its_own_certificate_and_others_get_the_first() {
    let chat = Identity::new(&["chat.example"]);
    let folder = Folder::new();
    let certificate = folder.write("chat.pem", &chat.certificate_pem);
    let key = folder.write("chat.key", &chat.key_pem);
    let tls = IDENTITY.tls().name("chat.EXAMPLE", &certificate, &key);
    let server = server(tls.unwrap());
    connect(&server, chat.client(), "chat.example").unwrap();
    connect(&server, IDENTITY.client(), HOST).unwrap();
    let error = connect(&server, chat.client(), "other.example").unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");

    let error = IDENTITY.tls().name("other.example", &certificate, &key).unwrap_err().to_string();
    assert!(error.contains("chat.pem") && error.contains("not for other.example"), "{error}");
}

#[test]
fn a_name_that_no_client_asks_for_is_an_error_that_says_what_to_write_instead() {
    let names = [
        "127.0.0.1",
        "::1",
        "localhost.",
        "",
        "*.example",
        "bücher.example",
        "a host",
        "host:443",
        "https://host",
    ];
    let identity = Identity::new(&["localhost", "127.0.0.1"]);
    let folder = Folder::new();
    let certificate = folder.write("chat.pem", &identity.certificate_pem);
    let key = folder.write("chat.key", &identity.key_pem);
    let expected = [
        "ask for no name",
        "ask for no name",
        "write \"localhost\"",
        "it is empty",
        "each of them by itself",
        "`xn--…`",
        "the host alone",
        "the host alone",
        "the host alone",
    ];
    for (name, expected) in names.iter().zip(expected) {
        let error = IDENTITY.tls().name(*name, &certificate, &key).unwrap_err().to_string();
        let says = error.contains("`tls`") && error.contains(&format!("{name:?}"));
        assert!(says && error.contains(expected), "{name:?}: {error}");
    }
    let tls = IDENTITY.tls().name("localhost", &certificate, &key).unwrap();
    let error = tls.name("LocalHost", &certificate, &key).unwrap_err().to_string();
    assert!(error.contains("two certificates") && error.contains("\"localhost\""), "{error}");
}

/// A key of a curve that is not taken.
const P521_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIHuAgEAMBAGByqGSM49AgEGBSuBBAAjBIHWMIHTAgEBBEIBloo3DcWt1GwME+D5
dUkApu2rDDz/1j42ejXjEPaMqPQ+pREZ6kxr3qn2uyUkCCYzJVWk2Y0xCDP6xYJK
qndVBjChgYkDgYYABAFLUaoK5ZHttq6vyHfWpsCu4XzMIBhRERl4VcdgalMA84a3
UD6mMK4g7+XSFJvqAnGc9d18ZcL9fRUy6l7C8m1JkgG0+aNDxxqlCpiFm5Kt14jc
Ccn7BA3JBmvNm0puvErAwm2YveMVhO3LZNfniJ0LaMKYCEp8yhyoLBs+xfOxgFsm
mQ==
-----END PRIVATE KEY-----
";

/// What a PEM file holds, in bytes.
fn der(pem: &str) -> Vec<u8> {
    pem::from_buf(&mut pem.as_bytes()).unwrap().unwrap().1
}

#[test]
fn a_start_that_cannot_work_names_the_file_and_what_is_wrong_with_it() {
    let folder = Folder::new();
    let certificate = folder.write("cert.pem", &IDENTITY.certificate_pem);
    let key = folder.write("key.pem", &IDENTITY.key_pem);
    let other = folder.write("other.pem", Identity::new(&[HOST]).key_pem);
    let empty = folder.write("empty.pem", "");
    let broken =
        folder.write("broken.pem", "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----");
    let nonsense = folder
        .write("nonsense.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----");
    let encrypted = IDENTITY.key_pem.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let encrypted = folder.write("encrypted.pem", encrypted);
    let formerly_encrypted = IDENTITY
        .key_pem
        .replace("KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,5B72\n\n");
    let formerly_encrypted = folder.write("formerly.pem", formerly_encrypted);
    let p521 = folder.write("p521.pem", P521_KEY);
    let marked_certificate =
        folder.write("marked.pem", format!("\u{feff}{}", IDENTITY.certificate_pem));
    let marked_key = folder.write("marked.key", format!("\u{feff}{}", IDENTITY.key_pem));
    let der_certificate = folder.write("cert.der", der(&IDENTITY.certificate_pem));
    let der_key = folder.write("key.der", der(&IDENTITY.key_pem));
    let missing = folder.0.join("missing.pem");
    for (certificate, key, file, reason) in [
        (&missing, &key, "missing.pem", "No such file"),
        (&certificate, &missing, "missing.pem", "No such file"),
        (&empty, &key, "empty.pem", "no certificate"),
        (&key, &key, "key.pem", "no certificate"),
        (&broken, &key, "broken.pem", "base64"),
        (&nonsense, &key, "nonsense.pem", "invalid peer certificate"),
        (&certificate, &empty, "empty.pem", "no private key"),
        (&certificate, &certificate, "cert.pem", "no private key"),
        (&certificate, &encrypted, "encrypted.pem", "encrypted"),
        (&certificate, &formerly_encrypted, "formerly.pem", "encrypted"),
        (&certificate, &p521, "p521.pem", "P-256 or P-384"),
        (&marked_certificate, &key, "marked.pem", "byte order mark"),
        (&certificate, &marked_key, "marked.key", "byte order mark"),
        (&der_certificate, &key, "cert.der", "`-inform DER`"),
        (&certificate, &der_key, "key.der", "`-inform DER`"),
        (&certificate, &other, "other.pem", "not the key of the certificate in"),
    ] {
        let error = Tls::files(certificate, key).unwrap_err().to_string();
        let has_all = error.contains(file) && error.contains(reason);
        assert!(has_all, "expected {file:?} and {reason:?}: {error}");
    }
    let error = IDENTITY.tls().require_client_certificates(&empty).unwrap_err().to_string();
    assert!(error.contains("empty.pem") && error.contains("no certificate"), "{error}");
}

#[test]
fn certificates_are_read_again_for_new_connections_and_a_failure_keeps_the_old_ones() {
    let folder = Folder::new();
    let certificate = folder.write("cert.pem", &IDENTITY.certificate_pem);
    let key = folder.write("key.pem", &IDENTITY.key_pem);
    let server = server(Tls::files(&certificate, &key).unwrap());
    let mut before = open(server.local_addr(), "/echo");

    let renewed = Identity::new(&[HOST]);
    fs::write(&certificate, &renewed.certificate_pem).unwrap();
    let error = server.reload_tls().unwrap_err().to_string();
    assert!(error.contains("key.pem") && error.contains("not the key"), "{error}");
    connect(&server, IDENTITY.client(), HOST).expect("the old certificate is kept");

    fs::write(&key, &renewed.key_pem).unwrap();
    server.reload_tls().unwrap();
    connect(&server, renewed.client(), HOST).expect("the new certificate is used");
    connect(&server, IDENTITY.client(), HOST).expect_err("the old one is used");
    before.send_text("still here");
    assert_eq!(before.text_frame(), "still here", "a connection that is open stays");

    let plain = serve(routes()).reload_tls().unwrap_err().to_string();
    assert!(plain.contains("`tls` is not set"), "{plain}");
}

#[test]
fn a_configuration_of_the_programs_own_is_used_as_it_is() {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PemObject::from_pem_slice(IDENTITY.key_pem.as_bytes());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![IDENTITY.certificate.clone()], key.unwrap())
        .unwrap();
    let server = server(Tls::config(config.clone()));
    connect(&server, IDENTITY.client(), HOST).unwrap();
    let old = IDENTITY.client_of(&[&rustls::version::TLS12]);
    connect(&server, old, HOST).expect_err("it is for TLS 1.3 alone");
    let error = server.reload_tls().unwrap_err().to_string();
    assert!(error.contains("no files to read again"), "{error}");
    let error = Tls::config(config.clone()).name(HOST, "a", "b").unwrap_err().to_string();
    assert!(error.contains("of the program's own"), "{error}");

    let [mut unfit, mut early] = [config.clone(), config];
    unfit.max_fragment_size = Some(1);
    early.max_early_data_size = 1000;
    for (config, reason) in [(unfit, "`tls` cannot work"), (early, "takes early data")] {
        let server = Server::new(routes()).tls(Tls::config(config)).bind("127.0.0.1:0");
        let error = server.spawn().unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

/// An authority, and how it signs.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { certificate, issuer: rcgen::Issuer::new(params, key) }
    }

    /// A client with a certificate for these common names.
    fn client(&self, names: &[&str]) -> ClientConfig {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Example, Inc.");
        for name in names {
            params.distinguished_name.push(rcgen::DnType::CommonName, *name);
        }
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(IDENTITY.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)
            .unwrap()
    }
}

#[test]
fn a_client_certificate_says_who_comes_and_nobody_comes_without_where_it_is_required() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let folder = Folder::new();
    let authorities = folder.write("clients.pem", authority.certificate.pem());
    let required = server(IDENTITY.tls().require_client_certificates(&authorities).unwrap());
    let allowed = server(IDENTITY.tls().allow_client_certificates(&authorities).unwrap());
    let ask = |server, config| -> io::Result<String> {
        let mut raw = connect(server, config, HOST)?;
        raw.stream.write_all(get("/").as_bytes())?;
        // In TLS 1.3 a client learns of a refusal when it reads.
        match raw.try_head()? {
            Some(head) => {
                let length = header(&head, "content-length").unwrap().parse().unwrap();
                Ok(String::from_utf8(raw.take(length)).unwrap())
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    };
    for server in [&required, &allowed] {
        let anna = ask(server, authority.client(&["anna"])).unwrap();
        assert!(anna.contains(r"CN=anna,O=Example\\, Inc."), "{anna}");
        assert!(anna.ends_with(r#"name=Some("anna")"#), "{anna}");
        ask(server, stranger.client(&["anna"])).expect_err("anybody can be an authority");
    }
    ask(&required, IDENTITY.client()).expect_err("it got in without a certificate");
    let nobody = ask(&allowed, IDENTITY.client()).unwrap();
    assert_eq!(nobody, "secure=true subject=None name=None");

    // A session that came back by a ticket would go on when its certificate has expired.
    let config = Arc::new(authority.client(&["ben"]));
    for _ in 0..2 {
        let wire = TlsWire::connect_with(required.local_addr(), Arc::clone(&config), HOST).unwrap();
        let mut raw = Raw::from(wire);
        let (_, body) = raw.ask(&get("/"));
        assert!(body.contains("CN=ben"), "{body}");
        let client = raw.stream.tls().client.lock();
        assert_eq!(client.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}

#[test]
fn a_request_over_tls_is_secure_with_its_cookie_and_pages_over_http_are_foreign() {
    let server = server(IDENTITY.tls());
    let cookie_of = |raw: &mut Raw, origin: &str| {
        let headers = format!("Origin: {origin}\r\n");
        let (head, _) = raw.ask(&upgrade_request("/echo", &headers));
        (status(&head), header(&head, "set-cookie").map(str::to_owned))
    };
    let tls = || Raw::from(TlsWire::connect(server.local_addr()).unwrap());
    let (code, cookie) = cookie_of(&mut tls(), "https://localhost");
    assert_eq!(code, 101);
    assert!(cookie.as_ref().is_some_and(|cookie| cookie.contains("; Secure")), "{cookie:?}");
    assert_eq!(cookie_of(&mut tls(), "http://localhost").0, 403, "a page over http");

    let plain = serve(routes());
    let (code, cookie) = cookie_of(&mut Raw::connect(plain.local_addr()), "http://localhost");
    assert!(code == 101 && cookie.is_some_and(|cookie| !cookie.contains("Secure")));
}

#[test]
fn plain_http_on_the_tls_port_is_answered_with_400_in_plain_text() {
    let server = server(IDENTITY.tls());
    let mut raw = Raw::connect(server.local_addr());
    let (head, body) = raw.ask(&get("/"));
    assert_eq!(status(&head), 400, "{head}");
    assert!(body.contains("https://") && body.contains("wss://"), "{body}");
    raw.expect_end();
    // It need not send the whole head.
    let mut raw = Raw::connect(server.local_addr());
    raw.send(b"P");
    assert_eq!(status(&raw.head()), 400);
    assert_eq!(server.stats().refused_for(Refusal::Tls), 2);
}

#[test]
fn tls_on_a_plain_port_is_closed_without_an_answer() {
    let server = serve(routes());
    let wire =
        TlsWire::connect_with(server.local_addr(), Arc::new(IDENTITY.client()), HOST).unwrap();
    let error = (&wire).write(b"GET").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
    wait_until("it is counted", || server.stats().refused_for(Refusal::Tls) == 1);
    // A byte like that in a body is none.
    let mut raw = Raw::connect(server.local_addr());
    raw.send(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\n");
    thread::sleep(Duration::from_millis(20));
    raw.send(&[22, 3, 1]);
    assert_eq!(status(&raw.response().0), 404);
}

#[test]
fn one_who_is_refused_for_want_of_room_costs_no_handshake() {
    let server = start(Server::new(routes()).tls(IDENTITY.tls()).max_connections(1));
    let _only = open(server.local_addr(), "/echo");
    let refused = connect(&server, IDENTITY.client(), HOST).unwrap_err();
    assert!(!matches!(refused.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock));
    assert_eq!(server.stats().refused_for(Refusal::MaxConnections), 1);
}

#[test]
fn handshake_and_head_share_one_deadline() {
    let open_timeout = Duration::from_millis(400);
    let server = start(Server::new(routes()).tls(IDENTITY.tls()).open_timeout(open_timeout));
    let hello = {
        let name = rustls::pki_types::ServerName::try_from(HOST).unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(IDENTITY.client()), name).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        hello
    };
    let until_the_end = |mut stream: TcpStream, mut send: Box<dyn FnMut(&mut TcpStream)>| {
        let began = Instant::now();
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        loop {
            assert!(began.elapsed() < DEADLINE, "it is still open");
            send(&mut stream);
            match stream.read(&mut [0; 4096]) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return began.elapsed(),
            }
        }
    };
    let connect = || TcpStream::connect(server.local_addr()).unwrap();
    let mut bytes = hello.clone().into_iter();
    let trickle = move |stream: &mut TcpStream| {
        let _ = stream.write(&[bytes.next().unwrap_or_default()]);
    };
    let mut rest = Some(hello);
    let half = move |stream: &mut TcpStream| {
        let _ = stream.write(&rest.take().unwrap_or_default());
    };
    for (what, send) in [
        ("silent", Box::new(|_: &mut TcpStream| {}) as Box<dyn FnMut(&mut TcpStream)>),
        ("a byte now and then", Box::new(trickle)),
        ("half a handshake", Box::new(half)),
    ] {
        let took = until_the_end(connect(), send);
        assert!(took >= open_timeout && took < 10 * open_timeout, "{what}: {took:?}");
    }
    // The handshake is done, and the head takes too long.
    let wire = TlsWire::connect(server.local_addr()).unwrap();
    let began = Instant::now();
    let mut raw = Raw::from(wire);
    for byte in get("/").bytes() {
        if raw.stream.write_all(&[byte]).is_err() || !raw.is_quiet_for(Duration::from_millis(50)) {
            break;
        }
    }
    assert_eq!(raw.try_head().unwrap().map(|head| status(&head)), Some(408));
    assert!(began.elapsed() < 10 * open_timeout, "{:?}", began.elapsed());
}

#[test]
fn a_goodbye_comes_after_the_close_frame_and_an_end_without_one_is_abnormal() {
    let (route, ends) = ends();
    let server = start(Server::new(vec![route]).tls(IDENTITY.tls()));
    // `expect_end` fails where the server's goodbye is missing.
    let mut polite = open(server.local_addr(), "/");
    polite.send_close(1000, "bye");
    assert_eq!(polite.close_frame().0, 1000);
    polite.stream.say_goodbye();
    polite.expect_end();
    assert_eq!(ends.recv_timeout(DEADLINE).unwrap().0, 1000);

    // No goodbye after the close frame: the closing handshake is what counts.
    let mut short = open(server.local_addr(), "/");
    short.send_close(1000, "bye");
    assert_eq!(short.close_frame().0, 1000);
    drop(short);
    assert_eq!(ends.recv_timeout(DEADLINE).unwrap().0, 1000);

    // A goodbye, or nothing, without a close frame, also in the middle of a record.
    for case in 0..3 {
        let mut rude = open(server.local_addr(), "/");
        match case {
            0 => rude.stream.say_goodbye(),
            1 => rude.stream.shutdown(Shutdown::Write).unwrap(),
            _ => {
                let mut socket = rude.stream.tcp();
                socket.write_all(&[23, 3, 3, 0, 99, 1, 2, 3]).unwrap();
                socket.shutdown(Shutdown::Write).unwrap();
            }
        }
        assert_eq!(ends.recv_timeout(DEADLINE).unwrap().0, 1006, "case {case}");
        rude.expect_end();
    }
}

#[test]
fn the_goodbye_leaves_time_to_answer_the_close_first() {
    fn leave(_: Socket) -> Result<(), Error> {
        Ok(())
    }
    let routes = vec![route!("/leave" => websocket(leave)), route!("/echo" => Echo)];
    let server = start(
        Server::new(routes).websocket(Websocket::new().max_message_size(1000)).tls(IDENTITY.tls()),
    );
    for (path, code) in [("/leave", 1000), ("/echo", 1009)] {
        let mut raw = open(server.local_addr(), path);
        if code == 1009 {
            raw.send(&client_frame(0x82, &[0; 1001]));
        }
        assert_eq!(raw.close_frame().0, code);
        raw.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let read = raw.stream.read(&mut [0; 100]);
        let kind = read.expect_err("the goodbye comes before the answer").kind();
        assert!(matches!(kind, io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{kind:?}");
        raw.stream.set_read_timeout(Some(DEADLINE)).unwrap();
        raw.send_close(code, "");
        let began = Instant::now();
        raw.expect_end();
        let took = began.elapsed();
        assert!(took < Duration::from_secs(2), "{path}: the goodbye took {took:?}");
        drop(raw);
        wait_until("it is over", || server.connections().is_empty());
    }
    let report = server.shutdown().unwrap();
    assert_eq!((report.cut, report.running), (0, 0), "{report:?}");
}

#[test]
fn an_idle_connection_ends_with_a_goodbye() {
    let idle = Duration::from_millis(50);
    let server = start(Server::new(routes()).tls(IDENTITY.tls()).idle_timeout(idle));
    let mut raw = Raw::from(TlsWire::connect(server.local_addr()).unwrap());
    assert_eq!(status(&raw.ask(&get("/")).0), 200);
    raw.expect_end();
}

#[test]
fn what_is_no_tls_ends_its_connection_alone() {
    let (route, ends) = ends();
    let server = start(Server::new(vec![route, route!("/echo" => Echo)]).tls(IDENTITY.tls()));
    let mut healthy = open(server.local_addr(), "/echo");
    let mut random = common::Random::new(13);
    let mut refused = 0;
    for round in 0..60 {
        let mut stream = TcpStream::connect(server.local_addr()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let length = 1 + random.below(400);
        let mut garbage: Vec<_> = (0..length).map(|_| random.number() as u8).collect();
        // Every third begins like a handshake, and none like a request.
        garbage[0] = if round % 3 == 0 { 22 } else { 128 | garbage[0] };
        if round % 3 == 0 && length > 2 {
            (garbage[1], garbage[2]) = (3, 1);
        }
        let _ = stream.write_all(&garbage);
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
        refused += 1;
    }
    assert_eq!(refused, 60);

    // In the middle of a WebSocket: a record that cannot be opened.
    let rude = open(server.local_addr(), "/");
    rude.stream.tcp().write_all(&[23, 3, 3, 0, 20]).unwrap();
    rude.stream.tcp().write_all(&[7; 20]).unwrap();
    let (code, reason) = ends.recv_timeout(DEADLINE).unwrap();
    assert!(code == 1006 && reason.contains("cannot read"), "{code} {reason}");
    healthy.send_text("still here");
    assert_eq!(healthy.text_frame(), "still here");
}

#[test]
fn records_of_one_byte_each_bring_the_same_messages() {
    let server = server(IDENTITY.tls());
    let mut config = IDENTITY.client();
    // The smallest there is: a few bytes of plaintext in each.
    config.max_fragment_size = Some(32);
    let mut raw = connect(&server, config, HOST).unwrap();
    let (head, _) = raw.ask(&upgrade_request("/echo", ""));
    assert_eq!(status(&head), 101, "{head}");
    let long = "tiny ".repeat(2000);
    raw.send_text(&long);
    assert_eq!(raw.text_frame(), long);
    for byte in client_frame(0x81, b"byte by byte") {
        raw.send(&[byte]);
    }
    assert_eq!(raw.text_frame(), "byte by byte");
}

#[test]
fn a_client_that_asks_for_new_keys_is_served_and_one_that_does_nothing_else_is_not() {
    let (route, ends) = ends();
    let server = start(Server::new(vec![route, route!("/echo" => Echo)]).tls(IDENTITY.tls()));
    let refresh = |raw: &Raw| {
        let tls = raw.stream.tls();
        tls.client.lock().refresh_traffic_keys().unwrap();
    };
    let mut honest = open(server.local_addr(), "/echo");
    for number in 0..100 {
        refresh(&honest);
        honest.send_text(&number.to_string());
        assert_eq!(honest.text_frame(), number.to_string());
    }
    let mut flooding = open(server.local_addr(), "/");
    let deadline = Instant::now() + DEADLINE;
    while ends.try_recv().is_err() {
        assert!(Instant::now() < deadline, "it may ask for new keys without end");
        refresh(&flooding);
        let _ = flooding.stream.write(&[]);
    }
    honest.send_text("still here");
    assert_eq!(honest.text_frame(), "still here");
}

#[test]
fn a_flood_of_new_keys_while_the_client_takes_nothing_loses_no_message() {
    let server = server(IDENTITY.tls());
    let guest = Guest::new();
    let mut raw = Raw::from(TlsWire::connect(server.local_addr()).unwrap());
    let (head, _) = raw.ask(&upgrade_request("/echo", &guest.cookie()));
    assert_eq!(status(&head), 101);
    let long = vec![7; 256 << 10];
    let mut sent = 0;
    while Comms::websocket(guest).is_connected()
        && server.comms().websocket(guest.session()).send(&*long) == Ok(1)
    {
        sent += 1;
        let tls = raw.stream.tls();
        tls.client.lock().refresh_traffic_keys().unwrap();
        raw.send_frame(0x8a, b"alive");
        if sent == 12 {
            break;
        }
    }
    for number in 0..sent {
        let frame = raw.frame();
        assert_eq!((frame.first, frame.payload.len()), (0x82, long.len()), "message {number}");
    }
}

#[test]
fn the_header_of_a_proxy_comes_before_the_handshake() {
    let peer = |request: &Request| {
        Ok(Response::new().text(format!("{} secure={}", request.peer(), request.is_secure())))
    };
    let server = Server::new(vec![route!("/" => peer)]).tls(IDENTITY.tls());
    let server = start(server.proxy_protocol(std::net::Ipv4Addr::LOCALHOST));
    let wire = TlsWire::connect_with(server.local_addr(), Arc::new(IDENTITY.client()), HOST);
    let wire = wire.unwrap();
    (&wire.socket).write_all(b"PROXY TCP4 192.0.2.7 198.51.100.1 12345 443\r\n").unwrap();
    wire.shake_hands().unwrap();
    let mut raw = Raw::from(wire);
    for _ in 0..2 {
        assert_eq!(raw.ask(&get("/")).1, "192.0.2.7:12345 secure=true");
    }
    connect(&server, IDENTITY.client(), HOST).expect_err("it got in without the header");
}

/// TLS of a program's own whose keys are good for so many records of TLS 1.2: with AES-GCM it is 16,777,216.
fn good_for(records: u64) -> Tls {
    let mut provider = rustls::crypto::ring::default_provider();
    for suite in &mut provider.cipher_suites {
        if let SupportedCipherSuite::Tls12(usual) = *suite {
            let common = CipherSuiteCommon {
                suite: usual.common.suite,
                hash_provider: usual.common.hash_provider,
                confidentiality_limit: records,
            };
            let limited = Tls12CipherSuite {
                common,
                prf_provider: usual.prf_provider,
                kx: usual.kx,
                sign: usual.sign,
                aead_alg: usual.aead_alg,
            };
            *suite = SupportedCipherSuite::Tls12(Box::leak(Box::new(limited)));
        }
    }
    let key = PrivateKeyDer::from_pem_slice(IDENTITY.key_pem.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![IDENTITY.certificate.clone()], key);
    Tls::config(config.unwrap())
}

#[test]
fn a_connection_whose_keys_are_used_up_ends_whoever_writes_and_keeps_no_thread_busy() {
    fn slow_echo(mut socket: Socket) -> Result<(), Error> {
        while let Some(message) = socket.recv()? {
            socket.send(message)?;
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
    fn ticker(mut socket: Socket) -> Result<(), Error> {
        socket.recv()?;
        while socket.send("tick").is_ok() {}
        socket.iter().for_each(drop);
        Ok(())
    }
    let routes = || {
        vec![
            route!("/page" => answer(|_| Ok(Response::new().text("page")))),
            route!("/ticker" => websocket(ticker)),
            route!("/slow" => websocket(slow_echo)),
        ]
    };
    let short = Duration::from_millis(500);
    for path in ["/page", "/ticker", "/slow"] {
        let server = Server::new(routes()).tls(good_for(100)).idle_timeout(short);
        let server = start(server.open_timeout(short));
        let config = IDENTITY.client_of(&[&rustls::version::TLS12]);
        let mut raw = connect(&server, config, HOST).unwrap();
        if path != "/page" {
            let (head, _) = raw.ask(&upgrade_request(path, ""));
            assert_eq!(status(&head), 101, "{head}");
            raw.send_text("begin");
        }
        let deadline = Instant::now() + DEADLINE;
        let mut received = Vec::new();
        let is_over = |received: &mut Vec<u8>, raw: &mut Raw| {
            // Several at once, so that the replies of the slow one wait for the watchdog.
            let asked = match path {
                "/page" => raw.stream.write_all(get(path).as_bytes()),
                "/slow" => raw.stream.write_all(&client_frame(0x81, b"x").repeat(3)),
                _ => Ok(()),
            };
            let mut buffer = [0; 4096];
            let read = raw.stream.read(&mut buffer);
            received.extend_from_slice(&buffer[..*read.as_ref().unwrap_or(&0)]);
            asked.is_err() || matches!(read, Ok(0) | Err(_))
        };
        while !is_over(&mut received, &mut raw) {
            assert!(Instant::now() < deadline, "{path}: it goes on without end");
        }
        assert!(received.len() > 100, "{path}: little has come: {received:?}");
        if path == "/ticker" {
            // No message that the client did not get counts as sent.
            let came = received.windows(6).filter(|six| six.ends_with(b"tick")).count() as u64;
            wait_until("its end is counted", || server.connections().is_empty());
            assert_eq!(server.stats().sent.messages, came);
        }
        wait_until(&format!("nobody is connected to {path}"), || server.connections().is_empty());
        let report = server.shutdown().unwrap();
        assert_eq!(report.running, 0, "{path}");
        assert!(Instant::now() < deadline, "{path}: the shutdown takes too long");
    }
}

#[test]
fn a_client_that_is_refused_learns_why_although_it_has_sent_more() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let folder = Folder::new();
    let authorities = folder.write("clients.pem", authority.certificate.pem());
    let server = server(IDENTITY.tls().require_client_certificates(&authorities).unwrap());
    let mut raw = connect(&server, stranger.client(&["anna"]), HOST).unwrap();
    // The server refuses it meanwhile: after a reset a write would fail.
    for _ in 0..10 {
        raw.stream.write_all(get("/").as_bytes()).expect("its connection is reset");
        thread::sleep(Duration::from_millis(5));
    }
    let told = loop {
        if let Err(error) = raw.stream.read(&mut [0; 100]) {
            break error.to_string();
        }
    };
    assert!(told.contains("received fatal alert"), "{told}");
}

#[test]
fn one_who_does_not_come_to_a_request_holds_its_place_no_longer_than_it_had_for_that() {
    let short = Duration::from_millis(200);
    let server = start(Server::new(routes()).tls(IDENTITY.tls()).open_timeout(short));
    for first in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[22, 9, 9, 0, 5, 1, 2, 3, 4, 5]] {
        let began = Instant::now();
        let mut client = TcpStream::connect(server.local_addr()).unwrap();
        client.write_all(first).unwrap();
        // What it is told, and then the end; it stays.
        client.read_to_end(&mut Vec::new()).unwrap();
        wait_until("its place is free", || server.stats().connections.now == 0);
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
}
