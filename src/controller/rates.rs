//! The limits of how often that connections of a server share: of a session, and of an address.

use std::time::{Duration, Instant};

use crate::base::buckets::Buckets;
use crate::base::rate::{Rate, TooEarly};
use crate::comms::session::SessionId;
use crate::controller::settings::Settings;
use crate::http::peer::{self, Proxy};
use crate::net::peer::{Owner, Peer};
use crate::websocket::pace::SessionBuckets;
use crate::websocket::settings::Websocket;

/// What is left of them, of one server.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    /// By the network of the address, or by user.
    handshakes: Buckets<Owner>,
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

    /// Counts a handshake of this client.
    ///
    /// # Errors
    ///
    /// There were too many.
    pub(crate) fn note_handshake(
        &self,
        client: &Peer,
        settings: &Settings,
    ) -> Result<(), TooEarly> {
        let Some(rate) = settings.handshake_rate_per_peer else { return Ok(()) };
        if Proxy::is_among(&settings.trusted_proxies, client) {
            return Ok(());
        }
        let now = Instant::now();
        let owner = match client.owner() {
            Owner::Ip(address) => Owner::Ip(peer::network(address)),
            user @ Owner::User(_) => user,
        };
        let bucket = self.handshakes.get(owner, rate, now);
        let taken = bucket.lock().take(1, now, Duration::ZERO);
        taken.map(drop)
    }
}
