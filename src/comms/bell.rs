//! Tells a thread that there is something for it to do, of many kinds, without waiting for it.

use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;

/// Rings once, however often it is pulled, until the thread has heard it: no more waits in the channel than there are bells.
#[derive(Debug)]
pub(crate) struct Bell {
    thread: Sender<u64>,
    number: u64,
    has_rung: AtomicBool,
}

impl Bell {
    pub(crate) fn new(thread: Sender<u64>, number: u64) -> Self {
        Self { thread, number, has_rung: AtomicBool::new(false) }
    }

    pub(crate) fn ring(&self) {
        if !self.has_rung.swap(true, Ordering::AcqRel) {
            // The thread may have ended.
            let _ = self.thread.send(self.number);
        }
    }

    /// The thread has heard it, and looks now: what comes from here on rings it again.
    pub(crate) fn hear(&self) {
        self.has_rung.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_rings_once_until_it_is_heard() {
        let (thread, rung) = crossbeam_channel::unbounded();
        let bells = [1, 2].map(|number| Bell::new(thread.clone(), number));
        for _ in 0..3 {
            bells.iter().for_each(Bell::ring);
        }
        assert_eq!(rung.try_iter().collect::<Vec<_>>(), [1, 2]);
        bells[1].hear();
        bells.iter().for_each(Bell::ring);
        assert_eq!(rung.try_iter().collect::<Vec<_>>(), [2]);
    }
}
