//! What waits to be written to Redis, and what was written and is not confirmed: under limits, and in order.
//!
//! Whoever posts a message never waits. There is one write half, the right to write: it lies here while nobody writes, and
//! whoever posts takes it, and writes what the system takes at once. What is left is for a thread that waits for Redis to
//! take it.
//!
//! While much is not confirmed, messages come in quick succession, and a write for each would cost more than they do: then
//! they gather. Another thread reads, takes off what Redis answers, and writes what has gathered meanwhile; when much has
//! gathered before an answer comes, whoever posts writes it.
//!
//! When a connection ends, what it has not confirmed is written once more on the next one: those who had it already see that
//! by its number.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::base::deadline;
use crate::redis::dialect::Dialect;
use crate::redis::node::NodeId;
use crate::redis::parcel::{self, Parcel};
use crate::redis::pending::{self, Pending, Unasked};
use crate::redis::resp;
use crate::redis::sequences::Sequences;
use crate::redis::settings::Settings;
use crate::redis::socket::Socket;
use crate::redis::subscriptions::{Order, Subscriptions};

/// How many bytes are gathered for one write.
const BATCH: usize = 64 << 10;
/// A message up to this length is written by whoever posts it. A longer one would not be taken at once.
const SHORT: usize = 16 << 10;
/// While so many commands are not answered, messages gather,
const MANY_UNANSWERED: usize = 16;
/// until they are so many.
const MANY_WAITING: usize = 64;
/// How often a thread that posts writes for others that have posted meanwhile, before it leaves that to the thread that
/// writes.
const MAX_ROUNDS: usize = 4;
/// How many channels one command names.
const MAX_CHANNELS: usize = 500;

/// The thread that reads has something to do.
const BUSY: u64 = u64::MAX;

#[derive(Debug)]
pub(crate) struct Desk {
    node: NodeId,
    /// The channel of this node, which its probes go through.
    channel: Arc<str>,
    dialect: Dialect,
    settings: Settings,
    state: Mutex<State>,
    /// There is something to write, or the phase has changed.
    to_write: Condvar,
    /// All is confirmed, or the phase has changed.
    settled: Condvar,
    began: Instant,
    /// Since when the thread that reads waits for Redis to say something, in milliseconds since then, or [`BUSY`].
    waits_since: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    write_half: WriteHalf,
    /// The thread that writes is next: others leave the write half to it.
    is_awaited: bool,
    /// Kept for the next write of a thread that posts.
    buffer: Vec<u8>,
    waiting: VecDeque<Parcel>,
    pending: VecDeque<Pending>,
    /// What all of these parcels cost.
    bytes: usize,
    sequences: Sequences,
    has_orders: bool,
    probe: Option<Probe>,
    /// The number of the last probe.
    probes: u64,
    next_probe: Option<Instant>,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Down,
    /// One thread does everything on it.
    Connecting(Arc<Socket>),
    Up(Arc<Socket>),
    Stopped,
}

/// Where the right to write to a connection that is up is.
#[derive(Debug, Default)]
enum WriteHalf {
    /// Here: nobody writes.
    #[default]
    Free,
    /// With whoever writes.
    Taken,
    /// Here, with the rest of what Redis has not taken at once, for the thread that writes.
    Blocked(Vec<u8>),
}

/// One that has not come back.
#[derive(Debug, Clone, Copy)]
struct Probe {
    number: u64,
    sent: Instant,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Posted {
    Handed,
    /// Redis is away, and may come back in time.
    Waiting,
    /// As much as may wait does so already, or nothing is sent any more.
    Lost,
    /// It is larger than a message may be.
    TooLarge,
}

/// What there is to do for the thread that writes.
#[derive(Debug)]
pub(crate) enum Work {
    /// To write what was put into the buffer.
    Write(Arc<Socket>),
    /// To give up the connection, on which nothing comes.
    Silent(Arc<Socket>),
    /// To tell that so many messages have waited too long.
    Lost(u64),
    Stop,
}

/// How much waits, for people.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Desk {
    pub(crate) fn new(
        node: NodeId,
        channel: Arc<str>,
        dialect: Dialect,
        settings: Settings,
    ) -> Self {
        Self {
            node,
            channel,
            dialect,
            settings,
            state: Mutex::default(),
            to_write: Condvar::new(),
            settled: Condvar::new(),
            began: Instant::now(),
            waits_since: AtomicU64::new(BUSY),
        }
    }

