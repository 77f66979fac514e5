//! The settings of compression (permessage-deflate, RFC 7692).

use crate::base::rule::{self, Checked, Unfit};

/// How messages are compressed for clients that offer permessage-deflate
/// ([RFC 7692](https://www.rfc-editor.org/rfc/rfc7692)), which browsers do. With the feature `deflate`, which turns it on:
/// [`Websocket::deflate`](crate::controller::Websocket::deflate) with `None` turns it off.
///
/// A message to many is compressed once for all of them that agreed on the same. Short messages, and those that do not get
/// shorter, go out as they are, and so does one that is sent [uncompressed](crate::websocket::Message::uncompressed):
/// one that holds a secret beside what somebody else may choose.
///
/// ```
/// use rwf::controller::{Deflate, Websocket};
///
/// // Short messages that resemble each other, to few clients.
/// let updates = Websocket::new().deflate(Deflate::new().threshold(64).context_takeover(true));
/// let without = Websocket::new().deflate(None);
/// # let _ = (updates, without);
/// ```
#[doc(alias = "compression")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deflate {
    pub(crate) level: u8,
    pub(crate) threshold: usize,
    pub(crate) context_takeover: bool,
    pub(crate) window_bits: u8,
}

impl Default for Deflate {
    fn default() -> Self {
        Self { level: 1, threshold: 1024, context_takeover: false, window_bits: 15 }
    }
}

impl Deflate {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How hard to try, from 1, the fastest and the default, to 9, the shortest. 2 KiB of JSON became 724 bytes with 1, 528 with
    /// 2, which took twice as long, and 491 with 6, which took five times as long.
    #[must_use]
    pub fn level(mut self, level: u8) -> Self {
        self.level = level;
        self
    }

    /// Messages of fewer bytes are sent as they are. Default 1,024: to compress less saves little and takes
    /// nearly as long.
    #[must_use]
    pub fn threshold(mut self, bytes: usize) -> Self {
        self.threshold = bytes;
        self
    }

    /// Whether a message may refer to those before it, both ways, where the client lets it. Default no.
    ///
    /// Short messages that resemble each other get much shorter with it. But then each connection keeps a compressor of
    /// its own and what its client has sent last, up to 360 KiB in all, and a message to many is compressed for each of
    /// them, by whoever writes to it.
    #[must_use]
    pub fn context_takeover(mut self, on: bool) -> Self {
        self.context_takeover = on;
        self
    }

    /// How far back a message may refer, as a power of two, from 9 to 15. Default 15, which is 32 KiB, and what a client
    /// asks for if that is less. With [`context_takeover`](Self::context_takeover), less takes less memory.
    #[must_use]
    pub fn window_bits(mut self, bits: u8) -> Self {
        self.window_bits = bits;
        self
    }

    /// The first setting that cannot work.
    pub(crate) fn check(&self) -> Checked {
        let Self {
            level,
            // Zero compresses all, `usize::MAX` nothing.
            threshold: _,
            context_takeover: _,
            window_bits,
        } = self;
        let within = |what: &str, value: u8, least: u8, most: u8| {
            let checked = rule::between("deflate", value.into(), least.into(), most.into());
            checked.map_err(|unfit| Unfit {
                reason: format!("has a {what} that {}", unfit.reason),
                ..unfit
            })
        };
        within("level", *level, 1, 9)?;
        within("number of window bits", *window_bits, MIN_WINDOW_BITS, MAX_WINDOW_BITS)
    }
}

/// Of raw DEFLATE zlib compresses with no smaller window, although the RFC has one of 8 bits.
pub(crate) const MIN_WINDOW_BITS: u8 = 9;
pub(crate) const MAX_WINDOW_BITS: u8 = 15;
