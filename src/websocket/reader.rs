//! The reader's side of an open WebSocket: messages in, pings answered, silence noticed, the closing handshake.

use std::io;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::base::contained::contained;
use crate::base::deadline;
use crate::net::stream::Stream;
use crate::websocket::close::{Cause, Close, CloseCode, Closed};
use crate::websocket::compression::Agreement;
use crate::websocket::decoder::{Decoder, Event};
use crate::websocket::frame::Frame;
use crate::websocket::message::Message;
use crate::websocket::outbox::Outbox;
use crate::websocket::pace::{Pace, SessionBuckets};
use crate::websocket::pings;
use crate::websocket::questions::{Heard, Questions};
use crate::websocket::sender::Done;
use crate::websocket::settings::Websocket;

/// What the reader thread owns. Everything it has to say goes through the outbox.
///
/// In this order in memory, so that a message needs few lines of it, as in the [`Outbox`].
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Reader {
    decoder: Decoder,
    outbox: Arc<Outbox>,
    stream: Arc<Stream>,
    /// How often and how much the client may send, where that is limited, until the program gets no more messages.
    pace: Option<Box<Pace>>,
    /// In whole milliseconds, as the next: so waits of the same length need no other timeout of the system each time.
    ping_interval: Option<Duration>,
    /// Since when nothing has come, if a read with a deadline has found that. A read without one lasts as long as the
    /// client may be silent, so it needs no such note.
    silent_since: Option<Instant>,
    /// Whether newest values wait for the client's answers.
    limits_lag: bool,
    /// Whether the client's answers are seen while this reads: there may be none before the end of a frame, or of what came
    /// before a client was held back.
    sees_answers: bool,
    /// Whether the client was held back, and what it has sent since was not read to its end.
    is_behind: bool,
    /// Whether the log says that the client was held back.
    was_held: bool,
    /// Whether a ping was sent and not a byte has come since.
    awaits_pong: bool,
    /// Whether the outbox gathers replies, because more input is at hand.
    gathers: bool,
    /// Whether something was read from the socket since [`has_read`](Self::has_read) was asked.
    has_read: bool,
    /// Whether the program gets no more messages.
    is_closing: bool,
    end: Option<End>,
    /// The payload of a ping whose pong found no room by a deadline. Nothing is read before it is answered.
    unanswered: Option<Bytes>,
    ping_timeout: Duration,
}

/// What ended the reading.
#[derive(Debug)]
enum End {
    /// The client's close frame.
    Close(Close),
    /// The end of the stream, or an error of the socket.
    Stream(String),
    /// The client broke a rule.
    Violation,
}

/// What a step of the reader brought.
enum Step {
    Message(Message),
    /// Something else, or the end.
    Other,
    /// There was nothing within the time.
    Nothing,
}

/// No message was whole by the deadline.
pub(crate) struct TimedOut;

/// The timeout of reads where no pings are sent: they end when something comes, or when another thread ends the stream.
const NO_TIMEOUT: Duration = Duration::from_secs(3600);
/// The system reports to one thread why a connection broke. How long that thread may take to note it in the outbox.
const FAILURE_PATIENCE: Duration = Duration::from_secs(1);
/// How many frames and reads past its deadline a receive looks at, for a message that has arrived already. Without end
/// it would not return while a client sends pings without a pause.
const MAX_LATE_STEPS: usize = 1000;
/// How often to look for the client's close after the read was interrupted, when reads do not wait any more.
const INTERRUPTED_PAUSE: Duration = Duration::from_millis(20);
/// For how long a client that has broken the rules is silent before its answer to the close is taken for sent. It is well
/// above a round-trip.
const ANSWER_QUIET: Duration = Duration::from_millis(500);

impl Reader {
    /// `rest` are the bytes that came behind the request; `session` is what the client's session may send.
    pub(crate) fn new(
        stream: Arc<Stream>,
        outbox: Arc<Outbox>,
        settings: &Websocket,
        agreement: Option<Agreement>,
        session: SessionBuckets,
        rest: Vec<u8>,
    ) -> Self {
        outbox.received.note_bytes(rest.len());
        let pace = Pace::new(settings, session, rest.len());
        let has_read = !rest.is_empty();
        let decoder = Decoder::new(settings.message_limits(), rest);
        let decoder = match &agreement {
            Some(agreement) => decoder.inflating(agreement),
            None => decoder,
        };
        Self {
            decoder,
            outbox,
            stream,
            pace,
            ping_interval: settings.ping_interval.map(round_up),
            silent_since: None,
            limits_lag: settings.max_lag.is_some(),
            sees_answers: true,
            is_behind: false,
            was_held: false,
            awaits_pong: false,
            gathers: false,
            has_read,
            is_closing: false,
            end: None,
            unanswered: None,
            ping_timeout: round_up(settings.ping_timeout),
        }
    }

