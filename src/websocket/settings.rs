//! The settings of a WebSocket endpoint.

use std::time::Duration;

/// A derive macro that does nothing, beside the settings of the same name: `macros/src/derive.rs` says why. Left out of
/// the documentation, where a link to the settings would have two targets.
#[cfg(not(doc))]
pub use rwf_macros::Websocket;

use crate::base::rate::Rate;
use crate::base::rule::{self, Checked};
use crate::http::headers::is_token;
use crate::http::host::{is_literal, split_authority};
use crate::websocket::decoder::MessageLimits;
#[cfg(feature = "deflate")]
use crate::websocket::deflate::Deflate;
use crate::websocket::lag::Lag;

/// The settings of a WebSocket endpoint: for all of a server's endpoints
/// ([`Server::websocket`](crate::http::Server::websocket)), or for one
/// ([`WebsocketController::websocket`](crate::controller::WebsocketController::websocket)).
///
/// ```
/// use rwf::controller::Websocket;
/// use std::time::Duration;
///
/// let settings = Websocket::new()
///     .max_message_size(64 * 1024)
///     .ping_interval(Duration::from_secs(10))
///     .allow_origin("https://example.com")
///     .subprotocols(["chat.v2", "chat.v1"]);
/// # let _ = settings;
/// ```
#[doc(alias("WebsocketSettings", "WebsocketConfig"))]
#[derive(Debug, Clone)]
pub struct Websocket {
    pub(crate) max_message_size: usize,
    pub(crate) max_frame_size: Option<usize>,
    pub(crate) max_fragments: usize,
    pub(crate) read_buffer_size: usize,
    pub(crate) message_rate: Option<Rate>,
    pub(crate) byte_rate: Option<Rate>,
    pub(crate) message_rate_per_session: Option<Rate>,
    pub(crate) byte_rate_per_session: Option<Rate>,
    pub(crate) max_hold: Duration,
    pub(crate) outbox_bytes: usize,
    pub(crate) outbox_messages: usize,
    pub(crate) max_topics: usize,
    pub(crate) overflow: Overflow,
    pub(crate) max_lag: Option<Duration>,
    pub(crate) max_unsent_bytes: Option<usize>,
    pub(crate) ping_interval: Option<Duration>,
    pub(crate) ping_timeout: Duration,
    pub(crate) write_timeout: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) origins: Origins,
    pub(crate) subprotocols: Vec<String>,
    #[cfg(feature = "deflate")]
    pub(crate) deflate: Option<Deflate>,
}

/// What happens to a message that finds its receiver's outbox full.
#[doc(alias = "backpressure")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Overflow {
    /// The receiver is closed as too slow, with 1013, after what waits for it already. Before that the server tries
    /// whether the receiver takes something now.
    #[default]
    Close,
    /// The message is refused, which its sender learns from the error; the connection stays.
    Refuse,
    /// The messages that have waited longest are dropped until there is room, and the connection stays: for clients that
    /// want to know what is now, not all that was. A handler does not wait for its own client either. What is being written
    /// already is not dropped, so one message more than the limits say may wait.
    ///
    /// [`Outcome::dropped`](crate::comms::Outcome) tells a sender of it, [`Client::dropped`](crate::comms::Client::dropped)
    /// and [`Closed::dropped`](crate::websocket::Closed) how many they were of a client, and the log names clients that it
    /// happens to, and says how many they were when it is closed.
    ///
    /// Where clients have to get all of some messages, and the newest alone of others, rather send these with
    /// [`Comms::send_latest`](crate::comms::Comms::send_latest).
    DropOldest,
}

/// Which pages may open a WebSocket here.
#[derive(Debug, Clone)]
pub(crate) enum Origins {
    /// Those of the host that the request names, and these.
    SameHost(Vec<String>),
    Any,
}

impl Default for Websocket {
    fn default() -> Self {
        Self {
            max_message_size: 1 << 20,
            max_frame_size: None,
            max_fragments: 131_072,
            read_buffer_size: 8 << 10,
            message_rate: None,
            byte_rate: None,
            message_rate_per_session: None,
            byte_rate_per_session: None,
            max_hold: Duration::from_secs(30),
            outbox_bytes: 1 << 20,
            outbox_messages: usize::MAX,
            max_topics: 128,
            overflow: Overflow::Close,
            max_lag: None,
            max_unsent_bytes: None,
            ping_interval: Some(Duration::from_secs(20)),
            ping_timeout: Duration::from_secs(20),
            write_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            origins: Origins::SameHost(Vec::new()),
            subprotocols: Vec::new(),
            #[cfg(feature = "deflate")]
            deflate: Some(Deflate::default()),
        }
    }
}

