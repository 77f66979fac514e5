//! Reaching sessions: all tabs, one tab, and the truth about how many.

mod common;

use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Instant;

use common::{DEADLINE, Echo, Guest, Raw, join, new_secret, serve, upgrade_request, wait_until};
use parking_lot::Mutex;
use rwf::comms::SendError;
use rwf::http::ServerHandle;
use rwf::prelude::*;

/// A tab of `session`.
fn tab(server: &ServerHandle, session: Guest) -> Raw {
    let cookie = session.cookie();
    Raw::open_with(server.local_addr(), "/", &cookie)
}

#[test]
fn a_send_reaches_all_tabs_of_a_session_and_nobody_else() {
    let server = serve(vec![route!("/" => Echo)]);
    let (ours, theirs) = (Guest::new(), Guest::new());
    let mut tabs = [tab(&server, ours), tab(&server, ours)];
    let mut other = tab(&server, theirs);
    assert_eq!(Comms::websocket(ours).send("for us"), Ok(2));
    assert_eq!(Comms::websocket(theirs).send("for them"), Ok(1));
    for tab in &mut tabs {
        assert_eq!(tab.text_frame(), "for us");
    }
    assert_eq!(other.text_frame(), "for them");
}

#[test]
fn a_topic_reaches_those_who_have_subscribed_while_they_are_there() {
    let server = serve(vec![route!("/" => Echo)]);
    let (ours, theirs) = (Guest::new(), Guest::new());
    let (topic, other_topic) = (format!("room:{ours}"), format!("room:{theirs}"));
    let mut tabs = [tab(&server, ours), tab(&server, ours)];
    let mut other = tab(&server, theirs);
    assert_eq!(Comms::topic(&topic).send("too early"), Ok(0), "nobody has subscribed");
    assert_eq!(Comms::websocket(ours).subscribe(&topic), Ok(2), "both tabs");
    assert_eq!(Comms::websocket(ours).subscribe(&topic), Ok(0), "they have already");
    assert_eq!(Comms::websocket(theirs).subscribe(&other_topic), Ok(1));
    assert_eq!(Comms::topic(&topic).send("to the room"), Ok(2));
    for tab in &mut tabs {
        assert_eq!(tab.text_frame(), "to the room");
    }

    assert_eq!(Comms::websocket(theirs).subscribe(&topic), Ok(1));
    assert_eq!(Comms::websocket(ours).unsubscribe(&topic), 2);
    assert_eq!(Comms::topic(&topic).send("to who is left"), Ok(1));
    assert_eq!(other.text_frame(), "to who is left", "in two rooms, and reached in both");
    assert_eq!(Comms::topic(&topic).close(4001, "the room closes"), Ok(1));
    assert_eq!(other.close_frame(), (4001, "the room closes".to_owned()));
    other.send_close(4001, "");
    wait_until("the rooms are empty", || {
        [&topic, &other_topic].into_iter().all(|topic| Comms::topic(topic).send("hello?") == Ok(0))
    });
    assert_eq!(Comms::websocket(ours).send("still here"), Ok(2), "the others are there");
}

#[test]
fn a_connection_that_subscribes_without_end_is_told() {
    use rwf::comms::SubscribeError;
    use rwf::controller::Websocket;
    let settings = Websocket::new().max_topics(2);
    let server =
        common::start(rwf::http::Server::new(vec![route!("/" => Echo)]).websocket(settings));
    let session = Guest::new();
    let _tab = tab(&server, session);
    let comms = Comms::websocket(session);
    let topics = [1, 2, 3].map(|number| format!("{number} {session}"));
    assert_eq!(
        topics.each_ref().map(|topic| comms.subscribe(topic)),
        [Ok(1), Ok(1), Err(SubscribeError::TooMany)]
    );
    assert_eq!(comms.unsubscribe(&topics[0]), 1);
    assert_eq!(comms.subscribe(&topics[2]), Ok(1), "there is room again");
    assert_eq!(comms.subscribe(&"x".repeat(256)), Err(SubscribeError::TooLong));
}

#[test]
fn a_thread_can_send_while_it_ends() {
    struct LastWords(Sender<Result<usize, SendError>>);

    impl Drop for LastWords {
        fn drop(&mut self) {
            let _ = self.0.send(Comms::websocket(SessionId::guest()).send("goodbye"));
        }
    }

    thread_local! {
        static LAST_WORDS: std::cell::RefCell<Option<LastWords>> = const { std::cell::RefCell::new(None) };
    }

    let (sender, sent) = channel();
    let ending = thread::spawn(move || {
        LAST_WORDS.set(Some(LastWords(sender)));
        // What rwf keeps for a thread is made later, and gone earlier.
        assert_eq!(Comms::websocket(SessionId::guest()).send("hello?"), Ok(0));
    });
    join("the thread that sends", ending);
    assert_eq!(sent.recv_timeout(DEADLINE).expect("the destructor did not send"), Ok(0));
}

