//! What depends on the operating system, each a plain function with a way for every system.

use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

#[cfg(unix)]
use parking_lot::Mutex;

/// Writes what the kernel takes at once, without blocking; [`io::ErrorKind::WouldBlock`] when it takes nothing.
///
/// `MSG_DONTWAIT` concerns this call alone, where `O_NONBLOCK` would concern the reader of the socket too.
/// Systems without it always say `WouldBlock`, so that the caller falls back on [`send_within`].
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

/// Waits up to `timeout` for the peer to take something; whether or not it does is for the next write to find out.
///
/// Linux calls a socket writable when a third of its send buffer is free, megabytes perhaps, so a client that reads
/// slowly but steadily may be writable long before this says so.
#[cfg(unix)]
pub(crate) fn wait_writable(stream: &TcpStream, timeout: Duration) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let timeout = Timespec::try_from(timeout).ok();
    poll(&mut [PollFd::new(stream, PollFlags::OUT)], timeout.as_ref())?;
    Ok(())
}

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

/// Has the kernel give the connection up when the peer acknowledges nothing for `timeout`; `None` for its own patience.
/// Reads and writes then fail with [`io::ErrorKind::ConnectionAborted`].
///
/// A kernel that a client takes nothing from still takes a little from us now and then, as it enlarges its buffer, so
/// writes that succeed are no proof of a client that reads.
pub(crate) fn set_stall_timeout(stream: &TcpStream, timeout: Option<Duration>) {
    #[cfg(target_os = "linux")]
    {
        let millis = timeout.map_or(0, |timeout| timeout.as_millis().max(1));
        let millis = u32::try_from(millis).unwrap_or(0);
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, millis) {
            log::debug!("no stall timeout: {error}");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (stream, timeout);
}

/// That the kernel gave the peer up is no timeout of ours, which would be tried again.
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

#[cfg(unix)]
fn receive(
    stream: &TcpStream,
    buffer: &mut Vec<u8>,
    flags: rustix::net::RecvFlags,
) -> io::Result<usize> {
    let spare = rustix::buffer::spare_capacity(buffer);
    rustix::net::recv(stream, spare, flags).map(|(_, read)| read).map_err(given_up)
}

/// What any number of threads wait for beside their sockets: told once, it ends all these waits and those to come.
#[derive(Debug)]
pub(crate) struct Stop {
    /// Closed to tell: the other end then is readable for good.
    #[cfg(unix)]
    pipe: Mutex<Option<io::PipeWriter>>,
    #[cfg(unix)]
    told: io::PipeReader,
}

impl Stop {
    pub(crate) fn new() -> io::Result<Self> {
        #[cfg(unix)]
        {
            let (told, pipe) = io::pipe()?;
            Ok(Self { pipe: Mutex::new(Some(pipe)), told })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    pub(crate) fn tell(&self) {
        #[cfg(unix)]
        {
            let pipe = self.pipe.lock().take();
            drop(pipe);
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
        use rustix::net::RecvFlags;
        match receive(stream, buffer, RecvFlags::DONTWAIT) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
        let mut waits =
            [PollFd::new(stream, PollFlags::IN), PollFd::new(&stop.told, PollFlags::IN)];
        if poll(&mut waits, Timespec::try_from(timeout).ok().as_ref())? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let was_told = !waits[1].revents().is_empty();
        match receive(stream, buffer, RecvFlags::DONTWAIT) {
            // A wait may end for nothing.
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

/// Ends a [`read_unless`] where that cannot wait for a stop: the stream has no more to read then.
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

/// A listener whose `accept` another thread can end.
///
/// The listener itself is left alone for that: it may be shared with other processes, which go on with it.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: TcpListener,
    #[cfg(unix)]
    woken: io::PipeReader,
}

/// Ends the [`Acceptor`]'s wait when it is dropped.
#[derive(Debug)]
pub(crate) struct AcceptWaker {
    #[cfg(unix)]
    _pipe: io::PipeWriter,
    #[cfg(not(unix))]
    address: SocketAddr,
}

impl Acceptor {
    pub(crate) fn new(listener: TcpListener) -> io::Result<(Self, AcceptWaker)> {
        #[cfg(unix)]
        {
            let (woken, pipe) = io::pipe()?;
            // Of several that wait for a shared listener all are told of a connection, and one gets it.
            listener.set_nonblocking(true)?;
            Ok((Self { listener, woken }, AcceptWaker { _pipe: pipe }))
        }
        #[cfg(not(unix))]
        {
            let address = listener.local_addr()?;
            Ok((Self { listener }, AcceptWaker { address }))
        }
    }

    /// The next connection. Anything may come out when the waker was dropped.
    pub(crate) fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        #[cfg(unix)]
        {
            use rustix::event::{PollFd, PollFlags, poll};
            let readable = PollFlags::IN;
            let mut waits =
                [PollFd::new(&self.listener, readable), PollFd::new(&self.woken, readable)];
            poll(&mut waits, None)?;
            if !waits[1].revents().is_empty() {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
        self.listener.accept()
    }
}

#[cfg(not(unix))]
impl Drop for AcceptWaker {
    fn drop(&mut self) {
        // A connection of our own ends the wait.
        if self.address.ip().is_unspecified() {
            self.address.set_ip(match self.address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
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

/// Names the calling thread for `top -H` and debuggers, which show the first 15 bytes.
pub(crate) fn name_thread(name: &str) {
    #[cfg(target_os = "linux")]
    if let Ok(name) = std::ffi::CString::new(name) {
        let _ = rustix::thread::set_name(&name);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = name;
}
