//! Handlers that block, flood, close whom they like, or panic: nobody else notices, and the shutdown comes in time.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::{DEADLINE, Echo, Guest, Raw, client_frame, serve, start, wait_until};
use parking_lot::{Mutex, MutexGuard};
use rwf::comms::SendError;
use rwf::controller::{Overflow, Websocket};
use rwf::http::{Route, Server, ServerHandle};
use rwf::prelude::*;

/// What waits for nobody takes microseconds; this long it takes only if it waits, or on a machine that does.
const AT_ONCE: Duration = Duration::from_secs(1);

/// `notify` reaches all connections of the process, so that one test at a time has any.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock()
}

/// A WebSocket endpoint whose `handle_message` is `function`, which is told the connection too.
struct OnMessage<F>(F);

struct OfConnection<'a, F>(&'a F, ConnectionId);

#[async_trait]
impl<F> Controller for OnMessage<F>
where
    F: Fn(&SessionId, ConnectionId, Message) -> Result<(), Error> + Send + Sync,
{
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        let controller = OfConnection(&self.0, request.connection_id());
        WebsocketController::handle(&controller, request).await
    }
}

#[async_trait]
impl<F> WebsocketController for OfConnection<'_, F>
where
    F: Fn(&SessionId, ConnectionId, Message) -> Result<(), Error> + Send + Sync,
{
    async fn handle_message(&self, client: &SessionId, message: Message) -> Result<(), Error> {
        (self.0)(client, self.1, message)
    }
}

/// `/` runs `function`, `/echo` echoes.
fn routes<F>(function: F) -> Vec<Route>
where
    F: Fn(&SessionId, ConnectionId, Message) -> Result<(), Error> + Send + Sync + 'static,
{
    vec![route!("/" => OnMessage(function)), route!("/echo" => Echo)]
}

/// A tab of `session` at the misbehaving endpoint.
fn tab(server: SocketAddr, session: Guest) -> Raw {
    Raw::open_with(server, "/", &session.cookie())
}

#[track_caller]
fn assert_echo_at_once(client: &mut Raw) {
    let began = Instant::now();
    client.send_text("are you there?");
    assert_eq!(client.text_frame(), "are you there?");
    let took = began.elapsed();
    assert!(took < AT_ONCE, "a client of another handler waited for {took:?}");
}

/// Handlers that wait until they are let go.
fn blocking() -> (Vec<Route>, Receiver<()>, Arc<AtomicBool>) {
    let (entered, inside) = channel();
    let (entered, is_over) = (Mutex::new(entered), Arc::new(AtomicBool::new(false)));
    let may_go = Arc::clone(&is_over);
    let routes = routes(move |_, _, _| {
        entered.lock().send(())?;
        while !may_go.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    });
    (routes, inside, is_over)
}

#[test]
fn a_handler_that_blocks_holds_up_its_own_client_and_nobody_else() {
    let _alone = alone();
    let (routes, inside, may_go) = blocking();
    // Over TLS the stream ends when the client has answered, which nobody reads, or by then.
    let settings = Websocket::new().close_timeout(Duration::from_millis(300));
    let server = start(Server::new(routes).websocket(settings));
    let address = server.local_addr();
    let sessions: Vec<_> = (0..8).map(|_| Guest::new()).collect();
    let mut blocked: Vec<_> = sessions.iter().map(|session| tab(address, *session)).collect();
    for client in &mut blocked {
        client.send_text("block");
        inside.recv_timeout(DEADLINE).unwrap();
    }
    let mut other = Raw::open(address, "/echo");
    for number in 0..50 {
        assert_echo_at_once(&mut other);
        for session in &sessions {
            let began = Instant::now();
            assert_eq!(Comms::websocket(session).send(number.to_string()), Ok(1));
            assert!(began.elapsed() < AT_ONCE, "a send took {:?}", began.elapsed());
        }
    }
    // What others send to its client goes out while its handler blocks, the close too.
    for (client, session) in blocked.iter_mut().zip(&sessions) {
        for number in 0..50 {
            assert_eq!(client.text_frame(), number.to_string());
        }
        assert_eq!(Comms::websocket(session).close(4000, "enough"), Ok(1));
        assert_eq!(client.close_frame(), (4000, "enough".to_owned()));
        client.send_close(4000, "");
        client.expect_end();
    }
    may_go.store(true, Ordering::SeqCst);
    drop(blocked);
    for session in sessions {
        wait_until("the session is gone", || !Comms::websocket(session).is_connected());
    }
}

