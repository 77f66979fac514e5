//! Presence: who comes and who goes, told once for each session, in turns, and to slow watchers no more than they need.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    DEADLINE, Echo, Guest, Random, Raw, join, start_apart as start, upgrade_request, wait_until,
};
use rwf::channel::{RecvTimeoutError, TryRecvError};
use rwf::comms::Presence;
use rwf::controller::Websocket;
use rwf::http::{Route, Server, ServerHandle};
use rwf::prelude::*;

/// How many changes are handed over ahead of the watcher, one more with the thread that does it.
const AHEAD: usize = 65;

/// A server where no stranger joins.
fn serve(routes: Vec<Route>) -> ServerHandle {
    start(Server::new(routes))
}

fn tab(server: &ServerHandle, session: Guest) -> Raw {
    Raw::open_with(server.local_addr(), "/", &session.cookie())
}

/// A server that waits for the answer to a close for a short time only.
fn serve_clients_that_do_not_answer() -> ServerHandle {
    let settings = Websocket::new().close_timeout(Duration::from_millis(100));
    start(Server::new(vec![route!("/" => Echo)]).websocket(settings))
}

/// A topic that no other test uses.
fn topic(name: &str) -> String {
    format!("{name}:{}", Guest::new())
}

/// The next change, and that there is one.
#[track_caller]
fn next(presence: &Presence) -> (SessionId, bool) {
    let change = presence.recv_timeout(DEADLINE).expect("nobody came or went");
    (change.session_id().clone(), change.has_joined())
}

/// That nothing more is told: `marker` comes, and is the next who is told of.
#[track_caller]
fn expect_nothing_before(presence: &Presence, marker: &Guest, come: impl FnOnce()) {
    come();
    assert_eq!(next(presence), (marker.session(), true), "something was told before the marker");
}

#[test]
fn a_session_joins_with_its_first_tab_and_leaves_with_its_last() {
    let server = serve(vec![route!("/" => Echo)]);
    let (anna, ben, marker) = (Guest::new(), Guest::new(), Guest::new());
    let room = topic("room");
    let first = tab(&server, anna);
    Comms::websocket(anna).subscribe(&room).unwrap();
    let presence = Comms::topic(&room).presence().unwrap();
    assert_eq!(next(&presence), (anna.session(), true), "those who are there come first");

    let second = tab(&server, anna);
    Comms::websocket(anna).subscribe(&room).unwrap();
    let ids: Vec<_> = Comms::websocket(anna).members().clients();
    Comms::connection(ids[0].connection_id()).unsubscribe(&room);
    Comms::connection(ids[0].connection_id()).subscribe(&room).unwrap();
    drop(first);
    wait_until("one tab is gone", || Comms::websocket(anna).members().client_count() == 1);
    let _others = [tab(&server, ben), tab(&server, marker)];
    expect_nothing_before(&presence, &marker, || {
        Comms::websocket(marker).subscribe(&room).unwrap();
    });

    drop(second);
    assert_eq!(next(&presence), (anna.session(), false));
    Comms::websocket(ben).subscribe(&room).unwrap();
    assert_eq!(next(&presence), (ben.session(), true));
    assert_eq!(Comms::topic(&room).except(marker).unsubscribe(&room), 1);
    assert_eq!(next(&presence), (ben.session(), false));
    assert_eq!(presence.try_recv(), Err(TryRecvError::Empty));
}

#[test]
fn a_prefix_watches_its_topics_and_no_others() {
    let server = serve_clients_that_do_not_answer();
    let guest = Guest::new();
    let _tab = tab(&server, guest);
    let prefix = topic("rooms");
    let [there, comes, other] =
        [format!("{prefix}/1"), format!("{prefix}/2"), topic("another prefix")];
    let comms = Comms::websocket(guest);
    let told = |presence: &Presence| {
        let change = presence.recv_timeout(DEADLINE).expect("nobody came or went");
        assert_eq!(change.session_id(), &guest.session());
        (change.topic().unwrap().to_owned(), change.has_joined())
    };
    comms.subscribe(&there).unwrap();
    let presence = Comms::presence_in(&prefix).unwrap();
    assert_eq!(told(&presence), (there.clone(), true));
    comms.subscribe(&other).unwrap();
    comms.subscribe(&comes).unwrap();
    assert_eq!(told(&presence), (comes.clone(), true));
    comms.unsubscribe(&other);
    comms.close(1000, "").unwrap();
    assert_eq!([told(&presence), told(&presence)], [(there, false), (comes, false)]);
    assert_eq!(presence.try_recv(), Err(TryRecvError::Empty));
}

