//! Controllers that stand before others: one gives each request a number, and one lets only those in who know a password.
//! Run it with `cargo run --example middleware`, which prints the password.
//! Try it with `curl -i http://localhost:8000/hello`, whose answer has the number, and
//! `curl -i -u anna:... http://localhost:8000/hello`. Or open that address in a browser, which asks for name and password,
//! and in its console: `ws = new WebSocket("ws://localhost:8000/chat"); ws.onmessage = event => console.log(event.data)`.

use std::sync::Arc;

use rwf::Uuid;
use rwf::http::{self, Route, Server, constant_time_eq};
use rwf::prelude::*;

/// Gives each request a number: to the client in the answer, and to the log.
pub(crate) struct WithRequestId<C>(pub(crate) C);

#[async_trait]
impl<C: Controller> Controller for WithRequestId<C> {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        let id = Uuid::new_v4();
        log::info!("request {id} is on connection {}", request.connection_id());
        // On the request, and not on the response: so a 101 and the answer to an error have it too.
        request.append_response_header("X-Request-Id", id.to_string());
        self.0.handle(request).await
    }
}

/// Lets those in who know the password, as whom they say they are.
pub(crate) struct WithPassword<C> {
    pub(crate) password: Arc<str>,
    pub(crate) inner: C,
}

#[async_trait]
impl<C: Controller> Controller for WithPassword<C> {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        let knows = |password: &str| constant_time_eq(password, &*self.password);
        match request.basic_auth() {
            Some((user, password)) if knows(&password) => {
                self.inner.handle(&request.with_session(user)).await
            }
            _ => Ok(Response::unauthorized().challenge("Basic", "example")),
        }
    }
}

fn hello(request: &Request) -> Result<Response, Error> {
    Ok(Response::new().text(format!("hello, {}\n", request.session_id())))
}

fn chat(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.recv()? {
        let Message::Text(text) = message else { continue };
        socket.comms().notify().send(format!("{}: {text}", socket.session_id()))?;
    }
    Ok(())
}

/// Fails, for whom the password lets in.
fn broken(_: &Request) -> Result<Response, Error> {
    Err("there is nothing behind this yet".into())
}

pub(crate) fn routes(password: &Arc<str>) -> Vec<Route> {
    vec![
        route!("/hello" => guarded(password, hello)),
        route!("/chat" => guarded(password, websocket(chat))),
        route!("/broken" => guarded(password, broken)),
    ]
}

/// The outer one sees a request first.
fn guarded<C: Controller>(password: &Arc<str>, inner: C) -> impl Controller + use<C> {
    WithRequestId(WithPassword { password: Arc::clone(password), inner })
}

fn main() -> Result<(), http::Error> {
    let password = Uuid::new_v4().to_string();
    println!("the password is {password}");
    Server::new(routes(&password.into())).run()
}
