//! Questions to a tab, with an answer or a timeout: asked by the function that serves it, and from anywhere else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rwf::channel::{RecvTimeoutError as NotAnswered, Sender, bounded};
use rwf::http::Route;
use rwf::prelude::*;
use rwf::testing::{self, TestServer};

/// The tabs that are open, by their names. Each is sent `7 Are you there?`, and answers `7 yes`.
#[derive(Default)]
struct Tabs(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    open: HashMap<String, Tab>,
    last_question: u64,
}

struct Tab {
    client: Client,
    /// Who waits for an answer. They notice when the tab goes, because this goes with it.
    waiting: HashMap<u64, Sender<String>>,
}

/// Why there is no answer.
#[derive(Debug, PartialEq)]
enum NoAnswer {
    NoTab,
    Timeout,
    /// The tab has gone meanwhile.
    Gone,
}

impl Tabs {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the tab of that name, on whatever thread.
    fn ask(&self, name: &str, question: &str, timeout: Duration) -> Result<String, NoAnswer> {
        let (sender, answer) = bounded(1);
        let mut inner = self.lock();
        inner.last_question += 1;
        let number = inner.last_question;
        let tab = inner.open.get_mut(name).ok_or(NoAnswer::NoTab)?;
        tab.client.try_send(format!("{number} {question}")).map_err(|_| NoAnswer::Gone)?;
        tab.waiting.insert(number, sender);
        drop(inner);
        answer.recv_timeout(timeout).map_err(|error| match error {
            NotAnswered::Disconnected => NoAnswer::Gone,
            NotAnswered::Timeout => {
                if let Some(tab) = self.lock().open.get_mut(name) {
                    tab.waiting.remove(&number);
                }
                NoAnswer::Timeout
            }
        })
    }

    /// Hands on what a tab says; whether somebody waits for it.
    fn answer(&self, name: &str, client: &Client, number: u64, answer: &str) -> bool {
        let mut inner = self.lock();
        let tab = inner.open.get_mut(name).filter(|tab| tab.client == *client);
        let asker = tab.and_then(|tab| tab.waiting.remove(&number));
        asker.is_some_and(|asker| asker.send(answer.to_owned()).is_ok())
    }

    /// A tab takes the place of another one of its name.
    fn enter(&self, name: &str, client: Client) -> Place<'_> {
        let place = Place { tabs: self, name: name.to_owned(), client: client.clone() };
        let tab = Tab { client, waiting: HashMap::new() };
        let former = self.lock().open.insert(name.to_owned(), tab);
        if let Some(former) = former {
            let _ = former.client.close(4000, "opened elsewhere");
        }
        place
    }

    /// Takes the answers of a tab, for as long as it is open.
    fn serve(&self, mut socket: Socket) -> Result<(), Error> {
        let name = socket.request().param("name")?.to_owned();
        let place = self.enter(&name, socket.client());
        while let Some(message) = socket.recv()? {
            let parts = message.as_text().and_then(|text| text.split_once(' '));
            match parts.and_then(|(number, answer)| Some((number.parse().ok()?, answer))) {
                Some((number, answer)) if self.answer(&name, &place.client, number, answer) => {}
                Some((number, _)) => socket.send(format!("! nobody waits for {number}"))?,
                None => socket.send("! begin with the number of the question")?,
            }
        }
        Ok(())
    }
}

/// A tab among those that are open, until its function ends, in whatever way.
struct Place<'a> {
    tabs: &'a Tabs,
    name: String,
    client: Client,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut inner = self.tabs.lock();
        if inner.open.get(&self.name).is_some_and(|tab| tab.client == self.client) {
            inner.open.remove(&self.name);
        }
    }
}

/// `POST /ask/:name` asks what is in its body.
fn ask(tabs: &Tabs, timeout: Duration, request: &Request) -> Result<Response, Error> {
    let answer = tabs.ask(request.param("name")?, request.text()?, timeout);
    Ok(match answer {
        Ok(answer) => Response::new().text(answer),
        Err(NoAnswer::NoTab) => Response::not_found(),
        Err(NoAnswer::Timeout) => Response::new().status(504).text("no answer in time"),
        Err(NoAnswer::Gone) => Response::new().status(502).text("the tab has gone"),
    })
}

