//! One connection's life in HTTP: requests in order, each to its controller, until one becomes a WebSocket or the end.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::contained::contained;
use crate::base::deadline;
use crate::base::rate::TooEarly;
use crate::base::shown::Shown;
use crate::controller::connection::{Connection, Context};
use crate::controller::executor::block_on;
use crate::controller::request::Request;
use crate::http::method::Method;
use crate::http::parser::{Parsed, Parser, Phase, Step};
use crate::http::peer::is_our_host;
use crate::http::rejection::{Rejection, RequestLimits};
use crate::http::response::Response;
use crate::http::status::Status;
use crate::server::router::{NotFound, Route, Router};

/// How long a client may take at most to end too, once it has its last answer.
const MAX_LINGER: Duration = Duration::from_secs(5);

/// Serves `connection` to its end, on the calling thread.
pub(crate) fn serve(connection: &Arc<Connection>, router: &Router) {
    let settings = &connection.context.settings;
    let limits = RequestLimits {
        max_head_size: settings.max_head_size,
        max_headers: settings.max_headers,
        max_body_size: settings.max_body_size,
    };
    let mut exchange = Exchange { connection, router, parser: Parser::new(limits) };
    // A new connection has one deadline for its whole first head; later ones begin with their first byte.
    let opening = deadline::after(settings.open_timeout);
    let mut deadlines = Deadlines { first_byte: opening, head: Some(opening) };
    loop {
        let next = match exchange.read_request(deadlines) {
            Ok(Some(request)) => exchange.answer(*request),
            Ok(None) => return,
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

impl Exchange<'_> {
    /// Reads until a request is whole; `None` when the client leaves or stays silent between requests.
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
            match self.read(deadline) {
                Ok(0) if phase == Phase::Idle => return Ok(None),
                Ok(0) if self.connection.context.is_stopping() => {
                    return Err(rejection(Status::SERVICE_UNAVAILABLE, "the server shuts down"));
                }
                Ok(0) => return Err(rejection(Status::BAD_REQUEST, "the request ends midway")),
                Ok(_) => {}
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

    /// Hands a request to its controller and sends what that answers.
    fn answer(&mut self, parsed: Parsed) -> Next {
        let began = Instant::now();
        let is_http_11 = parsed.is_http_11;
        let (route, parameters) = match self.router.find(&parsed.path) {
            Ok((route, parameters)) => (Some(route), parameters),
            Err(NotFound::NoRoute) => (None, Vec::new()),
            Err(NotFound::Undecodable) => {
                return self.reject(&rejection(Status::BAD_REQUEST, "the path cannot be decoded"));
            }
        };
        let Context { settings, local_addr, .. } = &*self.connection.context;
        let host = parsed.headers.get("Host").unwrap_or("localhost");
        if !is_our_host(host, *local_addr, &settings.allowed_hosts) {
            let host = Shown::value(host);
            let reason = format!("the host {host:?} is not this one; see `allow_host`");
            return self.reject(&Rejection { status: Status::FORBIDDEN, reason });
        }
        // The controller may go on with the connection, so it gets what came behind the request too.
        let rest = self.parser.take_rest();
        let request = Request::new(parsed, parameters, self.connection, rest);
        let mut response = match route {
            Some(route) => match self.refuse_handshake(&request) {
                Some(refusal) => refusal,
                None => self.call(route, &request),
            },
            None => Response::not_found(),
        };
        if response.is_over() {
            return Next::Nothing;
        }
        response = response.or_internal_error();
        let name = route.map_or("no route", Route::name);
        self.log(&request, name, &mut response, began.elapsed());
        let Ok(upgrade) = request.take_upgrade() else {
            // A controller ran the WebSocket and then answered as if it had not.
            return Next::Nothing;
        };
        self.parser.restore(upgrade.rest);
        if let Some(cookie) = request.visitor_cookie() {
            response = response.cookie(cookie);
        }
        let keeps = keeps_alive(request.parsed())
            && !response.wants_close()
            && !self.connection.context.is_stopping();
        let connection = match (keeps, is_http_11) {
            (true, true) => None,
            (true, false) => Some("keep-alive"),
            (false, _) => Some("close"),
        };
        match self.send(&response, request.method() == Method::Head, connection) {
            Next::End if keeps => Next::Request,
            next => next,
        }
    }

    /// The answer to a client that wants a WebSocket and has come too often; before the controller, which may do
    /// expensive things to find out who the client is.
    fn refuse_handshake(&self, request: &Request) -> Option<Response> {
        let Context { settings, rates, .. } = &*self.connection.context;
        let rate = settings.handshake_rate_per_peer?;
        if !request.parsed().headers.has_token("Upgrade", "websocket") {
            return None;
        }
        let TooEarly(wait) = rates.note_handshake(request.client_ip(), settings).err()?;
        // In whole seconds (RFC 9110 §10.2.3), of which the last has begun.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let response = Response::too_many_requests()
            .header("Retry-After", seconds.to_string())
            .append_header("Connection", "close")
            .note(format!("too many handshakes: an address may send {rate}"));
        Some(response)
    }

    /// Calls a controller: its error or panic becomes an answer, and a note for the log.
    fn call(&self, route: &Route, request: &Request) -> Response {
        let (method, path) = (request.method(), Shown::value(request.path()));
        self.connection
            .set_task(format!("{method} {path} connection={}", self.connection.id).into());
        self.connection.enter_handler();
        let result = contained(|| {
            // An error runs code of the program's too, when it is written as text and when it is dropped.
            block_on(route.controller().handle(request))
                .map_err(|error| (error.status(), error.to_string()))
        });
        self.connection.leave_handler();
        match result {
            Some(Ok(response)) => response,
            Some(Err((status, text))) => {
                Response::new().status(status).text(status.reason()).note(text)
            }
            None => Response::internal_error().note("the controller panicked"),
        }
    }

    /// One line for each request. The query stays out of it: tokens travel there.
    fn log(&self, request: &Request, name: &str, response: &mut Response, took: Duration) {
        let (method, path) = (request.method(), Shown::value(request.path()));
        let Connection { id, peer, .. } = &**self.connection;
        let note = response.take_note();
        let note = note.map_or_else(String::new, |note| format!(": {}", Shown::text(note)));
        let status = response.status_code().code();
        let level = if status == 500 { log::Level::Error } else { log::Level::Info };
        contained(|| {
            log::log!(
                level,
                "{method} {path} {status} controller={name} took={took:.1?} connection={id} \
                 peer={peer}{note}"
            );
        });
    }

    /// Answers a request that makes no sense; where it ends is not known, so the connection ends with it.
    fn reject(&self, rejection: &Rejection) -> Next {
        let Rejection { status, reason } = rejection;
        let (Connection { id, peer, .. }, reason) = (&**self.connection, Shown::text(reason));
        let code = status.code();
        contained(|| log::info!("refused {code} connection={id} peer={peer}: {reason}"));
        let response = Response::new().status(*status).text(status.reason()).no_sniffing();
        self.send(&response, self.parser.is_head(), Some("close"))
    }

    fn send(&self, response: &Response, for_head: bool, connection: Option<&str>) -> Next {
        let (head, body) = response.encode(for_head, connection);
        match self.write([&head, body]) {
            Ok(()) => Next::End,
            Err(error) => {
                let Connection { id, peer, .. } = &**self.connection;
                contained(|| log::info!("cannot answer connection={id} peer={peer}: {error}"));
                self.connection.note_loss();
                Next::Nothing
            }
        }
    }

    fn write(&self, parts: [&[u8]; 2]) -> io::Result<()> {
        let timeout: Duration = self.connection.context.settings.websocket.write_timeout;
        self.connection.stream.write_all(parts, timeout)
    }
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
