//! Marks: pings behind the messages that wait. The answer to one says that the client has received all before it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::base::deadline;
use crate::websocket::batch::Account;
use crate::websocket::frame::Frame;
use crate::websocket::latest::Waiting;
use crate::websocket::outbox::Outbox;
use crate::websocket::outbox_state::{OutboxState, Phase, WriteHalf};
use crate::websocket::room::NotTaken;

/// How many marks may wait for a client. They are no messages, and find room where these find none: so nobody waits for
/// room for the mark of one client while another one could be asked.
const MAX_MARKS: u64 = 64;

/// Why a client is not known to have received what was sent before a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotReceived {
    /// It has not answered in time.
    Behind,
    /// The connection is being closed, or is gone.
    Closing,
}

impl Outbox {
    /// Puts a mark behind all that was sent. Where as many wait as may, this waits until `deadline`.
    pub(crate) fn mark(self: &Arc<Self>, deadline: Option<Instant>) -> Result<u64, NotTaken> {
        let mut state = self.state.lock();
        let has_room = |state: &OutboxState| state.rest.pings.waiting_marks() < MAX_MARKS;
        let time = deadline.map_or(Duration::ZERO, deadline::until);
        self.wait_for(&mut state, time, has_room);
        if state.phase != Phase::Open {
            return Err(NotTaken::Closing);
        }
        if !has_room(&state) {
            return Err(NotTaken::Full);
        }
        let (mark, payload) = state.rest.pings.next_mark();
        let frame = Frame::ping(payload.clone());
        let account = Account::of(&frame);
        if state.is_idle() {
            state.rest.pings.measure(payload);
            state.rest.pings.pass_marks(1);
            state.accept(account);
            self.write_through(&frame, account, state);
        } else {
            state.accept(account);
            self.enqueue(Waiting::Message(frame));
            self.write_what_waits(state);
        }
        Ok(mark)
    }

    /// Waits until the client has received all that was sent before a mark, no longer than until `deadline`.
    pub(crate) fn wait_until_received(
        &self,
        mark: u64,
        deadline: Instant,
    ) -> Result<(), NotReceived> {
        let mut state = self.state.lock();
        self.wait_for(&mut state, deadline::until(deadline), |state| {
            state.rest.pings.has_answered(mark)
        });
        match state.phase {
            _ if state.rest.pings.has_answered(mark) => Ok(()),
            Phase::Open => Err(NotReceived::Behind),
            Phase::Sealed | Phase::Done | Phase::Failed => Err(NotReceived::Closing),
        }
    }

    /// The client has sent a pong. Whether it was asked for.
    pub(crate) fn note_pong(self: &Arc<Self>, payload: &[u8]) -> bool {
        let mut state = self.state.lock();
        let was_asked = state.note_pong(payload);
        self.changed.notify_all();
        if state.write_half == WriteHalf::Held {
            self.write_what_waits(state);
        }
        was_asked
    }

    /// How many bytes the pongs take that the client was asked for and has not sent.
    pub(crate) fn awaited_pong_bytes(&self) -> usize {
        self.state.lock().rest.pings.awaited_bytes()
    }

    /// Measures the round trip of the ping without a payload that is about to go out.
    pub(crate) fn measure_ping(&self) {
        self.state.lock().rest.pings.measure(Bytes::new());
    }

    /// The reader sees the client's answers from here on, or does not. Told where newest values wait for them.
    pub(crate) fn note_reading(self: &Arc<Self>, reads: bool) {
        let mut state = self.state.lock();
        if let Some(lag) = &mut state.rest.lag {
            lag.note_reading(reads);
        }
        self.order_wake(&mut state);
    }

    /// How long the answer to the last ping took that was measured.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.state.lock().rest.pings.round_trip()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::watchdog::Watchdog;
    use crate::websocket::message::Message;
    use crate::websocket::room::Patience;
    use crate::websocket::settings::{Overflow, Websocket};

    #[test]
    fn marks_find_room_where_messages_find_none_and_have_a_limit() {
        let settings = Websocket::new().outbox_bytes(1).overflow(Overflow::Refuse);
        // It has not started, so that all of it waits.
        let (outbox, _peer) = Outbox::with_client(&settings, Watchdog::default());
        let frame = Frame::message(Message::binary(vec![0; 20_000]));
        for _ in 0..10 {
            assert!(outbox.mark(None).is_ok());
        }
        let send = || outbox.send_with(&frame, Patience::Until(None));
        assert_eq!((send(), send()), (Ok(0), Err(NotTaken::Full)));
        assert_eq!((0..1000).take_while(|_| outbox.mark(None).is_ok()).count(), 54);
        assert_eq!(outbox.mark(Some(Instant::now())), Err(NotTaken::Full));
    }
}
