//! Frames in: bytes become messages, pings, pongs and closes, under limits. No socket in sight.
//!
//! tungstenite's reader does not serve here: it reserves what a header announces, counts no fragments, waits for a whole
//! frame before it looks at its opcode, and takes lengths that are longer than need be.

use std::io;

use bytes::Bytes;

use crate::websocket::close::{Close, CloseCode};
use crate::websocket::compression::{Agreement, Inflating, Inflation};
use crate::websocket::header::{self, Header, Opcode, WholeMessage};
use crate::websocket::message::{Message, Text};

/// The input buffer's size to begin with: it grows with what comes at once, and most connections are quiet.
const FIRST_INPUT: usize = 512;
/// A long payload's buffer grows by this much, or doubles where that is more: memory follows the bytes that came.
const GROWTH: usize = 64 * 1024;
/// How many bytes of a compressed message may come for each of its fragments beside those that are as many as the message
/// may have: empty blocks add nothing to its size, so they need a limit of their own.
const COMPRESSED_OVERHEAD: usize = 64;

/// The limits of what is read of a message, all from the endpoint's settings.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct MessageLimits {
    pub(crate) max_message_size: usize,
    pub(crate) max_frame_size: usize,
    pub(crate) max_fragments: usize,
    pub(crate) read_buffer_size: usize,
}

impl MessageLimits {
    fn first_read(&self) -> usize {
        FIRST_INPUT.min(self.largest_read())
    }

    /// A header and a control frame always fit.
    fn largest_read(&self) -> usize {
        self.read_buffer_size.max(header::MAX_RECEIVED + header::SHORT)
    }
}

/// Something whole that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Message(Message),
    Ping(Bytes),
    Pong(Bytes),
    Close(Close),
}

/// The peer broke a rule; the close says which.
pub(crate) type Violation = Close;

/// Turns bytes into [`Event`]s.
///
/// In this order in memory: all that a whole message needs stands together, because with thousands of connections it is in
/// none of the processor's caches by then.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Decoder {
    /// What was read and not yet consumed starts at `consumed`.
    input: Vec<u8>,
    consumed: usize,
    /// How much the next read of input takes: doubled when a read took as much, up to the setting.
    read_size: usize,
    /// The message whose frames are arriving.
    message: Option<Box<PartialMessage>>,
    limits: MessageLimits,
    /// The bits that no frame may have set.
    reserved: u8,
    /// What compressed messages need, where the client may send any.
    inflation: Option<Box<Inflation>>,
    /// The data frame of the message whose payload is arriving.
    frame: Option<PartialFrame>,
}

/// A data frame whose payload has not arrived whole.
#[derive(Debug)]
struct PartialFrame {
    /// Bytes of payload that are still to come.
    remaining: usize,
    mask: [u8; 4],
    is_final: bool,
}

/// A message whose last frame has not arrived whole.
#[derive(Debug)]
struct PartialMessage {
    is_text: bool,
    data: Vec<u8>,
    /// Up to here `data` is known to be UTF-8.
    valid: usize,
    fragments: usize,
    /// Where it is compressed.
    inflating: Option<Inflating>,
}

impl Decoder {
    /// Starts with `input`, the bytes that came in the same segment as the request.
    pub(crate) fn new(limits: MessageLimits, input: Vec<u8>) -> Self {
        Self {
            input,
            consumed: 0,
            read_size: limits.first_read(),
            message: None,
            limits,
            reserved: header::RESERVED,
            inflation: None,
            frame: None,
        }
    }

    /// Takes compressed messages too, as was agreed on.
    pub(crate) fn inflating(mut self, agreement: &Agreement) -> Self {
        self.reserved &= !header::RSV1;
        self.inflation = Some(Inflation::boxed(agreement));
        self
    }

