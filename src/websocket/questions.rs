//! Questions to a client, and which of its messages answer them.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::Sender;
use parking_lot::Mutex;

use crate::websocket::message::{Message, Outgoing, Text};
use crate::websocket::prepared::PreparedMessage;

/// How a question begins, before its number.
const QUESTION: &str = "rwf-question ";
/// How an answer begins, before the number of its question.
const ANSWER: &[u8] = b"rwf-answer ";
/// No number has more digits.
const MAX_DIGITS: usize = 20;
/// How many questions are remembered for whose answers nobody waits any more.
const MAX_LATE: usize = 64;

/// Who waits for the answer to a question. Those who were asked share it: when all of them have left, it is dropped.
pub(crate) trait Asker: Send + Sync + fmt::Debug {
    /// Takes an answer, and does not wait. Another client may have answered before.
    fn answer(&self, message: Message);
}

impl Asker for Sender<Message> {
    fn answer(&self, message: Message) {
        let _ = self.try_send(message);
    }
}

/// The questions that a client has been asked and has not answered. A connection has this from its first question on.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    asked: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    open: HashMap<u64, Arc<dyn Asker>>,
    /// Those that another tab has answered, or whose time is over. This client may answer them still.
    late: VecDeque<u64>,
}

/// What a message is to the questions.
#[derive(Debug)]
pub(crate) enum Heard {
    /// The first answer to a question that this client was asked.
    Answer,
    /// It looks like an answer, and this client was not asked, or has answered already.
    Forgery,
    /// Something else.
    Message(Message),
}

/// A number for a question, unique within the process.
pub(crate) fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The message that asks clients, on its way to all of them.
pub(crate) fn prepare(number: u64, message: Outgoing) -> PreparedMessage {
    PreparedMessage::new(message.map(|message| question(number, &message)))
}

fn question(number: u64, message: &Message) -> Message {
    let head = format!("{QUESTION}{number}\n");
    match message {
        Message::Text(text) => Message::from(head + text),
        Message::Binary(bytes) => Message::from([head.as_bytes(), bytes].concat()),
    }
}

impl Questions {
    /// Has the answer to a question given to `asker`.
    pub(crate) fn insert(&self, number: u64, asker: Arc<dyn Asker>) {
        self.asked.lock().open.insert(number, asker);
    }

    /// The question was not sent.
    pub(crate) fn retract(&self, number: u64) {
        let asker = self.asked.lock().open.remove(&number);
        drop(asker);
    }

    /// Nobody waits for the answer any more.
    pub(crate) fn remove(&self, number: u64) {
        let mut asked = self.asked.lock();
        let Some(asker) = asked.open.remove(&number) else { return };
        if asked.late.len() == MAX_LATE {
            asked.late.pop_front();
        }
        asked.late.push_back(number);
        drop(asked);
        drop(asker);
    }

    /// Whether the client's next message may be an answer.
    pub(crate) fn are_open(&self) -> bool {
        let asked = self.asked.lock();
        !asked.open.is_empty() || !asked.late.is_empty()
    }

    /// The client will answer nothing any more: tells those who wait.
    pub(crate) fn abandon(&self) {
        let asked = std::mem::take(&mut *self.asked.lock());
        drop(asked);
    }

    /// Hands a message to whoever waits for it, if it is an answer. An answer that nobody waits for goes nowhere.
    pub(crate) fn hear(&self, message: Message) -> Heard {
        let Some((number, answer)) = parse(&message) else { return Heard::Message(message) };
        let mut asked = self.asked.lock();
        let asker = asked.open.remove(&number);
        let late = asked.late.iter().position(|late| *late == number);
        let was_late = late.and_then(|place| asked.late.remove(place)).is_some();
        drop(asked);
        match asker {
            Some(asker) => asker.answer(answer),
            None if was_late => {}
            None => return Heard::Forgery,
        }
        Heard::Answer
    }
}

fn parse(message: &Message) -> Option<(u64, Message)> {
    let payload = message.as_bytes();
    let rest = payload.strip_prefix(ANSWER)?;
    let digits = rest.iter().take(MAX_DIGITS).take_while(|byte| byte.is_ascii_digit()).count();
    let number = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
    let line_end = match rest[digits..] {
        // An answer without a text.
        [] => 0,
        [b'\n', ..] => 1,
        [b'\r', b'\n', ..] => 2,
        _ => return None,
    };
    let answer = ANSWER.len() + digits + line_end..;
    let answer = match message {
        Message::Text(text) => Text::from(&text[answer]).into(),
        Message::Binary(bytes) => Message::Binary(bytes.slice(answer)),
    };
    Some((number, answer))
}
