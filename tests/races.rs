//! Sends against closes, connects against shutdowns, tabs that come and go, and schedules at random: whatever comes
//! first, order is kept, nothing follows a close, and what was taken arrives.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use common::{
    DEADLINE, Echo, Frame, Guest, Random, Raw, Wire, client_frame, serve, spawn, start,
    start_apart, upgrade_request, wait_until,
};
use parking_lot::Mutex;
use rwf::comms::SendError;
use rwf::controller::Websocket;
use rwf::http::{Server, ServerHandle};
use rwf::prelude::*;

/// A test goes on for so long at most, on machines where its rounds take longer.
const BUDGET: Duration = Duration::from_secs(7);
/// What waits for nobody takes microseconds; this long it takes only if it waits, or on a machine that does.
const AT_ONCE: Duration = Duration::from_secs(2);

/// From the clock, unless `RWF_SEED` says where to begin.
fn random() -> Random {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Random::new(seed().unwrap_or(now.as_nanos() as u64))
}

fn seed() -> Option<u64> {
    env::var("RWF_SEED").ok().map(|seed| seed.parse().expect("RWF_SEED is a number"))
}

/// Lets some time go by, mostly next to none.
fn dawdle(random: &mut Random, most: Duration) {
    let end = Instant::now() + most.mul_f64((random.below(1000) as f64 / 1000.0).powi(3));
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

fn tab(server: SocketAddr, session: Guest) -> Raw {
    Raw::open_with(server, "/", &session.cookie())
}

/// `thread number` as senders write it.
fn parse(frame: &Frame) -> (usize, usize) {
    let text = str::from_utf8(&frame.payload).unwrap();
    let (thread, number) = text.split_once(' ').unwrap_or_else(|| panic!("not a sender's: {text}"));
    (thread.parse().unwrap(), number.parse().unwrap())
}

#[test]
fn what_was_taken_before_a_close_arrives_before_it_and_nothing_after() {
    const ROUNDS: usize = 3000;
    const THREADS: usize = 2;
    /// Fewer in all than the outbox holds, so that it is never full.
    const MESSAGES: usize = 300;
    let server = serve(vec![route!("/" => Echo)]);
    let mut random = random();
    let began = Instant::now();
    let mut rounds = 0;
    while rounds < ROUNDS && began.elapsed() < BUDGET {
        rounds += 1;
        let session = Guest::new();
        let mut client = tab(server.local_addr(), session);
        let server_closes = rounds % 2 == 0;
        let taken: Vec<_> = thread::scope(|scope| {
            let senders: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let comms = Comms::websocket(session);
                    scope.spawn(move || {
                        (0..MESSAGES)
                            .take_while(|n| comms.send(format!("{thread} {n}")) == Ok(1))
                            .count()
                    })
                })
                .collect();
            dawdle(&mut random, Duration::from_millis(2));
            if server_closes {
                assert_eq!(Comms::websocket(session).close(4000, "over"), Ok(1));
                let late = Comms::websocket(session).send("late");
                assert!(matches!(late, Err(SendError::Closing) | Ok(0)), "{late:?}");
            } else {
                client.send_close(4000, "over");
            }
            senders.into_iter().map(|sender| sender.join().unwrap()).collect()
        });
        let mut arrived = [0; THREADS];
        let close = loop {
            let frame = client.frame();
            if frame.first == 0x88 {
                break frame;
            }
            let (thread, number) = parse(&frame);
            assert_eq!(number, arrived[thread], "round {rounds}: thread {thread} out of order");
            arrived[thread] += 1;
        };
        assert_eq!(arrived[..], taken, "round {rounds}: what was taken is what arrives");
        assert_eq!(close.payload, b"\x0f\xa0over", "round {rounds}");
        if server_closes {
            client.send_close(4000, "");
        }
        client.expect_end();
    }
    println!("{rounds} rounds in {:.1?}", began.elapsed());
}

