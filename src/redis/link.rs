//! A connection to Redis that is kept: one thread reads and connects again, another writes.

use std::io::ErrorKind::{TimedOut, WouldBlock};
use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::Mutex;

use crate::base::contained::contained;
use crate::base::deadline;
use crate::redis::address::{Address, Endpoint};
use crate::redis::backoff;
use crate::redis::dialect::Dialect;
use crate::redis::dialer::Dialer;
use crate::redis::fault::Fault;
use crate::redis::handshake;
use crate::redis::node::NodeId;
use crate::redis::observers::{Arrivals, Overseer};
use crate::redis::queue::Load;
use crate::redis::read_buffer::ReadBuffer;
use crate::redis::reply_handler::ReplyHandler;
use crate::redis::settings::Settings;
use crate::redis::socket::Socket;
use crate::redis::status::Status;
use crate::redis::subscriptions::Subscriptions;
use crate::redis::tally::Tally;
use crate::redis::threads::Threads;
use crate::redis::writer::{Posted, Work, Writer};

/// The most memory that is kept for the next write, in bytes.
const MAX_KEPT: usize = 256 << 10;
/// The shortest time that a write waits for Redis to take something.
const MIN_WRITE_WAIT: Duration = Duration::from_millis(1);

pub(crate) struct Link {
    dialer: Dialer,
    node: NodeId,
    settings: Settings,
    pub(crate) writer: Arc<Writer>,
    pub(crate) subscriptions: Arc<Subscriptions>,
    pub(crate) status: Arc<Status>,
    replies: ReplyHandler,
    /// Why whoever writes has given the connection up.
    given_up: Mutex<Option<Fault>>,
}

/// Why a link could not start.
#[derive(Debug)]
pub(crate) enum NoLink {
    Fault(Fault),
    Thread(io::Error),
}

impl Link {
    /// One that is not connected. `channel` is this node's own. A shard of a Redis Cluster has an overseer.
    pub(crate) fn new(
        dialer: Dialer,
        node: NodeId,
        channel: &str,
        settings: Settings,
        arrivals: Arc<dyn Arrivals>,
        overseer: Option<Weak<dyn Overseer>>,
        tally: Arc<Tally>,
    ) -> Arc<Self> {
        let is_shard = overseer.is_some();
        let dialect = Dialect::of(is_shard);
        let writer = Arc::new(Writer::new(node, channel.into(), dialect, settings.clone()));
        // A message is sent again for as long as it may wait.
        let subscriptions = Arc::new(Subscriptions::new(settings.max_waiting_age));
        let status = Status::new(&dialer.address, is_shard, Arc::clone(&arrivals), tally);
        let status = Arc::new(status);
        let replies = ReplyHandler {
            node,
            dialect,
            writer: Arc::clone(&writer),
            subscriptions: Arc::clone(&subscriptions),
            status: Arc::clone(&status),
            arrivals,
            overseer,
        };
        let given_up = Mutex::default();
        Arc::new(Self { dialer, node, settings, writer, subscriptions, status, replies, given_up })
    }

    /// Connects, and begins to keep the connection.
    pub(crate) fn start(self: &Arc<Self>) -> Result<Threads, NoLink> {
        let buffer = self.connect().map_err(NoLink::Fault)?;
        self.status.note_up();
        self.run(Some(buffer))
    }

    /// Begins to keep a connection, which is yet to be made.
    pub(crate) fn start_later(self: &Arc<Self>) -> Result<Threads, NoLink> {
        self.run(None)
    }

    fn run(self: &Arc<Self>, buffer: Option<ReadBuffer>) -> Result<Threads, NoLink> {
        let reading = Arc::clone(self);
        let reads = thread::Builder::new().name("rwf-redis-in".to_owned());
        let reads = reads.spawn(move || reading.keep(buffer)).map_err(NoLink::Thread)?;
        let writing = Arc::clone(self);
        let writes = thread::Builder::new().name("rwf-redis-out".to_owned());
        let write = move || {
            while contained(|| writing.write_all()).is_none() {
                thread::sleep(backoff::FIRST_DELAY);
            }
        };
        match writes.spawn(write) {
            Ok(writes) => Ok(Threads(vec![reads, writes])),
            Err(error) => {
                self.writer.stop();
                let _ = reads.join();
                Err(NoLink::Thread(error))
            }
        }
    }

