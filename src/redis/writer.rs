//! Who writes to Redis, and when: whoever posts a message, or a thread that waits for Redis.
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

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::base::deadline;
use crate::redis::commands;
use crate::redis::dialect::Dialect;
use crate::redis::node::NodeId;
use crate::redis::parcel::Parcel;
use crate::redis::pending::{Pending, Unasked};
use crate::redis::probes::{Probes, Silence};
use crate::redis::queue::{BATCH, Load, Queue};
use crate::redis::sequences::Sequences;
use crate::redis::settings::Settings;
use crate::redis::socket::Socket;
use crate::redis::subscriptions::Subscriptions;

/// A message up to this length is written by whoever posts it. A longer one would not be taken at once.
const SHORT: usize = 16 << 10;
/// While so many commands are not answered, messages gather,
const MANY_UNANSWERED: usize = 16;
/// until they are so many.
const MANY_WAITING: usize = 64;
/// How often a thread that posts writes for others that have posted meanwhile, before it leaves that to the thread that
/// writes.
const MAX_ROUNDS: usize = 4;

#[derive(Debug)]
pub(crate) struct Writer {
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
    silence: Silence,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    write_half: WriteHalf,
    /// The thread that writes is next: others leave the write half to it.
    is_awaited: bool,
    /// Kept for the next write of a thread that posts.
    buffer: Vec<u8>,
    queue: Queue,
    sequences: Sequences,
    has_orders: bool,
    probes: Probes,
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

impl Writer {
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
            silence: Silence::new(),
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
        let posted = match state.phase {
            Phase::Stopped => return Posted::Lost,
            _ if parcel.content.len() > self.settings.max_message_size => return Posted::TooLarge,
            _ if !state.queue.has_room_for(parcel.cost(), self.settings.max_waiting_bytes) => {
                return Posted::Lost;
            }
            Phase::Up(_) => Posted::Handed,
            Phase::Down | Phase::Connecting(_) => Posted::Waiting,
        };
        state.queue.push(parcel);
        posted
    }

    fn write_or_gather(&self, state: MutexGuard<'_, State>) {
        // Unless somebody has written it already.
        let Some(last) = state.queue.last_waiting() else { return };
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
        if state.queue.waiting() > 0 && state.may_write() {
            self.write_now(state);
        }
    }

    /// Writes what waits, as far as it is taken at once. The caller has seen that it may.
    fn write_now(&self, mut state: MutexGuard<'_, State>) {
        for _ in 0..MAX_ROUNDS {
            let Phase::Up(socket) = &state.phase else { return };
            let socket = Arc::clone(socket);
            let mut buffer = mem::take(&mut state.buffer);
            state.queue.pack(self.node, self.dialect, &mut buffer);
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
            if state.is_awaited || state.queue.waiting() == 0 {
                break;
            }
        }
        if state.queue.waiting() > 0 || !state.may_write() {
            self.leave(state);
        }
    }

    /// Takes out the messages that are meant, in their order, which another connection brings from now on. Some of them may
    /// have been written already, and are written once more there.
    pub(crate) fn take_out(&self, is_meant: impl Fn(&str) -> bool) -> Vec<Parcel> {
        let mut state = self.state.lock();
        let taken = state.queue.take_out(is_meant);
        self.tell_if_settled(&state);
        taken
    }

    /// Takes over messages from another connection, however much waits here.
    pub(crate) fn take_over(&self, parcels: Vec<Parcel>) {
        self.state.lock().queue.take_over(parcels);
        self.to_write.notify_one();
    }