    /// The next message; `None` when no more will be handed out: then [`close`](Self::close) and
    /// [`finish`](Self::finish).
    #[inline]
    pub(crate) fn recv(&mut self) -> Option<Message> {
        self.note_reading(true);
        let message = self.next_message();
        self.note_reading(false);
        message
    }

    #[inline]
    fn next_message(&mut self) -> Option<Message> {
        while self.end.is_none() && !self.outbox.is_sealed() {
            if let Step::Message(message) = self.advance(None) {
                self.outbox.received.note_message();
                return Some(message);
            }
        }
        None
    }

    /// Like [`recv`](Self::recv), until `deadline`. What has arrived by then is looked at, unless that is very much.
    ///
    /// # Errors
    ///
    /// No message was whole by the deadline.
    pub(crate) fn recv_until(&mut self, deadline: Instant) -> Result<Option<Message>, TimedOut> {
        self.note_reading(true);
        let received = self.next_message_until(deadline);
        self.note_reading(false);
        received
    }

    #[inline]
    fn note_reading(&self, reads: bool) {
        if self.limits_lag {
            self.outbox.note_reading(reads && self.sees_answers);
        }
    }

    /// Where newest values wait for the client's answers, tells whether they are seen.
    fn note_sight(&mut self) {
        let sees_answers = !self.is_behind && !self.decoder.is_within_frame();
        if mem::replace(&mut self.sees_answers, sees_answers) != sees_answers {
            self.outbox.note_reading(sees_answers);
        }
    }

    fn next_message_until(&mut self, deadline: Instant) -> Result<Option<Message>, TimedOut> {
        let mut late_steps = 0;
        while self.end.is_none() && !self.outbox.is_sealed() {
            let step = self.advance(Some(deadline));
            if let Step::Message(message) = step {
                self.outbox.received.note_message();
                return Ok(Some(message));
            }
            if deadline::until(deadline).is_zero() {
                late_steps += 1;
                if matches!(step, Step::Nothing) || late_steps > MAX_LATE_STEPS {
                    return Err(TimedOut);
                }
            }
        }
        Ok(None)
    }

    /// Whether something was read from the socket since the last call.
    pub(crate) fn has_read(&mut self) -> bool {
        mem::take(&mut self.has_read)
    }

    /// One step: an event of what has arrived, or one read, which waits no longer than until `deadline`.
    #[inline(always)]
    fn advance(&mut self, deadline: Option<Instant>) -> Step {
        if self.unanswered.is_none() && self.pace.is_none() && self.outbox.asked().is_none() {
            if let Some(message) = self.decoder.next_whole_message() {
                self.gather_if_more();
                return Step::Message(message);
            }
            if self.decoder.is_empty() {
                return self.read(deadline);
            }
        }
        self.advance_with_care(deadline)
    }

    /// The same where it is not simply the next message or the next read.
    ///
    /// Apart, like all that most messages do not need, so that the frames of a read stay small: at thousands of
    /// connections each line of a stack is out of the caches by the next message.
    #[inline(never)]
    fn advance_with_care(&mut self, deadline: Option<Instant>) -> Step {
        if (self.unanswered.is_some() || self.pace.is_some())
            && let Some(step) = self.hold_up(deadline)
        {
            return step;
        }
        match self.decoder.next() {
            Ok(Some(Event::Message(message))) => {
                return self.hear(message);
            }
            Ok(Some(Event::Ping(payload))) => {
                self.gather_if_more();
                return self.answer(payload, deadline);
            }
            Ok(Some(Event::Pong(payload))) => {
                if self.outbox.note_pong(&payload)
                    && let Some(pace) = &mut self.pace
                {
                    pace.note_asked_pong(pings::pong_length(&payload));
                }
            }
            Ok(Some(Event::Close(close))) => self.end = Some(End::Close(close)),
            Ok(None) => return self.read(deadline),
            Err(violation) => return self.violate(violation),
        }
        Step::Other
    }

