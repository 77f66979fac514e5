//! Endpoints that are functions: what they receive and send, how they end, and what happens around them meanwhile.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::cell::RefCell;
use std::io::Write;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use common::{DEADLINE, Guest, Raw, client_frame, serve, start, wait_until};
use parking_lot::Mutex;
use rwf::comms::SendError;
use rwf::controller::{RecvError, Websocket};
use rwf::http::{Server, ServerHandle};
use rwf::prelude::*;
use rwf::websocket::{Cause, Closed};

/// Serves `function` at `/`.
fn serve_function<F>(function: F) -> ServerHandle
where
    F: Fn(Socket) -> Result<(), Error> + Send + Sync + 'static,
{
    serve(vec![route!("/" => websocket(function))])
}

/// Serves `function` at `/`; the other end of a channel that it may report through.
fn serve_reporting<T, F>(function: F) -> (ServerHandle, Receiver<T>)
where
    T: Send + 'static,
    F: Fn(Socket, &dyn Fn(T)) -> Result<(), Error> + Send + Sync + 'static,
{
    let (sender, receiver) = channel();
    let sender = Mutex::new(sender);
    let server = serve_function(move |socket| {
        let sender = sender.lock().clone();
        function(socket, &|report| sender.send(report).unwrap())
    });
    (server, receiver)
}

fn open(server: &ServerHandle) -> Raw {
    Raw::open(server.local_addr(), "/")
}

#[track_caller]
fn expect_close(client: &mut Raw, code: u16, reason: &str) {
    assert_eq!(client.close_frame(), (code, reason.to_owned()));
    client.send_close(code, "");
    client.expect_end();
}

fn echo(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.recv()? {
        socket.send(message)?;
    }
    Ok(())
}

#[test]
fn a_function_echoes_in_order_and_answers_the_close() {
    let server = serve_function(echo);
    let mut client = open(&server);
    let burst: Vec<u8> = (0..500)
        .flat_map(|number: u32| client_frame(0x81, number.to_string().as_bytes()))
        .collect();
    client.send(&burst);
    for number in 0..500 {
        assert_eq!(client.text_frame(), number.to_string());
    }
    client.send_close(4001, "enough");
    assert_eq!(client.close_frame(), (4001, "enough".to_owned()));
    client.expect_end();
}

#[test]
fn how_a_function_ends_is_how_its_websocket_is_closed() {
    let server =
        serve_function(|mut socket| match socket.recv()?.as_ref().and_then(Message::as_text) {
            Some("error") => Err(Error::new("a secret")),
            Some("kick") => Err(Error::new("rude").with_close(4003, "be polite")),
            Some("panic") => panic!("told to"),
            Some("close") => {
                socket.send("before")?;
                socket.close(4004, "closed")?;
                // The first close counts.
                Err(Error::new("after"))
            }
            _ => Ok(()),
        });
    for (message, code, reason) in [
        ("return", 1000, ""),
        ("error", 1011, ""),
        ("kick", 4003, "be polite"),
        ("panic", 1011, ""),
    ] {
        let mut client = open(&server);
        client.send_text(message);
        expect_close(&mut client, code, reason);
    }
    let mut client = open(&server);
    client.send_text("close");
    assert_eq!(client.text_frame(), "before");
    expect_close(&mut client, 4004, "closed");
    let report = server.shutdown().unwrap();
    assert_eq!((report.cut, report.running), (0, 0), "{report:?}");
}

#[test]
fn the_end_is_told_once_and_then_an_error() {
    let (server, reports) = serve_reporting(|mut socket, report| {
        let first = socket.recv();
        let ends = (socket.recv(), socket.try_recv(), socket.recv_timeout(DEADLINE), socket.recv());
        report((first, ends, socket.iter().count(), socket.send("too late")));
        Ok(())
    });
    let mut client = open(&server);
    client.send_text("hello");
    client.send_close(1000, "");
    let (first, ends, count, sent) = reports.recv_timeout(DEADLINE).unwrap();
    assert_eq!(first.unwrap(), Some(Message::text("hello")));
    assert_eq!(
        ends,
        (
            Ok(None),
            Err(TryRecvError::Disconnected),
            Err(RecvTimeoutError::Disconnected),
            Err(RecvError),
        )
    );
    assert_eq!((count, sent), (0, Err(SendError::Closing)));
}

