//! The trait behind every route: a request becomes a response.

use std::any::type_name;
use std::sync::Arc;

use async_trait::async_trait;

use crate::controller::error::Error;
use crate::controller::request::Request;
use crate::http::response::Response;
use crate::websocket::settings::Websocket;

/// Answers the requests of a route, on the thread of their connection.
///
/// It may block: it holds up nobody but its own client. One value serves all connections at the same time, hence
/// `Sync`; what changes belongs behind a lock, whose guard may not live across an `await`, or in an atomic.
///
/// ```
/// use rwf::prelude::*;
///
/// struct Greeting(String);
///
/// #[async_trait]
/// impl Controller for Greeting {
///     async fn handle(&self, request: &Request) -> Result<Response, Error> {
///         Ok(Response::new().text(format!("{}, {}!", self.0, request.param("name")?)))
///     }
/// }
///
/// let route = route!("/hello/:name" => Greeting("Hello".to_string()));
/// # let _ = route;
/// ```
///
/// # One before another
///
/// What many endpoints share, a controller does that has another one inside (elsewhere called *middleware*). It may answer
/// by itself, pass on the request in [another session](Request::with_session), and change the response:
///
/// ```
/// use rwf::prelude::*;
///
/// /// Gives each request a number, by which a client can complain of its answer.
/// struct WithRequestId<C>(C);
///
/// #[async_trait]
/// impl<C: Controller> Controller for WithRequestId<C> {
///     async fn handle(&self, request: &Request) -> Result<Response, Error> {
///         // On the request, and not on the response: so a 101 and the answer to an error have it too.
///         request.append_response_header("X-Request-Id", rwf::Uuid::new_v4().to_string());
///         self.0.handle(request).await
///     }
/// }
///
/// /// Lets nobody in but users.
/// struct ForUsers<C>(C);
///
/// # fn user_of(token: &str) -> Option<i64> { token.parse().ok() }
/// #[async_trait]
/// impl<C: Controller> Controller for ForUsers<C> {
///     async fn handle(&self, request: &Request) -> Result<Response, Error> {
///         let Some(user) = request.bearer().and_then(user_of) else {
///             return Ok(Response::unauthorized().challenge("Bearer", "users"));
///         };
///         self.0.handle(&request.with_session(user)).await
///     }
/// }
///
/// fn account(request: &Request) -> Result<Response, Error> {
///     Ok(Response::new().text(format!("you are {}", request.session_id())))
/// }
/// # fn chat(_: Socket) -> Result<(), Error> { Ok(()) }
///
/// let routes = vec![
///     route!("/account" => WithRequestId(ForUsers(account))),
///     route!("/chat" => WithRequestId(ForUsers(websocket(chat)))),
/// ];
/// # let _ = routes;
/// ```
///
/// A closure does it as well, and can hand on what it has found out:
///
/// ```
/// use rwf::prelude::*;
///
/// # struct User { name: String }
/// # fn find(token: &str) -> Option<User> { Some(User { name: token.to_owned() }) }
/// fn for_users<F>(inner: F) -> impl Fn(&Request) -> Result<Response, Error> + Send + Sync
/// where
///     F: Fn(&Request, User) -> Result<Response, Error> + Send + Sync,
/// {
///     move |request: &Request| match request.bearer().and_then(find) {
///         Some(user) => inner(request, user),
///         None => Ok(Response::unauthorized().challenge("Bearer", "users")),
///     }
/// }
///
/// let hello = |_: &Request, user: User| Ok(Response::new().text(format!("hello, {}", user.name)));
/// let route = route!("/hello" => for_users(hello));
/// # let _ = route;
/// ```
///
/// The inner `handle` of a WebSocket runs it to its end: what stands behind the call comes when the client has left. What is
/// checked when a server starts, the settings of an endpoint or the folder of [`StaticFiles`](crate::controller::StaticFiles),
/// is checked with the first request where another controller stands before it.
#[doc(alias = "middleware")]
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a controller",
    note = "for a WebSocket endpoint add `#[derive(macros::WebsocketController)]` to the type",
    note = "for an endpoint that is a function write `fn(&Request) -> Result<Response, Error>`, or \
            `websocket(f)` with an `fn(Socket) -> Result<(), Error>`",
    note = "for an HTTP endpoint write `#[async_trait] impl Controller for {Self} {{ … }}`"
)]
pub trait Controller: Send + Sync {
    /// Answers one request.
    ///
    /// # Errors
    ///
    /// What `?` makes of any error. The client gets a 500 without its text, or the status that the error was given;
    /// the log gets the text.
    // The compiler shows this line to whoever leaves the attribute or `async` out.
    async fn handle(&self, request: &Request) -> Result<Response, Error>; // in an #[async_trait] impl

