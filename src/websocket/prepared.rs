//! A message on its way to many: encoded once, and compressed once for all of them that agreed on the same.

use std::cell::OnceCell;

use crate::websocket::compression::{Deflation, Method};
use crate::websocket::frame::Frame;
use crate::websocket::message::Outgoing;

/// A message as it is sent. It is compressed when the first receiver comes that agreed on that.
#[derive(Debug)]
pub(crate) struct PreparedMessage {
    frame: Frame,
    compressed: OnceCell<Box<Compressed>>,
}

/// What compressing by one method has brought, and in a chain what others have. Receivers mostly agree on the same; they
/// can differ in the window, of which there are seven.
#[derive(Debug)]
struct Compressed {
    method: Method,
    /// `None` where it does not make the message shorter.
    frame: Option<Frame>,
    next: OnceCell<Box<Self>>,
}

impl PreparedMessage {
    #[inline]
    pub(crate) fn new(message: impl Into<Outgoing>) -> Self {
        let (message, is_compressible) = message.into().into_parts();
        let frame = Frame::message(message);
        Self::from(if is_compressible { frame.compressible() } else { frame })
    }

    /// The frame that waits for a receiver whose messages are compressed like this.
    #[inline]
    pub(crate) fn frame_for(&self, deflation: Option<&Deflation>) -> &Frame {
        match deflation {
            None => &self.frame,
            Some(deflation) => self.choose(deflation),
        }
    }

    #[inline(never)]
    fn choose(&self, deflation: &Deflation) -> &Frame {
        let is_compressed = self.frame.is_compressible() && deflation.is_worth(&self.frame);
        let Some(method) = deflation.method().filter(|_| is_compressed) else {
            return &self.frame;
        };
        let mut place = &self.compressed;
        loop {
            let compressed = place.get_or_init(|| {
                let frame = method.deflate(&self.frame);
                Box::new(Compressed { method, frame, next: OnceCell::new() })
            });
            if compressed.method == method {
                return compressed.frame.as_ref().unwrap_or(&self.frame);
            }
            place = &compressed.next;
        }
    }
}

impl From<Frame> for PreparedMessage {
    /// Of a message that nobody has compressed.
    fn from(frame: Frame) -> Self {
        Self { frame, compressed: OnceCell::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::deflate::Deflate;
    use crate::websocket::extensions::{Agreement, Side};
    use crate::websocket::message::Message;

    fn deflation(settings: Deflate, window_bits: u8) -> Deflation {
        let side = Side { keeps_context: settings.context_takeover, window_bits };
        Deflation::new(&Agreement { settings, server: side, client: side })
    }

    #[test]
    fn a_message_is_compressed_once_for_all_who_agreed_on_the_same() {
        let text = "what is said again and again, ".repeat(100);
        let message = PreparedMessage::new(text.as_str());
        let settings = Deflate::new();
        let address =
            |settings, bits| message.frame_for(Some(&deflation(settings, bits))).payload().as_ptr();
        let first = address(settings, 15);
        let small = address(settings, 9);
        let hard = address(settings.level(9), 15);
        assert!(first != small && first != hard && small != hard);
        for _ in 0..3 {
            assert_eq!(address(settings, 15), first);
            assert_eq!(
                address(settings.threshold(3000), 15),
                first,
                "thresholds change nothing in it"
            );
            assert_eq!(address(settings, 9), small);
            assert_eq!(address(settings.level(9), 15), hard);
        }
        let plain = message.frame_for(None).payload().as_ptr();
        assert_eq!(address(settings.threshold(3001), 15), plain);
        assert_eq!(
            address(settings.context_takeover(true), 15),
            plain,
            "later, in the order of the wire"
        );
    }

    #[test]
    fn what_need_not_be_compressed_is_as_the_program_gave_it() {
        let text = Message::from("what is said again and again, ".repeat(100));
        let address = text.as_bytes().as_ptr();
        let deflation = deflation(Deflate::new(), 15);
        let message = PreparedMessage::new(text.clone().uncompressed());
        assert_eq!(message.frame_for(Some(&deflation)).payload().as_ptr(), address);
        assert_eq!(PreparedMessage::new(text).frame_for(None).payload().as_ptr(), address);
    }
}
