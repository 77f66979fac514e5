//! What goes through a channel of Redis: bytes, with who sent them and which of its messages it is.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Sender;

use crate::redis::dialect::Dialect;
use crate::redis::node::NodeId;
use crate::redis::resp;
use crate::redis::sequences::Place;

/// The first byte of a probe, which a node sends to itself.
const PROBE: u8 = 0;
/// The first byte of everything else, and the version of what follows. A node that reads another one passes over it: while a
/// program is replaced, old and new nodes run side by side.
const VERSION: u8 = 1;
const LABEL_LENGTH: usize = 25;

/// A message on its way out.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) channel: Arc<str>,
    pub(crate) place: Place,
    /// A copy: the payload of a message may be memory of the program's own, which is not kept for as long as Redis is away.
    pub(crate) content: Vec<u8>,
    pub(crate) posted: Instant,
    /// Who wants to know how many nodes hear it.
    pub(crate) asker: Option<Sender<u64>>,
}

/// What stands around a parcel in memory, honestly counted, in bytes.
const OVERHEAD: usize = 256;

impl Parcel {
    /// The bytes of memory that it takes.
    pub(crate) fn cost(&self) -> usize {
        OVERHEAD + self.content.len()
    }

    /// Writes the command that publishes it.
    pub(crate) fn write(&self, from: NodeId, dialect: Dialect, buffer: &mut Vec<u8>) {
        let mut label = [VERSION; LABEL_LENGTH];
        label[1..9].copy_from_slice(&from.number().to_be_bytes());
        label[9..17].copy_from_slice(&self.place.start.to_be_bytes());
        label[17..].copy_from_slice(&self.place.number.to_be_bytes());
        publish(dialect, &self.channel, &[&label, &self.content], buffer);
    }
}

/// Writes the command that sends a probe.
pub(crate) fn write_probe(channel: &str, number: u64, buffer: &mut Vec<u8>) {
    publish(Dialect::Plain, channel, &[&[PROBE], &number.to_be_bytes()], buffer);
}

fn publish(dialect: Dialect, channel: &str, parts: &[&[u8]], buffer: &mut Vec<u8>) {
    resp::array(buffer, 3);
    resp::bulk(buffer, &[dialect.publish().as_bytes()]);
    resp::bulk(buffer, &[channel.as_bytes()]);
    resp::bulk(buffer, parts);
}

/// What came out of a channel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened<'a> {
    Parcel {
        from: NodeId,
        place: Place,
        content: &'a [u8],
    },
    Probe(u64),
    /// Of another version, or not of this program at all.
    Unknown,
}

pub(crate) fn open(bytes: &[u8]) -> Opened<'_> {
    let number = |at: usize| {
        let bytes = bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u64::from_be_bytes)
    };
    match bytes.first() {
        Some(&VERSION) => match (number(1), number(9), number(17)) {
            (Some(from), Some(start), Some(last)) => Opened::Parcel {
                from: NodeId::from_number(from),
                place: Place { start, number: last },
                content: &bytes[LABEL_LENGTH..],
            },
            _ => Opened::Unknown,
        },
        Some(&PROBE) if bytes.len() == 9 => number(1).map_or(Opened::Unknown, Opened::Probe),
        _ => Opened::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::resp::{Reply, parse};

    /// What Redis would hand over of a command that publishes.
    fn published(command: &[u8]) -> Vec<u8> {
        let at = command.windows(7).position(|bytes| bytes == b"PUBLISH").unwrap();
        let push = [b">3\r\n$7\r\nmessage", &command[at + 7..]].concat();
        match parse(&push).unwrap().unwrap() {
            (Reply::Message { channel: b"room", payload }, _) => payload.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let (node, mut buffer) = (NodeId::random(), Vec::new());
        let place = Place { start: 3, number: u64::MAX };
        let content = b"hello\r\n".to_vec();
        let parcel =
            Parcel { channel: "room".into(), place, content, posted: Instant::now(), asker: None };
        parcel.write(node, Dialect::Plain, &mut buffer);
        let expected = Opened::Parcel { from: node, place, content: b"hello\r\n" };
        let bytes = published(&buffer);
        assert_eq!(open(&bytes), expected);
        for length in 0..LABEL_LENGTH {
            assert_eq!(open(&bytes[..length]), Opened::Unknown, "cut at {length}");
        }

        buffer.clear();
        write_probe("room", 7, &mut buffer);
        assert_eq!(open(&published(&buffer)), Opened::Probe(7));
    }

    #[test]
    fn another_version_is_passed_over() {
        assert_eq!(open(&[2; 100]), Opened::Unknown);
        assert_eq!(open(b"a line by hand"), Opened::Unknown);
    }
}