    /// The settings of a WebSocket endpoint, so that they are checked when the server starts: the derive tells them.
    #[doc(hidden)]
    fn endpoint(&self, defaults: Websocket) -> Option<Websocket> {
        let _ = defaults;
        None
    }

    /// What is wrong with serving the path of a route by this, as a sentence without its subject: checked when the server
    /// starts.
    #[doc(hidden)]
    fn check(&self, path: &str) -> Result<(), String> {
        let _ = path;
        Ok(())
    }

    /// What log and statistics call it: the name of its type, or of the function that it stands for.
    #[doc(hidden)]
    fn log_name(&self) -> &'static str {
        name_of::<Self>()
    }
}

/// One value for several routes, or for the rest of the program too.
#[diagnostic::do_not_recommend]
#[async_trait]
impl<C: Controller + ?Sized> Controller for Arc<C> {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        (**self).handle(request).await
    }

    fn endpoint(&self, defaults: Websocket) -> Option<Websocket> {
        (**self).endpoint(defaults)
    }

    fn check(&self, path: &str) -> Result<(), String> {
        (**self).check(path)
    }

    fn log_name(&self) -> &'static str {
        (**self).log_name()
    }
}

/// A function or closure that answers requests.
///
/// ```
/// use rwf::prelude::*;
///
/// fn health(_request: &Request) -> Result<Response, Error> {
///     Ok(Response::new().text("well"))
/// }
///
/// let routes = vec![
///     route!("/health" => health),
///     route!("/version" => |_request: &Request| Ok(Response::new().text("1.2"))),
/// ];
/// # let _ = routes;
/// ```
#[async_trait]
impl<F> Controller for F
where
    F: Fn(&Request) -> Result<Response, Error> + Send + Sync,
{
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        self(request)
    }
}

/// Controllers that are chosen when the program runs.
#[diagnostic::do_not_recommend]
#[async_trait]
impl Controller for Box<dyn Controller> {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        (**self).handle(request).await
    }

    fn endpoint(&self, defaults: Websocket) -> Option<Websocket> {
        (**self).endpoint(defaults)
    }

    fn check(&self, path: &str) -> Result<(), String> {
        (**self).check(path)
    }

    fn log_name(&self) -> &'static str {
        (**self).log_name()
    }
}

/// The name of a controller's type without the modules it is in, for the log.
pub(crate) fn name_of<C: ?Sized>() -> &'static str {
    let name = type_name::<C>();
    // Closures have no name, so that the function which they are in says more.
    let end = name.find('<').or_else(|| name.find("::{{closure}}")).unwrap_or(name.len());
    let start = name[..end].rfind("::").map_or(0, |separator| separator + 2);
    &name[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short() {
        assert_eq!(name_of::<std::net::TcpStream>(), "TcpStream");
        assert_eq!(name_of::<Option<String>>(), "Option<alloc::string::String>");
        fn name_of_value<T>(_: &T) -> &'static str {
            name_of::<T>()
        }
        assert_eq!(name_of_value(&|| 1), "names_are_short::{{closure}}");
        assert_eq!(name_of_value(&names_are_short), "names_are_short");
    }
}
