//! How often and how much a client may send: for how long the reader leaves its next message, or its next bytes, to TCP.

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
    /// When the next message may be taken, once it has begun to come. It is taken off the buckets by then.
    message_due: Option<Instant>,
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
    /// `None` where nothing is limited.
    pub(crate) fn new(settings: &Websocket, session: SessionBuckets) -> Option<Box<Self>> {
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
        Some(Box::new(Self { messages, bytes, max_hold, max_read, message_due: None, read_due }))
    }

    /// For how long the message that begins to come has to wait.
    ///
    /// # Errors
    ///
    /// For too long.
    pub(crate) fn until_message(&mut self) -> Result<Duration, Close> {
        if self.messages.buckets.is_empty() {
            return Ok(Duration::ZERO);
        }
        let now = Instant::now();
        let due = match self.message_due {
            Some(due) => due,
            None => now + self.messages.take(1, now, self.max_hold)?,
        };
        self.message_due = Some(due);
        Ok(due.saturating_duration_since(now))
    }

    /// The message has come; another one is another matter.
    pub(crate) fn note_message(&mut self) {
        self.message_due = None;
    }

    /// For how long the next read has to wait.
    pub(crate) fn until_read(&self) -> Duration {
        if self.bytes.buckets.is_empty() {
            return Duration::ZERO;
        }
        self.read_due.saturating_duration_since(Instant::now())
    }

    /// The most bytes that the next read may take; `None` where that is not limited.
    pub(crate) fn max_read(&self) -> Option<usize> {
        self.max_read
    }

    /// So many bytes were read, and the next read waits for them.
    ///
    /// # Errors
    ///
    /// For too long.
    pub(crate) fn note_read(&mut self, count: usize) -> Result<(), Close> {
        if self.bytes.buckets.is_empty() {
            return Ok(());
        }
        let now = Instant::now();
        self.read_due = now + self.bytes.take(count, now, self.max_hold)?;
        Ok(())
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