/// What became of a client that connected while the server stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// A WebSocket, closed with 1001.
    Closed,
    /// 503.
    Unavailable,
    /// The connection ended without an answer.
    Ended,
    /// There was no connection.
    Refused,
}

fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Connects, opens a WebSocket, and talks until the end, whatever that is.
fn live(server: SocketAddr) -> Fate {
    let mut client = match Raw::try_connect(server) {
        Ok(client) => client,
        Err(error) => {
            assert!(!is_silence(&error), "a connect was not answered for {DEADLINE:?}");
            return Fate::Refused;
        }
    };
    // A message right behind the request: whoever reads the one reads the other.
    let bytes = [upgrade_request("/", "").as_bytes(), &client_frame(0x81, b"hello")].concat();
    if (&client.stream).write_all(&bytes).is_err() {
        return Fate::Ended;
    }
    let head = match client.try_head() {
        Ok(Some(head)) => head,
        Ok(None) => return Fate::Ended,
        Err(error) => {
            assert!(!is_silence(&error), "a client was left alone for {DEADLINE:?}");
            return Fate::Ended;
        }
    };
    match common::status(&head) {
        503 => return Fate::Unavailable,
        101 => {}
        status => panic!("a client got {status}"),
    }
    loop {
        match client.try_frame() {
            Ok(Some(frame)) if frame.first == 0x81 => assert_eq!(frame.payload, b"hello"),
            Ok(Some(frame)) => {
                assert_eq!((frame.first, &frame.payload[..2]), (0x88, &b"\x03\xe9"[..]), "1001");
                let _ = (&client.stream).write_all(&client_frame(0x88, &frame.payload));
                assert!(!matches!(client.try_frame(), Ok(Some(_))), "a frame after the close");
                return Fate::Closed;
            }
            Ok(None) => panic!("a WebSocket ended without a close frame"),
            Err(error) => panic!("a WebSocket broke without a close frame: {error}"),
        }
    }
}

#[test]
fn a_client_that_connects_while_the_server_stops_gets_an_answer_or_an_end() {
    const ROUNDS: usize = 1000;
    const CLIENTS: usize = 6;
    let mut random = random();
    let began = Instant::now();
    let mut fates: BTreeMap<Fate, usize> = BTreeMap::new();
    let mut rounds = 0;
    while rounds < ROUNDS && began.elapsed() < BUDGET {
        rounds += 1;
        let server = start_apart(Server::new(vec![route!("/" => Echo)]));
        let address = server.local_addr();
        let (report, fates_of_round) = thread::scope(|scope| {
            let clients: Vec<_> =
                (0..CLIENTS).map(|_| scope.spawn(move || live(address))).collect();
            dawdle(&mut random, Duration::from_millis(3));
            let report = server.shutdown().unwrap();
            let fates: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
            (report, fates)
        });
        let closed = fates_of_round.iter().filter(|fate| **fate == Fate::Closed).count();
        let refused = fates_of_round.iter().filter(|fate| **fate == Fate::Refused).count();
        assert_eq!((report.cut, report.running), (0, 0), "round {rounds}: {fates_of_round:?}");
        assert!(
            (closed..=CLIENTS - refused).contains(&report.closed),
            "round {rounds}: {report:?} for {fates_of_round:?}"
        );
        fates_of_round.into_iter().for_each(|fate| *fates.entry(fate).or_default() += 1);
    }
    println!("{rounds} rounds in {:.1?}: {fates:?}", began.elapsed());
}

#[test]
fn servers_that_share_a_listener_all_stop() {
    const ROUNDS: usize = 1000;
    const SERVERS: usize = 4;
    for round in 0..ROUNDS {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let share = || {
            let server = Server::new(vec![route!("/" => Echo)]);
            spawn(server.listener(listener.try_clone().unwrap()))
        };
        let servers: Vec<_> = (0..SERVERS).map(|_| share()).collect();
        drop(listener);
        // All of them are woken by a client that one of them gets.
        drop(TcpStream::connect(address).unwrap());
        let (sender, reports) = channel();
        for server in servers {
            let sender = sender.clone();
            thread::spawn(move || sender.send(server.shutdown().unwrap()));
        }
        for number in 0..SERVERS {
            let report = reports.recv_timeout(DEADLINE);
            assert!(report.is_ok(), "round {round}: only {number} of {SERVERS} servers stopped");
        }
    }
}

