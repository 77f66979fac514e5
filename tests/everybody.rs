//! Reaching everybody. Alone in its file: it would reach the clients of other tests.

mod common;

use common::{DEADLINE, Echo, Guest, Raw, serve};
use rwf::comms::Change;
use rwf::prelude::*;

#[test]
fn a_broadcast_leaves_one_session_out_and_a_notification_nobody() {
    let server = serve(vec![route!("/" => Echo)]);
    let tab = |session: Guest| {
        let cookie = session.cookie();
        Raw::open_with(server.local_addr(), "/", &cookie)
    };
    let (ours, theirs) = (Guest::new(), Guest::new());
    let mut our_tab = tab(ours);
    let presence = Comms::notify().presence().unwrap();
    let next = || presence.recv_timeout(DEADLINE).expect("nobody came or went");
    let is = |change: &Change, guest: Guest| *change.session_id() == guest.session();
    assert!(Some(next()).is_some_and(|change| change.has_joined() && is(&change, ours)));
    let mut their_tabs = [tab(theirs), tab(theirs)];
    assert!(Some(next()).is_some_and(|change| change.has_joined() && is(&change, theirs)));
    let everybody = Comms::notify().members();
    assert_eq!((everybody.client_count(), everybody.session_count()), (3, 2));
    let but_us = Comms::broadcast(ours).members();
    assert_eq!((but_us.client_count(), but_us.session_count()), (2, 1));
    assert_eq!(Comms::broadcast(ours).send("not for us"), Ok(2));
    assert_eq!(Comms::notify().send("for all"), Ok(3));
    for tab in &mut their_tabs {
        assert_eq!(tab.text_frame(), "not for us");
        assert_eq!(tab.text_frame(), "for all");
    }
    assert_eq!(our_tab.text_frame(), "for all");
    assert_eq!(Comms::notify().close(CloseCode::SERVICE_RESTART, "again soon"), Ok(3));
    for tab in their_tabs.iter_mut().chain([&mut our_tab]) {
        assert_eq!(tab.close_frame(), (1012, "again soon".to_owned()));
    }
    drop((their_tabs, our_tab, server));
    let gone = [next(), next()];
    assert!(gone.iter().all(|change| !change.has_joined()), "all have left: {gone:?}");
    assert!([ours, theirs].iter().all(|guest| gone.iter().any(|change| is(change, *guest))));
    assert!(presence.is_empty(), "{presence:?}");
}