impl Websocket {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The longest message that is taken, in bytes, over all its fragments; a longer one is closed with 1009.
    /// Default 1 MiB. Memory for it is taken as its bytes arrive.
    #[must_use]
    pub fn max_message_size(mut self, bytes: usize) -> Self {
        self.max_message_size = bytes;
        self
    }

    /// The longest frame that is taken, in bytes of payload; a longer one is closed with 1009. A compressed one may be an
    /// eighth longer, as what does not get shorter gets longer. Default: as long as a message may be.
    #[must_use]
    pub fn max_frame_size(mut self, bytes: usize) -> Self {
        self.max_frame_size = Some(bytes);
        self
    }

    /// The most frames that a message may be split into; one more is closed with 1008. Default 131,072.
    /// Empty fragments add nothing to the size of a message, so they need a limit of their own.
    #[must_use]
    pub fn max_fragments(mut self, fragments: usize) -> Self {
        self.max_fragments = fragments;
        self
    }

    /// The most bytes that one read takes, and so the size of a connection's input buffer. Default 8 KiB.
    /// Longer payloads are read straight into their message.
    #[must_use]
    pub fn read_buffer_size(mut self, bytes: usize) -> Self {
        self.read_buffer_size = bytes;
        self
    }

    /// How many messages a client may send over one connection. Default unlimited. One that sends more is held back:
    /// nothing is read from its next message on until the rate allows that, so that TCP stops it. See
    /// [`max_hold`](Self::max_hold) for how to have it closed instead.
    ///
    /// Messages count when they are read. What has come while a handler took its time is read at once, and the
    /// [burst](Rate::burst) has to allow for that. Pings and a close that come before the message too many are answered at
    /// once, and those behind it wait with it. A client that is held back is not taken for a silent one.
    ///
    /// Its answer to a [question](crate::comms::Comms::request) does not count: one for each that it was asked, also when it
    /// comes too late. While it may answer, one message more than the rate allows may be taken before it is held back.
    ///
    /// ```
    /// use rwf::controller::{Rate, Websocket};
    ///
    /// let chat = Websocket::new()
    ///     .message_rate(Rate::per_second(5).burst(20))
    ///     .byte_rate(Rate::per_second(64 << 10).burst(1 << 20));
    /// # let _ = chat;
    /// ```
    #[doc(alias("rate_limit", "throttle"))]
    #[must_use]
    pub fn message_rate(mut self, rate: impl Into<Option<Rate>>) -> Self {
        self.message_rate = rate.into();
        self
    }

    /// How many bytes a client may send over one connection. Default unlimited. One that sends more is held back: nothing
    /// more is read of what it sends until the rate allows it.
    ///
    /// Every byte counts when it is read, those of pings, empty messages, answers to questions and the frames' own headers
    /// too, and those that come along with the handshake. A pong does not count that answers a ping of the server's.
    #[doc(alias("rate_limit", "throttle"))]
    #[must_use]
    pub fn byte_rate(mut self, rate: impl Into<Option<Rate>>) -> Self {
        self.byte_rate = rate.into();
        self
    }

    /// How many messages a session may send over all its connections together; otherwise like
    /// [`message_rate`](Self::message_rate). Default unlimited.
    ///
    /// Those connections of a session to one server share the limit whose endpoints set the same rate: all of them where it
    /// is the server's, those of one endpoint where that has a rate of its own. What was used up is remembered until the
    /// whole burst is there again, so that nobody gets a new one by reconnecting. A guest may throw its cookie away and
    /// be another one.
    #[doc(alias("rate_limit", "throttle"))]
    #[must_use]
    pub fn message_rate_per_session(mut self, rate: impl Into<Option<Rate>>) -> Self {
        self.message_rate_per_session = rate.into();
        self
    }

    /// How many bytes a session may send over all its connections together, like [`byte_rate`](Self::byte_rate), and
    /// shared like [`message_rate_per_session`](Self::message_rate_per_session). Default unlimited.
    #[doc(alias("rate_limit", "throttle"))]
    #[must_use]
    pub fn byte_rate_per_session(mut self, rate: impl Into<Option<Rate>>) -> Self {
        self.byte_rate_per_session = rate.into();
        self
    }