#[test]
fn one_thread_announces_all_rooms_to_those_who_are_there() {
    let prefix = topic("rooms");
    let rooms = Comms::presence_in(&prefix).unwrap();
    let announcing = thread::spawn(move || {
        for change in rooms.iter().take(3) {
            let what = if change.has_joined() { "has come" } else { "has left" };
            let _ = change.comms().send(format!("{} {what}", change.session_id()));
        }
    });
    let chat = move |mut socket: Socket| {
        Comms::here()?.subscribe(&format!("{prefix}/lobby"))?;
        while socket.recv()?.is_some() {}
        Ok(())
    };
    let server = serve(vec![route!("/" => websocket(chat))]);
    let (anna, ben) = (Guest::new(), Guest::new());
    let (anna_id, ben_id) = (anna.session(), ben.session());
    let mut of_anna = tab(&server, anna);
    assert_eq!(of_anna.text_frame(), format!("{anna_id} has come"), "it hears of itself");
    let of_ben = tab(&server, ben);
    assert_eq!(of_anna.text_frame(), format!("{ben_id} has come"));
    drop(of_ben);
    assert_eq!(of_anna.text_frame(), format!("{ben_id} has left"));
    join("announcing", announcing);
}

#[test]
fn a_server_is_watched_apart_and_ends_its_watches_when_all_have_left() {
    let (server, other) = (serve_clients_that_do_not_answer(), serve(vec![route!("/" => Echo)]));
    let (anna, ben) = (Guest::new(), Guest::new());
    let room = topic("room");
    let everybody = server.comms().notify().presence().unwrap();
    let others = other.comms().notify().presence().unwrap();
    let rooms = server.comms().presence_in(&room).unwrap();
    let (_here, _there) = (tab(&server, anna), [tab(&other, anna), tab(&other, ben)]);
    for guest in [anna, ben] {
        Comms::websocket(guest).subscribe(&room).unwrap();
    }
    assert_eq!(next(&everybody), (anna.session(), true));
    assert_eq!(next(&rooms), (anna.session(), true));
    assert_eq!([next(&others), next(&others)], [(anna.session(), true), (ben.session(), true)]);
    let stopping = thread::spawn(move || drop(server));
    for presence in [everybody, rooms] {
        assert_eq!(next(&presence), (anna.session(), false));
        assert_eq!(presence.recv_timeout(DEADLINE), Err(RecvTimeoutError::Disconnected));
        assert_eq!(presence.iter().count(), 0, "a loop over it ends");
    }
    join("the shutdown", stopping);
    assert_eq!(others.try_recv(), Err(TryRecvError::Empty), "the other server goes on");
}

#[test]
fn a_shutdown_ends_the_watches_of_handlers_that_go_on() {
    let (go_on, wait) = rwf::channel::bounded::<()>(0);
    let (entered, has_entered) = rwf::channel::bounded(1);
    let blocks = move |_: Socket| {
        entered.send(())?;
        let _ = wait.recv();
        Ok(())
    };
    let server = Server::new(vec![route!("/" => websocket(blocks))]);
    let server = start(server.shutdown_timeout(Duration::from_millis(10)));
    let presence = server.comms().notify().presence().unwrap();
    let guest = Guest::new();
    let _tab = tab(&server, guest);
    has_entered.recv_timeout(DEADLINE).unwrap();
    assert_eq!(next(&presence), (guest.session(), true));
    assert_eq!(server.shutdown().unwrap().running, 1);
    assert_eq!(next(&presence), (guest.session(), false));
    assert_eq!(presence.recv_timeout(DEADLINE), Err(RecvTimeoutError::Disconnected));
    drop(go_on);
}

#[test]
fn a_watch_of_a_server_that_is_over_or_cannot_start_ends() {
    let expect_end = |presence: &Presence| {
        assert_eq!(presence.recv_timeout(DEADLINE), Err(RecvTimeoutError::Disconnected));
    };
    let server = serve(vec![route!("/" => Echo)]);
    let comms = server.comms();
    server.shutdown().unwrap();
    for presence in [comms.notify().presence(), comms.presence_in("rooms")] {
        expect_end(&presence.unwrap());
    }
    let server = Server::new(vec![]).bind("no port");
    let presence = server.comms().topic("news").presence().unwrap();
    assert_eq!(presence.try_recv(), Err(TryRecvError::Empty), "it may start yet");
    server.spawn().unwrap_err();
    expect_end(&presence);
    // It came to no server.
    expect_end(&Request::get("/").build().comms().notify().presence().unwrap());
}

