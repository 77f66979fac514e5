//! A server before it runs: its routes, where it listens, its settings; and the three ways to start it.

use std::fmt::Debug;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::base::contained::contained;
use crate::base::rate::Rate;
use crate::base::rule::Unfit;
use crate::controller::connection::Context;
use crate::controller::settings::Settings;
use crate::net::os::{self, Acceptor};
use crate::server::acceptor::Connections;
use crate::server::error::Error;
use crate::server::handle::{ServerHandle, Threads};
use crate::server::router::{Route, Router};
use crate::server::signals::TerminationSignals;
use crate::websocket::settings::Websocket;

/// A server: routes, an address, and settings, each with a default that suits the open internet.
///
/// ```no_run
/// use rwf::prelude::*;
/// use rwf::http::{self, Server};
/// # #[derive(Default)]
/// # struct Chat;
/// # #[async_trait]
/// # impl Controller for Chat {
/// #     async fn handle(&self, _: &Request) -> Result<Response, Error> { Ok(Response::new()) }
/// # }
///
/// fn main() -> Result<(), http::Error> {
///     Server::new(vec![route!("/chat" => Chat)])
///         .bind("0.0.0.0:8080")
///         .max_connections(500)
///         .run()
/// }
/// ```
///
/// Mistakes in routes, address and settings are reported when it starts.
#[derive(Debug)]
pub struct Server {
    routes: Vec<Route>,
    settings: Settings,
    address: Address,
}

#[derive(Debug)]
enum Address {
    Resolved(Vec<SocketAddr>),
    Unresolved(String, io::Error),
    Listener(TcpListener),
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(mut self, $name: $type) -> Self {
            self.settings.$name = $name;
            self
        })*
    };
}

impl Server {
    /// A server with these routes, on `127.0.0.1:8000`: [`route!`](crate::route) makes them.
    #[must_use]
    pub fn new(routes: Vec<Route>) -> Self {
        let default = SocketAddr::from(([127, 0, 0, 1], 8000));
        let address = Address::Resolved(vec![default]);
        Self { routes, settings: Settings::default(), address }
    }

    /// Listens on `address` instead: `"0.0.0.0:80"`, `("localhost", 8080)`, a `SocketAddr`. Port 0 lets the system
    /// choose; [`ServerHandle::local_addr`] tells what it chose.
    #[must_use]
    pub fn bind(mut self, address: impl ToSocketAddrs + Debug) -> Self {
        self.address = match address.to_socket_addrs() {
            Ok(resolved) => Address::Resolved(resolved.collect()),
            Err(error) => Address::Unresolved(format!("{address:?}"), error),
        };
        self
    }

    /// Takes connections from a listener that the program has already, from systemd for example, instead of what
    /// [`bind`](Self::bind) says. Others may hold it too:
    /// it is used as it is, blocking or not, and goes on for them when the server has ended.
    #[must_use]
    pub fn listener(mut self, listener: TcpListener) -> Self {
        self.address = Address::Listener(listener);
        self
    }

