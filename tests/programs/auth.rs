//! The example `auth`: tokens, a 401 before the WebSocket opens, and who is put out stays out.

use std::sync::{Arc, Barrier};
use std::thread;

use data_encoding::BASE64;
use rwf::prelude::*;
use rwf::testing::{self, TestServer, Visitor};

#[allow(dead_code, reason = "its `main` is not called")]
#[path = "../../examples/auth.rs"]
mod example;

use example::{Passwords, Tokens, routes};

fn serve() -> (TestServer, Arc<Tokens>) {
    let tokens = Arc::new(Tokens::default());
    (testing::serve(routes(Passwords::default(), &tokens)), tokens)
}

fn with_token(server: &TestServer, token: &str) -> Visitor {
    server.visitor().header("Authorization", format!("Bearer {token}"))
}

#[test]
fn without_a_token_there_is_a_401_and_no_websocket() {
    let (server, tokens) = serve();
    tokens.issue("anna");
    for visitor in [server.visitor(), with_token(&server, "guessed"), with_token(&server, "")] {
        let refusal = visitor.try_connect("/chat").unwrap_err();
        assert_eq!(refusal.status(), 401);
        assert_eq!(refusal.header("WWW-Authenticate"), Some(r#"Bearer realm="chat""#));
    }
    assert_eq!(server.try_connect("/chat?token=guessed").unwrap_err().status(), 401);
}

#[test]
fn a_refusal_is_tested_without_a_server() {
    let tokens = Arc::new(Tokens::default());
    for route in ["/chat", "/kick/anna"] {
        let request = Request::post(route).param("user", "anna").build();
        let refused = if route == "/chat" {
            example::chat(&tokens, &request)
        } else {
            example::kick(&tokens, &request)
        };
        assert_eq!(refused.unwrap().status_code(), 401, "{route}");
    }
}

#[test]
fn a_token_comes_by_header_or_query_and_names_the_user() {
    let (server, tokens) = serve();
    let (anna, ben) = (tokens.issue("anna"), tokens.issue("ben"));
    let mut phone = with_token(&server, &anna).connect("/chat");
    let mut laptop = server.connect(&format!("/chat?token={ben}"));
    phone.send("hello");
    laptop.send("hi");
    let mut heard = [laptop.recv_text(), laptop.recv_text()];
    heard.sort();
    assert_eq!(heard, ["anna: hello", "ben: hi"]);
    // Whoever sends to Anna by name reaches her, whatever browser she came with.
    assert_eq!(server.comms().websocket("anna").send("for anna"), Ok(1));
}

#[test]
fn the_admin_puts_out_all_tabs_of_a_user_and_nobody_else() {
    let (server, tokens) = serve();
    let (anna, other, ben) = (tokens.issue("anna"), tokens.issue("anna"), tokens.issue("ben"));
    let admin = with_token(&server, &tokens.issue("admin"));
    let mut tabs =
        [with_token(&server, &anna).connect("/chat"), with_token(&server, &other).connect("/chat")];
    let mut bystander = with_token(&server, &ben).connect("/chat");

    for (visitor, status) in [(server.visitor(), 401), (with_token(&server, &ben), 403)] {
        assert_eq!(visitor.post("/kick/anna", "").status(), status);
    }
    assert_eq!(admin.get("/kick/anna").status(), 405);
    assert_eq!(admin.post("/kick/anna", "").text(), "anna: closed 2\n");
    for tab in &mut tabs {
        assert_eq!(tab.expect_close(4003), "put out");
    }
    assert_eq!(with_token(&server, &anna).try_connect("/chat").unwrap_err().status(), 401);
    bystander.expect_nothing();
    bystander.send("still here");
    assert_eq!(bystander.recv_text(), "ben: still here");
    assert_eq!(admin.post("/kick/anna", "").text(), "anna: closed 0\n");
}

#[test]
fn a_password_gives_a_token_and_nothing_else_does() {
    let mut passwords = Passwords::default();
    let (anna, _) = (passwords.set("anna"), passwords.set("ben"));
    let server = testing::serve(routes(passwords, &Arc::default()));
    let log_in = |user: &str, password: &str| {
        let credentials = BASE64.encode(format!("{user}:{password}").as_bytes());
        let visitor = server.visitor().header("Authorization", format!("Basic {credentials}"));
        visitor.post("/login", "")
    };
    for (user, password) in
        [("anna", "guessed"), ("anna", ""), ("ben", &anna), ("", ""), ("eve", "")]
    {
        let refusal = log_in(user, password);
        assert_eq!(refusal.status(), 401, "{user}");
        let challenge = refusal.header("WWW-Authenticate");
        assert_eq!(challenge, Some(r#"Basic realm="chat", charset="UTF-8""#));
    }
    assert_eq!(server.visitor().post("/login", "").status(), 401);
    assert_eq!(server.get("/login").status(), 405);

    let token = log_in("anna", &anna).text().to_owned();
    let mut tab = server.connect(&format!("/chat?token={token}"));
    tab.send("hello");
    assert_eq!(tab.recv_text(), "anna: hello");
}

/// A tab that opens while its user is put out is refused or closed, whatever comes first.
#[test]
fn nobody_slips_in_while_being_put_out() {
    let (server, tokens) = serve();
    let admin = with_token(&server, &tokens.issue("admin"));
    for round in 0..50 {
        let user = format!("user-{round}");
        let visitor = with_token(&server, &tokens.issue(&user));
        let start = Barrier::new(2);
        let tab = thread::scope(|scope| {
            let opening = scope.spawn(|| {
                start.wait();
                visitor.try_connect("/chat")
            });
            start.wait();
            admin.post(&format!("/kick/{user}"), "");
            opening.join().unwrap()
        });
        match tab {
            Ok(mut tab) => assert_eq!(tab.expect_close(4003), "put out", "round {round}"),
            Err(refusal) => assert_eq!(refusal.status(), 401, "round {round}"),
        }
    }
}
