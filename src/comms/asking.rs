//! What a node waits for of the others: that clients there answer, or have received all.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, at, bounded, never, select};

use crate::base::deadline;
use crate::comms::crossing;
use crate::comms::envelope::{self, Letter, Question};
use crate::comms::joined::Joined;
use crate::comms::receivers::Receivers;
use crate::comms::relayed_requests::Reply;
use crate::websocket::message::{Message, Outgoing};

/// A letter that every node answers which hears it.
pub(crate) struct Round {
    joined: Arc<Joined>,
    receivers: Receivers,
    channel: String,
    number: u64,
    answers: Receiver<Option<Vec<u8>>>,
    heard_by: Receiver<u64>,
    heard: Heard,
    /// How many nodes have said something.
    replies: u64,
}

/// How many nodes hear it, this one included.
#[derive(Debug, Clone, Copy)]
enum Heard {
    /// Redis has not said so yet.
    Unknown,
    By(u64),
    /// Redis cannot take it.
    Lost,
    /// This process has left the cluster meanwhile.
    Left,
}

/// A question to clients on other nodes, as the node that asks sees it: which of those may answer still.
pub(crate) struct Asking {
    round: Round,
    /// What one of the nodes has said, if it was not that nobody is there.
    reason: Reply,
}

/// Why nobody elsewhere is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotAsked {
    /// Nobody who is meant can be elsewhere.
    NotMeant,
    /// Redis is away.
    Alone,
}

/// How waiting for an answer ended without one.
#[derive(Debug)]
pub(crate) enum Unanswered {
    Timeout,
    /// Nobody can answer, on other nodes for this reason.
    Nobody(Reply),
}

impl Round {
    /// Sends the letter that is made of its number. `is_here` says whether any of those who are meant are here.
    pub(crate) fn begin(
        receivers: &Receivers,
        is_here: bool,
        letter: impl FnOnce(u64) -> Letter,
    ) -> Result<Self, NotAsked> {
        let (joined, channel) = crossing::way(receivers, is_here).ok_or(NotAsked::NotMeant)?;
        if !joined.link.is_up_for(&channel) {
            return Err(NotAsked::Alone);
        }
        let (number, answers) = joined.survey.begin();
        let (asker, heard_by) = bounded(1);
        let content = envelope::seal(receivers, &letter(number));
        joined.link.post_for(&channel, content, Some(asker));
        let (receivers, heard, replies) = (receivers.clone(), Heard::Unknown, 0);
        Ok(Self { joined, receivers, channel, number, answers, heard_by, heard, replies })
    }

    /// The next answer of another node; none when all have answered, or the time is over.
    pub(crate) fn next(&mut self, deadline: Instant) -> Option<Vec<u8>> {
        let (no_number, over) = (never(), at(deadline));
        while !self.is_over() {
            let heard_by = if self.is_heard() { &no_number } else { &self.heard_by };
            select! {
                recv(heard_by) -> nodes => self.note_heard(nodes.ok()),
                recv(self.answers) -> reply => match reply {
                    Ok(reply) => {
                        self.replies += 1;
                        if reply.is_some() {
                            return reply;
                        }
                    }
                    Err(_) => self.heard = Heard::Left,
                },
                recv(over) -> _ => return None,
            }
        }
        None
    }

    /// How many nodes have not answered; one, where it is not known how many hear it.
    pub(crate) fn missing(&self) -> u64 {
        match self.heard {
            Heard::Unknown | Heard::Lost | Heard::Left => 1,
            Heard::By(nodes) => nodes.saturating_sub(self.replies),
        }
    }

    fn is_heard(&self) -> bool {
        !matches!(self.heard, Heard::Unknown)
    }

    /// Whether no answer is to be expected any more.
    fn is_over(&self) -> bool {
        match self.heard {
            Heard::Unknown => false,
            Heard::By(nodes) => self.replies >= nodes,
            Heard::Lost | Heard::Left => true,
        }
    }

    fn note_heard(&mut self, nodes: Option<u64>) {
        self.heard = nodes.map_or(Heard::Lost, Heard::By);
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        self.joined.survey.end(self.number);
    }
}

impl Asking {
    /// Asks those of other nodes.
    pub(crate) fn begin(
        receivers: &Receivers,
        is_here: bool,
        message: Outgoing,
        deadline: Instant,
    ) -> Result<Self, NotAsked> {
        let time = deadline::until(deadline).as_millis().try_into().unwrap_or(u64::MAX);
        let question = |number| Letter::Question(Question { number, time, message });
        let round = Round::begin(receivers, is_here, question)?;
        Ok(Self { round, reason: Reply::Nobody })
    }

    /// Waits for the first answer, from here too. The channel `here` ends when nobody here can answer any more.
    pub(crate) fn wait(
        &mut self,
        here: &Receiver<Message>,
        deadline: Instant,
    ) -> Result<Message, Unanswered> {
        let (nobody, no_number, no_answers, over) = (never(), never(), never(), at(deadline));
        let mut is_here = true;
        while is_here || !self.round.is_over() {
            let here = if is_here { here } else { &nobody };
            let has_left = matches!(self.round.heard, Heard::Left);
            let answers = if has_left { &no_answers } else { &self.round.answers };
            let heard_by = if self.round.is_heard() { &no_number } else { &self.round.heard_by };
            select! {
                recv(here) -> answer => match answer {
                    Ok(answer) => return Ok(answer),
                    Err(_) => is_here = false,
                },
                recv(heard_by) -> nodes => self.round.note_heard(nodes.ok()),
                recv(answers) -> reply => match reply {
                    Ok(reply) => {
                        if let Some(answer) = self.note(reply) {
                            return Ok(answer);
                        }
                    }
                    Err(_) => self.round.heard = Heard::Left,
                },
                recv(over) -> _ => return Err(Unanswered::Timeout),
            }
        }
        Err(Unanswered::Nobody(match self.round.heard {
            Heard::Lost => Reply::Lost,
            Heard::Left => Reply::Shutdown,
            Heard::Unknown | Heard::By(_) => self.reason.clone(),
        }))
    }

    fn note(&mut self, reply: Option<Vec<u8>>) -> Option<Message> {
        self.round.replies += 1;
        match reply.map(Reply::read) {
            Some(Reply::Answer(answer)) => return Some(answer),
            // None is this node itself.
            Some(Reply::Nobody) | None => {}
            Some(reason) => self.reason = reason,
        }
        None
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let round = &mut self.round;
        round.replies += round.answers.try_iter().count() as u64;
        if let Ok(nodes) = round.heard_by.try_recv() {
            round.heard = Heard::By(nodes);
        }
        if !round.is_over() {
            crossing::forget(&round.joined, &round.channel, &round.receivers, round.number);
        }
    }
}
