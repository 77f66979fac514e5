//! Room in an outbox: what fits, and what happens to a message that does not. It waits, is refused, has older ones dropped,
//! or its receiver is closed as too slow.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use crate::base::contained::contained;
use crate::base::deadline;
use crate::websocket::latest::Waiting;
use crate::websocket::outbox::Outbox;
use crate::websocket::outbox_state::{self, OutboxState, Phase, Spent};
use crate::websocket::settings::Overflow;

/// How long a sender that finds the outbox full waits for another thread to finish its write. That one does not wait
/// for the client, but on a busy machine it may wait for a processor.
const WRITE_PATIENCE: Duration = Duration::from_secs(1);
/// How long a handler waits for its own client before the log warns of it: it may hold a lock meanwhile.
const SILENT_WAIT: Duration = Duration::from_secs(1);

/// Why a message was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    Full,
    Closing,
}

/// How long a sender waits for room in a full outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// As the endpoint's settings say: a handler waits for its own client, up to the write timeout, and nobody waits for
    /// another's client. One that is too slow is closed, or its message refused.
    Settings,
    /// Whoever sends waits until then, or not at all for `None`. The client is not closed for being slow.
    Until(Option<Instant>),
}

impl Outbox {
    /// One message always fits an empty outbox.
    pub(super) fn has_room(&self, state: &OutboxState, bytes: usize) -> bool {
        state.waiting.messages == 0
            || (state.waiting.messages < self.limits.messages
                && self.has_room_for_bytes(state, bytes))
    }

    pub(super) fn has_room_for_bytes(&self, state: &OutboxState, bytes: usize) -> bool {
        let process_has_room =
            || outbox_state::queued_in_process().saturating_add(bytes) <= self.limits.process_bytes;
        state.waiting.bytes.saturating_add(bytes) <= self.limits.bytes
            && (!state.is_slow() || process_has_room())
    }