    /// Takes a message on its way out. Whoever asks is told how many nodes hear it.
    pub(crate) fn post(
        &self,
        channel: &str,
        content: Vec<u8>,
        asker: Option<Sender<u64>>,
    ) -> Posted {
        let posted = Instant::now();
        let mut state = self.state.lock();
        // One that is lost has a number too, so that its absence is seen.
        let (channel, place) = state.sequences.next(channel);
        let posted = self.lay_down(&mut state, Parcel { channel, place, content, posted, asker });
        self.write_or_gather(state);
        posted
    }

    /// Lays down a message that has its number, for whoever calls [`write_posted`](Self::write_posted) afterwards: this may be
    /// done under a lock, since nothing is written.
    pub(crate) fn lay_down_numbered(&self, parcel: Parcel) -> Posted {
        self.lay_down(&mut self.state.lock(), parcel)
    }

    /// Writes what was laid down, unless it is to gather.
    pub(crate) fn write_posted(&self) {
        self.write_or_gather(self.state.lock());
    }

    fn lay_down(&self, state: &mut State, parcel: Parcel) -> Posted {
        let cost = parcel.cost();
        let posted = match state.phase {
            Phase::Stopped => return Posted::Lost,
            _ if parcel.content.len() > self.settings.max_message_size => return Posted::TooLarge,
            // One always fits an empty desk.
            _ if state.bytes > 0 && state.bytes + cost > self.settings.max_waiting_bytes => {
                return Posted::Lost;
            }
            Phase::Up(_) => Posted::Handed,
            Phase::Down | Phase::Connecting(_) => Posted::Waiting,
        };
        state.bytes += cost;
        state.waiting.push_back(parcel);
        posted
    }

    fn write_or_gather(&self, state: MutexGuard<'_, State>) {
        // Unless somebody has written it already.
        let Some(last) = state.waiting.back() else { return };
        if !matches!(state.phase, Phase::Up(_)) {
            // It says when the message has waited for too long.
            drop(state);
            self.to_write.notify_one();
        } else if last.cost() > SHORT {
            self.leave(state);
        } else if state.is_to_be_written_now() {
            self.write_now(state);
        }
    }

    /// Leaves what waits to the thread that writes.
    fn leave(&self, mut state: MutexGuard<'_, State>) {
        state.is_awaited = true;
        drop(state);
        self.to_write.notify_one();
    }

    /// Writes what waits, if nobody else does. For the thread that reads, when Redis has answered.
    pub(crate) fn write_gathered(&self) {
        let state = self.state.lock();
        if !state.waiting.is_empty() && state.may_write() {
            self.write_now(state);
        }
    }

    /// Writes what waits, as far as it is taken at once. The caller has seen that it may.
    fn write_now(&self, mut state: MutexGuard<'_, State>) {
        for _ in 0..MAX_ROUNDS {
            let Phase::Up(socket) = &state.phase else { return };
            let socket = Arc::clone(socket);
            let mut buffer = mem::take(&mut state.buffer);
            state.pack(self.node, self.dialect, &mut buffer);
            state.write_half = WriteHalf::Taken;
            let written = MutexGuard::unlocked(&mut state, || socket.write_now(&buffer));
            if !state.is_up_on(&socket) {
                return;
            }
            // The thread that writes finds an error again, and ends the connection.
            let written = written.unwrap_or(0);
            if written < buffer.len() {
                buffer.drain(..written);
                state.write_half = WriteHalf::Blocked(buffer);
                break;
            }
            state.write_half = WriteHalf::Free;
            state.keep(buffer);
            if state.is_awaited || state.waiting.is_empty() {
                break;
            }
        }
        if !state.waiting.is_empty() || !state.may_write() {
            self.leave(state);
        }
    }

    /// Takes out the messages that are meant, in their order, which another connection brings from now on. Some of them may
    /// have been written already, and are written once more there.
    pub(crate) fn take_out(&self, is_meant: impl Fn(&str) -> bool) -> Vec<Parcel> {
        let mut state = self.state.lock();
        let mut taken = Vec::new();
        for pending in &mut state.pending {
            if matches!(pending, Pending::Publish(parcel) if is_meant(&parcel.channel))
                && let Pending::Publish(parcel) = mem::replace(pending, Pending::Taken)
            {
                taken.push(parcel);
            }
        }
        let waiting = mem::take(&mut state.waiting);
        let (moved, kept): (Vec<_>, _) =
            waiting.into_iter().partition(|parcel| is_meant(&parcel.channel));
        state.waiting = kept.into();
        taken.extend(moved);
        state.bytes -= taken.iter().map(Parcel::cost).sum::<usize>();
        self.tell_if_settled(&state);
        taken
    }

