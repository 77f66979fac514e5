//! How often clients may send and connect: those who keep to the rate notice nothing, and those who do not are held back
//! or closed.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    DEADLINE, Guest, Raw, STYLES, answer, client_frame, echo, echo_in_every_style, get, header,
    serve, start, status, upgrade_request, wait_until,
};
use parking_lot::Mutex;
use rwf::controller::{Rate, Websocket};
use rwf::http::{self, Server, ServerHandle};
use rwf::prelude::*;
use rwf::websocket::{Cause, Closed};

const HOUR: Duration = Duration::from_secs(3600);

/// `amount` at once, and then nothing as long as any test takes.
fn only(amount: usize) -> Rate {
    Rate::per(1, HOUR).burst(amount)
}

/// Closes at once instead of holding back.
fn closing() -> Websocket {
    Websocket::new().max_hold(Duration::ZERO)
}

/// Holds back for as long as it takes.
fn holding() -> Websocket {
    Websocket::new().max_hold(Duration::MAX)
}

/// A server whose endpoints echo, each in its style.
fn echoing(server: impl FnOnce(Server) -> Server, settings: Websocket) -> ServerHandle {
    start(server(Server::new(echo_in_every_style())).websocket(settings))
}

/// A server with a function that notes the length of each message, and how it was closed.
fn noting(settings: Websocket) -> (ServerHandle, Arc<Mutex<Vec<usize>>>, Receiver<Closed>) {
    let (lengths, (tell, closed)) = (Arc::new(Mutex::new(Vec::new())), channel());
    let (noted, tell) = (Arc::clone(&lengths), Mutex::new(tell));
    let function = move |mut socket: Socket| {
        while let Some(message) = socket.recv()? {
            noted.lock().push(message.len());
        }
        let _ = tell.lock().send(socket.closed().unwrap().clone());
        Ok(())
    };
    let endpoint = websocket(function).settings(move |_| settings.clone());
    (serve(vec![route!("/" => endpoint)]), lengths, closed)
}

fn tab(server: &ServerHandle, path: &str, guest: Guest) -> Raw {
    Raw::open_with(server.local_addr(), path, &guest.cookie())
}

/// Has the client send `count` messages and waits for their echoes.
#[track_caller]
fn expect_echoes(client: &mut Raw, count: usize) {
    for number in 0..count {
        client.send_text(&number.to_string());
    }
    for number in 0..count {
        assert_eq!(client.text_frame(), number.to_string());
    }
}

/// Expects that the client is closed for a message, or for what it has sent before.
#[track_caller]
fn expect_violation(client: &mut Raw, reason: &str) {
    assert_eq!(client.close_frame(), (1008, reason.to_owned()));
    client.send_close(1008, "");
    client.expect_end();
}

#[test]
fn a_client_that_keeps_to_its_rate_is_neither_held_back_nor_closed() {
    // Its messages are 20 bytes on the wire. Each waits for the last one's answer and some time more, so that it cannot
    // come too early, however slow the machine is.
    let settings = closing()
        .message_rate(Rate::per_second(50).burst(1))
        .message_rate_per_session(Rate::per_second(50).burst(1))
        .byte_rate(Rate::per_second(1000).burst(20))
        .byte_rate_per_session(Rate::per_second(1000).burst(20));
    let server = echoing(|server| server, settings);
    for style in STYLES {
        let mut client = tab(&server, style, Guest::new());
        for number in 10..30 {
            let text = format!("message no. {number}");
            client.send_text(&text);
            assert_eq!(client.text_frame(), text, "{style}");
            thread::sleep(Duration::from_millis(20));
        }
        client.send_close(1000, "");
        assert_eq!(client.close_frame().0, 1000, "{style}");
    }
}

