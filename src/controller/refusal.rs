//! Why connections, requests and handshakes are refused, in one word each.

use std::fmt;

use crate::http::status::Status;

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident $word:literal)*) => {
        /// Why the server refused a connection, a request or a handshake by itself, before a controller or beside one.
        /// Its `Display` is one word, which metrics have as their label.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Refusal {
            $($(#[$doc])* $name,)*
        }

        impl Refusal {
            /// All of them, in order.
            pub(crate) const ALL: [Self; [$($word),*].len()] = [$(Self::$name),*];
        }

        /// The word, which stays.
        impl fmt::Display for Refusal {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$name => $word,)*
                })
            }
        }
    };
}

refusals! {
    /// 503: there are [`max_connections`](crate::http::Server::max_connections). `max_connections`.
    MaxConnections "max_connections"
    /// 503: there are [`max_connections_per_peer`](crate::http::Server::max_connections_per_peer) of the client's address.
    /// `max_connections_per_peer`.
    MaxConnectionsPerPeer "max_connections_per_peer"
    /// 1013: there are [`max_connections_per_session`](crate::http::Server::max_connections_per_session) of the client's
    /// session. The WebSocket is counted as one that the program closed, too. `max_connections_per_session`.
    MaxConnectionsPerSession "max_connections_per_session"
    /// 503: the system gives no thread. `no_thread`.
    NoThread "no_thread"
    /// 429: the [`handshake_rate_per_peer`](crate::http::Server::handshake_rate_per_peer) is used up. `handshake_rate`.
    HandshakeRate "handshake_rate"
    /// 403: a page of another site wants a WebSocket. `origin`.
    Origin "origin"
    /// 400, 405 or 426: the request that came to a WebSocket endpoint opens none. `handshake`.
    Handshake "handshake"
    /// 403: the request is for a host that is not this one; see [`allow_host`](crate::http::Server::allow_host). `host`.
    Host "host"
    /// 404: no route has the path. `not_found`.
    NotFound "not_found"
    /// 400 and its like: the request makes no sense, or ends midway. `malformed`.
    Malformed "malformed"
    /// Without an answer: a [proxy](crate::http::Server::proxy_protocol) did not say whose connection it is. `proxy_header`.
    ProxyHeader "proxy_header"
    /// The client speaks TLS on a port that does not, or fails in its handshake: it is closed. Or it does not speak TLS on
    /// a port that does: 400. `tls`.
    Tls "tls"
    /// 413 or 431: head or body are over a limit. `too_large`.
    TooLarge "too_large"
    /// 408: the request took too long. `timeout`.
    Timeout "timeout"
    /// 503: the server shuts down. `shutdown`.
    Shutdown "shutdown"
}

impl Refusal {
    /// Why a request was answered with `status` that no controller has seen.
    pub(crate) fn of_request(status: Status) -> Self {
        match status {
            Status::FORBIDDEN => Self::Host,
            Status::REQUEST_TIMEOUT => Self::Timeout,
            Status::CONTENT_TOO_LARGE | Status::REQUEST_HEADER_FIELDS_TOO_LARGE => Self::TooLarge,
            Status::SERVICE_UNAVAILABLE => Self::Shutdown,
            _ => Self::Malformed,
        }
    }

    /// Why a handshake was answered with `status`.
    pub(crate) fn of_handshake(status: Status) -> Self {
        if status == Status::FORBIDDEN { Self::Origin } else { Self::Handshake }
    }
}