    /// Lets `read` append to the buffer that the next bytes belong in: that of a long payload, to save a copy, or else
    /// the input buffer.
    pub(crate) fn fill(
        &mut self,
        read: impl FnOnce(&mut Vec<u8>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.message.is_some() && self.is_within_long_payload() {
            return self.fill_payload(read);
        }
        if self.consumed < self.input.len() {
            self.drop_consumed();
        } else {
            self.input.clear();
        }
        self.consumed = 0;
        if self.input.is_empty() && self.input.capacity() > 2 * self.read_size {
            self.input = Vec::new();
        }
        self.input.reserve_exact(self.read_size.saturating_sub(self.input.len()).max(1));
        let count = read(&mut self.input)?;
        if self.input.len() == self.input.capacity() {
            self.read_size = (2 * self.read_size).min(self.limits.largest_read());
        }
        Ok(count)
    }

    #[inline(never)]
    fn is_within_long_payload(&self) -> bool {
        self.frame.as_ref().is_some_and(|frame| frame.remaining >= self.read_size)
            && self.consumed == self.input.len()
            && !self.inflates()
    }

    /// Whether the message that arrives is compressed.
    fn inflates(&self) -> bool {
        self.message.as_ref().is_some_and(|message| message.inflating.is_some())
    }

    #[inline(never)]
    fn drop_consumed(&mut self) {
        self.input.drain(..self.consumed);
    }

    /// Lets `read` append to a long payload. No input is left.
    #[inline(never)]
    fn fill_payload(
        &mut self,
        read: impl FnOnce(&mut Vec<u8>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let (Some(frame), Some(message)) = (&mut self.frame, &mut self.message) else {
            return Ok(0);
        };
        let data = &mut message.data;
        let start = data.len();
        if data.capacity() == start {
            frame.reserve(data, self.read_size);
        }
        let count = read(data)?;
        // The read may have brought bytes from behind the frame: `reserve` makes room for a header there, and the
        // allocator may give more. They belong in the input buffer.
        let own = count.min(frame.remaining);
        self.input.clear();
        self.input.extend(data.drain(start + own..));
        self.consumed = 0;
        frame.unmask(&mut data[start..]);
        frame.remaining -= own;
        Ok(count)
    }

    /// Gives back what a burst needed; called when nothing comes.
    pub(crate) fn shrink(&mut self) {
        self.read_size = self.limits.first_read();
        self.input.shrink_to(self.read_size);
    }

    /// The next whole thing among the bytes so far; `None` when more are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, Violation> {
        match self.next_whole_message() {
            Some(message) => Ok(Some(Event::Message(message))),
            None => self.next_in_parts(),
        }
    }

    /// The next message if it is one frame, has arrived whole and breaks no rule: the common case. Otherwise nothing is
    /// consumed, and [`next`](Self::next) tells what it is.
    #[inline(always)]
    pub(crate) fn next_whole_message(&mut self) -> Option<Message> {
        if self.message.is_some() {
            return None;
        }
        let WholeMessage { is_text, mask, payload, rest } =
            WholeMessage::parse(self.input.get(self.consumed..)?)?;
        if payload.len() > self.limits.max_frame_size.min(self.limits.max_message_size) {
            return None;
        }
        let consumed = self.input.len() - rest.len();
        // Copied, so that a message which is kept does not keep the whole input buffer.
        let mut payload: Box<[u8]> = payload.into();
        unmask(&mut payload, mask);
        let message = message(is_text, payload.into()).ok()?;
        self.consumed = consumed;
        Some(message)
    }

    /// Whether nothing has come of the next message.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.consumed == self.input.len() && self.message.is_none()
    }

    /// The next of anything else.
    ///
    /// Apart, like all that most messages do not need, so that the frames of a read stay small: at thousands of
    /// connections each line of a stack is out of the caches by the next message.
    #[inline(never)]
    fn next_in_parts(&mut self) -> Result<Option<Event>, Violation> {
        loop {
            if self.frame.is_some() {
                match self.advance_payload()? {
                    Progress::NeedsInput => return Ok(None),
                    Progress::Fragment => {}
                    Progress::Message { is_text, data } => {
                        return message(is_text, data.into())
                            .map(|whole| Some(Event::Message(whole)));
                    }
                }
                continue;
            }
            let Some(header) = self.peek_header().map_err(violation)? else {
                return Ok(None);
            };
            if header.opcode.is_control() {
                let payload = self.take_payload(&header);
                return payload.map(|payload| control(header.opcode, payload)).transpose();
            }
            self.check_sizes(&header)?;
            self.check_sequence(header.opcode)?;
            self.consumed += header.size;
            self.begin_frame(&header)?;
        }
    }

    /// Whether [`next`](Self::next) has a frame at hand without more input.
    pub(crate) fn has_whole_frame(&self) -> bool {
        let available = self.input.len() - self.consumed;
        available > 0
            && self.frame.is_none()
            && matches!(
                self.peek_header(),
                Ok(Some(header)) if available - header.size >= header.length
            )
    }