    /// How long a client that sends more than the rates allow is held back for its next message or bytes. Default 30 s; one
    /// that would have to wait for longer is closed with 1008 and a reason that names the limit. Zero holds nobody back, and
    /// closes at once.
    ///
    /// It counts for each message, and for each part of a long one anew. Bytes are taken in parts that the rate allows soon,
    /// so that a [`byte_rate`](Self::byte_rate) slows a client down for as long as it sends, and closes it only where this is
    /// zero, or where other connections of its session have used up the rate for so long.
    ///
    /// Where it is zero, let the burst of a [`byte_rate`](Self::byte_rate) be longer than the longest message that honest
    /// clients send. That a client has left may be noticed no sooner than it would have been read from again.
    #[must_use]
    pub fn max_hold(mut self, time: Duration) -> Self {
        self.max_hold = time;
        self
    }

    /// The most bytes that wait for one client, default 1 MiB, where each message counts 64 more than it is long, and the
    /// newest value of a key 256 more and the length of the key; see [`Overflow`] for what comes then. A message that is longer still fits an empty outbox.
    #[doc(alias = "backpressure")]
    #[must_use]
    pub fn outbox_bytes(mut self, bytes: usize) -> Self {
        self.outbox_bytes = bytes;
        self
    }

    /// The most topics that a connection is [subscribed](crate::comms::Comms::subscribe) to, default 128: where clients
    /// choose them, they must not choose without end.
    #[must_use]
    pub fn max_topics(mut self, topics: usize) -> Self {
        self.max_topics = topics;
        self
    }

    /// The most messages that wait for one client, however short they are; see [`Overflow`] for what comes then. Default
    /// unlimited, because [`outbox_bytes`](Self::outbox_bytes) bounds the memory already. Set it where old messages are
    /// of no use to a client. One message always fits an empty outbox.
    #[must_use]
    pub fn outbox_messages(mut self, messages: usize) -> Self {
        self.outbox_messages = messages;
        self
    }

    /// What happens to a message that finds its receiver's outbox full. Default [`Overflow::Close`].
    #[doc(alias = "backpressure")]
    #[must_use]
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// How far newest values, which [`send_latest`](crate::comms::Comms::send_latest) sends, may run ahead of a client that
    /// cannot keep up; `None` for as far as the network and the client's system hold them. Default `None`.
    ///
    /// With a limit, pings go along with the values. While their answers come later by about this much than they could, new
    /// values wait, and are replaced by newer ones, and what is sent behind them waits with them: as long as the outbox has
    /// room. When it is full, they go out to make room, so that nothing is dropped or refused, and nobody closed, for values
    /// that wait. So a client that takes 20
    /// messages a second sees values that are at most 200 ms old with a limit of 50 ms, and one that keeps up gets all as
    /// before, over the internet too. Pings cost some bytes, and the client's answers have to be read: about one each
    /// for a client that cannot keep up, and one for 16 rounds of values else.
    ///
    /// Values wait up to [`ping_timeout`](Self::ping_timeout) for an answer, and go out then: to a client that answers no
    /// pings, one in that time.
    ///
    /// They wait no longer than this limit while answers cannot be seen, and go out without one until they can: while a
    /// handler of the client's runs, or its function does not receive; within a long frame of its, where no pong may stand;
    /// and while it is held back for a [`message_rate`](Self::message_rate) or a [`byte_rate`](Self::byte_rate), because its
    /// pongs stand behind what it has sent. The pongs themselves count for no rate.
    ///
    /// It counts what is on its way to the client's WebSocket library. A library that reads ahead, as browsers do, answers
    /// before its user has seen a message.
    #[must_use]
    pub fn max_lag(mut self, lag: impl Into<Option<Duration>>) -> Self {
        self.max_lag = lag.into();
        self
    }

    /// The most bytes that wait in the system to be sent to a client, beside those that are on their way; `None` for as many
    /// as the system likes, which may be megabytes. Default `None`.
    ///
    /// What waits there is not bounded by [`outbox_bytes`](Self::outbox_bytes), cannot be replaced or dropped any more, and
    /// is old when it arrives. 16 KiB costs a fast client little. It is `TCP_NOTSENT_LOWAT` on Linux, and elsewhere and over
    /// Unix sockets the size of the send buffer, which limits what is on its way too; Linux makes it 4.5 KiB at least.
    #[must_use]
    pub fn max_unsent_bytes(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.max_unsent_bytes = bytes.into();
        self
    }

