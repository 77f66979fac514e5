//! What depends on the operating system, each a plain function with a way for every system.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// How long to try to wake a blocked `accept`.
const WAKE_TIME: Duration = Duration::from_secs(5);
/// The longest pause between two attempts to wake it.
const MAX_WAKE_PAUSE: Duration = Duration::from_millis(100);

/// Writes what the kernel takes at once, without blocking; [`io::ErrorKind::WouldBlock`] when it takes nothing.
///
/// `MSG_DONTWAIT` concerns this call alone, where `O_NONBLOCK` would concern the reader of the socket too.
/// Systems without it always say `WouldBlock`, and write with [`send_patiently`] and [`send_within`] alone.
pub(crate) fn send_now(stream: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    #[cfg(unix)]
    {
        use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};
        let flags = SendFlags::DONTWAIT;
        // Elsewhere std's start-up code alone keeps SIGPIPE away.
        #[cfg(not(target_vendor = "apple"))]
        let flags = flags | SendFlags::NOSIGNAL;
        let sent = match slices {
            [one] => send(stream, one, flags),
            many => sendmsg(stream, many, &mut SendAncillaryBuffer::default(), flags),
        };
        sent.map_err(given_up)
    }
    #[cfg(not(unix))]
    {
        let _ = (stream, slices);
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// Waits up to `timeout` for the peer to take something; the next write finds out whether it does. Systems without
/// [`send_now`] return at once, and wait in [`send_patiently`].
///
/// Linux calls a socket writable when a third of its send buffer is free, megabytes perhaps, so a client that reads
/// slowly but steadily may be writable long before this says so.
pub(crate) fn wait_writable(stream: &TcpStream, timeout: Duration) -> io::Result<()> {
    #[cfg(unix)]
    {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let timeout = Timespec::try_from(timeout).ok();
        poll(&mut [PollFd::new(stream, PollFlags::OUT)], timeout.as_ref())?;
    }
    #[cfg(not(unix))]
    let _ = (stream, timeout);
    Ok(())
}

/// [`send_now`], or on systems without it a write that waits for the peer for a moment.
///
/// # Errors
///
/// [`io::ErrorKind::WouldBlock`] or [`io::ErrorKind::TimedOut`] when the peer took nothing.
pub(crate) fn send_patiently(stream: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    #[cfg(unix)]
    {
        send_now(stream, slices)
    }
    #[cfg(not(unix))]
    {
        send_within(stream, slices, Duration::from_millis(10))
    }
}

/// Whether a socket whose reading was shut down still takes what the peer sends, so that a read that waits can be ended
/// that way. Linux does, until our own end of the stream is sent; others drop it, or answer it with a reset.
pub(crate) const CAN_INTERRUPT_READS: bool = cfg!(target_os = "linux");

/// Writes some of `slices`, waiting up to `timeout` for the peer to take anything at all.
///
/// # Errors
///
/// [`io::ErrorKind::WouldBlock`] or [`io::ErrorKind::TimedOut`] when it took nothing.
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
        stream.set_write_timeout(Some(timeout.max(Duration::from_millis(1))))?;
        (&*stream).write_vectored(slices)
    }
}

/// Has the kernel give the connection up when the peer acknowledges nothing for `timeout`; `None` for its own timeout.
/// Reads and writes then fail with [`io::ErrorKind::ConnectionAborted`].
///
/// The peer's kernel takes a little now and then even when the peer reads nothing, because it enlarges its buffer: a
/// write that succeeds is no proof of a peer that reads.
pub(crate) fn set_stall_timeout(stream: &TcpStream, timeout: Option<Duration>) {
    #[cfg(target_os = "linux")]
    {
        let millis = timeout.map_or(0, |timeout| timeout.as_millis().max(1));
        let millis = u32::try_from(millis).unwrap_or(0);
        // It fails for a connection that has ended, which needs none.
        let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, millis);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, timeout);
}