    /// Whether the next frame begins a message, as far as its header has come.
    pub(crate) fn begins_message(&self) -> bool {
        self.message.is_none()
            && matches!(self.peek_header(), Ok(Some(header)) if !header.opcode.is_control())
    }

    /// Whether a part of a frame's payload is still to come, within which nothing else can stand.
    pub(crate) fn is_within_frame(&self) -> bool {
        self.frame.is_some()
    }

    /// How many bytes have come of a frame of which not even the header is whole, or of a control frame.
    pub(crate) fn incomplete(&self) -> usize {
        self.input.len() - self.consumed
    }

    /// The next header; it is not consumed yet.
    #[inline]
    fn peek_header(&self) -> Result<Option<Header>, &'static str> {
        Header::parse(&self.input[self.consumed..], self.reserved)
    }

    /// Consumes a frame whose payload has arrived whole.
    fn take_payload(&mut self, header: &Header) -> Option<&[u8]> {
        let start = self.consumed + header.size;
        let end = start.checked_add(header.length)?;
        let payload = self.input.get_mut(start..end)?;
        unmask(payload, header.mask);
        self.consumed = end;
        Some(payload)
    }

    /// A length over the limits is refused before any of its bytes is kept.
    fn check_sizes(&self, header: &Header) -> Result<(), Violation> {
        let MessageLimits { max_frame_size, max_message_size, .. } = self.limits;
        let length = header.length;
        let is_compressed = header.is_compressed || self.inflates();
        // What does not compress gets longer, by an eighth at most: it is no longer a message for that.
        let longer = if is_compressed { max_frame_size / 8 + COMPRESSED_OVERHEAD } else { 0 };
        let most = max_frame_size.saturating_add(longer);
        if length > most {
            let reason = if is_compressed {
                let is_frames = max_frame_size != max_message_size;
                let name = if is_frames { "max_frame_size" } else { "max_message_size" };
                format!(
                    "a compressed frame of {length} bytes is over the limit of {most}: {name} \
                     {max_frame_size}, and an eighth"
                )
            } else {
                format!("a frame of {length} bytes is over the limit of {most}")
            };
            return Err(Close::new(CloseCode::MESSAGE_TOO_BIG, reason));
        }
        if is_compressed {
            return self.check_compressed_size(length);
        }
        let so_far = self.message.as_ref().map_or(0, |message| message.data.len());
        if length > max_message_size.saturating_sub(so_far) {
            let reason =
                format!("a message of more than {max_message_size} bytes is over the limit");
            return Err(Close::new(CloseCode::MESSAGE_TOO_BIG, reason));
        }
        Ok(())
    }

    /// What a compressed message becomes is counted while it is inflated. A compressor makes it longer by an eighth at most,
    /// and by some bytes where it is cut.
    #[inline(never)]
    fn check_compressed_size(&self, length: usize) -> Result<(), Violation> {
        let message = self.message.as_ref();
        let fragments = message.map_or(1, |message| message.fragments + 1);
        let most = self.limits.max_message_size.saturating_mul(2);
        let most = most.saturating_add(fragments.saturating_mul(COMPRESSED_OVERHEAD));
        let inflating = message.and_then(|message| message.inflating.as_ref());
        if length > most - inflating.map_or(0, |inflating| inflating.taken()).min(most) {
            let reason = format!("more than {most} compressed bytes for one message");
            return Err(Close::new(CloseCode::MESSAGE_TOO_BIG, reason));
        }
        Ok(())
    }

    /// A message is one text or binary frame and then continuations (RFC 6455 §5.4).
    fn check_sequence(&self, opcode: Opcode) -> Result<(), Violation> {
        match (opcode, &self.message) {
            (Opcode::Continuation, None) => Err(violation("a continuation without a message")),
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                Err(violation("a new message before the last one was complete"))
            }
            _ => Ok(()),
        }
    }

    fn begin_frame(&mut self, header: &Header) -> Result<(), Violation> {
        let inflation = self.inflation.as_ref().filter(|_| header.is_compressed);
        let message = self.message.get_or_insert_with(|| {
            Box::new(PartialMessage {
                is_text: header.opcode == Opcode::Text,
                data: Vec::new(),
                valid: 0,
                fragments: 0,
                inflating: inflation.map(|inflation| inflation.begin()),
            })
        });
        message.fragments += 1;
        if message.fragments > self.limits.max_fragments {
            return Err(Close::new(
                CloseCode::POLICY_VIOLATION,
                format!("a message of more than {} fragments", self.limits.max_fragments),
            ));
        }
        let Header { length, mask, is_final, .. } = *header;
        self.frame = Some(PartialFrame { remaining: length, mask, is_final });
        if length >= self.limits.largest_read() && message.inflating.is_none() {
            // What a read brings of a long payload together with its header has to be copied, so until the next header
            // reads are short again.
            self.read_size = self.limits.first_read();
        }
        Ok(())
    }

    /// Moves what has arrived of the current data frame to its message.
    fn advance_payload(&mut self) -> Result<Progress, Violation> {
        let (Some(frame), Some(partial)) = (&mut self.frame, &mut self.message) else {
            return Ok(Progress::NeedsInput);
        };
        let available = &mut self.input[self.consumed..];
        let count = available.len().min(frame.remaining);
        let arrived = &mut available[..count];
        frame.unmask(arrived);
        let mut inflated = Ok(());
        if let Some(inflating) = &mut partial.inflating {
            inflated = inflating.push(arrived, &mut partial.data, self.limits.max_message_size);
        } else {
            if partial.data.capacity() == 0 && count > 0 {
                frame.reserve(&mut partial.data, self.read_size);
            }
            partial.data.extend_from_slice(arrived);
        }
        self.consumed += count;
        frame.remaining -= count;
        // Text fails at the first wrong byte, not at the message's end (RFC 6455 §8.1).
        partial.check_text()?;
        // What was inflated before it went wrong comes first, however much arrives at once.
        inflated?;
        if frame.remaining > 0 {
            return Ok(Progress::NeedsInput);
        }
        let is_final = frame.is_final;
        self.frame = None;
        if !is_final {
            return Ok(Progress::Fragment);
        }
        let PartialMessage { is_text, mut data, inflating, .. } =
            *self.message.take().expect("a frame belongs to a message");
        if let (Some(inflating), Some(inflation)) = (inflating, &mut self.inflation) {
            inflation.end(inflating, &mut data, self.limits.max_message_size)?;
        }
        // The program may keep the message for long, so room that is left is given back, unless it is too little to be
        // worth a copy.
        if data.capacity() - data.len() > data.len() / 8 {
            data.shrink_to_fit();
        }
        Ok(Progress::Message { is_text, data })
    }
}

