//! Endpoints whose messages go to a channel, for a program that has a loop of its own.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use crossbeam_channel::{Iter, Receiver, bounded};
use parking_lot::Mutex;

use crate::comms::client::Client;
use crate::comms::session::ConnectionId;
use crate::controller::backlog::{Backlog, Disconnected, Share};
use crate::controller::error::Error;
use crate::controller::function::{Endpoint, websocket};
use crate::controller::socket::Socket;
use crate::websocket::close::{CloseCode, Closed};
use crate::websocket::message::Message;

const MAX_CAPACITY: usize = 1 << 16;

/// Makes a WebSocket endpoint whose clients' messages go to a channel: for a program that has a loop of its own and
/// takes them there, beside its work.
///
/// ```
/// use rwf::channel::{select, tick};
/// use rwf::http::Server;
/// use rwf::prelude::*;
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (endpoint, events) = rwf::events(64);
/// let server = Server::new(vec![route!("/job" => endpoint)]).bind("127.0.0.1:0").spawn()?;
/// let ticks = tick(Duration::from_millis(1));
/// let mut progress = 0;
/// while progress < 100 {
///     select! {
///         recv(events) -> event => match event? {
///             Event::Opened(client) => {
///                 // One that has left meanwhile is no reason for the job to end.
///                 let _ = client.send(progress.to_string());
///             }
///             Event::Message(client, message) => log::info!("{client:?} says {message:?}"),
///             Event::Closed(client, closed) => log::info!("{client:?} left: {}", closed.cause),
///         },
///         recv(ticks) -> _ => {
///             progress += 1;
///             let _ = server.comms().notify().send(progress.to_string());
///         }
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// `capacity` is how many events the channel holds, up to 65,536. When it is full, what comes waits behind it, in order:
/// of each client one event, or several that take 4 KiB together. A client that sends more is held back by TCP until all of
/// these are in the channel; nobody else is.
///
/// Each client that was opened is closed exactly once, and its events come in their order: opened, messages, closed.
///
/// A client that is held back is not read meanwhile: that it has left, or is silent, is noticed when the program takes
/// events again. A thread stays while events wait behind the channel; it ends when they are taken, or when the [`Events`]
/// are dropped. It holds up neither the connections' threads nor a shutdown.
#[must_use]
pub fn events(capacity: usize) -> (Endpoint, Events) {
    // A bounded channel reserves its places at once.
    let (sender, receiver) = bounded(capacity.min(MAX_CAPACITY));
    let clients: Clients = Arc::new(Mutex::new(Some(HashMap::new())));
    let hub = Hub { clients: Arc::clone(&clients), backlog: Backlog::new(sender) };
    (websocket(move |socket| hub.serve(socket)), Events { receiver, clients })
}

/// What happens to the clients of an endpoint that [`events`] made.
///
/// There are these three, so that a `match` that names them is whole.
#[derive(Debug, Clone)]
#[expect(clippy::exhaustive_enums, reason = "so that a `match` that names them is whole")]
pub enum Event {
    /// A client has connected: what is sent to it from here on arrives.
    Opened(Client),
    /// A message of a client, whole.
    Message(Client, Message),
    /// A client is over: nothing more comes from it, and nothing can be sent to it.
    Closed(Client, Closed),
}

/// The events of an endpoint's clients: a [`Receiver`] of a crossbeam channel, by `Deref`, also in
/// [`select!`](crate::channel::select). Dropping it closes the clients with 1001, and those that come later.
///
/// A loop, `for event in &events`, ends when nothing more can come: the [server](crate::http::ServerHandle) was dropped,
/// and all events were taken. A shutdown alone does not end it: whoever waits for a thread with such a loop drops the
/// handle before.
#[derive(Debug)]
pub struct Events {
    receiver: Receiver<Event>,
    clients: Clients,
}

/// Those that are open, as long as the events are taken.
type Clients = Arc<Mutex<Option<HashMap<ConnectionId, Client>>>>;

impl Deref for Events {
    type Target = Receiver<Event>;

    fn deref(&self) -> &Receiver<Event> {
        &self.receiver
    }
}

impl<'a> IntoIterator for &'a Events {
    type Item = Event;
    type IntoIter = Iter<'a, Event>;

    fn into_iter(self) -> Iter<'a, Event> {
        self.receiver.iter()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let clients = self.clients.lock().take();
        for client in clients.iter().flat_map(HashMap::values) {
            let _ = client.close(CloseCode::GOING_AWAY, NOBODY);
        }
    }
}

const NOBODY: &str = "the program takes no more messages";

/// Where the threads of an endpoint's clients meet.
#[derive(Debug)]
struct Hub {
    clients: Clients,
    backlog: Arc<Backlog<Event>>,
}

impl Hub {
    /// One client, on its own thread.
    fn serve(&self, mut socket: Socket) -> Result<(), Error> {
        let (client, share) = (socket.client(), Arc::default());
        let is_known = match &mut *self.clients.lock() {
            Some(clients) => clients.insert(client.connection_id(), client.clone()).is_none(),
            None => false,
        };
        if !is_known || !self.announce(&client, &share) {
            self.forget(&client);
            socket.close(CloseCode::GOING_AWAY, NOBODY)?;
            return Ok(());
        }
        while let Some(message) = socket.recv_any() {
            let length = message.len();
            let event = Event::Message(client.clone(), message);
            match self.backlog.put(event, length, &share) {
                Ok(true) => {}
                Ok(false) => self.backlog.hold(&share, &client),
                // Mostly it is closed already; whoever was first counts.
                Err(Disconnected) => socket.close(CloseCode::GOING_AWAY, NOBODY)?,
            }
        }
        self.forget(&client);
        if let Some(closed) = socket.closed() {
            let length = closed.reason.len();
            let _ = self.backlog.put(Event::Closed(client, closed.clone()), length, &share);
        }
        Ok(())
    }

    /// Tells of a client, and waits until that is in the channel: behind the ends of all that were there before, which
    /// would pile up if clients came and went faster than the program takes events. Whether it is told of.
    fn announce(&self, client: &Client, share: &Arc<Share>) -> bool {
        if self.backlog.put(Event::Opened(client.clone()), 0, share).is_err() {
            return false;
        }
        self.backlog.hold(share, client);
        // One that is over by now need not be told of.
        share.is_empty() || self.backlog.take_back(share).is_none()
    }

    fn forget(&self, client: &Client) {
        if let Some(clients) = &mut *self.clients.lock() {
            clients.remove(&client.connection_id());
        }
    }
}

impl Event {
    /// Whose it is.
    #[must_use]
    pub fn client(&self) -> &Client {
        match self {
            Self::Opened(client) | Self::Message(client, _) | Self::Closed(client, _) => client,
        }
    }
}