#[test]
fn a_client_that_vanishes_ends_the_loop_as_one_that_says_good_bye_does() {
    let (server, reports) = serve_reporting(|mut socket, report| {
        while let Some(message) = socket.recv()? {
            socket.send(message)?;
        }
        // What stands behind the loop runs however the client leaves.
        report(());
        Ok(())
    });
    let mut client = open(&server);
    client.send_text("hello");
    assert_eq!(client.text_frame(), "hello");
    drop(client);
    reports.recv_timeout(DEADLINE).expect("the function did not get behind its loop");
}

#[test]
fn a_receive_with_a_timeout_waits_as_long_and_no_longer_than_for_a_message() {
    let timeout = Duration::from_millis(60);
    let (server, reports) = serve_reporting(move |mut socket, report| {
        let began = Instant::now();
        let nothing = socket.recv_timeout(timeout);
        report((nothing, began.elapsed()));
        socket.send("now")?;
        let began = Instant::now();
        report((socket.recv_timeout(Duration::MAX), began.elapsed()));
        let tried = socket.try_recv().map_err(|error| match error {
            TryRecvError::Empty => RecvTimeoutError::Timeout,
            TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
        });
        report((tried, Duration::ZERO));
        report((socket.recv_deadline(Instant::now()), Duration::ZERO));
        Ok(())
    });
    let mut client = open(&server);
    let report = || reports.recv_timeout(DEADLINE).unwrap();
    let (nothing, took) = report();
    assert_eq!(nothing, Err(RecvTimeoutError::Timeout));
    assert!(took >= timeout, "it waited for {took:?} of {timeout:?}");
    assert_eq!(client.text_frame(), "now");
    client.send_text("here");
    assert_eq!(report().0, Ok(Message::text("here")));
    assert_eq!(report().0, Err(RecvTimeoutError::Timeout), "try_recv");
    assert_eq!(report().0, Err(RecvTimeoutError::Timeout), "a deadline that has passed");
    expect_close(&mut client, 1000, "");
}

#[test]
fn a_loop_that_waits_a_little_at_a_time_finds_a_silent_client_and_keeps_one_that_answers() {
    let silence = Duration::from_millis(150);
    let settings = Websocket::new().ping_interval(silence).ping_timeout(silence);
    let ends = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&ends);
    let poll = move |mut socket: Socket| {
        while socket.recv_timeout(Duration::from_millis(10)) != Err(RecvTimeoutError::Disconnected)
        {
        }
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(())
    };
    let server = start(Server::new(vec![route!("/" => websocket(poll))]).websocket(settings));
    let mut silent = open(&server);
    let mut healthy = open(&server);
    let began = Instant::now();
    assert_eq!(silent.frame().first, 0x89, "a ping");
    assert!(began.elapsed() >= silence / 2, "the ping came after {:?}", began.elapsed());
    for _ in 0..4 {
        let ping = healthy.frame();
        assert_eq!(ping.first, 0x89);
        healthy.send_frame(0x8a, &ping.payload);
    }
    wait_until("the silent client is given up", || ends.load(Ordering::SeqCst) > 0);
    assert_eq!(ends.load(Ordering::SeqCst), 1, "the client that answers was given up too");
    healthy.send_close(1000, "");
    assert_eq!(healthy.close_frame().0, 1000);
}

#[test]
fn a_receive_with_a_timeout_ends_in_time_whatever_the_client_sends() {
    for (what, first, reads) in [
        ("pings, and reads the pongs", 0x89, true),
        ("pings, and reads nothing", 0x89, false),
        ("pongs", 0x8a, false),
    ] {
        let (server, reports) = serve_reporting(|mut socket, report| {
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(500) {
                let timed_out = Err(RecvTimeoutError::Timeout);
                assert_eq!(socket.recv_timeout(Duration::from_millis(20)), timed_out);
                assert_eq!(socket.try_recv(), Err(TryRecvError::Empty));
            }
            report(());
            Ok(())
        });
        let client = open(&server);
        let [mut sending, mut reading] = [(); 2].map(|()| client.stream.try_clone().unwrap());
        let flooding = std::thread::spawn(move || {
            let burst = client_frame(first, b"x").repeat(1000);
            while sending.write_all(&burst).is_ok() {}
        });
        let reading = reads
            .then(|| std::thread::spawn(move || std::io::copy(&mut reading, &mut std::io::sink())));
        let ended = reports.recv_timeout(DEADLINE);
        client.stream.shutdown(Shutdown::Both).unwrap();
        assert!(ended.is_ok(), "a receive of 20 ms goes on while the client sends {what}");
        common::join("the flood", flooding);
        reading.map(|reading| common::join("the reader", reading));
    }
}

