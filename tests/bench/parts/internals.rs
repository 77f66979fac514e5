//! What the micro-benchmarks of `tests/bench/parts` call of the inside, with the limits that a server has by default.

use std::hint::black_box;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use crate::comms::registry::{Registration, Registry};
use crate::comms::session::{ConnectionId, ServerId, SessionId};
use crate::controller::settings::Settings;
use crate::http::parser::{Parser, Step};
use crate::http::rejection::RequestLimits;
use crate::net::stream::Stream;
use crate::net::watchdog::Watchdog;
use crate::websocket::decoder::{Decoder, Event};
use crate::websocket::frame::Frame;
use crate::websocket::message::Message;
use crate::websocket::outbox::Outbox;
use crate::websocket::settings::Websocket;

/// One read: as many of the `rest` of the bytes as `buffer` has room for.
fn read(buffer: &mut Vec<u8>, rest: &mut &[u8]) -> usize {
    let (now, later) = rest.split_at(rest.len().min(buffer.capacity() - buffer.len()));
    buffer.extend_from_slice(now);
    *rest = later;
    now.len()
}

/// New connections that each send one request.
#[derive(Debug)]
pub struct Requests(RequestLimits);

impl Default for Requests {
    fn default() -> Self {
        let Settings { max_head_size, max_headers, max_body_size, .. } = Settings::default();
        Self(RequestLimits { max_head_size, max_headers, max_body_size })
    }
}

impl Requests {
    /// Parses a request without a body; how many headers it has.
    #[must_use]
    pub fn parse(&self, mut wire: &[u8]) -> usize {
        let mut parser = Parser::new(self.0);
        let _ = parser.fill(|buffer| Ok(read(buffer, &mut wire)));
        match parser.next() {
            Ok(Step::Request(request)) => black_box(&request).headers.iter().count(),
            other => panic!("no whole request: {other:?}"),
        }
    }
}

/// One connection that is sent many frames.
#[derive(Debug)]
pub struct Frames(Decoder);

impl Default for Frames {
    fn default() -> Self {
        Self(Decoder::new(Websocket::new().message_limits(), Vec::new()))
    }
}

impl Frames {
    /// Decodes a client's frame; how long its message is.
    pub fn decode(&mut self, mut wire: &[u8]) -> usize {
        loop {
            let _ = self.0.fill(|buffer| Ok(read(buffer, &mut wire)));
            match self.0.next() {
                Ok(Some(Event::Message(message))) => return black_box(&message).as_bytes().len(),
                Ok(None) if !wire.is_empty() => {}
                other => panic!("no whole message: {other:?}"),
            }
        }
    }
}

/// Frames a message for its receivers, whoever they are; how long it is on the wire.
#[must_use]
pub fn frame(message: impl Into<Message>) -> usize {
    black_box(&Frame::message(message.into())).len()
}

/// Connections that `Comms` finds, until this is dropped.
#[derive(Debug)]
pub struct Registered {
    _registrations: Vec<Registration<'static>>,
}

/// Registers a connection for each of `sessions`. They have one socket between them: nothing can be sent to them.
///
/// # Errors
///
/// There is no such socket.
pub fn register(sessions: &[SessionId]) -> io::Result<Registered> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let stream = Arc::new(Stream::new(TcpStream::connect(listener.local_addr()?)?, true)?);
    let (watchdog, settings) = (Watchdog::default(), Websocket::new());
    let registration = |session: &SessionId| {
        let (stream, watchdog) = (Arc::clone(&stream), watchdog.clone());
        let outbox =
            Outbox::new(stream, watchdog, &settings, usize::MAX, Vec::new(), None, "a tab".into());
        Registry::global().register(
            ServerId::next(),
            session.clone(),
            ConnectionId::next(),
            outbox,
            usize::MAX,
        )
    };
    Ok(Registered { _registrations: sessions.iter().filter_map(registration).collect() })
}
