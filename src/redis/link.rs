//! A connection to Redis that is kept: one thread reads and connects again, another writes.

use std::io::{self, Read, Write};
use std::mem;
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::base::contained::contained;
use crate::base::deadline;
use crate::redis::address::{Address, Endpoint};
use crate::redis::desk::{Desk, Load, Posted, Work};
use crate::redis::dialect::Dialect;
use crate::redis::dialer::Dialer;
use crate::redis::fault::{self, Fault};
use crate::redis::frame::{self, Malformed};
use crate::redis::node::NodeId;
use crate::redis::parcel::{self, Opened};
use crate::redis::pending::{Pending, Unasked};
use crate::redis::resp::{self, Greeting, Reply};
use crate::redis::sequences::Heard;
use crate::redis::settings::Settings;
use crate::redis::socket::Socket;
use crate::redis::subscriptions::Subscriptions;
use crate::redis::tally::Tally;

/// How long the first attempt to connect again waits at most; each further one twice as long.
const FIRST_DELAY: Duration = Duration::from_millis(50);
/// However short the pauses are to be, attempts are no spin.
const LEAST_DELAY: Duration = Duration::from_millis(2);
/// A line of the log that could come often comes once in this time.
const QUIET: Duration = Duration::from_secs(1);
/// Redis is away still: the log says so again after this time.
const REMINDER: Duration = Duration::from_secs(60);
const BUFFER: usize = 64 << 10;
/// For the longest string and what stands around it.
const MAX_BUFFER: usize = frame::MAX_STRING + BUFFER;
/// How long the end waits for the threads, which may be connecting.
pub(crate) const END_PATIENCE: Duration = Duration::from_secs(1);

/// What takes what comes.
pub(crate) trait Arrivals: Send + Sync {
    /// Takes a message of another node; whether it was understood. Where it `has_more` behind it that has come with it, it
    /// may wait for that, until [`rest`](Self::rest).
    fn arrive(&self, channel: &str, from: NodeId, content: &[u8], has_more: bool) -> bool;

    /// What has come is handled.
    fn rest(&self);

    /// Takes a message of this node, which it has heard itself.
    fn come_home(&self, content: &[u8]);

    /// Is told what happens to the connection. It must not wait.
    fn happen(&self, event: Event);
}

/// What decides which channels a connection to a shard of a Redis Cluster brings, where there are others.
pub(crate) trait Overseer: Send + Sync {
    /// The shard has refused the first message that waits for its answer: it does not have the slot any more.
    fn refused(&self, link: &Link);

    /// The shard has ended or refused a subscription.
    fn ended(&self, channel: &str);

    /// The shard is not there.
    fn away(&self);
}

/// What happens to a connection, and to what goes through it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Fallen { reason: String },
    Risen { after: Duration },
    Missed { from: NodeId, channel: String, count: u64 },
    Unpublished { count: u64 },
}

pub(crate) struct Link {
    dialer: Dialer,
    node: NodeId,
    settings: Settings,
    arrivals: Arc<dyn Arrivals>,
    /// Of a shard.
    overseer: Option<Weak<dyn Overseer>>,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) desk: Desk,
    pub(crate) tally: Arc<Tally>,
    health: Mutex<Health>,
    missed: Seldom,
    lost: Seldom,
}

/// How the connection is.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    pub(crate) is_up: bool,
    pub(crate) since: Instant,
    /// Why it is not, or was not the last time.
    pub(crate) reason: Option<String>,
    /// How long the last probe took.
    pub(crate) round_trip: Option<Duration>,
    /// Why whoever writes has given it up.
    given_up: Option<Fault>,
    /// When the log last said that it is away, and why.
    told: Option<(Instant, Fault)>,
}

impl Health {
    pub(crate) fn new(
        is_up: bool,
        since: Instant,
        reason: Option<String>,
        round_trip: Option<Duration>,
    ) -> Self {
        Self { is_up, since, reason, round_trip, given_up: None, told: None }
    }
}

