//! What nodes of a cluster tell each other about who comes and who goes, as bytes and back.
//!
//! A node that watches says so to everybody, again and again; each other node reports to it whom it has, and from then on
//! who comes and who goes there. Reports are numbered: whoever misses one asks for all from the beginning. As of letters, a
//! new kind takes a new number, and a kind never changes.

use crate::comms::receivers::{Receivers, Target};
use crate::comms::session::ConnectionId;
use crate::comms::watches::Scope;
use crate::comms::wire::{Reader, Writer};
use crate::redis::node::NodeId;

#[derive(Debug, Clone)]
pub(crate) enum Notice {
    Pulse(Pulse),
    /// These watches are over.
    Unwatch(Vec<u64>),
    Report(Report),
    /// Reports of this stream were missed: begin anew. Of [`ANY`], whatever it is.
    Again {
        stream: u64,
    },
    /// The node leaves the cluster, and all who were there with it.
    Bye,
}

/// The stream that none is, which stands for all.
pub(crate) const ANY: u64 = 0;

/// The node is there, and watches these.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pulse {
    /// The number of the turn that it ends, by which the node that has sent it measures time; zero ends none.
    pub(crate) turn: u64,
    /// Whether the others are to answer: the node has just come, or come back.
    pub(crate) is_calling: bool,
    pub(crate) watches: Vec<(u64, Scope)>,
}

/// What has changed for the watches of the node that it goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) stream: u64,
    /// From zero, one by one.
    pub(crate) number: u64,
    pub(crate) entries: Vec<Entry>,
}

/// Of one watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) watch: u64,
    pub(crate) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// A list of those who are there begins.
    Begin,
    Join(Who),
    Leave(Who),
    /// The list ends: nobody else is there.
    End,
}

/// A session, as text, in a topic or without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) topic: Option<String>,
    pub(crate) session: String,
}

const PULSE: u8 = 1;
const UNWATCH: u8 = 2;
const REPORT: u8 = 3;
const AGAIN: u8 = 4;
const BYE: u8 = 5;

const BEGIN: u8 = 0;
const JOIN: u8 = 1;
const LEAVE: u8 = 2;
const END: u8 = 3;

const SESSION: u8 = 0;
const CONNECTION: u8 = 1;
const TOPIC: u8 = 2;
const ALL: u8 = 3;

impl Entry {
    /// How many bytes it takes, nearly.
    pub(crate) fn size(&self) -> usize {
        match &self.what {
            What::Begin | What::End => 9,
            What::Join(who) | What::Leave(who) => {
                18 + who.session.len() + who.topic.as_ref().map_or(0, String::len)
            }
        }
    }
}

/// How many bytes a watch takes in a pulse.
pub(crate) fn size(scope: &Scope) -> usize {
    let mut writer = Writer::default();
    writer.number(0);
    write_scope(&mut writer, scope);
    writer.0.len()
}

pub(crate) fn write(notice: &Notice) -> Vec<u8> {
    let mut writer = Writer::default();
    match notice {
        Notice::Pulse(Pulse { turn, is_calling, watches }) => {
            writer.byte(PULSE);
            writer.number(*turn);
            writer.byte((*is_calling).into());
            for (number, scope) in watches {
                writer.number(*number);
                write_scope(&mut writer, scope);
            }
        }
        Notice::Unwatch(numbers) => {
            writer.byte(UNWATCH);
            numbers.iter().for_each(|number| writer.number(*number));
        }
        Notice::Report(Report { stream, number, entries }) => {
            writer.byte(REPORT);
            writer.number(*stream);
            writer.number(*number);
            entries.iter().for_each(|entry| write_entry(&mut writer, entry));
        }
        Notice::Again { stream } => {
            writer.byte(AGAIN);
            writer.number(*stream);
        }
        Notice::Bye => writer.byte(BYE),
    }
    writer.0
}

/// `None` where it is not understood.
pub(crate) fn read(bytes: &[u8]) -> Option<Notice> {
    let mut reader = Reader(bytes);
    Some(match reader.byte()? {
        PULSE => Notice::Pulse(Pulse {
            turn: reader.number()?,
            is_calling: reader.byte()? != 0,
            watches: read_all(&mut reader, |reader| Some((reader.number()?, read_scope(reader)?)))?,
        }),
        UNWATCH => Notice::Unwatch(read_all(&mut reader, Reader::number)?),
        REPORT => Notice::Report(Report {
            stream: reader.number()?,
            number: reader.number()?,
            entries: read_all(&mut reader, read_entry)?,
        }),
        AGAIN => Notice::Again { stream: reader.number()? },
        BYE => Notice::Bye,
        _ => return None,
    })
}

/// What is left, one by one.
fn read_all<'a, T>(
    reader: &mut Reader<'a>,
    mut read: impl FnMut(&mut Reader<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    let mut all = Vec::new();
    while !reader.0.is_empty() {
        all.push(read(reader)?);
    }
    Some(all)
}

