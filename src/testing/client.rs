//! An open WebSocket as its client sees it: what it sends, what it expects, and how it misbehaves.

use std::collections::VecDeque;
use std::fmt;
use std::io::{Cursor, Read, Write};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tungstenite::error::ProtocolError;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Error, WebSocket};

use crate::base::deadline;
use crate::base::shown::Shown;
use crate::testing::os;
use crate::testing::response::{Answered, TestResponse};
use crate::testing::slow::SlowReader;
use crate::testing::wire::{Wire, is_a_pause, may_wait};
use crate::websocket::close::{Close, CloseCode};
use crate::websocket::message::Message;

/// An open WebSocket of a test: from [`TestServer::connect`](crate::testing::TestServer::connect) or
/// [`Visitor::connect`](crate::testing::Visitor::connect).
///
/// It blocks, and works while one of its methods is called: it answers pings and a close of the server meanwhile, and
/// not between. A test that shuts its server down, and expects its clients to close in good order, has them do so on
/// another thread. What it receives comes one by one from `recv` and its kind, or as an iterator that ends when the
/// server closes.
///
/// All methods panic when something else happens than they say, at the line of the test that calls them. Each waits as
/// long as its [`timeout`](Self::timeout), which is the visitor's unless said otherwise, and no longer.
///
/// ```
/// use rwf::prelude::*;
///
/// /// Repeats texts, and wants nothing else.
/// fn parrot(mut socket: Socket) -> Result<(), Error> {
///     while let Some(message) = socket.recv()? {
///         let Message::Text(text) = message else {
///             socket.close(CloseCode::UNSUPPORTED_DATA, "text only")?;
///             return Ok(());
///         };
///         socket.send(text)?;
///     }
///     Ok(())
/// }
///
/// let server = rwf::testing::serve(vec![route!("/parrot" => websocket(parrot))]);
/// let mut client = server.connect("/parrot");
/// client.send("hello");
/// assert_eq!(client.recv_text(), "hello");
/// client.send(vec![1, 2, 3]);
/// assert_eq!(client.expect_close(1003), "text only");
/// ```
///
/// Dropped without a [`close`](Self::close), it ends its stream without a close frame, as a client that crashed.
#[must_use = "dropping it ends the connection"]
pub struct TestClient {
    path: String,
    socket: WebSocket<Wire>,
    response: TestResponse,
    timeout: Duration,
    /// What came while a pong was waited for.
    waiting: VecDeque<Message>,
    /// How the WebSocket ended, if it has.
    end: Option<Came>,
    /// How many pings were sent.
    pings: u64,
}

/// What came from the server.
#[derive(Debug, Clone)]
enum Came {
    Message(Message),
    Pong(Bytes),
    Close(CloseCode, String),
    Loss(String),
    Nothing(Duration),
}

/// As the half of a sentence that goes on after "and".
impl fmt::Display for Came {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(message) => {
                write!(f, "a message came: {}", Shown::text(format_args!("{message:?}")))
            }
            Self::Pong(_) => f.write_str("a pong came"),
            Self::Close(code, reason) => {
                write!(f, "the server closed with {code} {:?}", Shown::text(reason))
            }
            Self::Loss(how) => write!(f, "the connection was lost: {how}"),
            Self::Nothing(timeout) => write!(f, "nothing came for {timeout:?}"),
        }
    }
}

impl TestClient {
    /// A client whose request was answered with a 101.
    pub(crate) fn new(path: &str, answered: Answered, timeout: Duration) -> Self {
        let Answered { response, wire, rest } = answered;
        // What a server may send is its program's business.
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        // A test may have thousands of clients.
        let config = config.read_buffer_size(4 << 10);
        let socket = WebSocket::from_partially_read(wire, rest, Role::Client, Some(config));
        let path = path.to_owned();
        Self { path, socket, response, timeout, waiting: VecDeque::new(), end: None, pings: 0 }
    }

    /// Waits until the server answers a ping, which its endpoint does from when it begins to receive. A WebSocket that
    /// ends before is as good: the test will look at that.
    #[track_caller]
    pub(crate) fn wait_until_received(&mut self) {
        if let Err(Came::Nothing(timeout)) = self.ping_once() {
            let path = &self.path;
            panic!(
                "{path}: the WebSocket is open, and the endpoint has received nothing for {timeout:?}; \
                 `Visitor::connect_at_once` does not wait for that"
            );
        }
    }

    /// The 101 that opened it, for its headers.
    #[must_use]
    pub fn response(&self) -> &TestResponse {
        &self.response
    }