/// Something that the log tells once a second at most, with how often it was.
#[derive(Debug, Default)]
struct Seldom(Mutex<(Option<Instant>, u64)>);

impl Seldom {
    /// How often it was since it was last told, if it is to be told now.
    fn add(&self, count: u64) -> Option<u64> {
        let mut state = self.0.lock();
        state.1 = state.1.saturating_add(count);
        if state.0.is_some_and(|told| told.elapsed() < QUIET) {
            return None;
        }
        state.0 = Some(Instant::now());
        Some(mem::take(&mut state.1))
    }
}

/// The threads of a link.
#[derive(Debug, Default)]
pub(crate) struct Threads(Vec<JoinHandle<()>>);

/// Why a link could not start.
#[derive(Debug)]
pub(crate) enum NoLink {
    Fault(Fault),
    Thread(io::Error),
}

/// What was read and not yet understood.
pub(crate) struct Inbox {
    socket: Arc<Socket>,
    buffer: Vec<u8>,
    /// What is in the buffer.
    start: usize,
    end: usize,
    /// What commands were answered with, which are still to be taken off.
    numbers: Vec<u64>,
}

impl Inbox {
    pub(crate) fn new(socket: Arc<Socket>) -> Self {
        Self { socket, buffer: vec![0; BUFFER], start: 0, end: 0, numbers: Vec::new() }
    }

    pub(crate) fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// So many bytes are understood.
    pub(crate) fn take(&mut self, count: usize) {
        self.start += count;
    }

