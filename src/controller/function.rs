//! Endpoints that are plain functions of a socket.

use std::fmt;
use std::rc::Rc;

use async_trait::async_trait;

use crate::controller::error::Error;
use crate::controller::http::{Controller, name_of};
use crate::controller::request::Request;
use crate::controller::session::{self, Session};
use crate::controller::socket::Socket;
use crate::http::response::Response;
use crate::websocket::close::{Close, CloseCode};
use crate::websocket::settings::Websocket;

/// Makes a WebSocket endpoint of a function: each client that opens a WebSocket has it called on a thread of its own,
/// with the open [`Socket`].
///
/// ```
/// use rwf::prelude::*;
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// fn echo(mut socket: Socket) -> Result<(), Error> {
///     while let Some(message) = socket.recv()? {
///         socket.send(message)?;
///     }
///     Ok(())
/// }
///
/// // A closure brings data of its own along.
/// let visits = Arc::new(AtomicUsize::new(0));
/// let counter = move |socket: Socket| {
///     let count = visits.fetch_add(1, Ordering::Relaxed) + 1;
///     socket.send(format!("you are visitor {count}"))?;
///     Ok(())
/// };
///
/// let routes = vec![route!("/echo" => websocket(echo)), route!("/visits" => websocket(counter))];
/// # let _ = routes;
/// ```
///
/// To look at the request before the WebSocket opens, write a function of the request and
/// [upgrade](Request::upgrade) there.
pub fn websocket<F>(function: F) -> Endpoint
where
    F: Fn(Socket) -> Result<(), Error> + Send + Sync + 'static,
{
    Endpoint { function: Box::new(function), name: name_of::<F>(), settings: None }
}

/// A WebSocket endpoint that is a function, made by [`websocket`].
pub struct Endpoint {
    function: Box<Function>,
    /// The function's name, for the log.
    name: &'static str,
    settings: Option<Box<Settings>>,
}

type Function = dyn Fn(Socket) -> Result<(), Error> + Send + Sync;
type Settings = dyn Fn(Websocket) -> Websocket + Send + Sync;

impl Endpoint {
    /// Gives the endpoint settings of its own, made of the server's.
    ///
    /// ```
    /// use rwf::prelude::*;
    ///
    /// # fn chat(_socket: Socket) -> Result<(), Error> { Ok(()) }
    /// let small = websocket(chat).settings(|defaults| defaults.max_message_size(4 << 10));
    /// let route = route!("/chat" => small);
    /// # let _ = route;
    /// ```
    #[must_use]
    pub fn settings(
        mut self,
        settings: impl Fn(Websocket) -> Websocket + Send + Sync + 'static,
    ) -> Self {
        self.settings = Some(Box::new(settings));
        self
    }

    fn with_defaults(&self, defaults: Websocket) -> Websocket {
        match &self.settings {
            Some(settings) => settings(defaults),
            None => defaults,
        }
    }
}

#[diagnostic::do_not_recommend]
#[async_trait]
impl Controller for Endpoint {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        let settings = |defaults| self.with_defaults(defaults);
        session::run(request, settings, self.name, |session| serve(&self.function, session))
    }

    fn endpoint(&self, defaults: Websocket) -> Option<Websocket> {
        Some(self.with_defaults(defaults))
    }

    fn log_name(&self) -> &'static str {
        self.name
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.name)
    }
}

impl Request {
    /// Opens a WebSocket on the request's connection, for a function that has looked at the request before, and **runs it
    /// to its end**. A request that does not open a WebSocket is answered with the status that RFC 6455 §4.2 wants.
    ///
    /// ```
    /// use rwf::prelude::*;
    ///
    /// # fn user_of(token: &str) -> Option<i64> { token.parse().ok() }
    /// fn private(request: &Request) -> Result<Response, Error> {
    ///     let Some(user) = request.query("token").and_then(user_of) else {
    ///         return Ok(Response::unauthorized());
    ///     };
    ///     request.with_session(user).upgrade(|mut socket| {
    ///         socket.send(format!("welcome, user {user}"))?;
    ///         while let Some(message) = socket.recv()? {
    ///             // That the others are too slow is no reason for this one to end.
    ///             let _ = Comms::broadcast(user).send(message);
    ///         }
    ///         Ok(())
    ///     })
    /// }
    ///
    /// let route = route!("/private" => private);
    /// # let _ = route;
    /// ```
    ///
    /// # Errors
    ///
    /// The request's connection was used already, or the request was [built](Request::get) without one.
    pub fn upgrade<F>(&self, function: F) -> Result<Response, Error>
    where
        F: FnOnce(Socket) -> Result<(), Error>,
    {
        self.upgrade_with(|defaults| defaults, function)
    }

    /// Like [`upgrade`](Self::upgrade), with settings of this connection, made of the server's.
    ///
    /// ```
    /// use rwf::prelude::*;
    ///
    /// fn upload(request: &Request) -> Result<Response, Error> {
    ///     let limit = if request.query("plan") == Some("pro") { 64 << 20 } else { 1 << 20 };
    ///     request.upgrade_with(
    ///         |defaults| defaults.max_message_size(limit),
    ///         |mut socket| {
    ///             for message in socket.iter() {
    ///                 log::info!("{} bytes", message.len());
    ///             }
    ///             Ok(())
    ///         },
    ///     )
    /// }
    ///
    /// let route = route!("/upload" => upload);
    /// # let _ = route;
    /// ```
    ///
    /// # Errors
    ///
    /// The request's connection was used already, or a setting does not work.
    pub fn upgrade_with<F>(
        &self,
        settings: impl FnOnce(Websocket) -> Websocket,
        function: F,
    ) -> Result<Response, Error>
    where
        F: FnOnce(Socket) -> Result<(), Error>,
    {
        // The closure is a part of the controller that looks at the request, which the log calls by its own name.
        let name = name_of::<F>();
        let name = name.strip_suffix("::{{closure}}").unwrap_or(name);
        session::run(self, settings, name, |session| serve(function, session))
    }
}

fn serve(function: impl FnOnce(Socket) -> Result<(), Error>, session: &Rc<Session>) -> Close {
    let socket = Socket::new(session);
    match session.guard("the function", || function(socket)) {
        Ok(()) => Close::new(CloseCode::NORMAL, ""),
        Err(ended) => ended.close,
    }
}
