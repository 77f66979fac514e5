//! Inflates what a client has compressed, while it arrives and under limits (RFC 7692 §7.2.2). No socket in sight.

use flate2::{Decompress, FlushDecompress, Status};
use parking_lot::Mutex;

use crate::websocket::close::{Close, CloseCode};
use crate::websocket::extensions::{Agreement, Side};

/// Inflaters that nobody needs now: a connection has one only while a message arrives.
#[expect(clippy::vec_box, reason = "they move between here and the messages")]
static IDLE: Mutex<Vec<Box<Decompress>>> = Mutex::new(Vec::new());
/// So many are kept, each 48 KiB: more messages are seldom inflated at the same time.
const MAX_IDLE: usize = 8;
/// What the sender took off the end of each message (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// A last block, empty. It is understood where a block may begin, and so not in the middle of one that was cut off.
const LAST_BLOCK: [u8; 5] = [1, 0, 0, 0xff, 0xff];
/// The first room for what comes out, and how much more it is taken for than went in.
const FIRST_ROOM: usize = 256;
const USUAL_GAIN: usize = 4;

/// What a connection keeps of its client's messages between them.
#[derive(Debug)]
pub(crate) struct Inflation {
    /// How far back the client's messages may refer to those before them.
    window: usize,
    /// What they may refer to.
    context: Vec<u8>,
}

/// A message that is being inflated.
#[derive(Debug)]
pub(crate) struct Inflating {
    inflater: Box<Decompress>,
    /// How many compressed bytes have come.
    taken: usize,
    /// Where what the rest may refer to begins, behind the last of the client's final blocks.
    begins: usize,
    /// Whether there was one, so that what was before the message is forgotten.
    has_ended: bool,
    /// Whether it was the last that came.
    is_at_end: bool,
}

impl Inflation {
    pub(crate) fn boxed(agreement: &Agreement) -> Box<Self> {
        let Side { keeps_context, window_bits } = agreement.client;
        let window = if keeps_context { 1 << window_bits } else { 0 };
        Box::new(Self { window, context: Vec::new() })
    }

    /// Begins to inflate a message.
    pub(crate) fn begin(&self) -> Inflating {
        let idle = IDLE.lock().pop();
        let mut inflater = idle.unwrap_or_else(|| Box::new(Decompress::new(false)));
        if !self.context.is_empty() {
            // Fails for streams with a header alone.
            let _ = inflater.set_dictionary(&self.context);
        }
        Inflating { inflater, taken: 0, begins: 0, has_ended: false, is_at_end: false }
    }

    /// The message has come to its end; `data` is all of it.
    pub(crate) fn end(
        &mut self,
        mut inflating: Inflating,
        data: &mut Vec<u8>,
        max_size: usize,
    ) -> Result<(), Close> {
        inflating.finish(data, max_size)?;
        inflating.inflater.reset(false);
        let mut idle = IDLE.lock();
        if idle.len() < MAX_IDLE {
            idle.push(inflating.inflater);
        }
        drop(idle);
        if self.window > 0 {
            if inflating.has_ended {
                self.context.clear();
            }
            let new = &data[inflating.begins..];
            let new = &new[new.len().saturating_sub(self.window)..];
            let kept = (self.window - new.len()).min(self.context.len());
            self.context.drain(..self.context.len() - kept);
            self.context.extend_from_slice(new);
        }
        Ok(())
    }
}

impl Inflating {
    /// How many compressed bytes have come.
    pub(crate) fn taken(&self) -> usize {
        self.taken
    }

    /// Inflates the next part to the end of `data`, of which there may be `max_size` bytes.
    pub(crate) fn push(
        &mut self,
        mut part: &[u8],
        data: &mut Vec<u8>,
        max_size: usize,
    ) -> Result<(), Close> {
        self.taken += part.len();
        loop {
            make_room(data, part.len(), max_size);
            let (room, before) = (data.capacity() - data.len(), self.inflater.total_in());
            let length = data.len();
            let status = self.inflater.decompress_vec(part, data, FlushDecompress::Sync);
            let status = status.map_err(|_| broken())?;
            // It says how much as a `u64`, and there is no more than `part` has.
            let consumed = (self.inflater.total_in() - before) as usize;
            part = &part[consumed..];
            if data.len() > max_size {
                let reason = format!("a message of more than {max_size} bytes is over the limit");
                return Err(Close::new(CloseCode::MESSAGE_TOO_BIG, reason));
            }
            if consumed > 0 {
                self.is_at_end = false;
            }
            if status == Status::StreamEnd {
                // What comes behind a last block is another stream (RFC 7692 §7.2.3.4).
                self.inflater.reset(false);
                (self.has_ended, self.is_at_end, self.begins) = (true, true, data.len());
            } else if data.len() - length < room {
                // There was room for more, so this was all.
                return if part.is_empty() { Ok(()) } else { Err(broken()) };
            }
            if part.is_empty() && self.is_at_end {
                return Ok(());
            }
        }
    }

