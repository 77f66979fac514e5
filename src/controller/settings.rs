//! The limits and timeouts of a server, with their defaults; `Server` has the setters and their documentation.

use std::time::Duration;

use crate::base::rate::Rate;
use crate::base::rule::{self, Checked};
use crate::http::headers::is_token;
use crate::http::host::is_literal;
use crate::http::peer::Proxy;
use crate::websocket::settings::Websocket;

/// The values of one server.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) open_timeout: Duration,
    pub(crate) body_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) max_head_size: usize,
    pub(crate) max_headers: usize,
    pub(crate) max_body_size: usize,
    pub(crate) max_connections: usize,
    pub(crate) max_connections_per_peer: usize,
    pub(crate) max_connections_per_session: usize,
    pub(crate) handshake_rate_per_peer: Option<Rate>,
    pub(crate) max_queued_bytes: usize,
    pub(crate) handler_warning: Duration,
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) trusted_proxies: Vec<Proxy>,
    pub(crate) proxy_protocol: Vec<Proxy>,
    pub(crate) ipv6_only: bool,
    pub(crate) unix_mode: u32,
    pub(crate) backlog: u32,
    pub(crate) stack_size: usize,
    pub(crate) spare_threads: usize,
    pub(crate) no_delay: bool,
    /// Its name, where there is one.
    pub(crate) session_cookie: Option<String>,
    pub(crate) websocket: Websocket,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            open_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            shutdown_timeout: Duration::from_secs(10),
            max_head_size: 16 << 10,
            max_headers: 100,
            max_body_size: 1 << 20,
            max_connections: 10_000,
            max_connections_per_peer: usize::MAX,
            max_connections_per_session: usize::MAX,
            handshake_rate_per_peer: None,
            max_queued_bytes: 256 << 20,
            handler_warning: Duration::from_secs(30),
            allowed_hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_protocol: Vec::new(),
            ipv6_only: false,
            unix_mode: 0o600,
            backlog: 4096,
            stack_size: 2 << 20,
            spare_threads: 16,
            no_delay: true,
            session_cookie: Some("rwf_session".to_owned()),
            websocket: Websocket::default(),
        }
    }
}

/// The shortest request that there is: `GET / HTTP/1.0` and two line ends.
const SHORTEST_REQUEST: usize = 18;
/// A panic with its backtrace needs 40 KiB of stack, and handlers need some of it too.
const LEAST_STACK: usize = 128 << 10;
const MOST_STACK: usize = 1 << 30;

impl Settings {
    /// The first setting that cannot work. Each has a line here, so that none is forgotten.
    pub(crate) fn check(&self) -> Checked {
        let Self {
            open_timeout,
            body_timeout,
            idle_timeout,
            // Zero is at once.
            shutdown_timeout: _,
            max_head_size,
            max_headers,
            // Zero is none.
            max_body_size: _,
            max_connections,
            max_connections_per_peer,
            max_connections_per_session,
            handshake_rate_per_peer,
            // Zero is one message for each client that has to wait.
            max_queued_bytes: _,
            handler_warning,
            allowed_hosts,
            trusted_proxies: _,
            proxy_protocol: _,
            ipv6_only: _,
            unix_mode,
            // The system makes of it what it can.
            backlog: _,
            stack_size,
            // Zero is none.
            spare_threads: _,
            no_delay: _,
            session_cookie,
            websocket,
        } = self;
        rule::time("open_timeout", *open_timeout)?;
        rule::time("body_timeout", *body_timeout)?;
        rule::time("idle_timeout", *idle_timeout)?;
        rule::time("handler_warning", *handler_warning)?;
        rule::at_least("max_head_size", *max_head_size, SHORTEST_REQUEST)?;
        rule::at_least("max_headers", *max_headers, 1)?;
        rule::at_least("max_connections", *max_connections, 1)?;
        rule::at_least("max_connections_per_peer", *max_connections_per_peer, 1)?;
        rule::at_least("max_connections_per_session", *max_connections_per_session, 1)?;
        rule::rate("handshake_rate_per_peer", *handshake_rate_per_peer)?;
        rule::mode("unix_mode", *unix_mode)?;
        rule::between("stack_size", *stack_size, LEAST_STACK, MOST_STACK)?;
        rule::all(
            "allow_host",
            allowed_hosts,
            is_literal,
            "has to be the name of one host, without a port, wildcards or escapes",
        )?;
        rule::all(
            "session_cookie",
            session_cookie.as_slice(),
            is_token,
            "has to be a name without spaces or separators",
        )?;
        websocket.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_sound() {
        assert_eq!(Settings::default().check(), Ok(()));
    }

    #[test]
    fn an_allowed_host_is_one_that_a_request_can_name() {
        let check = |host: &str| {
            Settings { allowed_hosts: vec![host.to_owned()], ..Settings::default() }.check()
        };
        for host in ["chat.example", "under_score.EXAMPLE.", "10.0.0.1", "[::5]", "[0:0::5]"] {
            assert_eq!(check(host), Ok(()), "{host:?}");
        }
        for host in ["*", "*.example.com", "%41.com", "a:80", "::5", "[::5", "", "a b", "http://a"]
        {
            let unfit = check(host).expect_err(host);
            assert_eq!(unfit.name, "allow_host", "{host:?}");
            assert!(unfit.reason.contains(&format!("{host:?}")), "{}", unfit.reason);
        }
    }

    #[test]
    fn a_cookie_name_has_to_be_a_token() {
        let settings = Settings { session_cookie: Some("a b".to_owned()), ..Settings::default() };
        assert_eq!(settings.check().unwrap_err().name, "session_cookie");
    }
}