    /// What comes before the next event: an answer that found no room, or a wait for the client's rates.
    fn hold_up(&mut self, deadline: Option<Instant>) -> Option<Step> {
        if let Some(payload) = self.unanswered.take() {
            return Some(self.answer(payload, deadline));
        }
        let pace = self.pace.as_mut()?;
        let mut wait = pace.until_rest();
        if wait == Ok(Duration::ZERO) && self.decoder.begins_message() {
            let may_be_answer = self.outbox.asked().is_some_and(Questions::are_open);
            wait = pace.until_message(may_be_answer);
        }
        match wait {
            Ok(Duration::ZERO) => None,
            Ok(wait) => Some(self.hold(wait, deadline)),
            Err(close) => Some(self.violate(close)),
        }
    }

    /// Takes a message of a client that was asked something, so that it may be the answer, or that may send only so many.
    #[inline(never)]
    fn hear(&mut self, message: Message) -> Step {
        let heard = match self.outbox.asked() {
            Some(questions) => questions.hear(message),
            None => Heard::Message(message),
        };
        if let Some(pace) = &mut self.pace
            && let Err(close) = pace.note_message(matches!(heard, Heard::Answer))
        {
            return self.violate(close);
        }
        match heard {
            Heard::Answer | Heard::Forgery => Step::Other,
            Heard::Message(message) => {
                self.gather_if_more();
                Step::Message(message)
            }
        }
    }

    /// Answers a ping. A client that does not read its pongs is held back: there is room for so many.
    #[inline(never)]
    fn answer(&mut self, payload: Bytes, deadline: Option<Instant>) -> Step {
        let time = deadline.map_or(Duration::MAX, deadline::until);
        let is_sent = self.outbox.send_control(&Frame::pong(payload.clone()), time);
        if is_sent || deadline.is_none() {
            return Step::Other;
        }
        self.unanswered = Some(payload);
        Step::Nothing
    }

    #[cold]
    #[inline(never)]
    fn violate(&mut self, violation: Close) -> Step {
        self.outbox.seal(violation, Cause::Violation);
        self.end = Some(End::Violation);
        Step::Other
    }

    /// Holds the client back for `wait`, or until `deadline`: what it sends is left to TCP. A close or a shutdown ends that
    /// at once.
    #[inline(never)]
    fn hold(&mut self, wait: Duration, deadline: Option<Instant>) -> Step {
        self.flush_gathered();
        if self.limits_lag {
            self.is_behind = true;
            self.note_sight();
        }
        if !mem::replace(&mut self.was_held, true) {
            let label = &self.outbox.label;
            contained(|| {
                log::info!(
                    target: "rwf::websocket",
                    "websocket held back {label}: it sends more than its rates allow"
                )
            });
        }
        let wait = deadline.map_or(wait, |deadline| wait.min(deadline::until(deadline)));
        self.outbox.wait_until_sealed(wait);
        Step::Nothing
    }

    #[inline]
    fn gather_if_more(&mut self) {
        if !self.gathers && !self.decoder.is_empty() {
            self.gather_if_whole();
        }
    }

    #[inline(never)]
    fn gather_if_whole(&mut self) {
        if self.decoder.has_whole_frame() {
            self.gathers = true;
            self.outbox.gather();
        }
    }

    fn flush_gathered(&mut self) {
        if mem::take(&mut self.gathers) {
            self.outbox.flush();
        }
    }

    /// One read, which waits no longer than until `deadline`.
    #[inline(never)]
    fn read(&mut self, deadline: Option<Instant>) -> Step {
        self.flush_gathered();
        if deadline.is_some()
            || self.silent_since.is_some()
            || self.pace.is_some()
            || self.limits_lag
        {
            return self.read_with_care(deadline);
        }
        let silence = self.read_timeout();
        match self.decoder.fill(|buffer| self.stream.read(buffer, silence)) {
            Ok(count @ 1..) => {
                self.note_arrival(count);
                Step::Other
            }
            read => self.note_nothing(read, silence, silence),
        }
    }