    /// Takes a message to the nodes that hear a channel, and tells `asker` how many do, this one included.
    pub(crate) fn post(
        &self,
        channel: &str,
        content: Vec<u8>,
        asker: Option<Sender<u64>>,
    ) -> Posted {
        self.status.note_posted(self.writer.post(channel, content, asker))
    }

    /// Waits until Redis has confirmed the subscription to a channel, if it is there.
    pub(crate) fn wait_until_held(&self, channel: &str) {
        if self.writer.is_up() {
            let deadline = deadline::after(self.settings.subscribe_timeout);
            self.subscriptions.wait_until_held(channel, deadline);
        }
    }

    pub(crate) fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    pub(crate) fn address(&self) -> &Address {
        &self.dialer.address
    }

    /// Whether it is the one to this host and port.
    pub(crate) fn is_to(&self, master: &(String, u16)) -> bool {
        let (name, number) = master;
        matches!(&self.address().endpoint, Endpoint::Tcp { host, port } if host == name && port == number)
    }

    pub(crate) fn load(&self) -> Load {
        self.writer.load()
    }

    /// Ends the connection, when what was posted is confirmed, or after `patience`. So much was not, which
    /// [`note_left_behind`](Status::note_left_behind) tells.
    #[must_use]
    pub(crate) fn stop(&self, threads: Threads, patience: Duration) -> u64 {
        self.writer.wait_until_settled(deadline::after(patience));
        let lost = self.writer.stop();
        self.subscriptions.end();
        threads.join();
        lost
    }

    /// Ends for good, where others bring its channels from now on.
    pub(crate) fn retire(&self, threads: Threads, heirs: &[Arc<Self>]) {
        let _ = self.stop(threads, Duration::ZERO);
        self.status.pass_on(heirs.iter().map(|heir| &*heir.status));
    }