    setters! {
        /// The settings of all WebSocket endpoints; a controller may change them for its own.
        websocket: Websocket
        /// From the moment of the connection to the end of the first request's head, and from its first byte for later
        /// ones: one deadline, so that a client that sends a byte now and then misses it too. Default 10 s, then 408, or
        /// without an answer where nothing has come.
        open_timeout: Duration
        /// From the end of a request's head to the end of its body. Default 30 s, then 408.
        body_timeout: Duration
        /// How long a connection is kept for another request. Default 60 s. A client that has its last answer has as
        /// long to end its side too, but no more than 5 s.
        idle_timeout: Duration
        /// How long a shutdown waits for connections to end in good order. Default 10 s, then they are cut, and have a second to
        /// notice. Zero cuts at once.
        shutdown_timeout: Duration
        /// The longest request line with headers, in bytes. Default 16 KiB, then 431.
        max_head_size: usize
        /// The most headers of a request. Default 100, then 431.
        max_headers: usize
        /// The longest request body, in bytes. Default 1 MiB, then 413. It is held in memory, one for each connection.
        max_body_size: usize
        /// The most connections at a time, each of which costs a thread. Default 10,000; further ones are answered
        /// with 503 and `Retry-After`, without a thread.
        max_connections: usize
        /// The most connections of one client address at a time. Default unlimited: many people may share one. Further
        /// ones are answered like those over `max_connections`. Trusted proxies have no such limit.
        max_connections_per_peer: usize
        /// The most WebSockets of one session at a time. Default unlimited. A further one is closed with 1013.
        max_connections_per_session: usize
        /// The most bytes that wait for slow clients, over all outboxes of the process. Default 256 MiB. Beyond it a
        /// client for whom something waits already is full, as if its own outbox were; others are not concerned.
        max_queued_bytes: usize
        /// After how long a handler that still runs is worth a warning in the log. Default 30 s.
        handler_warning: Duration
        /// The most connections that wait for `accept`; the system may allow less. Default 4,096. A
        /// [given listener](Self::listener) has its own.
        backlog: u32
        /// The stack of a connection's thread, which its handlers use, in bytes: from 128 KiB to 1 GiB. Default 2 MiB, of
        /// which only what is used takes memory.
        stack_size: usize
        /// How many threads that have ended a connection wait, for up to a second, for another one: that is cheaper than
        /// new threads where connections are short. Default 16.
        spare_threads: usize
        /// `TCP_NODELAY`: whether small messages go out at once. Default on.
        no_delay: bool
    }

    /// How many WebSockets clients of one address may open. Default unlimited: many people may share an address. Further
    /// requests for one are answered with 429 and a `Retry-After` that says when one is taken again, before their
    /// controller is called.
    ///
    /// Behind a [trusted proxy](Self::trust_proxy) it is the address that the proxy tells; the proxies themselves have no
    /// such limit. The addresses of an IPv6 network, of 64 bits, count as one.
    ///
    /// ```
    /// use rwf::controller::Rate;
    /// use rwf::http::Server;
    /// use std::time::Duration;
    ///
    /// let reconnecting = Rate::per(60, Duration::from_secs(60));
    /// let server = Server::new(vec![]).handshake_rate_per_peer(reconnecting);
    /// # let _ = server;
    /// ```
    #[must_use]
    pub fn handshake_rate_per_peer(mut self, rate: impl Into<Option<Rate>>) -> Self {
        self.settings.handshake_rate_per_peer = rate.into();
        self
    }

    /// The name of the cookie by which a visitor is known again. Default `rwf_session`. Programs that share a host name,
    /// on whatever ports, share its cookies: give each a name of its own.
    ///
    /// It is set when a session begins: where a controller asks a visitor without one for its
    /// [`session_id`](crate::http::Request::session_id), or a WebSocket of such a visitor opens. Other responses are
    /// without it.
    #[must_use]
    pub fn session_cookie(mut self, name: impl Into<String>) -> Self {
        self.settings.session_cookie = Some(name.into());
        self
    }

    /// Neither reads nor sets a session cookie: nobody is known again. Each WebSocket is a session of its own then, and so
    /// is each request, unless a controller says who it is
    /// ([`Request::with_session`](crate::http::Request::with_session)).
    #[must_use]
    pub fn no_session_cookie(mut self) -> Self {
        self.settings.session_cookie = None;
        self
    }

    /// Lets requests for `host` in, one name without a port or wildcards, beside those for loopback names. It concerns
    /// servers that listen on a loopback address, which take nothing else: a page on the open internet can have its own
    /// name resolve to this machine, and would pass for a page of this server (DNS rebinding). Behind a proxy on the same
    /// machine, name the host that the proxy passes on. Requests for other hosts are answered with 403.
    #[must_use]
    pub fn allow_host(mut self, host: impl Into<String>) -> Self {
        self.settings.allowed_hosts.push(host.into());
        self
    }