    /// The same where it is not simply to wait for the next bytes: within a limit of time or of how much the client may
    /// send, or of a client whose answers are waited for.
    #[inline(never)]
    fn read_with_care(&mut self, deadline: Option<Instant>) -> Step {
        if let Some(pace) = &mut self.pace {
            match pace.until_read(self.decoder.incomplete()) {
                Ok(Duration::ZERO) => {}
                Ok(wait) => return self.hold(wait, deadline),
                Err(close) => return self.violate(close),
            }
        }
        if self.limits_lag {
            self.note_sight();
        }
        let silence = self.read_timeout();
        let timeout = match self.is_behind {
            // Whether there is more tells whether it has caught up.
            true => Duration::ZERO,
            false => self.until_silence(silence).min(deadline.map_or(silence, deadline::until)),
        };
        let read = |buffer: &mut Vec<u8>| match timeout {
            Duration::ZERO => self.stream.read_now(buffer),
            _ => self.stream.read(buffer, round_up(timeout)),
        };
        let max_read = self.pace.as_ref().and_then(|pace| pace.max_read());
        let mut most = 0;
        let read = self.decoder.fill(|buffer| {
            let room = buffer.capacity() - buffer.len();
            most = max_read.map_or(room, |most| most.min(room));
            if most < room { read_part(buffer, most, read) } else { read(buffer) }
        });
        let Ok(count @ 1..) = read else { return self.note_nothing(read, silence, timeout) };
        self.note_arrival(count);
        self.is_behind &= count == most;
        if let Some(pace) = self.pace.as_mut().filter(|pace| pace.counts_bytes())
            && let Err(close) = pace.note_read(count, self.outbox.awaited_pong_bytes())
        {
            return self.violate(close);
        }
        Step::Other
    }

    #[inline]
    fn note_arrival(&mut self, count: usize) {
        self.awaits_pong = false;
        self.silent_since = None;
        self.has_read = true;
        self.outbox.received.note_bytes(count);
    }

