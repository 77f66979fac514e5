//! What nodes of a cluster say to each other, as bytes and back. Whom it is for is mostly said by the channel that it goes
//! through.
//!
//! A node passes over what it does not know, because old and new versions of a program run side by side while one replaces
//! the other: a new kind takes a new number, and a kind never changes.

use bytes::Bytes;

use crate::comms::joined::Way;
use crate::comms::receivers::{Peer, Receivers, Target};
use crate::comms::session::{ConnectionId, SessionId};
use crate::comms::wire::{Reader, Writer};
use crate::redis::node::NodeId;
use crate::websocket::close::Close;
use crate::websocket::frame::Frame;
use crate::websocket::message::{Message, Outgoing, Text};

/// What is to be done with the connections that are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Letter {
    /// To send them a message.
    Send {
        frame: Frame,
        /// Whether it is the newest value of a key.
        key: Option<String>,
        /// Whether one that is too slow for it may be closed, as its settings say.
        may_close: bool,
    },
    Close(Close),
    Subscribe(String),
    Unsubscribe(String),
    /// To say something of those who are meant, to the node that asks.
    Ask(Inquiry),
    /// What was said; the number of the question stands where that of a connection does.
    Answer(Vec<u8>),
    /// To ask them something, and give the first answer to the node that asks.
    Question(Question),
    /// Nobody waits for the answer to that question any more.
    Forget(u64),
    /// To wait until they have received all that was sent before, for so many milliseconds at most.
    Flush {
        number: u64,
        time: u64,
    },
    /// Of who comes and who goes, which `notices.rs` reads.
    Notice(Vec<u8>),
}

/// A question to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) number: u64,
    /// For how many milliseconds somebody waits for the answer.
    pub(crate) time: u64,
    pub(crate) message: Outgoing,
}

/// A question to other nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inquiry {
    pub(crate) asker: NodeId,
    pub(crate) number: u64,
    pub(crate) what: What,
}

/// What is asked of those who are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// Whether any of them is connected and not being closed: `1` or `0`.
    IsConnected,
    /// How many connections they are: a number of eight bytes.
    Count,
    /// Whose connections they are: a text for each session.
    Sessions,
    /// Whether one is among them: `1` or `0`.
    Contains(Peer),
}

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 3;
const SUBSCRIBE: u8 = 4;
const UNSUBSCRIBE: u8 = 5;
const ASK: u8 = 6;
const ANSWER: u8 = 7;
const NOTICE: u8 = 8;
const QUESTION: u8 = 9;
const FORGET: u8 = 10;
const FLUSH: u8 = 11;

const IS_CONNECTED: u8 = 0;
const COUNT: u8 = 1;
const SESSIONS: u8 = 2;
const CONTAINS: u8 = 3;

const HAS_KEY: u8 = 1;
const MAY_CLOSE: u8 = 2;
/// The program has sent it as one that is not to be compressed.
const UNCOMPRESSED: u8 = 4;
const IS_TEXT: u8 = 8;

