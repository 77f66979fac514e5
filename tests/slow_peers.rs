//! Clients that do not read, say nothing, or vanish: found in time, at nobody else's cost.

mod common;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::{DEADLINE, Echo, Guest, Raw, client_frame, join, start, wait_until};
use parking_lot::Mutex;
use rwf::comms::SendError;
use rwf::controller::{Overflow, Websocket};
use rwf::http::{Server, ServerHandle};
use rwf::prelude::*;

/// Tells how its connections ended.
struct Ends(Mutex<Sender<(u16, String)>>);

#[async_trait]
impl WebsocketController for Ends {
    async fn handle_message(&self, client: &SessionId, message: Message) -> Result<(), Error> {
        WebsocketController::handle_message(&Echo, client, message).await
    }

    async fn handle_close(
        &self,
        _: &SessionId,
        code: CloseCode,
        reason: &str,
    ) -> Result<(), Error> {
        self.0.lock().send((code.into(), reason.to_owned()))?;
        Ok(())
    }
}

#[async_trait]
impl Controller for Ends {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        WebsocketController::handle(self, request).await
    }
}

fn serve(settings: Websocket) -> (ServerHandle, Receiver<(u16, String)>) {
    let (sender, ends) = channel();
    let routes = vec![route!("/" => Ends(Mutex::new(sender)))];
    (start(Server::new(routes).websocket(settings)), ends)
}

fn tab(server: &ServerHandle, session: Guest) -> Raw {
    let cookie = session.cookie();
    Raw::open_with(server.local_addr(), "/", &cookie)
}

/// Sends until the connection takes no more: more than the kernel and the outbox hold.
fn fill(session: Guest) -> (usize, SendError) {
    let message = Message::binary(vec![7; 64 << 10]);
    let deadline = Instant::now() + DEADLINE;
    let mut taken = 0;
    loop {
        match Comms::websocket(session).send(&message) {
            Ok(count) => taken += count,
            Err(error) => return (taken, error),
        }
        assert!(Instant::now() < deadline, "{taken} messages of 64 KiB found room");
    }
}

#[test]
fn a_client_that_does_not_read_is_closed_as_slow_and_cut_in_time() {
    let close_timeout = Duration::from_millis(300);
    let (server, ends) = serve(Websocket::new().close_timeout(close_timeout));
    let session = Guest::new();
    let _client = tab(&server, session);
    let (_, error) = fill(session);
    assert_eq!(error, SendError::Full);
    let more = Comms::websocket(session).send("more");
    assert!(matches!(more, Err(SendError::Closing) | Ok(0)), "{more:?}");
    let (code, reason) = ends.recv_timeout(DEADLINE).expect("the slow client was not given up");
    assert_eq!((code, reason.as_str()), (1013, "slow receiver"));
}

#[test]
fn a_slow_client_that_begins_to_read_gets_all_that_was_taken_and_then_1013() {
    let (server, _ends) = serve(Websocket::new());
    let session = Guest::new();
    let mut client = tab(&server, session);
    let (taken, _) = fill(session);
    for number in 0..taken {
        let frame = client.frame();
        assert_eq!((frame.first, frame.payload.len()), (0x82, 64 << 10), "message {number}");
    }
    assert_eq!(client.close_frame(), (1013, "slow receiver".to_owned()));
    client.send_close(1013, "");
    client.expect_end();
}

#[test]
fn where_the_settings_say_so_a_full_outbox_refuses_and_the_connection_stays() {
    let (server, _ends) = serve(Websocket::new().overflow(Overflow::Refuse));
    let session = Guest::new();
    let mut client = tab(&server, session);
    let (taken, error) = fill(session);
    assert_eq!(error, SendError::Full);
    assert!(Comms::websocket(session).is_connected());
    for _ in 0..taken {
        client.frame();
    }
    wait_until("there is room again", || Comms::websocket(session).send("again") == Ok(1));
    assert_eq!(client.text_frame(), "again");
}

#[test]
fn a_client_that_takes_nothing_is_cut_after_the_write_timeout() {
    let (server, ends) = serve(
        Websocket::new()
            .write_timeout(Duration::from_millis(200))
            .outbox_bytes(64 << 20)
            .outbox_messages(1 << 20),
    );
    let session = Guest::new();
    let _client = tab(&server, session);
    let message = Message::binary(vec![7; 64 << 10]);
    for _ in 0..200 {
        let _ = Comms::websocket(session).send(&message);
    }
    let (code, reason) = ends.recv_timeout(DEADLINE).expect("the client was not given up");
    assert_eq!(code, 1006);
    assert!(reason.contains("took nothing for 200ms"), "{reason}");
}

#[test]
fn a_message_longer_than_the_outbox_fits_an_empty_one() {
    let (server, _ends) = serve(Websocket::new().outbox_bytes(10));
    let session = Guest::new();
    let mut client = tab(&server, session);
    let long = "long".repeat(1000);
    assert_eq!(Comms::websocket(session).send(long.as_str()), Ok(1));
    assert_eq!(client.text_frame(), long);
}