#[test]
fn a_flood_of_messages_is_held_to_its_rate_and_concerns_nobody_else() {
    let (rate, burst, count) = (400, 20, 220);
    let server = echoing(
        |server| server,
        Websocket::new().message_rate(Rate::per_second(rate).burst(burst)),
    );
    for style in STYLES {
        let mut client = tab(&server, style, Guest::new());
        let mut other = tab(&server, style, Guest::new());
        let began = Instant::now();
        let flood: Vec<u8> = (0..count)
            .flat_map(|number: usize| client_frame(0x81, number.to_string().as_bytes()))
            .collect();
        client.send(&flood);
        expect_echoes(&mut other, 10);
        for number in 0..count {
            assert_eq!(client.text_frame(), number.to_string(), "{style}");
            let come = number + 1;
            let allowed = burst as f64 + rate as f64 * began.elapsed().as_secs_f64();
            assert!(come as f64 <= allowed + 1.0, "{style}: {come} came, {allowed:.0} may");
        }
        client.send_close(1000, "");
        assert_eq!(client.close_frame().0, 1000, "{style}: it is closed for being held back");
    }
}

#[test]
fn a_flood_of_bytes_is_held_to_its_rate_by_tcp() {
    let (rate, burst) = (64 << 10, 8 << 10);
    let (server, lengths, closed) =
        noting(Websocket::new().byte_rate(Rate::per_second(rate).burst(burst)));
    let mut client = Raw::open(server.local_addr(), "/");
    let began = Instant::now();
    let message = client_frame(0x82, &[7; 20_000]);
    client.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut taken = 0;
    let error = loop {
        match client.stream.write(&message[taken % message.len()..]) {
            Ok(count) => taken += count,
            Err(error) => break error,
        }
        assert!(taken < 100 << 20, "TCP does not hold it back");
    };
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    wait_until("some messages have come", || lengths.lock().len() >= 4);
    let come: usize = lengths.lock().iter().sum();
    // A read takes up to a tenth of a second's bytes, and the next one waits for them.
    let allowed = burst as f64 + rate as f64 * (0.1 + began.elapsed().as_secs_f64());
    assert!(come as f64 <= allowed, "{come} bytes came, {allowed:.0} may");
    assert!(closed.try_recv().is_err(), "it was closed");
}

#[test]
fn pings_and_empty_messages_count_as_the_bytes_that_they_are() {
    for opcode in [0x89, 0x82] {
        let (server, ..) = noting(closing().byte_rate(only(600)));
        let mut client = Raw::open(server.local_addr(), "/");
        // Six bytes each.
        client.send(&client_frame(opcode, b"").repeat(100));
        if opcode == 0x89 {
            (0..100).for_each(|_| assert_eq!(client.frame().first, 0x8a));
        }
        client.send_frame(opcode, b"");
        expect_violation(&mut client, "too many bytes: a connection may send 1 per 3600s");
    }
}

#[test]
fn a_flood_is_closed_after_the_burst_where_the_endpoint_says_so() {
    let server = echoing(|server| server, closing().message_rate(only(5)));
    for style in STYLES {
        let mut client = tab(&server, style, Guest::new());
        client.send(&client_frame(0x81, b"again").repeat(200));
        let mut echoes = 0;
        let close = loop {
            let frame = client.frame();
            match frame.first {
                0x81 => echoes += 1,
                _ => break frame,
            }
        };
        assert_eq!(
            (close.first, &close.payload[..2]),
            (0x88, &1008_u16.to_be_bytes()[..]),
            "{style}"
        );
        // Another thread takes the events, and may be late with its answers.
        assert!(echoes == 5 || style == "/events" && echoes < 5, "{style}: {echoes} echoes");
    }
    let (server, lengths, closed) = noting(closing().message_rate(only(5)));
    let mut client = Raw::open(server.local_addr(), "/");
    client.send(&client_frame(0x81, b"again").repeat(200));
    expect_violation(&mut client, "too many messages: a connection may send 1 per 3600s");
    assert_eq!(closed.recv_timeout(DEADLINE).unwrap().cause, Cause::Violation);
    assert_eq!(lengths.lock().len(), 5);
}

#[test]
fn who_would_be_held_back_for_too_long_is_closed() {
    // The third is there after a minute, and the default is half of that.
    let rate = Rate::per(1, Duration::from_secs(60)).burst(2);
    let (server, lengths, _closed) = noting(Websocket::new().message_rate(rate));
    let mut client = Raw::open(server.local_addr(), "/");
    client.send(&client_frame(0x81, b"again").repeat(3));
    expect_violation(&mut client, "too many messages: a connection may send 1 per 60s");
    assert_eq!(lengths.lock().len(), 2);
}