#[test]
fn a_shutdown_does_not_wait_for_handlers_that_block() {
    let _alone = alone();
    let (routes, inside, may_go) = blocking();
    let server = start(Server::new(routes).shutdown_timeout(Duration::from_millis(300)));
    let address = server.local_addr();
    let mut blocked: Vec<_> = (0..4).map(|_| Raw::open(address, "/")).collect();
    for client in &mut blocked {
        client.send_text("block");
        inside.recv_timeout(DEADLINE).unwrap();
    }
    let began = Instant::now();
    let report = server.shutdown().unwrap();
    let took = began.elapsed();
    assert_eq!((report.closed, report.cut, report.running), (0, 4, 4));
    assert!(took < Duration::from_secs(4), "the shutdown took {took:?}");
    for client in &mut blocked {
        assert_eq!(client.close_frame().0, 1001);
        client.expect_end();
    }
    may_go.store(true, Ordering::SeqCst);
}

/// An endpoint that sends numbers to its own client without end; how many were taken, and what ended it.
fn endless(settings: Websocket) -> (ServerHandle, Arc<AtomicUsize>, Receiver<SendError>) {
    let (sender, ends) = channel();
    let (sender, taken) = (Mutex::new(sender), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&taken);
    let routes = routes(move |_, connection, _| {
        let comms = Comms::connection(connection);
        for number in 0_u64.. {
            // Long enough to fill what the systems on both sides take.
            let mut message = vec![0; 16 << 10];
            message[..8].copy_from_slice(&number.to_be_bytes());
            if let Err(error) = comms.send(message) {
                sender.lock().send(error)?;
                break;
            }
            count.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    });
    (start(Server::new(routes).websocket(settings)), taken, ends)
}

#[test]
fn a_handler_that_sends_to_itself_without_end_is_held_back_and_ends_with_its_client() {
    let _alone = alone();
    let (server, taken, ends) = endless(Websocket::new());
    let address = server.local_addr();
    let mut other = Raw::open(address, "/echo");
    let mut client = Raw::open(address, "/");
    client.send_text("begin");
    for number in 0..2000_u64 {
        let frame = client.frame();
        assert_eq!(frame.payload[..8], number.to_be_bytes(), "out of order");
        if number % 100 == 0 {
            assert_echo_at_once(&mut other);
        }
    }
    // Now the client stops reading for a while: what is taken meanwhile is what the systems and the outbox hold.
    let mut before = taken.load(Ordering::SeqCst);
    wait_until("the handler is held back", || {
        thread::sleep(Duration::from_millis(200));
        before == std::mem::replace(&mut before, taken.load(Ordering::SeqCst))
    });
    let ahead = before - 2000;
    assert!(ahead << 14 < 64 << 20, "{ahead} messages of 16 KiB were taken ahead of the client");
    for number in 2000..4000_u64 {
        assert_eq!(client.frame().payload[..8], number.to_be_bytes(), "out of order");
    }
    assert!(ends.try_recv().is_err(), "a client that reads on was given up");
    drop(client);
    let error = ends.recv_timeout(DEADLINE).expect("the handler goes on without its client");
    assert_eq!(error, SendError::Closing);
    assert_echo_at_once(&mut other);
}

#[test]
fn a_handler_that_floods_a_client_that_stopped_reading_ends_at_the_write_timeout() {
    let _alone = alone();
    let write_timeout = Duration::from_millis(300);
    let (server, _, ends) = endless(Websocket::new().write_timeout(write_timeout));
    let mut client = Raw::open(server.local_addr(), "/");
    client.send_text("begin");
    let began = Instant::now();
    ends.recv_timeout(DEADLINE).expect("the handler floods a client that does not read");
    assert!(began.elapsed() >= write_timeout, "given up after {:?}", began.elapsed());
}

#[test]
fn a_handler_may_close_itself_and_others() {
    let _alone = alone();
    let results = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&results);
    let server = serve(routes(move |client, connection, message| {
        let own = Comms::connection(connection);
        let closed = match message.as_text() {
            Some("own connection") => own.close(4001, "you")?,
            Some("own session") => Comms::websocket(client).close(4002, "your tabs")?,
            Some("others") => Comms::broadcast(client).close(4003, "all but you")?,
            _ => Comms::notify().close(4004, "all")?,
        };
        kept.lock().push((closed, own.send("afterwards")));
        Ok(())
    }));
    let address = server.local_addr();
    for (what, own, tab_of_own, other) in [
        ("own connection", Some(4001), None, None),
        ("own session", Some(4002), Some(4002), None),
        ("others", None, None, Some(4003)),
        ("all", Some(4004), Some(4004), Some(4004)),
    ] {
        let session = Guest::new();
        let mut clients = [
            (own, tab(address, session)),
            (tab_of_own, tab(address, session)),
            (other, Raw::open(address, "/echo")),
            (other, tab(address, Guest::new())),
        ];
        clients[0].1.send_text(what);
        wait_until("the handler has returned", || !results.lock().is_empty());
        let (closed, sent) = results.lock().pop().unwrap();
        assert_eq!(closed, clients.iter().filter(|(code, _)| code.is_some()).count(), "{what}");
        assert_eq!(sent, if own.is_some() { Err(SendError::Closing) } else { Ok(1) }, "{what}");
        for (number, (code, client)) in clients.iter_mut().enumerate() {
            match code {
                Some(code) => {
                    assert_eq!(client.close_frame().0, *code, "{what}, client {number}");
                    client.send_close(*code, "");
                    client.expect_end();
                }
                None if number == 0 => assert_eq!(client.text_frame(), "afterwards", "{what}"),
                None => client.expect_nothing_for(Duration::from_millis(20)),
            }
        }
        drop(clients);
        wait_until("all are gone", || !Comms::notify().is_connected());
    }
}