#[test]
fn nobody_there_is_no_error() {
    let comms = Comms::websocket(SessionId::guest());
    assert_eq!(comms.send("hello?"), Ok(0));
    assert_eq!(comms.close(CloseCode::NORMAL, ""), Ok(0));
    assert!(!comms.is_connected());
}

/// Tells the connection id of each client.
struct Telling(Mutex<Sender<ConnectionId>>);

#[async_trait]
impl Controller for Telling {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        self.0.lock().send(request.connection_id())?;
        WebsocketController::handle(&Echo, request).await
    }
}

#[test]
fn one_tab_can_be_reached_alone() {
    let (sender, ids) = channel();
    let server = serve(vec![route!("/" => Telling(Mutex::new(sender)))]);
    let session = Guest::new();
    let mut first = tab(&server, session);
    let first_id = ids.recv_timeout(DEADLINE).unwrap();
    let mut second = tab(&server, session);
    assert_eq!(Comms::connection(first_id).send("you"), Ok(1));
    assert_eq!(Comms::websocket(session).send("both"), Ok(2));
    assert_eq!(first.text_frame(), "you");
    assert_eq!(first.text_frame(), "both");
    assert_eq!(second.text_frame(), "both");
    assert_eq!(Comms::connection(first_id).close(4000, "you"), Ok(1));
    assert_eq!(first.close_frame(), (4000, "you".to_owned()));
    assert!(Comms::websocket(session).is_connected(), "the other tab is still there");
}

#[test]
fn a_client_that_has_seen_the_101_is_reached() {
    let server = serve(vec![route!("/" => Echo)]);
    for _ in 0..200 {
        let session = Guest::new();
        let mut client = tab(&server, session);
        assert_eq!(Comms::websocket(session).send("welcome"), Ok(1));
        assert_eq!(client.text_frame(), "welcome");
    }
}

#[test]
fn the_session_of_the_cookie_is_the_session_that_is_reached() {
    let server = serve(vec![route!("/" => Echo)]);
    let mut visitor = Raw::connect(server.local_addr());
    visitor.send(upgrade_request("/", "").as_bytes());
    let head = visitor.head();
    let secret = new_secret(&head).expect("a new visitor gets a cookie");
    let session = SessionId::from_cookie(secret).unwrap();
    assert_eq!(Comms::websocket(session).send("found you"), Ok(1));
    assert_eq!(visitor.text_frame(), "found you");
}

#[test]
fn each_threads_messages_keep_their_order() {
    const THREADS: usize = 8;
    const MESSAGES: usize = 300;
    let server = serve(vec![route!("/" => Echo)]);
    let session = Guest::new();
    let mut client = tab(&server, session);
    let comms = Comms::websocket(session);
    thread::scope(|scope| {
        let deadline = Instant::now() + DEADLINE;
        for thread in 0..THREADS {
            let comms = comms.clone();
            scope.spawn(move || {
                for number in 0..MESSAGES {
                    // Faster than the client reads: the outbox has room for 1,024.
                    loop {
                        let sent = comms.send(format!("{thread} {number}"));
                        if sent == Ok(1) {
                            break;
                        }
                        assert!(
                            Instant::now() < deadline,
                            "message {number} of thread {thread} found no room for {DEADLINE:?}, \
                             or no connection: {sent:?}"
                        );
                        thread::yield_now();
                    }
                    if number % 50 == 49 {
                        thread::yield_now();
                    }
                }
            });
        }
        let mut next = [0; THREADS];
        for _ in 0..THREADS * MESSAGES {
            let text = client.text_frame();
            let (thread, number) = text.split_once(' ').unwrap();
            let thread: usize = thread.parse().unwrap();
            assert_eq!(number.parse(), Ok(next[thread]), "thread {thread}");
            next[thread] += 1;
        }
    });
}

#[test]
fn a_session_goes_with_its_last_tab() {
    let server = serve(vec![route!("/" => Echo)]);
    let session = Guest::new();
    let comms = Comms::websocket(session);
    let first = tab(&server, session);
    let second = tab(&server, session);
    assert!(comms.is_connected());
    drop(first);
    wait_until("one tab is left", || comms.send("") == Ok(1));
    drop(second);
    wait_until("none is left", || comms.send("") == Ok(0));
    assert!(!comms.is_connected());
}

#[test]
fn errors_of_a_send_go_through_the_question_mark() {
    fn handler() -> Result<(), Error> {
        Err(SendError::Full)?
    }
    fn program() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Comms::websocket(1).send("to nobody")?;
        Err(SendError::Closing)?
    }
    assert!(handler().unwrap_err().to_string().contains("full"));
    assert!(program().unwrap_err().to_string().contains("closed"));
}
