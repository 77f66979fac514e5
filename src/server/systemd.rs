//! Where systemd has started the program: what it is told of a server, and the sockets that it has passed on.

use std::env;
#[cfg(unix)]
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
#[cfg(unix)]
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::base::contained::contained;
use crate::base::shown::Shown;
#[cfg(all(unix, feature = "systemd"))]
use crate::net::listener::Listener;

/// No unit has so many sockets.
#[cfg(all(unix, feature = "systemd"))]
const MOST_PASSED: usize = 4096;

/// What is told that a server is ready, is alive, and stops: the protocol of `sd_notify(3)`.
#[derive(Debug)]
pub(crate) struct Manager {
    #[cfg(unix)]
    socket: UnixDatagram,
    #[cfg(unix)]
    address: SocketAddr,
    /// Whether the last time failed: the log does not say so again.
    #[cfg(unix)]
    is_unheard: AtomicBool,
    /// Within what time it wants to hear that the program is alive, if it does.
    pub(crate) watchdog: Option<Duration>,
}

impl Manager {
    /// The one that the environment names, if it does.
    #[cfg(unix)]
    pub(crate) fn from_env() -> Option<Self> {
        let path = env::var_os("NOTIFY_SOCKET")?;
        let socket = address_of(&path).and_then(|address| {
            let socket = UnixDatagram::unbound()?;
            // It is told in passing, by threads that have better things to do than to wait for it.
            socket.set_nonblocking(true)?;
            Ok((socket, address))
        });
        match socket {
            Ok((socket, address)) => {
                let is_unheard = AtomicBool::new(false);
                Some(Self { socket, address, is_unheard, watchdog: watchdog() })
            }
            Err(error) => {
                let path = Shown::value(path.display());
                contained(|| {
                    log::warn!(
                        target: "rwf::server",
                        "systemd is not told anything socket={path}: {error}"
                    );
                });
                None
            }
        }
    }

    #[cfg(not(unix))]
    pub(crate) fn from_env() -> Option<Self> {
        None
    }

    /// Tells it `state`, lines of `NAME=value`. It is worth a line in the log if that fails, and no more.
    pub(crate) fn tell(&self, state: &str) {
        #[cfg(unix)]
        let sent = self.socket.send_to_addr(state.as_bytes(), &self.address);
        #[cfg(unix)]
        let was_unheard = self.is_unheard.swap(sent.is_err(), Ordering::Relaxed);
        #[cfg(unix)]
        if let Err(error) = sent
            && !was_unheard
        {
            let state = Shown::value(state.lines().next().unwrap_or_default());
            contained(|| {
                log::warn!(
                    target: "rwf::server",
                    "systemd was not told state={state}: {error}"
                );
            });
        }
        #[cfg(not(unix))]
        let _ = state;
    }
}

/// A path, or `@` and a name that is not in the file system.
#[cfg(unix)]
fn address_of(path: &std::ffi::OsStr) -> std::io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::ffi::OsStrExt;
        if let Some(name) = path.as_bytes().strip_prefix(b"@") {
            return SocketAddr::from_abstract_name(name);
        }
    }
    SocketAddr::from_pathname(path)
}

fn watchdog() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(process::id())) {
        // It means the process that has started this one.
        return None;
    }
    number("WATCHDOG_USEC").filter(|micros| *micros > 0).map(Duration::from_micros)
}

/// The sockets that were passed on to this process (`sd_listen_fds(3)`), in order: all at the first call, and none at
/// later ones.
///
/// # Errors
///
/// One of them is nothing that connections come from.
#[cfg(all(unix, feature = "systemd"))]
pub(crate) fn passed_sockets() -> std::io::Result<Vec<Listener>> {
    use std::io;
    let is_meant = env::var("LISTEN_PID").is_ok_and(|pid| pid.parse() == Ok(process::id()));
    if !is_meant {
        return Ok(Vec::new());
    }
    let told = env::var("LISTEN_FDS").unwrap_or_default();
    if told.parse::<usize>().ok().is_none_or(|count| count > MOST_PASSED) {
        let told = Shown::value(&told);
        let what = format!("LISTEN_FDS has to be a number up to {MOST_PASSED}, and is {told:?}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let mut passed = listenfd::ListenFd::from_env();
    let count = passed.len();
    let take = |at| -> io::Result<Listener> {
        let listener = match passed.take_unix_listener(at) {
            Ok(Some(listener)) => Listener::from(listener),
            _ => match passed.take_tcp_listener(at)? {
                Some(listener) => Listener::from(listener),
                None => return Err(io::ErrorKind::NotFound.into()),
            },
        };
        if listener.is_listening()? {
            Ok(listener)
        } else {
            let what = "it does not listen; the socket unit needs `Accept=no`";
            Err(io::Error::new(io::ErrorKind::InvalidInput, what))
        }
    };
    let what = |at, error: io::Error| {
        io::Error::new(
            error.kind(),
            format!("socket {at} of LISTEN_FDS is no TCP or Unix listener: {error}"),
        )
    };
    (0..count)
        .map(take)
        .enumerate()
        .map(|(at, taken)| taken.map_err(|error| what(at, error)))
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_os = "linux")]
    fn a_manager_listens_at_a_path_or_at_a_name() {
        use super::address_of;
        use std::ffi::OsStr;
        use std::os::linux::net::SocketAddrExt;
        use std::path::Path;

        let path = address_of(OsStr::new("/run/systemd/notify")).unwrap();
        assert_eq!(path.as_pathname(), Some(Path::new("/run/systemd/notify")));
        let name = address_of(OsStr::new("@/org/freedesktop/systemd1/notify")).unwrap();
        assert_eq!(name.as_abstract_name(), Some(&b"/org/freedesktop/systemd1/notify"[..]));
        assert!(address_of(OsStr::new(&"x".repeat(200))).is_err());
    }
}