#[test]
fn nobody_else_is_delayed_by_a_client_that_does_not_read() {
    let (server, _ends) = serve(Websocket::new().overflow(Overflow::Refuse));
    let (slow, healthy) = (Guest::new(), Guest::new());
    let _slow_client = tab(&server, slow);
    let mut client = tab(&server, healthy);
    fill(slow);
    let mut longest = Duration::ZERO;
    for number in 0..500 {
        let began = Instant::now();
        let _ = Comms::websocket(slow).send("no room");
        Comms::websocket(healthy).send(format!("{number}")).unwrap();
        longest = longest.max(began.elapsed());
        assert_eq!(client.text_frame(), number.to_string());
    }
    // The promise is a millisecond; a busy machine may take a thread away for longer, but not for a write timeout.
    assert!(longest < Duration::from_millis(500), "a send took {longest:?}");
}

#[test]
fn a_handler_that_floods_its_own_client_waits_and_loses_nothing() {
    let (server, _ends) = serve(Websocket::new());
    let mut client = Raw::open(server.local_addr(), "/");
    let mut writer = client.stream.try_clone().unwrap();
    let messages = 400;
    let flood = thread::spawn(move || {
        use std::io::Write;
        let frame = client_frame(0x82, &[1; 64 << 10]);
        for _ in 0..messages {
            writer.write_all(&frame).unwrap();
        }
    });
    for number in 0..messages {
        let frame = client.frame();
        assert_eq!((frame.first, frame.payload.len()), (0x82, 64 << 10), "message {number}");
    }
    join("the flood", flood);
}

#[test]
fn pings_that_are_never_read_do_not_pile_up() {
    let (server, ends) = serve(Websocket::new().write_timeout(Duration::from_millis(300)));
    let client = Raw::open(server.local_addr(), "/");
    client.stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let pings = client_frame(0x89, &[0; 125]).repeat(1000);
    let deadline = Instant::now() + DEADLINE;
    // The server stops reading when its pongs are not taken, and gives the client up.
    let mut sent = 0;
    loop {
        use std::io::Write;
        assert!(Instant::now() < deadline, "pings were read for {DEADLINE:?}");
        if let Ok((code, reason)) = ends.try_recv() {
            assert_eq!(code, 1006, "{reason}");
            return;
        }
        sent = (sent + (&client.stream).write(&pings[sent..]).unwrap_or(0)) % pings.len();
    }
}

#[test]
fn a_silent_client_is_pinged_and_then_given_up() {
    let (server, ends) = serve(
        Websocket::new()
            .ping_interval(Duration::from_millis(80))
            .ping_timeout(Duration::from_millis(120)),
    );
    let mut client = Raw::open(server.local_addr(), "/");
    let began = Instant::now();
    for round in 0..3 {
        assert_eq!(client.frame().first, 0x89, "round {round}");
        client.send_frame(0x8a, b"");
    }
    assert!(began.elapsed() >= Duration::from_millis(240), "pings came too early");
    assert_eq!(client.frame().first, 0x89);
    let (code, reason) = ends.recv_timeout(DEADLINE).expect("the silent client was not given up");
    assert_eq!(code, 1006);
    assert!(reason.contains("ping"), "{reason}");
}

#[test]
fn any_byte_counts_as_life() {
    let (server, _ends) = serve(
        Websocket::new()
            .ping_interval(Duration::from_millis(60))
            .ping_timeout(Duration::from_millis(60)),
    );
    let mut client = Raw::open(server.local_addr(), "/");
    let mut pings = 0;
    for number in 0..5 {
        while client.frame().first != 0x89 {}
        pings += 1;
        // No pong, but a message.
        client.send_text(&number.to_string());
    }
    assert_eq!(pings, 5);
}

#[test]
fn without_a_ping_interval_silence_is_left_alone() {
    let (server, ends) = serve(Websocket::new().ping_interval(None));
    let mut client = Raw::open(server.local_addr(), "/");
    assert!(ends.recv_timeout(Duration::from_millis(300)).is_err());
    client.send_text("still here");
    assert_eq!(client.text_frame(), "still here", "and no ping before it");
}

#[test]
#[cfg(target_os = "linux")]
fn a_client_that_reads_a_byte_now_and_then_is_given_up() {
    let (server, ends) = serve(
        Websocket::new()
            .write_timeout(Duration::from_millis(400))
            .outbox_bytes(64 << 20)
            .outbox_messages(1 << 20),
    );
    let session = Guest::new();
    let mut client = tab(&server, session);
    let message = Message::binary(vec![7; 64 << 10]);
    for _ in 0..200 {
        let _ = Comms::websocket(session).send(&message);
    }
    let deadline = Instant::now() + DEADLINE;
    let (code, reason) = loop {
        use std::io::Read;
        let _ = client.stream.read(&mut [0]);
        if let Ok(end) = ends.recv_timeout(Duration::from_millis(20)) {
            break end;
        }
        assert!(Instant::now() < deadline, "a byte now and then kept it for {DEADLINE:?}");
    };
    assert_eq!(code, 1006, "{reason}");
}

