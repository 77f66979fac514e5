//! What depends on the operating system, each a plain function with a way for every system.

use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// Writes what the kernel takes at once, without blocking; [`io::ErrorKind::WouldBlock`] when it takes nothing.
///
/// `MSG_DONTWAIT` concerns this call alone, where `O_NONBLOCK` would change the reader's clone of the socket too.
/// Systems without it always say `WouldBlock`, so that the caller falls back on [`send_within`].
pub(crate) fn send_now(stream: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    #[cfg(unix)]
    {
        use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let sent = match slices {
            [one] => send(stream, one, flags),
            many => sendmsg(stream, many, &mut SendAncillaryBuffer::default(), flags),
        };
        Ok(sent?)
    }
    #[cfg(not(unix))]
    {
        let _ = (stream, slices);
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// Writes some of `slices`, waiting up to `timeout` for the peer to take anything at all.
///
/// # Errors
///
/// [`io::ErrorKind::TimedOut`] when it took nothing.
pub(crate) fn send_within(
    stream: &TcpStream,
    slices: &[IoSlice<'_>],
    timeout: Duration,
) -> io::Result<usize> {
    #[cfg(unix)]
    {
        wait_writable(stream, timeout)?;
        send_now(stream, slices)
    }
    #[cfg(not(unix))]
    {
        use std::io::Write;
        stream.set_write_timeout(Some(timeout))?;
        (&*stream).write_vectored(slices).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
            _ => error,
        })
    }
}

#[cfg(unix)]
fn wait_writable(stream: &TcpStream, timeout: Duration) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec::try_from(timeout).ok();
    match poll(&mut [PollFd::new(stream, PollFlags::OUT)], timeout.as_ref())? {
        0 => Err(io::ErrorKind::TimedOut.into()),
        _ => Ok(()),
    }
}

/// Appends one read to `buffer`, at most its spare capacity, without zeroing it first. `Ok(0)` is the end.
pub(crate) fn read_spare(stream: &TcpStream, buffer: &mut Vec<u8>) -> io::Result<usize> {
    debug_assert!(buffer.capacity() > buffer.len(), "a read needs room");
    #[cfg(unix)]
    {
        use rustix::net::{RecvFlags, recv};
        let (_, read) = recv(stream, rustix::buffer::spare_capacity(buffer), RecvFlags::empty())?;
        Ok(read)
    }
    #[cfg(not(unix))]
    {
        use std::io::Read;
        let filled = buffer.len();
        buffer.resize(buffer.capacity(), 0);
        let read = (&*stream).read(&mut buffer[filled..]);
        buffer.truncate(filled + *read.as_ref().unwrap_or(&0));
        read
    }
}

/// Lengthens the queue of connections that wait for `accept`: std asks for 128, which a burst overflows.
pub(crate) fn lengthen_backlog(listener: &TcpListener, backlog: u32) -> io::Result<()> {
    #[cfg(unix)]
    rustix::net::listen(listener, i32::try_from(backlog).unwrap_or(i32::MAX))?;
    #[cfg(not(unix))]
    let _ = (listener, backlog);
    Ok(())
}

/// Ends a blocked `accept` of another thread.
pub(crate) fn wake_accept(listener: &TcpListener, address: SocketAddr) {
    #[cfg(target_os = "linux")]
    if rustix::net::shutdown(listener, rustix::net::Shutdown::Both).is_ok() {
        return;
    }
    let _ = listener;
    // Elsewhere a listener cannot be shut down; a connection of our own wakes the accept instead.
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    if let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

/// Whether `error` says that descriptors or memory have run out, which passes when connections end.
pub(crate) fn is_exhaustion(error: &io::Error) -> bool {
    #[cfg(unix)]
    {
        use rustix::io::Errno;
        let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
        Errno::from_io_error(error).is_some_and(|errno| exhausted.contains(&errno))
    }
    #[cfg(not(unix))]
    {
        // WSAEMFILE and WSAENOBUFS
        matches!(error.raw_os_error(), Some(10024 | 10055))
    }
}

/// Raises the soft limit of open descriptors to the hard one: each connection needs one, and shells give 1,024.
pub(crate) fn raise_descriptor_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            log::debug!("the limit of open descriptors stays as it is: {error}");
        }
    }
}

/// SIGINT and SIGTERM, held back from their default action while this value lives.
#[derive(Debug)]
pub(crate) struct TerminationSignals {
    inner: imp::Signals,
}

impl TerminationSignals {
    /// Starts to listen.
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self { inner: imp::Signals::listen()? })
    }

    /// Blocks until one of the signals arrives; its name.
    pub(crate) fn wait(&mut self) -> &'static str {
        self.inner.wait()
    }

    /// From now on the next signal has its default action again: it ends the process.
    pub(crate) fn restore_default(&self) {
        imp::restore_default();
    }
}

impl Drop for TerminationSignals {
    fn drop(&mut self) {
        imp::restore_default();
    }
}

#[cfg(unix)]
mod imp {
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, OnceLock};

    use signal_hook::consts::{SIGINT, SIGTERM};
    use signal_hook::flag::register_conditional_default;

    /// Whether the signals have their default action: signal-hook never gives a signal back to the system.
    fn default_action() -> io::Result<&'static Arc<AtomicBool>> {
        static DEFAULT: OnceLock<Arc<AtomicBool>> = OnceLock::new();
        if let Some(flag) = DEFAULT.get() {
            return Ok(flag);
        }
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            register_conditional_default(signal, Arc::clone(&flag))?;
        }
        Ok(DEFAULT.get_or_init(|| flag))
    }

    #[derive(Debug)]
    pub(super) struct Signals(signal_hook::iterator::Signals);

    impl Signals {
        pub(super) fn listen() -> io::Result<Self> {
            default_action()?.store(false, Ordering::SeqCst);
            Ok(Self(signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?))
        }

        pub(super) fn wait(&mut self) -> &'static str {
            match self.0.forever().next() {
                Some(SIGINT) => "SIGINT",
                _ => "SIGTERM",
            }
        }
    }

    pub(super) fn restore_default() {
        if let Ok(flag) = default_action() {
            flag.store(true, Ordering::SeqCst);
        }
    }
}

#[cfg(not(unix))]
mod imp {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use signal_hook::consts::{SIGINT, SIGTERM};

    #[derive(Debug)]
    pub(super) struct Signals(Arc<AtomicBool>);

    impl Signals {
        pub(super) fn listen() -> io::Result<Self> {
            let raised = Arc::new(AtomicBool::new(false));
            for signal in [SIGINT, SIGTERM] {
                signal_hook::flag::register(signal, Arc::clone(&raised))?;
            }
            Ok(Self(raised))
        }

        pub(super) fn wait(&mut self) -> &'static str {
            while !self.0.swap(false, Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(100));
            }
            "SIGINT or SIGTERM"
        }
    }

    pub(super) fn restore_default() {
        for signal in [SIGINT, SIGTERM] {
            let always = Arc::new(AtomicBool::new(true));
            if let Err(error) = signal_hook::flag::register_conditional_shutdown(signal, 1, always)
            {
                log::debug!("the default action of a signal stays off: {error}");
            }
        }
    }
}