    /// Believes what the proxy at this address says of its clients, in `X-Forwarded-For` and `X-Forwarded-Proto`:
    /// [`Request::client_ip`](crate::http::Request::client_ip), [`Request::is_secure`](crate::http::Request::is_secure).
    /// From anybody else these headers mean nothing.
    #[must_use]
    pub fn trust_proxy(mut self, proxy: impl Into<IpAddr>) -> Self {
        self.settings.trusted_proxies.push(proxy.into().to_canonical());
        self
    }

    /// Serves until SIGINT or SIGTERM, then shuts down: the whole of a `main` under [`#[rwf::main]`](crate::main).
    ///
    /// The same as [`run`](Self::run), which it blocks in.
    ///
    /// # Errors
    ///
    /// The server cannot start: [`Error`] says why.
    pub async fn launch(self) -> Result<(), Error> {
        self.run()
    }

    /// Serves until SIGINT or SIGTERM, then shuts down in good order; a second signal ends the process at once.
    ///
    /// One signal is for all `run`s of the process. A signal that is ignored when the first of them begins, as by
    /// `nohup`-like tools and for background jobs of shell scripts, stays ignored. Handlers of the program's own are
    /// called as ever, beside this. When no `run` serves any more, signals do what they did before the first one did:
    /// they end the process, or run the program's handler. A start that fails leaves them alone.
    ///
    /// For that, set handlers before the first `run`: when it has ended, signals end the process in spite of handlers
    /// set since through the `signal-hook` crate. Systems other than Linux, and Linux without `/proc`, do not tell what a
    /// signal did before: there, no signal stays ignored, and once a `run` has ended, signals end the process in spite
    /// of handlers set earlier, too.
    ///
    /// It is meant for programs that are a server: it starts `env_logger` if the program has set no logger (level `info`,
    /// unless `RUST_LOG` says otherwise), and raises the limit of open files as far as it may. Programs that only have
    /// a server take [`spawn`](Self::spawn).
    ///
    /// # Errors
    ///
    /// The server cannot start: [`Error`] says why.
    pub fn run(self) -> Result<(), Error> {
        #[cfg(feature = "logger")]
        start_logger();
        if let Err(error) = os::raise_descriptor_limit() {
            contained(|| log::debug!("the limit of open descriptors stays as it is: {error}"));
        }
        let server = self.spawn()?;
        // Not before, because a start that fails must change nothing: until here signals do what they did before.
        let mut signals = TerminationSignals::listen()
            .map_err(|source| Error::System { what: "signal handler", source })?;
        contained(|| log::debug!("SIGINT and SIGTERM, unless ignored, shut it down from now on"));
        let signal = signals.wait();
        contained(|| log::info!("{signal}: shutting down; again to end at once"));
        server.shutdown().map(drop)
    }

