//! Compresses what is sent (RFC 7692 §7.2.1): once for all receivers that agreed on the same, or for one receiver in the
//! order of the wire, where its messages may refer to those before them.

use std::mem;

use bytes::Bytes;
use flate2::{Compress, Compression as Level, FlushCompress, Status};
use parking_lot::Mutex;

use crate::base::contained::contained;
use crate::websocket::deflate::Deflate;
use crate::websocket::extensions::{Agreement, Side};
use crate::websocket::frame::Frame;

/// Compressors that nobody needs now: without context, a connection has none.
static IDLE: Mutex<Vec<Deflater>> = Mutex::new(Vec::new());
/// So many are kept: more messages are seldom compressed at the same time.
const MAX_IDLE: usize = 8;
/// What ends a flush, and is left out of each message (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// What is longer by a quarter and this does not happen: by an eighth at the fastest level, and by the ends of blocks.
const SPARE: usize = 256;
/// Room for the output up to here is kept for the next message.
const KEPT: usize = 64 << 10;

/// How a message is compressed: with one of these it is the same for all receivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Method {
    level: u8,
    window_bits: u8,
}

/// How a connection's messages are compressed.
#[derive(Debug)]
pub(crate) struct Deflation {
    method: Method,
    threshold: usize,
    /// The connection's own compressor, where messages refer to those before them. Only whoever has the write half takes
    /// it, so nobody ever waits for it.
    own: Option<Mutex<Deflater>>,
}

#[derive(Debug)]
struct Deflater {
    method: Method,
    compress: Compress,
    out: Vec<u8>,
}

impl Method {
    /// The frame compressed, unless that does not make it shorter.
    pub(crate) fn deflate(self, frame: &Frame) -> Option<Frame> {
        let mut idle = IDLE.lock();
        let kept = idle.iter().rposition(|deflater| deflater.method == self);
        let kept = kept.map(|index| idle.swap_remove(index));
        drop(idle);
        let mut deflater = kept.unwrap_or_else(|| Deflater::new(self));
        let payload = deflater.deflate(frame.payload());
        deflater.compress.reset();
        let mut idle = IDLE.lock();
        // In the place of one that was not needed for longest, which may be of another method.
        let old = (idle.len() >= MAX_IDLE).then(|| idle.remove(0));
        idle.push(deflater);
        drop(idle);
        drop(old);
        payload.map(|payload| frame.compressed(payload))
    }
}

impl Deflation {
    pub(crate) fn new(agreement: &Agreement) -> Self {
        let Deflate { level, threshold, .. } = agreement.settings;
        let Side { keeps_context, window_bits } = agreement.server;
        let method = Method { level, window_bits };
        let own = keeps_context.then(|| Mutex::new(Deflater::new(method)));
        Self { method, threshold, own }
    }

    /// How messages are compressed before they wait; `None` where that is done in the order of the wire.
    pub(crate) fn method(&self) -> Option<Method> {
        self.own.is_none().then_some(self.method)
    }

    /// Whether it is worth while to compress a message of that length.
    pub(crate) fn is_worth(&self, frame: &Frame) -> bool {
        frame.payload().len() >= self.threshold
    }

    /// The frame that is written next, compressed, where messages refer to those before them. Only whoever has the write
    /// half calls it, and writes what it returns.
    pub(crate) fn next(&self, frame: &Frame) -> Option<Frame> {
        let own = self.own.as_ref().filter(|_| frame.is_compressible() && self.is_worth(frame))?;
        let mut deflater = own.lock();
        let payload = deflater.deflate(frame.payload());
        if payload.is_none() {
            // The client does not get what the compressor would refer to.
            deflater.compress.reset();
        }
        // Most connections are quiet.
        deflater.out = Vec::new();
        payload.map(|payload| frame.compressed(payload))
    }
}

impl Deflater {
    fn new(method: Method) -> Self {
        let level = Level::new(method.level.into());
        let compress = Compress::new_with_window_bits(level, false, method.window_bits);
        Self { method, compress, out: Vec::new() }
    }

