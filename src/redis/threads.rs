//! The threads that keep a connection to Redis, and how long its end waits for them.

use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::base::deadline;

/// How long the end waits for the threads, which may be connecting.
const END_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(crate) struct Threads(pub(crate) Vec<JoinHandle<()>>);

impl Threads {
    /// Waits until they have ended. One that connects or asks for the map ends by itself, later, when it has, or has not.
    pub(crate) fn join(self) {
        let deadline = deadline::after(END_PATIENCE);
        for thread in self.0 {
            while !thread.is_finished() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}