    /// The end of the message: what the sender left out of it, and a look whether that was all.
    fn finish(&mut self, data: &mut Vec<u8>, max_size: usize) -> Result<(), Close> {
        // A sender need not begin a block behind its last one, although the RFC wants that.
        if self.is_at_end {
            return Ok(());
        }
        let length = data.len();
        self.push(&TAIL, data, max_size)?;
        data.reserve_exact(1);
        let is_whole = !self.is_at_end
            && data.len() == length
            && matches!(
                self.inflater.decompress_vec(&LAST_BLOCK, data, FlushDecompress::Sync),
                Ok(Status::StreamEnd)
            )
            && data.len() == length;
        if is_whole { Ok(()) } else { Err(broken()) }
    }
}

/// Makes room for what may come out, and for no more than one byte over the limit.
fn make_room(data: &mut Vec<u8>, input: usize, max_size: usize) {
    if data.len() < data.capacity() {
        return;
    }
    let expected = FIRST_ROOM.max(input.saturating_mul(USUAL_GAIN)).max(data.len());
    let allowed = (max_size - data.len()).saturating_add(1);
    data.reserve_exact(expected.min(allowed));
}

/// What exactly is wrong depends on where reads end, so it is not said.
#[cold]
#[inline(never)]
fn broken() -> Close {
    Close::new(CloseCode::INVALID_PAYLOAD, "a compressed message is broken, or cut off")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::deflate::Deflate;
    use flate2::{Compress, Compression, FlushCompress};
    use proptest::collection::vec;
    use proptest::prelude::*;

    const HELLO: [u8; 7] = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];

    fn inflation(keeps_context: bool, window_bits: u8) -> Inflation {
        let side = Side { keeps_context, window_bits };
        let agreement = Agreement { settings: Deflate::new(), server: side, client: side };
        *Inflation::boxed(&agreement)
    }

    fn inflate(inflation: &mut Inflation, parts: &[&[u8]], max: usize) -> Result<Vec<u8>, Close> {
        let (mut inflating, mut data) = (inflation.begin(), Vec::new());
        for part in parts {
            inflating.push(part, &mut data, max)?;
        }
        inflation.end(inflating, &mut data, max)?;
        Ok(data)
    }

    fn code(result: Result<Vec<u8>, Close>) -> u16 {
        result.map_or_else(|close| close.code.into(), |data| panic!("taken as {data:02x?}"))
    }

    /// As a client compresses, without what it leaves out.
    fn deflated(compress: &mut Compress, data: &[u8], flush: FlushCompress) -> Vec<u8> {
        let mut out = Vec::with_capacity(2 * data.len() + 1000);
        compress.compress_vec(data, &mut out, flush).unwrap();
        assert!(out.len() < out.capacity());
        if out.is_empty() {
            // There was nothing to flush (RFC 7692 §7.2.3.6).
            return vec![0];
        }
        if flush != FlushCompress::Finish {
            assert!(out.ends_with(&TAIL));
            out.truncate(out.len() - TAIL.len());
        }
        out
    }

    #[test]
    fn the_samples_of_the_rfc_are_inflated() {
        let samples: &[(&str, &[u8], &[u8])] = &[
            ("one block", &HELLO, b"Hello"),
            ("no compression", b"\x00\x05\x00\xfa\xffHello\x00", b"Hello"),
            ("final block", &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0, 0], b"Hello"),
            (
                "final block and nothing behind it",
                &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0],
                b"Hello",
            ),
            (
                "two blocks",
                &[0xf2, 0x48, 0x05, 0, 0, 0, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0],
                b"Hello",
            ),
            ("empty", &[0], b""),
            ("empty blocks", &[0, 0, 0, 0xff, 0xff, 2, 0], b""),
        ];
        for (what, wire, expected) in samples {
            for split in 0..=wire.len() {
                let parts = [&wire[..split], &wire[split..]];
                let data = inflate(&mut inflation(false, 15), &parts, 100).unwrap();
                assert_eq!(data, *expected, "{what}, split at {split}");
            }
        }
        let mut kept = inflation(true, 15);
        assert_eq!(inflate(&mut kept, &[&HELLO], 5).unwrap(), b"Hello");
        let again = [0xf2, 0, 0x11, 0, 0];
        assert_eq!(inflate(&mut kept, &[&again], 5).unwrap(), b"Hello");
        assert_eq!(code(inflate(&mut inflation(false, 15), &[&again], 5)), 1007, "no context");
    }

    #[test]
    fn a_message_that_is_cut_off_anywhere_is_broken() {
        let text = br#"{"type":"position","x":17.25,"y":-3.5,"name":"somebody"}"#.repeat(7);
        for level in [1, 6, 9] {
            let mut compress = Compress::new(Compression::new(level), false);
            let wire = deflated(&mut compress, &text, FlushCompress::Sync);
            for length in 0..wire.len() {
                let outcome = inflate(&mut inflation(false, 15), &[&wire[..length]], 1000);
                assert_eq!(code(outcome), 1007, "level {level}, {length} of {}", wire.len());
            }
        }
        for stored in
            [&b"\x00\x05\x00\xfa\xffHell"[..], b"\x00\x05\x00\xfa", b"\x00\x09\x00\xf6\xffHello"]
        {
            assert_eq!(code(inflate(&mut inflation(false, 15), &[stored], 1000)), 1007);
        }
    }

    #[test]
    fn what_is_no_deflate_stream_is_broken() {
        for wire in [
            &[6][..],
            &[7, 1, 2],
            &[0, 5, 0, 5, 0, 1, 2, 3, 4, 5],
            &[0xff; 10],
            // A distance that goes back before the beginning.
            &[0xf2, 0, 0x11, 0, 0],
        ] {
            assert_eq!(
                code(inflate(&mut inflation(false, 15), &[wire], 1000)),
                1007,
                "{wire:02x?}"
            );
        }
        let with_rest = [&HELLO[..], b"\0\0\xff\xffrest"].concat();
        assert_eq!(code(inflate(&mut inflation(false, 15), &[&with_rest], 1000)), 1007);
    }

    #[test]
    fn a_bomb_takes_no_more_memory_than_a_message_may_have() {
        let mut compress = Compress::new(Compression::best(), false);
        let wire = deflated(&mut compress, &vec![0; 50 << 20], FlushCompress::Sync);
        let (mut inflating, mut data) = (inflation(false, 15).begin(), Vec::new());
        let refused = inflating.push(&wire, &mut data, 100_000).unwrap_err();
        assert_eq!(refused.code, CloseCode::MESSAGE_TOO_BIG);
        assert!(data.capacity() <= 100_001, "{} bytes", data.capacity());
        let exactly = deflated(
            &mut Compress::new(Compression::best(), false),
            &[0; 100_000],
            FlushCompress::Sync,
        );
        let taken = inflate(&mut inflation(false, 15), &[&exactly], 100_000).unwrap();
        assert_eq!(taken.len(), 100_000, "the limit itself is allowed");
        assert_eq!(code(inflate(&mut inflation(false, 15), &[&exactly], 99_999)), 1009);
    }

    #[test]
    fn blocks_without_content_cost_no_more_than_others() {
        let began = std::time::Instant::now();
        for block in [&b"\0\0\0\xff\xff"[..], b"\x01\0\0\xff\xff", b"\x03\0", b"\x02\x10\x00"] {
            let wire = [&block.repeat((1 << 20) / block.len())[..], b"\0"].concat();
            let _ = inflate(&mut inflation(true, 15), &[&wire], 100);
        }
        assert!(began.elapsed().as_secs() < 20, "{:?} for 4 MiB", began.elapsed());
    }

    #[test]
    fn a_context_is_what_the_last_messages_leave_in_the_window() {
        let noise: Vec<u8> = (0..5000_u32).map(|n| (n.wrapping_mul(n) >> 3) as u8).collect();
        for bits in 9..=15 {
            let mut kept = inflation(true, bits);
            let mut compress = Compress::new_with_window_bits(Compression::best(), false, bits);
            for (round, length) in [3000, 1, 0, 700, 5000, 100, 100, 40].into_iter().enumerate() {
                let message = &noise[round..round + length.min(noise.len() - round)];
                let wire = deflated(&mut compress, message, FlushCompress::Sync);
                let data = inflate(&mut kept, &[&wire], 10_000).unwrap();
                assert!(data == message, "{bits} bits, round {round}");
                assert!(kept.context.len() <= 1 << bits, "{} bytes", kept.context.len());
                if round == 5 {
                    // A last block ends the context on both sides.
                    let wire = deflated(&mut compress, b"the last", FlushCompress::Finish);
                    assert_eq!(inflate(&mut kept, &[&wire], 100).unwrap(), b"the last");
                    assert!(kept.context.len() < 10);
                    compress.reset();
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_split_of_any_messages_inflates_to_what_was_deflated(
            messages in vec((vec(0_u8..4, 0..600), vec(any::<proptest::sample::Index>(), 0..4)), 1..5),
            level in 1_u32..10,
            keeps_context: bool,
            bits in 9_u8..=15,
        ) {
            let mut kept = inflation(keeps_context, bits);
            let mut compress = Compress::new_with_window_bits(Compression::new(level), false, bits);
            for (message, cuts) in &messages {
                let wire = deflated(&mut compress, message, FlushCompress::Sync);
                let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
                cuts.extend([0, wire.len()]);
                cuts.sort_unstable();
                let parts: Vec<_> = cuts.windows(2).map(|cut| &wire[cut[0]..cut[1]]).collect();
                prop_assert_eq!(&inflate(&mut kept, &parts, 600).unwrap(), message);
                if !keeps_context {
                    compress.reset();
                }
            }
        }

        #[test]
        fn whatever_comes_is_inflated_or_refused(wire in vec(any::<u8>(), 0..200), max in 0_usize..300) {
            let mut kept = inflation(true, 15);
            for part in [&wire[..], &wire[wire.len() / 2..]] {
                match inflate(&mut kept, &[part], max) {
                    Ok(data) => prop_assert!(data.len() <= max),
                    Err(close) => prop_assert!([1007, 1009].contains(&u16::from(close.code))),
                }
            }
        }
    }
}
