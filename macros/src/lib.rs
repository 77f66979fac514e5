//! The macros of rwf. They are re-exported by `rwf`, whose documentation shows them in use.

mod derive;
mod main_attribute;
mod route;

use proc_macro::TokenStream;

/// Makes a type with `impl WebsocketController` a controller, so that a route takes it.
///
/// ```
/// use rwf::prelude::*;
///
/// #[derive(Default, macros::WebsocketController)]
/// struct Echo;
///
/// #[async_trait]
/// impl WebsocketController for Echo {
///     async fn handle_message(&self, client: &SessionId, message: Message) -> Result<(), Error> {
///         Comms::websocket(client).send(message)?;
///         Ok(())
///     }
/// }
///
/// let route = route!("/echo" => Echo);
/// # let _ = route;
/// ```
///
/// A module with this derive cannot import a derive or attribute macro of the name `Websocket` from another crate.
///
/// It writes this, which can be written by hand where a look at the request comes first:
///
/// ```
/// # use rwf::prelude::*;
/// # struct Echo;
/// # #[async_trait] impl WebsocketController for Echo {}
/// #[async_trait]
/// impl Controller for Echo {
///     async fn handle(&self, request: &Request) -> Result<Response, Error> {
///         WebsocketController::handle(self, request).await
///     }
/// }
/// ```
#[proc_macro_derive(WebsocketController)]
pub fn websocket_controller(input: TokenStream) -> TokenStream {
    expand(syn::parse(input).map(derive::websocket_controller))
}

/// Does nothing. An import of `rwf::controller::Websocket` brings it along, and the derive of a controller uses it, so that
/// the import does not count as unused.
#[doc(hidden)]
#[proc_macro_derive(Websocket)]
pub fn websocket(_: TokenStream) -> TokenStream {
    TokenStream::new()
}

/// Makes a route: `route!("/path" => Type)` or `route!("/path" => expression)`.
///
/// A type, which is a path whose last name alone begins with a capital, is made with `Default`; an expression is taken
/// as it is: a value, a function, a closure, or a variant with its enum, `Chat::Public`. In the path, `:name` takes one
/// segment, which is not empty, and a trailing `*name` takes all that is left, which may be nothing: `/w/*name` takes
/// `/w/` and `/w/a/b`. It does not take `/w`, which is another path than `/w/`, with a route of its own.
///
/// Where several routes match, the more specific one is taken, in whatever order they stand: a segment as it is comes
/// before `:name`, and that before `*name`. `Route::new` says more.
///
/// A route takes all methods. A function that means one of them answers others with 405; WebSocket endpoints and
/// `StaticFiles` do by themselves.
///
/// ```
/// use rwf::http::Method;
/// use rwf::prelude::*;
///
/// #[derive(Default, macros::WebsocketController)]
/// struct Chat { greeting: String }
///
/// #[async_trait]
/// impl WebsocketController for Chat {}
///
/// fn echo(mut socket: Socket) -> Result<(), Error> {
///     while let Some(message) = socket.recv()? {
///         socket.send(message)?;
///     }
///     Ok(())
/// }
///
/// fn login(request: &Request) -> Result<Response, Error> {
///     if request.method() != Method::Post {
///         return Ok(Response::method_not_allowed().header("Allow", "POST"));
///     }
///     Ok(Response::no_content())
/// }
///
/// let routes = vec![
///     route!("/chat" => Chat),
///     route!("/chat/:room" => Chat { greeting: "welcome".to_string() }),
///     route!("/echo" => websocket(echo)),
///     route!("/login" => login),
///     route!("/health" => |_: &Request| Ok(Response::new().text("well"))),
/// ];
/// # let _ = routes;
/// ```
#[proc_macro]
pub fn route(input: TokenStream) -> TokenStream {
    expand(syn::parse(input).map(route::Route::expand))
}

/// Lets `main` be an `async fn`, which runs on the main thread.
///
/// ```no_run
/// use rwf::http::{self, Server};
///
/// #[rwf::main]
/// async fn main() -> Result<(), http::Error> {
///     Server::new(vec![]).launch().await
/// }
/// ```
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let is_function = syn::parse::<syn::ItemFn>(item.clone()).is_ok();
    match main_attribute::main(arguments.into(), item.into()) {
        // With a `main` left, rustc does not complain of its absence as well.
        Err(error) if is_function => {
            let error = error.into_compile_error();
            quote::quote!(#error fn main() {}).into()
        }
        tokens => expand(tokens),
    }
}

fn expand(tokens: syn::Result<proc_macro2::TokenStream>) -> TokenStream {
    tokens.unwrap_or_else(|error| error.into_compile_error()).into()
}
