//! What the behaviour tests share: a server on a port of its own, a raw client, and waiting under a deadline.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(unreachable_pub, reason = "it is a module of each test")]

pub mod tls;
pub mod wire;

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rwf::http::{Route, Server, ServerHandle};
use rwf::prelude::*;
#[cfg(unix)]
use signal_hook::consts::SIGHUP;
use signal_hook::consts::{SIGINT, SIGTERM};

use self::tls::TlsWire;
pub use self::wire::Wire;
use self::wire::{own_loopback, try_start};

/// Nothing that works takes so long; what hangs fails with a message after it.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// A server for `routes` on a free port, shut down when dropped.
pub fn serve(routes: Vec<Route>) -> ServerHandle {
    start(Server::new(routes))
}

/// Starts `server` on a free port.
pub fn start(server: Server) -> ServerHandle {
    try_start(server, Ipv4Addr::LOCALHOST).unwrap()
}

/// The same where no stranger comes.
pub fn start_apart(server: Server) -> ServerHandle {
    try_start(server, own_loopback()).unwrap()
}

/// Starts `server` where it says.
pub fn spawn(server: Server) -> ServerHandle {
    wire::spawn(server).unwrap()
}

/// Waits until `condition` holds; fails with `what` when it does not within the deadline.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} in vain until {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// What `thread` returns, which is about to end; fails with `what` when it does not within the deadline.
#[track_caller]
pub fn join<T>(what: &str, thread: JoinHandle<T>) -> T {
    wait_until(&format!("{what} ends"), || thread.is_finished());
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A name of a file that no other test has.
pub fn unused_name() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    // Several of these modules may be in one process, each with a count of its own.
    let module = std::ptr::from_ref(&COUNT).addr();
    format!("rwf-{}-{module:x}-{number}", std::process::id())
}

/// A folder of its own for a test, removed when dropped.
#[derive(Debug)]
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        let path = std::env::temp_dir().join(unused_name());
        fs::create_dir(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }

    /// Writes a file, and the folders that it is in.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// A file of `length` zeros that takes no place on the disk.
    pub fn sparse(&self, name: &str, length: u64) -> PathBuf {
        let path = self.write(name, "");
        fs::File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Numbers at random, the same for the same seed: xorshift64*.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        // Zero would stay zero, and small seeds begin with small numbers.
        let mut random = Self(seed.wrapping_mul(2) | 1);
        for _ in 0..8 {
            random.number();
        }
        random
    }

    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound as u64) as usize
    }
}

/// Has SIGHUP, SIGINT and SIGTERM be neither ignored nor handled in processes that are started from here, even if this one has
/// inherited them as ignored, as in the background of a script: what is handled here is reset there.
pub fn have_default_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        #[cfg(unix)]
        let signals = [SIGHUP, SIGINT, SIGTERM];
        #[cfg(not(unix))]
        let signals = [SIGINT, SIGTERM];
        for signal in signals {
            let always = Arc::new(AtomicBool::new(true));
            signal_hook::flag::register_conditional_default(signal, always).unwrap();
        }
    });
}

/// Lets this process open as many descriptors as it may: shells give 1,024.
pub fn raise_descriptor_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// A client that sends just the bytes it is told to, and reads under a deadline.
#[derive(Debug)]
pub struct Raw {
    pub stream: Wire,
    received: Vec<u8>,
}

/// A frame as it came from the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub first: u8,
    pub payload: Vec<u8>,
}