impl PartialFrame {
    /// Makes room for the next part of the payload, and for a read more: that saves a read for the header behind it.
    fn reserve(&self, data: &mut Vec<u8>, read_size: usize) {
        data.reserve_exact(self.remaining.min(GROWTH.max(data.len())) + read_size);
    }

    /// Takes the mask off the next bytes, and rotates it so that it fits the bytes behind them.
    fn unmask(&mut self, bytes: &mut [u8]) {
        unmask(bytes, self.mask);
        self.mask.rotate_left(bytes.len() % 4);
    }
}

enum Progress {
    NeedsInput,
    Fragment,
    Message { is_text: bool, data: Vec<u8> },
}

impl PartialMessage {
    fn check_text(&mut self) -> Result<(), Violation> {
        if !self.is_text {
            return Ok(());
        }
        match std::str::from_utf8(&self.data[self.valid..]) {
            Ok(_) => self.valid = self.data.len(),
            // The rest of the last character may still come.
            Err(error) if error.error_len().is_none() => self.valid += error.valid_up_to(),
            Err(_) => return Err(invalid_text()),
        }
        Ok(())
    }
}

#[inline]
fn message(is_text: bool, payload: Bytes) -> Result<Message, Violation> {
    if is_text {
        Text::from_utf8(payload).map(Message::Text).ok_or_else(invalid_text)
    } else {
        Ok(Message::Binary(payload))
    }
}

fn control(opcode: Opcode, payload: &[u8]) -> Result<Event, Violation> {
    match opcode {
        Opcode::Close => close(payload).map(Event::Close),
        Opcode::Ping => Ok(Event::Ping(Bytes::copy_from_slice(payload))),
        _ => Ok(Event::Pong(Bytes::copy_from_slice(payload))),
    }
}

