//! A chat: rooms, names, who comes and goes, and what was said last.

use std::collections::{HashMap, VecDeque};
use std::sync::{Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rwf::controller::Websocket;
use rwf::http::{Route, Server};
use rwf::prelude::*;
use rwf::testing::{self, TestClient, TestServer, Visitor};

/// So many lines of a room are kept for those who come later.
const HISTORY: usize = 50;
/// So many bytes a line has at most, and a name.
const LONGEST_LINE: usize = 500;
const LONGEST_NAME: usize = 20;
const NAME_TAKEN: u16 = 4009;

/// The rooms that there are.
struct Chat {
    rooms: HashMap<&'static str, Mutex<Room>>,
}

#[derive(Default)]
struct Room {
    /// Those who are in it, with their names. Several may be one user's.
    tabs: HashMap<Client, String>,
    history: VecDeque<String>,
}

impl Room {
    /// Tells all tabs. It is called under the room's lock, so that everybody gets everything in the same order, and
    /// never waits, so that nobody waits for the lock: a tab that has not read all that it was told before is closed.
    fn tell(&self, line: &str) {
        for tab in self.tabs.keys() {
            if tab.try_send(line).is_err() {
                let _ = tab.close(CloseCode::TRY_AGAIN_LATER, "too slow");
            }
        }
    }

    fn say(&mut self, line: String) {
        self.tell(&line);
        self.history.push_back(line);
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
    }

    fn has(&self, name: &str) -> bool {
        self.tabs.values().any(|other| other == name)
    }

    fn names(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.tabs.values().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// A tab's place in a room, until its function ends, in whatever way.
struct Place<'a> {
    room: &'a Mutex<Room>,
    client: Client,
    name: String,
}

fn lock(room: &Mutex<Room>) -> MutexGuard<'_, Room> {
    room.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Place<'a> {
    fn take(room: &'a Mutex<Room>, name: &str, client: Client) -> Result<Self, Error> {
        let mut inside = lock(room);
        let is_there = inside.has(name);
        let is_hers = |(tab, other): (&Client, &String)| {
            other != name || tab.session_id() == client.session_id()
        };
        if !inside.tabs.iter().all(is_hers) {
            let error = Error::new(format!("there is another {name}"));
            return Err(error.with_close(NAME_TAKEN, "this name is taken"));
        }
        // Under the lock nothing can be said between what was and what will be.
        for line in &inside.history {
            client.try_send(line.as_str())?;
        }
        inside.tabs.insert(client.clone(), name.to_owned());
        if !is_there {
            inside.tell(&format!("* {name} has come"));
        }
        drop(inside);
        Ok(Self { room, client, name: name.to_owned() })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut inside = lock(self.room);
        inside.tabs.remove(&self.client);
        if !inside.has(&self.name) {
            inside.tell(&format!("* {} has left", self.name));
        }
    }
}

/// What a tab may say: a line, or a command.
fn checked(message: &Message) -> Result<&str, &'static str> {
    match message.as_text().map(str::trim) {
        None => Err("! text only"),
        Some("") => Err("! say something"),
        Some(text) if text.len() > LONGEST_LINE => Err("! that is too long"),
        Some(text) if text.contains('\n') => Err("! one line at a time"),
        Some(text) => Ok(text),
    }
}