impl Raw {
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address)
            .unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"))
    }

    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        Wire::connect(address).map(Self::from)
    }

    /// Connects and opens a WebSocket at `path`.
    pub fn open(address: SocketAddr, path: &str) -> Self {
        Self::open_with(address, path, "")
    }

    /// Opens a WebSocket with further header lines, each with its line end.
    pub fn open_with(address: SocketAddr, path: &str, headers: &str) -> Self {
        let mut raw = Self::connect(address);
        raw.send(upgrade_request(path, headers).as_bytes());
        let head = raw.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        raw
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends a whole masked frame: `first` is `0x81` for text, `0x82` for binary, `0x88` for close.
    pub fn send_frame(&mut self, first: u8, payload: &[u8]) {
        self.send(&client_frame(first, payload));
    }

    pub fn send_text(&mut self, text: &str) {
        self.send_frame(0x81, text.as_bytes());
    }

    pub fn send_close(&mut self, code: u16, reason: &str) {
        self.send_frame(0x88, &[&code.to_be_bytes(), reason.as_bytes()].concat());
    }

    /// Everything up to and with the empty line.
    pub fn head(&mut self) -> String {
        let end = loop {
            if let Some(at) = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.read_more(), "the stream ended in the head: {:?}", self.text());
        };
        String::from_utf8(self.received.drain(..end).collect()).unwrap()
    }

    /// A whole response: its head, and its body by `Content-Length`.
    pub fn response(&mut self) -> (String, String) {
        let head = self.head();
        let length = header(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let body = self.take(length);
        (head, String::from_utf8(body).unwrap())
    }

    /// Sends a request and waits for its response.
    pub fn ask(&mut self, request: &str) -> (String, String) {
        self.send(request.as_bytes());
        self.response()
    }

    /// Exactly `length` bytes.
    pub fn take(&mut self, length: usize) -> Vec<u8> {
        while self.received.len() < length {
            assert!(self.read_more(), "the stream ended early: {:?}", self.text());
        }
        self.received.drain(..length).collect()
    }

    /// The next frame; fails at the end of the stream.
    #[track_caller]
    pub fn frame(&mut self) -> Frame {
        let head = self.take(2);
        assert_eq!(head[1] & 0x80, 0, "servers do not mask");
        let length = match head[1] {
            126 => u16::from_be_bytes(self.take(2).try_into().unwrap()).into(),
            127 => u64::from_be_bytes(self.take(8).try_into().unwrap()),
            length => length.into(),
        };
        Frame { first: head[0], payload: self.take(usize::try_from(length).unwrap()) }
    }

    /// The head of a response, for clients that may be cut: `None` at the end of the stream, wherever that comes.
    pub fn try_head(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(at) = self.received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = self.received.drain(..at + 4).collect();
                return Ok(Some(String::from_utf8(head).unwrap()));
            }
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer)? {
                0 => return Ok(None),
                count => self.received.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// The next frame, for clients that may be cut: `None` at the end of the stream, wherever that comes. After an error
    /// for want of time it may be asked again.
    pub fn try_frame(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let received = self.received.as_slice();
            let (start, length) = match received {
                [_, 126, high, low, ..] => (4, u16::from_be_bytes([*high, *low]).into()),
                [_, 127, length @ ..] if length.len() >= 8 => {
                    (10, u64::from_be_bytes(length[..8].try_into().unwrap()).try_into().unwrap())
                }
                [_, length @ 0..=125, ..] => (2, usize::from(*length)),
                _ => (2, usize::MAX),
            };
            if received.len() - start.min(received.len()) >= length {
                let frame: Vec<_> = self.received.drain(..start + length).collect();
                return Ok(Some(Frame { first: frame[0], payload: frame[start..].to_vec() }));
            }
            let mut buffer = [0; 16 << 10];
            match self.stream.read(&mut buffer)? {
                0 => return Ok(None),
                count => self.received.extend_from_slice(&buffer[..count]),
            }
        }
    }

    /// The next frame, which has to be a text.
    #[track_caller]
    pub fn text_frame(&mut self) -> String {
        let frame = self.frame();
        assert_eq!(frame.first, 0x81, "expected a text: {frame:?}");
        String::from_utf8(frame.payload).unwrap()
    }

    /// The next frame, which has to be a close, as code and reason; 1005 when it has no body.
    #[track_caller]
    pub fn close_frame(&mut self) -> (u16, String) {
        let frame = self.frame();
        assert_eq!(frame.first, 0x88, "expected a close: {frame:?}");
        match frame.payload.as_slice() {
            [] => (1005, String::new()),
            [high, low, reason @ ..] => {
                (u16::from_be_bytes([*high, *low]), String::from_utf8(reason.to_vec()).unwrap())
            }
            [_] => panic!("a close of one byte"),
        }
    }

    /// Whether the server ended the stream in good order, after what was read so far.
    #[track_caller]
    pub fn expect_end(&mut self) {
        assert_eq!(self.rest(), b"", "expected the end of the stream");
    }

    /// All bytes up to the end of the stream, which has to come in good order.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        while self.read_more() {}
        std::mem::take(&mut self.received)
    }

    /// Fails when anything comes within `time`, the end of the stream included.
    #[track_caller]
    pub fn expect_nothing_for(&mut self, time: Duration) {
        assert_eq!(self.text(), "", "expected nothing");
        assert!(self.is_quiet_for(time), "expected nothing, and something came, or the end");
    }

    /// Whether nothing comes within `time`, the end of the stream included.
    pub fn is_quiet_for(&self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(Some(DEADLINE)).unwrap();
        matches!(peeked, Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    }

    #[track_caller]
    fn read_more(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                count > 0
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("nothing came for {DEADLINE:?}, after {:?}", self.text())
            }
            Err(error) => panic!("the stream broke: {error}, after {:?}", self.text()),
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.received[..self.received.len().min(200)]).into_owned()
    }
}