/// Sets a flag, in whatever way its scope ends.
struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn tabs_that_come_and_go_miss_nothing_while_they_are_there() {
    const THREADS: usize = 4;
    const VISITORS: u64 = 3;
    const TIME: Duration = Duration::from_secs(3);
    /// How far the senders may be ahead of the tab that stays: less than an outbox holds.
    const LEAD: usize = 500;
    let settings = Websocket::new().outbox_messages(1 << 20).close_timeout(DEADLINE);
    let server = start(Server::new(vec![route!("/" => Echo)]).websocket(settings));
    let address = server.local_addr();
    let session = Guest::new();
    let mut resident = tab(address, session);
    let (sent, read) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let is_over = AtomicBool::new(false);
    let end = Instant::now() + TIME;
    thread::scope(|scope| {
        let (sent, read, is_over) = (&sent, &read, &is_over);
        let send = move |thread: usize| {
            let comms = Comms::websocket(session);
            let mut number = 0;
            while Instant::now() < end {
                if sent.load(Ordering::SeqCst) > read.load(Ordering::SeqCst) + LEAD {
                    thread::sleep(Duration::from_micros(100));
                    continue;
                }
                let began = Instant::now();
                let reached = comms.send(format!("{thread} {number}"));
                assert!(reached.is_ok_and(|count| count >= 1), "{reached:?}");
                assert!(began.elapsed() < AT_ONCE, "a send took {:?}", began.elapsed());
                sent.fetch_add(1, Ordering::SeqCst);
                number += 1;
            }
            number
        };
        let senders: Vec<_> =
            (0..THREADS).map(|thread| scope.spawn(move || send(thread))).collect();
        let visit_often = |seed| {
            let mut random = Random::new(seed);
            let mut visits = 0;
            while !is_over.load(Ordering::SeqCst) {
                visit(&mut random, tab(address, session));
                visits += 1;
            }
            visits
        };
        let visitors: Vec<_> =
            (0..VISITORS).map(|seed| scope.spawn(move || visit_often(seed))).collect();
        // The tab that stays gets all of it.
        let resident = &mut resident;
        let reading = scope.spawn(move || {
            let mut arrived = [0; THREADS];
            loop {
                let frame = resident.frame();
                if frame.first == 0x88 {
                    return arrived;
                }
                let (thread, number) = parse(&frame);
                assert_eq!(number, arrived[thread], "thread {thread} out of order");
                arrived[thread] += 1;
                read.fetch_add(1, Ordering::SeqCst);
            }
        });
        // Also when a sender panics, so that the visitors do not go on for ever.
        let over = SetWhenDropped(is_over);
        let sent: Vec<usize> = senders.into_iter().map(|sender| sender.join().unwrap()).collect();
        drop(over);
        // Visitors who are still there wait for more, and one may just be coming.
        wait_until("the visitors are gone", || {
            Comms::websocket(session).close(4000, "over").unwrap();
            visitors.iter().all(|visitor| visitor.is_finished())
        });
        Comms::websocket(session).close(4000, "over").unwrap();
        assert_eq!(reading.join().unwrap()[..], sent, "the tab that stayed missed some");
        let visits: usize = visitors.into_iter().map(|visitor| visitor.join().unwrap()).sum();
        println!("{} messages, {visits} visits", sent.iter().sum::<usize>());
    });
    drop(resident);
    wait_until("the session is gone", || Comms::websocket(session).send("anybody?") == Ok(0));
}

