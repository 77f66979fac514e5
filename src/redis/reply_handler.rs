//! What follows from what Redis says: for what waits for its answer, for the subscriptions, and for whoever takes messages.

use std::sync::{Arc, Weak};

use crate::base::contained::contained;
use crate::redis::dialect::Dialect;
use crate::redis::fault::{self, Fault};
use crate::redis::frame::Malformed;
use crate::redis::handshake;
use crate::redis::node::NodeId;
use crate::redis::observers::{Arrivals, Overseer};
use crate::redis::parcel::{self, Opened};
use crate::redis::pending::{Pending, Unasked};
use crate::redis::read_buffer::ReadBuffer;
use crate::redis::resp::{self, Reply};
use crate::redis::sequences::Heard;
use crate::redis::status::Status;
use crate::redis::subscriptions::Subscriptions;
use crate::redis::writer::Writer;

pub(crate) struct ReplyHandler {
    pub(crate) node: NodeId,
    pub(crate) dialect: Dialect,
    pub(crate) writer: Arc<Writer>,
    pub(crate) subscriptions: Arc<Subscriptions>,
    pub(crate) status: Arc<Status>,
    pub(crate) arrivals: Arc<dyn Arrivals>,
    /// Of a shard.
    pub(crate) overseer: Option<Weak<dyn Overseer>>,
}

impl ReplyHandler {
    /// Handles what has come, as far as it is whole.
    pub(crate) fn handle_all(&self, buffer: &mut ReadBuffer) -> Result<(), Fault> {
        let handled = self.handle_each(buffer);
        contained(|| self.arrivals.rest());
        handled
    }

    fn handle_each(&self, buffer: &mut ReadBuffer) -> Result<(), Fault> {
        // What commands were answered with, which are still to be taken off.
        let mut numbers = Vec::new();
        loop {
            let unread = buffer.unread();
            match resp::parse(unread) {
                Ok(Some((reply, length))) => {
                    self.handle(&reply, length < unread.len(), &mut numbers)?;
                    buffer.take(length);
                }
                Ok(None) => return self.confirm(&mut numbers),
                Err(Malformed) => return Err(Fault::no_redis()),
            }
        }
    }

    /// Takes off the commands that were answered with numbers: how many hear what was published.
    fn confirm(&self, numbers: &mut Vec<u64>) -> Result<(), Fault> {
        if numbers.is_empty() {
            return Ok(());
        }
        let confirmed = self.writer.confirm(numbers.len()).map_err(|Unasked| Fault::no_redis())?;
        let mut published = 0;
        for (pending, count) in confirmed.into_iter().zip(numbers.drain(..)) {
            if let Pending::Publish(parcel) = pending {
                published += 1;
                if let Some(asker) = parcel.asker {
                    // Whoever asked may have given up.
                    let _ = asker.try_send(count);
                }
            }
        }
        self.status.tally.published.add(published);
        Ok(())
    }

    fn handle(
        &self,
        reply: &Reply<'_>,
        has_more: bool,
        numbers: &mut Vec<u64>,
    ) -> Result<(), Fault> {
        let unasked = |Unasked| Fault::no_redis();
        // Commands are answered in their order.
        if !matches!(reply, Reply::Message { .. } | Reply::Number(_)) {
            self.confirm(numbers)?;
        }
        match reply {
            Reply::Message { channel, payload } => self.open(channel, payload, has_more),
            Reply::Number(number) => numbers.push(*number),
            Reply::Subscribed => {
                let (name, order) = self.writer.subscribed().map_err(unasked)?;
                self.subscriptions.hold(&name, order);
            }
            Reply::Unsubscribed(channel) if self.overseer.is_some() => {
                let channel = String::from_utf8_lossy(channel);
                if self.subscriptions.lose(&channel) {
                    self.note_ended(&channel);
                }
            }
            Reply::Unsubscribed(_) => self.writer.unsubscribed().map_err(unasked)?,
            Reply::Error(error) => self.handle_error(error)?,
            Reply::Greeting(greeting) => {
                let answered = self.writer.answered().map_err(unasked)?;
                handshake::check(greeting, self.overseer.is_some())?;
                if !matches!(answered, Pending::Leave)
                    && let Some(time) = self.writer.greeted()
                {
                    self.status.note_round_trip(time);
                }
            }
            Reply::Slots(_) | Reply::Done => drop(self.writer.answered().map_err(unasked)?),
            Reply::Other => {}
        }
        Ok(())
    }

    fn overseer(&self) -> Option<Arc<dyn Overseer>> {
        self.overseer.as_ref()?.upgrade()
    }

    /// The shard is not there.
    pub(crate) fn note_away(&self) {
        if let Some(overseer) = self.overseer() {
            overseer.away();
        }
    }

    fn note_ended(&self, channel: &str) {
        if let Some(overseer) = self.overseer() {
            overseer.ended(channel);
        }
    }

    fn handle_error(&self, error: &[u8]) -> Result<(), Fault> {
        let dialect = self.dialect;
        let is_elsewhere = self.overseer.is_some() && fault::is_elsewhere(error);
        // Where the slot is not, no subscription is.
        if is_elsewhere && self.writer.is_leaving() {
            return Ok(());
        }
        if is_elsewhere
            && self.writer.first_channel().is_some()
            && let Some(overseer) = self.overseer()
        {
            overseer.refused(&self.writer);
        }
        match self.writer.answered() {
            // It may take the next one.
            Ok(Pending::Publish(_)) => {
                self.status.note_lost(1, &Fault::answer(dialect.publish(), error).to_string());
                Ok(())
            }
            Ok(Pending::Taken) => Ok(()),
            Ok(Pending::Subscribe(channels)) if is_elsewhere => {
                channels.iter().for_each(|(channel, _)| self.note_ended(channel));
                Ok(())
            }
            Ok(Pending::Leave) => Err(Fault::answer(dialect.unsubscribe(), error)),
            Ok(Pending::Probe) => Err(Fault::answer(dialect.publish(), error)),
            Ok(Pending::Subscribe(_)) => Err(Fault::answer(dialect.subscribe(), error)),
            Ok(Pending::Unsubscribe(_)) => Err(Fault::answer(dialect.unsubscribe(), error)),
            Ok(Pending::Command(name)) => Err(Fault::answer(name, error)),
            Err(Unasked) => Err(Fault::answer("connection", error)),
        }
    }

    fn open(&self, channel: &[u8], payload: &[u8], has_more: bool) {
        // All of ours are.
        let Ok(channel) = std::str::from_utf8(channel) else { return };
        match parcel::open(payload) {
            Opened::Parcel { from, content, .. } if from == self.node => {
                contained(|| self.arrivals.come_home(content));
            }
            Opened::Parcel { from, place, content } => {
                match self.subscriptions.hear(channel, from, place) {
                    // Whoever wanted to hear it has gone.
                    None => return,
                    Some(Heard::Again) => return self.status.tally.repeated.add(1),
                    Some(Heard::After(count)) => self.status.note_missed(from, channel, count),
                    Some(Heard::Next) => {}
                }
                match contained(|| self.arrivals.arrive(channel, from, content, has_more)) {
                    Some(false) => self.status.tally.unknown.add(1),
                    _ => self.status.tally.received.add(1),
                }
            }
            Opened::Probe(number) => {
                if let Some(time) = self.writer.probe_came(number) {
                    self.status.note_round_trip(time);
                }
            }
            Opened::Unknown => self.status.tally.unknown.add(1),
        }
    }
}
