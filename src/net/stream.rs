//! Bytes in, bytes out: the one place that touches a connection's socket, through TLS where the connection has it.

#[cfg(feature = "tls")]
use std::cell::LazyCell;
use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
use std::io::{self, IoSlice};
use std::mem;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::base::deadline;
use crate::net::os::{self, Stop};
use crate::net::socket::Socket;
#[cfg(feature = "tls")]
use crate::net::tls::{Stage, Tls};

/// A connected socket: one thread reads, and whoever holds the write half writes.
#[derive(Debug)]
pub(crate) struct Stream {
    stream: Socket,
    #[cfg(feature = "tls")]
    tls: Option<Box<Tls>>,
    /// What somebody has read of the socket before, and not this stream yet: reads take it first. Few connections have any.
    read_before: Option<Box<Mutex<Bytes>>>,
    /// The read timeout that is set, in microseconds, so that it costs a system call only when it changes.
    read_timeout: AtomicU64,
    was_cut: AtomicBool,
    read_is_interrupted: AtomicBool,
}

impl Stream {
    pub(crate) fn new(stream: impl Into<Socket>, no_delay: bool) -> io::Result<Self> {
        let stream = stream.into();
        stream.set_nonblocking(false)?;
        stream.set_no_delay(no_delay)?;
        Ok(Self {
            stream,
            #[cfg(feature = "tls")]
            tls: None,
            read_before: None,
            read_timeout: AtomicU64::new(0),
            was_cut: AtomicBool::new(false),
            read_is_interrupted: AtomicBool::new(false),
        })
    }

    /// The same with TLS, of which the handshake comes with the first reads.
    #[cfg(feature = "tls")]
    pub(crate) fn with_tls(self, tls: Tls) -> Self {
        Self { tls: Some(Box::new(tls)), ..self }
    }

    /// The same as if `bytes`, which somebody has read of the socket, could be read still.
    pub(crate) fn with_read_before(self, bytes: Vec<u8>) -> Self {
        let read_before = (!bytes.is_empty()).then(|| Box::new(Mutex::new(bytes.into())));
        Self { read_before, ..self }
    }

