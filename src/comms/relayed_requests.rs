//! What other nodes have clients of this node asked, until one has answered, none can any more, or the time is over.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use crate::redis::node::NodeId;
use crate::websocket::close::Cause;
use crate::websocket::message::{Message, Text};
use crate::websocket::outbox::Outbox;

/// How many there are, at most.
const MAX_OPEN: usize = 10_000;

/// How many threads wait for clients to have received all, at most.
const MAX_FLUSHES: usize = 32;

const NOBODY: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const FULL: u8 = 3;
const CLOSED: u8 = 4;
const SHUTDOWN: u8 = 5;
const TOO_MANY: u8 = 6;
const LOST: u8 = 7;

/// What a node says to a question for its clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Answer(Message),
    /// Nobody is there who could be asked.
    Nobody,
    /// The outboxes of all who are there are full.
    Full,
    /// Those who were asked have left.
    Closed,
    Shutdown,
    /// It has as many questions as it takes.
    TooMany,
    /// The question, or the answer, cannot cross.
    Lost,
}

/// A question, by the node that asks and its number there.
pub(crate) type Key = (NodeId, u64);

/// Whoever takes one out may answer it, and nobody else.
#[derive(Debug, Default)]
pub(crate) struct RelayedRequests {
    open: Mutex<Open>,
    /// As many as threads wait.
    flushes: Arc<()>,
}

#[derive(Debug, Default)]
struct Open {
    relayed_requests: HashMap<Key, RelayedRequest>,
    by_time: BTreeSet<(Instant, Key)>,
}

/// What becomes of a request that another node relays.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// It is now the one whose time is over first.
    First,
    Later,
    /// It is open already: no node of ours gives a number twice.
    Known,
    TooMany,
}

#[derive(Debug)]
pub(crate) struct RelayedRequest {
    /// By which the clients of this node know the question.
    pub(crate) number: u64,
    pub(crate) until: Instant,
    pub(crate) asked: Vec<Weak<Outbox>>,
}

impl RelayedRequests {
    /// A place for a thread that waits until clients have received all, to be held while it does.
    pub(crate) fn begin_flush(&self) -> Option<Arc<()>> {
        let place = Arc::clone(&self.flushes);
        (Arc::strong_count(&place) <= MAX_FLUSHES + 1).then_some(place)
    }

    pub(crate) fn open(&self, key: Key, request: RelayedRequest) -> Opened {
        let mut open = self.open.lock();
        if open.relayed_requests.contains_key(&key) {
            return Opened::Known;
        }
        if open.relayed_requests.len() >= MAX_OPEN {
            return Opened::TooMany;
        }
        let place = (request.until, key);
        open.relayed_requests.insert(key, request);
        open.by_time.insert(place);
        if open.by_time.first() == Some(&place) { Opened::First } else { Opened::Later }
    }

    pub(crate) fn take(&self, key: Key) -> Option<RelayedRequest> {
        self.open.lock().take(key)
    }

    /// Those whose time is over.
    pub(crate) fn take_old(&self) -> Vec<RelayedRequest> {
        let (mut open, now) = (self.open.lock(), Instant::now());
        let keys = open.by_time.iter().take_while(|(until, _)| *until <= now);
        let keys: Vec<_> = keys.map(|(_, key)| *key).collect();
        keys.into_iter().filter_map(|key| open.take(key)).collect()
    }

    /// When the time of the next one is over.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.open.lock().by_time.first().map(|(until, _)| *until)
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        self.open.lock().relayed_requests.keys().copied().collect()
    }
}

impl Open {
    fn take(&mut self, key: Key) -> Option<RelayedRequest> {
        let request = self.relayed_requests.remove(&key)?;
        self.by_time.remove(&(request.until, key));
        Some(request)
    }
}

impl RelayedRequest {
    /// Nobody waits for those who have not answered any more.
    pub(crate) fn retire(&self) {
        for outbox in self.asked.iter().filter_map(Weak::upgrade) {
            outbox.questions().remove(self.number);
        }
    }

    /// Why none of those who were asked can answer.
    pub(crate) fn why_closed(&self) -> Reply {
        let mut asked = self.asked.iter().filter_map(Weak::upgrade);
        if asked.any(|outbox| is_shut_down(&outbox)) { Reply::Shutdown } else { Reply::Closed }
    }
}

