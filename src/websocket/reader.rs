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
use crate::websocket::decoder::{Decoder, Event};
use crate::websocket::frame::Frame;
use crate::websocket::message::Message;
use crate::websocket::outbox::Outbox;
use crate::websocket::pace::{Pace, SessionBuckets};
use crate::websocket::settings::Websocket;

/// What the reader thread owns. Everything it has to say goes through the outbox.
#[derive(Debug)]
pub(crate) struct Reader {
    stream: Arc<Stream>,
    outbox: Arc<Outbox>,
    decoder: Decoder,
    /// How often and how much the client may send, where that is limited, until the program gets no more messages.
    pace: Option<Box<Pace>>,
    /// Whether the log says that the client was held back.
    was_held: bool,
    ping_interval: Option<Duration>,
    ping_timeout: Duration,
    /// Whether a ping was sent and not a byte has come since.
    awaits_pong: bool,
    /// Since when nothing has come, if a read with a deadline has found that. A read without one lasts as long as the
    /// client may be silent, so it needs no such note.
    silent_since: Option<Instant>,
    /// The payload of a ping whose pong found no room by a deadline. Nothing is read before it is answered.
    unanswered: Option<Bytes>,
    /// Whether the outbox gathers replies, because more input is at hand.
    gathers: bool,
    received: u64,
    end: Option<End>,
    /// Whether the program gets no more messages.
    is_closing: bool,
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

impl Reader {
    /// `rest` are the bytes that came behind the request; `session` is what the client's session may send.
    pub(crate) fn new(
        stream: Arc<Stream>,
        outbox: Arc<Outbox>,
        settings: &Websocket,
        session: SessionBuckets,
        rest: Vec<u8>,
    ) -> Self {
        Self {
            stream,
            outbox,
            decoder: Decoder::new(settings.message_limits(), rest),
            pace: Pace::new(settings, session),
            was_held: false,
            ping_interval: settings.ping_interval,
            ping_timeout: settings.ping_timeout,
            awaits_pong: false,
            silent_since: None,
            unanswered: None,
            gathers: false,
            received: 0,
            end: None,
            is_closing: false,
        }
    }

