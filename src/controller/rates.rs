//! The limits of how often that connections of a server share: those of a session.

use std::time::Instant;

use crate::base::buckets::Buckets;
use crate::base::rate::Rate;
use crate::comms::session::SessionId;
use crate::websocket::pace::SessionBuckets;
use crate::websocket::settings::Websocket;

/// What is left of them, of one server.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    messages: Buckets<(SessionId, Rate)>,
    bytes: Buckets<(SessionId, Rate)>,
}

impl Rates {
    /// What a session may send over all its connections with these rates.
    pub(crate) fn of_session(&self, client: &SessionId, settings: &Websocket) -> SessionBuckets {
        let now = Instant::now();
        let get = |buckets: &Buckets<_>, rate: Option<Rate>| {
            rate.map(|rate| buckets.get((client.clone(), rate), rate, now))
        };
        SessionBuckets {
            messages: get(&self.messages, settings.message_rate_per_session),
            bytes: get(&self.bytes, settings.byte_rate_per_session),
        }
    }
}