/// A letter to `receivers`, whose target the channel tells but for the number of a connection.
pub(crate) fn seal(receivers: &Receivers, letter: &Letter) -> Vec<u8> {
    let length = match letter {
        Letter::Send { frame, .. } => frame.payload().len(),
        _ => 0,
    };
    let mut writer = Writer(Vec::with_capacity(32 + length));
    let kind = match letter {
        Letter::Send { frame, .. } if frame.is_text() => TEXT,
        Letter::Send { .. } => BINARY,
        Letter::Close(_) => CLOSE,
        Letter::Subscribe(_) => SUBSCRIBE,
        Letter::Unsubscribe(_) => UNSUBSCRIBE,
        Letter::Ask(_) => ASK,
        Letter::Answer(_) => ANSWER,
        Letter::Notice(_) => NOTICE,
        Letter::Question(_) => QUESTION,
        Letter::Forget(_) => FORGET,
        Letter::Flush { .. } => FLUSH,
    };
    writer.byte(kind);
    if let Target::Connection(connection) = &receivers.target {
        writer.number(connection.number());
    }
    writer.length(receivers.except.len());
    receivers.except.iter().for_each(|peer| writer.peer(peer));
    match letter {
        Letter::Send { frame, key, may_close } => {
            let flags = [
                (HAS_KEY, key.is_some()),
                (MAY_CLOSE, *may_close),
                (UNCOMPRESSED, !frame.is_compressible()),
            ];
            writer.byte(flags.iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| flag).sum());
            if let Some(key) = key {
                writer.text(key);
            }
            writer.0.extend_from_slice(frame.payload());
        }
        Letter::Close(close) => {
            writer.number(u16::from(close.code).into());
            writer.text(&close.reason);
        }
        Letter::Subscribe(topic) | Letter::Unsubscribe(topic) => writer.text(topic),
        Letter::Ask(Inquiry { asker, number, what }) => {
            writer.number(asker.number());
            writer.number(*number);
            match what {
                What::IsConnected => writer.byte(IS_CONNECTED),
                What::Count => writer.byte(COUNT),
                What::Sessions => writer.byte(SESSIONS),
                What::Contains(peer) => {
                    writer.byte(CONTAINS);
                    writer.peer(peer);
                }
            }
        }
        Letter::Question(Question { number, time, message }) => {
            writer.number(*number);
            writer.number(*time);
            let (message, is_compressible) = message.parts();
            let is_text = matches!(message, Message::Text(_));
            let flags = [(IS_TEXT, is_text), (UNCOMPRESSED, !is_compressible)];
            writer.byte(flags.iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| flag).sum());
            writer.0.extend_from_slice(message.as_bytes());
        }
        Letter::Forget(number) => writer.number(*number),
        Letter::Flush { number, time } => {
            writer.number(*number);
            writer.number(*time);
        }
        Letter::Answer(content) | Letter::Notice(content) => writer.0.extend_from_slice(content),
    }
    writer.0
}

/// The sessions of an answer, and back.
pub(crate) fn write_sessions<'a>(sessions: impl IntoIterator<Item = &'a SessionId>) -> Vec<u8> {
    let mut writer = Writer(Vec::new());
    sessions.into_iter().for_each(|session| writer.text(&session.to_string()));
    writer.0
}

pub(crate) fn read_sessions(bytes: &[u8]) -> impl Iterator<Item = SessionId> {
    let mut reader = Reader(bytes);
    std::iter::from_fn(move || reader.text()?.parse().ok())
}

