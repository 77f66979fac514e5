//! Who is there: counts and lists of those whom a `Comms` means.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::HashSet;

use common::{DEADLINE, Echo, Guest, Raw, serve, wait_until};
use rwf::http::ServerHandle;
use rwf::prelude::*;

fn tab(server: &ServerHandle, session: Guest) -> Raw {
    Raw::open_with(server.local_addr(), "/", &session.cookie())
}

fn counts(comms: &Comms) -> (usize, usize) {
    let members = comms.members();
    let (clients, sessions) = (members.clients(), members.sessions());
    assert_eq!(clients.len(), members.client_count(), "{comms:?}: what is listed and counted");
    assert_eq!(sessions.len(), members.session_count(), "{comms:?}: what is listed and counted");
    let of_clients: HashSet<_> = clients.iter().map(|client| client.session_id().clone()).collect();
    assert_eq!(of_clients, sessions.iter().cloned().collect(), "{comms:?}: whose they are");
    for client in &clients {
        assert!(members.contains(client.connection_id()), "{comms:?} has {client:?}");
        assert!(members.contains(client.session_id()), "{comms:?} has {client:?}");
    }
    (clients.len(), sessions.len())
}

#[test]
fn members_are_those_who_are_meant_and_there() {
    let (server, other_server) =
        (serve(vec![route!("/" => Echo)]), serve(vec![route!("/" => Echo)]));
    let (anna, ben, nobody) = (Guest::new(), Guest::new(), Guest::new());
    let _tabs = [tab(&server, anna), tab(&server, anna), tab(&server, ben)];
    let elsewhere = tab(&other_server, ben);
    let room = format!("room:{anna}");
    assert_eq!(counts(&Comms::topic(&room)), (0, 0), "nobody has subscribed");
    for guest in [anna, ben] {
        Comms::websocket(guest).subscribe(&room).unwrap();
    }

    assert_eq!(counts(&Comms::topic(&room)), (4, 2));
    assert_eq!(counts(&Comms::topic(&room).except(anna)), (2, 1));
    assert_eq!(counts(&server.comms().topic(&room)), (3, 2));
    assert_eq!(counts(&other_server.comms().topic(&room)), (1, 1));
    assert_eq!(counts(&server.comms().notify()), (3, 2));
    assert_eq!(counts(&Comms::websocket(anna)), (2, 1));
    assert_eq!(counts(&Comms::websocket(ben).except(ben)), (0, 0));
    assert_eq!(counts(&Comms::websocket(nobody)), (0, 0));
    assert!(!server.comms().topic(&room).members().contains(nobody));
    assert!(!other_server.comms().topic(&room).members().contains(anna), "on the other server");
    assert!(!Comms::topic("another room").members().contains(anna), "not in that room");

    let tabs = Comms::websocket(anna).members().clients();
    let first = Comms::connection(tabs[0].connection_id());
    assert_eq!(counts(&first), (1, 1));
    assert!(!first.members().contains(tabs[1].connection_id()));
    assert!(!Comms::websocket(ben).members().contains(tabs[0].connection_id()));
    assert_eq!(first.unsubscribe(&room), 1);
    assert_eq!(counts(&Comms::topic(&room)), (3, 2), "one of two tabs has left the room");
    drop(elsewhere);
    wait_until("the tab is gone", || Comms::topic(&room).members().client_count() == 2);
    assert_eq!(counts(&Comms::topic(&room)), (2, 2));
}

#[test]
fn one_that_is_being_closed_is_there_until_its_handler_knows() {
    let (go_on, wait) = rwf::channel::bounded::<()>(0);
    let waits = move |mut socket: Socket| {
        let _ = wait.recv_timeout(DEADLINE);
        // It learns of the end here, and goes on for a while.
        let _ = socket.recv();
        let _ = wait.recv_timeout(DEADLINE);
        Ok(())
    };
    let server = serve(vec![route!("/" => websocket(waits))]);
    let guest = Guest::new();
    let mut raw = tab(&server, guest);
    let members = Comms::websocket(guest).members();
    assert_eq!(Comms::websocket(guest).close(4000, "over"), Ok(1));
    assert_eq!(raw.close_frame(), (4000, "over".to_owned()));
    assert_eq!(members.client_count(), 1, "its function runs");
    assert!(!members.clients()[0].is_connected(), "it is being closed");
    go_on.send_timeout((), DEADLINE).unwrap();
    wait_until("its function has learned of it", || members.client_count() == 0);
    go_on.send_timeout((), DEADLINE).expect("its function still runs");
    raw.send_close(4000, "");
}