/// Tells that the kernel has given the peer up from a timeout of ours, after which the write is tried again.
#[cfg(unix)]
fn given_up(error: rustix::io::Errno) -> io::Error {
    match error {
        rustix::io::Errno::TIMEDOUT => {
            io::Error::new(io::ErrorKind::ConnectionAborted, "the peer acknowledges nothing")
        }
        error => error.into(),
    }
}

/// Appends one read to `buffer`, at most its spare capacity, without zeroing it first. `Ok(0)` is the end.
pub(crate) fn read_spare(stream: &TcpStream, buffer: &mut Vec<u8>) -> io::Result<usize> {
    debug_assert!(buffer.capacity() > buffer.len(), "a read needs room");
    #[cfg(unix)]
    {
        receive(stream, buffer, rustix::net::RecvFlags::empty())
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

/// Appends what has arrived to `buffer` like [`read_spare`], without waiting for it.
///
/// # Errors
///
/// [`io::ErrorKind::WouldBlock`] when nothing has arrived; elsewhere than on Unix it waits a millisecond to find out.
pub(crate) fn read_now(stream: &TcpStream, buffer: &mut Vec<u8>) -> io::Result<usize> {
    #[cfg(unix)]
    {
        receive(stream, buffer, rustix::net::RecvFlags::DONTWAIT)
    }
    #[cfg(not(unix))]
    {
        stream.set_read_timeout(Some(Duration::from_millis(1)))?;
        read_spare(stream, buffer).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => io::ErrorKind::WouldBlock.into(),
            _ => error,
        })
    }
}

#[cfg(unix)]
fn receive(
    stream: &TcpStream,
    buffer: &mut Vec<u8>,
    flags: rustix::net::RecvFlags,
) -> io::Result<usize> {
    let spare = rustix::buffer::spare_capacity(buffer);
    rustix::net::recv(stream, spare, flags).map(|(_, read)| read).map_err(given_up)
}

/// Tells any number of threads that wait for their sockets to stop. Once it is told, their waits end, and later waits
/// end at once.
#[derive(Debug)]
pub(crate) struct Stop {
    #[cfg(unix)]
    pipe: io::PipeWriter,
    /// Readable for good once a byte was written, which nobody reads.
    #[cfg(unix)]
    told: io::PipeReader,
}

