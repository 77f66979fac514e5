//! How many connections and how many queued bytes there may be, and what comes beyond.

mod common;

use common::{Echo, Guest, Raw, header, join, start, upgrade_request, wait_until};
use rwf::comms::SendError;
use rwf::controller::{Overflow, Websocket};
use rwf::http::{Server, ServerHandle};
use rwf::prelude::*;

fn tab(server: &ServerHandle, session: Guest) -> Raw {
    let cookie = session.cookie();
    Raw::open_with(server.local_addr(), "/", &cookie)
}

/// Expects the refusal that a further connection gets.
fn expect_refusal(server: &ServerHandle) {
    let mut refused = Raw::connect(server.local_addr());
    let (head, _) = refused.response();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!(header(&head, "retry-after").is_some(), "{head}");
    refused.expect_end();
}

#[test]
fn a_connection_too_many_gets_503_until_another_ends() {
    let server = start(Server::new(vec![route!("/" => Echo)]).max_connections(3));
    let mut clients: Vec<_> = (0..3).map(|_| Raw::open(server.local_addr(), "/")).collect();
    for _ in 0..5 {
        expect_refusal(&server);
    }
    for client in &mut clients {
        client.send_text("unharmed");
        assert_eq!(client.text_frame(), "unharmed");
    }
    clients.pop();
    wait_until("there is room again", || {
        let mut client = Raw::connect(server.local_addr());
        client.send(upgrade_request("/", "").as_bytes());
        client.head().starts_with("HTTP/1.1 101 ")
    });
}

#[test]
fn an_address_has_no_more_connections_than_it_may() {
    let routes = || vec![route!("/" => Echo)];
    let server = start(Server::new(routes()).max_connections_per_peer(2));
    let _clients = [Raw::open(server.local_addr(), "/"), Raw::open(server.local_addr(), "/")];
    expect_refusal(&server);

    let proxy: std::net::IpAddr = [127, 0, 0, 1].into();
    let server = start(Server::new(routes()).max_connections_per_peer(2).trust_proxy(proxy));
    let _clients: Vec<_> = (0..5).map(|_| Raw::open(server.local_addr(), "/")).collect();
}

#[test]
fn a_session_has_no_more_websockets_than_it_may() {
    let server = start(Server::new(vec![route!("/" => Echo)]).max_connections_per_session(2));
    let session = Guest::new();
    let mut first = tab(&server, session);
    let second = tab(&server, session);
    let mut third = tab(&server, session);
    assert_eq!(third.close_frame().0, 1013);
    third.send_close(1013, "");
    third.expect_end();
    tab(&server, Guest::new()).send_text("others are not concerned");
    drop(second);
    // The server may see the new one first, and then the end of the second.
    wait_until("there is room again", || {
        let mut third = tab(&server, session);
        Comms::websocket(session).send("both").unwrap();
        let frame = third.frame();
        assert!(matches!(frame.first, 0x81 | 0x88), "neither taken nor refused: {frame:?}");
        frame.payload == b"both"
    });
    while first.text_frame() != "both" {}
}

#[test]
fn a_session_has_its_limit_at_each_server() {
    let serve = || start(Server::new(vec![route!("/" => Echo)]).max_connections_per_session(1));
    let (one, other) = (serve(), serve());
    let session = Guest::new();
    for server in [&one, &other] {
        let mut only = tab(server, session);
        only.send_text("hello");
        assert_eq!(only.text_frame(), "hello");
        assert_eq!(tab(server, session).close_frame().0, 1013);
    }
}

#[test]
fn a_connection_over_the_limit_of_its_session_is_not_there_for_others() {
    let server = start(Server::new(vec![route!("/" => Echo)]).max_connections_per_session(1));
    let all = server.comms().notify();
    let watch = all.clone().presence().unwrap();
    let session = Guest::new();
    let _only = tab(&server, session);
    wait_until("it is there", || all.members().client_count() == 1);
    let sending = std::thread::spawn({
        let all = all.clone();
        move || (0..5000).map(|_| all.send("to members").unwrap_or(0)).max()
    });
    let mut refused = 0;
    while !sending.is_finished() || refused < 20 {
        let mut tab = tab(&server, session);
        assert_eq!(tab.close_frame().0, 1013, "it gets nothing before its close");
        tab.send_close(1013, "");
        refused += 1;
    }
    assert_eq!(
        join("the sender", sending),
        Some(1),
        "of {refused} refused connections some were sent to"
    );
    let told: Vec<_> = watch.try_iter().collect();
    assert_eq!(told.len(), 1, "{refused} refused connections are seen to come and go: {told:?}");
}

#[test]
fn the_bytes_that_wait_in_the_whole_process_have_a_limit() {
    let limit = 8 << 20;
    let server = start(
        Server::new(vec![route!("/" => Echo)])
            .max_queued_bytes(limit)
            .websocket(Websocket::new().overflow(Overflow::Refuse).outbox_bytes(limit)),
    );
    let slow: Vec<_> = (0..6).map(|_| Guest::new()).collect();
    let mut tabs: Vec<_> = slow.iter().map(|session| tab(&server, *session)).collect();
    let mut healthy = Raw::open(server.local_addr(), "/");
    // None of them reads: together they may have no more waiting than the limit, whatever the kernel holds.
    let message = Message::binary(vec![7; 256 << 10]);
    let mut counts = Vec::new();
    for session in &slow {
        let mut taken = 0;
        let error = loop {
            match Comms::websocket(session).send(&message) {
                Ok(_) => taken += 1,
                Err(error) => break error,
            }
            assert!(taken < 10_000, "there is no limit");
        };
        assert_eq!(error, SendError::Full);
        counts.push(taken);
    }
    let first = counts[0];
    let last = counts[counts.len() - 1];
    assert!(first >= last + 16, "the first had room that the last had not: {counts:?}");
    healthy.send_text("not concerned");
    assert_eq!(healthy.text_frame(), "not concerned");
    // What is read makes room for others.
    for _ in 0..first {
        tabs[0].frame();
    }
    wait_until("there is room again", || Comms::websocket(slow[5]).send(&message) == Ok(1));
}