    /// How long a client may be silent before it is sent a ping; `None` for never. Default 20 s, which also keeps
    /// proxies from cutting a quiet connection.
    #[doc(alias("heartbeat", "keepalive"))]
    #[must_use]
    pub fn ping_interval(mut self, interval: impl Into<Option<Duration>>) -> Self {
        self.ping_interval = interval.into();
        self
    }

    /// How long after an unanswered ping a silent client is given up. Default 20 s. Any byte counts as an answer, and so does
    /// a client that has a backlog and takes something of it.
    #[doc(alias("heartbeat", "keepalive"))]
    #[must_use]
    pub fn ping_timeout(mut self, timeout: Duration) -> Self {
        self.ping_timeout = timeout;
        self
    }

    /// How long a client may take nothing of what is written to it before it is given up. Default 10 s. That of
    /// [`Server::websocket`](crate::http::Server::websocket) counts for HTTP answers too.
    #[must_use]
    pub fn write_timeout(mut self, timeout: Duration) -> Self {
        self.write_timeout = timeout;
        self
    }

    /// How long closing may take from its beginning, with all that is queued and the client's answer. Default 5 s. Until
    /// then a connection whose client does not answer counts as one of its session's.
    #[must_use]
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// Lets pages from `origin` connect too, written as browsers send it: `https://example.com`, with a port that is
    /// not the scheme's usual one; `capacitor://localhost` for an app; `null` for pages without an origin. By default only
    /// pages of the same host and port may, by https, or by http where the connection is not
    /// [known to be secure](crate::http::Request::is_secure).
    ///
    /// The dev server of a frontend has a port of its own, and its pages get 403 until they are let in: one of
    /// `http://localhost:5173` that opens `ws://localhost:8000`, say.
    ///
    /// ```
    /// use rwf::controller::Websocket;
    ///
    /// let mut settings = Websocket::new();
    /// if cfg!(debug_assertions) {
    ///     settings = settings.allow_origin("http://localhost:5173");
    /// }
    /// ```
    ///
    /// It is for WebSockets. How such a page reads plain HTTP is in [the guide](crate::guide::security#cors).
    #[doc(alias = "cors")]
    #[must_use]
    pub fn allow_origin(mut self, origin: impl Into<String>) -> Self {
        if let Origins::SameHost(more) = &mut self.origins {
            more.push(origin.into());
        }
        self
    }

    /// Lets pages from anywhere connect. Only for endpoints that do not trust cookies: any site that a visitor looks
    /// at can then talk to this one in the visitor's name.
    #[doc(alias = "cors")]
    #[must_use]
    pub fn allow_any_origin(mut self) -> Self {
        self.origins = Origins::Any;
        self
    }

    /// The subprotocols that the endpoint speaks. The first of the client's that is among them wins; a client that
    /// offers none of them is accepted without one.
    #[must_use]
    pub fn subprotocols<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.subprotocols = names.into_iter().map(Into::into).collect();
        self
    }

    /// How messages are compressed for clients that offer it (permessage-deflate); `None` for not at all. Default
    /// [`Deflate::new`]. With the feature `deflate`.
    ///
    /// Mind that a compressed message's length tells something of what is in it: see [security](crate::guide::security).
    #[doc(alias = "compression")]
    #[cfg(feature = "deflate")]
    #[must_use]
    pub fn deflate(mut self, deflate: impl Into<Option<Deflate>>) -> Self {
        self.deflate = deflate.into();
        self
    }

    pub(crate) fn lag(&self) -> Option<Lag> {
        self.max_lag.map(|lag| Lag::new(lag, self.ping_timeout))
    }

    pub(crate) fn message_limits(&self) -> MessageLimits {
        MessageLimits {
            max_message_size: self.max_message_size,
            max_frame_size: self.max_frame_size.unwrap_or(self.max_message_size),
            max_fragments: self.max_fragments,
            read_buffer_size: self.read_buffer_size,
        }
    }

    /// The first setting that cannot work. Each has a line here, so that none is forgotten.
    pub(crate) fn check(&self) -> Checked {
        let Self {
            max_message_size,
            max_frame_size,
            max_fragments,
            read_buffer_size,
            message_rate,
            byte_rate,
            message_rate_per_session,
            byte_rate_per_session,
            // Zero is not at all.
            max_hold: _,
            // However small these two are, one message fits.
            outbox_bytes: _,
            outbox_messages: _,
            // Zero is none.
            max_topics: _,
            overflow: _,
            // Zero is one round trip at a time.
            max_lag: _,
            max_unsent_bytes,
            ping_interval,
            ping_timeout,
            write_timeout,
            close_timeout,
            origins,
            subprotocols,
            #[cfg(feature = "deflate")]
            deflate,
        } = self;
        #[cfg(feature = "deflate")]
        deflate.as_ref().map_or(Ok(()), Deflate::check)?;
        rule::at_least("max_message_size", *max_message_size, 1)?;
        rule::at_least("max_frame_size", max_frame_size.unwrap_or(*max_message_size), 1)?;
        rule::at_least("max_fragments", *max_fragments, 1)?;
        rule::at_least("read_buffer_size", *read_buffer_size, 1)?;
        rule::rate("message_rate", *message_rate)?;
        rule::rate("byte_rate", *byte_rate)?;
        rule::rate("message_rate_per_session", *message_rate_per_session)?;
        rule::rate("byte_rate_per_session", *byte_rate_per_session)?;
        if let Some(interval) = ping_interval {
            rule::time("ping_interval", *interval)?;
        }
        rule::at_least("max_unsent_bytes", max_unsent_bytes.unwrap_or(1), 1)?;
        rule::time("ping_timeout", *ping_timeout)?;
        rule::time("write_timeout", *write_timeout)?;
        rule::time("close_timeout", *close_timeout)?;
        if let Origins::SameHost(listed) = origins {
            let what = "has to be an origin as browsers send it, `https://example.com` or `null`";
            rule::all("allow_origin", listed, is_origin, what)?;
        }
        rule::all(
            "subprotocols",
            subprotocols,
            is_token,
            "has to be names without spaces or separators",
        )
    }
}