/// Passes every message on to everybody else.
#[derive(Default, macros::WebsocketController)]
struct PassOn;

#[async_trait]
impl WebsocketController for PassOn {
    async fn handle_message(&self, client: &SessionId, message: Message) -> Result<(), Error> {
        Comms::websocket(neighbour(client)).send(message)?;
        Comms::websocket(client).send("passed on")?;
        Ok(())
    }
}

/// The session whose number is one higher.
fn neighbour(session: &SessionId) -> SessionId {
    session.user_number::<i64>().map_or_else(|| session.clone(), |number| (number + 1).into())
}

/// Lets the path say who a client is.
struct Numbered<C>(C);

#[async_trait]
impl<C: WebsocketController> Controller for Numbered<C> {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        let number: i64 = request.param("number")?.parse()?;
        WebsocketController::handle(&self.0, &request.with_session(number)).await
    }
}

#[test]
fn a_receiver_that_takes_nothing_costs_the_sender_nothing() {
    let server = start(Server::new(vec![route!("/:number" => Numbered(PassOn))]));
    let mut sender = Raw::open(server.local_addr(), "/71000");
    let _leaving = Raw::open(server.local_addr(), "/71001");
    // It does not answer the close, so it is there for a while and takes nothing.
    Comms::websocket(71001).close(CloseCode::NORMAL, "").unwrap();
    assert_eq!(Comms::websocket(71001).send("for you"), Err(SendError::Closing));
    // The error of that send ends the handler, not the connection.
    sender.send_text("for you");
    sender.send_frame(0x89, b"alive?");
    assert_eq!(sender.frame().first, 0x8a, "neither passed on nor alive");
}

#[test]
fn a_client_that_reads_slowly_but_steadily_is_kept() {
    let (server, ends) = serve(
        Websocket::new()
            .write_timeout(Duration::from_millis(400))
            .outbox_bytes(64 << 20)
            .outbox_messages(1 << 20),
    );
    let session = Guest::new();
    let mut client = tab(&server, session);
    let message = Message::binary(vec![7; 64 << 10]);
    for _ in 0..200 {
        Comms::websocket(session).send(&message).unwrap();
    }
    // Less in one write timeout than a third of the send buffer.
    let until = Instant::now() + Duration::from_millis(2500);
    while Instant::now() < until {
        client.frame();
        if let Ok(end) = ends.recv_timeout(Duration::from_millis(100)) {
            panic!("a client that reads was given up: {end:?}");
        }
    }
}

/// Sends everything to everybody of a row of sessions, itself first.
#[derive(Default)]
struct Row;

const ROW: std::ops::Range<i64> = 72000..72004;

#[async_trait]
impl WebsocketController for Row {
    async fn handle_message(&self, _: &SessionId, message: Message) -> Result<(), Error> {
        Comms::websocket(ROW.start).send(message)?;
        Ok(())
    }
}

#[test]
fn a_handler_that_waits_for_its_own_client_keeps_the_other_tabs_up_to_date() {
    let server = start(
        Server::new(vec![route!("/:number" => Numbered(Row))])
            .websocket(Websocket::new().write_timeout(Duration::from_secs(5))),
    );
    let path = format!("/{}", ROW.start);
    // Registered first, and so first in line.
    let mut flooder = Raw::open(server.local_addr(), &path);
    let mut healthy = Raw::open(server.local_addr(), &path);
    let flood = client_frame(0x82, &[1; 64 << 10]);
    let (sender, received) = channel();
    let reading = thread::spawn(move || while sender.send(healthy.frame()).is_ok() {});
    flooder.stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    // Until the flooder's handler waits for its own client, which never reads.
    let mut sent = 0;
    let deadline = Instant::now() + DEADLINE;
    loop {
        use std::io::Write;
        assert!(Instant::now() < deadline, "a client that does not read was read for {DEADLINE:?}");
        match flooder.stream.write(&flood[sent..]) {
            Ok(count) => sent = (sent + count) % flood.len(),
            Err(_) => break,
        }
    }
    // The message that the handler waits with has reached the other tab meanwhile: as many went there as were handled.
    let mut count = 0;
    while received.recv_timeout(Duration::from_millis(500)).is_ok() {
        count += 1;
    }
    assert!(count > 10, "only {count} messages reached the healthy tab");
    drop((flooder, received));
    server.shutdown().unwrap();
    wait_until("the healthy tab ends", || reading.is_finished());
}