#[test]
fn subscribing_those_who_leave_leaves_nothing_behind() {
    const TIME: Duration = Duration::from_secs(2);
    const LEAD: usize = 500;
    let settings = Websocket::new().outbox_messages(1 << 20).close_timeout(DEADLINE);
    let server = start(Server::new(vec![route!("/" => Echo)]).websocket(settings));
    let address = server.local_addr();
    let (staying, visiting) = (Guest::new(), Guest::new());
    // Other tests of this process have topics of their own.
    let topics = [1, 2].map(|number| format!("{number} {staying}"));
    let mut resident = tab(address, staying);
    assert_eq!(Comms::websocket(staying).subscribe(&topics[0]), Ok(1));
    let (read, end) = (AtomicUsize::new(0), Instant::now() + TIME);
    let is_over = || Instant::now() >= end;
    thread::scope(|scope| {
        let (topics, read) = (&topics, &read);
        let publisher = scope.spawn(move || {
            let mut number = 0;
            while !is_over() {
                if number > read.load(Ordering::SeqCst) + LEAD {
                    thread::sleep(Duration::from_micros(100));
                    continue;
                }
                let reached = Comms::topic(&topics[0]).send(format!("0 {number}"));
                assert!(
                    reached.is_ok_and(|count| count >= 1),
                    "the subscriber is lost: {reached:?}"
                );
                let _ = Comms::topic(&topics[1]).send("not for those who stay");
                number += 1;
            }
            number
        });
        scope.spawn(move || {
            let (mut random, mut new) = (random(), 0);
            while !is_over() {
                let topic = &topics[random.below(2)];
                match random.below(3) {
                    0 => drop(Comms::websocket(visiting).unsubscribe(topic)),
                    _ => new += Comms::websocket(visiting).subscribe(topic).unwrap(),
                }
            }
            assert!(new > 0, "nobody was there to subscribe");
        });
        for seed in 0..3 {
            scope.spawn(move || {
                let mut random = Random::new(seed);
                while !is_over() {
                    let visitor = tab(address, visiting);
                    dawdle(&mut random, Duration::from_millis(3));
                    match random.below(2) {
                        0 => drop(visitor),
                        _ => drop(Comms::websocket(visiting).close(4000, "go").unwrap()),
                    }
                }
            });
        }
        let resident = &mut resident;
        let reading = scope.spawn(move || {
            for number in 0.. {
                let frame = resident.frame();
                if frame.first == 0x88 {
                    return number;
                }
                assert_eq!(parse(&frame), (0, number), "out of order, or not subscribed to");
                read.fetch_add(1, Ordering::SeqCst);
            }
            unreachable!("numbers end later");
        });
        let sent = publisher.join().unwrap();
        Comms::websocket(staying).close(4000, "over").unwrap();
        assert_eq!(reading.join().unwrap(), sent, "the subscriber missed some");
    });
    drop(resident);
    for topic in &topics {
        wait_until("the topic is gone", || Comms::topic(topic).send("anybody?") == Ok(0));
    }
}

/// Reads for a while, and leaves in one of three ways; what comes has no gaps.
fn visit(random: &mut Random, mut tab: Raw) {
    let mut next: BTreeMap<usize, usize> = BTreeMap::new();
    let mut check = |frame: &Frame| {
        let (thread, number) = parse(frame);
        let expected = next.insert(thread, number + 1).unwrap_or(number);
        assert_eq!(number, expected, "thread {thread}: a tab missed some");
    };
    for _ in 0..random.below(200) {
        let frame = tab.frame();
        if frame.first == 0x88 {
            return;
        }
        check(&frame);
    }
    match random.below(3) {
        0 => {}
        1 => tab.stream.shutdown(Shutdown::Both).unwrap(),
        _ => {
            tab.send_close(1000, "");
            loop {
                let frame = tab.frame();
                if frame.first == 0x88 {
                    break;
                }
                check(&frame);
            }
            tab.expect_end();
        }
    }
}

/// Counts how many connections began and ended, and echoes to the connection that a message came from.
#[derive(Default)]
struct Counting {
    began: AtomicUsize,
    ended: AtomicUsize,
    ids: Mutex<BTreeMap<String, ConnectionId>>,
}

struct Shared(Arc<Counting>);