    /// Takes over messages from another connection, however much waits here.
    pub(crate) fn take_over(&self, parcels: Vec<Parcel>) {
        let mut state = self.state.lock();
        state.bytes += parcels.iter().map(Parcel::cost).sum::<usize>();
        state.waiting.extend(parcels);
        drop(state);
        self.to_write.notify_one();
    }

    /// Whose message is the one that was answered, if that is not somewhere else meanwhile.
    pub(crate) fn first_channel(&self) -> Option<Arc<str>> {
        match self.state.lock().pending.front() {
            Some(Pending::Publish(parcel)) => Some(Arc::clone(&parcel.channel)),
            _ => None,
        }
    }

    /// There are orders for [`Subscriptions`] to be written.
    pub(crate) fn ring(&self) {
        self.state.lock().has_orders = true;
        self.to_write.notify_one();
    }

    pub(crate) fn is_up(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Up(_))
    }

    /// Whether Redis is there and little waits for it, for what may as well be said later.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.state.lock();
        matches!(state.phase, Phase::Up(_)) && state.bytes <= self.settings.max_waiting_bytes / 2
    }

    pub(crate) fn is_up_on(&self, socket: &Arc<Socket>) -> bool {
        self.state.lock().is_up_on(socket)
    }

    pub(crate) fn load(&self) -> Load {
        let state = self.state.lock();
        Load { messages: state.waiting.len() + state.unconfirmed(), bytes: state.bytes }
    }

    /// Waits for something to do. What is to be written is put into `buffer`, which is empty; whoever has written it says so
    /// by [`wrote`](Self::wrote).
    pub(crate) fn next(&self, subscriptions: &Subscriptions, buffer: &mut Vec<u8>) -> Work {
        let mut state = self.state.lock();
        loop {
            state.is_awaited = false;
            let now = Instant::now();
            let lost = state.expire(now, self.settings.max_waiting_age);
            if lost > 0 {
                return Work::Lost(lost);
            }
            let oldest = state.waiting.front().map(|parcel| parcel.posted);
            let until = match &state.phase {
                Phase::Stopped => return Work::Stop,
                Phase::Down | Phase::Connecting(_) => {
                    oldest.map(|posted| later(posted, self.settings.max_waiting_age))
                }
                Phase::Up(socket) => {
                    let socket = Arc::clone(socket);
                    let silent_at = state.probe.map(|probe| self.silent_at(probe, now));
                    if silent_at.is_some_and(|at| at <= now) {
                        return Work::Silent(socket);
                    }
                    match mem::replace(&mut state.write_half, WriteHalf::Taken) {
                        WriteHalf::Free => self.fill(&mut state, subscriptions, now, buffer),
                        WriteHalf::Blocked(rest) => *buffer = rest,
                        // Soon over: others do not wait for Redis.
                        WriteHalf::Taken => {
                            state.is_awaited = true;
                            self.to_write.wait(&mut state);
                            continue;
                        }
                    }
                    if !buffer.is_empty() {
                        return Work::Write(socket);
                    }
                    state.write_half = WriteHalf::Free;
                    silent_at.or(state.next_probe)
                }
            };
            match until {
                Some(until) => drop(self.to_write.wait_until(&mut state, until)),
                None => self.to_write.wait(&mut state),
            }
        }
    }

    /// The thread that writes has written what there was to write.
    pub(crate) fn wrote(&self, socket: &Arc<Socket>) {
        let mut state = self.state.lock();
        if state.is_up_on(socket) {
            state.write_half = WriteHalf::Free;
        }
    }

    /// Puts what is next into `buffer`, and notes what will be answered.
    fn fill(
        &self,
        state: &mut State,
        subscriptions: &Subscriptions,
        now: Instant,
        buffer: &mut Vec<u8>,
    ) {
        if state.has_orders {
            state.has_orders = self.write_orders(state, subscriptions, buffer);
        }
        state.pack(self.node, self.dialect, buffer);
        if state.probe.is_none() && state.next_probe.is_none_or(|at| at <= now) {
            self.write_probe(state, now, buffer);
        }
    }

    /// Writes some of the orders; whether there may be more.
    fn write_orders(
        &self,
        state: &mut State,
        subscriptions: &Subscriptions,
        buffer: &mut Vec<u8>,
    ) -> bool {
        let orders = subscriptions.take_orders(MAX_CHANNELS);
        let Some(first) = orders.first() else { return false };
        let name = match first {
            Order::Subscribe(..) => self.dialect.subscribe().as_bytes(),
            Order::Unsubscribe(_) => self.dialect.unsubscribe().as_bytes(),
        };
        if self.dialect == Dialect::Sharded {
            let is_leaving = matches!(first, Order::Unsubscribe(_));
            // A command may name channels of one slot alone.
            for order in orders {
                let (Order::Subscribe(channel, _) | Order::Unsubscribe(channel)) = &order;
                resp::command(buffer, &[name, channel.as_bytes()]);
                if let Order::Subscribe(name, number) = order {
                    state.pending.push_back(Pending::Subscribe([(name, number)].into()));
                }
            }
            if is_leaving {
                resp::command(buffer, &[b"HELLO"]);
                state.pending.push_back(Pending::Leave);
            }
            return true;
        }
        resp::array(buffer, 1 + orders.len());
        resp::bulk(buffer, &[name]);
        let mut subscribed = VecDeque::new();
        let count = orders.len();
        for order in orders {
            let (Order::Subscribe(name, _) | Order::Unsubscribe(name)) = &order;
            resp::bulk(buffer, &[name.as_bytes()]);
            if let Order::Subscribe(name, number) = order {
                subscribed.push_back((name, number));
            }
        }
        let is_subscribing = !subscribed.is_empty();
        state.pending.push_back(match is_subscribing {
            true => Pending::Subscribe(subscribed),
            false => Pending::Unsubscribe(count),
        });
        true
    }

    /// Has a message come back to this node, and has Redis say what it is: a master may become a replica.
    fn write_probe(&self, state: &mut State, now: Instant, buffer: &mut Vec<u8>) {
        state.probes += 1;
        let number = state.probes;
        // Of a shard no channel is this node's for sure; that it answers has to do.
        if self.dialect == Dialect::Plain {
            parcel::write_probe(&self.channel, number, buffer);
            state.pending.push_back(Pending::Probe);
        }
        resp::command(buffer, &[b"HELLO"]);
        state.pending.push_back(Pending::Command("HELLO"));
        state.probe = Some(Probe { number, sent: now });
        state.next_probe = Some(later(now, self.settings.probe_interval));
    }

    /// When a connection whose probe has not come back counts as dead, if nothing comes until then. Anything that comes is a
    /// sign of life: the probe may stand behind much of it, and what keeps this node busy is not the fault of Redis.
    fn silent_at(&self, probe: Probe, now: Instant) -> Instant {
        let since = match self.waits_since.load(Ordering::Relaxed) {
            BUSY => now,
            since => probe.sent.max(self.began + Duration::from_millis(since)),
        };
        later(since, self.settings.probe_timeout)
    }

    /// From now on the thread that reads waits for Redis.
    pub(crate) fn note_waiting(&self) {
        let time = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(BUSY);
        self.waits_since.store(time, Ordering::Relaxed);
    }

    /// Redis has said something.
    pub(crate) fn note_life(&self) {
        self.waits_since.store(BUSY, Ordering::Relaxed);
    }

    /// A probe has come back; how long that took.
    pub(crate) fn probe_came(&self, number: u64) -> Option<Duration> {
        let mut state = self.state.lock();
        let probe = state.probe.take_if(|probe| probe.number == number)?;
        Some(probe.sent.elapsed())
    }

    /// Redis has said what it is, which answers a probe where none is published.
    pub(crate) fn greeted(&self) -> Option<Duration> {
        let number = match self.dialect {
            Dialect::Plain => return None,
            Dialect::Sharded => self.state.lock().probe?.number,
        };
        self.probe_came(number)
    }

    /// Begins a connection, on which the calling thread does everything for now; whether it is wanted.
    pub(crate) fn begin(&self, socket: &Arc<Socket>) -> bool {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Stopped) {
            return false;
        }
        state.phase = Phase::Connecting(Arc::clone(socket));
        true
    }

    /// Notes a command that the thread that connects has written.
    pub(crate) fn expect(&self, name: &'static str) {
        self.state.lock().pending.push_back(Pending::Command(name));
    }

    /// The next orders to subscribe, for the thread that connects; whether there were any.
    pub(crate) fn subscribe(&self, subscriptions: &Subscriptions, buffer: &mut Vec<u8>) -> bool {
        self.write_orders(&mut self.state.lock(), subscriptions, buffer)
    }

    /// A probe, for the thread that connects.
    pub(crate) fn probe(&self, buffer: &mut Vec<u8>) {
        self.write_probe(&mut self.state.lock(), Instant::now(), buffer);
    }

    /// Whether all commands were answered, and the probe has come.
    pub(crate) fn is_answered(&self) -> bool {
        let state = self.state.lock();
        state.pending.is_empty() && state.probe.is_none()
    }

    /// All that is to be there is there: from now on the thread that writes does so; whether it is wanted.
    pub(crate) fn rise(&self, socket: Arc<Socket>) -> bool {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Stopped) {
            return false;
        }
        state.phase = Phase::Up(socket);
        state.has_orders = true;
        drop(state);
        self.to_write.notify_one();
        true
    }

    /// The connection is over. What it has not confirmed is first to be written on the next one. So many messages have waited
    /// too long for that.
    pub(crate) fn fall(&self) -> u64 {
        let mut state = self.state.lock();
        if !matches!(state.phase, Phase::Stopped) {
            state.phase = Phase::Down;
        }
        let pending = mem::take(&mut state.pending);
        // Empty after a stop.
        for parcel in pending.into_iter().rev() {
            if let Pending::Publish(parcel) = parcel {
                state.waiting.push_front(parcel);
            }
        }
        (state.probe, state.next_probe) = (None, None);
        // Whoever has it sees that the connection is over.
        state.write_half = WriteHalf::Free;
        let lost = state.expire(Instant::now(), self.settings.max_waiting_age);
        drop(state);
        self.to_write.notify_one();
        self.settled.notify_all();
        lost
    }

    /// Takes off the command that was answered; whether nothing is left.
    pub(crate) fn answered(&self) -> Result<Pending, Unasked> {
        let mut state = self.state.lock();
        let pending = state.pending.pop_front().ok_or(Unasked)?;
        if let Pending::Publish(parcel) = &pending {
            state.bytes -= parcel.cost();
            self.tell_if_settled(&state);
        }
        Ok(pending)
    }

    /// Takes off the next commands, so many, which were answered with numbers.
    pub(crate) fn confirm(&self, count: usize) -> Result<Vec<Pending>, Unasked> {
        let mut state = self.state.lock();
        if state.pending.len() < count {
            return Err(Unasked);
        }
        let confirmed: Vec<_> = state.pending.drain(..count).collect();
        for pending in &confirmed {
            if let Pending::Publish(parcel) = pending {
                state.bytes -= parcel.cost();
            }
        }
        self.tell_if_settled(&state);
        Ok(confirmed)
    }

    pub(crate) fn subscribed(&self) -> Result<(Arc<str>, u64), Unasked> {
        pending::subscribed(&mut self.state.lock().pending)
    }

    pub(crate) fn unsubscribed(&self) -> Result<(), Unasked> {
        pending::unsubscribed(&mut self.state.lock().pending)
    }

    /// Whether what is answered next may be that sharded channels are left.
    pub(crate) fn is_leaving(&self) -> bool {
        matches!(self.state.lock().pending.front(), Some(Pending::Leave))
    }

    fn tell_if_settled(&self, state: &MutexGuard<'_, State>) {
        if state.bytes == 0 {
            self.settled.notify_all();
        }
    }

    /// Waits until all that was posted is confirmed, or the connection is over.
    pub(crate) fn wait_until_settled(&self, deadline: Instant) {
        let mut state = self.state.lock();
        while state.bytes > 0 && matches!(state.phase, Phase::Up(_)) {
            if self.settled.wait_until(&mut state, deadline).timed_out() {
                return;
            }
        }
    }

    /// Nothing is sent any more. So many messages had waited for it.
    pub(crate) fn stop(&self) -> u64 {
        let mut state = self.state.lock();
        let phase = mem::replace(&mut state.phase, Phase::Stopped);
        let lost = state.waiting.len() + state.unconfirmed();
        let dropped = (mem::take(&mut state.waiting), mem::take(&mut state.pending));
        state.bytes = 0;
        drop(state);
        drop(dropped);
        if let Phase::Connecting(socket) | Phase::Up(socket) = phase {
            socket.cut();
        }
        self.to_write.notify_one();
        self.settled.notify_all();
        lost as u64
    }

    /// Waits until the thread that reads has noted the end of the connection that `socket` is.
    pub(crate) fn wait_until_fallen(&self, socket: &Arc<Socket>) {
        let mut state = self.state.lock();
        while state.is_up_on(socket) {
            self.settled.wait(&mut state);
        }
    }

    /// Waits for `time`, or until nothing is sent any more, which it returns.
    pub(crate) fn wait_for_stop(&self, time: Duration) -> bool {
        let deadline = deadline::after(time);
        let mut state = self.state.lock();
        while !matches!(state.phase, Phase::Stopped) {
            if self.settled.wait_until(&mut state, deadline).timed_out() {
                return false;
            }
        }
        true
    }
}

