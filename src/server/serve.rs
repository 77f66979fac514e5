//! One connection's life in HTTP: requests in order, each to its controller, until one becomes a WebSocket or the end.

use std::fmt;
use std::io;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::contained::contained;
use crate::base::deadline;
use crate::base::rate::TooEarly;
use crate::base::shown::Shown;
use crate::controller::connection::{Begun, Connection, Context};
use crate::controller::error::Error;
use crate::controller::executor::block_on;
use crate::controller::refusal::Refusal;
use crate::controller::request::Request;
use crate::controller::slowest::Call;
use crate::http::file::FilePart;
use crate::http::method::Method;
use crate::http::parser::{Parsed, Parser, Phase, Step};
use crate::http::peer::is_our_host;
use crate::http::rejection::{Rejection, RequestLimits};
use crate::http::response::Response;
use crate::http::status::Status;
#[cfg(feature = "tls")]
use crate::net::tls::{Stage, Tls};
use crate::server::router::{NotFound, Route, Router};

/// The type of the record with which TLS begins (RFC 8446 §5.1), and no request does.
const TLS_HANDSHAKE: u8 = 22;
/// The answer to a client that does not speak TLS and has to.
#[cfg(feature = "tls")]
const SPEAK_TLS: &str = "This port speaks TLS: ask for https:// or wss://, not http:// or ws://.\n";
/// How long a client may take at most to end too, once it has its last answer.
const MAX_LINGER: Duration = Duration::from_secs(5);

/// Serves `connection` to its end, on the calling thread. `opening` is when its first request's head has to be there.
pub(crate) fn serve(connection: &Arc<Connection>, router: &Router, opening: Instant) {
    let settings = &connection.context.settings;
    let limits = RequestLimits {
        max_head_size: settings.max_head_size,
        max_headers: settings.max_headers,
        max_body_size: settings.max_body_size,
    };
    let mut exchange = Exchange { connection, router, parser: Parser::new(limits) };
    // A new connection has one deadline for its whole first head; later ones begin with their first byte.
    let mut deadlines = Deadlines { first_byte: opening, head: Some(opening) };
    loop {
        let next = match exchange.read_request(deadlines) {
            Ok(Some(request)) => exchange.answer(request),
            Ok(None) => {
                let _ = connection.stream.finish_writing();
                return;
            }
            Err(rejection) => exchange.reject(&rejection),
        };
        match next {
            Next::Request => {
                let idle = deadline::after(settings.idle_timeout);
                deadlines = Deadlines { first_byte: idle, head: None };
            }
            Next::End => return connection.linger(settings.idle_timeout.min(MAX_LINGER)),
            Next::Nothing => return,
        }
    }
}

/// What comes after a response.
enum Next {
    /// The connection is kept for another request.
    Request,
    /// The connection is closed in good order.
    End,
    /// The connection has ended already.
    Nothing,
}

/// Until when a request has to begin, and its head to be whole.
#[derive(Clone, Copy)]
struct Deadlines {
    first_byte: Instant,
    /// `None` for `open_timeout` after the first byte.
    head: Option<Instant>,
}

struct Exchange<'a> {
    connection: &'a Arc<Connection>,
    router: &'a Router,
    parser: Parser,
}

