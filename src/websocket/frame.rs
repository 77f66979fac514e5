//! Frames out: a message or control frame as wire bytes, encoded once for all its receivers.

use bytes::{BufMut, Bytes, BytesMut};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::websocket::close::{Close, CloseCode};
use crate::websocket::message::Message;

/// Up to here a payload is copied behind its header, so that the frame is one slice; a longer one is shared.
const COPIED_PAYLOAD: usize = 4096;

/// An encoded frame. A clone shares the bytes; server frames carry no mask, so all receivers take the same ones.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    head: Bytes,
    payload: Bytes,
}

impl Frame {
    /// A whole message in one frame.
    pub(crate) fn message(message: &Message) -> Self {
        match message {
            Message::Text(text) => {
                Self::encode(OpCode::Data(Data::Text), text.as_bytes(), || text.clone().into())
            }
            Message::Binary(bytes) => {
                Self::encode(OpCode::Data(Data::Binary), bytes, || bytes.clone())
            }
        }
    }

    /// A ping; `payload` comes back in its pong.
    pub(crate) fn ping(payload: &[u8]) -> Self {
        Self::control(Control::Ping, payload)
    }

    /// The answer to a ping, with the ping's payload (RFC 6455 §5.5.3).
    pub(crate) fn pong(payload: &[u8]) -> Self {
        Self::control(Control::Pong, payload)
    }

    /// A close frame, without a body for [`CloseCode::NoStatus`].
    pub(crate) fn close(close: &Close) -> Self {
        let mut body = Vec::new();
        if close.code != CloseCode::NoStatus {
            body.extend(u16::from(close.code).to_be_bytes());
            body.extend(close.reason.as_bytes());
        }
        Self::control(Control::Close, &body)
    }

    fn control(opcode: Control, payload: &[u8]) -> Self {
        debug_assert!(payload.len() <= 125, "control frames are short (RFC 6455 §5.5)");
        Self::encode(OpCode::Control(opcode), payload, Bytes::new)
    }

    fn encode(opcode: OpCode, payload: &[u8], share: impl FnOnce() -> Bytes) -> Self {
        let header = FrameHeader { opcode, ..FrameHeader::default() };
        let copied = if payload.len() <= COPIED_PAYLOAD { payload } else { &[] };
        let length = payload.len() as u64;
        let mut head = BytesMut::with_capacity(header.len(length) + copied.len()).writer();
        header.format(length, &mut head).expect("memory takes every write");
        let mut head = head.into_inner();
        head.extend_from_slice(copied);
        let payload = if copied.len() == payload.len() { Bytes::new() } else { share() };
        Self { head: head.freeze(), payload }
    }

    /// Length on the wire.
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.payload.len()
    }

    /// The bytes in two parts, the second mostly empty.
    pub(crate) fn parts(&self) -> [&[u8]; 2] {
        [&self.head, &self.payload]
    }
}

/// Bytes that are sent as they are: the response that opens a connection.
impl From<Vec<u8>> for Frame {
    fn from(bytes: Vec<u8>) -> Self {
        Self { head: bytes.into(), payload: Bytes::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire(frame: &Frame) -> Vec<u8> {
        frame.parts().concat()
    }

    #[test]
    fn headers_follow_the_rfc() {
        assert_eq!(wire(&Frame::message(&"Hello".into())), b"\x81\x05Hello");
        assert_eq!(wire(&Frame::ping(b"x")), b"\x89\x01x");
        assert_eq!(wire(&Frame::pong(b"")), b"\x8a\x00");
        assert_eq!(
            wire(&Frame::close(&Close::new(CloseCode::Normal, "bye"))),
            b"\x88\x05\x03\xe8bye"
        );
        assert_eq!(wire(&Frame::close(&Close::new(CloseCode::NoStatus, ""))), b"\x88\x00");
    }

    #[test]
    fn lengths_use_the_shortest_form() {
        for (length, head) in [
            (0, vec![0x82, 0]),
            (125, vec![0x82, 125]),
            (126, vec![0x82, 126, 0, 126]),
            (65_535, vec![0x82, 126, 255, 255]),
            (65_536, vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = Frame::message(&vec![b'x'; length].into());
            let wire = wire(&frame);
            assert_eq!(wire[..head.len()], head, "payload of {length} bytes");
            assert_eq!(wire.len(), frame.len());
            assert_eq!(wire.len(), head.len() + length);
        }
    }

    #[test]
    fn a_long_payload_is_shared() {
        let message = Message::binary(vec![1; COPIED_PAYLOAD + 1]);
        assert_eq!(Frame::message(&message).parts()[1].as_ptr(), message.as_bytes().as_ptr());
    }
}
