//! How often and how much a client may send: for how long the reader leaves its next message, or its next bytes, to TCP.

use std::mem;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::base::buckets::SharedBucket;
use crate::base::rate::{Bucket, Rate, TooEarly};
use crate::websocket::close::{Close, CloseCode};
use crate::websocket::settings::Websocket;

/// A read takes no more bytes than the rate allows in this time, because it is over the limit by as much, and whoever
/// shares the limit waits for it.
const READ_TIME: Duration = Duration::from_millis(100);

/// What a session may send over all its connections.
#[derive(Debug, Default)]
pub(crate) struct SessionBuckets {
    pub(crate) messages: Option<SharedBucket>,
    pub(crate) bytes: Option<SharedBucket>,
}

/// The limits of a connection that has some.
#[derive(Debug)]
pub(crate) struct Pace {
    messages: Limits,
    bytes: Limits,
    max_hold: Duration,
    /// The most bytes that a read takes, where clients are held back for them.
    max_read: Option<usize>,
    /// When the next message may be taken, once it has begun to come. It is taken off the buckets by then, unless it may be
    /// an answer.
    message_due: Option<Instant>,
    /// Whether the message that has begun to come is taken off the buckets.
    is_counted: bool,
    /// When the next message may be taken that may be an answer: the last that could have been one was none.
    answer_due: Instant,
    /// The bytes that came along with the handshake, until they are taken off.
    rest: usize,
    /// Bytes that were read and not taken off, because they may be pongs that the client was asked for.
    uncounted: usize,
    /// When more may be read.
    read_due: Instant,
}