/// Sends until nothing more finds room, in the outbox and in what the systems on both sides take.
fn fill(session: impl Into<SessionId>) {
    let comms = Comms::websocket(session);
    for length in [256 << 10, 1000] {
        let message = Message::binary(vec![7; length]);
        let mut refused = Instant::now();
        // The systems may make more room for a while.
        while refused.elapsed() < Duration::from_millis(300) {
            if comms.send(&message).is_ok() {
                refused = Instant::now();
            } else {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

#[test]
fn a_handler_that_notifies_in_a_loop_reaches_all_who_read_and_waits_for_none() {
    const COUNT: usize = 400;
    let _alone = alone();
    let (sender, results) = channel();
    let sender = Mutex::new(sender);
    let routes = routes(move |client, _, _| {
        let mut longest = Duration::ZERO;
        let mut reached = Vec::new();
        for number in 0..COUNT {
            let mut message = vec![0; 16 << 10];
            message[..8].copy_from_slice(&number.to_be_bytes());
            let began = Instant::now();
            reached.push(Comms::broadcast(client).send(message));
            longest = longest.max(began.elapsed());
        }
        sender.lock().send((reached, longest))?;
        Ok(())
    });
    // Room for all of it, so that who reads loses nothing on a slow machine, and for little of a message more.
    let settings = Websocket::new()
        .outbox_bytes(COUNT * (17 << 10))
        .write_timeout(DEADLINE)
        .overflow(Overflow::Refuse);
    let server = start(Server::new(routes).websocket(settings));
    let address = server.local_addr();
    // Two are full before it begins.
    let full: Vec<_> = (0..2).map(|_| Guest::new()).collect();
    let _clients: Vec<_> = full.iter().map(|session| tab(address, *session)).collect();
    full.iter().for_each(fill);
    let mut readers: Vec<_> = (0..3).map(|_| Raw::open(address, "/echo")).collect();
    let mut culprit = Raw::open(address, "/");
    culprit.send_text("notify");
    for reader in &mut readers {
        for number in 0..COUNT {
            assert_eq!(reader.frame().payload[..8], number.to_be_bytes(), "out of order");
        }
        assert_echo_at_once(reader);
    }
    let (reached, longest) = results.recv_timeout(DEADLINE).unwrap();
    println!("the longest of {COUNT} sends to five clients, two of them full: {longest:.1?}");
    // The systems on both sides may make more room for the full ones at any time.
    let wrong: Vec<_> = reached.iter().filter(|reached| !matches!(reached, Ok(3..=5))).collect();
    assert!(wrong.is_empty(), "three took it at least, and it says: {wrong:?}");
    let by_three = reached.iter().filter(|reached| **reached == Ok(3)).count();
    assert!(by_three > COUNT / 2, "the full ones took most of it: {reached:?}");
    assert!(longest < AT_ONCE, "a send took {longest:?}");
    for session in &full {
        assert!(Comms::websocket(session).is_connected(), "refusing closes nobody");
    }
}

#[test]
fn a_handler_that_panics_while_others_send_to_it_loses_nothing_that_was_taken() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 100;
    let _alone = alone();
    let server =
        serve(routes(|_, _, _| std::panic::resume_unwind(Box::new("as the client wished"))));
    let address = server.local_addr();
    let mut other = Raw::open(address, "/echo");
    for round in 0..ROUNDS {
        let session = Guest::new();
        let mut client = tab(address, session);
        let taken: Vec<_> = thread::scope(|scope| {
            let senders: Vec<_> = (0..THREADS)
                .map(|thread| {
                    scope.spawn(move || {
                        let comms = Comms::websocket(session);
                        // Fewer in all than the outbox holds, so that it is never full.
                        (0..250)
                            .take_while(|n| comms.send(format!("{thread} {n}")) == Ok(1))
                            .count()
                    })
                })
                .collect();
            client.send_text("panic");
            senders.into_iter().map(|sender| sender.join().unwrap()).collect()
        });
        let mut arrived = [0; THREADS];
        let close = loop {
            let frame = client.frame();
            if frame.first == 0x88 {
                break frame;
            }
            let text = String::from_utf8(frame.payload).unwrap();
            let (thread, number) = text.split_once(' ').unwrap();
            let thread: usize = thread.parse().unwrap();
            assert_eq!(number.parse(), Ok(arrived[thread]), "round {round}: out of order");
            arrived[thread] += 1;
        };
        assert_eq!(arrived[..], taken, "round {round}: what was taken is what arrives");
        assert_eq!(close.payload[..2], 1011_u16.to_be_bytes(), "round {round}");
        client.send_close(1011, "");
        client.expect_end();
        drop(client);
        wait_until("the session is gone", || Comms::websocket(session).send("") == Ok(0));
        assert_echo_at_once(&mut other);
    }
}

#[test]
fn a_server_dropped_by_its_own_handler_still_cuts_who_does_not_answer() {
    let _alone = alone();
    let handle: Arc<Mutex<Option<ServerHandle>>> = Arc::default();
    let kept = Arc::clone(&handle);
    let settings = Websocket::new().close_timeout(Duration::from_millis(300));
    let routes = routes(move |_, _, _| {
        drop(kept.lock().take());
        Ok(())
    });
    let server = start(Server::new(routes).websocket(settings));
    let address = server.local_addr();
    let mut mute = Raw::open(address, "/echo");
    let mut culprit = Raw::open(address, "/");
    *handle.lock() = Some(server);
    culprit.send_text("drop it");
    for client in [&mut mute, &mut culprit] {
        assert_eq!(client.close_frame().0, 1001);
        // Neither answers. The server has ended its side already; that it gave up shows when a write is refused.
        client.expect_end();
        wait_until("the connection is cut", || {
            let frame = client_frame(0x81, b"still there?");
            std::io::Write::write_all(&mut client.stream, &frame).is_err()
        });
    }
}
