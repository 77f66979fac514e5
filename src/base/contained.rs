//! Keeps the panics of the program's code, loggers and destructors, from threads that others rely on.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `action`, which may run code of the program's; `None` when that panicked, so that the caller can go on with
/// what has to be done in any case. A logger panics at each line, for example, once nobody reads standard error any
/// more.
pub(crate) fn contained<T>(action: impl FnOnce() -> T) -> Option<T> {
    let mut panic = match catch_unwind(AssertUnwindSafe(action)) {
        Ok(value) => return Some(value),
        Err(panic) => panic,
    };
    // The value that it panicked with is the program's too: to drop it may panic again.
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
