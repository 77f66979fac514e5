//! SIGINT and SIGTERM: they end a server in good order instead of ending the process.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};

/// The two signals, held back from their default action while this value lives.
#[derive(Debug)]
pub(crate) struct TerminationSignals {
    #[cfg(unix)]
    arrived: signal_hook::iterator::Signals,
    #[cfg(not(unix))]
    arrived: Arc<AtomicBool>,
}

impl TerminationSignals {
    /// Starts to listen.
    pub(crate) fn listen() -> io::Result<Self> {
        have_default_action()?.store(false, Ordering::SeqCst);
        #[cfg(unix)]
        let arrived = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
        #[cfg(not(unix))]
        let arrived = {
            let arrived = Arc::new(AtomicBool::new(false));
            for signal in [SIGINT, SIGTERM] {
                signal_hook::flag::register(signal, Arc::clone(&arrived))?;
            }
            arrived
        };
        Ok(Self { arrived })
    }

    /// Blocks until one of the signals arrives; its name.
    #[cfg(unix)]
    pub(crate) fn wait(&mut self) -> &'static str {
        match self.arrived.forever().next() {
            Some(SIGINT) => "SIGINT",
            _ => "SIGTERM",
        }
    }

    /// Blocks until one of the signals arrives.
    #[cfg(not(unix))]
    pub(crate) fn wait(&mut self) -> &'static str {
        // There is no signal to wait for without a loop here.
        while !self.arrived.swap(false, Ordering::SeqCst) {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        "SIGINT or SIGTERM"
    }

    /// From now on the next signal has its default action again: it ends the process.
    pub(crate) fn restore_default(&self) {
        if let Ok(flag) = have_default_action() {
            flag.store(true, Ordering::SeqCst);
        }
    }
}

impl Drop for TerminationSignals {
    fn drop(&mut self) {
        self.restore_default();
    }
}

/// Whether the signals have their default action. signal-hook never gives a signal back to the system, so the action is
/// emulated where this flag is set.
fn have_default_action() -> io::Result<&'static Arc<AtomicBool>> {
    static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    if let Some(flag) = FLAG.get() {
        return Ok(flag);
    }
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        #[cfg(unix)]
        signal_hook::flag::register_conditional_default(signal, Arc::clone(&flag))?;
        #[cfg(not(unix))]
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&flag))?;
    }
    Ok(FLAG.get_or_init(|| flag))
}