/// The buckets that something is taken from, each with whose it is. Without any it is unlimited.
#[derive(Debug)]
struct Limits {
    of_what: &'static str,
    buckets: SmallVec<[(&'static str, SharedBucket); 2]>,
}

impl Pace {
    /// `None` where nothing is limited. So many bytes have come along with the handshake.
    pub(crate) fn new(
        settings: &Websocket,
        session: SessionBuckets,
        rest: usize,
    ) -> Option<Box<Self>> {
        let now = Instant::now();
        let messages = Limits::new("messages", settings.message_rate, session.messages, now);
        let bytes = Limits::new("bytes", settings.byte_rate, session.bytes, now);
        if messages.buckets.is_empty() && bytes.buckets.is_empty() {
            return None;
        }
        let max_hold = settings.max_hold;
        let holds_bytes = !bytes.buckets.is_empty() && !max_hold.is_zero();
        let max_read = holds_bytes.then(|| bytes.amount_in(READ_TIME.min(max_hold)).max(1));
        // The session may have sent too much over other connections.
        let wait = bytes.take(0, now, Duration::MAX).unwrap_or_default();
        let read_due = now + wait.min(max_hold);
        Some(Box::new(Self {
            messages,
            bytes,
            max_hold,
            max_read,
            message_due: None,
            is_counted: false,
            answer_due: now,
            rest,
            uncounted: 0,
            read_due,
        }))
    }

    /// For how long what has come along with the handshake has to wait, as if it were read now.
    ///
    /// # Errors
    ///
    /// For too long.
    #[inline]
    pub(crate) fn until_rest(&mut self) -> Result<Duration, Close> {
        if self.rest == 0 {
            return Ok(Duration::ZERO);
        }
        let wait = self.until_read(0)?;
        if wait.is_zero() {
            let rest = mem::take(&mut self.rest);
            self.note_read(rest, 0)?;
        }
        Ok(wait)
    }

    /// For how long the message that begins to come has to wait. One that may be an answer is not counted before it is known
    /// to be none, and then the next one waits for it.
    ///
    /// # Errors
    ///
    /// For too long.
    pub(crate) fn until_message(&mut self, may_be_answer: bool) -> Result<Duration, Close> {
        if self.messages.buckets.is_empty() {
            return Ok(Duration::ZERO);
        }
        let now = Instant::now();
        let due = match self.message_due {
            Some(due) => due,
            None if may_be_answer => self.answer_due,
            None => {
                self.is_counted = true;
                now + self.messages.take(1, now, self.max_hold)?
            }
        };
        self.message_due = Some(due);
        Ok(due.saturating_duration_since(now))
    }

    /// The message has come, and whether it answers what the client was asked; another one is another matter.
    ///
    /// # Errors
    ///
    /// It is one too many.
    pub(crate) fn note_message(&mut self, is_answer: bool) -> Result<(), Close> {
        self.message_due = None;
        let is_counted = mem::take(&mut self.is_counted);
        if !is_counted && !is_answer && !self.messages.buckets.is_empty() {
            let now = Instant::now();
            self.answer_due = now + self.messages.take(1, now, self.max_hold)?;
        }
        Ok(())
    }

    /// For how long the next read has to wait. All pongs among what was read are known by now, but for the last `incomplete`
    /// bytes.
    ///
    /// # Errors
    ///
    /// For too long.
    pub(crate) fn until_read(&mut self, incomplete: usize) -> Result<Duration, Close> {
        if self.bytes.buckets.is_empty() {
            return Ok(Duration::ZERO);
        }
        let now = Instant::now();
        if self.uncounted > incomplete {
            let others = self.uncounted - incomplete;
            self.uncounted = incomplete;
            self.read_due = now + self.bytes.take(others, now, self.max_hold)?;
        }
        Ok(self.read_due.saturating_duration_since(now))
    }

    /// Whether bytes are counted.
    pub(crate) fn counts_bytes(&self) -> bool {
        !self.bytes.buckets.is_empty()
    }

    /// The most bytes that the next read may take; `None` where that is not limited.
    pub(crate) fn max_read(&self) -> Option<usize> {
        self.max_read
    }

    /// So many bytes were read, and the next read waits for them. `awaited` bytes among them may be pongs that the client was
    /// asked for.
    ///
    /// # Errors
    ///
    /// For too long.
    pub(crate) fn note_read(&mut self, count: usize, awaited: usize) -> Result<(), Close> {
        if self.bytes.buckets.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        let all = self.uncounted + count;
        self.uncounted = all.min(awaited);
        self.read_due = now + self.bytes.take(all - self.uncounted, now, self.max_hold)?;
        Ok(())
    }

    /// So many of the bytes that were read were a pong that the client was asked for.
    pub(crate) fn note_asked_pong(&mut self, length: usize) {
        let counted = length.saturating_sub(self.uncounted);
        self.uncounted = self.uncounted.saturating_sub(length);
        if counted > 0 {
            self.bytes.give_back(counted);
        }
    }
}

impl Limits {
    fn new(
        of_what: &'static str,
        rate: Option<Rate>,
        session: Option<SharedBucket>,
        now: Instant,
    ) -> Self {
        let own = rate.map(|rate| ("connection", Mutex::new(Bucket::new(rate, now)).into()));
        let of_session = session.map(|bucket| ("session", bucket));
        Self { of_what, buckets: own.into_iter().chain(of_session).collect() }
    }

    fn amount_in(&self, time: Duration) -> usize {
        let amounts = self.buckets.iter().map(|(_, bucket)| bucket.lock().rate().amount_in(time));
        amounts.min().unwrap_or(usize::MAX)
    }

    fn give_back(&self, amount: usize) {
        self.buckets.iter().for_each(|(_, bucket)| bucket.lock().give_back(amount));
    }

    /// Takes `amount` off each bucket; how long it is until it is there in all of them.
    fn take(&self, amount: usize, now: Instant, patience: Duration) -> Result<Duration, Close> {
        let mut longest = Duration::ZERO;
        for (whose, bucket) in &self.buckets {
            let mut bucket = bucket.lock();
            match bucket.take(amount, now, patience) {
                Ok(wait) => longest = longest.max(wait),
                Err(TooEarly(_)) => {
                    let (rate, of_what) = (bucket.rate(), self.of_what);
                    let reason = format!("too many {of_what}: a {whose} may send {rate}");
                    return Err(Close::new(CloseCode::POLICY_VIOLATION, reason));
                }
            }
        }
        Ok(longest)
    }
}