#[test]
fn the_tabs_of_a_session_share_its_limit_and_coming_back_renews_nothing() {
    let reason = "too many messages: a session may send 1 per 3600s";
    let server = echoing(|server| server, closing().message_rate_per_session(only(6)));
    let guest = Guest::new();
    let mut first = tab(&server, "/function", guest);
    expect_echoes(&mut first, 3);
    first.send_close(1000, "");
    first.close_frame();
    first.expect_end();
    wait_until("it is gone", || Comms::websocket(guest).send("x") == Ok(0));
    // All endpoints have the server's settings, so it is one limit.
    let mut tabs = ["/function", "/events"].map(|path| tab(&server, path, guest));
    expect_echoes(&mut tabs[0], 1);
    expect_echoes(&mut tabs[1], 2);
    for tab in &mut tabs {
        tab.send_text("one too many");
        expect_violation(tab, reason);
    }
    for _ in 0..3 {
        let mut again = tab(&server, "/function", guest);
        again.send_text("and again");
        expect_violation(&mut again, reason);
    }
    expect_echoes(&mut tab(&server, "/function", Guest::new()), 6);
}

#[test]
fn a_session_that_has_sent_too_many_bytes_waits_on_all_its_connections() {
    let server = echoing(|server| server, closing().byte_rate_per_session(only(680)));
    let guest = Guest::new();
    // Of seven and eight bytes, 670 in all.
    expect_echoes(&mut tab(&server, "/function", guest), 85);
    let mut again = tab(&server, "/function", guest);
    again.send_text("one too many");
    expect_violation(&mut again, "too many bytes: a session may send 1 per 3600s");
    expect_echoes(&mut tab(&server, "/function", Guest::new()), 85);
}

#[test]
fn an_endpoint_with_a_rate_of_its_own_has_a_limit_of_its_own() {
    let own =
        |amount| websocket(echo).settings(move |all| all.message_rate_per_session(only(amount)));
    let unlimited = websocket(echo).settings(|all| all.message_rate_per_session(None));
    let routes = vec![route!("/a" => own(2)), route!("/b" => own(3)), route!("/c" => unlimited)];
    let server = start(Server::new(routes).websocket(closing().message_rate_per_session(only(1))));
    let guest = Guest::new();
    for (path, count) in [("/a", 2), ("/b", 3), ("/c", 50)] {
        let mut client = tab(&server, path, guest);
        expect_echoes(&mut client, count);
        client.send_text("one more");
        assert_eq!(client.frame().first, if path == "/c" { 0x81 } else { 0x88 }, "{path}");
    }
}

#[test]
fn tabs_that_flood_together_get_the_rate_of_one() {
    let (rate, burst, count) = (200, 20, 120);
    let settings = Websocket::new().message_rate_per_session(Rate::per_second(rate).burst(burst));
    let (server, lengths, _closed) = noting(settings);
    let guest = Guest::new();
    let began = Instant::now();
    let mut tabs: Vec<_> = (0..3).map(|_| tab(&server, "/", guest)).collect();
    for tab in &mut tabs {
        tab.send(&client_frame(0x81, b"again").repeat(count / 3));
    }
    wait_until("all have come", || {
        let come = lengths.lock().len();
        let allowed = burst as f64 + rate as f64 * began.elapsed().as_secs_f64();
        assert!(come as f64 <= allowed + 1.0, "{come} came, {allowed:.0} may");
        come == count
    });
}

#[test]
fn what_comes_before_the_message_too_many_is_answered_at_once() {
    let server = echoing(|server| server, holding().message_rate(only(1)));
    for style in STYLES {
        let mut client = tab(&server, style, Guest::new());
        expect_echoes(&mut client, 1);
        for _ in 0..3 {
            client.send_frame(0x89, b"are you there?");
            assert_eq!(client.frame().first, 0x8a, "{style}");
        }
        client.send_close(4000, "bye");
        assert_eq!(client.close_frame(), (4000, "bye".to_owned()), "{style}");
        client.expect_end();
    }
}

