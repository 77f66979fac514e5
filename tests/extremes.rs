//! Every setting at its extremes, driven through plain use, a slow client, closing and shutdown: it works, or it is an
//! error at start that names it. Alone in its file: it counts the panics of the whole process.

mod common;

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, channel};
use std::thread;
use std::time::Duration;

use common::{DEADLINE, Raw, get, status, upgrade_request};
use parking_lot::Mutex;
use rwf::controller::{Deflate, Events, Overflow, Rate, Websocket};
use rwf::http::{self, Proxy, Server};
use rwf::prelude::*;

/// What a setting is set to, and how.
type Change = (String, Box<dyn Fn(Server) -> Server + Send>);

/// The settings of the test itself: short, so that what should end ends.
fn websocket() -> Websocket {
    Websocket::new()
        .write_timeout(Duration::from_millis(300))
        .close_timeout(Duration::from_millis(300))
        .ping_interval(Duration::from_millis(500))
        .ping_timeout(Duration::from_millis(500))
}

macro_rules! server {
    ($name:ident: $($value:expr),*) => {
        vec![$((
            format!("{}({:?})", stringify!($name), $value),
            Box::new(move |server: Server| server.$name($value)) as Box<dyn Fn(Server) -> Server + Send>,
        )),*]
    };
}

macro_rules! endpoint {
    ($name:ident: $($value:expr),*) => {
        vec![$((
            format!("{}({:?})", stringify!($name), $value),
            Box::new(move |server: Server| server.websocket(websocket().$name($value)))
                as Box<dyn Fn(Server) -> Server + Send>,
        )),*]
    };
}

const INSTANT: Duration = Duration::from_nanos(1);
const SECOND: Duration = Duration::from_secs(1);

fn long() -> String {
    "x".repeat(100_000)
}

