//! The example `middleware`: a number for each answer, whatever it is, and nobody without the password.

use std::collections::HashSet;
use std::sync::Arc;

use data_encoding::BASE64;
use rwf::prelude::*;
use rwf::testing::{self, TestResponse, TestServer, Visitor};

#[allow(dead_code, reason = "its `main` is not called")]
#[path = "../../examples/middleware.rs"]
mod example;

use example::{WithRequestId, routes};

fn serve() -> TestServer {
    testing::serve(routes(&Arc::from("open sesame")))
}

fn with_password(server: &TestServer, user: &str, password: &str) -> Visitor {
    let credentials = BASE64.encode(format!("{user}:{password}").as_bytes());
    server.visitor().header("Authorization", format!("Basic {credentials}"))
}

/// The number of an answer, which has just one.
fn id(response: &TestResponse) -> String {
    let named = |(name, value): (&str, &str)| (name == "X-Request-Id").then(|| value.to_owned());
    let ids: Vec<_> = response.headers().filter_map(named).collect();
    assert_eq!(ids.len(), 1, "{response:?} has {ids:?}");
    ids.concat()
}

#[test]
fn every_answer_has_a_number_of_its_own() {
    let server = serve();
    let anna = with_password(&server, "anna", "open sesame");
    let tab = anna.connect("/chat");
    let answers = [
        (server.get("/hello"), 401),
        (anna.get("/hello"), 200),
        (anna.get("/hello"), 200),
        (anna.get("/broken"), 500),
        (server.try_connect("/chat").unwrap_err(), 401),
        (anna.get("/chat"), 426),
        (tab.response().clone(), 101),
    ];
    let mut ids = HashSet::new();
    for (answer, status) in &answers {
        assert_eq!(answer.status(), *status, "{answer:?}");
        assert!(ids.insert(id(answer)), "the number of {answer:?} was another's");
    }
    assert_eq!(server.get("/nothing").header("X-Request-Id"), None, "no controller was asked");
}

#[test]
fn only_who_knows_the_password_comes_in_and_is_whom_it_says() {
    let server = serve();
    for visitor in [
        server.visitor(),
        with_password(&server, "anna", "open"),
        with_password(&server, "anna", ""),
        server.visitor().header("Authorization", "Bearer open sesame"),
    ] {
        for refusal in [visitor.get("/hello"), visitor.try_connect("/chat").unwrap_err()] {
            assert_eq!(refusal.status(), 401);
            let challenge = refusal.header("WWW-Authenticate");
            assert_eq!(challenge, Some(r#"Basic realm="example", charset="UTF-8""#));
        }
    }
    let (anna, ben) = (
        with_password(&server, "anna", "open sesame"),
        with_password(&server, "ben", "open sesame"),
    );
    assert_eq!(anna.get("/hello").text(), "hello, @anna\n");
    let (mut anna, mut ben) = (anna.connect("/chat"), ben.connect("/chat"));
    anna.send("hi");
    assert_eq!(
        (anna.recv_text(), ben.recv_text()),
        ("@anna: hi".to_owned(), "@anna: hi".to_owned())
    );
}

#[derive(Default, macros::WebsocketController)]
struct Echo;

#[async_trait]
impl WebsocketController for Echo {
    async fn handle_message(&self, _: &SessionId, message: Message) -> Result<(), Error> {
        Comms::here()?.send(message)?;
        Ok(())
    }
}

/// The same before endpoints of every style.
#[test]
fn it_may_stand_before_any_endpoint() {
    let (channel, events) = rwf::events(4);
    let panics = |_: &Request| -> Result<Response, Error> { panic!("as a test wants it") };
    let boxed: Box<dyn Controller> = Box::new(Echo);
    let server = testing::serve(vec![
        route!("/controller" => WithRequestId(Echo)),
        route!("/shared" => WithRequestId(Arc::new(Echo))),
        route!("/boxed" => WithRequestId(boxed)),
        route!("/events" => WithRequestId(channel)),
        route!("/panics" => WithRequestId(panics)),
        route!("/files/*path" => WithRequestId(rwf::controller::StaticFiles::embedded(&[("a", b"")]))),
    ]);
    for path in ["/controller", "/shared", "/boxed"] {
        let mut tab = server.connect(path);
        id(tab.response());
        tab.send("hello");
        assert_eq!(tab.recv_text(), "hello", "{path}");
    }
    let tab = server.connect("/events");
    assert!(matches!(events.recv(), Ok(Event::Opened(_))));
    id(tab.response());
    for (path, status) in [("/panics", 500), ("/files/a", 200), ("/files/b", 404)] {
        let answer = server.get(path);
        assert_eq!(answer.status(), status, "{path}");
        id(&answer);
    }
}