#[test]
fn a_close_and_a_shutdown_end_a_hold_at_once() {
    // The client is not asked: nothing that it does would end the wait.
    let settings = holding().message_rate(only(1)).close_timeout(HOUR);
    for by_shutdown in [false, true] {
        let (server, lengths, closed) = noting(settings.clone());
        let guest = Guest::new();
        let mut client = tab(&server, "/", guest);
        client.send(&client_frame(0x81, b"again").repeat(3));
        wait_until("the first has come", || lengths.lock().len() == 1);
        client.expect_nothing_for(Duration::from_millis(20));
        let shutdown = if by_shutdown {
            Some(thread::spawn(move || server.shutdown().unwrap()))
        } else {
            assert_eq!(Comms::websocket(guest).close(4000, "enough"), Ok(1));
            None
        };
        let (code, cause) =
            if by_shutdown { (1001, Cause::Shutdown) } else { (4000, Cause::Program) };
        let end = closed.recv_timeout(DEADLINE).expect("the function is not told of the close");
        assert_eq!((end.code.into(), end.cause), (code, cause));
        assert_eq!(client.close_frame().0, code);
        client.send_close(code, "");
        client.expect_end();
        drop(client);
        assert_eq!(lengths.lock().len(), 1, "what was held back is not handed out any more");
        if let Some(shutdown) = shutdown {
            let report = common::join("the shutdown", shutdown);
            assert_eq!((report.closed, report.cut, report.running), (1, 0, 0));
        }
    }
}

#[test]
fn a_hold_by_bytes_ends_with_a_close_too() {
    let (server, _lengths, closed) = noting(holding().byte_rate(only(1)).close_timeout(HOUR));
    let guest = Guest::new();
    let mut client = tab(&server, "/", guest);
    client.send_text("more than a byte");
    client.expect_nothing_for(Duration::from_millis(20));
    assert_eq!(Comms::websocket(guest).close(4000, "enough"), Ok(1));
    let end = closed.recv_timeout(DEADLINE).expect("the function is not told of the close");
    assert_eq!(end.code, 4000);
}

#[test]
fn a_client_that_is_held_back_is_not_silent_and_is_sent_to() {
    let quick = Duration::from_millis(50);
    let settings = holding().message_rate(only(1)).ping_interval(quick).ping_timeout(quick);
    let (server, lengths, closed) = noting(settings);
    let guest = Guest::new();
    let mut client = tab(&server, "/", guest);
    client.send(&client_frame(0x81, b"again").repeat(2));
    wait_until("the first has come", || lengths.lock().len() == 1);
    client.expect_nothing_for(10 * quick);
    assert!(closed.try_recv().is_err(), "it was given up");
    assert_eq!(Comms::websocket(guest).send("still there"), Ok(1));
    assert_eq!(client.text_frame(), "still there");

    // One that is silent when it is not held back any more is found.
    let settings = holding()
        .message_rate(Rate::per_second(5).burst(1))
        .ping_interval(quick)
        .ping_timeout(quick);
    let (server, lengths, closed) = noting(settings);
    let mut client = tab(&server, "/", Guest::new());
    client.send(&client_frame(0x81, b"again").repeat(2));
    assert_eq!(closed.recv_timeout(DEADLINE).unwrap().cause, Cause::Silent);
    assert_eq!(lengths.lock().len(), 2, "it was held back first");
}

#[test]
fn receives_with_a_timeout_return_in_time_while_the_client_is_held_back() {
    let (tell, told) = channel();
    let tell = Mutex::new(tell);
    let function = move |mut socket: Socket| {
        socket.recv()?;
        let began = Instant::now();
        let time = Duration::from_millis(20);
        let mut results = vec![socket.try_recv().err().map(|error| error.to_string())];
        results.push(socket.recv_timeout(time).err().map(|error| error.to_string()));
        results.push(socket.recv_deadline(began).err().map(|error| error.to_string()));
        let took = began.elapsed();
        // The next one is due two seconds after the first.
        let message = loop {
            match socket.try_recv() {
                Ok(message) => break message,
                Err(TryRecvError::Empty) => thread::sleep(Duration::from_millis(1)),
                Err(TryRecvError::Disconnected) => panic!("it is over"),
            }
        };
        tell.lock().send((results, took, message, began.elapsed())).unwrap();
        Ok(())
    };
    let rate = Rate::per(1, Duration::from_secs(2));
    let endpoint = websocket(function).settings(move |all| all.message_rate(rate));
    let server = serve(vec![route!("/" => endpoint)]);
    let mut client = Raw::open(server.local_addr(), "/");
    client.send_text("one");
    client.send_text("two");
    let (results, took, second, all) = told.recv_timeout(DEADLINE).unwrap();
    let in_time = ["no message has arrived", "no message came in time", "no message came in time"];
    assert_eq!(results.iter().flatten().collect::<Vec<_>>(), in_time);
    assert!(took >= Duration::from_millis(20), "it returned after {took:?}");
    assert_eq!(second, Message::text("two"));
    assert!(all > Duration::from_secs(1), "the second came within {all:?}");
}