impl<'a> Exchange<'a> {
    /// Reads until a request is whole; `None` when the client leaves or stays silent between requests.
    ///
    /// Apart, like all that ends before a controller is called or begins after it: a connection keeps the pages that its
    /// stack has once needed, and a WebSocket stays in its controller.
    #[inline(never)]
    fn read_request(&mut self, deadlines: Deadlines) -> Result<Option<Box<Parsed>>, Rejection> {
        let settings = &self.connection.context.settings;
        let mut phase = Phase::Idle;
        let mut deadline = deadlines.first_byte;
        let mut is_last = false;
        loop {
            match self.parser.next()? {
                Step::Request(request) => return Ok(Some(request)),
                Step::Continue => {
                    let permission = b"HTTP/1.1 100 Continue\r\n\r\n";
                    if self.write([permission, b""]).is_err() {
                        return Ok(None);
                    }
                }
                Step::NeedsInput => {}
            }
            if self.parser.phase() != phase {
                // One deadline for a whole head and one for a whole body: a client that sends a byte now and then
                // would never miss a deadline for single reads.
                phase = self.parser.phase();
                deadline = match phase {
                    Phase::Idle => deadlines.first_byte,
                    Phase::Head => {
                        deadlines.head.unwrap_or_else(|| deadline::after(settings.open_timeout))
                    }
                    Phase::Body => deadline::after(settings.body_timeout),
                };
            }
            if is_last {
                return match phase {
                    Phase::Idle => Ok(None),
                    Phase::Head | Phase::Body => {
                        Err(rejection(Status::SERVICE_UNAVAILABLE, "the server shuts down"))
                    }
                };
            }
            // After a stop one more read takes what has arrived. A client that sends without a pause gets no further
            // one.
            is_last = self.connection.context.is_stopping();
            let read = self.read(deadline);
            if !self.may_go_on(phase, &read) {
                return Ok(None);
            }
            match read {
                Ok(0) if phase == Phase::Idle => return Ok(None),
                Ok(0) if self.connection.context.is_stopping() => {
                    return Err(rejection(Status::SERVICE_UNAVAILABLE, "the server shuts down"));
                }
                Ok(0) => return Err(rejection(Status::BAD_REQUEST, "the request ends midway")),
                Ok(_) => {}
                // A record of TLS comes in parts.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => is_last = false,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => is_last = true,
                Err(error) if error.kind() == io::ErrorKind::TimedOut && phase != Phase::Idle => {
                    return Err(rejection(Status::REQUEST_TIMEOUT, "the request took too long"));
                }
                Err(_) => return Ok(None),
            }
        }
    }

    fn read(&mut self, deadline: Instant) -> io::Result<usize> {
        let remaining = deadline::until(deadline);
        if remaining.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let Connection { stream, context, .. } = &**self.connection;
        self.parser.fill(|buffer| stream.read_unless(&context.stop, buffer, remaining))
    }

    /// Whether client and server agree about TLS. If not, the log says so, and a client that would understand an answer gets
    /// one.
    fn may_go_on(&mut self, phase: Phase, read: &io::Result<usize>) -> bool {
        #[cfg(feature = "tls")]
        if let Some(stage) = self.connection.stream.tls().map(Tls::stage) {
            match (read, stage) {
                (_, Stage::Bypassed) => {
                    self.refuse_tls("400", &"it does not speak TLS, and this port does");
                    let response = Response::bad_request().text(SPEAK_TLS).no_sniffing();
                    if matches!(self.send(&response, false, Some("close")), Next::End) {
                        self.linger_briefly();
                    }
                }
                (Err(error), Stage::Failed(_)) => {
                    self.refuse_tls("TLS", error);
                    // The alert tells the client why, which may have sent more than was read.
                    self.linger_briefly();
                }
                (Err(error), Stage::Handshake) if error.kind() == io::ErrorKind::TimedOut => {
                    self.refuse_tls("TLS", &"the handshake took too long");
                }
                _ => return true,
            }
            return false;
        }
        let is_first = phase == Phase::Idle && read.is_ok();
        if is_first && self.parser.first_byte() == Some(TLS_HANDSHAKE) {
            self.refuse_tls("TLS", &"it speaks TLS, and this port does not; see `Server::tls`");
            return false;
        }
        true
    }

    /// For one that has come to no request, no longer than it had for that.
    #[cfg(feature = "tls")]
    fn linger_briefly(&self) {
        let open_timeout = self.connection.context.settings.open_timeout;
        self.connection.linger(open_timeout.min(MAX_LINGER));
    }

    /// `what` is the answer, or that it was TLS.
    fn refuse_tls(&self, what: &str, reason: &dyn fmt::Display) {
        let (id, peer) = (self.connection.id, self.connection.peer());
        self.note_refusal(Refusal::Tls);
        contained(|| {
            log::info!(
                target: "rwf::http",
                "refused {what} reason={} connection={id} peer={peer}: {}",
                Refusal::Tls,
                Shown::text(reason)
            );
        });
    }

    /// Hands a request to its controller and sends what that answers.
    #[inline(never)]
    fn answer(&mut self, parsed: Box<Parsed>) -> Next {
        let began = Instant::now();
        let (route, request) = match self.begin(parsed, began) {
            Ok(begun) => begun,
            Err(rejection) => return self.reject(&rejection),
        };
        let response = self.respond(route, &request);
        if response.is_over() {
            return Next::Nothing;
        }
        self.complete(route, &request, response, began)
    }

