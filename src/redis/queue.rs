//! What waits to be written to Redis, and what was written and is not answered: in their order, with the memory that they
//! take.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::base::deadline;
use crate::redis::dialect::Dialect;
use crate::redis::node::NodeId;
use crate::redis::parcel::Parcel;
use crate::redis::pending::{Pending, Unasked};

/// How many bytes are gathered for one write.
pub(crate) const BATCH: usize = 64 << 10;

#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: VecDeque<Parcel>,
    pending: VecDeque<Pending>,
    /// What all of these parcels cost.
    bytes: usize,
}

/// How much waits, for people.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Queue {
    /// Whether one of this cost may wait too, where all may take `most` bytes. One always fits where there is none.
    pub(crate) fn has_room_for(&self, cost: usize, most: usize) -> bool {
        self.bytes == 0 || self.bytes + cost <= most
    }

    pub(crate) fn push(&mut self, parcel: Parcel) {
        self.bytes += parcel.cost();
        self.waiting.push_back(parcel);
    }

    /// Whether all that was posted is confirmed.
    pub(crate) fn is_settled(&self) -> bool {
        self.bytes == 0
    }

    /// What all messages that are not confirmed cost.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn load(&self) -> Load {
        let published = |pending: &&Pending| matches!(pending, Pending::Publish(_));
        let unconfirmed = self.pending.iter().filter(published).count();
        Load { messages: self.waiting.len() + unconfirmed, bytes: self.bytes }
    }

    /// How many messages are not written.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// How many commands are not answered.
    pub(crate) fn unanswered(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn first_waiting(&self) -> Option<&Parcel> {
        self.waiting.front()
    }

    pub(crate) fn last_waiting(&self) -> Option<&Parcel> {
        self.waiting.back()
    }

    /// Puts messages that wait into `buffer`, as many as are written at once.
    pub(crate) fn pack(&mut self, node: NodeId, dialect: Dialect, buffer: &mut Vec<u8>) {
        while buffer.len() < BATCH {
            let Some(parcel) = self.waiting.pop_front() else { break };
            parcel.write(node, dialect, buffer);
            self.pending.push_back(Pending::Publish(parcel));
        }
    }

    /// Notes a command that is written with what is packed.
    pub(crate) fn expect(&mut self, pending: Pending) {
        self.pending.push_back(pending);
    }

    /// What is answered next.
    pub(crate) fn first_pending(&self) -> Option<&Pending> {
        self.pending.front()
    }

    /// Takes off the command that was answered.
    pub(crate) fn answered(&mut self) -> Result<Pending, Unasked> {
        let pending = self.pending.pop_front().ok_or(Unasked)?;
        if let Pending::Publish(parcel) = &pending {
            self.bytes -= parcel.cost();
        }
        Ok(pending)
    }

    /// Takes off the next commands, so many, if there are.
    pub(crate) fn confirm(&mut self, count: usize) -> Result<Vec<Pending>, Unasked> {
        if self.pending.len() < count {
            return Err(Unasked);
        }
        let confirmed: Vec<_> = self.pending.drain(..count).collect();
        for pending in &confirmed {
            if let Pending::Publish(parcel) = pending {
                self.bytes -= parcel.cost();
            }
        }
        Ok(confirmed)
    }

    /// Takes off the next channel that was subscribed to.
    pub(crate) fn subscribed(&mut self) -> Result<(Arc<str>, u64), Unasked> {
        let Some(Pending::Subscribe(channels)) = self.pending.front_mut() else {
            return Err(Unasked);
        };
        let first = channels.pop_front();
        if channels.is_empty() {
            self.pending.pop_front();
        }
        first.ok_or(Unasked)
    }

    /// One channel is not subscribed to any more.
    pub(crate) fn unsubscribed(&mut self) -> Result<(), Unasked> {
        let Some(Pending::Unsubscribe(count)) = self.pending.front_mut() else {
            return Err(Unasked);
        };
        *count -= 1;
        if *count == 0 {
            self.pending.pop_front();
        }
        Ok(())
    }

    /// Nothing is answered any more: what was not confirmed waits again, before everything else.
    pub(crate) fn requeue(&mut self) {
        for pending in mem::take(&mut self.pending).into_iter().rev() {
            if let Pending::Publish(parcel) = pending {
                self.waiting.push_front(parcel);
            }
        }
    }

    /// Drops what has waited for longer than it may; how much that was.
    pub(crate) fn expire(&mut self, now: Instant, age: Duration) -> u64 {
        let mut lost = 0;
        while let Some(parcel) =
            self.waiting.front().filter(|parcel| deadline::later(parcel.posted, age) <= now)
        {
            self.bytes -= parcel.cost();
            self.waiting.pop_front();
            lost += 1;
        }
        lost
    }

    /// Takes out the messages that are meant, in their order. Some of them may have been written already.
    pub(crate) fn take_out(&mut self, is_meant: impl Fn(&str) -> bool) -> Vec<Parcel> {
        let mut taken = Vec::new();
        for pending in &mut self.pending {
            if matches!(pending, Pending::Publish(parcel) if is_meant(&parcel.channel))
                && let Pending::Publish(parcel) = mem::replace(pending, Pending::Taken)
            {
                taken.push(parcel);
            }
        }
        let waiting = mem::take(&mut self.waiting);
        let (moved, kept): (Vec<_>, _) =
            waiting.into_iter().partition(|parcel| is_meant(&parcel.channel));
        self.waiting = kept.into();
        taken.extend(moved);
        self.bytes -= taken.iter().map(Parcel::cost).sum::<usize>();
        taken
    }

    /// Takes over messages that were taken out elsewhere.
    pub(crate) fn take_over(&mut self, parcels: Vec<Parcel>) {
        self.bytes += parcels.iter().map(Parcel::cost).sum::<usize>();
        self.waiting.extend(parcels);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::sequences::Place;

    /// A message to a channel that is named by a letter, as in `a0`.
    fn parcel(name: &str) -> Parcel {
        let (channel, number) = name.split_at(1);
        let place = Place { start: 1, number: number.parse().unwrap() };
        let content = name.as_bytes().to_vec();
        Parcel { channel: channel.into(), place, content, posted: Instant::now(), asker: None }
    }

    fn name(parcel: &Parcel) -> String {
        String::from_utf8(parcel.content.clone()).unwrap()
    }

    fn queue(names: &[&str]) -> Queue {
        let mut queue = Queue::default();
        names.iter().for_each(|name| queue.push(parcel(name)));
        queue
    }

    fn write(queue: &mut Queue) {
        queue.pack(NodeId::random(), Dialect::Plain, &mut Vec::new());
    }

    fn waiting(queue: &Queue) -> Vec<String> {
        queue.waiting.iter().map(name).collect()
    }

    #[test]
    fn what_goes_elsewhere_keeps_its_order_and_what_is_answered_here_meanwhile_is_passed_over() {
        let (mut former, mut next) = (queue(&["a0", "b1", "a2", "b3"]), Queue::default());
        write(&mut former);
        former.push(parcel("a4"));
        former.push(parcel("b5"));
        let taken = former.take_out(|channel| channel == "a");
        assert!(matches!(former.first_pending(), Some(Pending::Taken)), "it is elsewhere");
        next.take_over(taken);
        assert_eq!((former.load().messages, next.load().messages), (3, 3));
        assert_eq!(waiting(&next), ["a0", "a2", "a4"]);
        assert_eq!(waiting(&former), ["b5"]);
        write(&mut former);
        let answered =
            [(); 5].map(|()| former.answered().is_ok_and(|it| !matches!(it, Pending::Taken)));
        assert_eq!(answered, [false, true, false, true, true]);
        assert!(former.is_settled() && !next.is_settled());
        next.take_out(|_| true);
        assert!(next.is_settled());
    }

    #[test]
    fn what_was_written_and_not_confirmed_waits_again_before_the_rest() {
        let mut queue = queue(&["a0", "a1"]);
        queue.expect(Pending::Command("HELLO"));
        write(&mut queue);
        queue.push(parcel("a2"));
        assert_eq!(queue.confirm(4).map(drop), Err(Unasked), "there are three");
        assert_eq!(queue.confirm(2).map(|confirmed| confirmed.len()), Ok(2));
        queue.requeue();
        assert_eq!(waiting(&queue), ["a1", "a2"]);
        assert_eq!(queue.unanswered(), 0);
    }

    #[test]
    fn what_waits_takes_no_more_than_it_may_except_for_a_single_message() {
        let mut queue = Queue::default();
        let cost = parcel("a0").cost();
        assert!(queue.has_room_for(cost, 0), "one always fits");
        queue.push(parcel("a0"));
        assert!(queue.has_room_for(cost, 2 * cost) && !queue.has_room_for(cost, 2 * cost - 1));
        assert_eq!(queue.expire(Instant::now(), Duration::MAX), 0);
        assert_eq!((queue.expire(Instant::now(), Duration::ZERO), queue.load().bytes), (1, 0));
    }
}
