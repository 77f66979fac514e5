//! Values as bytes and back, as what nodes of a cluster say to each other is made of.

use crate::comms::receivers::Peer;
use crate::comms::session::ConnectionId;
use crate::redis::node::NodeId;

const SESSION: u8 = 0;
const CONNECTION: u8 = 1;

#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    /// No text and no list that fits memory is longer than what messages are.
    pub(crate) fn length(&mut self, length: usize) {
        self.0.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.length(text.len());
        self.0.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn option(&mut self, text: Option<&str>) {
        self.byte(text.is_some().into());
        text.into_iter().for_each(|text| self.text(text));
    }

    pub(crate) fn peer(&mut self, peer: &Peer) {
        match peer {
            Peer::Session(session) => {
                self.byte(SESSION);
                self.text(&session.to_string());
            }
            Peer::Connection(connection) => {
                self.byte(CONNECTION);
                self.number(connection.node().number());
                self.number(connection.number());
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    pub(crate) fn length(&mut self) -> Option<usize> {
        usize::try_from(u32::from_be_bytes(self.take(4)?.try_into().ok()?)).ok()
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let length = self.length()?;
        std::str::from_utf8(self.take(length)?).ok()
    }

    /// A text that may not be there.
    pub(crate) fn option(&mut self) -> Option<Option<&'a str>> {
        match self.byte()? {
            0 => Some(None),
            _ => self.text().map(Some),
        }
    }

    pub(crate) fn peer(&mut self) -> Option<Peer> {
        match self.byte()? {
            SESSION => Some(Peer::Session(self.text()?.parse().ok()?)),
            CONNECTION => {
                let node = NodeId::from_number(self.number()?);
                Some(Peer::Connection(ConnectionId::on(node, self.number()?)))
            }
            _ => None,
        }
    }
}