impl Chat {
    fn new(names: &[&'static str]) -> Self {
        Self { rooms: names.iter().map(|name| (*name, Mutex::default())).collect() }
    }

    /// `/rooms/:room?name=Anna`
    fn enter(&self, request: &Request) -> Result<Response, Error> {
        let Some(room) = self.rooms.get(request.param("room")?) else {
            return Ok(Response::not_found().text("there is no such room"));
        };
        let name = request.query("name").unwrap_or_default();
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(char::is_alphanumeric)
        {
            return Ok(Response::bad_request().text("say who you are: ?name=Anna"));
        }
        request.upgrade(|socket| Self::serve(room, name, socket))
    }

    fn serve(room: &Mutex<Room>, name: &str, mut socket: Socket) -> Result<(), Error> {
        let _place = Place::take(room, name, socket.client())?;
        while let Some(message) = socket.recv()? {
            match checked(&message) {
                Ok("/who") => {
                    // Under the lock, so that nobody comes or leaves between the look and the answer.
                    let room = lock(room);
                    socket.try_send(format!("! here are {}", room.names().join(", ")))?;
                }
                Ok(command) if command.starts_with('/') => {
                    socket.send(format!("! there is no command {command}"))?;
                }
                Ok(text) => lock(room).say(format!("{name}: {text}")),
                Err(complaint) => socket.send(complaint)?,
            }
        }
        Ok(())
    }
}

fn routes(chat: Chat) -> Vec<Route> {
    vec![route!("/rooms/:room" => move |request: &Request| chat.enter(request))]
}

fn serve() -> TestServer {
    testing::serve(routes(Chat::new(&["blue", "red"])))
}

fn join(visitor: &Visitor, name: &str) -> TestClient {
    visitor.connect(&format!("/rooms/blue?name={name}"))
}

/// Joins as a user of its own, and has seen itself come.
#[track_caller]
fn newcomer(server: &TestServer, name: &str) -> TestClient {
    let mut client = join(&server.visitor(), name);
    assert_eq!(client.recv_text(), format!("* {name} has come"));
    client
}

#[test]
fn what_is_said_is_heard_in_that_room_alone() {
    let server = serve();
    let mut anna = newcomer(&server, "Anna");
    let mut ben = newcomer(&server, "Ben");
    let mut red = server.connect("/rooms/red?name=Carla");
    assert_eq!(red.recv_text(), "* Carla has come");
    assert_eq!(anna.recv_text(), "* Ben has come");
    anna.send("hello");
    assert_eq!((anna.recv_text(), ben.recv_text()), ("Anna: hello".into(), "Anna: hello".into()));
    red.expect_nothing();
}

#[test]
fn there_is_no_way_in_without_a_room_and_a_name() {
    let server = serve();
    for (path, status) in [
        ("/rooms/green?name=Anna", 404),
        ("/rooms/blue", 400),
        ("/rooms/blue?name=", 400),
        ("/rooms/blue?name=a%0Ab", 400),
        ("/rooms/blue?name=aaaaaaaaaaaaaaaaaaaaa", 400),
    ] {
        assert_eq!(server.try_connect(path).unwrap_err().status(), status, "{path}");
    }
}

#[test]
fn a_name_belongs_to_who_came_first_until_the_last_of_its_tabs_has_gone() {
    let server = serve();
    let anna = server.visitor();
    let (phone, laptop) = (join(&anna, "Anna"), join(&anna, "Anna"));
    let mut ben = newcomer(&server, "Ben");
    let mut other = server.connect("/rooms/blue?name=Anna");
    assert_eq!(other.expect_close(NAME_TAKEN), "this name is taken");
    phone.close(1000, "");
    let mut other = server.connect("/rooms/blue?name=Anna");
    other.expect_close(NAME_TAKEN);
    ben.expect_nothing();
    laptop.close(1000, "");
    assert_eq!(ben.recv_text(), "* Anna has left");
    let _ = newcomer(&server, "Anna");
}

#[test]
fn who_has_two_tabs_comes_once_and_leaves_once() {
    let server = serve();
    let mut ben = newcomer(&server, "Ben");
    let anna = server.visitor();
    let mut phone = join(&anna, "Anna");
    let laptop = join(&anna, "Anna");
    assert_eq!(ben.recv_text(), "* Anna has come");
    assert_eq!(phone.recv_text(), "* Anna has come");
    phone.send("/who");
    assert_eq!(phone.recv_text(), "! here are Anna, Ben");
    laptop.close(1000, "");
    ben.expect_nothing();
    phone.close(1000, "");
    assert_eq!(ben.recv_text(), "* Anna has left");
}

/// Whatever the order in which the tabs of a user open and close: others see the user come and leave in turn.
#[test]
fn tabs_that_come_and_go_at_the_same_time_are_counted_right() {
    let server = serve();
    let mut ben = newcomer(&server, "Ben");
    let anna = server.visitor();
    let start = Barrier::new(2);
    thread::scope(|scope| {
        for number in 0..2 {
            let (anna, start) = (&anna, &start);
            scope.spawn(move || {
                for round in 0..50 {
                    start.wait();
                    let tab = join(anna, "Anna");
                    match (number + round) % 3 {
                        0 => tab.close(1000, ""),
                        1 => tab.reset(),
                        _ => drop(tab),
                    }
                }
            });
        }
    });
    // The last tabs may be on their way out.
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.comms().websocket(anna.session_id()).is_connected() {
        assert!(Instant::now() < deadline, "a tab of Anna's has not gone");
        thread::sleep(Duration::from_millis(1));
    }
    let mut is_here = false;
    let mut told = 0;
    loop {
        ben.send("/who");
        loop {
            match ben.recv_text().as_str() {
                "* Anna has come" => assert!(!std::mem::replace(&mut is_here, true), "came twice"),
                "* Anna has left" => assert!(std::mem::replace(&mut is_here, false), "left twice"),
                who => break assert_eq!(who == "! here are Anna, Ben", is_here, "{who}"),
            }
            told += 1;
        }
        if !is_here {
            break;
        }
        assert!(Instant::now() < deadline, "Anna is still here");
    }
    assert!(told >= 2, "Anna was not seen at all");
}

#[test]
fn who_vanishes_without_a_word_has_left() {
    let settings =
        Websocket::new().ping_interval(Duration::from_secs(1)).ping_timeout(Duration::from_secs(1));
    let routes = routes(Chat::new(&["blue"]));
    let server = testing::start(Server::new(routes).websocket(settings));
    let anna = newcomer(&server, "Anna");
    let ben = newcomer(&server, "Ben");
    let carla = newcomer(&server, "Carla");
    let gone = anna.never_read();
    carla.reset();
    drop(ben);
    // Asked often enough to be seen alive.
    let mut dora = join(&server.visitor(), "Dora");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        dora.send("/who");
        if dora.find(|line| line.as_text().is_some_and(|line| line.starts_with('!')))
            == Some("! here are Dora".into())
        {
            break;
        }
        assert!(Instant::now() < deadline, "those who vanished are still here");
        thread::sleep(Duration::from_millis(10));
    }
    drop(gone);
}