impl From<Wire> for Raw {
    fn from(stream: Wire) -> Self {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Self { stream, received: Vec::new() }
    }
}

impl From<TlsWire> for Raw {
    fn from(wire: TlsWire) -> Self {
        Wire::from(wire).into()
    }
}

impl From<TcpStream> for Raw {
    fn from(stream: TcpStream) -> Self {
        Wire::from(stream).into()
    }
}

/// A request without a body.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// The status of a response's head.
pub fn status(head: &str) -> u16 {
    let code = head.strip_prefix("HTTP/1.1 ").and_then(|head| head.get(..3));
    code.and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status in {head:?}"))
}

/// The request that opens a WebSocket, with further header lines.
pub fn upgrade_request(path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
    )
}

/// A masked frame.
pub fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x11, 0x22, 0x93, 0xf4];
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | u8::try_from(length).unwrap()),
        length @ 126..=65_535 => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend(u64::try_from(length).unwrap().to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The value of the first header of that name in a head.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// A controller made of a function.
pub struct Answer<F>(F);

/// A controller that answers with `function`.
pub fn answer<F>(function: F) -> Answer<F>
where
    F: Fn(&Request) -> Result<Response, Error> + Send + Sync,
{
    Answer(function)
}

#[async_trait]
impl<F> Controller for Answer<F>
where
    F: Fn(&Request) -> Result<Response, Error> + Send + Sync,
{
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        (self.0)(request)
    }
}

/// A visitor that was here before: its browser keeps a secret, and the program knows the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guest {
    /// What the cookie holds.
    pub secret: rwf::Uuid,
}

impl Guest {
    pub fn new() -> Self {
        Self { secret: rwf::Uuid::new_v4() }
    }

    /// The header line that its browser sends.
    pub fn cookie(self) -> String {
        format!("Cookie: rwf_session={}\r\n", self.secret)
    }

    pub fn session(self) -> SessionId {
        SessionId::from_cookie(&self.secret.to_string()).unwrap()
    }
}

/// As it may be shown.
impl std::fmt::Display for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.session().fmt(f)
    }
}

impl From<Guest> for SessionId {
    fn from(guest: Guest) -> Self {
        guest.session()
    }
}

impl From<&Guest> for SessionId {
    fn from(guest: &Guest) -> Self {
        guest.session()
    }
}

/// The value of the session cookie that a head sets.
pub fn new_secret(head: &str) -> Option<&str> {
    let pair = header(head, "set-cookie")?.split(';').next()?;
    pair.strip_prefix("rwf_session=")
}

/// Answers every message of a client, to all its connections.
#[derive(Default, macros::WebsocketController)]
pub struct Echo;

#[async_trait]
impl WebsocketController for Echo {
    async fn handle_message(&self, client: &SessionId, message: Message) -> Result<(), Error> {
        Comms::websocket(client).send(message)?;
        Ok(())
    }
}

/// Routes whose endpoints echo, each in its style of handler: one of these paths.
pub const STYLES: [&str; 3] = ["/controller", "/function", "/events"];

pub fn echo_in_every_style() -> Vec<Route> {
    let (endpoint, events) = rwf::events(16);
    thread::spawn(move || {
        for event in &events {
            if let Event::Message(client, message) = event {
                // One that has left meanwhile gets no answer.
                let _ = client.send(message);
            }
        }
    });
    vec![
        route!("/controller" => Echo),
        route!("/function" => websocket(echo)),
        route!("/events" => endpoint),
    ]
}

/// The echo as a function.
pub fn echo(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.recv()? {
        socket.send(message)?;
    }
    Ok(())
}

/// Keeps the requests of its connections, and lets clients be whom the path says.
pub struct Keeping(pub Arc<Mutex<Vec<Request>>>);

#[async_trait]
impl WebsocketController for Keeping {}

#[async_trait]
impl Controller for Keeping {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        self.0.lock().push(request.clone());
        let user: i64 = request.param("user")?.parse()?;
        WebsocketController::handle(self, &request.with_session(user)).await
    }
}
