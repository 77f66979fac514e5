//! One connection as its server sees it: the socket, and how to end it in good order.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::reaper::Reaper;
use crate::session::ConnectionId;
use crate::settings::Settings;
use crate::socket::Socket;
use crate::websocket::close::{Close, CloseCode};
use crate::websocket::outbox::Outbox;

/// What all connections of a server share.
#[derive(Debug, Default)]
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) reaper: Reaper,
    is_stopping: AtomicBool,
}

impl Context {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, ..Self::default() }
    }

    /// From now on connections end as soon as they can do so in good order.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }
}

/// One connection, from `accept` to its end.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: ConnectionId,
    pub(crate) peer: SocketAddr,
    pub(crate) socket: Arc<Socket>,
    pub(crate) context: Arc<Context>,
    /// Set when the connection becomes a WebSocket.
    outbox: OnceLock<Arc<Outbox>>,
    was_cut: AtomicBool,
}

impl Link {
    pub(crate) fn new(socket: Socket, peer: SocketAddr, context: Arc<Context>) -> Self {
        Self {
            id: ConnectionId::next(),
            peer,
            socket: Arc::new(socket),
            context,
            outbox: OnceLock::new(),
            was_cut: AtomicBool::new(false),
        }
    }

    /// The connection is a WebSocket from now on. It may be closed at once, when the server stops meanwhile.
    pub(crate) fn upgrade(&self, outbox: &Arc<Outbox>) {
        let _ = self.outbox.set(Arc::clone(outbox));
        // The server sets its flag before it goes through the connections: one of the two sees the other.
        if self.context.is_stopping() {
            self.end();
        }
    }

    /// Ends the connection in good order: a WebSocket is closed with 1001, and a wait for a request is ended.
    pub(crate) fn end(&self) {
        match self.outbox.get() {
            Some(outbox) => {
                outbox.seal(Close::new(CloseCode::GoingAway, "the server shuts down"));
            }
            None => self.socket.interrupt_read(),
        }
    }

    /// Ends the connection where it stands.
    pub(crate) fn cut(&self) {
        self.note_cut();
        self.socket.cut();
    }

    /// Remembers that the connection did not end in good order.
    pub(crate) fn note_cut(&self) {
        self.was_cut.store(true, Ordering::SeqCst);
    }

    pub(crate) fn was_cut(&self) -> bool {
        self.was_cut.load(Ordering::SeqCst)
    }
}