impl Stop {
    pub(crate) fn new() -> io::Result<Self> {
        #[cfg(unix)]
        {
            let (told, pipe) = io::pipe()?;
            Ok(Self { pipe, told })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    pub(crate) fn tell(&self) {
        #[cfg(unix)]
        {
            use std::io::Write;
            // It neither fails nor blocks: an empty pipe has room for a byte.
            let _ = (&self.pipe).write(&[0]);
        }
    }
}

/// Appends one read to `buffer` like [`read_spare`], waiting up to `timeout`, or until `stop` is told. The stream stays
/// whole: what arrives later can still be read.
///
/// # Errors
///
/// [`io::ErrorKind::TimedOut`] when nothing came, and [`io::ErrorKind::WouldBlock`] when nothing had come by the stop.
pub(crate) fn read_unless(
    stop: &Stop,
    stream: &TcpStream,
    buffer: &mut Vec<u8>,
    timeout: Duration,
) -> io::Result<usize> {
    #[cfg(unix)]
    {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        match read_now(stream, buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
        let mut waits =
            [PollFd::new(stream, PollFlags::IN), PollFd::new(&stop.told, PollFlags::IN)];
        if poll(&mut waits, Timespec::try_from(timeout).ok().as_ref())? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let was_told = !waits[1].revents().is_empty();
        match read_now(stream, buffer) {
            // `poll` may report bytes that are not there.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !was_told => {
                Err(io::ErrorKind::Interrupted.into())
            }
            result => result,
        }
    }
    #[cfg(not(unix))]
    {
        let _ = stop;
        stream.set_read_timeout(Some(timeout.max(Duration::from_millis(1))))?;
        read_spare(stream, buffer)
    }
}

/// Ends a waiting [`read_unless`] on systems where that cannot wait for a [`Stop`], by ending the stream's reading.
pub(crate) fn interrupt_read(stream: &TcpStream) {
    #[cfg(not(unix))]
    let _ = stream.shutdown(std::net::Shutdown::Read);
    #[cfg(unix)]
    let _ = stream;
}

/// Lengthens the queue of connections that wait for `accept`: std asks for 128, which a burst overflows.
pub(crate) fn lengthen_backlog(listener: &TcpListener, backlog: u32) -> io::Result<()> {
    #[cfg(unix)]
    rustix::net::listen(listener, i32::try_from(backlog).unwrap_or(i32::MAX))?;
    #[cfg(not(unix))]
    let _ = (listener, backlog);
    Ok(())
}

/// A listener whose `accept` ends at a stop.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: TcpListener,
    /// Dropped after the listener: so the [`AcceptWaker`] learns that it is closed.
    _running: Sender<()>,
}

/// Wakes an [`Acceptor`] that is blocked in `accept`, where it does not see a stop.
#[derive(Debug)]
pub(crate) struct AcceptWaker {
    /// Where to connect to, so that `accept` returns; `None` if it never blocks.
    address: Option<SocketAddr>,
    ended: Receiver<()>,
}

impl Acceptor {
    /// `is_given` says that the program brought the listener. Others may hold it too and share its flags, which are
    /// therefore left alone.
    pub(crate) fn new(listener: TcpListener, is_given: bool) -> io::Result<(Self, AcceptWaker)> {
        let may_block = is_given || cfg!(not(unix));
        let address = if may_block {
            Some(listener.local_addr()?)
        } else {
            // A client may leave between the wait and the `accept`, which would block then.
            listener.set_nonblocking(true)?;
            None
        };
        let (running, ended) = channel();
        Ok((Self { listener, _running: running }, AcceptWaker { address, ended }))
    }

    /// Waits for the next connection. Once `stop` was told it returns too, with a connection or an error, whichever.
    pub(crate) fn accept(&self, stop: &Stop) -> io::Result<(TcpStream, SocketAddr)> {
        #[cfg(unix)]
        {
            use rustix::event::{PollFd, PollFlags, poll};
            let readable = PollFlags::IN;
            let mut waits =
                [PollFd::new(&self.listener, readable), PollFd::new(&stop.told, readable)];
            poll(&mut waits, None)?;
            if !waits[1].revents().is_empty() {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
        #[cfg(not(unix))]
        let _ = stop;
        // Several servers may wait for a shared listener. A connection wakes all of them and one gets it. The others,
        // if the listener blocks, wait here for the next one.
        self.listener.accept()
    }
}

impl AcceptWaker {
    /// Wakes a blocked `accept` of a server that was told to stop; whether it will not be blocked any more.
    pub(crate) fn wake(&self) -> bool {
        let Some(mut address) = self.address else {
            return true;
        };
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        let began = Instant::now();
        let mut pause = Duration::from_millis(1);
        while self.ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            if began.elapsed() >= WAKE_TIME {
                return false;
            }
            // `accept` returns with this connection, unless another server that shares the listener takes it.
            let _ = TcpStream::connect_timeout(&address, MAX_WAKE_PAUSE);
            pause = (2 * pause).min(MAX_WAKE_PAUSE);
        }
        true
    }
}

/// Raises the soft limit of open descriptors to the hard one: each connection needs a descriptor, and the soft limit is
/// usually 1,024.
pub(crate) fn raise_descriptor_limit() -> io::Result<()> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit)?;
    }
    Ok(())
}

/// Names the calling thread for `top -H` and debuggers, which show the first 15 bytes.
pub(crate) fn name_thread(name: &str) {
    #[cfg(target_os = "linux")]
    if let Ok(name) = std::ffi::CString::new(name) {
        let _ = rustix::thread::set_name(&name);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = name;
}
