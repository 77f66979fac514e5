//! Who a send reaches: this tab alone, all but one, the clients of one server; and what its sender is told.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::{DEADLINE, Guest, Raw, serve, start, wait_until};
use parking_lot::Mutex;
use rwf::comms::NotInHandler;
use rwf::controller::{Overflow, Websocket};
use rwf::http::{Server, ServerHandle};
use rwf::prelude::*;

/// Answers the tab that asks, in every style of handler.
#[derive(Default, macros::WebsocketController)]
struct AnswersHere;

#[async_trait]
impl WebsocketController for AnswersHere {
    async fn handle_connection(&self, _client: &SessionId) -> Result<(), Error> {
        Comms::here()?.subscribe("tabs")?;
        Ok(())
    }

    async fn handle_message(&self, _client: &SessionId, message: Message) -> Result<(), Error> {
        assert_eq!(Comms::here()?.send(message), Ok(1));
        Ok(())
    }

    async fn handle_close(&self, _: &SessionId, _: CloseCode, _: &str) -> Result<(), Error> {
        // It can be named still, and not be reached.
        assert_eq!(Comms::here()?.send("too late"), Ok(0));
        Comms::topic("closed").send("well")?;
        Ok(())
    }
}

fn answers_here(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.recv()? {
        Comms::here()?.send(message)?;
        assert_eq!(Comms::here()?.is_connected(), socket.client().is_connected());
    }
    Ok(())
}

fn tab(server: &ServerHandle, path: &str, guest: Guest) -> Raw {
    Raw::open_with(server.local_addr(), path, &guest.cookie())
}

#[test]
fn here_is_the_tab_whose_handler_asks() {
    assert_eq!(Comms::here().unwrap_err(), NotInHandler);
    let plain =
        |_: &Request| Ok(Response::new().text(Comms::here().map_or("nowhere", |_| "somewhere")));
    let server = serve(vec![
        route!("/controller" => AnswersHere),
        route!("/function" => websocket(answers_here)),
        route!("/plain" => plain),
    ]);
    for path in ["/controller", "/function"] {
        let guest = Guest::new();
        let (mut asks, mut other) = (tab(&server, path, guest), tab(&server, path, guest));
        asks.send_text("me alone");
        assert_eq!(asks.text_frame(), "me alone");
        Comms::websocket(guest).send("both").unwrap();
        assert_eq!(other.text_frame(), "both", "{path}: the other tab got the answer too");
    }
    // The thread of a connection that was a WebSocket may serve this one.
    for _ in 0..5 {
        let (_, body) = Raw::connect(server.local_addr()).ask(&common::get("/plain"));
        assert_eq!(body, "nowhere");
    }
    let waits = |mut socket: Socket| {
        socket.client().send("ready")?;
        while socket.recv()?.is_some() {}
        Ok(())
    };
    let watching = serve(vec![route!("/" => websocket(waits))]);
    let mut watcher = Raw::open_with(watching.local_addr(), "/", &Guest::new().cookie());
    assert_eq!(watcher.text_frame(), "ready");
    assert_eq!(watching.comms().notify().subscribe("closed"), Ok(1));
    tab(&server, "/controller", Guest::new()).send_close(1000, "");
    assert_eq!(watcher.text_frame(), "well", "handle_close did not get through");
}

#[test]
fn here_is_its_own_tab_again_for_a_handler_that_has_run_another_connection() {
    // A controller lends its request to the function of another connection, and waits for it.
    let (lend, lent) = rwf::channel::bounded::<(Request, Sender<()>)>(1);
    let (sent, results) = channel();
    let sent = Mutex::new(sent);
    let lends = move |request: &Request| {
        let (done, is_done) = channel();
        lend.send((request.clone(), done))?;
        is_done.recv()?;
        Ok(Response::new())
    };
    let borrows = move |mut socket: Socket| {
        while let Some(message) = socket.recv()? {
            let (request, done) = lent.recv()?;
            request.upgrade(|other| {
                if message == Message::text("and leave") {
                    // Its own connection ends while it runs the other one.
                    assert_eq!(socket.recv(), Ok(None));
                }
                assert_eq!(Comms::here()?.send(other.request().path()), Ok(1));
                Ok(())
            })?;
            done.send(())?;
            sent.lock().send(Comms::here().map(|here| here.send("mine")))?;
        }
        Ok(())
    };
    let routes = vec![route!("/lent" => lends), route!("/borrows" => websocket(borrows))];
    let server = serve(routes);
    let mut borrower = tab(&server, "/borrows", Guest::new());
    for (message, outcome) in [("once", Ok(1)), ("twice", Ok(1)), ("and leave", Ok(0))] {
        borrower.send_text(message);
        if outcome == Ok(0) {
            borrower.send_close(1000, "");
        }
        let mut lender = tab(&server, "/lent", Guest::new());
        assert_eq!(lender.text_frame(), "/lent", "{message}");
        assert_eq!(lender.close_frame().0, 1000, "{message}");
        lender.send_close(1000, "");
        lender.expect_end();
        drop(lender);
        assert_eq!(results.recv_timeout(DEADLINE), Ok(Ok(outcome)), "{message}");
        if outcome == Ok(1) {
            assert_eq!(borrower.text_frame(), "mine", "{message}");
        }
    }
}