/// The head of the answer to a handshake with further headers.
fn shake_hands(server: &ServerHandle, headers: &str) -> String {
    let mut client = Raw::connect(server.local_addr());
    client.send(upgrade_request("/function", headers).as_bytes());
    client.head()
}

#[test]
fn an_address_that_connects_too_often_is_told_when_to_come_back() {
    let rate = Rate::per(2, Duration::from_secs(4));
    let server = echoing(|server| server.handshake_rate_per_peer(rate), Websocket::new());
    let mut opened = 0;
    let seconds = loop {
        let head = shake_hands(&server, "");
        if status(&head) == 429 {
            break header(&head, "retry-after").unwrap().parse::<u64>().unwrap();
        }
        assert_eq!(status(&head), 101, "{head}");
        opened += 1;
        assert!(opened < 1000, "there is no limit");
    };
    assert!(opened >= 2, "the burst was {opened}");
    assert!((1..=2).contains(&seconds), "one comes every two seconds: {seconds}");
    let begun = Instant::now();
    // To ask in vain puts nothing off, and other requests are not concerned.
    while begun.elapsed() < Duration::from_millis(500) {
        assert_eq!(status(&shake_hands(&server, "")), 429);
        let mut plain = Raw::connect(server.local_addr());
        assert_eq!(status(&plain.ask(&get("/function")).0), 426);
    }
    thread::sleep(Duration::from_secs(seconds).saturating_sub(begun.elapsed()));
    assert_eq!(status(&shake_hands(&server, "")), 101, "{seconds} s were not enough");
}

#[test]
fn a_handshake_too_many_does_not_reach_its_controller() {
    let calls = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&calls);
    let controller = answer(move |_: &Request| {
        *counted.lock() += 1;
        Ok(Response::forbidden())
    });
    let server = start(
        Server::new(vec![route!("/function" => controller)]).handshake_rate_per_peer(only(3)),
    );
    let statuses: Vec<_> = (0..5).map(|_| status(&shake_hands(&server, ""))).collect();
    assert_eq!(statuses, [403, 403, 403, 429, 429]);
    assert_eq!(*calls.lock(), 3);
}