struct Counted<'a>(&'a Counting, ConnectionId);

#[async_trait]
impl Controller for Shared {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        let name = request.header("X-Client").unwrap_or_default().to_owned();
        self.0.ids.lock().insert(name, request.connection_id());
        WebsocketController::handle(&Counted(&self.0, request.connection_id()), request).await
    }
}

#[async_trait]
impl WebsocketController for Counted<'_> {
    async fn handle_connection(&self, _: &SessionId) -> Result<(), Error> {
        self.0.began.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    async fn handle_message(&self, _: &SessionId, message: Message) -> Result<(), Error> {
        Comms::connection(self.1).send(message)?;
        Ok(())
    }

    async fn handle_close(&self, _: &SessionId, _: CloseCode, _: &str) -> Result<(), Error> {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// How a client of a schedule reads.
const BRISK: u8 = 0;
const SLOW: u8 = 1;
const STOPPED: u8 = 2;
const GONE: u8 = 3;

/// What a client got.
#[derive(Debug, Default)]
struct Transcript {
    /// The numbers of what the schedule sent, as they came.
    pushed: Vec<usize>,
    /// The numbers of its own messages, as they came back.
    echoed: Vec<usize>,
    pongs: Vec<usize>,
    close: Option<u16>,
    /// First byte and length of the first frame after that.
    after_close: Option<(u8, usize)>,
    /// Whether the stream ended as it should.
    is_ended: bool,
}

/// A client of a schedule, as its driver knows it.
struct Client {
    session: usize,
    id: ConnectionId,
    /// `None` when it was cut.
    stream: Arc<Mutex<Option<Wire>>>,
    mode: Arc<AtomicU8>,
    has_closed: Arc<AtomicBool>,
    reading: JoinHandle<Transcript>,
    /// Whether it was not reading as fast as it could, ever.
    was_slow: bool,
    was_cut: bool,
    messages: usize,
    pings: usize,
    /// What certainly went to it, and what may have.
    taken: BTreeSet<usize>,
    perhaps: BTreeSet<usize>,
    /// The close that a call of the server's side began.
    server_close: Option<u16>,
    /// Codes that it may be closed with.
    codes: BTreeSet<u16>,
}

impl Client {
    fn open(
        server: SocketAddr,
        name: &str,
        session: usize,
        sessions: &[Guest],
        ids: &Counting,
    ) -> Self {
        let headers = format!("{}X-Client: {name}\r\n", sessions[session].cookie());
        let raw = Raw::open_with(server, "/", &headers);
        let id = ids.ids.lock()[name];
        raw.stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let stream = Arc::new(Mutex::new(raw.stream.try_clone().ok()));
        let (mode, has_closed) = (Arc::new(AtomicU8::new(BRISK)), Arc::new(AtomicBool::new(false)));
        let reading = thread::spawn({
            let (stream, mode, has_closed) = (stream.clone(), mode.clone(), has_closed.clone());
            move || {
                let transcript = read(raw, &stream, &mode, &has_closed);
                // With the reader's own, this ends the connection.
                drop(stream.lock().take());
                transcript
            }
        });
        Self {
            session,
            id,
            stream,
            mode,
            has_closed,
            reading,
            was_slow: false,
            was_cut: false,
            messages: 0,
            pings: 0,
            taken: BTreeSet::new(),
            perhaps: BTreeSet::new(),
            server_close: None,
            codes: BTreeSet::from([1001]),
        }
    }

    /// Sends a frame, unless it has closed. What it sends is little, and always finds room.
    fn send(&mut self, first: u8, payload: &[u8]) -> bool {
        if self.has_closed.load(Ordering::SeqCst) {
            return false;
        }
        let stream = self.stream.lock();
        self.has_closed.fetch_or(first == 0x88, Ordering::SeqCst);
        write(&stream, &client_frame(first, payload))
    }
}

/// Whether there was a connection to write to.
fn write(stream: &Option<Wire>, bytes: &[u8]) -> bool {
    stream.as_ref().is_some_and(|mut stream| stream.write_all(bytes).is_ok())
}

/// A client's reading: until the end, or until it is told to go.
fn read(
    mut raw: Raw,
    stream: &Mutex<Option<Wire>>,
    mode: &AtomicU8,
    has_closed: &AtomicBool,
) -> Transcript {
    let mut transcript = Transcript::default();
    loop {
        match mode.load(Ordering::SeqCst) {
            GONE => return transcript,
            STOPPED => {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            SLOW => thread::sleep(Duration::from_millis(2)),
            _ => {}
        }
        let frame = match raw.try_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                transcript.is_ended = true;
                return transcript;
            }
            Err(error) if is_silence(&error) => {
                continue;
            }
            Err(_) => return transcript,
        };
        if transcript.close.is_some() {
            transcript.after_close.get_or_insert((frame.first, frame.payload.len()));
            continue;
        }
        let number = |at: usize| {
            let digits = frame.payload.get(at..at + 8).expect("a number of eight digits");
            str::from_utf8(digits).unwrap().parse().unwrap()
        };
        match frame.first {
            0x82 => transcript.pushed.push(number(0)),
            0x81 => transcript.echoed.push(number(0)),
            0x8a => transcript.pongs.push(number(0)),
            0x89 if !has_closed.load(Ordering::SeqCst) => {
                write(&stream.lock(), &client_frame(0x8a, &frame.payload));
            }
            0x89 => {}
            0x88 => {
                transcript.close = Some(u16::from_be_bytes(frame.payload[..2].try_into().unwrap()));
                let stream = stream.lock();
                if !has_closed.swap(true, Ordering::SeqCst) {
                    write(&stream, &client_frame(0x88, &frame.payload));
                }
            }
            first => panic!("a frame that begins with {first:#x}"),
        }
    }
}

/// A run of actions that a seed determines.
struct Schedule {
    random: Random,
    server: ServerHandle,
    counting: Arc<Counting>,
    sessions: Vec<Guest>,
    clients: Vec<Client>,
    sent: usize,
    log: Log,
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let counting = Arc::new(Counting::default());
        let settings = Websocket::new()
            .outbox_messages(64)
            .write_timeout(3 * AT_ONCE)
            .close_timeout(Duration::from_millis(400))
            .ping_interval(Duration::from_millis(50));
        let routes = vec![route!("/" => Shared(counting.clone()))];
        let server =
            Server::new(routes).websocket(settings).shutdown_timeout(Duration::from_secs(2));
        Self {
            random: Random::new(seed),
            server: start(server),
            counting,
            sessions: (0..3).map(|_| Guest::new()).collect(),
            clients: Vec::new(),
            sent: 0,
            log: Log { seed, lines: Vec::new() },
        }
    }

    fn note(&mut self, what: String) {
        self.log.lines.push(what);
    }

    fn act(&mut self) {
        let action = self.random.below(100);
        if self.clients.is_empty() || (action < 12 && self.clients.len() < 30) {
            return self.connect();
        }
        // One of the newest: of the others most have ended.
        let count = self.clients.len();
        let at = count - 1 - self.random.below(count.min(8));
        match action {
            0..45 => self.push(at),
            45..50 => (0..40).for_each(|_| self.push_to(at, 64 << 10)),
            50..55 => self.push_to_session(),
            55..70 => self.speak(at),
            70..76 => self.ping(at),
            76..80 => self.close_by_server(at),
            80..84 => self.close_by_client(at),
            84..87 => self.cut(at),
            87..97 => self.change_reading(at),
            _ => thread::sleep(Duration::from_millis(20)),
        }
        dawdle(&mut self.random, Duration::from_millis(1));
    }

    fn connect(&mut self) {
        let session = self.random.below(self.sessions.len());
        let name = self.clients.len().to_string();
        self.note(format!("connect {name} to session {session}"));
        let server = self.server.local_addr();
        self.clients.push(Client::open(server, &name, session, &self.sessions, &self.counting));
    }

    /// A message with the next number.
    fn message(&mut self, length: usize) -> (usize, Vec<u8>) {
        let number = self.sent;
        self.sent += 1;
        let mut message = format!("{number:08}").into_bytes();
        message.resize(length.max(8), b'.');
        (number, message)
    }

    fn push(&mut self, at: usize) {
        let length = self.random.below(3000);
        self.push_to(at, length);
    }

    fn push_to(&mut self, at: usize, length: usize) {
        let (number, message) = self.message(length);
        let began = Instant::now();
        let result = Comms::connection(self.clients[at].id).send(message);
        assert!(began.elapsed() < AT_ONCE, "a send took {:?}", began.elapsed());
        self.note(format!("push {number} of {length} to {at}: {result:?}"));
        let client = &mut self.clients[at];
        match result {
            Ok(1) => drop(client.taken.insert(number)),
            Ok(count) => assert_eq!(count, 0, "it is one connection"),
            Err(SendError::Full) => drop(client.codes.insert(1013)),
            Err(_) => {}
        }
    }

    fn push_to_session(&mut self) {
        let session = self.random.below(self.sessions.len());
        let (number, message) = self.message(100);
        let result = Comms::websocket(self.sessions[session]).send(message);
        self.note(format!("push {number} to session {session}: {result:?}"));
        let clients = self.clients.iter_mut().filter(|client| client.session == session);
        let clients: Vec<_> = clients.collect();
        let (reached, count) = (result.unwrap_or(0), clients.len());
        assert!(reached <= count, "{reached} of {count} took it");
        for client in clients {
            client.perhaps.insert(number);
            client.taken.extend((reached == count).then_some(number));
            // Whoever was left out may have been full.
            client.codes.extend((reached < count).then_some(1013));
        }
    }

    fn speak(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let text = format!("{:08}", client.messages);
        if client.send(0x81, text.as_bytes()) {
            client.messages += 1;
        }
        self.note(format!("{at} says {text}"));
    }

    fn ping(&mut self, at: usize) {
        let client = &mut self.clients[at];
        let text = format!("{:08}", client.pings);
        if client.send(0x89, text.as_bytes()) {
            client.pings += 1;
        }
        self.note(format!("{at} pings {text}"));
    }

    fn close_by_server(&mut self, at: usize) {
        let code = 4000 + self.random.below(100) as u16;
        let result = Comms::connection(self.clients[at].id).close(code, "by the server").unwrap();
        self.note(format!("close {at} with {code}: {result}"));
        if result == 1 {
            self.clients[at].server_close = Some(code);
        }
    }

    fn close_by_client(&mut self, at: usize) {
        let code = 3000 + self.random.below(100) as u16;
        let client = &mut self.clients[at];
        if client.send(0x88, &code.to_be_bytes()) {
            client.codes.insert(code);
        }
        self.note(format!("{at} closes with {code}"));
    }

    fn cut(&mut self, at: usize) {
        let client = &mut self.clients[at];
        client.was_cut = true;
        client.mode.store(GONE, Ordering::SeqCst);
        if let Some(stream) = client.stream.lock().take() {
            match self.random.below(3) {
                0 => stream.shutdown(Shutdown::Both).unwrap_or_default(),
                1 => stream.shutdown(Shutdown::Write).unwrap_or_default(),
                _ => reset_when_dropped(&stream),
            }
        }
        self.note(format!("cut {at}"));
    }

    fn change_reading(&mut self, at: usize) {
        let mode = [BRISK, SLOW, STOPPED][self.random.below(3)];
        let client = &mut self.clients[at];
        client.was_slow |= mode != BRISK;
        if client.mode.load(Ordering::SeqCst) != GONE {
            client.mode.store(mode, Ordering::SeqCst);
        }
        self.note(format!("{at} reads in mode {mode}"));
    }

    /// Stops the server, and judges what each client got.
    fn finish(mut self) {
        let stays_stopped = self.random.below(4) == 0;
        for client in &self.clients {
            let mode = client.mode.load(Ordering::SeqCst);
            if mode == SLOW || (mode == STOPPED && !stays_stopped) {
                client.mode.store(BRISK, Ordering::SeqCst);
            }
        }
        let began = Instant::now();
        let report = self.server.shutdown().unwrap();
        let took = began.elapsed();
        assert!(took < Duration::from_secs(6), "the shutdown took {took:?}");
        assert_eq!(report.running, 0, "{report:?}");
        assert!(report.closed + report.cut <= self.clients.len(), "{report:?}");
        assert_eq!(self.counting.began.load(Ordering::SeqCst), self.clients.len());
        assert_eq!(self.counting.ended.load(Ordering::SeqCst), self.clients.len());
        for (at, client) in self.clients.into_iter().enumerate() {
            judge(at, client);
        }
        for session in self.sessions {
            assert_eq!(Comms::websocket(session).send("anybody?"), Ok(0), "a session is left");
        }
    }
}