    /// Whose message is the one that was answered, if that is not somewhere else meanwhile.
    pub(crate) fn first_channel(&self) -> Option<Arc<str>> {
        match self.state.lock().queue.first_pending() {
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
        let most = self.settings.max_waiting_bytes / 2;
        matches!(state.phase, Phase::Up(_)) && state.queue.bytes() <= most
    }

    pub(crate) fn is_up_on(&self, socket: &Arc<Socket>) -> bool {
        self.state.lock().is_up_on(socket)
    }

    pub(crate) fn load(&self) -> Load {
        self.state.lock().queue.load()
    }

    /// Waits for something to do. What is to be written is put into `buffer`, which is empty; whoever has written it says so
    /// by [`wrote`](Self::wrote).
    pub(crate) fn next(&self, subscriptions: &Subscriptions, buffer: &mut Vec<u8>) -> Work {
        let mut state = self.state.lock();
        loop {
            state.is_awaited = false;
            let now = Instant::now();
            let lost = state.queue.expire(now, self.settings.max_waiting_age);
            if lost > 0 {
                return Work::Lost(lost);
            }
            let oldest = state.queue.first_waiting().map(|parcel| parcel.posted);
            let until = match &state.phase {
                Phase::Stopped => return Work::Stop,
                Phase::Down | Phase::Connecting(_) => {
                    oldest.map(|posted| deadline::later(posted, self.settings.max_waiting_age))
                }
                Phase::Up(socket) => {
                    let socket = Arc::clone(socket);
                    let timeout = self.settings.probe_timeout;
                    let dead_at = state.probes.dead_at(&self.silence, now, timeout);
                    if dead_at.is_some_and(|at| at <= now) {
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
                    dead_at.or(state.probes.next())
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
            state.has_orders =
                commands::write_orders(self.dialect, subscriptions, &mut state.queue, buffer);
        }
        state.queue.pack(self.node, self.dialect, buffer);
        if state.probes.is_due(now) {
            self.write_probe(state, now, buffer);
        }
    }

    fn write_probe(&self, state: &mut State, now: Instant, buffer: &mut Vec<u8>) {
        let number = state.probes.send(now, self.settings.probe_interval);
        commands::write_probe(self.dialect, &self.channel, number, &mut state.queue, buffer);
    }

    /// From now on the thread that reads waits for Redis.
    pub(crate) fn note_waiting(&self) {
        self.silence.begin();
    }

    /// Redis has said something.
    pub(crate) fn note_life(&self) {
        self.silence.end();
    }

    /// A probe has come back; how long that took.
    pub(crate) fn probe_came(&self, number: u64) -> Option<Duration> {
        let took = self.state.lock().probes.came(number);
        // Whoever writes waits for the end of this one's time, which may be behind the time for the next.
        self.to_write.notify_one();
        took
    }

    /// Redis has said what it is, which answers a probe where none is published.
    pub(crate) fn greeted(&self) -> Option<Duration> {
        match self.dialect {
            Dialect::Plain => None,
            Dialect::Sharded => {
                let took = self.state.lock().probes.answered();
                self.to_write.notify_one();
                took
            }
        }
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
        self.state.lock().queue.expect(Pending::Command(name));
    }

    /// The next orders to subscribe, for the thread that connects; whether there were any.
    pub(crate) fn subscribe(&self, subscriptions: &Subscriptions, buffer: &mut Vec<u8>) -> bool {
        let mut state = self.state.lock();
        commands::write_orders(self.dialect, subscriptions, &mut state.queue, buffer)
    }

    /// A probe, for the thread that connects.
    pub(crate) fn probe(&self, buffer: &mut Vec<u8>) {
        self.write_probe(&mut self.state.lock(), Instant::now(), buffer);
    }

    /// Whether all commands were answered, and the probe has come.
    pub(crate) fn is_answered(&self) -> bool {
        let state = self.state.lock();
        state.queue.unanswered() == 0 && !state.probes.is_awaited()
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
        // Empty after a stop.
        state.queue.requeue();
        state.probes.reset();
        // Whoever has it sees that the connection is over.
        state.write_half = WriteHalf::Free;
        let lost = state.queue.expire(Instant::now(), self.settings.max_waiting_age);
        drop(state);
        self.to_write.notify_one();
        self.settled.notify_all();
        lost
    }

    /// Takes off the command that was answered.
    pub(crate) fn answered(&self) -> Result<Pending, Unasked> {
        let mut state = self.state.lock();
        let answered = state.queue.answered();
        self.tell_if_settled(&state);
        answered
    }

    /// Takes off the next commands, so many, which were answered with numbers.
    pub(crate) fn confirm(&self, count: usize) -> Result<Vec<Pending>, Unasked> {
        let mut state = self.state.lock();
        let confirmed = state.queue.confirm(count);
        self.tell_if_settled(&state);
        confirmed
    }

    pub(crate) fn subscribed(&self) -> Result<(Arc<str>, u64), Unasked> {
        self.state.lock().queue.subscribed()
    }

    pub(crate) fn unsubscribed(&self) -> Result<(), Unasked> {
        self.state.lock().queue.unsubscribed()
    }

    /// Whether what is answered next may be that sharded channels are left.
    pub(crate) fn is_leaving(&self) -> bool {
        matches!(self.state.lock().queue.first_pending(), Some(Pending::Leave))
    }

    fn tell_if_settled(&self, state: &MutexGuard<'_, State>) {
        if state.queue.is_settled() {
            self.settled.notify_all();
        }
    }

    /// Waits until all that was posted is confirmed, or the connection is over.
    pub(crate) fn wait_until_settled(&self, deadline: Instant) {
        let mut state = self.state.lock();
        while !state.queue.is_settled() && matches!(state.phase, Phase::Up(_)) {
            if self.settled.wait_until(&mut state, deadline).timed_out() {
                return;
            }
        }
    }

    /// Nothing is sent any more. So many messages had waited for it.
    pub(crate) fn stop(&self) -> u64 {
        let mut state = self.state.lock();
        let phase = mem::replace(&mut state.phase, Phase::Stopped);
        let dropped = mem::take(&mut state.queue);
        drop(state);
        let lost = dropped.load().messages;
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
        let gathers =
            self.queue.unanswered() >= MANY_UNANSWERED && self.queue.waiting() < MANY_WAITING;
        self.may_write() && !gathers
    }

    /// Keeps the buffer of a write for the next one, unless it is large.
    fn keep(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= 2 * BATCH {
            buffer.clear();
            self.buffer = buffer;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::mpsc::channel;
    use std::thread;

    /// A connection, and its other end, which gives up after a while.
    fn connection() -> (Arc<Socket>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        (Arc::new(Socket::Plain(socket.into())), peer)
    }

    fn writer(settings: Settings) -> Writer {
        Writer::new(NodeId::random(), "own".into(), Dialect::Plain, settings)
    }

    /// Begins a connection on which nothing but messages is to be written for now.
    fn rise(writer: &Writer) -> TcpStream {
        let (socket, peer) = connection();
        assert!(writer.begin(&socket) && writer.rise(socket));
        let mut state = writer.state.lock();
        state.has_orders = false;
        state.probes.send(Instant::now(), Duration::MAX);
        peer
    }

    /// What the thread that writes finds to write.
    fn work(writer: &Writer) -> (Arc<Socket>, Vec<u8>) {
        let mut buffer = Vec::new();
        match writer.next(&Subscriptions::default(), &mut buffer) {
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

    fn post(writer: &Writer, number: usize) -> Posted {
        writer.post("a", format!("number {number};").into_bytes(), None)
    }

    #[test]
    fn the_next_probe_goes_after_the_interval_and_not_when_the_last_would_have_been_late() {
        let (probe_interval, probe_timeout) =
            (Duration::from_millis(50), Duration::from_secs(3600));
        let settings = Settings { probe_interval, probe_timeout, ..Settings::default() };
        let writer = Arc::new(writer(settings));
        let _peer = rise(&writer);
        writer.state.lock().probes = Probes::default();
        let (socket, _) = work(&writer);
        writer.wrote(&socket);
        let (sender, next) = channel();
        let waiting = Arc::clone(&writer);
        thread::spawn(move || sender.send(work(&waiting).1));
        assert!(next.recv_timeout(2 * probe_interval).is_err(), "one at a time is under way");
        assert!(writer.probe_came(1).is_some());
        let probe = next.recv_timeout(Duration::from_secs(10)).expect("it waits for the last one");
        assert!(!probe.is_empty());
    }

    #[test]
    fn what_is_not_confirmed_comes_first_on_the_next_connection() {
        let writer = writer(Settings::default());
        assert_eq!(post(&writer, 0), Posted::Waiting);
        let _peer = rise(&writer);
        for number in 1..4 {
            assert_eq!(post(&writer, number), Posted::Handed);
        }
        assert_eq!(writer.confirm(2).unwrap().len(), 2);
        assert_eq!((writer.fall(), post(&writer, 4)), (0, Posted::Waiting));
        assert_eq!(writer.load().messages, 3);
        let _peer = rise(&writer);
        assert_eq!(numbers(&work(&writer).1), [2, 3, 4]);
        assert!(writer.confirm(4).is_err(), "there are three");
        assert_eq!(writer.stop(), 3, "what was not confirmed at the end is lost");
        assert_eq!((post(&writer, 5), writer.load().messages), (Posted::Lost, 0));
        assert!(!writer.begin(&connection().0), "nothing begins any more");
    }

    #[test]
    fn whoever_posts_writes_and_what_comes_in_quick_succession_gathers_until_redis_answers() {
        let writer = writer(Settings::default());
        let mut peer = rise(&writer);
        let unwritten = || writer.state.lock().queue.waiting();
        for number in 0..MANY_UNANSWERED {
            assert_eq!(post(&writer, number), Posted::Handed);
            assert_eq!(unwritten(), 0, "there is no other thread");
        }
        let mut last = MANY_UNANSWERED;
        for gathered in 1..MANY_WAITING {
            post(&writer, last);
            last += 1;
            assert_eq!(unwritten(), gathered);
        }
        post(&writer, last);
        assert_eq!(unwritten(), 0, "so many go out together");
        post(&writer, last + 1);
        assert_eq!(unwritten(), 1);
        writer.confirm(1).unwrap();
        writer.write_gathered();
        assert_eq!(unwritten(), 0);
        let bytes = read_up_to(&mut peer, last + 1);
        assert_eq!(numbers(&bytes), (0..=last + 1).collect::<Vec<_>>());
    }

    #[test]
    fn a_long_message_is_left_to_the_thread_that_writes_and_none_overtakes_it() {
        let writer = writer(Settings::default());
        let mut peer = rise(&writer);
        let long = format!("{}number 0;", "x".repeat(SHORT)).into_bytes();
        assert_eq!(writer.post("a", long, None), Posted::Handed);
        assert_eq!(post(&writer, 1), Posted::Handed);
        assert_eq!(writer.state.lock().queue.waiting(), 2);
        let (socket, bytes) = work(&writer);
        assert_eq!(numbers(&bytes), [0, 1]);
        writer.wrote(&socket);
        assert_eq!(post(&writer, 2), Posted::Handed);
        assert_eq!(numbers(&read_up_to(&mut peer, 2)), [2]);
    }

    #[test]
    fn what_redis_does_not_take_at_once_is_left_to_the_thread_that_writes() {
        let writer =
            Arc::new(writer(Settings { max_waiting_bytes: usize::MAX, ..Settings::default() }));
        let mut peer = rise(&writer);
        let mut last = 0;
        while !matches!(writer.state.lock().write_half, WriteHalf::Blocked(_)) {
            post(&writer, last);
            last += 1;
        }
        for _ in 0..1000 {
            assert_eq!(post(&writer, last), Posted::Handed, "nobody waits");
            last += 1;
        }
        let writing = Arc::clone(&writer);
        let writes = thread::spawn(move || {
            while writing.load().messages > 0 {
                let (socket, buffer) = work(&writing);
                (&*socket).write_all(&buffer).unwrap();
                writing.wrote(&socket);
                let unconfirmed = writing.state.lock().queue.unanswered();
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
        let writer = writer(Settings::default());
        let _peer = rise(&writer);
        if let Phase::Up(socket) = &writer.state.lock().phase {
            socket.cut();
        }
        assert_eq!(post(&writer, 0), Posted::Handed);
        let (socket, bytes) = work(&writer);
        assert_eq!(numbers(&bytes), [0], "the thread that writes finds the error");
        assert!((&*socket).write_all(&bytes).is_err());
        writer.fall();
        let mut peer = rise(&writer);
        let (next, bytes) = work(&writer);
        assert_eq!(numbers(&bytes), [0]);
        writer.wrote(&socket);
        assert_eq!(post(&writer, 1), Posted::Handed);
        assert_eq!(
            writer.state.lock().queue.waiting(),
            1,
            "somebody has the write half of this one"
        );
        writer.wrote(&next);
        assert_eq!(post(&writer, 2), Posted::Handed);
        assert_eq!(numbers(&read_up_to(&mut peer, 2)), [1, 2]);
    }

    #[test]
    fn what_waits_is_bounded_in_bytes_and_in_time() {
        let age = Duration::from_millis(20);
        let settings =
            Settings { max_waiting_bytes: 600, max_waiting_age: age, ..Settings::default() };
        let writer = writer(settings);
        let results = [0, 1, 2].map(|number| post(&writer, number));
        assert_eq!(results, [Posted::Waiting, Posted::Waiting, Posted::Lost]);
        let work = writer.next(&Subscriptions::default(), &mut Vec::new());
        assert!(matches!(work, Work::Lost(1 | 2)), "{work:?}");
        while writer.load().messages > 0 {
            writer.next(&Subscriptions::default(), &mut Vec::new());
        }
        assert_eq!(writer.load().bytes, 0);
        let long = vec![0; 5000];
        assert_eq!(writer.post("a", long, None), Posted::Waiting, "one always fits");
    }

    #[test]
    fn a_message_that_is_too_large_does_not_wait() {
        let writer = writer(Settings { max_message_size: 10, ..Settings::default() });
        assert_eq!(writer.post("a", vec![0; 11], None), Posted::TooLarge);
        assert_eq!(writer.load().messages, 0);
        assert_eq!(writer.post("a", vec![0; 10], None), Posted::Waiting);
    }
}