    /// The payload compressed, unless that does not make it shorter.
    fn deflate(&mut self, payload: &[u8]) -> Option<Bytes> {
        let before = self.compress.total_in();
        self.out.clear();
        self.out.reserve_exact(payload.len() + payload.len() / 4 + SPARE);
        // Whoever has the write half must not lose it to a fault in there: the message goes out as it is.
        let status =
            contained(|| self.compress.compress_vec(payload, &mut self.out, FlushCompress::Sync));
        // A flush that has filled all the room may not be complete.
        let is_complete = matches!(status, Some(Ok(Status::Ok)))
            && self.compress.total_in() - before == payload.len() as u64
            && self.out.len() < self.out.capacity()
            && self.out.ends_with(&TAIL);
        if !is_complete {
            // zlib-rs 0.6 does not forget all of what it could not write when it is reset.
            *self = Self::new(self.method);
        }
        let length = self.out.len().saturating_sub(TAIL.len());
        let deflated = (is_complete && length < payload.len()).then(|| {
            self.out.truncate(length);
            if self.out.capacity() <= KEPT {
                Bytes::copy_from_slice(&self.out)
            } else {
                self.out.shrink_to_fit();
                mem::take(&mut self.out).into()
            }
        });
        if self.out.capacity() > KEPT {
            self.out = Vec::new();
        }
        deflated
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::deflate::{MAX_WINDOW_BITS, MIN_WINDOW_BITS};
    use crate::websocket::header::RSV1;
    use flate2::{Decompress, FlushDecompress};
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn text(length: usize) -> String {
        let line =
            |number| format!("{{\"symbol\":\"RWF{number}\",\"price\":{}}}\n", number * 7 % 1000);
        let mut text = String::new();
        (0..).map(line).find(|line| {
            text += line;
            text.len() >= length
        });
        text[..length].to_owned()
    }

    fn inflated(decompress: &mut Decompress, frame: &Frame) -> Vec<u8> {
        let wire = [frame.payload(), &TAIL[..]].concat();
        let mut out = Vec::with_capacity(1 << 20);
        let before = decompress.total_in();
        decompress.decompress_vec(&wire, &mut out, FlushDecompress::Sync).unwrap();
        assert_eq!(decompress.total_in() - before, wire.len() as u64);
        out
    }

    fn deflation(keeps_context: bool, settings: Deflate) -> Deflation {
        let side = Side { keeps_context, window_bits: settings.window_bits };
        Deflation::new(&Agreement { settings, server: side, client: side })
    }

    fn frame(message: impl Into<crate::websocket::message::Message>) -> Frame {
        Frame::message(message.into()).compressible()
    }

    #[test]
    fn what_gets_shorter_is_compressed_and_says_so() {
        for level in 1..=9 {
            for window_bits in MIN_WINDOW_BITS..=MAX_WINDOW_BITS {
                let method = Method { level, window_bits };
                for length in [100, 500, 2000, 70_000, 300_000] {
                    let plain = frame(text(length));
                    let compressed =
                        method.deflate(&plain).unwrap_or_else(|| panic!("{method:?}, {length}"));
                    assert_eq!(compressed.wire()[0], plain.wire()[0] | RSV1);
                    assert!(compressed.len() < plain.len(), "{method:?}, {length} bytes");
                    // One with so small a window can inflate it.
                    let mut decompress = Decompress::new_with_window_bits(false, window_bits);
                    assert!(
                        inflated(&mut decompress, &compressed) == *plain.payload(),
                        "{method:?}, {length}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_does_not_get_shorter_is_not_compressed() {
        let noise: Vec<u8> = (0..200_000).map(|_| uuid::Uuid::new_v4().as_bytes()[0]).collect();
        for level in 1..=9 {
            let method = Method { level, window_bits: 15 };
            let kept = deflation(true, Deflate::new().level(level).threshold(0));
            for message in [&b""[..], b"a", b"hi", &noise[..3000], &noise, b""] {
                let frame = frame(message);
                let what = format!("level {level}, {} bytes", message.len());
                assert!(method.deflate(&frame).is_none() && kept.next(&frame).is_none(), "{what}");
                // It is in order behind that.
                let text = self::frame(text(100_000));
                let compressed = [method.deflate(&text), kept.next(&text)].map(Option::unwrap);
                for compressed in compressed {
                    let mut decompress = Decompress::new(false);
                    assert!(inflated(&mut decompress, &compressed) == *text.payload(), "{what}");
                }
            }
        }
    }

    #[test]
    fn a_payload_takes_no_more_memory_than_it_is_long() {
        let method = Method { level: 6, window_bits: 15 };
        for length in [5000, 1 << 20] {
            let payload = method.deflate(&frame(text(length))).unwrap().payload().clone();
            let (length, vec) = (payload.len(), Vec::from(payload));
            assert!(vec.capacity() <= length + length / 8, "{} for {length}", vec.capacity());
        }
    }

    #[test]
    fn messages_refer_to_those_before_them_where_that_was_agreed_on() {
        let kept = deflation(true, Deflate::new().threshold(10).level(6));
        let mut decompress = Decompress::new(false);
        let noise: Vec<u8> = (0..300).map(|_| uuid::Uuid::new_v4().as_bytes()[0]).collect();
        let mut lengths = Vec::new();
        for message in [
            text(700).into_bytes(),
            text(700).into_bytes(),
            noise,
            text(700).into_bytes(),
            text(700).into_bytes(),
        ] {
            let plain = frame(message.clone());
            let Some(compressed) = kept.next(&plain) else {
                lengths.push(0);
                continue;
            };
            assert!(inflated(&mut decompress, &compressed) == message);
            lengths.push(compressed.payload().len());
        }
        assert!(lengths[1] < 20, "it says nothing new: {lengths:?}");
        assert_eq!(lengths[2], 0, "noise goes out as it is: {lengths:?}");
        assert!(lengths[3] > 20, "nothing refers to what the client has not inflated: {lengths:?}");
        assert!(lengths[4] < 20, "{lengths:?}");
        assert!(kept.next(&frame("short")).is_none(), "below the threshold");
        assert!(kept.next(&Frame::message(text(700).into())).is_none(), "not to be compressed");
        assert!(kept.next(&Frame::ping(vec![0; 100].into())).is_none(), "no message");
    }

    proptest! {
        #[test]
        fn any_messages_inflate_to_what_they_were(
            messages in vec(vec(0_u8..8, 0..2000), 1..6),
            level in 1_u8..=9,
            bits in MIN_WINDOW_BITS..=MAX_WINDOW_BITS,
        ) {
            let settings = Deflate::new().level(level).window_bits(bits).threshold(0);
            let kept = deflation(true, settings);
            let mut decompress = Decompress::new_with_window_bits(false, bits);
            for message in messages {
                let plain = frame(message.clone());
                if let Some(compressed) = kept.next(&plain) {
                    prop_assert!(compressed.len() < plain.len());
                    prop_assert_eq!(&inflated(&mut decompress, &compressed), &message);
                }
                let alone = Method { level, window_bits: bits }.deflate(&plain);
                if let Some(compressed) = alone {
                    prop_assert_eq!(&inflated(&mut Decompress::new_with_window_bits(false, bits), &compressed), &message);
                }
            }
        }
    }
}