#[test]
fn a_ping_that_finds_no_room_is_answered_when_there_is_some() {
    const PINGS: u32 = 300_000;
    let (server, reports) = serve_reporting(|mut socket, report| {
        while let Err(RecvTimeoutError::Timeout) = socket.recv_timeout(Duration::from_millis(5)) {}
        report(());
        while socket.recv()?.is_some() {}
        Ok(())
    });
    let client = open(&server);
    let mut sending = client.stream.try_clone().unwrap();
    let pinging = std::thread::spawn(move || {
        for number in 0..PINGS {
            // Long ones fill what the systems take.
            let payload = [&number.to_be_bytes()[..], &[0; 100]].concat();
            sending.write_all(&client_frame(0x89, &payload)).unwrap();
        }
        sending.write_all(&client_frame(0x81, b"the end")).unwrap();
    });
    // For a while nobody reads the pongs, so that they find no room.
    assert!(reports.recv_timeout(Duration::from_millis(300)).is_err(), "all found room");
    let mut client = client;
    for number in 0..PINGS {
        let pong = client.frame();
        assert_eq!((pong.first, &pong.payload[..4]), (0x8a, &number.to_be_bytes()[..]));
    }
    common::join("the pings", pinging);
    reports.recv_timeout(DEADLINE).expect("the message behind the pings did not come");
}

#[test]
fn a_socket_that_the_program_keeps_or_forgets_ends_with_its_function() {
    thread_local! {
        static KEPT: RefCell<Vec<Socket>> = const { RefCell::new(Vec::new()) };
    }
    let server = serve_function(|mut socket| {
        let how = socket.recv()?;
        let session = socket.session_id().clone();
        match how.as_ref().and_then(Message::as_text) {
            #[expect(clippy::mem_forget, reason = "programs may")]
            Some("forget") => std::mem::forget(socket),
            _ => KEPT.with_borrow_mut(|kept| {
                let old = kept.iter_mut().map(|old| (old.try_recv(), old.send("late")));
                for result in old {
                    assert_eq!(result, (Err(TryRecvError::Disconnected), Err(SendError::Closing)));
                }
                kept.push(socket);
            }),
        }
        Comms::websocket(&session).send("still there")?;
        Ok(())
    });
    for how in ["keep", "forget", "keep", "keep"] {
        let guest = Guest::new();
        let mut client = Raw::open_with(server.local_addr(), "/", &guest.cookie());
        client.send_text(how);
        assert_eq!(client.text_frame(), "still there");
        assert_eq!(client.close_frame(), (1000, String::new()), "{how}");
        client.expect_end();
        wait_until("it is out of the registry", || Comms::websocket(guest).send("x") == Ok(0));
    }
    assert_eq!(server.shutdown().unwrap().running, 0);
}

#[test]
fn dropping_the_socket_early_closes_when_the_function_returns() {
    let (server, reports) = serve_reporting(|socket, report| {
        let connection = socket.connection_id();
        drop(socket);
        report(Comms::connection(connection).send("one more thing"));
        Err(Error::new("chosen").with_close(4000, "now"))
    });
    let mut client = open(&server);
    assert_eq!(reports.recv_timeout(DEADLINE).unwrap(), Ok(1));
    assert_eq!(client.text_frame(), "one more thing");
    expect_close(&mut client, 4000, "now");
}