    /// Finds the controller of a request, and makes of it what controllers get.
    #[inline(never)]
    fn begin(
        &mut self,
        parsed: Box<Parsed>,
        began: Instant,
    ) -> Result<(Option<&'a Route>, Request), Rejection> {
        let (route, parameters) = match self.router.find(&parsed.path) {
            Ok((route, parameters)) => (Some(route), parameters),
            Err(NotFound::NoRoute) => (None, Vec::new()),
            Err(NotFound::Undecodable) => {
                return Err(rejection(Status::BAD_REQUEST, "the path cannot be decoded"));
            }
        };
        let settings = &self.connection.context.settings;
        let host = parsed.headers.get("Host").unwrap_or("localhost");
        if !is_our_host(host, self.connection.is_on_loopback, &settings.allowed_hosts) {
            let host = Shown::value(host);
            let reason = format!("the host {host:?} is not this one; see `allow_host`");
            return Err(Rejection { status: Status::FORBIDDEN, reason });
        }
        let (method, path) = (parsed.method, parsed.path.clone());
        let (number, name) = (route.map(Route::number), name_of(route));
        self.connection.begin_request(Begun { method, path, route: number, name, at: began });
        // The controller may go on with the connection, so it gets what came behind the request too.
        let rest = self.parser.take_rest();
        Ok((route, Request::new(parsed, parameters, self.connection, rest)))
    }

    fn respond(&self, route: Option<&Route>, request: &Request) -> Response {
        let Some(route) = route else {
            self.note_refusal(Refusal::NotFound);
            return Response::not_found();
        };
        match self.refuse_handshake(request) {
            Some(refusal) => refusal,
            None => self.call(route, request),
        }
    }

    /// Logs and sends an answer.
    #[inline(never)]
    fn complete(
        &mut self,
        route: Option<&Route>,
        request: &Request,
        response: Response,
        began: Instant,
    ) -> Next {
        // Those of the request come with a 500 too, and may themselves be the reason for one.
        let mut response = request.add_headers_to(response.or_internal_error()).or_internal_error();
        let (name, took) = (name_of(route), began.elapsed());
        self.connection.note_handler(name, Call::Request, took);
        self.log(request, name, &mut response, took);
        let next = if let Ok(upgrade) = request.take_upgrade() {
            self.parser.restore(upgrade.rest);
            if let Some(cookie) = request.visitor_cookie() {
                response = response.cookie(cookie);
            }
            self.send_answer(request, &response)
        } else {
            // A controller ran the WebSocket and then answered as if it had not.
            Next::Nothing
        };
        // Its body may be memory of the program's own, with a destructor that panics.
        contained(|| drop(response));
        next
    }

    fn send_answer(&self, request: &Request, response: &Response) -> Next {
        let keeps = keeps_alive(request.parsed())
            && !response.wants_close()
            && !self.connection.context.is_stopping();
        let connection = match (keeps, request.parsed().is_http_11) {
            (true, true) => None,
            (true, false) => Some("keep-alive"),
            (false, _) => Some("close"),
        };
        match self.send(response, request.method() == Method::Head, connection) {
            Next::End if keeps => Next::Request,
            next => next,
        }
    }

    /// The answer to a client that wants a WebSocket and has come too often; before the controller, which may do
    /// expensive things to find out who the client is.
    #[inline(never)]
    fn refuse_handshake(&self, request: &Request) -> Option<Response> {
        let Context { settings, rates, .. } = &*self.connection.context;
        let rate = settings.handshake_rate_per_peer?;
        if !request.parsed().headers.has_token("Upgrade", "websocket") {
            return None;
        }
        let TooEarly(wait) = rates.note_handshake(&request.client(), settings).err()?;
        self.note_refusal(Refusal::HandshakeRate);
        // In whole seconds (RFC 9110 §10.2.3), of which the last has begun.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let response = Response::too_many_requests()
            .header("Retry-After", seconds.to_string())
            .append_header("Connection", "close")
            .note(format!("too many handshakes: an address may send {rate}"));
        Some(response)
    }

