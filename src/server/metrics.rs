//! A controller that shows a server's numbers to Prometheus.

use async_trait::async_trait;

use crate::controller::error::Error;
use crate::controller::http::Controller;
use crate::controller::prometheus;
use crate::controller::request::Request;
use crate::http::method::Method;
use crate::http::response::Response;
use crate::server::process;

/// Shows what is going on in its server to [Prometheus](https://prometheus.io), in the text format that its like read too.
///
/// ```
/// use rwf::http::Server;
/// use rwf::prelude::*;
/// use rwf::stats::Metrics;
///
/// # fn chat(mut socket: Socket) -> Result<(), Error> { socket.iter().for_each(drop); Ok(()) }
/// let routes = vec![route!("/chat" => websocket(chat)), route!("/metrics" => Metrics::new())];
/// # let _ = Server::new(routes);
/// ```
///
/// **It is not for the public**: routes and handlers have their names in it, and what a server has to do is nobody
/// else's business. Give it to a server of its own that listens where only Prometheus comes, with [`Metrics::of_process`],
/// have the proxy refuse the path, or ask for a password in a controller that calls this one.
///
/// | name | type | labels | what |
/// | --- | --- | --- | --- |
/// | `rwf_open_connections` | gauge | | TCP connections that are open |
/// | `rwf_connections_total` | counter | | TCP connections that were accepted |
/// | `rwf_http_requests_total` | counter | `route` | HTTP requests, those that opened WebSockets included |
/// | `rwf_open_websockets` | gauge | `route` | WebSockets that are open |
/// | `rwf_websockets_total` | counter | `route` | WebSockets that were opened |
/// | `rwf_messages_received_total` | counter | `route` | messages that came |
/// | `rwf_received_bytes_total` | counter | `route` | bytes of frames that came |
/// | `rwf_messages_sent_total` | counter | `route` | messages that went out |
/// | `rwf_sent_bytes_total` | counter | `route` | bytes of frames that went out |
/// | `rwf_waiting_messages` | gauge | | messages that wait for clients |
/// | `rwf_waiting_bytes` | gauge | | for how many bytes they count |
/// | `rwf_writer_threads` | gauge | | threads that wait for slow clients |
/// | `rwf_messages_dropped_total` | counter | | messages dropped for newer ones |
/// | `rwf_messages_replaced_total` | counter | | messages that a newer one under the same key replaced |
/// | `rwf_messages_lost_total` | counter | | messages given up with their connection |
/// | `rwf_websockets_closed_total` | counter | `cause` | WebSockets that ended; see [`Cause`](crate::websocket::Cause) |
/// | `rwf_refusals_total` | counter | `reason` | what was refused; see [`Refusal`](crate::stats::Refusal) |
/// | `rwf_handshake_seconds` | histogram | | from the head of a request to its 101 |
/// | `rwf_handler_seconds` | histogram | | how long handlers took; of messages that arrived together, the first |
/// | `rwf_slowest_handler_seconds` | gauge | `route`, `handler`, `call` | the slowest calls so far, at most ten |
///
/// `route` is a route's path as it was written, so that clients cannot make more of them. These are the numbers of
/// [`Stats`](crate::stats::Stats), which says more about them.
#[doc(alias = "prometheus")]
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    is_of_process: bool,
}

impl Metrics {
    /// Shows the server that a request came to. Where it came to none, because a test has
    /// [built](crate::http::Request::get) it, it shows the process.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Shows all servers of the process, as [`rwf::stats()`](crate::stats()) does.
    #[must_use]
    pub fn of_process() -> Self {
        Self { is_of_process: true }
    }
}

#[diagnostic::do_not_recommend]
#[async_trait]
impl Controller for Metrics {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        if !matches!(request.method(), Method::Get | Method::Head) {
            return Ok(Response::method_not_allowed().header("Allow", "GET, HEAD"));
        }
        let of_server = || process::stats_of(request.server()).unwrap_or_else(process::stats);
        let stats = if self.is_of_process { process::stats() } else { of_server() };
        let response = Response::new().text(prometheus::text(&stats));
        // What was true a moment ago is of no use to anybody.
        Ok(response
            .header("Content-Type", prometheus::CONTENT_TYPE)
            .header("Cache-Control", "no-store"))
    }
}