    /// Tries to make room for a message, first by writing what the client takes now, also of newest values that wait for its
    /// answers: one that reads must not be judged slow. Then this waits for the client, as `patience` says, or drops what
    /// has waited longest. There is room then, or the outbox is closed.
    ///
    /// Apart, so that the frame of a send that finds room stays small.
    #[cold]
    #[inline(never)]
    pub(super) fn make_room<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, OutboxState>,
        bytes: usize,
        patience: Patience,
        dropped: &mut Spent,
    ) -> Result<MutexGuard<'a, OutboxState>, NotTaken> {
        state.rest.room_seekers += 1;
        let mut found = self.find_room(state, bytes, patience, dropped);
        match &mut found {
            Ok(state) => state.rest.room_seekers -= 1,
            Err(_) => self.state.lock().rest.room_seekers -= 1,
        }
        found
    }

    fn find_room<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, OutboxState>,
        bytes: usize,
        patience: Patience,
        dropped: &mut Spent,
    ) -> Result<MutexGuard<'a, OutboxState>, NotTaken> {
        let has_room = |state: &OutboxState| self.has_room(state, bytes);
        let overflow = self.limits.overflow;
        let mut takes_more = true;
        // Others may fill again what was just emptied: that does not make the client slow.
        let end = deadline::after(WRITE_PATIENCE);
        while takes_more {
            self.wait_for(&mut state, WRITE_PATIENCE, |state| {
                has_room(state) || state.can_take_write_half()
            });
            takes_more = !has_room(&state) && state.can_take_write_half();
            if takes_more {
                takes_more = self.write_and_ensure_waiter(state) && !deadline::until(end).is_zero();
                state = self.state.lock();
            }
        }
        match patience {
            Patience::Settings if overflow == Overflow::DropOldest => {
                return Ok(self.drop_oldest(state, bytes, dropped));
            }
            Patience::Settings if self.is_read_by_this_thread() => {
                let timeout = self.limits.write_timeout;
                let silent = timeout.min(SILENT_WAIT);
                self.wait_for(&mut state, silent, has_room);
                if silent < timeout && state.phase == Phase::Open && !has_room(&state) {
                    MutexGuard::unlocked(&mut state, || contained(|| self.warn_of_wait()));
                    self.wait_for(&mut state, timeout - silent, has_room);
                }
            }
            Patience::Until(Some(deadline)) => {
                self.wait_for(&mut state, deadline::until(deadline), has_room);
            }
            Patience::Settings | Patience::Until(None) => {}
        }
        if state.phase != Phase::Open || has_room(&state) {
            return Ok(state);
        }
        drop(state);
        if patience == Patience::Settings && overflow == Overflow::Close {
            self.overflow();
        }
        Err(NotTaken::Full)
    }

    /// Drops what has waited longest until there is room, or nothing is left but what is being written: then there is
    /// room for one message more. Marks are kept, and stand behind what is left.
    fn drop_oldest<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, OutboxState>,
        bytes: usize,
        dropped: &mut Spent,
    ) -> MutexGuard<'a, OutboxState> {
        // Noted first: the program's logger may send to this client.
        if self.is_anything_queued() && !mem::replace(&mut state.rest.is_dropping_logged, true) {
            MutexGuard::unlocked(&mut state, || contained(|| self.log_dropping()));
        }
        let mut marks = Vec::new();
        while state.phase == Phase::Open
            && !self.has_room(&state, bytes)
            && let Some(waiting) = self.take_oldest(&mut state)
        {
            if let Waiting::Latest(latest) = &waiting {
                state.rest.latest.remove(latest);
            }
            let Some((frame, account)) = waiting.into_parts() else { continue };
            if frame.is_control() {
                marks.push(frame);
                continue;
            }
            state.discard(account);
            state.rest.dropped += 1;
            dropped.push(frame.into());
        }
        for mark in marks {
            self.enqueue(Waiting::Message(mark));
        }
        state
    }

    fn take_oldest(&self, state: &mut OutboxState) -> Option<Waiting> {
        let head = state.rest.head.take().map(Waiting::Latest);
        head.or_else(|| self.dequeue())
    }

    #[inline(never)]
    fn log_dropping(&self) {
        let label = &self.label;
        log::info!(
            target: "rwf::websocket",
            "websocket drops old messages {label}: its client takes fewer than are sent"
        );
    }

    #[inline(never)]
    fn warn_of_wait(&self) {
        log::warn!(
            target: "rwf::websocket",
            "a handler waits for its own client to take messages, and holds up whoever waits for it: {}",
            self.label
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::watchdog::Watchdog;
    use crate::websocket::frame::Frame;
    use crate::websocket::settings::Websocket;
    use std::net::TcpStream;
    use std::thread;

    fn text(text: &str) -> Frame {
        Frame::message(text.into())
    }

    fn outbox(settings: &Websocket) -> (Arc<Outbox>, TcpStream) {
        Outbox::with_client(settings, Watchdog::default())
    }

    #[test]
    fn a_full_outbox_takes_one_message_when_it_is_empty() {
        let settings = Websocket::new().outbox_bytes(1).overflow(Overflow::Refuse);
        let (outbox, _peer) = outbox(&settings);
        let outbox_of_another_thread = Arc::clone(&outbox);
        thread::spawn(move || {
            assert_eq!(outbox_of_another_thread.send(&text("one is always taken")), Ok(0));
            assert_eq!(
                outbox_of_another_thread.send(&text("two are too many")),
                Err(NotTaken::Full)
            );
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_reader_waits_for_room_up_to_the_write_timeout() {
        let settings = Websocket::new()
            .outbox_messages(1)
            .write_timeout(Duration::from_millis(20))
            .overflow(Overflow::Refuse);
        let (outbox, _peer) = outbox(&settings);
        outbox.send(&text("first")).unwrap();
        let began = Instant::now();
        assert_eq!(outbox.send(&text("second")), Err(NotTaken::Full));
        assert!(began.elapsed() >= Duration::from_millis(20), "it did not wait");
    }
}
