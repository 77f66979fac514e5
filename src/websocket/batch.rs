//! What goes out in one write: short frames, copied one behind the other, and at the end a long payload, which is
//! shared.

use std::io::{self, IoSlice};
use std::mem;

use bytes::Bytes;

use crate::base::contained::contained;
use crate::websocket::frame::Frame;
use crate::websocket::header;

/// Up to here a payload is copied behind its header, so that many frames are one slice; a longer one is shared.
const COPIED_PAYLOAD: usize = 4 << 10;
/// A batch takes no more frames from here on. A control frame waits behind no more than one batch.
const FULL: usize = 32 << 10;
/// Buffers of messages up to here are kept for the next batch. A quiet connection needs no more; a busy one soon has it
/// again.
const KEPT: usize = 2 << 10;
/// What a message that waits takes beside its bytes on the wire: its place in the channel.
const MESSAGE_OVERHEAD: usize = 64;
/// The same for the newest value of a key, with the table in which the key is found.
const LATEST_OVERHEAD: usize = 256;

/// Messages or control frames on their way, of which some bytes may be written already.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// A long payload, whose header is the end of `bytes`.
    payload: Option<Payload>,
    /// What its messages count for. Control frames count for nothing.
    account: Account,
    written: usize,
}

/// A number of messages, and for how many bytes they count in an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Account {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Account {
    /// What one message counts for; or a mark, which waits like one.
    pub(crate) fn of(frame: &Frame) -> Self {
        Self { messages: usize::from(!frame.is_control()), bytes: frame.len() + MESSAGE_OVERHEAD }
    }

    /// What one message counts for under a key of that length.
    pub(crate) fn of_latest(frame: &Frame, key_length: usize) -> Self {
        Self { messages: 1, bytes: frame.len() + key_length + LATEST_OVERHEAD }
    }
}

/// A payload that the program may have made of memory of its own ([`Bytes::from_owner`]), whose destructor is then the
/// program's code. Whoever drops it, a sender or a writer of others' messages, must not suffer from a panic there.
#[derive(Debug)]
pub(crate) struct Payload(Bytes);

impl From<Frame> for Payload {
    fn from(frame: Frame) -> Self {
        Self(frame.into_payload())
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        // Even one without a byte may have an owner.
        let bytes = mem::take(&mut self.0);
        if contained(|| drop(bytes)).is_none() {
            contained(|| {
                log::error!(
                    target: "rwf::websocket",
                    "the destructor of a message's payload panicked"
                )
            });
        }
    }
}

impl Batch {
    /// A batch of bytes that are sent as they are: the response that opens a connection.
    pub(crate) fn opening(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// Takes in a message, which counts for `account`.
    #[inline]
    pub(crate) fn push_message(&mut self, frame: &Frame, account: Account) {
        self.push(frame);
        self.account.messages += account.messages;
        self.account.bytes += account.bytes;
    }

    pub(crate) fn push_control(&mut self, frame: &Frame) {
        self.push(frame);
    }

    /// Takes in a message of which `written` bytes were written already. The batch is empty before.
    pub(crate) fn push_written(&mut self, frame: &Frame, account: Account, written: usize) {
        self.push_message(frame, account);
        self.written = written;
    }

    #[inline(always)]
    fn push(&mut self, frame: &Frame) {
        debug_assert!(!self.is_full(), "nothing comes behind a long payload");
        if let Some(header) = frame.short_header() {
            self.bytes.extend_from_slice(&header);
        } else {
            self.bytes.extend_from_slice(frame.header(&mut [0; header::MAX_SENT]));
        }
        if frame.payload().len() <= COPIED_PAYLOAD {
            self.bytes.extend_from_slice(frame.payload());
        } else {
            self.share(frame.payload());
        }
    }

    #[inline(never)]
    fn share(&mut self, payload: &Bytes) {
        self.payload = Some(Payload(payload.clone()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= FULL || self.payload.is_some()
    }

    /// What its messages count for.
    pub(crate) fn account(&self) -> Account {
        self.account
    }

    fn len(&self) -> usize {
        self.bytes.len() + self.payload().len()
    }

    fn payload(&self) -> &[u8] {
        self.payload.as_ref().map_or(&[], |payload| &payload.0)
    }

    pub(crate) fn is_written(&self) -> bool {
        self.written == self.len()
    }

    /// One write of what is not yet written: how many bytes of it were taken.
    pub(crate) fn write(
        &mut self,
        send: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let bytes = self.bytes.get(self.written..).unwrap_or_default();
        let payload = &self.payload()[self.written.saturating_sub(self.bytes.len())..];
        let slices = [IoSlice::new(bytes), IoSlice::new(payload)];
        let taken = send(match (bytes, payload) {
            ([], _) => &slices[1..],
            (_, []) => &slices[..1],
            _ => &slices,
        })?;
        self.written += taken;
        Ok(taken)
    }

    /// Empties it, and keeps a small buffer. The caller drops the payload when it holds neither a lock nor the write
    /// half: its destructor may be the program's.
    #[must_use]
    pub(crate) fn clear(&mut self) -> Option<Payload> {
        // That of the opening or of a pong is not: a connection that only answers single messages never needs it again.
        if self.account.messages == 0 || self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.account = Account::default();
        self.written = 0;
        self.payload.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Frame {
        Frame::message(text.into())
    }

    #[test]
    fn writes_that_stop_anywhere_lose_and_repeat_nothing() {
        let frames = ["one", "", &"long".repeat(2000)].map(text);
        let wire: Vec<u8> = frames.iter().flat_map(Frame::wire).collect();
        for step in [1, 2, 3, 7, 4096, usize::MAX] {
            let mut batch = Batch::default();
            frames.iter().for_each(|frame| batch.push_message(frame, Account::of(frame)));
            assert!(batch.is_full(), "nothing may come behind a long payload");
            let bytes = wire.len() + frames.len() * MESSAGE_OVERHEAD;
            assert_eq!(batch.account(), Account { messages: frames.len(), bytes });
            let mut sent = Vec::new();
            while !batch.is_written() {
                let written = batch.write(|slices| {
                    let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
                    let count = step.min(all.len());
                    sent.extend_from_slice(&all[..count]);
                    Ok(count)
                });
                written.unwrap();
            }
            assert!(sent == wire, "writes of {step} bytes");
        }
    }

    #[test]
    fn control_frames_are_no_messages() {
        let mut batch = Batch::default();
        batch.push_control(&Frame::ping(Bytes::new()));
        assert_eq!(batch.account(), Account::default());
        assert!(!batch.is_empty());
    }

    #[test]
    fn what_a_burst_needed_is_not_kept() {
        let mut batch = Batch::default();
        while !batch.is_full() {
            let frame = text("hey there");
            batch.push_message(&frame, Account::of(&frame));
        }
        assert!(batch.clear().is_none(), "there was no long payload");
        assert_eq!(batch.bytes.capacity(), 0);
        assert!(batch.is_empty() && batch.is_written());
    }
}