#[test]
fn who_comes_late_gets_the_last_fifty_lines() {
    let server = serve();
    let mut anna = newcomer(&server, "Anna");
    for number in 0..60 {
        anna.send(number.to_string());
    }
    anna.ping();
    let mut ben = join(&server.visitor(), "Ben");
    for number in 10..60 {
        assert_eq!(ben.recv_text(), format!("Anna: {number}"));
    }
    assert_eq!(ben.recv_text(), "* Ben has come");
    ben.expect_nothing();
}

/// All see the same order; and who comes in the middle misses nothing of it and gets nothing twice.
#[test]
fn the_order_of_the_history_is_that_in_which_all_get_it() {
    const SPEAKERS: usize = 3;
    const LINES: usize = 100;
    let server = serve();
    let mut witness = newcomer(&server, "Witness");
    let start = Barrier::new(SPEAKERS + 1);
    let is_said = |line: &str| line.starts_with("Speaker");
    let mut late = thread::scope(|scope| {
        let (server, start) = (&server, &start);
        for speaker in 0..SPEAKERS {
            scope.spawn(move || {
                let mut client = newcomer(server, &format!("Speaker{speaker}"));
                start.wait();
                for number in 0..LINES {
                    client.send(number.to_string());
                }
                client.ping();
            });
        }
        start.wait();
        (0..10).map(|n| join(&server.visitor(), &format!("Late{n}"))).collect::<Vec<_>>()
    });
    let mut said = Vec::new();
    while said.len() < SPEAKERS * LINES {
        said.extend(Some(witness.recv_text()).filter(|line| is_said(line)));
    }
    for client in &mut late {
        client.send("/who");
        let heard = client.by_ref().map(|message| message.as_text().unwrap().to_owned());
        let heard = heard.take_while(|line| !line.starts_with('!')).filter(|line| is_said(line));
        let heard: Vec<_> = heard.collect();
        assert!(heard.len() >= HISTORY, "only {} lines", heard.len());
        assert_eq!(heard, said[said.len() - heard.len()..]);
    }
}

#[test]
fn bad_input_is_answered_to_the_one_tab_alone() {
    let server = serve();
    let anna = server.visitor();
    let mut phone = join(&anna, "Anna");
    assert_eq!(phone.recv_text(), "* Anna has come");
    let mut laptop = join(&anna, "Anna");
    let mut ben = newcomer(&server, "Ben");
    for tab in [&mut phone, &mut laptop] {
        assert_eq!(tab.recv_text(), "* Ben has come");
    }
    for (input, answer) in [
        (Message::from(vec![1, 2, 3]), "! text only"),
        ("  ".into(), "! say something"),
        ("x".repeat(501).into(), "! that is too long"),
        ("a\nb".into(), "! one line at a time"),
        ("/dance".into(), "! there is no command /dance"),
    ] {
        phone.send(input);
        assert_eq!(phone.recv_text(), answer);
    }
    laptop.expect_nothing();
    ben.expect_nothing();
}

/// One who does not read is put out; nobody waits for that.
#[test]
fn a_tab_that_does_not_read_delays_nobody() {
    let settings =
        Websocket::new().outbox_bytes(64 << 10).close_timeout(Duration::from_millis(200));
    let routes = routes(Chat::new(&["blue", "red"]));
    let server = testing::start(Server::new(routes).websocket(settings));
    let deaf = newcomer(&server, "Deaf").never_read();
    let mut anna = newcomer(&server, "Anna");
    let mut red = server.connect("/rooms/red?name=Red");
    assert_eq!(red.recv_text(), "* Red has come");
    let line = "x".repeat(LONGEST_LINE);
    let began = Instant::now();
    let mut longest = Duration::ZERO;
    loop {
        let sent = Instant::now();
        anna.send(line.as_str());
        if anna.recv_text() == "* Deaf has left" {
            break;
        }
        red.send("hello");
        assert_eq!(red.recv_text(), "Red: hello");
        longest = longest.max(sent.elapsed());
        assert!(began.elapsed() < Duration::from_secs(30), "who does not read is still here");
    }
    assert!(longest < Duration::from_secs(1), "a line took {longest:?}");
    drop(deaf);
}