    /// Reads more, behind what there is.
    pub(crate) fn fill(&mut self) -> Result<(), Fault> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end == 0 && self.buffer.len() > BUFFER {
            self.buffer = vec![0; BUFFER];
        }
        if self.end == self.buffer.len() {
            if self.end >= MAX_BUFFER {
                return Err(Fault::no_redis());
            }
            self.buffer.resize((2 * self.end).min(MAX_BUFFER), 0);
        }
        loop {
            match (&*self.socket).read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(Fault::ended()),
                Ok(count) => {
                    self.end += count;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Fault::of_stream(&error)),
            }
        }
    }
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
        let dialect = Dialect::of(overseer.is_some());
        Arc::new(Self {
            dialer,
            node,
            arrivals,
            overseer,
            // A message is sent again for as long as it may wait.
            subscriptions: Subscriptions::new(settings.max_waiting_age),
            desk: Desk::new(node, channel.into(), dialect, settings.clone()),
            settings,
            tally,
            health: Mutex::new(Health::new(false, Instant::now(), None, None)),
            missed: Seldom::default(),
            lost: Seldom::default(),
        })
    }

    /// Connects, and begins to keep the connection.
    pub(crate) fn start(self: &Arc<Self>) -> Result<Threads, NoLink> {
        let inbox = self.connect().map_err(NoLink::Fault)?;
        self.note_up();
        self.run(Some(inbox))
    }

    /// Begins to keep a connection, which is yet to be made.
    pub(crate) fn start_later(self: &Arc<Self>) -> Result<Threads, NoLink> {
        self.run(None)
    }

    fn run(self: &Arc<Self>, inbox: Option<Inbox>) -> Result<Threads, NoLink> {
        let reading = Arc::clone(self);
        let reads = thread::Builder::new().name("rwf-redis-in".to_owned());
        let reads = reads.spawn(move || reading.keep(inbox)).map_err(NoLink::Thread)?;
        let writing = Arc::clone(self);
        let writes = thread::Builder::new().name("rwf-redis-out".to_owned());
        let write = move || {
            while contained(|| writing.write_all()).is_none() {
                thread::sleep(FIRST_DELAY);
            }
        };
        match writes.spawn(write) {
            Ok(writes) => Ok(Threads(vec![reads, writes])),
            Err(error) => {
                self.desk.stop();
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
        self.note_posted(self.desk.post(channel, content, asker))
    }

    /// Has it told what was lost, where no lock is held.
    pub(crate) fn note_posted(&self, posted: Posted) -> Posted {
        match posted {
            Posted::Handed | Posted::Waiting => {}
            Posted::Lost => self.note_lost(1, "no more may wait for it"),
            Posted::TooLarge => self.note_lost(1, "it is larger than `max_message_size`"),
        }
        posted
    }

    /// Waits until Redis has confirmed the subscription to a channel, if it is there.
    pub(crate) fn wait_until_held(&self, channel: &str) {
        if self.desk.is_up() {
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

    pub(crate) fn health(&self) -> Health {
        self.health.lock().clone()
    }

    pub(crate) fn load(&self) -> Load {
        self.desk.load()
    }

    /// Ends the connection, when what was posted is confirmed, or after `patience`. So much was not, which
    /// [`note_left_behind`](Self::note_left_behind) tells.
    #[must_use]
    pub(crate) fn stop(&self, threads: Threads, patience: Duration) -> u64 {
        self.desk.wait_until_settled(deadline::after(patience));
        let lost = self.desk.stop();
        self.subscriptions.end();
        let deadline = deadline::after(END_PATIENCE);
        for thread in threads.0 {
            while !thread.is_finished() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            // One that connects ends by itself when it has, or has not.
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
        lost
    }

    pub(crate) fn note_left_behind(&self, count: u64) {
        if count > 0 {
            self.note_lost(count, "this node leaves the cluster");
        }
    }

    /// Writes what there is to write, until nothing is sent any more.
    fn write_all(&self) {
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            match self.desk.next(&self.subscriptions, &mut buffer) {
                Work::Write(socket) => match (&*socket).write_all(&buffer) {
                    Ok(()) => self.desk.wrote(&socket),
                    Err(error) => self.give_up(&socket, Fault::of_stream(&error)),
                },
                Work::Silent(socket) => {
                    self.give_up(&socket, Fault::silent(self.settings.probe_timeout));
                }
                Work::Lost(count) => self.note_lost(count, "it was away for too long"),
                Work::Stop => return,
            }
            if buffer.capacity() > 4 * BUFFER {
                buffer = Vec::new();
            }
        }
    }

    /// Ends a connection for the thread that reads, which does the rest, and waits for that.
    fn give_up(&self, socket: &Arc<Socket>, fault: Fault) {
        if self.desk.is_up_on(socket) {
            self.health.lock().given_up.get_or_insert(fault);
        }
        socket.cut();
        self.desk.wait_until_fallen(socket);
    }

    /// Reads until the connection is over, connects again, and so on, until nothing is sent any more.
    fn keep(&self, mut inbox: Option<Inbox>) {
        let mut failures = 0;
        loop {
            if let Some(mut inbox) = inbox {
                let began = Instant::now();
                // A node that nobody reads for would be deaf for ever.
                let fault = contained(|| self.read_all(&mut inbox)).unwrap_or_else(Fault::panicked);
                drop(inbox);
                if began.elapsed() > self.settings.max_reconnect_delay {
                    failures = 0;
                }
                self.fall(fault);
            }
            inbox = loop {
                if self.desk.wait_for_stop(delay(failures, self.settings.max_reconnect_delay)) {
                    return;
                }
                failures += 1;
                match contained(|| self.connect()).unwrap_or_else(|| Err(Fault::panicked())) {
                    Ok(inbox) => break Some(inbox),
                    Err(fault) => self.note_away(&fault),
                }
            };
            self.note_up();
        }
    }

    fn read_all(&self, inbox: &mut Inbox) -> Fault {
        loop {
            if let Err(fault) = self.read(inbox) {
                return fault;
            }
        }
    }

    /// Reads something, and handles what is whole.
    fn read(&self, inbox: &mut Inbox) -> Result<(), Fault> {
        self.desk.note_waiting();
        inbox.fill()?;
        self.desk.note_life();
        let handled = self.handle_all(inbox);
        contained(|| self.arrivals.rest());
        handled?;
        self.desk.write_gathered();
        Ok(())
    }

    fn handle_all(&self, inbox: &mut Inbox) -> Result<(), Fault> {
        loop {
            match resp::parse(&inbox.buffer[inbox.start..inbox.end]) {
                Ok(Some((reply, length))) => {
                    inbox.start += length;
                    let has_more = inbox.start < inbox.end;
                    self.handle(&reply, has_more, &mut inbox.numbers)?;
                }
                Ok(None) => return self.confirm(&mut inbox.numbers),
                Err(Malformed) => return Err(Fault::no_redis()),
            }
        }
    }

    /// Takes off the commands that were answered with numbers: how many hear what was published.
    fn confirm(&self, numbers: &mut Vec<u64>) -> Result<(), Fault> {
        if numbers.is_empty() {
            return Ok(());
        }
        let confirmed = self.desk.confirm(numbers.len()).map_err(|Unasked| Fault::no_redis())?;
        let mut published = 0;
        for (pending, count) in confirmed.into_iter().zip(numbers.drain(..)) {
            if let Pending::Publish(parcel) = pending {
                published += 1;
                if let Some(asker) = parcel.asker {
                    // Whoever asked may have given up.
                    let _ = asker.try_send(count);
                }
            }
        }
        self.tally.published.add(published);
        Ok(())
    }

    fn handle(
        &self,
        reply: &Reply<'_>,
        has_more: bool,
        numbers: &mut Vec<u64>,
    ) -> Result<(), Fault> {
        let unasked = |Unasked| Fault::no_redis();
        // Commands are answered in their order.
        if !matches!(reply, Reply::Message { .. } | Reply::Number(_)) {
            self.confirm(numbers)?;
        }
        match reply {
            Reply::Message { channel, payload } => self.open(channel, payload, has_more),
            Reply::Number(number) => numbers.push(*number),
            Reply::Subscribed => {
                let (name, order) = self.desk.subscribed().map_err(unasked)?;
                self.subscriptions.hold(&name, order);
            }
            Reply::Unsubscribed(channel) if self.overseer.is_some() => {
                let channel = String::from_utf8_lossy(channel);
                if self.subscriptions.lose(&channel) {
                    self.note_ended(&channel);
                }
            }
            Reply::Unsubscribed(_) => self.desk.unsubscribed().map_err(unasked)?,
            Reply::Error(error) => self.handle_error(error)?,
            Reply::Greeting(greeting) => {
                let answered = self.desk.answered().map_err(unasked)?;
                self.check(greeting)?;
                if !matches!(answered, Pending::Leave)
                    && let Some(time) = self.desk.greeted()
                {
                    self.health.lock().round_trip = Some(time);
                }
            }
            Reply::Slots(_) | Reply::Done => drop(self.desk.answered().map_err(unasked)?),
            Reply::Other => {}
        }
        Ok(())
    }

    fn check(&self, greeting: &Greeting<'_>) -> Result<(), Fault> {
        match greeting {
            Greeting { role: b"replica" | b"slave", .. } => Err(Fault::replica()),
            Greeting { mode, .. } if (*mode == b"cluster") != self.overseer.is_some() => {
                Err(Fault::redis_cluster(*mode == b"cluster"))
            }
            _ => Ok(()),
        }
    }

    fn dialect(&self) -> Dialect {
        Dialect::of(self.overseer.is_some())
    }

    fn overseer(&self) -> Option<Arc<dyn Overseer>> {
        self.overseer.as_ref()?.upgrade()
    }

    fn note_ended(&self, channel: &str) {
        if let Some(overseer) = self.overseer() {
            overseer.ended(channel);
        }
    }

    fn handle_error(&self, error: &[u8]) -> Result<(), Fault> {
        let dialect = self.dialect();
        let is_elsewhere = self.overseer.is_some() && fault::is_elsewhere(error);
        // Where the slot is not, no subscription is.
        if is_elsewhere && self.desk.is_leaving() {
            return Ok(());
        }
        if is_elsewhere
            && self.desk.first_channel().is_some()
            && let Some(overseer) = self.overseer()
        {
            overseer.refused(self);
        }
        match self.desk.answered() {
            // It may take the next one.
            Ok(Pending::Publish(_)) => {
                self.note_lost(1, &Fault::answer(dialect.publish(), error).to_string());
                Ok(())
            }
            Ok(Pending::Taken) => Ok(()),
            Ok(Pending::Subscribe(channels)) if is_elsewhere => {
                channels.iter().for_each(|(channel, _)| self.note_ended(channel));
                Ok(())
            }
            Ok(Pending::Leave) => Err(Fault::answer(dialect.unsubscribe(), error)),
            Ok(Pending::Probe) => Err(Fault::answer(dialect.publish(), error)),
            Ok(Pending::Subscribe(_)) => Err(Fault::answer(dialect.subscribe(), error)),
            Ok(Pending::Unsubscribe(_)) => Err(Fault::answer(dialect.unsubscribe(), error)),
            Ok(Pending::Command(name)) => Err(Fault::answer(name, error)),
            Err(Unasked) => Err(Fault::answer("connection", error)),
        }
    }

    fn open(&self, channel: &[u8], payload: &[u8], has_more: bool) {
        // All of ours are.
        let Ok(channel) = std::str::from_utf8(channel) else { return };
        match parcel::open(payload) {
            Opened::Parcel { from, content, .. } if from == self.node => {
                contained(|| self.arrivals.come_home(content));
            }
            Opened::Parcel { from, place, content } => {
                match self.subscriptions.hear(channel, from, place) {
                    // Whoever wanted to hear it has gone.
                    None => return,
                    Some(Heard::Again) => return self.tally.repeated.add(1),
                    Some(Heard::After(count)) => self.note_missed(from, channel, count),
                    Some(Heard::Next) => {}
                }
                match contained(|| self.arrivals.arrive(channel, from, content, has_more)) {
                    Some(false) => self.tally.unknown.add(1),
                    _ => self.tally.received.add(1),
                }
            }
            Opened::Probe(number) => {
                if let Some(time) = self.desk.probe_came(number) {
                    self.health.lock().round_trip = Some(time);
                }
            }
            Opened::Unknown => self.tally.unknown.add(1),
        }
    }

    /// Connects, and subscribes to all that is wanted.
    fn connect(&self) -> Result<Inbox, Fault> {
        let deadline = deadline::after(self.settings.connect_timeout);
        let socket = Arc::new(self.dialer.dial(deadline)?);
        if !self.desk.begin(&socket) {
            return Err(Fault::ended());
        }
        let mut inbox = Inbox::new(Arc::clone(&socket));
        let begun = self.dialer.shake_hands(&socket, deadline);
        let opened = begun.and_then(|()| self.open_connection(&mut inbox)).and_then(|()| {
            socket.set_read_timeout(None).map_err(|error| Fault::of_stream(&error))?;
            socket
                .set_write_timeout(self.settings.probe_timeout)
                .map_err(|error| Fault::of_stream(&error))?;
            self.health.lock().given_up = None;
            if self.desk.rise(socket) { Ok(()) } else { Err(Fault::ended()) }
        });
        match opened {
            Ok(()) => Ok(inbox),
            Err(fault) => {
                self.abandon();
                Err(fault)
            }
        }
    }

    fn open_connection(&self, inbox: &mut Inbox) -> Result<(), Fault> {
        let mut buffer = Vec::new();
        hello(&self.dialer.address, self.node, &mut buffer);
        self.desk.expect("HELLO");
        self.exchange(inbox, &mut buffer).map_err(|fault| {
            let Dialer { address, .. } = &self.dialer;
            let is_tcp = matches!(address.endpoint, Endpoint::Tcp { .. });
            if is_tcp && inbox.end == 0 { fault.before_all(address.is_secure) } else { fault }
        })?;
        if self.dialer.address.database != 0 {
            let database = self.dialer.address.database.to_string();
            resp::command(&mut buffer, &[b"SELECT", database.as_bytes()]);
            self.desk.expect("SELECT");
            self.exchange(inbox, &mut buffer)?;
        }
        self.subscriptions.begin();
        // A part at a time, so that the answers do not fill what Redis holds for us.
        while self.desk.subscribe(&self.subscriptions, &mut buffer) {
            self.exchange(inbox, &mut buffer)?;
        }
        self.desk.probe(&mut buffer);
        self.exchange(inbox, &mut buffer)
    }

    /// Writes commands, and reads until all are answered.
    fn exchange(&self, inbox: &mut Inbox, buffer: &mut Vec<u8>) -> Result<(), Fault> {
        let timeout = self.settings.connect_timeout;
        let deadline = deadline::after(timeout);
        let socket = Arc::clone(&inbox.socket);
        socket.set_write_timeout(timeout).map_err(|error| Fault::of_stream(&error))?;
        (&*socket).write_all(&mem::take(buffer)).map_err(|error| Fault::of_stream(&error))?;
        while !self.desk.is_answered() {
            let left = deadline::until(deadline);
            if left.is_zero() {
                return Err(Fault::late());
            }
            socket.set_read_timeout(Some(left)).map_err(|error| Fault::of_stream(&error))?;
            self.read(inbox)?;
        }
        Ok(())
    }

    /// Nothing is expected of a connection any more.
    fn abandon(&self) {
        let lost = self.desk.fall();
        if lost > 0 {
            self.note_lost(lost, "it was away for too long");
        }
        self.subscriptions.end();
    }

    /// The connection is over.
    fn fall(&self, fault: Fault) {
        let fault = self.health.lock().given_up.take().unwrap_or(fault);
        {
            let mut health = self.health.lock();
            health.is_up = false;
            health.since = Instant::now();
            health.reason = Some(fault.to_string());
            health.told = Some((Instant::now(), fault.clone()));
        }
        let is_over = self.desk.wait_for_stop(Duration::ZERO);
        self.abandon();
        if is_over {
            return;
        }
        let address = &self.dialer.address;
        contained(|| {
            if self.overseer.is_some() {
                log::warn!(target: "rwf::cluster", "a shard is away redis={address}: {fault}");
            } else {
                log::warn!(target: "rwf::cluster", "this node is on its own redis={address}: {fault}");
            }
        });
        let reason = match self.overseer {
            None => fault.to_string(),
            Some(_) => format!("the shard {address}: {fault}"),
        };
        self.arrivals.happen(Event::Fallen { reason });
        self.note_not_there();
    }

    fn note_not_there(&self) {
        if let Some(overseer) = self.overseer() {
            overseer.away();
        }
    }

    /// The log tells when another reason is found, and now and then.
    fn note_away(&self, fault: &Fault) {
        self.note_not_there();
        let (address, mut health) = (&self.dialer.address, self.health.lock());
        let time = health.since.elapsed();
        health.reason = Some(fault.to_string());
        let is_known =
            |(told, known): &(Instant, Fault)| known == fault && told.elapsed() < REMINDER;
        if health.told.as_ref().is_some_and(is_known) {
            return;
        }
        health.told = Some((Instant::now(), fault.clone()));
        drop(health);
        contained(|| {
            if self.overseer.is_some() {
                log::warn!(
                    target: "rwf::cluster",
                    "a shard is still away redis={address} after={time:.1?}: {fault}"
                );
            } else {
                log::warn!(
                    target: "rwf::cluster",
                    "this node is still on its own redis={address} after={time:.1?}: {fault}"
                );
            }
        });
    }

    fn note_up(&self) {
        let mut health = self.health.lock();
        let (time, was_away) = (health.since.elapsed(), health.told.take().is_some());
        // Whoever sees that it is up sees that too.
        self.tally.reconnects.add(was_away.into());
        (health.is_up, health.since) = (true, Instant::now());
        drop(health);
        if !was_away {
            return;
        }
        let address = &self.dialer.address;
        contained(|| {
            if self.overseer.is_some() {
                log::info!(
                    target: "rwf::cluster",
                    "a shard is back redis={address} after={time:.1?}"
                );
            } else {
                log::info!(
                    target: "rwf::cluster",
                    "this node is back in the cluster redis={address} after={time:.1?}"
                );
            }
        });
        self.arrivals.happen(Event::Risen { after: time });
    }

    /// Ends for good, where others bring its channels from now on: they are back when its heirs are, of which the first that is
    /// not there yet tells so.
    pub(crate) fn retire(&self, threads: Threads, heirs: &[Arc<Self>]) {
        let _ = self.stop(threads, Duration::ZERO);
        let mut health = self.health.lock();
        let (since, told) = (health.since, health.told.take());
        drop(health);
        let Some(told) = told else { return };
        for heir in heirs {
            let mut health = heir.health.lock();
            if !health.is_up {
                health.since = health.since.min(since);
                health.told.get_or_insert(told);
                return;
            }
        }
        self.tally.reconnects.add(1);
        self.arrivals.happen(Event::Risen { after: since.elapsed() });
    }

    fn note_missed(&self, from: NodeId, channel: &str, count: u64) {
        self.tally.missed.add_claimed(count);
        if let Some(count) = self.missed.add(count) {
            contained(|| {
                log::warn!(
                    target: "rwf::cluster",
                    "messages of another node did not get here node={from} missed={count}"
                );
            });
        }
        self.arrivals.happen(Event::Missed { from, channel: channel.to_owned(), count });
    }

    pub(crate) fn note_lost(&self, count: u64, why: &str) {
        self.tally.lost.add(count);
        if let Some(count) = self.lost.add(count) {
            let address = &self.dialer.address;
            contained(|| {
                log::warn!(
                    target: "rwf::cluster",
                    "messages did not get to other nodes redis={address} lost={count}: {why}"
                );
            });
        }
        self.arrivals.happen(Event::Unpublished { count });
    }
}

/// Writes the command that every connection begins with.
pub(crate) fn hello(address: &Address, node: NodeId, buffer: &mut Vec<u8>) {
    let name = format!("rwf-{node}");
    let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
    if let Some(credentials) = &address.credentials {
        hello.extend([b"AUTH", credentials.user.as_bytes(), credentials.password.as_bytes()]);
    }
    hello.extend([&b"SETNAME"[..], name.as_bytes()]);
    resp::command(buffer, &hello);
}

/// How long to wait after so many failures: at random up to a time that doubles, so that not all nodes come back at once.
pub(crate) fn delay(failures: u32, most: Duration) -> Duration {
    let most = FIRST_DELAY.saturating_mul(1 << failures.min(16)).min(most).max(LEAST_DELAY);
    let random = Uuid::new_v4().as_u64_pair().1 as u16;
    most / 2 + most.mul_f64(f64::from(random) / f64::from(u16::MAX)) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_seldom_is_added_up_whatever_number_comes() {
        let seldom = Seldom::default();
        assert_eq!(seldom.add(1), Some(1));
        assert_eq!([u64::MAX, u64::MAX].map(|count| seldom.add(count)), [None; 2]);
        seldom.0.lock().0 = None;
        assert_eq!(seldom.add(1), Some(u64::MAX));
    }

    #[test]
    fn pauses_grow_up_to_their_limit_and_are_never_a_spin() {
        let ms = Duration::from_millis;
        for (failures, most, expected) in [
            (0, ms(5000), ms(25)..=ms(50)),
            (3, ms(5000), ms(200)..=ms(400)),
            (u32::MAX, ms(5000), ms(2500)..=ms(5000)),
            (u32::MAX, Duration::from_nanos(1), ms(1)..=ms(2)),
        ] {
            let delay = delay(failures, most);
            assert!(expected.contains(&delay), "{failures} {most:?}: {delay:?}");
        }
    }
}