    /// The next message; `None` when no more will be handed out: then [`close`](Self::close) and
    /// [`finish`](Self::finish).
    pub(crate) fn recv(&mut self) -> Option<Message> {
        while self.end.is_none() && !self.outbox.is_sealed() {
            if let Step::Message(message) = self.advance(None) {
                self.received += 1;
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
        let mut late_steps = 0;
        while self.end.is_none() && !self.outbox.is_sealed() {
            let step = self.advance(Some(deadline));
            if let Step::Message(message) = step {
                self.received += 1;
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

    /// One step: an event of what has arrived, or one read, which waits no longer than until `deadline`.
    fn advance(&mut self, deadline: Option<Instant>) -> Step {
        if let Some(payload) = self.unanswered.take() {
            return self.answer(payload, deadline);
        }
        if let Some(pace) = &mut self.pace
            && self.decoder.begins_message()
        {
            match pace.until_message() {
                Ok(Duration::ZERO) => {}
                Ok(wait) => return self.hold(wait, deadline),
                Err(close) => return self.violate(close),
            }
        }
        match self.decoder.next() {
            Ok(Some(Event::Message(message))) => {
                if let Some(pace) = &mut self.pace {
                    pace.note_message();
                }
                self.gather_if_more();
                return Step::Message(message);
            }
            Ok(Some(Event::Ping(payload))) => {
                self.gather_if_more();
                return self.answer(payload, deadline);
            }
            Ok(Some(Event::Pong)) => {}
            Ok(Some(Event::Close(close))) => self.end = Some(End::Close(close)),
            Ok(None) => return self.read(deadline),
            Err(violation) => return self.violate(violation),
        }
        Step::Other
    }

    /// Answers a ping. A client that does not read its pongs is held back: there is room for so many.
    fn answer(&mut self, payload: Bytes, deadline: Option<Instant>) -> Step {
        let time = deadline.map_or(Duration::MAX, deadline::until);
        let is_sent = self.outbox.send_control(&Frame::pong(payload.clone()), time);
        if is_sent || deadline.is_none() {
            return Step::Other;
        }
        self.unanswered = Some(payload);
        Step::Nothing
    }

    fn violate(&mut self, violation: Close) -> Step {
        self.outbox.seal(violation, Cause::Violation);
        self.end = Some(End::Violation);
        Step::Other
    }

    /// Holds the client back for `wait`, or until `deadline`: what it sends is left to TCP. A close or a shutdown ends that
    /// at once.
    fn hold(&mut self, wait: Duration, deadline: Option<Instant>) -> Step {
        self.flush_gathered();
        if !mem::replace(&mut self.was_held, true) {
            let label = &self.outbox.label;
            contained(|| {
                log::info!("websocket held back {label}: it sends more than its rates allow")
            });
        }
        let wait = deadline.map_or(wait, |deadline| wait.min(deadline::until(deadline)));
        self.outbox.wait_until_sealed(wait);
        Step::Nothing
    }

    fn gather_if_more(&mut self) {
        if !self.gathers && self.decoder.has_whole_frame() {
            self.gathers = true;
            self.outbox.gather();
        }
    }

    fn flush_gathered(&mut self) {
        if mem::take(&mut self.gathers) {
            self.outbox.flush();
        }
    }

    fn read(&mut self, deadline: Option<Instant>) -> Step {
        self.flush_gathered();
        let wait = self.pace.as_ref().map_or(Duration::ZERO, |pace| pace.until_read());
        if !wait.is_zero() {
            return self.hold(wait, deadline);
        }
        let silence = self.read_timeout();
        let timeout = self.until_silence(silence).min(deadline.map_or(silence, deadline::until));
        let read = |buffer: &mut Vec<u8>| match timeout {
            Duration::ZERO => self.stream.read_now(buffer),
            // In whole milliseconds, so that waits of the same length need no other timeout of the system each time.
            _ => self.stream.read(buffer, round_up(timeout)),
        };
        let max_read = self.pace.as_ref().and_then(|pace| pace.max_read());
        let read = self.decoder.fill(|buffer| match max_read {
            Some(most) if most < buffer.capacity() - buffer.len() => {
                let mut part = Vec::with_capacity(most);
                let count = read(&mut part)?;
                buffer.append(&mut part);
                Ok(count)
            }
            _ => read(buffer),
        });
        match read {
            Ok(0) if self.stream.read_is_interrupted() && !self.stream.was_cut() => {
                if self.is_closing {
                    self.outbox.wait_for_change(INTERRUPTED_PAUSE);
                }
            }
            Ok(0) => {
                if self.stream.is_broken() {
                    // The system gave the connection up and told a thread that writes, which may not have noted it yet.
                    self.outbox.wait_until_sealed(FAILURE_PATIENCE);
                }
                self.end = Some(End::Stream("the client left without a close frame".into()));
            }
            Ok(count) => {
                self.awaits_pong = false;
                self.silent_since = None;
                if let Some(pace) = &mut self.pace
                    && let Err(close) = pace.note_read(count)
                {
                    return self.violate(close);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                if self.is_silent_for(silence, timeout) {
                    self.silent_since = None;
                    self.notice_silence();
                }
                return Step::Nothing;
            }
            Err(error) => {
                if error.kind() == io::ErrorKind::ConnectionAborted {
                    self.outbox.fail_stalled();
                }
                self.end = Some(End::Stream(format!("cannot read: {error}")));
            }
        }
        Step::Other
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
        let unknown = Closed { code, reason, cause: Cause::Lost, unsent: 0 };
        self.outbox.closed().unwrap_or(unknown)
    }

    /// Waits for the end of what was closed: the client's close, the last of what is queued, the end of the stream. At
    /// most `close_timeout`, when the watchdog cuts.
    pub(crate) fn finish(mut self) -> Outcome {
        // What the client still sends before its own close is not handed out any more.
        while self.end.is_none() {
            self.advance(None);
        }
        let done = if self.stream.read_is_interrupted() {
            let done = self.outbox.wait_until_done();
            self.stream.finish_writing();
            done
        } else {
            self.read_to_the_end();
            self.outbox.wait_until_done()
        };
        // Both close frames are the end that matters; a client may keep TCP open for longer.
        let is_clean =
            !done.has_failed && (matches!(self.end, Some(End::Close(_))) || !self.stream.was_cut());
        self.stream.cut();
        Outcome { is_clean, received: self.received, sent: done.sent, unsent: done.unsent }
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
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                Err(_) => return,
            }
        }
    }
}

fn round_up(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
}

/// How a connection ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// All that was to be sent was taken, and the client ended by itself.
    pub(crate) is_clean: bool,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) unsent: usize,
}