    /// Writes what there is to write, until nothing is sent any more.
    fn write_all(&self) {
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            match self.writer.next(&self.subscriptions, &mut buffer) {
                Work::Write(socket) => match self.write(&socket, &buffer) {
                    Ok(()) => self.writer.wrote(&socket),
                    Err(error) => self.give_up(&socket, Fault::of_stream(&error)),
                },
                Work::Silent(socket) => {
                    self.give_up(&socket, Fault::silent(self.settings.probe_timeout));
                }
                Work::Lost(count) => self.status.note_lost(count, "it was away for too long"),
                Work::Stop => return,
            }
            if buffer.capacity() > MAX_KEPT {
                buffer = Vec::new();
            }
        }
    }

    /// Writes it whole, as long as Redis goes on taking something of it.
    fn write(&self, mut socket: &Socket, mut rest: &[u8]) -> io::Result<()> {
        let mut taken = Instant::now();
        while !rest.is_empty() {
            match socket.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => (rest, taken) = (&rest[count..], Instant::now()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), WouldBlock | TimedOut)
                        && taken.elapsed() < self.settings.probe_timeout => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Ends a connection for the thread that reads, which does the rest, and waits for that.
    fn give_up(&self, socket: &Arc<Socket>, fault: Fault) {
        if self.writer.is_up_on(socket) {
            self.given_up.lock().get_or_insert(fault);
        }
        socket.cut();
        self.writer.wait_until_fallen(socket);
    }

    /// Reads until the connection is over, connects again, and so on, until nothing is sent any more.
    fn keep(&self, mut buffer: Option<ReadBuffer>) {
        let mut failures = 0;
        loop {
            if let Some(mut buffer) = buffer {
                let began = Instant::now();
                // A node that nobody reads for would be deaf for ever.
                let fault =
                    contained(|| self.read_all(&mut buffer)).unwrap_or_else(Fault::panicked);
                drop(buffer);
                if began.elapsed() > self.settings.max_reconnect_delay {
                    failures = 0;
                }
                self.fall(fault);
            }
            buffer = loop {
                let delay = backoff::delay(failures, self.settings.max_reconnect_delay);
                if self.writer.wait_for_stop(delay) {
                    return;
                }
                failures += 1;
                match contained(|| self.connect()).unwrap_or_else(|| Err(Fault::panicked())) {
                    Ok(buffer) => break Some(buffer),
                    Err(fault) => {
                        self.replies.note_away();
                        self.status.note_still_down(&fault);
                    }
                }
            };
            self.status.note_up();
        }
    }

    fn read_all(&self, buffer: &mut ReadBuffer) -> Fault {
        loop {
            if let Err(fault) = self.read(buffer) {
                return fault;
            }
        }
    }

    /// Reads something, and handles what is whole.
    fn read(&self, buffer: &mut ReadBuffer) -> Result<(), Fault> {
        self.writer.note_waiting();
        buffer.fill()?;
        self.writer.note_life();
        self.replies.handle_all(buffer)?;
        self.writer.write_gathered();
        Ok(())
    }

    /// Connects, and subscribes to all that is wanted.
    fn connect(&self) -> Result<ReadBuffer, Fault> {
        let deadline = deadline::after(self.settings.connect_timeout);
        let socket = Arc::new(self.dialer.dial(deadline)?);
        if !self.writer.begin(&socket) {
            return Err(Fault::ended());
        }
        let mut buffer = ReadBuffer::new(Arc::clone(&socket));
        let begun = self.dialer.shake_hands(&socket, deadline);
        let opened = begun.and_then(|()| self.open(&socket, &mut buffer)).and_then(|()| {
            socket.set_read_timeout(None).map_err(|error| Fault::of_stream(&error))?;
            socket
                .set_write_timeout((self.settings.probe_timeout / 4).max(MIN_WRITE_WAIT))
                .map_err(|error| Fault::of_stream(&error))?;
            *self.given_up.lock() = None;
            if self.writer.rise(socket) { Ok(()) } else { Err(Fault::ended()) }
        });
        match opened {
            Ok(()) => Ok(buffer),
            Err(fault) => {
                self.abandon();
                Err(fault)
            }
        }
    }

    /// Has all said and answered that comes before the first message.
    fn open(&self, socket: &Socket, read: &mut ReadBuffer) -> Result<(), Fault> {
        let address = &self.dialer.address;
        let mut buffer = Vec::new();
        handshake::hello(address, self.node, &mut buffer);
        self.writer.expect("HELLO");
        self.exchange(socket, read, &mut buffer).map_err(|fault| {
            let is_tcp = matches!(address.endpoint, Endpoint::Tcp { .. });
            let has_said_nothing = read.unread().is_empty();
            if is_tcp && has_said_nothing { fault.before_all(address.is_secure) } else { fault }
        })?;
        if address.database != 0 {
            handshake::select(address, &mut buffer);
            self.writer.expect("SELECT");
            self.exchange(socket, read, &mut buffer)?;
        }
        self.subscriptions.begin();
        // A part at a time, so that the answers do not fill what Redis holds for us.
        while self.writer.subscribe(&self.subscriptions, &mut buffer) {
            self.exchange(socket, read, &mut buffer)?;
        }
        self.writer.probe(&mut buffer);
        self.exchange(socket, read, &mut buffer)
    }

    /// Writes commands, and reads until all are answered.
    fn exchange(
        &self,
        mut socket: &Socket,
        read: &mut ReadBuffer,
        buffer: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let timeout = self.settings.connect_timeout;
        let deadline = deadline::after(timeout);
        socket.set_write_timeout(timeout).map_err(|error| Fault::of_stream(&error))?;
        socket.write_all(&mem::take(buffer)).map_err(|error| Fault::of_stream(&error))?;
        while !self.writer.is_answered() {
            let left = deadline::until(deadline);
            if left.is_zero() {
                return Err(Fault::late());
            }
            socket.set_read_timeout(Some(left)).map_err(|error| Fault::of_stream(&error))?;
            self.read(read)?;
        }
        Ok(())
    }

    /// Nothing is expected of a connection any more.
    fn abandon(&self) {
        let lost = self.writer.fall();
        if lost > 0 {
            self.status.note_lost(lost, "it was away for too long");
        }
        self.subscriptions.end();
    }

    /// The connection is over.
    fn fall(&self, fault: Fault) {
        let fault = self.given_up.lock().take().unwrap_or(fault);
        self.status.note_down(&fault);
        let is_over = self.writer.wait_for_stop(Duration::ZERO);
        self.abandon();
        if is_over {
            return;
        }
        self.status.tell_down(&fault);
        self.replies.note_away();
    }
}
