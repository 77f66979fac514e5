//! SIGINT and SIGTERM: while servers run, the first one shuts them all down in good order, and the next one ends the
//! process at once. When none runs any more, the signals do what they did before the first one did.
//!
//! Each server listens for itself, beside handlers of the program's. signal-hook cannot give a signal its default
//! action back. So an action of ours, which stays for good, does the same: it ends the process, but only while no
//! server listens or after a first signal has come. A signal that was ignored is left alone.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use signal_hook::consts::{SIGINT, SIGTERM};

/// One server's share in the signals.
#[derive(Debug)]
pub(crate) struct TerminationSignals {
    #[cfg(unix)]
    arrived: signal_hook::iterator::Signals,
    #[cfg(not(unix))]
    arrived: Arc<AtomicBool>,
    is_shutting_down: bool,
}

impl TerminationSignals {
    /// Starts to listen.
    pub(crate) fn listen() -> io::Result<Self> {
        let signals = taken()?.iter().map(|taken| taken.signal);
        #[cfg(unix)]
        let arrived = signal_hook::iterator::Signals::new(signals)?;
        #[cfg(not(unix))]
        let arrived = {
            let arrived = Arc::new(AtomicBool::new(false));
            for signal in signals {
                signal_hook::flag::register(signal, Arc::clone(&arrived))?;
            }
            arrived
        };
        change(|servers| servers.running += 1);
        Ok(Self { arrived, is_shutting_down: false })
    }

    /// Blocks until one of the signals arrives; its name. Until this value is dropped, the next one ends the process.
    pub(crate) fn wait(&mut self) -> &'static str {
        let name = self.next();
        if !self.is_shutting_down {
            self.is_shutting_down = true;
            change(|servers| servers.shutting_down += 1);
        }
        name
    }

    #[cfg(unix)]
    fn next(&mut self) -> &'static str {
        match self.arrived.forever().next() {
            Some(SIGINT) => "SIGINT",
            _ => "SIGTERM",
        }
    }

    #[cfg(not(unix))]
    fn next(&mut self) -> &'static str {
        // On these systems signal-hook cannot wait for a signal.
        while !self.arrived.swap(false, Ordering::SeqCst) {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        "SIGINT or SIGTERM"
    }
}

impl Drop for TerminationSignals {
    fn drop(&mut self) {
        change(|servers| {
            servers.running -= 1;
            servers.shutting_down -= usize::from(self.is_shutting_down);
        });
    }
}

/// The servers that listen, in the whole process.
struct Servers {
    running: usize,
    /// How many of them a signal has reached.
    shutting_down: usize,
}

/// Changes the counts, and with them what the signals do from now on.
fn change(count: impl FnOnce(&mut Servers)) {
    static SERVERS: Mutex<Servers> = Mutex::new(Servers { running: 0, shutting_down: 0 });
    let mut servers = SERVERS.lock();
    count(&mut servers);
    for taken in taken().into_iter().flatten() {
        let ends_process = match *servers {
            Servers { running: 0, .. } => taken.ended_process,
            Servers { shutting_down, .. } => shutting_down > 0,
        };
        taken.ends_process.store(ends_process, Ordering::SeqCst);
    }
}

/// A signal with our action.
struct Taken {
    signal: i32,
    /// Whether it had its default action before.
    ended_process: bool,
    /// Whether our action is now to do the same.
    ends_process: Arc<AtomicBool>,
}

/// The signals that were not ignored when the first server began to listen, which each have our action since.
fn taken() -> io::Result<&'static [Taken]> {
    static TAKEN: OnceLock<io::Result<Vec<Taken>>> = OnceLock::new();
    let taken = TAKEN.get_or_init(|| {
        let before = [SIGINT, SIGTERM].map(|signal| (signal, Before::of(signal)));
        let ours = before.into_iter().filter(|(_, before)| *before != Before::Ignored);
        ours.map(|(signal, before)| take(signal, before == Before::Default)).collect()
    });
    taken.as_deref().map_err(|error| io::Error::new(error.kind(), error.to_string()))
}

fn take(signal: i32, ended_process: bool) -> io::Result<Taken> {
    let ends_process = Arc::new(AtomicBool::new(ended_process));
    let condition = Arc::clone(&ends_process);
    #[cfg(unix)]
    signal_hook::flag::register_conditional_default(signal, condition)?;
    #[cfg(not(unix))]
    signal_hook::flag::register_conditional_shutdown(signal, 1, condition)?;
    Ok(Taken { signal, ended_process, ends_process })
}

/// What a signal did before we took it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Default,
    Ignored,
    /// Code of the program's, which runs beside ours.
    Handled,
}

impl Before {
    /// Linux tells in `/proc`. Other systems do not, and the default action is assumed, which it mostly is.
    fn of(signal: i32) -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let has = |field: &str| {
            let mask = status.lines().find_map(|line| line.strip_prefix(field)).map(str::trim);
            let mask = mask.and_then(|mask| u128::from_str_radix(mask, 16).ok());
            mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
        };
        if has("SigIgn:") {
            Self::Ignored
        } else if has("SigCgt:") {
            Self::Handled
        } else {
            Self::Default
        }
    }
}
