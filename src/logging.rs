//! Keeps the panics of the program's logger from whoever has something to say.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `log`, which writes to the log. The logger is the program's: one that writes to a pipe whose reader has left may
/// panic at each line, and what has to be done after the line has to be done nevertheless.
pub(crate) fn contained(log: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(log));
}