#[test]
fn one_session_or_one_tab_can_be_left_out() {
    let server = serve(vec![route!("/" => common::Echo)]);
    let (anna, ben) = (Guest::new(), Guest::new());
    let ids = Arc::new(Mutex::new(Vec::new()));
    let noting = {
        let ids = Arc::clone(&ids);
        move |mut socket: Socket| {
            ids.lock().push(socket.connection_id());
            socket.client().send("noted")?;
            while socket.recv()?.is_some() {}
            Ok(())
        }
    };
    let noted = serve(vec![route!("/" => websocket(noting))]);
    let open = |guest: Guest| {
        let mut raw = Raw::open_with(noted.local_addr(), "/", &guest.cookie());
        assert_eq!(raw.text_frame(), "noted");
        raw
    };
    let (mut first, mut second, mut other) = (open(anna), open(anna), open(ben));
    let first_id = ids.lock()[0];
    noted.comms().notify().subscribe("room").unwrap();

    assert_eq!(Comms::topic("room").except(anna).send("not anna"), Ok(1));
    assert_eq!(other.text_frame(), "not anna");
    assert_eq!(Comms::topic("room").except(first_id).send("not this tab"), Ok(2));
    assert_eq!(
        (second.text_frame(), other.text_frame()),
        ("not this tab".into(), "not this tab".into())
    );
    assert_eq!(Comms::topic("room").except(first_id).except(ben).send("second"), Ok(1));
    assert_eq!(second.text_frame(), "second");
    assert_eq!(noted.comms().broadcast(first_id).send("all but a tab"), Ok(2));
    assert_eq!(Comms::websocket(anna).except(first_id).send("my other tabs"), Ok(1));
    assert_eq!(
        (second.text_frame(), second.text_frame()),
        ("all but a tab".into(), "my other tabs".into())
    );
    Comms::connection(first_id).send("the end").unwrap();
    assert_eq!(first.text_frame(), "the end", "it got what it was left out of");
    drop(server);
}

#[test]
fn servers_do_not_hear_each_other_where_one_alone_is_meant() {
    let by_request = |request: &Request| {
        Ok(Response::new().text(request.comms().topic("news").send("by request")?.to_string()))
    };
    let by_socket = |mut socket: Socket| {
        Comms::here()?.subscribe("news")?;
        while let Some(message) = socket.recv()? {
            socket.comms().websocket(7).send(message)?;
        }
        Ok(())
    };
    let as_seven = move |request: &Request| request.with_session(7).upgrade(by_socket);
    let routes = || vec![route!("/" => as_seven), route!("/news" => by_request)];
    let (one, two) = (serve(routes()), serve(routes()));
    let open = |server: &ServerHandle| Raw::open(server.local_addr(), "/");
    let (mut on_one, mut on_two) = (open(&one), open(&two));
    let mut subscribed = 0;
    wait_until("both have subscribed", || {
        subscribed += Comms::topic("news").subscribe("counted").unwrap();
        subscribed == 2
    });
    on_one.send_text("on one");
    assert_eq!(on_one.text_frame(), "on one");
    let (_, body) = Raw::connect(two.local_addr()).ask(&common::get("/news"));
    assert_eq!(body, "1");
    assert_eq!(on_two.text_frame(), "by request");
    assert_eq!(one.comms().websocket(7).send("one"), Ok(1));
    assert_eq!(two.comms().notify().send("two"), Ok(1));
    assert_eq!(Comms::websocket(7).send("everybody"), Ok(2));
    assert_eq!((on_one.text_frame(), on_one.text_frame()), ("one".into(), "everybody".into()));
    assert_eq!((on_two.text_frame(), on_two.text_frame()), ("two".into(), "everybody".into()));
}