fn judge(at: usize, client: Client) {
    if client.mode.load(Ordering::SeqCst) == STOPPED {
        client.mode.store(BRISK, Ordering::SeqCst);
    }
    wait_until("a client's reading ends", || client.reading.is_finished());
    let transcript = client.reading.join().unwrap();
    let who = format!("client {at}: {transcript:?}");
    assert!(transcript.pushed.is_sorted_by(|a, b| a < b), "order is kept: {who}");
    assert!(transcript.pongs.is_sorted_by(|a, b| a < b), "order of pongs: {who}");
    let echoes: Vec<_> = (0..transcript.echoed.len()).collect();
    assert_eq!(transcript.echoed, echoes, "each echo in its place: {who}");
    assert!(transcript.echoed.len() <= client.messages, "echoes of nothing: {who}");
    assert_eq!(transcript.after_close, None, "nothing follows a close: {who}");
    let pushed: BTreeSet<_> = transcript.pushed.iter().copied().collect();
    let foreign: Vec<_> = pushed
        .iter()
        .filter(|n| !client.taken.contains(n) && !client.perhaps.contains(n))
        .collect();
    assert!(foreign.is_empty(), "{foreign:?} were refused, and came: {who}");
    match transcript.close {
        Some(code) => {
            let lost: Vec<_> = client.taken.difference(&pushed).collect();
            assert!(lost.is_empty(), "{lost:?} were taken before the close, and lost: {who}");
            match client.server_close {
                Some(expected) => assert_eq!(code, expected, "{who}"),
                None => assert!(client.codes.contains(&code), "{:?}: {who}", client.codes),
            }
            assert!(transcript.is_ended || client.was_cut, "reset after the close: {who}");
        }
        None => {
            assert!(client.was_cut || client.was_slow, "no close frame for a good client: {who}");
        }
    }
}

#[test]
fn schedules_at_random_keep_the_promises() {
    let mut random = random();
    let began = Instant::now();
    let mut schedules = 0;
    while began.elapsed() < BUDGET {
        let seed = seed().unwrap_or_else(|| random.number());
        schedules += 1;
        let mut schedule = Schedule::new(seed);
        let length = 20 + schedule.random.below(150);
        (0..length).for_each(|_| schedule.act());
        schedule.finish();
    }
    println!("{schedules} schedules in {:.1?}", began.elapsed());
}

/// What a schedule did; it is told when that fails.
struct Log {
    seed: u64,
    lines: Vec<String>,
}

impl Drop for Log {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.lines.join("\n"));
            eprintln!("again: RWF_SEED={} cargo test --test races schedules", self.seed);
        }
    }
}

/// Makes the end of this connection a reset, as that of a peer that vanished.
fn reset_when_dropped(stream: &Wire) {
    match stream {
        #[cfg(unix)]
        Wire::Tcp(_) | Wire::Tls(_) => {
            let linger = Some(Duration::ZERO);
            rustix::net::sockopt::set_socket_linger(stream.tcp(), linger).unwrap();
        }
        _ => stream.shutdown(Shutdown::Both).unwrap_or_default(),
    }
}