/// Whom a letter is for, and the letter; `None` where it is not understood.
pub(crate) fn open(way: Way, node: NodeId, bytes: &[u8]) -> Option<(Receivers, Letter)> {
    let mut reader = Reader(bytes);
    let kind = reader.byte()?;
    let target = match way {
        Way::To(target) => target,
        Way::Notices => Target::All,
        Way::Connection => Target::Connection(ConnectionId::on(node, reader.number()?)),
    };
    let mut except = Vec::new();
    for _ in 0..reader.length()? {
        except.push(reader.peer()?);
    }
    let letter = match kind {
        TEXT | BINARY => {
            let flags = reader.byte()?;
            let key = if flags & HAS_KEY == 0 { None } else { Some(reader.text()?.to_owned()) };
            let payload = Bytes::copy_from_slice(reader.0);
            let message = match kind {
                TEXT => Message::Text(Text::from_utf8(payload)?),
                _ => Message::Binary(payload),
            };
            let frame = Frame::message(message);
            let frame = if flags & UNCOMPRESSED == 0 { frame.compressible() } else { frame };
            Letter::Send { frame, key, may_close: flags & MAY_CLOSE != 0 }
        }
        CLOSE => {
            let code = u16::try_from(reader.number()?).ok()?;
            Letter::Close(Close::checked(code.into(), reader.text()?).ok()?)
        }
        SUBSCRIBE => Letter::Subscribe(reader.text()?.to_owned()),
        UNSUBSCRIBE => Letter::Unsubscribe(reader.text()?.to_owned()),
        ASK => Letter::Ask(Inquiry {
            asker: NodeId::from_number(reader.number()?),
            number: reader.number()?,
            what: match reader.byte()? {
                IS_CONNECTED => What::IsConnected,
                COUNT => What::Count,
                SESSIONS => What::Sessions,
                CONTAINS => What::Contains(reader.peer()?),
                _ => return None,
            },
        }),
        ANSWER => Letter::Answer(reader.0.to_vec()),
        NOTICE => Letter::Notice(reader.0.to_vec()),
        QUESTION => {
            let (number, time, flags) = (reader.number()?, reader.number()?, reader.byte()?);
            let payload = Bytes::copy_from_slice(reader.0);
            let message = match flags & IS_TEXT {
                0 => Message::Binary(payload),
                _ => Message::Text(Text::from_utf8(payload)?),
            };
            let is_compressible = flags & UNCOMPRESSED == 0;
            let message = if is_compressible { message.into() } else { message.uncompressed() };
            Letter::Question(Question { number, time, message })
        }
        FORGET => Letter::Forget(reader.number()?),
        FLUSH => Letter::Flush { number: reader.number()?, time: reader.number()? },
        _ => return None,
    };
    Some((Receivers { except, ..target.into() }, letter))
}

/// What this node may learn from a letter of its own that comes back to it, through a channel that is not one node's.
#[derive(Debug)]
pub(crate) enum Home {
    /// It asks something, by this number.
    Ask(u64),
    Notice(Vec<u8>),
}