    /// A read has brought nothing within `timeout`, or has failed. The client may be silent for `silence`.
    #[cold]
    #[inline(never)]
    fn note_nothing(
        &mut self,
        read: io::Result<usize>,
        silence: Duration,
        timeout: Duration,
    ) -> Step {
        match read {
            Ok(_) => self.note_end(),
            // A part of something is a sign of life.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.awaits_pong = false;
                self.silent_since = None;
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                self.is_behind = false;
                if self.is_silent_for(silence, timeout) {
                    self.silent_since = None;
                    self.notice_silence();
                }
                return Step::Nothing;
            }
            Err(error) => self.note_error(&error),
        }
        Step::Other
    }

    /// A read brought nothing: the client's stream has ended, or the read was interrupted.
    fn note_end(&mut self) {
        if self.stream.read_is_interrupted() && !self.stream.was_cut() {
            if self.is_closing {
                self.outbox.wait_for_change(INTERRUPTED_PAUSE);
            }
            return;
        }
        if self.stream.is_broken() {
            // The system gave the connection up and told a thread that writes, which may not have noted it yet.
            self.outbox.wait_for_failure(FAILURE_PATIENCE);
        }
        self.end = Some(End::Stream("the client left without a close frame".into()));
    }

    fn note_error(&mut self, error: &io::Error) {
        if error.kind() == io::ErrorKind::ConnectionAborted {
            self.outbox.fail_stalled();
        }
        self.end = Some(End::Stream(format!("cannot read: {error}")));
    }

    /// How much longer the client may be silent.
    fn until_silence(&self, silence: Duration) -> Duration {
        self.silent_since.map_or(silence, |since| silence.saturating_sub(since.elapsed()))
    }

    /// Whether the client has been silent for that long now that nothing came for `waited`.
    fn is_silent_for(&mut self, silence: Duration, waited: Duration) -> bool {
        if waited >= silence {
            return true;
        }
        let now = Instant::now();
        let since =
            *self.silent_since.get_or_insert_with(|| now.checked_sub(waited).unwrap_or(now));
        now - since >= silence
    }

    fn read_timeout(&self) -> Duration {
        match self.ping_interval {
            None => NO_TIMEOUT,
            Some(_) if self.awaits_pong => self.ping_timeout,
            Some(interval) => interval,
        }
    }

    /// The client was silent for a whole timeout.
    fn notice_silence(&mut self) {
        self.decoder.shrink();
        if self.ping_interval.is_none() || self.outbox.is_sealed() {
            return;
        }
        if self.awaits_pong {
            // A slow client may not have the ping yet: it waits behind what the client takes little by little. A client
            // that takes nothing is given up by the write timeout.
            if !self.outbox.has_taken_within(self.ping_timeout) {
                let reason = format!("no answer to a ping within {:?}", self.ping_timeout);
                self.outbox.fail(Cause::Silent, reason);
            }
        } else {
            self.outbox.measure_ping();
            // Where pongs wait already, the client takes nothing, which the write timeout is for.
            self.awaits_pong = self.outbox.send_control(&Frame::ping(Bytes::new()), Duration::ZERO);
        }
    }

    /// Answers the client's close, or begins to close: from here on nothing is received and nothing can be sent.
    /// Returns the close of whichever side was first, and why it came to that.
    pub(crate) fn close(&mut self) -> Closed {
        // Ours counts if it was first; otherwise the client's is echoed (RFC 6455 §5.5.1).
        match &self.end {
            Some(End::Close(close)) => {
                self.outbox.seal(close.clone(), Cause::Client);
            }
            Some(End::Stream(reason)) => {
                let close = Close::new(CloseCode::ABNORMAL, reason.as_str());
                self.outbox.seal_without_frame(close, Cause::Lost);
            }
            Some(End::Violation) | None => {}
        }
        self.is_closing = true;
        self.pace = None;
        let (code, reason) = (CloseCode::ABNORMAL, String::new());
        let unknown = Closed { code, reason, cause: Cause::Lost, unsent: 0, dropped: 0 };
        self.outbox.closed().unwrap_or(unknown)
    }

    /// Waits for the end of what was closed: the client's close, the last of what is queued, the end of the stream. At
    /// most `close_timeout`, when the watchdog cuts.
    pub(crate) fn finish(mut self) -> Outcome {
        // What the client still sends before its own close is not handed out any more.
        while self.end.is_none() {
            self.advance_with_care(None);
        }
        let done = if self.outbox.leaves_end_to_reader() {
            // Behind an interruption no read waits, and there is nothing to read for.
            let is_interrupted = self.stream.read_is_interrupted();
            if !is_interrupted && matches!(self.end, Some(End::Violation)) {
                self.read_until_quiet();
            }
            let done = self.outbox.wait_until_done();
            // The watchdog ends that wait.
            self.stream.finish_within(Duration::MAX);
            if !is_interrupted {
                self.read_to_the_end();
            }
            done
        } else {
            self.read_to_the_end();
            self.outbox.wait_until_done()
        };
        // Both close frames are the end that matters; a client may keep TCP open for longer.
        let is_clean =
            !done.has_failed && (matches!(self.end, Some(End::Close(_))) || !self.stream.was_cut());
        self.stream.cut();
        Outcome { is_clean, received: self.outbox.received.messages(), done }
    }

    /// Reads and forgets what is left of a violation, and the client's close, which cannot be told apart: until it has had
    /// a moment to answer.
    fn read_until_quiet(&self) {
        let mut discarded = Vec::with_capacity(4096);
        loop {
            discarded.clear();
            match self.stream.read(&mut discarded, ANSWER_QUIET) {
                Ok(1..) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut && !self.outbox.is_over() => {
                }
                _ => return,
            }
        }
    }

    /// Reads and forgets until the client ends its stream. Closing before that could send a reset, which would eat
    /// what was written last, the close frame (RFC 6455 §7.1.1).
    fn read_to_the_end(&self) {
        if matches!(self.end, Some(End::Stream(_))) {
            return;
        }
        let mut discarded = Vec::with_capacity(4096);
        loop {
            discarded.clear();
            match self.stream.read(&mut discarded, self.read_timeout()) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                    ) => {}
                Err(_) => return,
            }
        }
    }
}

/// Appends a read of at most `most` bytes to `buffer`.
#[inline(never)]
fn read_part(
    buffer: &mut Vec<u8>,
    most: usize,
    read: impl FnOnce(&mut Vec<u8>) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut part = Vec::with_capacity(most);
    let count = read(&mut part)?;
    buffer.append(&mut part);
    Ok(count)
}

/// Without the detour of `as_millis` and `as_nanos` over 128 bits, whose division costs more than the rest of a read.
fn round_up(time: Duration) -> Duration {
    let millis = u64::from(time.subsec_nanos().div_ceil(1_000_000));
    Duration::from_millis(time.as_secs().saturating_mul(1000).saturating_add(millis))
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// All that was to be sent was taken, and the client ended by itself.
    pub(crate) is_clean: bool,
    pub(crate) received: u64,
    pub(crate) done: Done,
}
