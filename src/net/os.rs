//! What depends on the operating system, each a plain function with a way for every system.

use std::fs::{File, Metadata};
use std::io::{self, IoSlice};
#[cfg(unix)]
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, SystemTime};

#[cfg(unix)]
use socket2::SockAddr;

#[cfg(unix)]
use crate::net::peer::PeerCredentials;
use crate::net::socket::Socket;

/// What system calls take: a descriptor, on systems that have them.
#[cfg(not(unix))]
pub(crate) trait AsFd {}

#[cfg(not(unix))]
impl<T> AsFd for T {}

/// Writes what the kernel takes at once, without blocking; [`io::ErrorKind::WouldBlock`] when it takes nothing.
///
/// `MSG_DONTWAIT` concerns this call alone, where `O_NONBLOCK` would concern the reader of the socket too.
/// Systems without it always say `WouldBlock`, and write with [`send_patiently`] and [`send_within`] alone.
pub(crate) fn send_now(stream: &impl AsFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
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
pub(crate) fn wait_writable(stream: &Socket, timeout: Duration) -> io::Result<()> {
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
pub(crate) fn send_patiently(stream: &Socket, slices: &[IoSlice<'_>]) -> io::Result<usize> {
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
/// that way. Linux does over TCP, until our own end of the stream is sent; others drop it, or answer it with a reset. Over
/// Unix sockets the peer's writes fail.
pub(crate) fn can_interrupt_reads(stream: &Socket) -> bool {
    cfg!(target_os = "linux") && matches!(stream, Socket::Tcp(_))
}

/// Writes some of `slices`, waiting up to `timeout` for the peer to take anything at all.
///
/// # Errors
///
/// [`io::ErrorKind::WouldBlock`] or [`io::ErrorKind::TimedOut`] when it took nothing.
pub(crate) fn send_within(
    stream: &Socket,
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
        let Socket::Tcp(stream) = stream;
        stream.set_write_timeout(Some(timeout.max(Duration::from_millis(1))))?;
        (&*stream).write_vectored(slices)
    }
}

/// Limits how many bytes wait in the kernel to be sent, beside those that are on their way.
pub(crate) fn limit_unsent(stream: &Socket, bytes: usize) -> io::Result<()> {
    use socket2::SockRef;
    match stream {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Socket::Tcp(stream) => {
            let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            SockRef::from(stream).set_tcp_notsent_lowat(bytes)
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        Socket::Tcp(stream) => SockRef::from(stream).set_send_buffer_size(bytes),
        #[cfg(unix)]
        Socket::Unix(stream) => {
            let stream = SockRef::from(stream);
            if bytes >= stream.send_buffer_size()? {
                return Ok(());
            }
            // Linux doubles what it is told.
            stream.set_send_buffer_size(if cfg!(target_os = "linux") { bytes / 2 } else { bytes })
        }
    }
}

/// Has the kernel give the connection up when the peer acknowledges nothing for `timeout`; `None` for its own timeout.
/// Reads and writes then fail with [`io::ErrorKind::ConnectionAborted`].
///
/// The peer's kernel takes a little now and then even when the peer reads nothing, because it enlarges its buffer: a
/// write that succeeds is no proof of a peer that reads. Over Unix sockets it is one, so this does nothing there: all that
/// the peer has not read is in the buffer of ours, whose size stays.
pub(crate) fn set_stall_timeout(stream: &Socket, timeout: Option<Duration>) {
    #[cfg(target_os = "linux")]
    if let Socket::Tcp(stream) = stream {
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
pub(crate) fn read_spare(stream: &Socket, buffer: &mut Vec<u8>) -> io::Result<usize> {
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
        let Socket::Tcp(stream) = stream;
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
pub(crate) fn read_now(stream: &Socket, buffer: &mut Vec<u8>) -> io::Result<usize> {
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
    stream: &Socket,
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

    /// Waits until `socket` can be read from or accepted from.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::Interrupted`] when the stop is told, or by a signal.
    #[cfg(unix)]
    pub(crate) fn wait_for(&self, socket: &impl AsFd) -> io::Result<()> {
        use rustix::event::{PollFd, PollFlags, poll};
        let mut waits =
            [PollFd::new(socket, PollFlags::IN), PollFd::new(&self.told, PollFlags::IN)];
        poll(&mut waits, None)?;
        if !waits[1].revents().is_empty() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(())
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
    stream: &Socket,
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
pub(crate) fn interrupt_read(stream: &Socket) {
    #[cfg(not(unix))]
    let _ = stream.shutdown(std::net::Shutdown::Read);
    #[cfg(unix)]
    let _ = stream;
}

/// Who is at the other end of a Unix socket, where the system tells.
#[cfg(unix)]
pub(crate) fn credentials(stream: &std::os::unix::net::UnixStream) -> Option<PeerCredentials> {
    #[cfg(target_os = "linux")]
    {
        let told = rustix::net::sockopt::socket_peercred(stream).ok()?;
        Some(PeerCredentials {
            pid: told.pid.as_raw_nonzero().get().unsigned_abs(),
            uid: told.uid.as_raw(),
            gid: told.gid.as_raw(),
        })
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = stream;
        None
    }
}

/// An address that leads to the Unix socket at `address` as long as the descriptor is open, also when its file has been
/// removed or another one has its place. Linux has that, where there is `/proc`.
#[cfg(unix)]
pub(crate) fn lasting_address(address: &SockAddr) -> Option<(OwnedFd, SockAddr)> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{Mode, OFlags, open};
        use std::os::fd::AsRawFd;
        use std::os::unix::fs::FileTypeExt;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let file = open(address.as_pathname()?, flags, Mode::empty()).ok()?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let leads_there = std::fs::metadata(&path).is_ok_and(|found| found.file_type().is_socket());
        Some((file, SockAddr::unix(path).ok()?)).filter(|_| leads_there)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = address;
        None
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

/// Reads what stands in the file from `offset` on, whoever else reads it; `Ok(0)` is its end.
pub(crate) fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileExt::read_at(file, buffer, offset)
    }
    #[cfg(windows)]
    {
        std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
    }
    #[cfg(not(any(unix, windows)))]
    {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = file;
        file.seek(SeekFrom::Start(offset))?;
        file.read(buffer)
    }
}

/// When a file's content or anything else about it changed, by the system's own note, which programs cannot set; where
/// there is none, when it was modified.
pub(crate) fn last_change(metadata: &Metadata) -> Option<SystemTime> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let seconds = Duration::from_secs(u64::try_from(metadata.ctime()).ok()?);
        let nanos = Duration::from_nanos(u64::try_from(metadata.ctime_nsec()).ok()?);
        SystemTime::UNIX_EPOCH.checked_add(seconds)?.checked_add(nanos)
    }
    #[cfg(not(unix))]
    {
        metadata.modified().ok()
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