/// The body of a close frame: nothing, or a code and a reason (RFC 6455 §5.5.1).
fn close(payload: &[u8]) -> Result<Close, Violation> {
    match payload {
        [] => Ok(Close::new(CloseCode::NO_STATUS, "")),
        [_] => Err(violation("a close frame with half a code")),
        [high, low, reason @ ..] => {
            let code = CloseCode::from(u16::from_be_bytes([*high, *low]));
            if !code.is_sendable() {
                return Err(violation("a close code that may not be sent"));
            }
            let reason = str::from_utf8(reason).map_err(|_| invalid_text())?;
            Ok(Close::new(code, reason))
        }
    }
}

fn violation(reason: &str) -> Violation {
    Close::new(CloseCode::PROTOCOL_ERROR, reason)
}

#[cold]
#[inline(never)]
fn invalid_text() -> Violation {
    Close::new(CloseCode::INVALID_PAYLOAD, "text that is not UTF-8")
}

/// Takes the mask off `bytes` (RFC 6455 §5.3).
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let mask = u32::from_ne_bytes(mask);
    let (words, rest) = bytes.as_chunks_mut();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ mask).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.to_ne_bytes()) {
        *byte ^= mask;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem;

    const LIMITS: MessageLimits = MessageLimits {
        max_message_size: 100_000,
        max_frame_size: 100_000,
        max_fragments: 4,
        read_buffer_size: 256,
    };

    /// A client frame with a mask that is not zero.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut wire = vec![first];
        match payload.len() {
            length @ 0..=125 => wire.push(0x80 | length as u8),
            length @ 126..=65_535 => {
                wire.push(0x80 | 126);
                wire.extend((length as u16).to_be_bytes());
            }
            length => {
                wire.push(0x80 | 127);
                wire.extend((length as u64).to_be_bytes());
            }
        }
        let mask = [0x11, 0x22, 0x93, 0xf4];
        wire.extend(mask);
        wire.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        wire
    }

    /// Feeds `wire` in reads of at most `step` bytes; the events, and the violation that ended them.
    fn decode(wire: &[u8], step: usize) -> (Vec<Event>, Option<Violation>) {
        let mut decoder = Decoder::new(LIMITS, Vec::new());
        let mut rest = wire;
        let mut events = Vec::new();
        loop {
            match decoder.next() {
                Ok(Some(event)) => events.push(event),
                Ok(None) if rest.is_empty() => return (events, None),
                Ok(None) => {
                    let read = decoder.fill(|buffer| {
                        let room = buffer.capacity() - buffer.len();
                        let (now, later) = rest.split_at(step.min(room).min(rest.len()));
                        buffer.extend_from_slice(now);
                        rest = later;
                        Ok(now.len())
                    });
                    assert!(read.unwrap() > 0, "the decoder asked for bytes without room for them");
                }
                Err(violation) => return (events, Some(violation)),
            }
        }
    }

    fn violation_of(wire: &[u8]) -> u16 {
        let (_, violation) = decode(wire, wire.len());
        u16::from(violation.unwrap_or_else(|| panic!("{wire:02x?} was taken")).code)
    }

    #[test]
    fn a_whole_message_needs_one_line_of_memory() {
        let needed = [
            mem::offset_of!(Decoder, input) + size_of::<Vec<u8>>(),
            mem::offset_of!(Decoder, consumed) + size_of::<usize>(),
            mem::offset_of!(Decoder, read_size) + size_of::<usize>(),
            mem::offset_of!(Decoder, message) + size_of::<usize>(),
            mem::offset_of!(Decoder, limits.max_message_size) + size_of::<usize>(),
            mem::offset_of!(Decoder, limits.max_frame_size) + size_of::<usize>(),
        ];
        assert!(needed.iter().all(|end| *end <= 64), "{needed:?}");
    }

    #[test]
    fn any_split_gives_the_same_events() {
        let long = "äöü€".repeat(3000);
        let wire = [
            frame(0x81, "häi".as_bytes()),
            frame(0x01, &"€".as_bytes()[..2]),
            frame(0x89, b"in between"),
            frame(0x00, b""),
            frame(0x80, &"€".as_bytes()[2..]),
            frame(0x81, long.as_bytes()),
            frame(0x8a, b"pong"),
            frame(0x82, &[7; 300]),
            frame(0x82, b""),
            frame(0x88, b"\x03\xe8bye"),
        ]
        .concat();
        let expected = vec![
            Event::Message("häi".into()),
            Event::Ping(Bytes::from_static(b"in between")),
            Event::Message("€".into()),
            Event::Message(long.into()),
            Event::Pong(Bytes::from_static(b"pong")),
            Event::Message(vec![7; 300].into()),
            Event::Message(Vec::new().into()),
            Event::Close(Close::new(CloseCode::NORMAL, "bye")),
        ];
        for step in (1..600).chain([wire.len()]) {
            assert_eq!(decode(&wire, step), (expected.clone(), None), "reads of {step} bytes");
        }
    }

    #[test]
    fn violations_have_their_close_codes() {
        let unmasked = b"\x81\x02hi".to_vec();
        let long_ping = frame(0x89, &[0; 126]);
        let cases: &[(&str, Vec<u8>, u16)] = &[
            ("reserved bit", frame(0xc1, b"x"), 1002),
            ("reserved data opcode", frame(0x83, b"x"), 1002),
            ("reserved control opcode", frame(0x8b, b""), 1002),
            ("unmasked", unmasked, 1002),
            ("fragmented ping", frame(0x09, b""), 1002),
            ("long ping", long_ping, 1002),
            ("continuation first", frame(0x80, b"x"), 1002),
            ("text inside text", [frame(0x01, b"a"), frame(0x81, b"b")].concat(), 1002),
            ("16-bit length for 5", b"\x82\xfe\x00\x05\0\0\0\0hello".to_vec(), 1002),
            ("64-bit length for 5", b"\x82\xff\0\0\0\0\0\0\0\x05\0\0\0\0hello".to_vec(), 1002),
            ("length 2^63", b"\x82\xff\x80\0\0\0\0\0\0\0\0\0\0\0".to_vec(), 1002),
            ("length 2^62", b"\x82\xff\x40\0\0\0\0\0\0\0\0\0\0\0".to_vec(), 1009),
            ("too long", frame(0x82, &[0; 100_001]), 1009),
            ("too long in parts", [frame(2, &[0; 99_999]), frame(0, &[0; 2])].concat(), 1009),
            ("bad text", frame(0x81, b"\xff"), 1007),
            ("bad text at the end", frame(0x81, b"a\xe2\x82"), 1007),
            ("bad text over frames", [frame(1, b"\xe2\x82"), frame(0, b"x")].concat(), 1007),
            ("close of one byte", frame(0x88, b"\x03"), 1002),
            ("close with 1005", frame(0x88, b"\x03\xed"), 1002),
            ("close with 999", frame(0x88, b"\x03\xe7"), 1002),
            ("close with bad text", frame(0x88, b"\x03\xe8\xff"), 1007),
            ("too many fragments", [frame(1, b""), frame(0, b"").repeat(4)].concat(), 1008),
        ];
        for (what, wire, code) in cases {
            assert_eq!(violation_of(wire), *code, "{what}");
        }
    }

    #[test]
    fn wrong_text_is_found_before_its_frame_is_complete() {
        let mut wire = frame(0x81, &[b'a'; 1000]);
        wire[20] ^= 0xff;
        let (events, violation) = decode(&wire[..200], 200);
        assert_eq!(events, []);
        assert_eq!(violation.map(|close| close.code), Some(CloseCode::INVALID_PAYLOAD));
    }

    #[test]
    fn an_announced_length_reserves_little() {
        let limits = MessageLimits { max_message_size: 1 << 40, max_frame_size: 1 << 40, ..LIMITS };
        let mut decoder = Decoder::new(limits, b"\x82\xff\0\0\0\xff\0\0\0\0\0\0\0\0".to_vec());
        assert_eq!(decoder.next(), Ok(None));
        decoder
            .fill(|buffer| {
                let limit = GROWTH + limits.read_buffer_size;
                assert!(buffer.capacity() <= limit, "{} bytes reserved", buffer.capacity());
                buffer.push(0);
                Ok(1)
            })
            .unwrap();
    }

    #[test]
    fn what_comes_before_a_violation_is_delivered() {
        let (events, violation) =
            decode(&[frame(0x81, b"good"), frame(0xff, b"bad")].concat(), 999);
        assert_eq!(events, [Event::Message("good".into())]);
        assert!(violation.is_some());
    }
}