impl State {
    fn is_up_on(&self, socket: &Arc<Socket>) -> bool {
        matches!(&self.phase, Phase::Up(up) if Arc::ptr_eq(up, socket))
    }

    /// Whether a thread that comes by may take the write half.
    fn may_write(&self) -> bool {
        matches!(self.write_half, WriteHalf::Free) && !self.is_awaited
    }

    /// Whether what waits is to be written by whoever has posted it: if not, somebody else will come by.
    fn is_to_be_written_now(&self) -> bool {
        let gathers = self.pending.len() >= MANY_UNANSWERED && self.waiting.len() < MANY_WAITING;
        self.may_write() && !gathers
    }

    /// Puts messages that wait into `buffer`, as many as are written at once.
    fn pack(&mut self, node: NodeId, dialect: Dialect, buffer: &mut Vec<u8>) {
        while buffer.len() < BATCH {
            let Some(parcel) = self.waiting.pop_front() else { break };
            parcel.write(node, dialect, buffer);
            self.pending.push_back(Pending::Publish(parcel));
        }
    }

    /// Keeps the buffer of a write for the next one, unless it is large.
    fn keep(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= 2 * BATCH {
            buffer.clear();
            self.buffer = buffer;
        }
    }

    fn unconfirmed(&self) -> usize {
        self.pending.iter().filter(|pending| matches!(pending, Pending::Publish(_))).count()
    }