fn write_scope(writer: &mut Writer, Scope { receivers, prefix }: &Scope) {
    match &receivers.target {
        Target::Session(session) => {
            writer.byte(SESSION);
            writer.text(&session.to_string());
        }
        Target::Connection(connection) => {
            writer.byte(CONNECTION);
            writer.number(connection.node().number());
            writer.number(connection.number());
        }
        Target::Topic(topic) => {
            writer.byte(TOPIC);
            writer.text(topic);
        }
        Target::All => writer.byte(ALL),
    }
    writer.length(receivers.except.len());
    receivers.except.iter().for_each(|peer| writer.peer(peer));
    writer.option(prefix.as_deref());
}

/// It is for this node alone, which reports it.
fn read_scope(reader: &mut Reader<'_>) -> Option<Scope> {
    let target = match reader.byte()? {
        SESSION => Target::Session(reader.text()?.parse().ok()?),
        CONNECTION => {
            let node = NodeId::from_number(reader.number()?);
            Target::Connection(ConnectionId::on(node, reader.number()?))
        }
        TOPIC => Target::Topic(reader.text()?.to_owned()),
        ALL => Target::All,
        _ => return None,
    };
    let mut except = Vec::new();
    for _ in 0..reader.length()? {
        except.push(reader.peer()?);
    }
    let prefix = reader.option()?.map(str::to_owned);
    Some(Scope { receivers: Receivers { except, is_local: true, ..target.into() }, prefix })
}

fn write_entry(writer: &mut Writer, Entry { watch, what }: &Entry) {
    let (kind, who) = match what {
        What::Begin => (BEGIN, None),
        What::Join(who) => (JOIN, Some(who)),
        What::Leave(who) => (LEAVE, Some(who)),
        What::End => (END, None),
    };
    writer.byte(kind);
    writer.number(*watch);
    if let Some(Who { topic, session }) = who {
        writer.option(topic.as_deref());
        writer.text(session);
    }
}

fn read_entry(reader: &mut Reader<'_>) -> Option<Entry> {
    let kind = reader.byte()?;
    let watch = reader.number()?;
    let mut who = || {
        let topic = reader.option()?.map(str::to_owned);
        Some(Who { topic, session: reader.text()?.to_owned() })
    };
    let what = match kind {
        BEGIN => What::Begin,
        JOIN => What::Join(who()?),
        LEAVE => What::Leave(who()?),
        END => What::End,
        _ => return None,
    };
    Some(Entry { watch, what })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::comms::receivers::Peer;
    use crate::comms::session::SessionId;

    fn scopes() -> impl Strategy<Value = Scope> {
        let connections = any::<(u64, u64)>()
            .prop_map(|(node, number)| ConnectionId::on(NodeId::from_number(node), number));
        let targets = prop_oneof![
            ".{0,9}".prop_map(|name| Target::Session(name.into())),
            connections.clone().prop_map(Target::Connection),
            ".{0,9}".prop_map(Target::Topic),
            Just(Target::All),
        ];
        let peers = prop_oneof![
            any::<i64>().prop_map(|number| Peer::Session(SessionId::from(number))),
            connections.prop_map(Peer::Connection),
        ];
        let except = proptest::collection::vec(peers, 0..3);
        (targets, except, proptest::option::of(".{0,9}")).prop_map(|(target, except, prefix)| {
            Scope { receivers: Receivers { except, is_local: true, ..target.into() }, prefix }
        })
    }

    fn entries() -> impl Strategy<Value = Entry> {
        let who = || {
            (proptest::option::of(".{0,9}"), ".{0,9}")
                .prop_map(|(topic, session)| Who { topic, session })
        };
        let what = prop_oneof![
            Just(What::Begin),
            who().prop_map(What::Join),
            who().prop_map(What::Leave),
            Just(What::End),
        ];
        (any::<u64>(), what).prop_map(|(watch, what)| Entry { watch, what })
    }

    fn notices() -> impl Strategy<Value = Notice> {
        let watches = proptest::collection::vec((any::<u64>(), scopes()), 0..4);
        let entries = proptest::collection::vec(entries(), 0..5);
        prop_oneof![
            (any::<u64>(), any::<bool>(), watches).prop_map(|(turn, is_calling, watches)| {
                Notice::Pulse(Pulse { turn, is_calling, watches })
            }),
            proptest::collection::vec(any::<u64>(), 0..4).prop_map(Notice::Unwatch),
            (any::<u64>(), any::<u64>(), entries).prop_map(|(stream, number, entries)| {
                Notice::Report(Report { stream, number, entries })
            }),
            any::<u64>().prop_map(|stream| Notice::Again { stream }),
            Just(Notice::Bye),
        ]
    }

    #[test]
    fn what_is_written_is_read_and_what_is_cut_or_changed_is_no_panic() {
        let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(notice in notices(), at in any::<usize>(), bits in any::<u8>())| {
            let mut bytes = write(&notice);
            let again = read(&bytes).expect("it is understood");
            prop_assert_eq!(format!("{:?}", again), format!("{:?}", notice));
            let at = at % bytes.len();
            let _ = read(&bytes[..at]);
            bytes[at] ^= bits;
            let _ = read(&bytes);
        });
    }

    #[test]
    fn the_size_of_an_entry_is_not_less_than_what_it_takes() {
        let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(entry in entries())| {
            let report = |entries| write(&Notice::Report(Report { stream: 0, number: 0, entries }));
            let (size, empty) = (entry.size(), report(vec![]).len());
            prop_assert!(report(vec![entry]).len() - empty <= size);
        });
    }
}