/// Twice as many bytes as this an outbox holds.
const PART: usize = 512 << 10;

/// An endpoint whose clients' outboxes hold little, and a client of it that does not read.
fn slow(overflow: Overflow) -> (ServerHandle, Guest, Raw) {
    let settings = Websocket::new().outbox_bytes(2 * PART + 1000).overflow(overflow);
    let server = start(Server::new(vec![route!("/" => common::Echo)]).websocket(settings));
    let guest = Guest::new();
    let raw = Raw::open_with(server.local_addr(), "/", &guest.cookie());
    (server, guest, raw)
}

#[test]
fn a_send_that_never_waits_refuses_and_closes_nobody() {
    let (_server, guest, mut raw) = slow(Overflow::Close);
    let part = Message::binary(vec![1; 16 << 10]);
    let mut taken = 0;
    let error = loop {
        match Comms::websocket(guest).try_send(&part) {
            Ok(count) => taken += count,
            Err(error) => break error,
        }
    };
    assert_eq!(error, SendError::Full);
    assert!(Comms::websocket(guest).is_connected(), "it was closed as too slow");
    for _ in 0..taken {
        assert_eq!(raw.frame().payload.len(), 16 << 10);
    }
    wait_until("there is room again", || Comms::websocket(guest).try_send("on") == Ok(1));
    assert_eq!(raw.text_frame(), "on");
}

#[test]
fn a_send_with_a_timeout_waits_for_room_and_no_longer() {
    let (_server, guest, mut raw) = slow(Overflow::Close);
    let comms = Comms::websocket(guest);
    let part = Message::binary(vec![1; 16 << 10]);
    let timeout = Duration::from_millis(80);
    // The system takes some more now and then.
    let took = loop {
        let began = Instant::now();
        match comms.send_timeout(&part, timeout) {
            Ok(_) => {}
            Err(SendError::Full) => break began.elapsed(),
            Err(error) => panic!("{error:?}"),
        }
    };
    assert!(took >= timeout, "it waited for {took:?} of {timeout:?}");
    assert!(comms.is_connected(), "it was closed as too slow");
    // A producer that is faster than its client by far, and all arrives.
    let parts = 500;
    let producer = thread::spawn(move || {
        (0..parts).try_for_each(|_| comms.send_timeout(&part, DEADLINE).map(|_| ()))?;
        comms.send("the end")
    });
    let mut received = 0;
    while raw.frame().payload != b"the end" {
        received += 1;
    }
    assert!(received >= parts, "{received} of {parts} and more");
    assert_eq!(common::join("the producer", producer), Ok(1));
}

#[test]
fn others_do_not_wait_with_the_slow_one_and_the_sender_is_told_whom_it_left_out() {
    let (server, slow, _raw) = slow(Overflow::Refuse);
    let fast = Guest::new();
    let mut reads = Raw::open_with(server.local_addr(), "/", &fast.cookie());
    server.comms().notify().subscribe("all").unwrap();
    // So large that what the system takes now and then is no room for one.
    let part = Message::binary(vec![1; PART]);
    while Comms::websocket(slow).send_timeout(&part, Duration::from_millis(100)).is_ok() {}
    let (first, second) = (part.clone(), part.clone());
    let waiting = thread::spawn(move || Comms::topic("all").send_timeout(first, DEADLINE));
    assert_eq!(reads.frame().payload.len(), PART, "it waited behind the slow one");
    let outcome = Comms::topic("all").send_to_each(second);
    assert_eq!((outcome.queued, outcome.refused.len(), outcome.closing), (1, 1, 0));
    assert_eq!(Comms::connection(outcome.refused[0]).try_send(part), Err(SendError::Full));
    assert_eq!(reads.frame().payload.len(), PART);
    assert_eq!(Comms::websocket(slow).close(1000, ""), Ok(1));
    // The system may have taken the last bytes of a message meanwhile, which made room for this one.
    assert!(common::join("the sender", waiting).is_ok_and(|count| (1..=2).contains(&count)));
    let outcome = Comms::topic("all").send_to_each("again");
    assert_eq!((outcome.queued, outcome.refused.len()), (1, 0), "{outcome:?}");
}