/// Whether a browser can send it: a scheme and a host, without a path, or `null` (RFC 6454 §6). Schemes other than the
/// web's, of apps and browser extensions, have rules of their own for hosts: only the characters are checked.
fn is_origin(origin: &str) -> bool {
    const WEB: [&str; 4] = ["http", "https", "ws", "wss"];
    let Some((scheme, authority)) = origin.split_once("://") else {
        return origin == "null";
    };
    if WEB.iter().any(|web| web.eq_ignore_ascii_case(scheme)) {
        return split_authority(authority).is_some_and(|(host, _)| is_literal(host));
    }
    let all = |text: &str, others: &[u8]| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
    };
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && all(scheme, b"+-.")
        && !authority.is_empty()
        && all(authority, b"-._~:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_may_be_as_long_as_a_message_unless_said_otherwise() {
        let settings = Websocket::new().max_message_size(5 << 20);
        assert_eq!(settings.message_limits().max_frame_size, 5 << 20);
        assert_eq!(settings.max_frame_size(7).message_limits().max_frame_size, 7);
    }

    #[test]
    fn zero_is_named() {
        assert_eq!(Websocket::new().check(), Ok(()));
        assert_eq!(Websocket::new().ping_interval(None).check(), Ok(()));
        let wrong = Websocket::new().close_timeout(Duration::ZERO);
        assert_eq!(wrong.check().unwrap_err().name, "close_timeout");
        assert!(Websocket::new().ping_interval(Duration::ZERO).check().is_err());
    }

    #[test]
    fn an_origin_that_no_browser_sends_is_named() {
        for origin in [
            "https://example.com",
            "http://a:8000",
            "null",
            "capacitor://localhost",
            "http://[::1]:80",
            "https://[0:0::5]",
            "https://a.example.:8443",
            "wss://a",
            "app://.",
            "chrome-extension://abcdef",
            "com.example+app-1://-",
        ] {
            assert_eq!(Websocket::new().allow_origin(origin).check(), Ok(()), "{origin}");
        }
        for origin in [
            "https://example.com/",
            "example.com",
            "*",
            "https://*.example.com",
            "",
            "https://",
            "https://a:port",
            "HTTPS://a:port",
            "https://a:99999",
            "https://[::1",
            "https://a]b",
            "https://a\"b",
            "https://..",
            "https://%41.com",
            "ws://user@a",
            "-://a",
            "1a://a",
            "://a",
            "app://a/b",
            "app://a\"b",
            "app://[",
            "app://a\\b",
        ] {
            let unfit = Websocket::new().allow_origin(origin).check().unwrap_err();
            assert_eq!(unfit.name, "allow_origin", "{origin}");
            assert!(unfit.reason.contains(&format!("{origin:?}")), "{}", unfit.reason);
        }
    }
}