    /// The TLS that the connection has.
    #[cfg(feature = "tls")]
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_deref()
    }

    /// Whether it has. No client that does not speak TLS has come further than its request.
    pub(crate) fn has_tls(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        return false;
    }

    /// Whether the client speaks TLS.
    pub(crate) fn is_secure(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls().is_some_and(|tls| tls.stage() != Stage::Bypassed);
        #[cfg(not(feature = "tls"))]
        return false;
    }

    /// Limits how many bytes wait in the system to be sent, beside those that are on their way.
    pub(crate) fn limit_unsent(&self, bytes: usize) {
        // Without that option the system's own measure stays.
        let _ = os::limit_unsent(&self.stream, bytes);
    }

    /// Appends one read to `buffer`, at most its spare capacity. `Ok(0)` is the end of the stream.
    ///
    /// # Errors
    ///
    /// [`TimedOut`] when nothing came for `timeout`, [`Interrupted`] when something came of which nothing can be read yet:
    /// a part of a TLS record.
    #[inline]
    pub(crate) fn read(&self, buffer: &mut Vec<u8>, timeout: Duration) -> io::Result<usize> {
        self.limit_reads(timeout)?;
        self.receive(buffer, timeout, |socket, buffer| {
            uninterrupted(|| os::read_spare(socket, buffer)).map_err(timed_out)
        })
    }

    #[inline]
    fn limit_reads(&self, timeout: Duration) -> io::Result<()> {
        let micros = timeout.as_secs().saturating_mul(1_000_000);
        let micros = micros.saturating_add(timeout.subsec_micros().into()).max(1000);
        if self.read_timeout.load(Ordering::Relaxed) != micros {
            self.set_read_timeout(micros)?;
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn set_read_timeout(&self, micros: u64) -> io::Result<()> {
        self.stream.set_read_timeout(Some(Duration::from_micros(micros)))?;
        self.read_timeout.store(micros, Ordering::Relaxed);
        Ok(())
    }

    /// Appends what has arrived to `buffer`, like [`read`](Self::read), without waiting for it.
    ///
    /// # Errors
    ///
    /// [`TimedOut`] when nothing has, and [`Interrupted`] as with `read`.
    pub(crate) fn read_now(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        if cfg!(not(unix)) {
            // On these systems the call below sets a timeout of its own in place of the one that is noted.
            self.read_timeout.store(0, Ordering::Relaxed);
        }
        self.receive(buffer, Duration::ZERO, |socket, buffer| {
            uninterrupted(|| os::read_now(socket, buffer)).map_err(timed_out)
        })
    }

    /// Appends one read to `buffer`, like [`read`](Self::read), but waits no longer than until `stop` is told.
    ///
    /// # Errors
    ///
    /// [`TimedOut`] when nothing came for `timeout`, [`WouldBlock`] when nothing had come by the stop, and [`Interrupted`] as
    /// with `read`.
    pub(crate) fn read_unless(
        &self,
        stop: &Stop,
        buffer: &mut Vec<u8>,
        timeout: Duration,
    ) -> io::Result<usize> {
        let deadline = deadline::after(timeout);
        self.receive(buffer, timeout, |_, buffer| {
            self.read_socket_unless(stop, buffer, deadline::until(deadline))
        })
    }

    /// One read of what comes beneath TLS, such as the header of a proxy, and no longer than until `stop` is told if there is
    /// one.
    ///
    /// # Errors
    ///
    /// [`TimedOut`] when nothing came for `timeout`, [`WouldBlock`] when nothing had come by the stop.
    pub(crate) fn read_beneath_tls(
        &self,
        stop: Option<&Stop>,
        buffer: &mut Vec<u8>,
        timeout: Duration,
    ) -> io::Result<usize> {
        if let Some(count) = self.take_read_before(buffer) {
            return Ok(count);
        }
        let Some(stop) = stop else {
            self.limit_reads(timeout)?;
            return uninterrupted(|| os::read_spare(&self.stream, buffer)).map_err(timed_out);
        };
        self.read_socket_unless(stop, buffer, timeout)
    }

    fn read_socket_unless(
        &self,
        stop: &Stop,
        buffer: &mut Vec<u8>,
        timeout: Duration,
    ) -> io::Result<usize> {
        let deadline = deadline::after(timeout);
        if cfg!(not(unix)) {
            // On these systems the call below sets a timeout of its own in place of the one that is noted.
            self.read_timeout.store(0, Ordering::Relaxed);
        }
        uninterrupted(|| os::read_unless(stop, &self.stream, buffer, deadline::until(deadline)))
    }

    /// Appends what was read before, at most the spare capacity of `buffer`; `None` when nothing is left of it.
    fn take_read_before(&self, buffer: &mut Vec<u8>) -> Option<usize> {
        let mut bytes = self.read_before.as_ref()?.lock();
        let count = bytes.len().min(buffer.capacity() - buffer.len());
        buffer.extend_from_slice(&bytes.split_to(count));
        (count > 0).then_some(count)
    }

    /// One read of the socket, or of what was read of it before, through TLS if there is any.
    fn receive(
        &self,
        buffer: &mut Vec<u8>,
        timeout: Duration,
        read: impl FnOnce(&Socket, &mut Vec<u8>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let read = |buffer: &mut Vec<u8>| match self.take_read_before(buffer) {
            Some(count) => Ok(count),
            None => read(&self.stream, buffer),
        };
        #[cfg(feature = "tls")]
        if let Some(tls) = self.tls() {
            // Few reads look at the clock.
            let deadline = LazyCell::new(|| deadline::after(timeout));
            let send_flight = |slices: &[IoSlice<'_>]| {
                until_taken(deadline::until(*deadline), |wait| {
                    os::send_within(&self.stream, slices, wait)
                })
            };
            let send = |slices: &[IoSlice<'_>]| os::send_patiently(&self.stream, slices);
            return tls.read(buffer, read, send, send_flight);
        }
        #[cfg(not(feature = "tls"))]
        let _ = timeout;
        read(buffer)
    }

    /// Writes what the kernel takes at once; [`WouldBlock`] when it takes nothing. Less than everything is written where it
    /// takes no more; the rest comes with the next write, or none does.
    pub(crate) fn write_now(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send(slices, |socket, slices| uninterrupted(|| os::send_now(socket, slices)))
    }

    /// Writes some of `slices`, waiting up to `timeout` for the peer to take anything.
    ///
    /// # Errors
    ///
    /// [`TimedOut`] when it took nothing.
    pub(crate) fn write_within(
        &self,
        slices: &[IoSlice<'_>],
        timeout: Duration,
    ) -> io::Result<usize> {
        until_taken(timeout, |wait| {
            self.send(slices, |socket, slices| os::send_within(socket, slices, wait))
        })
    }

    /// Writes what the kernel takes, for a thread that may wait for the peer: systems where
    /// [`wait_writable`](Self::wait_writable) does not wait do so here, for a moment.
    pub(crate) fn write_patiently(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.send(slices, os::send_patiently) {
            Err(error) if matches!(error.kind(), Interrupted | TimedOut) => Err(WouldBlock.into()),
            result => result,
        }
    }

    /// One write to the socket, or as many as it takes of what TLS makes of `slices`.
    fn send(
        &self,
        slices: &[IoSlice<'_>],
        write: impl Fn(&Socket, &[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        #[cfg(feature = "tls")]
        if let Some(tls) = self.tls() {
            return tls.write(slices, |slices| write(&self.stream, slices));
        }
        write(&self.stream, slices)
    }

    /// Waits up to `timeout` until the peer may take something again.
    pub(crate) fn wait_writable(&self, timeout: Duration) -> io::Result<()> {
        os::wait_writable(&self.stream, timeout)
    }

    /// Has the system give up a peer that acknowledges nothing of what is on its way to it; `None` restores the
    /// system's own timeout. It is set a quarter longer than `write_timeout`: a write of ours that waits for so long
    /// should notice first, because it can say what happened.
    pub(crate) fn set_stall_timeout(&self, write_timeout: Option<Duration>) {
        let timeout = write_timeout.map(|timeout| timeout.saturating_add(timeout / 4));
        os::set_stall_timeout(&self.stream, timeout);
    }

    #[cfg(all(test, target_os = "linux"))]
    pub(crate) fn has_stall_timeout(&self) -> bool {
        rustix::net::sockopt::tcp_user_timeout(&self.stream).is_ok_and(|millis| millis > 0)
    }

    /// Writes all of `parts`, one behind the other, waiting up to `timeout` each time that the peer takes nothing.
    pub(crate) fn write_all(&self, parts: [&[u8]; 2], timeout: Duration) -> io::Result<()> {
        let mut slices = parts.map(IoSlice::new);
        let mut rest = &mut slices[..];
        let mut has_waited = false;
        // Drops empty parts.
        IoSlice::advance_slices(&mut rest, 0);
        while !rest.is_empty() {
            let written = match self.write_now(rest) {
                Err(error) if error.kind() == WouldBlock => {
                    if !mem::replace(&mut has_waited, true) {
                        self.set_stall_timeout(Some(timeout));
                    }
                    self.write_within(rest, timeout)?
                }
                result => result?,
            };
            IoSlice::advance_slices(&mut rest, written);
        }
        if has_waited {
            self.set_stall_timeout(None);
        }
        Ok(())
    }

    /// Tells the peer that nothing more will come. What was written before still arrives.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`] when the goodbye of TLS finds no room: to be called again.
    pub(crate) fn finish_writing(&self) -> io::Result<()> {
        #[cfg(feature = "tls")]
        if let Some(tls) = self.tls() {
            match tls.finish(|slices| os::send_patiently(&self.stream, slices)) {
                Err(error) if matches!(error.kind(), Interrupted | TimedOut | WouldBlock) => {
                    return Err(WouldBlock.into());
                }
                // Whoever reads learns that the socket has failed.
                _ => {}
            }
        }
        let _ = self.stream.shutdown(Shutdown::Write);
        Ok(())
    }

    /// The same for a thread that may wait for the peer, up to `timeout`.
    pub(crate) fn finish_within(&self, timeout: Duration) {
        let deadline = deadline::after(timeout);
        while self.finish_writing().is_err() {
            let remaining = deadline::until(deadline);
            if remaining.is_zero() || self.wait_writable(remaining.min(timeout / 4)).is_err() {
                let _ = self.stream.shutdown(Shutdown::Write);
                return;
            }
        }
    }

    /// Ends a waiting [`read_unless`](Self::read_unless) on systems where telling the [`Stop`] does not.
    pub(crate) fn help_to_stop(&self) {
        os::interrupt_read(&self.stream);
    }

    /// Whether a read that waits can be ended without harm to what the peer still sends.
    pub(crate) fn can_interrupt_reads(&self) -> bool {
        os::can_interrupt_reads(&self.stream)
    }

    /// Ends a read that waits, on whichever thread. From now on a read does not wait: it takes what has arrived, or
    /// returns zero, which says nothing about the peer.
    pub(crate) fn interrupt_read(&self) {
        self.read_is_interrupted.store(true, Ordering::SeqCst);
        let _ = self.stream.shutdown(Shutdown::Read);
    }

    /// Whether [`interrupt_read`](Self::interrupt_read) was called.
    pub(crate) fn read_is_interrupted(&self) -> bool {
        self.read_is_interrupted.load(Ordering::SeqCst)
    }

    /// Ends both directions, waking whoever waits on them.
    pub(crate) fn cut(&self) {
        if !self.was_cut.swap(true, Ordering::SeqCst) {
            #[cfg(feature = "tls")]
            if let Some(tls) = self.tls() {
                tls.finish_at_once(|slices| os::send_now(&self.stream, slices));
            }
            let _ = self.stream.shutdown(Shutdown::Both);
        }
    }

    /// Whether [`cut`](Self::cut) was called.
    pub(crate) fn was_cut(&self) -> bool {
        self.was_cut.load(Ordering::SeqCst)
    }

    /// Whether the system has given the connection up, as after a reset: it does not know the peer's address any more.
    /// When the peer has only ended its stream, it does.
    pub(crate) fn is_broken(&self) -> bool {
        !self.stream.knows_peer()
    }

    /// Forgets what has arrived, without waiting for more.
    pub(crate) fn discard_arrived(&self) {
        let mut discarded = Vec::with_capacity(64 << 10);
        if self.stream.set_nonblocking(true).is_ok() {
            let _ = os::read_spare(&self.stream, &mut discarded);
        }
    }
}

/// Repeats a call of the system as long as a signal interrupts it.
#[inline]
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == Interrupted => {}
            result => return result,
        }
    }
}

/// Repeats a write, which is told how long it may wait, until the peer takes something of it, for up to `timeout`.
///
/// # Errors
///
/// [`TimedOut`] when it took nothing.
fn until_taken(
    timeout: Duration,
    mut write: impl FnMut(Duration) -> io::Result<usize>,
) -> io::Result<usize> {
    let deadline = deadline::after(timeout);
    loop {
        let remaining = deadline::until(deadline);
        // Tried several times, because a wait may overlook a little room: see `os::wait_writable`.
        match write(remaining.min(timeout / 4)) {
            Err(error) if matches!(error.kind(), Interrupted | WouldBlock | TimedOut) => {
                if remaining.is_zero() {
                    return Err(TimedOut.into());
                }
            }
            result => return result,
        }
    }
}

/// What the end of a wait is called here.
fn timed_out(error: io::Error) -> io::Error {
    if error.kind() == WouldBlock { TimedOut.into() } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (Stream, socket2::Socket) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Stream::new(listener.accept().unwrap().0, true).unwrap(), peer.into())
    }

    /// A stream of each kind with its peer.
    fn pairs() -> Vec<(Stream, socket2::Socket)> {
        vec![
            pair(),
            #[cfg(unix)]
            {
                let (socket, peer) = std::os::unix::net::UnixStream::pair().unwrap();
                (Stream::new(socket, true).unwrap(), peer.into())
            },
        ]
    }

    #[test]
    fn a_read_gives_up_after_its_timeout() {
        for (stream, _peer) in pairs() {
            let timeout = Duration::from_millis(5);
            let error = stream.read(&mut Vec::with_capacity(9), timeout).unwrap_err();
            assert_eq!(error.kind(), TimedOut);
        }
    }

    #[test]
    fn a_full_peer_blocks_no_write_now_and_times_out_a_write_within() {
        for (stream, mut peer) in pairs() {
            let chunk = vec![7; 1 << 20];
            let mut written = 0;
            let error = loop {
                match stream.write_now(&[IoSlice::new(&chunk)]) {
                    Ok(count) => written += count,
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), WouldBlock);
            let timeout = Duration::from_millis(5);
            let error = stream.write_within(&[IoSlice::new(&chunk)], timeout).unwrap_err();
            assert_eq!(error.kind(), TimedOut);

            stream.finish_writing().unwrap();
            let mut received = Vec::new();
            peer.read_to_end(&mut received).unwrap();
            assert_eq!(received.len(), written, "what was taken arrives");
        }
    }

    #[test]
    fn two_parts_arrive_one_behind_the_other_wherever_a_write_ends() {
        for (stream, mut peer) in pairs() {
            let bytes: Vec<u8> = (0..20_000_000_u32).map(|at| (at / 251) as u8).collect();
            let reading = std::thread::spawn(move || {
                let mut received = Vec::new();
                peer.read_to_end(&mut received).map(|_| received)
            });
            let (mut at, mut sent) = (0, Vec::new());
            for lengths in
                [[0, 0], [1, 0], [0, 1], [7_000_000, 11_000_000], [99, 100], [1, 900_000]]
            {
                let (first, second) = bytes[at..][..lengths[0] + lengths[1]].split_at(lengths[0]);
                stream.write_all([first, second], Duration::MAX).unwrap();
                sent.extend([first, second].concat());
                at += 1_000;
            }
            stream.finish_writing().unwrap();
            assert!(reading.join().unwrap().unwrap() == sent, "what arrives is not what was sent");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_kernel_watches_the_peer_from_the_first_write_that_does_not_fit_to_the_last() {
        use rustix::net::sockopt::tcp_user_timeout;
        let (stream, mut peer) = pair();
        let millis = || tcp_user_timeout(&stream.stream).unwrap();
        stream.write_all([b"short", b""], Duration::from_secs(8)).unwrap();
        assert_eq!(millis(), 0, "nobody has waited");
        std::thread::scope(|scope| {
            let long = vec![7; 64 << 20];
            let writing = scope.spawn({
                let stream = &stream;
                move || stream.write_all([b"", &long], Duration::from_secs(8))
            });
            let deadline = deadline::after(Duration::from_secs(8));
            while millis() != 10_000 && !deadline::until(deadline).is_zero() {
                std::thread::yield_now();
            }
            assert_eq!(millis(), 10_000, "a quarter more than the timeout of a write");
            io::copy(&mut (&mut peer).take(5 + (64 << 20)), &mut io::sink()).unwrap();
            writing.join().unwrap().unwrap();
        });
        assert_eq!(millis(), 0, "it is all written");
    }

    #[test]
    #[cfg(unix)]
    fn a_stop_ends_the_wait_and_neither_what_has_arrived_nor_what_comes_later() {
        for (stream, mut peer) in pairs() {
            let stop = Stop::new().unwrap();
            let long = Duration::from_secs(60);
            let mut buffer = Vec::with_capacity(99);
            let error =
                stream.read_unless(&stop, &mut buffer, Duration::from_millis(5)).unwrap_err();
            assert_eq!(error.kind(), TimedOut);
            std::thread::scope(|scope| {
                let waiting =
                    scope.spawn(|| stream.read_unless(&stop, &mut Vec::with_capacity(9), long));
                stop.tell();
                assert_eq!(waiting.join().unwrap().unwrap_err().kind(), WouldBlock);
            });
            peer.write_all(b"late").unwrap();
            while stream.read_unless(&stop, &mut buffer, long).is_err() {}
            assert_eq!(buffer, b"late");
        }
    }
}
