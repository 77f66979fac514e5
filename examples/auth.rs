//! Users with passwords and tokens: a login, a 401 before the WebSocket opens, and an endpoint that puts somebody out.
//! Run it with `cargo run --example auth`, which prints the passwords.
//! Get tokens for anna and admin: `curl -X POST -u anna:... http://localhost:8000/login`.
//! Try it by opening http://localhost:8000/ in two tabs (a 404 page will do), and in the console of each, with a token:
//! `ws = new WebSocket("ws://localhost:8000/chat?token=..."); ws.onmessage = event => console.log(event.data);
//! ws.onclose = event => console.log(event.code, event.reason)`, then `ws.send("hello")`. Then, with the admin's token:
//! `curl -X POST -H "Authorization: Bearer ..." http://localhost:8000/kick/anna`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rwf::Uuid;
use rwf::http::{self, Method, Route, Server, constant_time_eq};
use rwf::prelude::*;

const ADMIN: &str = "admin";
const KICKED: u16 = 4003;
const REALM: &str = "chat";

/// Who may log in. A program that keeps passwords keeps hashes of them instead, made for that: Argon2, say.
#[derive(Default)]
pub(crate) struct Passwords(HashMap<String, String>);

impl Passwords {
    /// A new password for a user.
    pub(crate) fn set(&mut self, user: &str) -> String {
        let password = Uuid::new_v4().to_string();
        self.0.insert(user.to_owned(), password.clone());
        password
    }

    fn accept(&self, user: &str, password: &str) -> bool {
        self.0.get(user).is_some_and(|known| constant_time_eq(known, password))
    }
}

/// Whose token is which.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<HashMap<String, String>>);

impl Tokens {
    fn all(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new token for a user, who may have several.
    pub(crate) fn issue(&self, user: &str) -> String {
        let token = Uuid::new_v4().to_string();
        self.all().insert(token.clone(), user.to_owned());
        token
    }

    fn revoke_all_of(&self, user: &str) {
        self.all().retain(|_, owner| owner != user);
    }

    /// Who a request comes from. Browsers give no headers to a WebSocket: they have the token in the query, which stays
    /// out of the log.
    fn user_of(&self, request: &Request) -> Option<String> {
        self.all().get(request.bearer().or_else(|| request.query("token"))?).cloned()
    }
}

fn unauthorized() -> Response {
    Response::unauthorized().challenge("Bearer", REALM)
}

/// Gives a token for a password.
pub(crate) fn login(
    passwords: &Passwords,
    tokens: &Tokens,
    request: &Request,
) -> Result<Response, Error> {
    if request.method() != Method::Post {
        return Ok(Response::method_not_allowed().header("Allow", "POST"));
    }
    let user = request.basic_auth().filter(|(user, password)| passwords.accept(user, password));
    let Some((user, _)) = user else {
        return Ok(Response::unauthorized().challenge("Basic", REALM));
    };
    // Nobody on the way keeps it.
    Ok(Response::new().text(tokens.issue(&user)).header("Cache-Control", "no-store"))
}

pub(crate) fn chat(tokens: &Tokens, request: &Request) -> Result<Response, Error> {
    let Some(user) = tokens.user_of(request) else {
        return Ok(unauthorized());
    };
    // All tabs of a user are one session, wherever they are opened.
    request.with_session(user.as_str()).upgrade(|mut socket| {
        // Only from here on is this tab found by `kick`. Somebody who was put out since the look above is found here.
        if tokens.user_of(request).is_none() {
            socket.close(KICKED, "put out")?;
            return Ok(());
        }
        while let Some(message) = socket.recv()? {
            let Some(text) = message.as_text() else {
                socket.send("text only, please")?;
                continue;
            };
            socket.comms().notify().send(format!("{user}: {text}"))?;
        }
        Ok(())
    })
}

pub(crate) fn kick(tokens: &Tokens, request: &Request) -> Result<Response, Error> {
    if request.method() != Method::Post {
        return Ok(Response::method_not_allowed().header("Allow", "POST"));
    }
    match tokens.user_of(request).as_deref() {
        Some(ADMIN) => {}
        Some(_) => return Ok(Response::forbidden()),
        None => return Ok(unauthorized()),
    }
    let user = request.param("user")?;
    // First the tokens, so that nobody comes in again; then the tabs.
    tokens.revoke_all_of(user);
    let tabs = request.comms().websocket(user).close(KICKED, "put out")?;
    Ok(Response::new().text(format!("{user}: closed {tabs}\n")))
}

pub(crate) fn routes(passwords: Passwords, tokens: &Arc<Tokens>) -> Vec<Route> {
    let [for_login, for_chat, for_kick] = [(); 3].map(|()| Arc::clone(tokens));
    vec![
        route!("/login" => move |request: &Request| login(&passwords, &for_login, request)),
        route!("/chat" => move |request: &Request| chat(&for_chat, request)),
        route!("/kick/:user" => move |request: &Request| kick(&for_kick, request)),
    ]
}

fn main() -> Result<(), http::Error> {
    let mut passwords = Passwords::default();
    for user in ["anna", "ben", ADMIN] {
        println!("{user}: {}", passwords.set(user));
    }
    Server::new(routes(passwords, &Arc::default())).run()
}