    /// Calls a controller: its error or panic becomes an answer, and a note for the log.
    #[inline(never)]
    fn call(&self, route: &Route, request: &Request) -> Response {
        self.connection.enter_handler(Call::Request);
        let response = contained(|| {
            // An error runs code of the program's too, when it is written as text and when it is dropped.
            block_on(route.controller().handle(request)).unwrap_or_else(answer_to)
        });
        self.connection.leave_handler();
        response.unwrap_or_else(|| Response::internal_error().note("the controller panicked"))
    }

    /// One line for each request. The query stays out of it: tokens travel there.
    fn log(&self, request: &Request, name: &str, response: &mut Response, took: Duration) {
        let (method, path) = (request.method(), Shown::value(request.path()));
        let (name, id, peer) = (Shown::name(name), self.connection.id, self.connection.peer());
        let note = response.take_note();
        let note = note.map_or_else(String::new, |note| format!(": {}", Shown::text(note)));
        let status = response.status_code().code();
        let level = if status == 500 { log::Level::Error } else { log::Level::Info };
        contained(|| {
            log::log!(
                target: "rwf::http",
                level,
                "{method} {path} {status} controller={name} took={took:.1?} connection={id} \
                 peer={peer}{note}"
            );
        });
    }

    /// Answers a request that makes no sense; where it ends is not known, so the connection ends with it.
    #[inline(never)]
    fn reject(&self, rejection: &Rejection) -> Next {
        let Rejection { status, reason } = rejection;
        let (id, peer) = (self.connection.id, self.connection.peer());
        let reason = Shown::text(reason);
        let code = status.code();
        let refusal = Refusal::of_request(*status);
        self.note_refusal(refusal);
        contained(|| {
            log::info!(
                target: "rwf::http",
                "refused {code} reason={refusal} connection={id} peer={peer}: {reason}"
            );
        });
        let response = Response::new().status(*status).text(status.reason()).no_sniffing();
        self.send(&response, self.parser.is_head(), Some("close"))
    }

    fn note_refusal(&self, reason: Refusal) {
        self.connection.context.counters.note_refusal(reason);
    }

    fn send(&self, response: &Response, for_head: bool, connection: Option<&str>) -> Next {
        let (head, body) = response.encode(for_head, connection);
        let sent = match response.body_file(for_head) {
            Some(part) => self.write_file(&head, part),
            None => self.write([&head, body]),
        };
        match sent {
            Ok(()) => Next::End,
            Err(error) => {
                let (id, peer) = (self.connection.id, self.connection.peer());
                contained(|| {
                    log::info!(
                        target: "rwf::http",
                        "cannot answer connection={id} peer={peer}: {error}"
                    )
                });
                self.connection.note_loss();
                Next::Nothing
            }
        }
    }

    /// Writes a file behind a head. A client that takes a piece after the other is no stalled one, however long it takes for
    /// all; a stop waits for it as for any answer.
    fn write_file(&self, head: &[u8], part: &FilePart) -> io::Result<()> {
        let mut head = head;
        part.write_to(|piece| self.write([mem::take(&mut head), piece]))?;
        // Of an empty file there is no piece.
        self.write([head, b""])
    }

    fn write(&self, parts: [&[u8]; 2]) -> io::Result<()> {
        let timeout: Duration = self.connection.context.settings.websocket.write_timeout;
        self.connection.stream.write_all(parts, timeout)
    }
}

/// The name of a route's controller; one word where there is none, as in all values of the log.
fn name_of(route: Option<&Route>) -> &'static str {
    route.map_or("none", Route::name)
}

#[inline(never)]
#[expect(clippy::needless_pass_by_value, reason = "it is dropped where its code is contained")]
fn answer_to(error: Error) -> Response {
    error.answer().note(error.to_string())
}

fn rejection(status: Status, reason: &str) -> Rejection {
    Rejection { status, reason: reason.to_owned() }
}

/// Whether the client wants to keep the connection (RFC 9112 §9.3).
fn keeps_alive(request: &Parsed) -> bool {
    if request.is_http_11 {
        !request.headers.has_token("Connection", "close")
    } else {
        request.headers.has_token("Connection", "keep-alive")
            && !request.headers.has_token("Connection", "close")
    }
}