    /// Serves on threads of its own, until the handle is told to [shut down](ServerHandle::shutdown) or dropped.
    ///
    /// It touches nothing that belongs to the program: no logger, no signals, no limits.
    ///
    /// # Errors
    ///
    /// The server cannot start: [`Error`] says why.
    pub fn spawn(self) -> Result<ServerHandle, Error> {
        self.settings.check().map_err(|Unfit { name, reason }| Error::Setting { name, reason })?;
        let router = Router::new(self.routes, &self.settings.websocket)?;
        let is_given = matches!(self.address, Address::Listener(_));
        let (listener, local_addr) = self.address.listen(self.settings.backlog)?;
        let no_thread = |source| Error::System { what: "thread", source };
        let no_pipe = |source| Error::System { what: "pipe", source };
        let (acceptor, waker) = Acceptor::new(listener, is_given)
            .map_err(|source| Error::Listen { address: local_addr.to_string(), source })?;

        let context = Context::new(self.settings, local_addr).map_err(no_pipe)?;
        let context = Arc::new(context);
        let connections = Connections::new(Arc::clone(&context), router);
        let watching = {
            let interval = context.settings.handler_warning / 4;
            let interval = interval.clamp(Duration::from_millis(10), Duration::from_secs(1));
            let connections = Arc::downgrade(&connections);
            context.watchdog.start(interval, move || {
                if let Some(connections) = connections.upgrade() {
                    connections.warn_of_long_handlers(interval);
                }
            })
        };
        let watching = watching.map_err(no_thread)?;
        let accepting = thread::Builder::new()
            .name("rwf-accept".to_owned())
            // It needs less, but if the system has no stacks of this size the start fails now, and not each connection
            // later.
            .stack_size(context.settings.stack_size)
            .spawn({
                let connections = Arc::clone(&connections);
                move || connections.accept_all(acceptor)
            });
        let accepting = accepting.map_err(|source| {
            context.watchdog.stop();
            no_thread(source)
        })?;
        contained(|| log::info!("listening on http://{local_addr}"));
        let threads = Threads { accepting, waker, watching };
        Ok(ServerHandle::new(local_addr, connections, threads))
    }
}

impl Address {
    fn listen(self, backlog: u32) -> Result<(TcpListener, SocketAddr), Error> {
        // A given listener is as its program wants it.
        let is_given = matches!(self, Self::Listener(_));
        let (listener, address) = match self {
            Self::Unresolved(address, source) => return Err(Error::Address { address, source }),
            Self::Listener(listener) => {
                let address = listener.local_addr().map(|address| address.to_string());
                (Ok(listener), address.unwrap_or_else(|_| "the given listener".to_owned()))
            }
            Self::Resolved(addresses) if addresses.is_empty() => {
                let reason = "has to be at least one address, and is none".to_owned();
                return Err(Error::Setting { name: "bind", reason });
            }
            Self::Resolved(addresses) => {
                let text: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                (TcpListener::bind(&*addresses), text.join(", "))
            }
        };
        listener
            .and_then(|listener| {
                if !is_given {
                    os::lengthen_backlog(&listener, backlog)?;
                }
                let local_addr = listener.local_addr()?;
                Ok((listener, local_addr))
            })
            .map_err(|source| Error::Listen { address, source })
    }
}

#[cfg(feature = "logger")]
fn start_logger() {
    let environment = env_logger::Env::default().default_filter_or("info");
    // A program that has set a logger keeps it.
    let _ = env_logger::Builder::from_env(environment).try_init();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::{Controller, Error as Failure};
    use crate::http::{Request, Response};

    /// What the derive makes of an endpoint with settings of its own.
    struct Endpoint;

    #[async_trait::async_trait]
    impl Controller for Endpoint {
        async fn handle(&self, _: &Request) -> Result<Response, Failure> {
            Ok(Response::new())
        }

        fn endpoint(&self, defaults: Websocket) -> Option<Websocket> {
            Some(defaults.close_timeout(Duration::ZERO))
        }
    }

    #[test]
    fn a_start_that_fails_says_with_what() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = Server::new(vec![]).bind(address).spawn().unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("another"), "{error}");

        let error = Server::new(vec![]).bind("no port").spawn().unwrap_err().to_string();
        assert!(error.contains("no port"), "{error}");

        let routes = vec![Route::new("/chat", Endpoint)];
        let error = Server::new(routes).bind("127.0.0.1:0").spawn().unwrap_err().to_string();
        assert!(error.contains("`close_timeout` of the route \"/chat\" has to be"), "{error}");
        let error = Server::new(vec![]).bind(&[][..]).spawn().unwrap_err().to_string();
        assert!(error.contains("`bind` has to be at least one address"), "{error}");

        let error = Server::new(vec![]).open_timeout(Duration::ZERO).spawn().unwrap_err();
        assert!(error.to_string().contains("`open_timeout` has to be more than zero"), "{error}");
    }
}
