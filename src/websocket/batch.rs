//! What goes out in one write: short frames one behind the other, or up to a long payload, which is not copied.

use std::io::{self, IoSlice};

use bytes::Bytes;

use crate::websocket::frame::Frame;

/// Up to here a payload is copied behind its header, so that many frames are one slice; a longer one is shared.
const COPIED_PAYLOAD: usize = 4 << 10;
/// A batch takes no more frames from here on. A control frame waits behind no more than one batch.
const FULL: usize = 32 << 10;
/// Buffers up to here are kept for the next batch. A quiet connection needs no more; a busy one soon has it again.
const KEPT: usize = 1 << 10;

/// Frames on their way, of which some bytes may be written already.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    /// Comes behind `bytes`, whose last frame it belongs to.
    payload: Bytes,
    /// Where each message ends. Control frames are not counted.
    ends: Vec<usize>,
    written: usize,
    /// How many messages are written whole.
    written_messages: usize,
}

/// Messages that a write completed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) messages: usize,
    pub(crate) message_bytes: usize,
}

impl Batch {
    /// A batch of bytes that are sent as they are: the response that opens a connection.
    pub(crate) fn opening(bytes: Vec<u8>) -> Self {
        Self { bytes, ..Self::default() }
    }

    pub(crate) fn push_message(&mut self, frame: &Frame) {
        self.push(frame);
        self.ends.push(self.len());
    }

    pub(crate) fn push_control(&mut self, frame: &Frame) {
        self.push(frame);
    }

    /// A batch of one message, of which `written` bytes are.
    pub(crate) fn push_written(&mut self, frame: &Frame, written: usize) {
        self.push_message(frame);
        self.written = written;
    }

    fn push(&mut self, frame: &Frame) {
        debug_assert!(!self.is_full(), "nothing comes behind a long payload");
        self.bytes.extend_from_slice(frame.head());
        if frame.payload().len() <= COPIED_PAYLOAD {
            self.bytes.extend_from_slice(frame.payload());
        } else {
            self.payload = frame.payload().clone();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= FULL || !self.payload.is_empty()
    }

    fn len(&self) -> usize {
        self.bytes.len() + self.payload.len()
    }

    pub(crate) fn is_written(&self) -> bool {
        self.written == self.len()
    }

    /// One write of what is not yet written.
    pub(crate) fn write(
        &mut self,
        send: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<Written> {
        let bytes = self.bytes.get(self.written..).unwrap_or_default();
        let payload = &self.payload[self.written.saturating_sub(self.bytes.len())..];
        let slices = [IoSlice::new(bytes), IoSlice::new(payload)];
        let slices = match (bytes, payload) {
            ([], _) => &slices[1..],
            (_, []) => &slices[..1],
            _ => &slices,
        };
        self.written += send(slices)?;
        Ok(self.settle())
    }

    fn settle(&mut self) -> Written {
        let before = self.written_messages;
        self.written_messages = if self.is_written() {
            self.ends.len()
        } else {
            self.ends.partition_point(|end| *end <= self.written)
        };
        let end_of = |messages: usize| messages.checked_sub(1).map_or(0, |last| self.ends[last]);
        Written {
            messages: self.written_messages - before,
            message_bytes: end_of(self.written_messages) - end_of(before),
        }
    }

    /// Empties it, and keeps small buffers.
    pub(crate) fn clear(&mut self) {
        if self.bytes.capacity() > KEPT {
            *self = Self::default();
        }
        self.bytes.clear();
        self.payload = Bytes::new();
        self.ends.clear();
        self.written = 0;
        self.written_messages = 0;
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
        let wire: Vec<u8> =
            frames.iter().flat_map(|frame| [frame.head(), frame.payload()].concat()).collect();
        for step in [1, 2, 3, 7, 4096, usize::MAX] {
            let mut batch = Batch::default();
            frames.iter().for_each(|frame| batch.push_message(frame));
            assert!(batch.is_full(), "nothing may come behind a long payload");
            let (mut sent, mut messages, mut bytes) = (Vec::new(), 0, 0);
            while !batch.is_written() {
                let written = batch.write(|slices| {
                    let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
                    let count = step.min(all.len());
                    sent.extend_from_slice(&all[..count]);
                    Ok(count)
                });
                let written = written.unwrap();
                messages += written.messages;
                bytes += written.message_bytes;
            }
            assert!(sent == wire, "writes of {step} bytes");
            assert_eq!((messages, bytes), (frames.len(), wire.len()));
        }
    }

    #[test]
    fn control_frames_are_no_messages() {
        let mut batch = Batch::default();
        batch.push_control(&Frame::ping(Bytes::new()));
        let written = batch.write(|slices| Ok(slices.iter().map(|slice| slice.len()).sum()));
        assert_eq!(written.unwrap(), Written::default());
        assert!(batch.is_written());
    }

    #[test]
    fn what_a_burst_needed_is_not_kept() {
        let mut batch = Batch::default();
        while !batch.is_full() {
            batch.push_message(&text("hey there"));
        }
        batch.clear();
        assert_eq!((batch.bytes.capacity(), batch.ends.capacity()), (0, 0));
        assert!(batch.is_empty() && batch.is_written());
    }
}
