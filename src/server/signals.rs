//! SIGINT and SIGTERM: while servers run, the first one shuts them all down in good order, and the next one ends the
//! process at once. SIGHUP, while servers run that have files to read again. When none runs any more, the signals do what
//! they did before the first one did.
//!
//! Each server listens for itself, beside handlers of the program's. signal-hook cannot give a signal its default
//! action back. So an action of ours, which stays for good, does the same: it ends the process, but only while no
//! server listens or after a first signal has come. A signal that was ignored is left alone.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
#[cfg(unix)]
use signal_hook::consts::SIGHUP;
use signal_hook::consts::{SIGINT, SIGTERM};

/// One server's share in the signals.
#[derive(Debug)]
pub(crate) struct Signals {
    #[cfg(unix)]
    arrived: signal_hook::iterator::Signals,
    #[cfg(not(unix))]
    arrived: Arc<AtomicBool>,
    takes_hangup: bool,
    is_shutting_down: bool,
}

/// A signal that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// Files are to be read again.
    Hangup,
    /// Of this name: the server is to shut down.
    Termination(&'static str),
}

impl Signals {
    /// Starts to listen, to SIGHUP too if it is of use, where the system has it.
    pub(crate) fn listen(takes_hangup: bool) -> io::Result<Self> {
        let hangup = if takes_hangup { taken_hangup()? } else { None };
        let takes_hangup = hangup.is_some();
        let signals = taken()?.iter().chain(hangup).map(|taken| taken.signal);
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
        change(|servers| {
            servers.running += 1;
            servers.reloading += usize::from(takes_hangup);
        });
        Ok(Self { arrived, takes_hangup, is_shutting_down: false })
    }

    /// Blocks until one of the signals arrives. Once one is for termination the next such one ends the process, until this
    /// value is dropped.
    pub(crate) fn wait(&mut self) -> Arrived {
        let arrived = self.next();
        if arrived != Arrived::Hangup && !self.is_shutting_down {
            self.is_shutting_down = true;
            change(|servers| servers.shutting_down += 1);
        }
        arrived
    }

    #[cfg(unix)]
    fn next(&mut self) -> Arrived {
        match self.arrived.forever().next() {
            Some(SIGHUP) => Arrived::Hangup,
            Some(SIGINT) => Arrived::Termination("SIGINT"),
            _ => Arrived::Termination("SIGTERM"),
        }
    }

    #[cfg(not(unix))]
    fn next(&mut self) -> Arrived {
        // On these systems signal-hook cannot wait for a signal.
        while !self.arrived.swap(false, Ordering::SeqCst) {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        Arrived::Termination("SIGINT or SIGTERM")
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        change(|servers| {
            servers.running -= 1;
            servers.reloading -= usize::from(self.takes_hangup);
            servers.shutting_down -= usize::from(self.is_shutting_down);
        });
    }
}

/// The servers that listen, in the whole process.
struct Servers {
    running: usize,
    /// How many of them take SIGHUP.
    reloading: usize,
    /// How many of them a signal has reached.
    shutting_down: usize,
}

/// Changes the counts, and with them what the signals do from now on.
fn change(count: impl FnOnce(&mut Servers)) {
    static SERVERS: Mutex<Servers> =
        Mutex::new(Servers { running: 0, reloading: 0, shutting_down: 0 });
    let mut servers = SERVERS.lock();
    count(&mut servers);
    for taken in taken().into_iter().flatten() {
        let ends_process = match *servers {
            Servers { running: 0, .. } => taken.ended_process,
            Servers { shutting_down, .. } => shutting_down > 0,
        };
        taken.ends_process.store(ends_process, Ordering::SeqCst);
    }
    if let Some(Ok(Some(hangup))) = HANGUP.get() {
        let ends_process = servers.reloading == 0 && hangup.ended_process;
        hangup.ends_process.store(ends_process, Ordering::SeqCst);
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

/// SIGHUP, since the first server that takes it, unless it was ignored then.
static HANGUP: OnceLock<io::Result<Option<Taken>>> = OnceLock::new();

/// SIGHUP with our action, unless it is ignored, or the system has none.
fn taken_hangup() -> io::Result<Option<&'static Taken>> {
    #[cfg(unix)]
    let taken = HANGUP.get_or_init(|| match Before::of(SIGHUP) {
        Before::Ignored => Ok(None),
        before => take(SIGHUP, before == Before::Default).map(Some),
    });
    #[cfg(not(unix))]
    let taken = HANGUP.get_or_init(|| Ok(None));
    match taken {
        Ok(taken) => Ok(taken.as_ref()),
        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
    }
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