/// All settings by the names of their fields.
fn settings() -> Vec<(&'static str, Vec<Change>)> {
    let ip = std::net::IpAddr::from([255, 255, 255, 255]);
    let [none, one, most] = [0, 1, usize::MAX].map(Rate::per_second);
    let [never, always] = [Duration::MAX, INSTANT].map(|period| Rate::per(1, period));
    vec![
        ("open_timeout", server!(open_timeout: Duration::ZERO, INSTANT, Duration::MAX)),
        ("body_timeout", server!(body_timeout: Duration::ZERO, INSTANT, Duration::MAX)),
        ("idle_timeout", server!(idle_timeout: Duration::ZERO, INSTANT, Duration::MAX)),
        ("shutdown_timeout", server!(shutdown_timeout: Duration::ZERO, INSTANT, Duration::MAX)),
        ("max_head_size", server!(max_head_size: 0, 1, 18, usize::MAX)),
        ("max_headers", server!(max_headers: 0, 1, 1_usize << 40, usize::MAX)),
        ("max_body_size", server!(max_body_size: 0, 1, usize::MAX)),
        ("max_connections", server!(max_connections: 0, 1, usize::MAX)),
        ("max_connections_per_peer", server!(max_connections_per_peer: 0, 1, usize::MAX)),
        ("max_connections_per_session", server!(max_connections_per_session: 0, 1, usize::MAX)),
        (
            "handshake_rate_per_peer",
            server!(handshake_rate_per_peer: none, one.burst(0), one, most, never, always),
        ),
        ("max_queued_bytes", server!(max_queued_bytes: 0, 1, usize::MAX)),
        ("handler_warning", server!(handler_warning: Duration::ZERO, INSTANT, Duration::MAX)),
        ("allowed_hosts", server!(allow_host: "", "a", "https://a", "a:1", long())),
        ("trusted_proxies", server!(trust_proxy: ip, Proxy::Unix)),
        ("proxy_protocol", server!(proxy_protocol: ip, [127, 0, 0, 1], Proxy::Unix)),
        ("ipv6_only", server!(ipv6_only: false, true)),
        ("unix_mode", server!(unix_mode: 0, 0o777, 0o1000, u32::MAX)),
        ("backlog", server!(backlog: 0, 1, u32::MAX)),
        ("stack_size", server!(stack_size: 0, 1, 128 << 10, 1 << 30, usize::MAX)),
        ("spare_threads", server!(spare_threads: 0, 1, usize::MAX)),
        ("no_delay", server!(no_delay: false, true)),
        ("session_cookie", server!(session_cookie: "", "a", "a b", long())),
        ("websocket", server!(websocket: Websocket::new(), websocket())),
        ("max_message_size", endpoint!(max_message_size: 0, 1, usize::MAX)),
        ("max_frame_size", endpoint!(max_frame_size: 0, 1, usize::MAX)),
        ("max_fragments", endpoint!(max_fragments: 0, 1, usize::MAX)),
        ("read_buffer_size", endpoint!(read_buffer_size: 0, 1, usize::MAX)),
        ("message_rate", endpoint!(message_rate: none, one.burst(0), one, most, never, always)),
        ("byte_rate", endpoint!(byte_rate: none, one.burst(0), one, most, never, always)),
        (
            "message_rate_per_session",
            endpoint!(message_rate_per_session: none, one.burst(0), one, most, never, always),
        ),
        (
            "byte_rate_per_session",
            endpoint!(byte_rate_per_session: none, one.burst(0), one, most, never, always),
        ),
        (
            "max_hold",
            vec![Duration::ZERO, INSTANT, Duration::MAX]
                .into_iter()
                .map(|time| {
                    let change = move |server: Server| {
                        server.websocket(websocket().message_rate(one).max_hold(time))
                    };
                    (format!("max_hold({time:?})"), Box::new(change) as Box<_>)
                })
                .collect(),
        ),
        ("outbox_bytes", endpoint!(outbox_bytes: 0, 1, usize::MAX)),
        ("outbox_messages", endpoint!(outbox_messages: 0, 1, usize::MAX)),
        ("max_topics", endpoint!(max_topics: 0, 1, usize::MAX)),
        ("overflow", endpoint!(overflow: Overflow::Close, Overflow::Refuse, Overflow::DropOldest)),
        ("max_lag", endpoint!(max_lag: None::<Duration>, Duration::ZERO, INSTANT, Duration::MAX)),
        ("max_unsent_bytes", endpoint!(max_unsent_bytes: None::<usize>, 0, 1, usize::MAX)),
        ("ping_interval", endpoint!(ping_interval: Duration::ZERO, INSTANT, Duration::MAX)),
        ("ping_timeout", endpoint!(ping_timeout: Duration::ZERO, INSTANT, Duration::MAX)),
        ("write_timeout", endpoint!(write_timeout: Duration::ZERO, INSTANT, Duration::MAX)),
        ("close_timeout", endpoint!(close_timeout: Duration::ZERO, INSTANT, Duration::MAX)),
        ("origins", endpoint!(allow_origin: "", "null", "https://a", "https://a/", long())),
        ("subprotocols", endpoint!(subprotocols: [""], ["a"], ["a b"], [long()])),
        (
            "deflate",
            endpoint!(
                deflate: None::<Deflate>,
                Deflate::new().level(0),
                Deflate::new().level(1).threshold(0),
                Deflate::new().level(9).threshold(usize::MAX),
                Deflate::new().level(u8::MAX),
                Deflate::new().window_bits(8),
                Deflate::new().window_bits(9).threshold(0).context_takeover(true),
                Deflate::new().window_bits(16)
            ),
        ),
    ]
}

/// Counts its connections' beginnings and ends, and echoes.
#[derive(Default)]
struct Counted {
    open: AtomicI64,
    served: AtomicUsize,
}

struct Endpoint(Arc<Counted>, ConnectionId);

#[async_trait]
impl WebsocketController for Endpoint {
    async fn handle_connection(&self, _: &SessionId) -> Result<(), Error> {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        self.0.served.fetch_add(1, Ordering::Relaxed);
        let _ = Comms::connection(self.1).subscribe("extremes");
        Ok(())
    }

    async fn handle_message(&self, _: &SessionId, message: Message) -> Result<(), Error> {
        Comms::connection(self.1).send(message)?;
        Ok(())
    }