fn is_shut_down(outbox: &Arc<Outbox>) -> bool {
    outbox.closed().is_some_and(|closed| closed.cause == Cause::Shutdown)
}

impl Reply {
    pub(crate) fn write(&self) -> Vec<u8> {
        let (kind, payload) = match self {
            Self::Answer(message @ Message::Text(_)) => (TEXT, message.as_bytes()),
            Self::Answer(message @ Message::Binary(_)) => (BINARY, message.as_bytes()),
            Self::Nobody => (NOBODY, &[][..]),
            Self::Full => (FULL, &[][..]),
            Self::Closed => (CLOSED, &[][..]),
            Self::Shutdown => (SHUTDOWN, &[][..]),
            Self::TooMany => (TOO_MANY, &[][..]),
            Self::Lost => (LOST, &[][..]),
        };
        [&[kind], payload].concat()
    }

    /// What is not understood is a reason of another version.
    pub(crate) fn read(mut bytes: Vec<u8>) -> Self {
        let Some(kind) = bytes.first().copied() else { return Self::Closed };
        let mut payload = move || bytes.split_off(1);
        match kind {
            TEXT => match Text::from_utf8(payload().into()) {
                Some(text) => Self::Answer(text.into()),
                None => Self::Lost,
            },
            BINARY => Self::Answer(payload().into()),
            NOBODY => Self::Nobody,
            FULL => Self::Full,
            SHUTDOWN => Self::Shutdown,
            TOO_MANY => Self::TooMany,
            LOST => Self::Lost,
            _ => Self::Closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn replies_are_read_as_they_are_written() {
        for reply in [
            Reply::Answer("yes".into()),
            Reply::Answer("".into()),
            Reply::Answer(vec![0, 159].into()),
            Reply::Nobody,
            Reply::Full,
            Reply::Closed,
            Reply::Shutdown,
            Reply::TooMany,
            Reply::Lost,
        ] {
            assert_eq!(Reply::read(reply.write()), reply);
        }
        for strange in [vec![], vec![99], vec![TEXT, 0xff]] {
            assert!(matches!(Reply::read(strange), Reply::Closed | Reply::Lost));
        }
    }

    #[test]
    fn an_errand_is_taken_once_and_those_whose_time_is_over_together() {
        let (relayed_requests, node, now) =
            (RelayedRequests::default(), NodeId::random(), Instant::now());
        let open = |number, until| {
            relayed_requests
                .open((node, number), RelayedRequest { number, until, asked: Vec::new() })
        };
        let far = now + Duration::from_secs(3600);
        let early = now - Duration::from_millis(1);
        assert_eq!(
            [open(1, far), open(2, now), open(3, early)],
            [Opened::First, Opened::First, Opened::First]
        );
        assert_eq!(open(4, far), Opened::Later);
        assert!(relayed_requests.next() < Some(now));
        let old: Vec<_> =
            relayed_requests.take_old().iter().map(|request| request.number).collect();
        assert_eq!(old, [3, 2]);
        assert!(
            relayed_requests.take((node, 3)).is_none()
                && relayed_requests.take((node, 1)).is_some()
        );
        assert!(
            relayed_requests.take((node, 1)).is_none() && relayed_requests.keys() == [(node, 4)]
        );
    }

    #[test]
    fn no_more_is_kept_than_there_are_errands_whatever_comes() {
        let (relayed_requests, node) = (RelayedRequests::default(), NodeId::random());
        let far = Instant::now() + Duration::from_secs(3600);
        let open = |number, until| {
            relayed_requests
                .open((node, number), RelayedRequest { number, until, asked: Vec::new() })
        };
        assert_eq!(open(1, far), Opened::First);
        assert_eq!(open(1, Instant::now()), Opened::Known);
        assert!(relayed_requests.take_old().is_empty(), "the first one keeps its time");
        assert!(relayed_requests.take((node, 1)).is_some());
        assert_eq!(relayed_requests.next(), None);
        for number in 0..MAX_OPEN as u64 {
            assert_ne!(open(number, far), Opened::TooMany, "{number}");
        }
        assert_eq!(open(u64::MAX, far), Opened::TooMany);
        let kept = relayed_requests.open.lock();
        assert_eq!((kept.relayed_requests.len(), kept.by_time.len()), (MAX_OPEN, MAX_OPEN));
    }
}
