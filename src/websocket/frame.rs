//! Frames out: a message or control frame as wire bytes, encoded once for all its receivers.

use bytes::Bytes;

use crate::websocket::close::{Close, CloseCode};
use crate::websocket::header::{self, Opcode};
use crate::websocket::message::Message;

/// An encoded frame. Server frames carry no mask, so all receivers take the same bytes.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    header: [u8; header::MAX_SENT],
    header_length: usize,
    /// As the program gave it.
    payload: Bytes,
}

impl Frame {
    /// A whole message in one frame.
    pub(crate) fn message(message: Message) -> Self {
        match message {
            Message::Text(text) => Self::encode(Opcode::Text, text.into()),
            Message::Binary(bytes) => Self::encode(Opcode::Binary, bytes),
        }
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

    fn encode(opcode: Opcode, payload: Bytes) -> Self {
        let mut header = [0; header::MAX_SENT];
        let header_length = header::write(opcode, payload.len(), &mut header);
        Self { header, header_length, payload }
    }

    /// Length on the wire.
    pub(crate) fn len(&self) -> usize {
        self.header_length + self.payload.len()
    }

    pub(crate) fn header(&self) -> &[u8] {
        &self.header[..self.header_length]
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

    fn wire(frame: &Frame) -> Vec<u8> {
        [frame.header(), frame.payload()].concat()
    }

    #[test]
    fn headers_follow_the_rfc() {
        assert_eq!(wire(&Frame::message("Hello".into())), b"\x81\x05Hello");
        assert_eq!(wire(&Frame::ping(Bytes::from_static(b"x"))), b"\x89\x01x");
        assert_eq!(wire(&Frame::pong(Bytes::new())), b"\x8a\x00");
        assert_eq!(
            wire(&Frame::close(&Close::new(CloseCode::NORMAL, "bye"))),
            b"\x88\x05\x03\xe8bye"
        );
        assert_eq!(wire(&Frame::close(&Close::new(CloseCode::NO_STATUS, ""))), b"\x88\x00");
    }

    #[test]
    fn the_payload_is_shared() {
        let message = Message::binary(vec![1; 200]);
        let frame = Frame::message(message.clone());
        assert_eq!(frame.payload().as_ptr(), message.as_bytes().as_ptr());
    }
}