#[test]
fn a_function_of_the_request_looks_before_it_upgrades() {
    let private = |request: &Request| {
        let Some(user) = request.header("X-User").and_then(|user| user.parse::<i64>().ok()) else {
            return Ok(Response::unauthorized());
        };
        let answer = request.with_session(user).upgrade_with(
            |defaults| defaults.subprotocols(["v2", "v1"]).max_message_size(8),
            |mut socket| {
                let who = (socket.session_id(), socket.subprotocol(), socket.request().path());
                socket.send(format!("{who:?}"))?;
                while socket.recv()?.is_some() {}
                Ok(())
            },
        )?;
        if request.header("Upgrade").is_some() {
            let again = request.upgrade(|_| Ok(())).map(|_| ());
            assert!(again.unwrap_err().to_string().contains("is a WebSocket already"));
        }
        Ok(answer)
    };
    let server = serve(vec![route!("/:room" => private)]);
    let address: SocketAddr = server.local_addr();
    let (head, _) = Raw::connect(address).ask(&common::upgrade_request("/a", ""));
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    let (head, _) =
        Raw::connect(address).ask("GET /a HTTP/1.1\r\nHost: localhost\r\nX-User: 7\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 426 "), "{head}");

    let headers = "X-User: 7\r\nSec-WebSocket-Protocol: v1, v2\r\n";
    let mut client = Raw::open_with(address, "/a", headers);
    let who = client.text_frame();
    assert_eq!(who, format!("{:?}", (SessionId::from(7), Some("v1"), "/a")));
    assert_eq!(Comms::websocket(7).send("by session"), Ok(1));
    assert_eq!(client.text_frame(), "by session");
    client.send_text("123456789");
    assert_eq!(client.close_frame().0, 1009);
    client.send_close(1009, "");
    client.expect_end();
}

#[test]
fn settings_of_an_endpoint_that_cannot_work_are_an_error_at_start() {
    let endpoint = websocket(echo).settings(|defaults| defaults.max_message_size(0));
    let error = Server::new(vec![route!("/" => endpoint)]).bind("127.0.0.1:0").spawn().unwrap_err();
    assert!(error.to_string().contains("max_message_size"), "{error}");
}