/// Asks back before it does what cannot be undone: on the tab's own thread that is a receive with a timeout.
fn files(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.recv()? {
        socket.send(format!("{}: are you sure?", message.as_text().unwrap_or_default()))?;
        match socket.recv_timeout(Duration::from_millis(300)) {
            Ok(answer) if answer.as_text() == Some("yes") => socket.send("done")?,
            Ok(_) => socket.send("left alone")?,
            Err(RecvTimeoutError::Timeout) => socket.send("left alone, for want of an answer")?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
    Ok(())
}

fn routes(tabs: &Arc<Tabs>, timeout: Duration) -> Vec<Route> {
    let (serving, asking) = (Arc::clone(tabs), Arc::clone(tabs));
    vec![
        route!("/tabs/:name" => websocket(move |socket| serving.serve(socket))),
        route!("/ask/:name" => move |request: &Request| ask(&asking, timeout, request)),
        route!("/files" => websocket(files)),
    ]
}

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(60);

fn serve(timeout: Duration) -> (TestServer, Arc<Tabs>) {
    let tabs = Arc::new(Tabs::default());
    (testing::serve(routes(&tabs, timeout)), tabs)
}

/// What a question is, without its number.
fn split(question: &str) -> (&str, &str) {
    question.split_once(' ').unwrap()
}

#[test]
fn a_question_over_http_gets_the_answer_of_the_tab_that_was_asked() {
    let (server, _) = serve(LONG);
    let (mut kitchen, mut bar) = (server.connect("/tabs/kitchen"), server.connect("/tabs/bar"));
    thread::scope(|scope| {
        let asked = scope.spawn(|| server.post("/ask/kitchen", "Is there fish?"));
        let question = kitchen.recv_text();
        let (number, text) = split(&question);
        assert_eq!(text, "Is there fish?");
        // What another tab says to it does not count.
        bar.send(format!("{number} no"));
        assert_eq!(bar.recv_text(), format!("! nobody waits for {number}"));
        kitchen.send(format!("{number} yes, two"));
        assert_eq!(asked.join().unwrap().text(), "yes, two");
    });
    assert_eq!(server.post("/ask/cellar", "Is there wine?").status(), 404);
}

#[test]
fn a_question_that_nobody_answers_times_out_and_a_late_answer_is_told_so() {
    let (server, _) = serve(Duration::from_millis(100));
    let mut tab = server.connect("/tabs/kitchen");
    let asked = server.post("/ask/kitchen", "Is there fish?");
    assert_eq!((asked.status(), asked.text()), (504.into(), "no answer in time"));
    let question = tab.recv_text();
    let (number, _) = split(&question);
    tab.send(format!("{number} yes"));
    assert_eq!(tab.recv_text(), format!("! nobody waits for {number}"));
    tab.send("yes");
    assert_eq!(tab.recv_text(), "! begin with the number of the question");
}

#[test]
fn questions_asked_at_once_get_each_its_own_answer() {
    let (server, tabs) = serve(LONG);
    let mut tab = server.connect("/tabs/kitchen");
    thread::scope(|scope| {
        let tabs = &tabs;
        let asked: Vec<_> = (0..20)
            .map(|n| scope.spawn(move || (n, tabs.ask("kitchen", &n.to_string(), LONG))))
            .collect();
        let mut questions: Vec<_> = (0..20).map(|_| tab.recv_text()).collect();
        questions.sort_by_key(|question| split(question).1.parse::<u32>().unwrap());
        for question in &questions {
            let (number, text) = split(question);
            tab.send(format!("{number} answer to {text}"));
        }
        for asked in asked {
            let (n, answer) = asked.join().unwrap();
            assert_eq!(answer, Ok(format!("answer to {n}")));
        }
    });
}

/// Whoever asks a tab that goes is told at once, however it goes.
#[test]
fn a_tab_that_goes_ends_the_wait_for_its_answer() {
    let (server, tabs) = serve(LONG);
    for how in 0..4 {
        let mut tab = server.connect("/tabs/kitchen");
        let began = Instant::now();
        thread::scope(|scope| {
            let asked = scope.spawn(|| tabs.ask("kitchen", "Is there fish?", LONG));
            tab.recv_text();
            match how {
                0 => tab.close(1000, ""),
                1 => drop(tab),
                2 => tab.reset(),
                // The page was loaded again, and the old tab has not been seen to go.
                _ => {
                    let _ = server.connect("/tabs/kitchen");
                    assert_eq!(tab.expect_close(4000), "opened elsewhere");
                }
            }
            assert_eq!(asked.join().unwrap(), Err(NoAnswer::Gone), "way {how}");
        });
        assert!(began.elapsed() < LONG / 4, "way {how} took {:?}", began.elapsed());
    }
}

/// A tab that is loaded again and again can always be asked, whichever of the two functions ends first.
#[test]
fn the_newest_tab_of_a_name_is_the_one_that_is_asked() {
    let (server, tabs) = serve(LONG);
    let mut former = server.connect("/tabs/kitchen");
    for round in 0..30 {
        let mut tab = server.connect("/tabs/kitchen");
        if round % 2 == 0 {
            former.expect_close(4000);
        }
        drop(former);
        thread::scope(|scope| {
            let asked = scope.spawn(|| tabs.ask("kitchen", "Is there fish?", LONG));
            let question = tab.recv_text();
            tab.send(format!("{} yes", split(&question).0));
            assert_eq!(asked.join().unwrap(), Ok("yes".to_owned()), "round {round}");
        });
        former = tab;
    }
}

#[test]
fn a_function_asks_its_own_tab_back() {
    let (server, _) = serve(LONG);
    let mut tab = server.connect("/files");
    for (answer, outcome) in [("yes", "done"), ("no", "left alone")] {
        tab.send("delete all");
        assert_eq!(tab.recv_text(), "delete all: are you sure?");
        tab.send(answer);
        assert_eq!(tab.recv_text(), outcome);
    }
    tab.send("delete all");
    assert_eq!(tab.recv_text(), "delete all: are you sure?");
    assert_eq!(tab.recv_text(), "left alone, for want of an answer");
}