#[test]
fn behind_a_trusted_proxy_the_addresses_of_its_clients_count() {
    let proxy: std::net::IpAddr = [127, 0, 0, 1].into();
    let limited = |server: Server| server.handshake_rate_per_peer(only(2));
    let trusting = |server: Server| server.trust_proxy(proxy).trust_proxy(http::Proxy::Unix);
    let server = echoing(|server| trusting(limited(server)), Websocket::new());
    let come = |client: &str| {
        status(&shake_hands(&server, &format!("X-Forwarded-For: 6.6.6.6, {client}\r\n")))
    };
    for client in ["192.0.2.1", "192.0.2.2", "2001:db8:0:1::1", "2001:db8:0:2::1"] {
        assert_eq!([come(client), come(client), come(client)], [101, 101, 429], "{client}");
    }
    assert_eq!(come("2001:db8:0:1:ffff::7"), 429, "it is of the same network");
    for _ in 0..5 {
        assert_eq!(status(&shake_hands(&server, "")), 101, "the proxy itself is not limited");
    }
    // Nobody else is believed.
    let server = echoing(limited, Websocket::new());
    let claim =
        |client: &str| status(&shake_hands(&server, &format!("X-Forwarded-For: {client}\r\n")));
    assert_eq!(["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(claim), [101, 101, 429]);
}

#[test]
fn a_rate_that_allows_nothing_is_an_error_at_start() {
    for rate in [Rate::per_second(0), Rate::per_second(1).burst(0), Rate::per(1, Duration::ZERO)] {
        let server = Server::new(vec![]).handshake_rate_per_peer(rate);
        let error = server.bind("127.0.0.1:0").spawn().unwrap_err().to_string();
        assert!(error.contains("`handshake_rate_per_peer` has to be a rate"), "{error}");
        let server = Server::new(vec![]).websocket(Websocket::new().byte_rate(rate));
        let error = server.bind("127.0.0.1:0").spawn().unwrap_err().to_string();
        assert!(error.contains("`byte_rate` has to be a rate"), "{error}");
    }
}

#[test]
fn bytes_that_come_with_the_handshake_count_like_others() {
    let settings = closing().byte_rate_per_session(only(1000)).byte_rate(only(1000));
    let (server, lengths, _closed) = noting(settings);
    let guest = Guest::new();
    for _ in 0..20 {
        let mut client = Raw::connect(server.local_addr());
        let mut bytes = upgrade_request("/", &guest.cookie()).into_bytes();
        bytes.extend(client_frame(0x82, &[7; 500]).repeat(3));
        client.send(&bytes);
        assert_eq!(status(&client.head()), 101);
        assert_eq!(client.close_frame().0, 1008);
    }
    assert_eq!(lengths.lock().len(), 0, "these came for nothing");
    // As many as are allowed are handled.
    let guest = Guest::new();
    let mut client = Raw::connect(server.local_addr());
    let mut bytes = upgrade_request("/", &guest.cookie()).into_bytes();
    bytes.extend(client_frame(0x82, &[7; 900]));
    client.send(&bytes);
    assert_eq!(status(&client.head()), 101);
    wait_until("it has come", || lengths.lock().len() == 1);
    client.send_text(&"one too many".repeat(20));
    assert_eq!(client.close_frame().0, 1008);
}

/// A server that sends values and pings along, whose endpoint takes messages and notes how many.
fn pinging(settings: Websocket) -> (ServerHandle, Raw, Comms, Arc<Mutex<Vec<usize>>>) {
    let settings = settings.max_lag(Duration::from_millis(50)).ping_timeout(HOUR);
    let (server, lengths, _closed) = noting(settings);
    let guest = Guest::new();
    let client = tab(&server, "/", guest);
    let comms = Comms::websocket(guest);
    wait_until("it is there", || comms.is_connected());
    (server, client, comms, lengths)
}

/// Sends a value, and returns the payload of the ping that goes along.
fn ping_behind_value(client: &mut Raw, comms: &Comms) -> Vec<u8> {
    comms.send_latest("value", "newer").unwrap();
    loop {
        let frame = client.frame();
        match frame.first {
            0x89 => return frame.payload,
            0x81 => comms.send_latest("value", "newer").map(drop).unwrap(),
            _ => panic!("{frame:?}"),
        }
    }
}

#[test]
fn pongs_that_were_asked_for_do_not_count() {
    let settings = closing().byte_rate(only(60)).byte_rate_per_session(only(60));
    let (_server, mut client, comms, lengths) = pinging(settings);
    let answer = |client: &mut Raw| {
        let ping = ping_behind_value(client, &comms);
        // In parts too.
        let pong = client_frame(0x8a, &ping);
        let (first, second) = pong.split_at(pong.len() / 2);
        client.send(first);
        thread::sleep(Duration::from_millis(1));
        client.send(second);
    };
    for _ in 0..50 {
        answer(&mut client);
    }
    // All that it may send, and pongs still.
    for number in 1..=4 {
        client.send_frame(0x82, &[7; 9]);
        wait_until("it has come", || lengths.lock().len() == number);
        answer(&mut client);
    }
    for _ in 0..20 {
        answer(&mut client);
    }
    client.send_frame(0x82, &[7; 9]);
    assert_eq!(close_behind_pings(&mut client), 1008, "what is no pong counts");
}

/// The code of the close that comes next but for values and pings.
fn close_behind_pings(client: &mut Raw) -> u16 {
    loop {
        let frame = client.frame();
        if frame.first == 0x88 {
            return u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
        }
    }
}

#[test]
fn pongs_that_nobody_asked_for_count() {
    let (_server, mut client, comms, _lengths) = pinging(closing().byte_rate(only(200)));
    let ping = ping_behind_value(&mut client, &comms);
    // The first answers; each of the others is 22 bytes.
    for _ in 0..20 {
        client.send_frame(0x8a, &ping);
    }
    assert_eq!(close_behind_pings(&mut client), 1008, "the same answer again and again");
    let (_server, mut client, comms, _lengths) = pinging(closing().byte_rate(only(200)));
    let mut ping = ping_behind_value(&mut client, &comms);
    for _ in 0..20 {
        let last = ping.len() - 1;
        ping[last] = ping[last].wrapping_add(1);
        client.send_frame(0x8a, &ping);
    }
    assert_eq!(close_behind_pings(&mut client), 1008, "answers to pings that were never sent");
    let (_server, mut client, _comms, _lengths) = pinging(closing().byte_rate(only(200)));
    client.send(&client_frame(0x8a, b"").repeat(40));
    assert_eq!(close_behind_pings(&mut client), 1008, "pongs without a payload");
}

/// The number of the question that comes next.
#[track_caller]
fn question(client: &mut Raw) -> String {
    let text = client.text_frame();
    text.lines().next().unwrap().strip_prefix("rwf-question ").unwrap().to_owned()
}

#[test]
fn answers_do_not_count_and_messages_beside_them_do() {
    let (server, lengths, _closed) = noting(closing().message_rate(only(3)));
    let guest = Guest::new();
    let mut client = tab(&server, "/", guest);
    let comms = Comms::websocket(guest);
    wait_until("it is there", || comms.is_connected());
    let asked = 10;
    let asking = thread::spawn({
        let comms = comms.clone();
        move || (0..asked).map(|_| comms.request("?", DEADLINE)).collect::<Vec<_>>()
    });
    for number in 0..asked {
        let question = question(&mut client);
        if number < 3 {
            client.send_text("a message of its own");
        }
        client.send_text(&format!("rwf-answer {question}\nyes"));
    }
    let answers = common::join("who asks", asking);
    assert!(answers.iter().all(|answer| answer == &Ok("yes".into())), "{answers:?}");
    assert_eq!(lengths.lock().len(), 3);
    // Whether it is asked or not.
    let asking = thread::spawn(move || comms.request("?", DEADLINE));
    question(&mut client);
    client.send_text("one too many");
    expect_violation(&mut client, "too many messages: a connection may send 1 per 3600s");
    assert!(common::join("who asks", asking).is_err());
    assert_eq!(lengths.lock().len(), 3);
}

#[test]
fn answers_that_come_too_late_do_not_count_and_those_that_nobody_asked_for_do() {
    let (server, lengths, _closed) = noting(closing().message_rate(only(2)));
    let guest = Guest::new();
    let mut client = tab(&server, "/", guest);
    let comms = Comms::websocket(guest);
    wait_until("it is there", || comms.is_connected());
    let mut last = String::new();
    for _ in 0..10 {
        assert!(comms.request("?", Duration::from_millis(1)).is_err());
        last = question(&mut client);
        client.send_text(&format!("rwf-answer {last}\ntoo late"));
    }
    client.send_text("one");
    wait_until("it has come", || lengths.lock().len() == 1);
    for _ in 0..2 {
        client.send_text(&format!("rwf-answer {last}\nagain"));
    }
    expect_violation(&mut client, "too many messages: a connection may send 1 per 3600s");
}

#[test]
fn a_client_that_is_asked_and_does_not_answer_is_held_to_its_rate() {
    let (rate, burst, count) = (200, 10, 60);
    let settings = Websocket::new().message_rate(Rate::per_second(rate).burst(burst));
    let (server, lengths, _closed) = noting(settings);
    let guest = Guest::new();
    let mut client = tab(&server, "/", guest);
    let comms = Comms::websocket(guest);
    wait_until("it is there", || comms.is_connected());
    assert!(comms.request("?", Duration::from_millis(1)).is_err());
    question(&mut client);
    let began = Instant::now();
    client.send(&client_frame(0x81, b"again").repeat(count));
    wait_until("all have come", || {
        let come = lengths.lock().len();
        let allowed = burst as f64 + rate as f64 * began.elapsed().as_secs_f64();
        // One more, of which it is known late that it is no answer.
        assert!(come as f64 <= allowed + 2.0, "{come} came, {allowed:.0} may");
        come == count
    });
}
