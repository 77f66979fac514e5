//! Frames out: a message or control frame as wire bytes, the same for all its receivers.

use bytes::Bytes;

use crate::websocket::close::{Close, CloseCode};
use crate::websocket::header::{self, Opcode};
use crate::websocket::message::Message;

/// A frame. Server frames carry no mask, so all receivers take the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The first byte of the header. The rest of it is the payload's length.
    first: u8,
    /// As the program gave it, or compressed.
    payload: Bytes,
    /// Whether the message may still be compressed.
    is_compressible: bool,
}

impl Frame {
    /// A whole message in one frame.
    #[inline]
    pub(crate) fn message(message: Message) -> Self {
        match message {
            Message::Text(text) => Self::encode(Opcode::Text, text.into()),
            Message::Binary(bytes) => Self::encode(Opcode::Binary, bytes),
        }
    }

    /// The same message, which may be compressed.
    pub(crate) fn compressible(self) -> Self {
        Self { is_compressible: true, ..self }
    }

    pub(crate) fn is_compressible(&self) -> bool {
        self.is_compressible
    }

    /// The same message with `payload`, which is compressed (RFC 7692 §6).
    #[cfg(feature = "deflate")]
    pub(crate) fn compressed(&self, payload: Bytes) -> Self {
        Self { first: self.first | header::RSV1, payload, is_compressible: false }
    }

    /// A ping; `payload` comes back in its pong.
    pub(crate) fn ping(payload: Bytes) -> Self {
        Self::control(Opcode::Ping, payload)
    }

    /// The answer to a ping, with the ping's payload (RFC 6455 §5.5.3).
    pub(crate) fn pong(payload: Bytes) -> Self {
        Self::control(Opcode::Pong, payload)
    }

    /// A close frame, without a body for [`CloseCode::NO_STATUS`].
    pub(crate) fn close(close: &Close) -> Self {
        let mut body = Vec::new();
        if close.code != CloseCode::NO_STATUS {
            body.extend(u16::from(close.code).to_be_bytes());
            body.extend(close.reason.as_bytes());
        }
        Self::control(Opcode::Close, body.into())
    }

    fn control(opcode: Opcode, payload: Bytes) -> Self {
        debug_assert!(payload.len() <= 125, "control frames are short (RFC 6455 §5.5)");
        Self::encode(opcode, payload)
    }

    #[inline]
    fn encode(opcode: Opcode, payload: Bytes) -> Self {
        Self { first: header::FIN | opcode as u8, payload, is_compressible: false }
    }

    /// Whether it is a ping, pong or close (RFC 6455 §5.5).
    pub(crate) fn is_control(&self) -> bool {
        self.first & 0x08 != 0
    }

    /// Whether it is a text message.
    #[cfg(feature = "redis")]
    pub(crate) fn is_text(&self) -> bool {
        self.first & 0x0f == 0x01
    }

    /// Length on the wire.
    pub(crate) fn len(&self) -> usize {
        header::size(self.payload.len()) + self.payload.len()
    }

    /// The header, if it is the short one of most frames.
    #[inline]
    pub(crate) fn short_header(&self) -> Option<[u8; 2]> {
        header::short(self.first, self.payload.len())
    }

    /// The header, at the beginning of `out`.
    pub(crate) fn header<'a>(&self, out: &'a mut [u8; header::MAX_SENT]) -> &'a [u8] {
        let size = header::write(self.first, self.payload.len(), out);
        &out[..size]
    }

    /// The bytes on the wire.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn wire(&self) -> Vec<u8> {
        [self.header(&mut [0; header::MAX_SENT]), self.payload()].concat()
    }

    pub(crate) fn payload(&self) -> &Bytes {
        &self.payload
    }

    pub(crate) fn into_payload(self) -> Bytes {
        self.payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_follow_the_rfc() {
        assert_eq!(Frame::message("Hello".into()).wire(), b"\x81\x05Hello");
        assert_eq!(Frame::ping(Bytes::from_static(b"x")).wire(), b"\x89\x01x");
        assert_eq!(Frame::pong(Bytes::new()).wire(), b"\x8a\x00");
        assert_eq!(
            Frame::close(&Close::new(CloseCode::NORMAL, "bye")).wire(),
            b"\x88\x05\x03\xe8bye"
        );
        assert_eq!(Frame::close(&Close::new(CloseCode::NO_STATUS, "")).wire(), b"\x88\x00");
    }

    #[test]
    fn the_payload_is_shared() {
        let message = Message::binary(vec![1; 200]);
        let frame = Frame::message(message.clone());
        assert_eq!(frame.payload().as_ptr(), message.as_bytes().as_ptr());
    }
}
