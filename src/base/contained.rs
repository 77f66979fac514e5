//! Keeps the panics of the program's code, loggers and destructors, from threads that others rely on.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `action`, which may run code of the program's; `None` when that panicked. What has to be done afterwards can be
/// done in any case: a logger may panic at each line, because the reader of its pipe has left.
pub(crate) fn contained<T>(action: impl FnOnce() -> T) -> Option<T> {
    let mut panic = match catch_unwind(AssertUnwindSafe(action)) {
        Ok(value) => return Some(value),
        Err(panic) => panic,
    };
    // What it panicked with is the program's too, and may panic when it is dropped.
    while let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        panic = another;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::panic_any;

    #[test]
    fn panics_of_panics_end_here() {
        struct PanicsAgain(u32);
        impl Drop for PanicsAgain {
            fn drop(&mut self) {
                if self.0 > 0 {
                    panic_any(Self(self.0 - 1));
                }
            }
        }
        assert_eq!(contained(|| 7), Some(7));
        assert_eq!(contained(|| panic!("as the test wishes")), None::<()>);
        assert_eq!(contained(|| panic_any(PanicsAgain(3))), None::<()>);
    }
}