    /// Drops what has waited for longer than it may; how much that was.
    fn expire(&mut self, now: Instant, age: Duration) -> u64 {
        let mut lost = 0;
        while let Some(parcel) =
            self.waiting.front().filter(|parcel| later(parcel.posted, age) <= now)
        {
            self.bytes -= parcel.cost();
            self.waiting.pop_front();
            lost += 1;
        }
        lost
    }
}

/// So much later. A time that means never, such as `Duration::MAX`, does not overflow.
fn later(moment: Instant, time: Duration) -> Instant {
    moment + time.min(deadline::FOREVER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    /// A connection, and its other end, which gives up after a while.
    fn connection() -> (Arc<Socket>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        (Arc::new(Socket::Tcp(socket)), peer)
    }

    fn desk(settings: Settings) -> Desk {
        Desk::new(NodeId::random(), "own".into(), Dialect::Plain, settings)
    }

    /// Begins a connection on which nothing but messages is to be written for now.
    fn rise(desk: &Desk) -> TcpStream {
        let (socket, peer) = connection();
        assert!(desk.begin(&socket) && desk.rise(socket));
        let mut state = desk.state.lock();
        (state.has_orders, state.next_probe) = (false, Some(deadline::after(Duration::MAX)));
        peer
    }

    /// What the thread that writes finds to write.
    fn work(desk: &Desk) -> (Arc<Socket>, Vec<u8>) {
        let mut buffer = Vec::new();
        match desk.next(&Subscriptions::default(), &mut buffer) {
            Work::Write(socket) => (socket, buffer),
            work => panic!("{work:?}"),
        }
    }

    /// The numbers of messages that were written, in order.
    fn numbers(bytes: &[u8]) -> Vec<usize> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let parts = text.split("number ").skip(1);
        parts.map(|part| part.split_once(';').unwrap().0.parse().unwrap()).collect()
    }

    /// Reads up to the end of the message of that number.
    fn read_up_to(peer: &mut TcpStream, number: usize) -> Vec<u8> {
        let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
        let end = format!("number {number};\r\n");
        while !bytes.ends_with(end.as_bytes()) {
            let count = peer.read(&mut buffer).unwrap();
            assert!(count > 0, "it ends after {:?}", numbers(&bytes));
            bytes.extend_from_slice(&buffer[..count]);
        }
        bytes
    }

    fn post(desk: &Desk, number: usize) -> Posted {
        desk.post("a", format!("number {number};").into_bytes(), None)
    }

    #[test]
    fn what_is_not_confirmed_comes_first_on_the_next_connection() {
        let desk = desk(Settings::default());
        assert_eq!(post(&desk, 0), Posted::Waiting);
        let _peer = rise(&desk);
        for number in 1..4 {
            assert_eq!(post(&desk, number), Posted::Handed);
        }
        assert_eq!(desk.confirm(2).unwrap().len(), 2);
        assert_eq!((desk.fall(), post(&desk, 4)), (0, Posted::Waiting));
        assert_eq!(desk.load().messages, 3);
        let _peer = rise(&desk);
        assert_eq!(numbers(&work(&desk).1), [2, 3, 4]);
        assert!(desk.confirm(4).is_err(), "there are three");
        assert_eq!(desk.stop(), 3, "what was not confirmed at the end is lost");
        assert_eq!((post(&desk, 5), desk.load().messages), (Posted::Lost, 0));
        assert!(!desk.begin(&connection().0), "nothing begins any more");
    }

    #[test]
    fn whoever_posts_writes_and_what_comes_in_quick_succession_gathers_until_redis_answers() {
        let desk = desk(Settings::default());
        let mut peer = rise(&desk);
        let unwritten = || desk.state.lock().waiting.len();
        for number in 0..MANY_UNANSWERED {
            assert_eq!(post(&desk, number), Posted::Handed);
            assert_eq!(unwritten(), 0, "there is no other thread");
        }
        let mut last = MANY_UNANSWERED;
        for gathered in 1..MANY_WAITING {
            post(&desk, last);
            last += 1;
            assert_eq!(unwritten(), gathered);
        }
        post(&desk, last);
        assert_eq!(unwritten(), 0, "so many go out together");
        post(&desk, last + 1);
        assert_eq!(unwritten(), 1);
        desk.confirm(1).unwrap();
        desk.write_gathered();
        assert_eq!(unwritten(), 0);
        let bytes = read_up_to(&mut peer, last + 1);
        assert_eq!(numbers(&bytes), (0..=last + 1).collect::<Vec<_>>());
    }

    #[test]
    fn a_long_message_is_left_to_the_thread_that_writes_and_none_overtakes_it() {
        let desk = desk(Settings::default());
        let mut peer = rise(&desk);
        let long = format!("{}number 0;", "x".repeat(SHORT)).into_bytes();
        assert_eq!(desk.post("a", long, None), Posted::Handed);
        assert_eq!(post(&desk, 1), Posted::Handed);
        assert_eq!(desk.state.lock().waiting.len(), 2);
        let (socket, bytes) = work(&desk);
        assert_eq!(numbers(&bytes), [0, 1]);
        desk.wrote(&socket);
        assert_eq!(post(&desk, 2), Posted::Handed);
        assert_eq!(numbers(&read_up_to(&mut peer, 2)), [2]);
    }

    #[test]
    fn what_redis_does_not_take_at_once_is_left_to_the_thread_that_writes() {
        let desk =
            Arc::new(desk(Settings { max_waiting_bytes: usize::MAX, ..Settings::default() }));
        let mut peer = rise(&desk);
        let mut last = 0;
        while !matches!(desk.state.lock().write_half, WriteHalf::Blocked(_)) {
            post(&desk, last);
            last += 1;
        }
        for _ in 0..1000 {
            assert_eq!(post(&desk, last), Posted::Handed, "nobody waits");
            last += 1;
        }
        let writing = Arc::clone(&desk);
        let writes = thread::spawn(move || {
            while writing.load().messages > 0 {
                let (socket, buffer) = work(&writing);
                (&*socket).write_all(&buffer).unwrap();
                writing.wrote(&socket);
                let unconfirmed = writing.state.lock().pending.len();
                writing.confirm(unconfirmed).unwrap();
            }
        });
        let bytes = read_up_to(&mut peer, last - 1);
        assert_eq!(numbers(&bytes), (0..last).collect::<Vec<_>>());
        drop(peer);
        writes.join().unwrap();
    }

    #[test]
    fn an_error_and_an_end_while_somebody_writes_leave_the_next_connection_as_it_is_to_be() {
        let desk = desk(Settings::default());
        let _peer = rise(&desk);
        if let Phase::Up(socket) = &desk.state.lock().phase {
            socket.cut();
        }
        assert_eq!(post(&desk, 0), Posted::Handed);
        let (socket, bytes) = work(&desk);
        assert_eq!(numbers(&bytes), [0], "the thread that writes finds the error");
        assert!((&*socket).write_all(&bytes).is_err());
        desk.fall();
        let mut peer = rise(&desk);
        let (next, bytes) = work(&desk);
        assert_eq!(numbers(&bytes), [0]);
        desk.wrote(&socket);
        assert_eq!(post(&desk, 1), Posted::Handed);
        assert_eq!(desk.state.lock().waiting.len(), 1, "somebody has the write half of this one");
        desk.wrote(&next);
        assert_eq!(post(&desk, 2), Posted::Handed);
        assert_eq!(numbers(&read_up_to(&mut peer, 2)), [1, 2]);
    }

    #[test]
    fn what_goes_elsewhere_keeps_its_order_and_what_is_answered_here_meanwhile_is_passed_over() {
        let (former, next) = (desk(Settings::default()), desk(Settings::default()));
        let (mut former_peer, _next_peer) = (rise(&former), rise(&next));
        let post_to = |channel: &str, number: usize| {
            former.post(channel, format!("number {number};").into_bytes(), None)
        };
        for number in 0..4 {
            post_to(if number % 2 == 0 { "a" } else { "b" }, number);
        }
        assert_eq!(numbers(&read_up_to(&mut former_peer, 3)), [0, 1, 2, 3]);
        former.state.lock().write_half = WriteHalf::Taken;
        post_to("a", 4);
        post_to("b", 5);
        former.state.lock().write_half = WriteHalf::Free;
        assert_eq!(former.first_channel().as_deref(), Some("a"));
        let taken = former.take_out(|channel| channel == "a");
        assert_eq!(former.first_channel(), None, "what is answered next is elsewhere");
        assert_eq!(taken.iter().map(|parcel| parcel.place.number).collect::<Vec<_>>(), [1, 2, 3]);
        next.take_over(taken);
        assert_eq!((former.load().messages, next.load().messages), (3, 3));
        let written = |desk: &Desk| numbers(&work(desk).1);
        assert_eq!((written(&next), written(&former)), (vec![0, 2, 4], vec![5]));
        let answered =
            [(); 5].map(|()| former.answered().is_ok_and(|it| !matches!(it, Pending::Taken)));
        assert_eq!(answered, [false, true, false, true, true]);
        former.take_out(|_| true);
        assert_eq!((former.load().messages, former.load().bytes), (0, 0));
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_and_in_time() {
        let age = Duration::from_millis(20);
        let settings =
            Settings { max_waiting_bytes: 600, max_waiting_age: age, ..Settings::default() };
        let desk = desk(settings);
        let results = [0, 1, 2].map(|number| post(&desk, number));
        assert_eq!(results, [Posted::Waiting, Posted::Waiting, Posted::Lost]);
        let work = desk.next(&Subscriptions::default(), &mut Vec::new());
        assert!(matches!(work, Work::Lost(1 | 2)), "{work:?}");
        while desk.load().messages > 0 {
            desk.next(&Subscriptions::default(), &mut Vec::new());
        }
        assert_eq!(desk.load().bytes, 0);
        let long = vec![0; 5000];
        assert_eq!(desk.post("a", long, None), Posted::Waiting, "one always fits");
    }

    #[test]
    fn a_message_that_is_too_large_does_not_wait() {
        let desk = desk(Settings { max_message_size: 10, ..Settings::default() });
        assert_eq!(desk.post("a", vec![0; 11], None), Posted::TooLarge);
        assert_eq!(desk.load().messages, 0);
        assert_eq!(desk.post("a", vec![0; 10], None), Posted::Waiting);
    }
}