#[test]
fn functions_closures_and_controllers_stand_side_by_side() {
    fn health(_: &Request) -> Result<Response, Error> {
        Ok(Response::new().text("well"))
    }
    struct Counter(AtomicUsize);
    impl Counter {
        fn count(&self, mut socket: Socket) -> Result<(), Error> {
            for _ in socket.iter() {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        }
    }
    let counter = Arc::new(Counter(AtomicUsize::new(0)));
    let method = {
        let counter = Arc::clone(&counter);
        move |socket| counter.count(socket)
    };
    let boxed: Box<dyn Controller> = Box::new(websocket(echo));
    let server = serve(vec![
        route!("/health" => health),
        route!("/version" => |_: &Request| Ok(Response::new().text("1.2"))),
        route!("/documented" => common::Echo),
        route!("/boxed" => boxed),
        route!("/shared" => Arc::new(websocket(echo))),
        route!("/method" => websocket(method)),
    ]);
    let ask = |path: &str| Raw::connect(server.local_addr()).ask(&common::get(path)).1;
    assert_eq!((ask("/health"), ask("/version")), ("well".to_owned(), "1.2".to_owned()));
    for path in ["/documented", "/boxed", "/shared"] {
        let mut client = Raw::open(server.local_addr(), path);
        client.send_text(path);
        assert_eq!(client.text_frame(), path);
    }
    let mut client = Raw::open(server.local_addr(), "/method");
    client.send_text("one");
    wait_until("the method was called", || counter.0.load(Ordering::Relaxed) == 1);
}

#[test]
fn the_shutdown_ends_functions_that_receive() {
    let server = serve_function(|mut socket| {
        while socket.recv_timeout(Duration::from_millis(5)) != Err(RecvTimeoutError::Disconnected) {
        }
        Ok(())
    });
    let mut clients: Vec<_> = (0..4).map(|_| open(&server)).collect();
    let waiting = serve_function(echo);
    clients.extend((0..4).map(|_| open(&waiting)));
    std::thread::scope(|scope| {
        let shutdowns = [server, waiting].map(|server| scope.spawn(move || server.shutdown()));
        for client in &mut clients {
            expect_close(client, 1001, "the server shuts down");
        }
        for shutdown in shutdowns {
            let report = shutdown.join().unwrap().unwrap();
            assert_eq!((report.cut, report.running), (0, 0), "{report:?}");
        }
    });
}

/// What a client does to bring an end about, and what its function is told then.
#[test]
fn a_function_is_told_how_it_ended_and_what_brought_that_about() {
    let settings = Websocket::new()
        .max_message_size(1 << 20)
        .outbox_bytes(1 << 20)
        .ping_interval(Duration::from_secs(10))
        .close_timeout(Duration::from_millis(200));
    let (server, reports) = serve_told(settings.clone());
    let told = || reports.recv_timeout(DEADLINE).expect("the function is not over");

    let mut client = open(&server);
    client.send_close(4001, "bye");
    let closed = told();
    assert_eq!(
        (closed.code, closed.reason.as_str(), closed.cause),
        (4001.into(), "bye", Cause::Client)
    );
    assert_eq!(closed.unsent, 0);

    drop(open(&server));
    let closed = told();
    assert_eq!((closed.code, closed.cause), (CloseCode::ABNORMAL, Cause::Lost), "{closed:?}");

    let mut client = open(&server);
    client.send_frame(0x83, b"an opcode that is none");
    let closed = told();
    assert_eq!((closed.code, closed.cause), (CloseCode::PROTOCOL_ERROR, Cause::Violation));

    let guest = Guest::new();
    let mut client = Raw::open_with(server.local_addr(), "/", &guest.cookie());
    assert_eq!(Comms::websocket(guest).close(4002, "kicked"), Ok(1));
    assert_eq!(client.close_frame().0, 4002);
    client.send_close(4002, "");
    let closed = told();
    assert_eq!((closed.code, closed.cause), (4002.into(), Cause::Program));

    let guest = Guest::new();
    let _client = Raw::open_with(server.local_addr(), "/", &guest.cookie());
    let message = Message::binary(vec![0; 64 << 10]);
    while Comms::websocket(guest).send(&message).is_ok() {}
    let closed = told();
    assert_eq!((closed.code, closed.cause), (CloseCode::TRY_AGAIN_LATER, Cause::SlowReceiver));
    assert!(closed.unsent > 0, "{closed:?}");

    let client = open(&server);
    std::thread::scope(|scope| {
        scope.spawn(|| server.shutdown().unwrap());
        let closed = told();
        assert_eq!((closed.code, closed.cause), (CloseCode::GOING_AWAY, Cause::Shutdown));
        drop(client);
    });

    let quick = Duration::from_millis(50);
    let (server, reports) = serve_told(settings.clone().ping_interval(quick).ping_timeout(quick));
    let _client = open(&server);
    let closed = reports.recv_timeout(DEADLINE).unwrap();
    assert_eq!((closed.code, closed.cause), (CloseCode::ABNORMAL, Cause::Silent), "{closed:?}");

    let settings = settings.write_timeout(quick).outbox_bytes(64 << 20);
    let (server, reports) = serve_told(settings);
    let guest = Guest::new();
    let _client = Raw::open_with(server.local_addr(), "/", &guest.cookie());
    let message = Message::binary(vec![0; 32 << 20]);
    assert_eq!(Comms::websocket(guest).send(message), Ok(1));
    let closed = reports.recv_timeout(DEADLINE).unwrap();
    assert_eq!((closed.code, closed.cause), (CloseCode::ABNORMAL, Cause::Stalled), "{closed:?}");
    assert_eq!(closed.unsent, 1);
}

/// Serves a function that receives to the end, and tells how that came.
fn serve_told(settings: Websocket) -> (ServerHandle, Receiver<Closed>) {
    let (sender, receiver) = channel();
    let sender = Mutex::new(sender);
    let function = move |mut socket: Socket| {
        let sender = sender.lock().clone();
        assert_eq!(socket.closed(), None);
        for _ in socket.iter() {}
        sender.send(socket.closed().expect("it is over").clone())?;
        Ok(())
    };
    let server = Server::new(vec![route!("/" => websocket(function))]).websocket(settings);
    (start(server), receiver)
}
