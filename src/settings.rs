//! The limits and timeouts of a server, with their defaults; `Server` has the setters and their documentation.

use std::net::IpAddr;
use std::time::Duration;

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
    pub(crate) max_queued_bytes: usize,
    pub(crate) handler_warning: Duration,
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) trusted_proxies: Vec<IpAddr>,
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
            max_queued_bytes: 256 << 20,
            handler_warning: Duration::from_secs(30),
            allowed_hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            backlog: 4096,
            stack_size: 2 << 20,
            spare_threads: 16,
            no_delay: true,
            session_cookie: Some("rwf_session".to_owned()),
            websocket: Websocket::default(),
        }
    }
}

impl Settings {
    /// The first setting that makes no sense, with what to do about it.
    pub(crate) fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let zero = "has to be more than zero";
        let times = [
            ("open_timeout", self.open_timeout),
            ("body_timeout", self.body_timeout),
            ("idle_timeout", self.idle_timeout),
            ("handler_warning", self.handler_warning),
        ];
        if let Some((name, _)) = times.into_iter().find(|(_, time)| time.is_zero()) {
            return Err((name, zero));
        }
        let counts = [
            ("max_connections", self.max_connections),
            ("max_connections_per_peer", self.max_connections_per_peer),
            ("max_connections_per_session", self.max_connections_per_session),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err((name, zero));
        }
        if !self.session_cookie.as_deref().is_none_or(crate::http::headers::is_token) {
            return Err(("session_cookie", "has to be letters, digits, `-` or `_`"));
        }
        self.websocket.check()
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
    fn a_cookie_name_has_to_be_a_token() {
        let settings = Settings { session_cookie: Some("a b".to_owned()), ..Settings::default() };
        assert_eq!(settings.check().unwrap_err().0, "session_cookie");
    }
}
