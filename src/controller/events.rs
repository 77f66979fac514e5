//! Endpoints whose messages go to a channel, for a program that has a loop of its own.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::ops::Deref;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Iter, Receiver, SendTimeoutError, Sender, TrySendError, bounded};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::comms::client::Client;
use crate::comms::session::ConnectionId;
use crate::controller::error::Error;
use crate::controller::function::{Endpoint, websocket};
use crate::controller::socket::Socket;
use crate::websocket::close::{CloseCode, Closed};
use crate::websocket::message::Message;

const MAX_CAPACITY: usize = 1 << 16;
/// A client whose event waits for room looks so often whether it is over meanwhile.
const LOOK: Duration = Duration::from_millis(100);

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
/// `capacity` is how many events wait at most, up to 65,536. When so many do, clients that send more are held back by TCP
/// until the program takes some; nobody else is. Threads that wait for room cost much when they are many: give it room for about as
/// many events as come at once.
///
/// Each client that was opened is closed exactly once, and its events come in their order: opened, messages, closed.
///
/// A client whose event waits for room is not read meanwhile: that it has left, or is silent, is noticed when the program
/// takes events again. Ends of clients wait apart, so that they hold up neither a connection's thread nor a shutdown; a
/// thread that hands them on ends when they are taken, or when the [`Events`] are dropped.
#[must_use]
pub fn events(capacity: usize) -> (Endpoint, Events) {
    // A bounded channel reserves its places at once.
    let (sender, receiver) = bounded(capacity.min(MAX_CAPACITY));
    let clients: Clients = Arc::new(Mutex::new(Some(HashMap::new())));
    let hub = Hub {
        sender,
        clients: Arc::clone(&clients),
        late: Mutex::default(),
        caught_up: Condvar::new(),
    };
    let hub = Arc::new(hub);
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
/// A loop over it ends when nothing more can come: the [server](crate::http::ServerHandle) was dropped, and all events
/// were taken.
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
    sender: Sender<Event>,
    clients: Clients,
    late: Mutex<Late>,
    /// Signalled when no end is late any more, for one client that waits to be announced; that one signals it for the
    /// next.
    caught_up: Condvar,
}

/// The ends of clients for which there was no room: they hold up no connection's thread, nor the shutdown.
#[derive(Debug, Default)]
struct Late {
    events: VecDeque<Event>,
    /// Whether a thread delivers them.
    is_delivered: bool,
}

/// The events are not taken any more, or the client is over before its event was.
struct NotSent;

impl Hub {
    /// One client, on its own thread.
    fn serve(self: &Arc<Self>, mut socket: Socket) -> Result<(), Error> {
        let client = socket.client();
        let is_known = match &mut *self.clients.lock() {
            Some(clients) => clients.insert(client.connection_id(), client.clone()).is_none(),
            None => false,
        };
        if is_known {
            self.wait_for_late(&client);
        }
        let is_announced = is_known && self.send(Event::Opened(client.clone())).is_ok();
        // One after the other: if all tried at once, their ends would be late again.
        self.caught_up.notify_one();
        if !is_announced {
            self.forget(&client);
            socket.close(CloseCode::GOING_AWAY, NOBODY)?;
            return Ok(());
        }
        while let Some(message) = socket.recv_any() {
            if self.send(Event::Message(client.clone(), message)).is_err() {
                // Mostly it is closed already; whoever was first counts.
                socket.close(CloseCode::GOING_AWAY, NOBODY)?;
            }
        }
        self.forget(&client);
        if let Some(closed) = socket.closed() {
            self.send_late(Event::Closed(client, closed.clone()));
        }
        Ok(())
    }

    fn forget(&self, client: &Client) {
        if let Some(clients) = &mut *self.clients.lock() {
            clients.remove(&client.connection_id());
        }
    }

    /// Waits for room as long as the client is open, which TCP holds back meanwhile.
    fn send(&self, event: Event) -> Result<(), NotSent> {
        let mut event = match self.sender.try_send(event) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(event)) => event,
            Err(TrySendError::Disconnected(_)) => return Err(NotSent),
        };
        while event.client().is_connected() {
            event = match self.sender.send_timeout(event, LOOK) {
                Ok(()) => return Ok(()),
                Err(SendTimeoutError::Timeout(event)) => event,
                Err(SendTimeoutError::Disconnected(_)) => return Err(NotSent),
            };
        }
        Err(NotSent)
    }

    /// Waits until no end is late, as long as the client is open. Clients that come and go faster than the program takes
    /// events would take all the room, and the ends would pile up.
    fn wait_for_late(self: &Arc<Self>, client: &Client) {
        let mut late = self.late.lock();
        while !late.events.is_empty() && client.is_connected() {
            if self.caught_up.wait_for(&mut late, LOOK).timed_out() {
                // There may have been no thread to be had before.
                MutexGuard::unlocked(&mut late, || self.deliver());
            }
        }
    }

    /// Sends the end of a client, by a thread for all that are late if there is no room now.
    fn send_late(self: &Arc<Self>, event: Event) {
        let mut late = self.late.lock();
        let event = if late.events.is_empty() {
            match self.sender.try_send(event) {
                Err(TrySendError::Full(event)) => event,
                Ok(()) | Err(TrySendError::Disconnected(_)) => return,
            }
        } else {
            event
        };
        late.events.push_back(event);
        drop(late);
        self.deliver();
    }

    /// Has a thread deliver what is late, if there is anything and no thread does.
    fn deliver(self: &Arc<Self>) {
        let mut late = self.late.lock();
        if late.events.is_empty() || mem::replace(&mut late.is_delivered, true) {
            return;
        }
        drop(late);
        let hub = Arc::clone(self);
        let thread = thread::Builder::new().name("rwf-events".to_owned());
        if thread.spawn(move || hub.deliver_late()).is_err() {
            self.late.lock().is_delivered = false;
        }
    }

    fn deliver_late(&self) {
        loop {
            let mut late = self.late.lock();
            let Some(event) = late.events.pop_front() else {
                late.is_delivered = false;
                self.caught_up.notify_one();
                return;
            };
            drop(late);
            // When nobody takes events any more, the rest goes the same way.
            let _ = self.sender.send(event);
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
