//! A server before it runs: its routes, where it listens, its settings; and the three ways to start it.

use std::fmt::Debug;
use std::net::ToSocketAddrs;
#[cfg(unix)]
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::base::contained::contained;
use crate::base::rate::Rate;
use crate::base::rule::Unfit;
#[cfg(feature = "redis")]
use crate::comms::cluster::{Cluster, NotJoined};
use crate::comms::server::{ServerComms, ServerGuard};
use crate::controller::connection::Context;
use crate::controller::settings::Settings;
use crate::http::peer::Proxy;
use crate::net::listener::{Acceptor, Listener};
use crate::net::os;
use crate::server::acceptor::Connections;
use crate::server::error::Error;
use crate::server::handle::{NOWHERE, ServerHandle, Threads};
use crate::server::listen::{Place, Places};
use crate::server::process;
use crate::server::reload::Reloader;
use crate::server::router::{Route, Router};
use crate::server::signals::{Arrived, Signals};
#[cfg(all(unix, feature = "systemd"))]
use crate::server::systemd;
use crate::server::systemd::Manager;
#[cfg(feature = "tls")]
use crate::server::tls::{Tls, TlsConfig};
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
    places: Places,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    #[cfg(feature = "redis")]
    cluster: Option<Cluster>,
    guard: ServerGuard,
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
        Self {
            routes,
            settings: Settings::default(),
            places: Places::default(),
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "redis")]
            cluster: None,
            guard: ServerGuard::new(),
        }
    }

    /// Reaches the clients of this server alone: for threads that are started before [`run`](Self::run), which returns when
    /// it is over. What is sent before the server has clients reaches nobody.
    ///
    /// ```no_run
    /// use rwf::http::{self, Server};
    /// use rwf::prelude::*;
    /// use std::thread;
    /// use std::time::Duration;
    ///
    /// # fn chat(_: Socket) -> Result<(), Error> { Ok(()) }
    /// fn main() -> Result<(), http::Error> {
    ///     let server = Server::new(vec![route!("/chat" => websocket(chat))]);
    ///     let everybody = server.comms().notify();
    ///     thread::spawn(move || loop {
    ///         thread::sleep(Duration::from_secs(60));
    ///         let _ = everybody.send("another minute");
    ///     });
    ///     server.run()
    /// }
    /// ```
    #[must_use]
    pub fn comms(&self) -> ServerComms {
        ServerComms::new(self.guard.id())
    }

    /// Listens on `address` instead of the default: `"0.0.0.0:80"`, `("localhost", 8080)`, a `SocketAddr`. Port 0 lets the
    /// system choose; [`ServerHandle::local_addr`] tells what it chose. Of the addresses of a name the first one is taken that
    /// can be had.
    ///
    /// In a container, and for other machines, bind `"0.0.0.0:8000"`: the default, 127.0.0.1, is reached from the same
    /// machine, or container, alone.
    ///
    /// Each call of this, of [`bind_unix`](Self::bind_unix) and of [`listener`](Self::listener) adds a place where the same
    /// server listens, with an accept thread of its own; [`ServerHandle::local_addrs`] lists them. `"[::]:80"` means all
    /// addresses of the machine, IPv4 too; see [`ipv6_only`](Self::ipv6_only).
    ///
    /// ```
    /// use rwf::http::{self, Server};
    ///
    /// # fn main() -> Result<(), http::Error> {
    /// let server = Server::new(vec![]).bind("127.0.0.1:0").bind("127.0.0.2:0").spawn()?;
    /// assert_eq!(server.local_addrs().len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    #[doc(alias("docker", "container"))]
    #[must_use]
    pub fn bind(mut self, address: impl ToSocketAddrs + Debug) -> Self {
        self.places.add(Place::resolve(&address));
        self
    }

    /// Listens on a Unix socket at `path`, mostly for a proxy on the same machine; beside other places like
    /// [`bind`](Self::bind). On Unix systems.
    ///
    /// The file that a server leaves behind that was killed is replaced. Where somebody listens, or something else is
    /// than a socket, the start fails. Who may connect is the matter of [`unix_mode`](Self::unix_mode). The file goes when the
    /// server ends, unless somebody else's is there by then. Servers lock the folder while they start, and wait for it up to
    /// 2 s. Let nobody write in the folder who is not trusted, as systemd's `RuntimeDirectory` does: whoever may could put
    /// something else in the file's place.
    ///
    /// All that is promised of connections holds here too. [`Request::peer`](crate::http::Request::peer) tells which
    /// process is at the other end, limits per peer are per user there, and any `Host` is let in, as what comes over a
    /// Unix socket comes from no browser.
    ///
    /// ```
    /// use rwf::http::{self, Proxy, Server};
    ///
    /// # fn main() -> Result<(), http::Error> {
    /// # let path = std::env::temp_dir().join(format!("rwf-doc-{}.sock", std::process::id()));
    /// // nginx, in the group of the folder, connects, and is believed what it says of its clients.
    /// let server =
    ///     Server::new(vec![]).bind_unix(&path).unix_mode(0o660).trust_proxy(Proxy::Unix).spawn()?;
    /// assert_eq!(server.local_addrs()[0].to_string(), format!("unix:{}", path.display()));
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(unix)]
    #[must_use]
    pub fn bind_unix(mut self, path: impl Into<PathBuf>) -> Self {
        self.places.add(Place::Unix(path.into()));
        self
    }

    /// Takes connections from a `TcpListener` or, on Unix, a `UnixListener` that the program has already; beside other places
    /// like [`bind`](Self::bind). Others may hold it too: it is used as it is, blocking or not, and goes on for them when the
    /// server has ended.
    #[must_use]
    pub fn listener(mut self, listener: impl Into<Listener>) -> Self {
        self.places.add(Place::Given(listener.into()));
        self
    }

    /// Takes connections from the sockets that systemd has passed on to this process, TCP and Unix ones, several if there are;
    /// beside other places like [`bind`](Self::bind). Where it has passed on none, as when the program is started in a
    /// terminal, this changes nothing. With the feature `systemd`, on Unix systems.
    ///
    /// Call it at the beginning of `main`, before other threads look at the environment: it takes `LISTEN_FDS` and
    /// `LISTEN_PID` out of it, so that processes that are started from here do not take the sockets for theirs. The
    /// sockets come with the first call, and later ones get none.
    ///
    /// [The guide](crate::guide::systemd) has the units.
    #[cfg(all(unix, feature = "systemd"))]
    #[must_use]
    pub fn systemd_sockets(mut self) -> Self {
        match systemd::passed_sockets() {
            Ok(passed) => {
                passed.into_iter().for_each(|socket| self.places.add(Place::Given(socket)))
            }
            Err(error) => self.places.add(Place::NotPassed(error)),
        }
        self
    }

    /// Listens nowhere: its connections are those that a program, or a server of another kind, accepts and
    /// [hands over](ServerHandle::serve).
    ///
    /// # Errors
    ///
    /// At the start, where it is told to listen somewhere too, or to [`run`](Self::run): without a handle it would serve
    /// nobody.
    #[must_use]
    pub fn no_listener(mut self) -> Self {
        self.places.have_none();
        self
    }

    /// Forgets where it was to listen.
    #[cfg(feature = "testing")]
    pub(crate) fn nowhere(mut self) -> Self {
        self.places = Places::default();
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
        #[doc(alias("graceful", "graceful_shutdown"))]
        shutdown_timeout: Duration
        /// The longest request line with headers, in bytes. Default 16 KiB, then 431.
        max_head_size: usize
        /// The most headers of a request. Default 100, then 431.
        max_headers: usize
        /// The longest request body, in bytes. Default 1 MiB, then 413. It is held in memory, one for each connection.
        max_body_size: usize
        /// The most connections at a time, each of which costs a thread. Default 10,000; further ones are answered
        /// with 503 and `Retry-After`, without a thread. Over TLS they are closed, without a handshake.
        max_connections: usize
        /// The most connections of one client address at a time, or of one user over Unix sockets. Default unlimited: many
        /// people may share an address. Further ones are answered like those over `max_connections`. Trusted proxies have no
        /// such limit.
        max_connections_per_peer: usize
        /// The most WebSockets of one session to this server at a time. Default unlimited. A further one is opened, since a
        /// browser learns of no other reason, and closed with 1013; its handlers are not called, and nobody reaches it.
        max_connections_per_session: usize
        /// The most bytes that wait for slow clients, over all outboxes of the process. Default 256 MiB. Beyond it a
        /// client for whom something waits already is full, as if its own outbox were; others are not concerned.
        #[doc(alias = "backpressure")]
        max_queued_bytes: usize
        /// After how long a handler that still runs is worth a warning in the log. Default 30 s.
        handler_warning: Duration
        /// The most connections that wait for `accept` at each place; the system may allow less. Default 4,096. A
        /// [given listener](Self::listener) has its own.
        backlog: u32
        /// `IPV6_V6ONLY`: whether `"[::]:80"` leaves IPv4 out, so that `"0.0.0.0:80"` can be bound beside it. Default off:
        /// it takes both, and IPv4 clients have IPv4 addresses all the same.
        ipv6_only: bool
        /// Who may connect to a [Unix socket](Self::bind_unix), as the mode of its file, at most `0o777`: connecting takes the
        /// right to write. Default `0o600`, for programs of the same user; `0o660` is for those of its group too.
        unix_mode: u32
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
    /// such limit. The addresses of an IPv6 network, of 64 bits, count as one, and so do the processes of a user over Unix
    /// sockets.
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
    #[doc(alias("rate_limit", "throttle"))]
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

    /// Believes what this proxy, an IP address or one of [`Proxy`], says of its clients, in `X-Forwarded-For` and
    /// `X-Forwarded-Proto`: [`Request::client_ip`](crate::http::Request::client_ip),
    /// [`Request::is_secure`](crate::http::Request::is_secure). From anybody else these headers mean nothing.
    #[must_use]
    pub fn trust_proxy(mut self, proxy: impl Into<Proxy>) -> Self {
        self.settings.trusted_proxies.push(proxy.into());
        self
    }

    /// Connections from this proxy begin with a header that says whose they are, of the PROXY protocol, version 1 or 2: that of
    /// HAProxy's `send-proxy`, of nginx's `proxy_protocol` in a `stream`, of load balancers of TCP. What it says is the
    /// [`peer`](crate::http::Request::peer) then, for limits and the log too.
    ///
    /// A connection of such a proxy without a header that is whole within [`open_timeout`](Self::open_timeout) is closed, with
    /// a line in the log. Its own, for health checks (`LOCAL`, `UNKNOWN`), keep its address. Those of others have no header,
    /// and are refused if they bring one. A header that is longer than [`max_head_size`](Self::max_head_size) is wrong. With
    /// TLS it comes before the handshake.
    ///
    /// Such a proxy passes bytes on: its clients write `X-Forwarded-For` themselves, so do not
    /// [trust](Self::trust_proxy) it beside.
    ///
    /// ```
    /// use rwf::http::Server;
    ///
    /// let balancer = std::net::Ipv4Addr::new(10, 0, 0, 1);
    /// let server = Server::new(vec![]).bind("0.0.0.0:8000").proxy_protocol(balancer);
    /// # let _ = server;
    /// ```
    #[must_use]
    pub fn proxy_protocol(mut self, proxy: impl Into<Proxy>) -> Self {
        self.settings.proxy_protocol.push(proxy.into());
        self
    }

    /// Speaks TLS, and nothing else, on its address: `https` and `wss`. With the feature `tls`.
    ///
    /// The handshake is a part of what has to be over by the [`open_timeout`](Self::open_timeout). A client that does not speak
    /// TLS is answered with 400. A server for `http` beside it that sends everybody here is another [`Server`]:
    ///
    /// ```no_run
    /// use rwf::http::{self, Server, Status, Tls};
    /// use rwf::prelude::*;
    ///
    /// /// Sends people to the same place over TLS. The host stands here: what a request names as its host is the client's word.
    /// fn to_https(request: &Request) -> Result<Response, Error> {
    ///     let mut location = format!("https://chat.example{}", request.path());
    ///     if !request.query_string().is_empty() {
    ///         location += &format!("?{}", request.query_string());
    ///     }
    ///     Ok(Response::new().redirect(location).status(Status::PERMANENT_REDIRECT))
    /// }
    ///
    /// # fn chat(_: Socket) -> Result<(), Error> { Ok(()) }
    /// fn main() -> Result<(), http::Error> {
    ///     let tls = Tls::files("fullchain.pem", "privkey.pem")?;
    ///     let _http = Server::new(vec![route!("/*path" => to_https)]).bind("0.0.0.0:80").spawn()?;
    ///     Server::new(vec![route!("/chat" => websocket(chat))]).bind("0.0.0.0:443").tls(tls).run()
    /// }
    /// ```
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Shares sessions and topics with other processes: [`Comms`](crate::comms::Comms) means the clients of all of them
    /// then. With the feature `redis`.
    #[cfg(feature = "redis")]
    #[must_use]
    pub fn cluster(mut self, cluster: Cluster) -> Self {
        self.cluster = Some(cluster);
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

    /// Serves until SIGINT or SIGTERM, then shuts down in good order; a second signal ends the process at once. With
    /// certificates from files, SIGHUP has them read again.
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
    /// unless `RUST_LOG` says otherwise), raises the limit of open files as far as it may, and tells systemd, if that has
    /// started it, that it is ready, alive, and stopping ([the guide](crate::guide::systemd)). Programs that only have
    /// a server take [`spawn`](Self::spawn). What is logged before, by a server that was spawned first say, is seen
    /// where the program has set a logger itself.
    ///
    /// # Errors
    ///
    /// The server cannot start: [`Error`] says why.
    #[doc(alias("graceful", "graceful_shutdown"))]
    pub fn run(self) -> Result<(), Error> {
        if self.places.are_none() {
            let reason = "needs `spawn`, whose handle takes the connections".to_owned();
            return Err(Error::Setting { name: "no_listener", reason });
        }
        #[cfg(feature = "logger")]
        start_logger();
        if let Err(error) = os::raise_descriptor_limit() {
            contained(|| {
                log::debug!(
                    target: "rwf::server",
                    "the limit of open descriptors stays as it is: {error}"
                )
            });
        }
        let manager = Manager::from_env().map(Arc::new);
        let server = self.start(manager.clone())?;
        // Not before, because a start that fails must change nothing: until here signals do what they did before.
        let reloader = server
            .reloader()
            .map_err(|source| Error::System { what: "thread for SIGHUP", source })?;
        let mut signals = Signals::listen(reloader.is_some())
            .map_err(|source| Error::System { what: "signal handler", source })?;
        contained(|| {
            log::debug!(
                target: "rwf::server",
                "SIGINT and SIGTERM, unless ignored, shut it down from now on"
            )
        });
        if let Some(manager) = &manager {
            manager.tell(&format!("READY=1\nSTATUS=listening on {}", server.address()));
        }
        let signal = loop {
            match signals.wait() {
                Arrived::Hangup => reloader.iter().for_each(Reloader::order),
                Arrived::Termination(signal) => break signal,
            }
        };
        contained(|| {
            log::info!(
                target: "rwf::server",
                "shutting down signal={signal}: another one ends the process at once"
            )
        });
        if let Some(manager) = &manager {
            manager.tell("STOPPING=1");
        }
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
        self.start(None)
    }

    fn start(self, manager: Option<Arc<Manager>>) -> Result<ServerHandle, Error> {
        self.settings.check().map_err(|Unfit { name, reason }| Error::Setting { name, reason })?;
        let router = Router::new(self.routes, &self.settings.websocket)?;
        #[cfg(feature = "tls")]
        let (is_secure, tls) = (self.tls.is_some(), self.tls.map(TlsConfig::new).transpose()?);
        #[cfg(not(feature = "tls"))]
        let is_secure = false;
        let (listeners, local_addrs): (Vec<_>, Vec<_>) =
            self.places.listen(&self.settings)?.into_iter().unzip();
        let no_thread = |source| Error::System { what: "thread", source };
        let no_pipe = |source| Error::System { what: "pipe", source };
        let acceptors: Result<Vec<_>, _> = listeners.into_iter().map(Acceptor::new).collect();
        let acceptors =
            acceptors.map_err(|source| Error::System { what: "use of a listener", source })?;

        // Before the first connection, whose name holds that of the node.
        #[cfg(feature = "redis")]
        let member = self.cluster.as_ref().map(Cluster::join).transpose().map_err(not_joined)?;
        let context = Context::new(self.guard.id(), self.settings, router.paths());
        let context = Arc::new(context.map_err(no_pipe)?);
        let connections = Connections::new(
            Arc::clone(&context),
            router,
            #[cfg(feature = "tls")]
            tls,
        );
        let watching = {
            let interval = context.settings.handler_warning / 4;
            let mut interval = interval.clamp(Duration::from_millis(10), Duration::from_secs(1));
            let manager = manager.filter(|manager| manager.watchdog.is_some());
            if let Some(time) = manager.as_ref().and_then(|manager| manager.watchdog) {
                // Often enough to be on time on a busy machine, and not so often that it has nothing else to do.
                interval = interval.min(time / 4).max(Duration::from_millis(10));
            }
            let connections = Arc::downgrade(&connections);
            context.watchdog.start(interval, move || {
                if let Some(connections) = connections.upgrade() {
                    connections.warn_of_long_handlers(interval);
                }
                if let Some(manager) = &manager {
                    manager.tell("WATCHDOG=1");
                }
            })
        };
        let watching = watching.map_err(no_thread)?;
        process::register(Arc::clone(&connections) as _);
        let mut accepting = Vec::new();
        for ((acceptor, waker), address) in acceptors.into_iter().zip(local_addrs.clone()) {
            let thread = thread::Builder::new()
                .name("rwf-accept".to_owned())
                // It needs less, but if the system has no stacks of this size the start fails now, and not each connection
                // later.
                .stack_size(context.settings.stack_size)
                .spawn({
                    let connections = Arc::clone(&connections);
                    move || connections.accept_all(acceptor, address)
                });
            let thread = thread.map_err(|source| {
                context.stop();
                context.watchdog.stop();
                process::retire(context.id);
                no_thread(source)
            })?;
            accepting.push((thread, waker));
        }
        if local_addrs.is_empty() {
            contained(
                || log::info!(target: "rwf::server", "serving what is handed over address={NOWHERE}"),
            );
        }
        for address in &local_addrs {
            let scheme = match address.as_tcp() {
                Some(_) if is_secure => "https://",
                Some(_) => "http://",
                None => "",
            };
            contained(|| {
                log::info!(
                    target: "rwf::server",
                    "listening on {scheme}{address} address={address}"
                )
            });
        }
        let threads = Threads {
            accepting,
            watching,
            #[cfg(feature = "redis")]
            member,
            guard: self.guard,
        };
        Ok(ServerHandle::new(local_addrs, connections, threads))
    }
}

#[cfg(feature = "redis")]
fn not_joined(error: NotJoined) -> Error {
    match error {
        NotJoined::Setting(Unfit { name, reason }) => Error::Setting { name, reason },
        NotJoined::Redis { address, reason } => Error::Cluster { address, reason },
        NotJoined::Thread(source) => Error::System { what: "thread", source },
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
    use std::net::TcpListener;

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