pub(crate) fn open_at_home(bytes: &[u8]) -> Option<Home> {
    if !matches!(bytes.first()?, &ASK | &QUESTION | &FLUSH | &NOTICE) {
        return None;
    }
    match open(Way::To(Target::All), NodeId::NONE, bytes)? {
        (_, Letter::Ask(Inquiry { number, .. }) | Letter::Question(Question { number, .. })) => {
            Some(Home::Ask(number))
        }
        (_, Letter::Flush { number, .. }) => Some(Home::Ask(number)),
        (_, Letter::Notice(content)) => Some(Home::Notice(content)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::comms::joined::Channels;

    fn sessions() -> impl Strategy<Value = SessionId> {
        prop_oneof![
            any::<i64>().prop_map(SessionId::from),
            ".{0,20}".prop_map(SessionId::from),
            any::<u128>().prop_map(|number| SessionId::from(uuid::Uuid::from_u128(number))),
            Just(SessionId::guest()),
        ]
    }

    fn connections() -> impl Strategy<Value = ConnectionId> {
        let numbers = any::<(u64, u64)>();
        numbers.prop_map(|(node, number)| ConnectionId::on(NodeId::from_number(node), number))
    }

    fn letters() -> impl Strategy<Value = Letter> {
        let messages = prop_oneof![
            any::<String>().prop_map(Message::from),
            any::<Vec<u8>>().prop_map(Message::from)
        ];
        let asked = (any::<(u64, u64, bool)>(), messages.clone()).prop_map(
            |((number, time, is_compressible), message)| {
                let message = if is_compressible { message.into() } else { message.uncompressed() };
                Letter::Question(Question { number, time, message })
            },
        );
        let sent = (messages, proptest::option::of(".{0,9}"), any::<[bool; 2]>());
        prop_oneof![
            sent.prop_map(|(message, key, [may_close, is_compressible])| {
                let frame = Frame::message(message);
                let frame = if is_compressible { frame.compressible() } else { frame };
                Letter::Send { frame, key, may_close }
            }),
            "[a-z]{0,40}"
                .prop_map(|reason| Letter::Close(Close::checked(4000.into(), &reason).unwrap())),
            ".{0,60}".prop_map(Letter::Subscribe),
            ".{0,60}".prop_map(Letter::Unsubscribe),
            any::<Vec<u8>>().prop_map(Letter::Answer),
            any::<Vec<u8>>().prop_map(Letter::Notice),
            asked,
            any::<u64>().prop_map(Letter::Forget),
            any::<(u64, u64)>().prop_map(|(number, time)| Letter::Flush { number, time }),
            (any::<(u64, u64)>(), questions()).prop_map(|((asker, number), what)| {
                Letter::Ask(Inquiry { asker: NodeId::from_number(asker), number, what })
            }),
        ]
    }

    fn questions() -> impl Strategy<Value = What> {
        prop_oneof![
            Just(What::IsConnected),
            Just(What::Count),
            Just(What::Sessions),
            sessions().prop_map(|session| What::Contains(Peer::Session(session))),
            connections().prop_map(|connection| What::Contains(Peer::Connection(connection))),
        ]
    }

    fn receivers() -> impl Strategy<Value = Receivers> {
        let targets = prop_oneof![
            sessions().prop_map(Target::Session),
            ".{0,60}".prop_map(Target::Topic),
            connections().prop_map(Target::Connection),
            Just(Target::All)
        ];
        let peers = prop_oneof![
            sessions().prop_map(Peer::Session),
            connections().prop_map(Peer::Connection)
        ];
        (targets, proptest::collection::vec(peers, 0..4))
            .prop_map(|(target, except)| Receivers { except, ..target.into() })
    }

    #[test]
    fn what_is_sealed_is_opened_and_what_is_cut_or_changed_is_no_panic() {
        let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
        let channels = Channels::new("a:b", 3);
        proptest!(config, |(receivers in receivers(), letter in letters(), at in any::<usize>(), bits in any::<u8>())| {
            let (node, channel) = match &receivers.target {
                Target::Connection(connection) => (connection.node(), channels.node(connection.node())),
                Target::Session(session) => (NodeId::NONE, channels.session(session)),
                Target::Topic(topic) => (NodeId::NONE, channels.topic(topic)),
                Target::All => (NodeId::NONE, channels.all()),
            };
            let way = || channels.way(&channel).expect("it is one of its channels");
            let mut bytes = seal(&receivers, &letter);
            let (opened_receivers, opened) = open(way(), node, &bytes).expect("it is understood");
            prop_assert_eq!(format!("{:?}", opened_receivers), format!("{:?}", receivers));
            prop_assert_eq!(opened, letter);
            let at = at % bytes.len();
            let _ = open(way(), node, &bytes[..at]);
            bytes[at] ^= bits;
            let _ = open(way(), node, &bytes);
        });
    }

    #[test]
    fn sessions_are_read_as_they_are_written() {
        let sessions = [SessionId::from(7), SessionId::from("a b"), SessionId::guest()];
        let bytes = write_sessions(&sessions);
        assert_eq!(read_sessions(&bytes).collect::<Vec<_>>(), sessions);
        assert_eq!(read_sessions(&bytes[..bytes.len() - 1]).count(), 2);
    }

    #[test]
    fn a_kind_that_is_not_known_is_passed_over() {
        let mut bytes = seal(&Target::All.into(), &Letter::Subscribe("a".to_owned()));
        assert!(open(Way::To(Target::All), NodeId::NONE, &bytes).is_some());
        bytes[0] = 99;
        assert!(open(Way::To(Target::All), NodeId::NONE, &bytes).is_none());
    }

    #[test]
    fn channels_of_others_lead_nowhere() {
        let channels = Channels::new("chat", 0);
        for channel in [
            "chat",
            "chat:",
            "chat:al",
            "chats:all",
            "chat:3:all",
            "chat:session:nobody",
            "chat:new:kind",
        ] {
            assert!(channels.way(channel).is_none(), "{channel}");
        }
    }
}