#[test]
fn one_user_can_be_watched_and_another_be_left_out() {
    let server = serve(vec![route!("/" => Echo)]);
    let (anna, ben) = (Guest::new(), Guest::new());
    let of_anna = Comms::websocket(anna).presence().unwrap();
    let but_anna = server.comms().broadcast(anna).presence().unwrap();
    let (mut first, _other) = (tab(&server, anna), tab(&server, ben));
    let tab_id = Comms::websocket(anna).members().clients()[0].connection_id();
    let of_tab = Comms::connection(tab_id).presence().unwrap();
    for presence in [&of_anna, &of_tab] {
        assert_eq!(next(presence), (anna.session(), true));
    }
    let _second = tab(&server, anna);
    first.send_close(1000, "");
    assert_eq!(next(&of_tab), (anna.session(), false));
    assert_eq!(next(&but_anna), (ben.session(), true));
    assert_eq!(of_anna.try_recv(), Err(TryRecvError::Empty), "a tab is left");
    assert_eq!(but_anna.try_recv(), Err(TryRecvError::Empty));
}

#[test]
fn a_function_watches_its_own_room_beside_its_client() {
    let room = topic("room");
    let of_room = room.clone();
    let chat = move |mut socket: Socket| {
        Comms::here()?.subscribe(&of_room)?;
        let presence = Comms::topic(&of_room).presence()?;
        loop {
            for change in presence.try_iter() {
                socket.send(format!("{} {}", change.session_id(), change.has_joined()))?;
            }
            match socket.recv_timeout(Duration::from_millis(1)) {
                Ok(_) | Err(rwf::prelude::RecvTimeoutError::Timeout) => {}
                Err(rwf::prelude::RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    };
    let server = serve(vec![route!("/" => websocket(chat))]);
    let (anna, ben) = (Guest::new(), Guest::new());
    let mut of_anna = tab(&server, anna);
    assert_eq!(of_anna.text_frame(), format!("{} true", anna.session()));
    let mut of_ben = tab(&server, ben);
    let there: HashSet<_> = [of_ben.text_frame(), of_ben.text_frame()].into();
    assert_eq!(there, [&anna, &ben].map(|guest| format!("{} true", guest.session())).into());
    assert_eq!(of_anna.text_frame(), format!("{} true", ben.session()));
    drop(of_ben);
    assert_eq!(of_anna.text_frame(), format!("{} false", ben.session()));
}

#[test]
fn a_watcher_that_takes_nothing_is_told_no_more_than_it_needs() {
    const ROUNDS: usize = 1_000;
    let server = serve(vec![route!("/" => Echo)]);
    let guests: Vec<_> = (0..4).map(|_| Guest::new()).collect();
    let _tabs: Vec<_> = guests.iter().map(|guest| tab(&server, *guest)).collect();
    let room = topic("room");
    let presence = Comms::topic(&room).presence().unwrap();
    for _ in 0..ROUNDS {
        for guest in &guests {
            assert_eq!(Comms::websocket(guest).subscribe(&room), Ok(1));
            assert_eq!(Comms::websocket(guest).unsubscribe(&room), 1);
        }
    }
    // Changes come in order: this one is the last.
    assert_eq!(Comms::websocket(guests[0]).subscribe(&room), Ok(1));
    let marker = Guest::new();
    let _marker = tab(&server, marker);
    Comms::websocket(marker).subscribe(&room).unwrap();
    let mut watcher = Watcher::new(presence);
    let [last, marker] = [guests[0], marker].map(|guest| (Some(room.clone()), guest.session()));
    let mut told = 0;
    while !watcher.there.contains(&marker) {
        assert!(watcher.take_one(DEADLINE), "the last has joined, and this was not told");
        told += 1;
    }
    assert_eq!(watcher.there, [last, marker].into(), "who is there at the end");
    assert!(told <= AHEAD + guests.len() + 1, "{told} changes were kept of {ROUNDS} rounds");
}

/// A watch, and who is there by what it told.
struct Watcher {
    presence: Presence,
    there: HashSet<(Option<String>, SessionId)>,
}

impl Watcher {
    fn new(presence: Presence) -> Self {
        Self { presence, there: HashSet::new() }
    }

    /// Takes a change, which must be one; whether there was any.
    #[track_caller]
    fn take_one(&mut self, timeout: Duration) -> bool {
        let Ok(change) = self.presence.recv_timeout(timeout) else { return false };
        let member = (change.topic().map(str::to_owned), change.session_id().clone());
        let is_news = if change.has_joined() {
            self.there.insert(member)
        } else {
            self.there.remove(&member)
        };
        assert!(is_news, "joins and leaves do not take turns: {change:?}");
        true
    }

    /// Takes all that is told, until it is what is expected, which may change.
    #[track_caller]
    fn take_until(&mut self, expected: impl Fn() -> HashSet<(Option<String>, SessionId)>) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            while self.take_one(Duration::from_millis(20)) {}
            let (scope, there, expected) = (&self.presence, &self.there, expected());
            if *there == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{scope:?} tells of {there:?}, not of {expected:?}");
        }
    }
}

#[test]
fn watchers_know_who_is_there_whatever_races() {
    const WORKERS: u64 = 4;
    const TABS: usize = 3;
    const TIME: Duration = Duration::from_secs(2);
    let server = serve_clients_that_do_not_answer();
    let comms = server.comms();
    let guests: Vec<_> = (0..3).map(|_| Guest::new()).collect();
    let prefix = topic("rooms");
    let topics: Vec<_> = (0..3).map(|number| format!("{prefix}/{number}")).collect();
    let watches: [&(dyn Fn() -> Presence + Sync); 6] = [
        &|| Comms::topic(&topics[0]).presence().unwrap(),
        &|| comms.topic(&topics[1]).except(guests[1]).presence().unwrap(),
        &|| Comms::presence_in(&prefix).unwrap(),
        &|| comms.presence_in(format!("{prefix}/2")).unwrap(),
        &|| comms.notify().presence().unwrap(),
        &|| Comms::websocket(guests[0]).presence().unwrap(),
    ];
    // What they ought to know, by the members.
    let of_topic = |topic: &str| {
        let sessions = Comms::topic(topic).members().sessions();
        sessions
            .into_iter()
            .map(|session| (Some(topic.to_owned()), session))
            .collect::<HashSet<_>>()
    };
    let connected = |comms: Comms| {
        comms.members().sessions().into_iter().map(|session| (None, session)).collect()
    };
    let expected = || -> Vec<HashSet<(Option<String>, SessionId)>> {
        let mut but_one = of_topic(&topics[1]);
        but_one.retain(|(_, session)| *session != guests[1].session());
        vec![
            of_topic(&topics[0]),
            but_one,
            topics.iter().flat_map(|topic| of_topic(topic)).collect(),
            of_topic(&topics[2]),
            connected(comms.notify()),
            connected(Comms::websocket(guests[0])),
        ]
    };
    let work = |seed: u64| {
        let mut random = Random::new(seed);
        let (mut tabs, mut steps) = (Vec::new(), 0);
        let end = Instant::now() + TIME;
        while Instant::now() < end {
            steps += 1;
            let guest = guests[random.below(guests.len())];
            let topic = &topics[random.below(topics.len())];
            let clients = Comms::websocket(guest).members().clients();
            let comms = match clients.get(random.below(clients.len() + 1)) {
                Some(client) => Comms::connection(client.connection_id()),
                None => Comms::websocket(guest),
            };
            match random.below(20) {
                // One that is closed before it was answered may be cut without an answer.
                0 if tabs.len() < TABS => {
                    let mut raw = Raw::connect(server.local_addr());
                    raw.send(upgrade_request("/", &guest.cookie()).as_bytes());
                    tabs.extend(matches!(raw.try_head(), Ok(Some(_))).then_some(raw));
                }
                1 if !tabs.is_empty() => drop(tabs.swap_remove(random.below(tabs.len()))),
                2 => drop(comms.close(1000, "")),
                3..=10 => drop(comms.subscribe(topic)),
                _ => drop(comms.unsubscribe(topic)),
            }
        }
        (tabs, steps)
    };
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|seed| scope.spawn(move || work(seed))).collect();
        let watching: Vec<_> = watches
            .iter()
            .enumerate()
            .map(|(number, begin)| {
                let is_over = &is_over;
                scope.spawn(move || {
                    let mut random = Random::new(number as u64 + 100);
                    let (mut watcher, mut taken, mut begun) = (Watcher::new(begin()), 0, 1);
                    while !is_over.load(Ordering::SeqCst) {
                        match random.below(2000) {
                            0 => (watcher, begun) = (Watcher::new(begin()), begun + 1),
                            1..=5 => thread::sleep(Duration::from_millis(20)),
                            _ => taken += usize::from(watcher.take_one(Duration::from_millis(1))),
                        }
                    }
                    (watcher, taken, begun)
                })
            })
            .collect();
        let kept: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        is_over.store(true, Ordering::SeqCst);
        let watchers: Vec<_> = watching.into_iter().map(|watch| watch.join().unwrap()).collect();
        let kept: Vec<_> = kept.into_iter().map(Result::unwrap).collect();
        for (number, (mut watcher, taken, begun)) in watchers.into_iter().enumerate() {
            // Some are on their way out still.
            watcher.take_until(|| expected().swap_remove(number));
            println!("{taken} changes, {begun} watches, {} there", watcher.there.len());
        }
        println!("{} steps", kept.iter().map(|(_, steps)| steps).sum::<usize>());
    });
}