    /// The subprotocol that the server chose.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.response.header("Sec-WebSocket-Protocol")
    }

    /// How long each call waits from now on, instead of the visitor's
    /// [`timeout`](crate::testing::Visitor::timeout).
    ///
    /// # Panics
    ///
    /// It is zero.
    #[track_caller]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        assert!(!timeout.is_zero(), "`timeout` has to be more than zero");
        self.timeout = timeout;
        let waiting = deadline::until(deadline::after(timeout)).max(Duration::from_millis(1));
        // It fails for a connection that has ended, whose next write says so.
        let _ = self.socket.get_ref().stream().set_write_timeout(Some(waiting));
        self
    }

    /// Sends a message: a text or bytes.
    ///
    /// # Panics
    ///
    /// The connection has ended, or the server takes nothing for the whole timeout: mostly because it waits for this
    /// client to receive something first.
    #[track_caller]
    pub fn send(&mut self, message: impl Into<Message>) {
        let message = message.into();
        if let Err(reason) = self.write(wire(&message)) {
            let message = format!("{message:?}");
            panic!("{}: cannot send {}: {reason}", self.path, Shown::text(message));
        }
    }

    /// The next message.
    ///
    /// # Panics
    ///
    /// None comes, or the WebSocket ends.
    #[track_caller]
    pub fn recv(&mut self) -> Message {
        match self.receive() {
            Came::Message(message) => message,
            other => self.fail("a message", &other),
        }
    }

    /// The next message, which has to be a text.
    ///
    /// # Panics
    ///
    /// None comes, it is a binary one, or the WebSocket ends.
    #[track_caller]
    pub fn recv_text(&mut self) -> String {
        match self.receive() {
            Came::Message(Message::Text(text)) => text.into(),
            other => self.fail("a text", &other),
        }
    }

    /// The next message, which has to be a binary one.
    ///
    /// # Panics
    ///
    /// None comes, it is a text, or the WebSocket ends.
    #[track_caller]
    pub fn recv_binary(&mut self) -> Vec<u8> {
        match self.receive() {
            Came::Message(Message::Binary(bytes)) => bytes.into(),
            other => self.fail("a binary message", &other),
        }
    }

    /// Waits until the server has handled all that this client has sent, and everything has come that was sent to the
    /// client by then: what a ping and its pong show. Messages that come meanwhile wait for `recv`.
    ///
    /// It replaces a pause: `anna.send("hello"); anna.ping();`, and what the handler had to do is done. It says nothing
    /// about what the program does later, on threads of its own.
    ///
    /// # Panics
    ///
    /// No pong comes, or the WebSocket ends.
    #[track_caller]
    pub fn ping(&mut self) {
        // A pong goes ahead of messages that wait, those in the same batch too; a second one cannot overtake what went
        // out with the first.
        for _ in 0..2 {
            if let Err(other) = self.ping_once() {
                self.fail("a pong", &other);
            }
        }
    }

    /// Fails if the server has sent a message to this client by now that it has not received: after a
    /// [`ping`](Self::ping), so that nothing is on its way. To be sure that another client's message was handled before,
    /// have that one `ping` first.
    ///
    /// # Panics
    ///
    /// A message comes, or the WebSocket ends.
    #[track_caller]
    pub fn expect_nothing(&mut self) {
        let pongs = self.ping_once().and_then(|()| self.ping_once());
        let came = self.waiting.pop_front().map(Came::Message).or(pongs.err());
        if let Some(came) = came {
            self.fail("nothing", &came);
        }
    }

    /// Waits until the server closes with `code`, and returns the reason.
    ///
    /// The close is answered. The TCP connection stays open until the client is dropped.
    ///
    /// # Panics
    ///
    /// Something else comes first, a message for example, or nothing.
    #[track_caller]
    pub fn expect_close(&mut self, code: impl Into<CloseCode>) -> String {
        let code = code.into();
        match self.receive() {
            Came::Close(came, reason) if came == code => reason,
            other => self.fail(&format!("a close with {code}"), &other),
        }
    }

    /// Closes, waits until the server has answered with the same code, and ends the connection. Messages that come before
    /// the answer are passed over.
    ///
    /// # Panics
    ///
    /// No close frame can carry `code` and `reason`; the server answers with another code, or not at all; the WebSocket
    /// has ended already.
    #[track_caller]
    pub fn close(mut self, code: impl Into<CloseCode>, reason: &str) {
        let code = code.into();
        self.send_close(code, reason);
        let deadline = deadline::after(self.timeout);
        let mut has_passed_over = false;
        loop {
            match self.receive_until(deadline) {
                Came::Message(_) => has_passed_over = true,
                Came::Close(came, _) if came == code => return,
                Came::Nothing(timeout) if has_passed_over => panic!(
                    "{}: expected the answer to a close with {code}, and only messages came for {timeout:?}; \
                     does the endpoint receive?",
                    self.path
                ),
                other => self.fail(&format!("the answer to a close with {code}"), &other),
            }
        }
    }

    /// Sends a close frame, and does not wait for its answer, for which [`expect_close`](Self::expect_close) can. The TCP
    /// connection stays open until the client is dropped.
    ///
    /// # Panics
    ///
    /// No close frame can carry `code` and `reason`, or the WebSocket has ended already.
    #[track_caller]
    pub fn send_close(&mut self, code: impl Into<CloseCode>, reason: &str) {
        let sent = Close::checked(code.into(), reason).map_err(|error| error.to_string());
        let sent = sent.and_then(|Close { code, reason }| {
            let frame = CloseFrame { code: u16::from(code).into(), reason: reason.into() };
            self.write(tungstenite::Message::Close(Some(frame)))
        });
        if let Err(reason) = sent {
            panic!("{}: cannot close: {reason}", self.path);
        }
    }

    /// Waits until the server has ended the TCP connection too, in good order or not, and passes over what comes before,
    /// pings and a close included: they are not answered.
    ///
    /// # Panics
    ///
    /// The connection is still open after the whole timeout.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let deadline = deadline::after(self.timeout);
        let mut passed_over = [0; 16 << 10];
        let wire = self.socket.get_mut();
        while may_wait(wire.stream(), deadline) {
            match wire.read(&mut passed_over) {
                Ok(1..) => {}
                Err(error) if is_a_pause(&error) => {}
                Ok(0) | Err(_) => return,
            }
        }
        let (path, timeout) = (&self.path, self.timeout);
        panic!(
            "{path}: expected the end of the connection, and it is still open after {timeout:?}"
        );
    }

    /// Sends the frame of a message but for its last byte. The server waits for that one from now on: whatever else is
    /// sent is taken for the rest of the frame, a pong too, so that only [`expect_end`](Self::expect_end) makes sense.
    ///
    /// # Panics
    ///
    /// The connection has ended, or the server takes nothing for the whole timeout.
    #[track_caller]
    pub fn send_unfinished(&mut self, message: impl Into<Message>) {
        let bytes = Cursor::new(Vec::new());
        let mut encoder = WebSocket::from_raw_socket(bytes, Role::Client, None);
        // There is room for it in any case.
        let _ = encoder.send(wire(&message.into()));
        let frame = encoder.into_inner().into_inner();
        self.send_bytes(&frame[..frame.len().saturating_sub(1)]);
    }

    /// Sends these bytes, whatever they are: a frame that breaks a rule, for example.
    ///
    /// # Panics
    ///
    /// The connection has ended, or the server takes nothing for the whole timeout.
    #[track_caller]
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        if let Err(error) = self.socket.get_mut().write_all(bytes) {
            let reason = self.why_not(&error.into());
            panic!("{}: cannot send {} bytes: {reason}", self.path, bytes.len());
        }
    }

    /// Ends the connection with a reset, as the network or a crashed machine does. Systems other than Unix just end the
    /// stream.
    pub fn reset(self) {
        os::reset(self.socket.into_inner().into_stream());
    }

    /// Reads nothing from now on, and has the system take in as little as it can, so that the server finds out soon that
    /// this client does not read.
    ///
    /// The server's system buffers too: with default settings some megabytes go out before anything waits, and only
    /// then is the client slow, or a value replaced. A test that is to see that sets
    /// [`max_unsent_bytes`](crate::controller::Websocket::max_unsent_bytes), so that it takes a few dozen KiB:
    ///
    /// ```
    /// use rwf::controller::Websocket;
    /// use rwf::http::Server;
    /// use rwf::prelude::*;
    ///
    /// fn feed(mut socket: Socket) -> Result<(), Error> {
    ///     socket.iter().for_each(drop);
    ///     Ok(())
    /// }
    ///
    /// let server = Server::new(vec![route!("/feed" => websocket(feed))]);
    /// let server = rwf::testing::start(server.websocket(Websocket::new().max_unsent_bytes(16 << 10)));
    /// let deaf = server.connect("/feed").never_read();
    /// for price in 0..1000 {
    ///     server.comms().notify().send_latest("ACME", format!("{price:1000}")).unwrap();
    /// }
    /// assert!(server.stats().replaced > 0, "each price has gone out");
    /// # drop(deaf);
    /// ```
    pub fn never_read(self) -> SlowReader {
        let stream = self.socket.into_inner().into_stream();
        os::shrink_receive_buffer(&stream);
        SlowReader::idle(stream)
    }

    /// Reads so many bytes per second from now on, on a thread of its own, and answers nothing. The system takes in
    /// some 100 KiB more.
    ///
    /// # Panics
    ///
    /// `bytes_per_second` is zero, which [`never_read`](Self::never_read) is for.
    #[track_caller]
    pub fn read_slowly(self, bytes_per_second: u32) -> SlowReader {
        assert!(bytes_per_second > 0, "a client that reads 0 bytes per second is `never_read`");
        SlowReader::start(self.socket.into_inner().into_stream(), bytes_per_second)
    }

    /// The next message or the end.
    fn receive(&mut self) -> Came {
        self.receive_until(deadline::after(self.timeout))
    }

    fn receive_until(&mut self, deadline: Instant) -> Came {
        if let Some(message) = self.waiting.pop_front() {
            return Came::Message(message);
        }
        loop {
            match self.read(deadline) {
                Came::Pong(_) => {}
                came => return came,
            }
        }
    }

    /// One ping and its pong, or what came instead.
    fn ping_once(&mut self) -> Result<(), Came> {
        self.pings += 1;
        let payload = Bytes::copy_from_slice(&self.pings.to_be_bytes());
        if let Err(reason) = self.write(tungstenite::Message::Ping(payload.clone())) {
            return Err(self.end.clone().unwrap_or(Came::Loss(reason)));
        }
        let deadline = deadline::after(self.timeout);
        loop {
            match self.read(deadline) {
                Came::Message(message) => self.waiting.push_back(message),
                Came::Pong(pong) if pong == payload => return Ok(()),
                Came::Pong(_) => {}
                other => return Err(other),
            }
        }
    }

    /// What comes next from the socket.
    fn read(&mut self, deadline: Instant) -> Came {
        if let Some(end) = &self.end {
            return end.clone();
        }
        let end = loop {
            if !may_wait(self.socket.get_ref().stream(), deadline) {
                return Came::Nothing(self.timeout);
            }
            match self.socket.read() {
                Ok(tungstenite::Message::Text(text)) => return Came::Message(text.as_str().into()),
                Ok(tungstenite::Message::Binary(bytes)) => return Came::Message(bytes.into()),
                Ok(tungstenite::Message::Pong(payload)) => return Came::Pong(payload),
                Ok(tungstenite::Message::Close(frame)) => {
                    // The answer to it.
                    let _ = self.socket.flush();
                    break match frame {
                        Some(frame) => {
                            Came::Close(u16::from(frame.code).into(), frame.reason.to_string())
                        }
                        None => Came::Close(CloseCode::NO_STATUS, String::new()),
                    };
                }
                // The next read answers a ping.
                Ok(tungstenite::Message::Ping(_) | tungstenite::Message::Frame(_)) => {}
                Err(Error::Io(error)) if is_a_pause(&error) => {}
                Err(error) => break Came::Loss(said(&error)),
            }
        };
        self.end = Some(end.clone());
        end
    }

    /// Sends a frame, or says why that is not possible.
    fn write(&mut self, message: tungstenite::Message) -> Result<(), String> {
        if let Some(end) = &self.end {
            return Err(end.to_string());
        }
        self.socket.send(message).map_err(|error| self.why_not(&error))
    }

    /// Why nothing can be sent: what the server sent before the end says more than the error does.
    fn why_not(&mut self, error: &Error) -> String {
        if let Error::Io(error) = error
            && is_a_pause(error)
        {
            let timeout = self.timeout;
            return format!(
                "the server took nothing for {timeout:?}; does it wait for this client to receive?"
            );
        }
        let deadline = deadline::after(self.timeout);
        loop {
            match self.read(deadline) {
                Came::Message(message) => self.waiting.push_back(message),
                Came::Pong(_) => {}
                Came::Nothing(_) => return said(error),
                end => return end.to_string(),
            }
        }
    }

    #[track_caller]
    fn fail(&self, expected: &str, came: &Came) -> ! {
        panic!("{}: expected {expected}, and {came}", self.path);
    }
}

/// The messages up to the server's close.
impl Iterator for TestClient {
    type Item = Message;

    #[track_caller]
    fn next(&mut self) -> Option<Message> {
        match self.receive() {
            Came::Message(message) => Some(message),
            Came::Close(..) => None,
            other => self.fail("a message or a close", &other),
        }
    }
}

impl fmt::Debug for TestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestClient").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The message in tungstenite's terms.
fn wire(message: &Message) -> tungstenite::Message {
    match message {
        Message::Text(text) => tungstenite::Message::text(text.as_str()),
        Message::Binary(bytes) => tungstenite::Message::Binary(bytes.clone()),
    }
}

/// The error in words that name what happened, and not what tungstenite calls it.
fn said(error: &Error) -> String {
    match error {
        Error::Io(error) => error.to_string(),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)
        | Error::ConnectionClosed
        | Error::AlreadyClosed => "it ended without a close frame".to_owned(),
        other => other.to_string(),
    }
}