    async fn handle_close(&self, _: &SessionId, _: CloseCode, _: &str) -> Result<(), Error> {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Counted {
    /// The same as a function, which receives in every way.
    fn serve(&self, mut socket: Socket) -> Result<(), Error> {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.served.fetch_add(1, Ordering::Relaxed);
        let _ = Comms::here()?.subscribe("extremes");
        let waits =
            [Duration::ZERO, Duration::from_nanos(1), Duration::from_millis(3), Duration::MAX];
        for wait in waits.iter().cycle() {
            match socket.recv_timeout(*wait) {
                // Where there is no room, the setting has it so.
                Ok(message) => drop(socket.send_timeout(message, *wait)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }

    /// The same as a loop over events.
    fn take(&self, events: &Events) {
        for event in events {
            match event {
                Event::Opened(client) => {
                    self.open.fetch_add(1, Ordering::Relaxed);
                    self.served.fetch_add(1, Ordering::Relaxed);
                    let _ = Comms::connection(client.connection_id()).subscribe("extremes");
                }
                Event::Message(client, message) => {
                    let _ = client.send(message);
                }
                Event::Closed(..) => {
                    self.open.fetch_sub(1, Ordering::Relaxed);
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Controller,
    Function,
    Events,
}

struct Routes(Arc<Counted>, Style, Box<dyn Controller>);

#[async_trait]
impl Controller for Routes {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        let user: i64 = request.param("user")?.parse()?;
        if request.header("Upgrade").is_none() {
            return Ok(Response::new().text(format!("hello, {user}")));
        }
        let request = request.with_session(user);
        match self.1 {
            Style::Controller => {
                let endpoint = Endpoint(Arc::clone(&self.0), request.connection_id());
                WebsocketController::handle(&endpoint, &request).await
            }
            Style::Function => request.upgrade(|socket| self.0.serve(socket)),
            Style::Events => self.2.handle(&request).await,
        }
    }
}

/// A WebSocket of `user`, if the setting lets it in.
fn open(server: &http::ServerHandle, user: i64) -> Option<Raw> {
    let mut client = Raw::connect(server.local_addr());
    client.send(upgrade_request(&format!("/{user}"), "").as_bytes());
    let head = client.try_head().ok().flatten()?;
    // Refused by a limit, in good order.
    if [400, 408, 429, 431, 503].contains(&status(&head)) {
        return None;
    }
    assert_eq!(status(&head), 101, "{head}");
    Some(client)
}

/// Reads until the end, in whatever way it comes.
fn read_to_the_end(client: &mut Raw) {
    let mut buffer = vec![0; 64 << 10];
    while client.stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
}

/// Drives a server that `change` has changed through everything. How many WebSockets it served.
fn drive(change: &dyn Fn(Server) -> Server, style: Style) -> Result<usize, http::Error> {
    static NEXT: AtomicI64 = AtomicI64::new(930_000);
    let user = NEXT.fetch_add(10, Ordering::Relaxed);
    let counted = Arc::new(Counted::default());
    let (endpoint, events) = rwf::events(0);
    let routes = vec![route!("/:user" => Routes(Arc::clone(&counted), style, Box::new(endpoint)))];
    let taking = thread::spawn({
        let counted = Arc::clone(&counted);
        move || counted.take(&events)
    });
    let server = Server::new(routes).websocket(websocket()).shutdown_timeout(2 * SECOND);
    let server = change(server).bind("127.0.0.1:0").spawn()?;

    // Plain use.
    let mut plain = Raw::connect(server.local_addr());
    plain.send(get(&format!("/{user}")).as_bytes());
    let _ = plain.try_head();
    drop(plain);
    if let Some(mut client) = open(&server, user) {
        client.send_text("x");
        client.send_frame(0x01, b"in ");
        client.send_frame(0x80, b"parts");
        client.send_frame(0x89, b"ping");
        let _ = Comms::websocket(user).send("pushed");
        let _ = Comms::topic("extremes").send("published");
        // Closing, by the client.
        client.send_close(1000, "bye");
        read_to_the_end(&mut client);
    }
    // Closing, by the server, of a client that answers, and of one that does not.
    if let Some(mut client) = open(&server, user + 1) {
        let _ = Comms::websocket(user + 1).close(CloseCode::NORMAL, "enough");
        client.send_close(1000, "");
        read_to_the_end(&mut client);
    }
    let _mute = open(&server, user + 2);
    let _ = Comms::websocket(user + 2).close(CloseCode::NORMAL, "enough");
    // A slow client, more than the kernel takes.
    let _slow = open(&server, user + 3);
    let message = Message::binary(vec![7; 5 << 20]);
    for _ in 0..4 {
        let _ = Comms::websocket(user + 3).send(&message);
        let _ = Comms::websocket(user + 3).send("short");
    }
    // A slow client at the time of the shutdown.
    let _last = open(&server, user + 4);
    for _ in 0..4 {
        let _ = Comms::websocket(user + 4).send(&message);
    }
    let report = server.shutdown()?;
    assert_eq!(report.running, 0, "{report:?}");
    drop(server);
    common::join("the loop over the events", taking);
    let left = counted.open.load(Ordering::Relaxed);
    assert_eq!(left, 0, "{left} handlers were not told of the end");
    Ok(counted.served.load(Ordering::Relaxed))
}

/// Panics of rwf's threads so far.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn note_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let thread = thread::current();
        if thread.name().is_some_and(|name| name.starts_with("rwf-")) {
            PANICS.lock().push(format!("{info}"));
        }
        usual(info);
    }));
}

/// Drives one change in every style of handler, and fails when that hangs.
fn try_out(setting: &str, what: &str, change: Box<dyn Fn(Server) -> Server + Send>) -> String {
    let (sender, result) = channel();
    let thread = thread::spawn(move || {
        let styles = [Style::Controller, Style::Function, Style::Events];
        let served: Result<Vec<_>, _> =
            styles.into_iter().map(|style| drive(&*change, style)).collect();
        sender.send(served).unwrap_or_default();
    });
    match result.recv_timeout(8 * DEADLINE) {
        Ok(Ok(served)) => format!("{what}: {served:?} WebSockets"),
        Ok(Err(http::Error::Setting { name, reason, .. })) => {
            // The setters of lists are named for what they add.
            let names = [setting, what.split('(').next().unwrap_or_default()];
            assert!(names.contains(&name), "{what} is an error of `{name}`: {reason}");
            assert!(reason.contains("has to be"), "{what} does not say its bounds: {reason}");
            format!("{what}: `{name}` {reason:.80}")
        }
        Ok(Err(error)) => panic!("{what} starts no server, without its name: {error}"),
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what} hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map_or("", String::as_str);
                panic!("{what} fails: {text}")
            }
            Ok(()) => unreachable!("it sends before it ends"),
        },
    }
}

#[test]
fn every_setting_works_at_its_extremes_or_is_an_error_that_names_it() {
    note_panics();
    let changes: Vec<_> = settings()
        .into_iter()
        .flat_map(|(setting, changes)| changes.into_iter().map(move |change| (setting, change)))
        .collect();
    let changes = Mutex::new(changes.into_iter());
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                loop {
                    let next = changes.lock().next();
                    let Some((setting, (what, change))) = next else { break };
                    let what = format!("{what:.60}");
                    println!("{}", try_out(setting, &what, change));
                }
            });
        }
    });
    assert!(PANICS.lock().is_empty(), "{:#?}", PANICS.lock());
}

#[test]
fn no_setting_is_forgotten_here() {
    let tried: Vec<_> = settings().into_iter().map(|(name, _)| name).collect();
    for (file, of) in
        [("controller/settings.rs", "Settings"), ("websocket/settings.rs", "Websocket")]
    {
        let path = format!("{}/src/{file}", env!("CARGO_MANIFEST_DIR"));
        let source = std::fs::read_to_string(path).unwrap();
        let (_, rest) = source.split_once(&format!("struct {of} {{")).expect("the struct is there");
        let (fields, _) = rest.split_once("\n}").expect("the struct ends");
        let fields = fields.lines().filter_map(|line| line.trim().strip_prefix("pub(crate) "));
        let mut count = 0;
        for field in fields.filter_map(|field| Some(field.split_once(':')?.0)) {
            assert!(tried.contains(&field), "`{field}` is not tried at its extremes");
            count += 1;
        }
        assert!(count > 10, "{file} was not understood");
    }
}
