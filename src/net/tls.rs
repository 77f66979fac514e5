//! TLS of one connection, between its socket and everybody else: ciphertext in, plaintext out, and the other way round.
//!
//! One thread reads, and whoever holds the write half writes, as without TLS. Both need the keys, which a lock guards; no
//! socket is called while it is held. The reader brings what has arrived, and has it opened under the lock. A writer
//! seals a piece under the lock and sends it without. What the socket does not take stays here, and goes first the next
//! time. What TLS has to say by itself, its handshake and its alerts, goes out with the next write, or the reader sends it
//! before it waits.

use std::cell::Cell;
use std::fmt;
use std::io::ErrorKind::WouldBlock;
use std::io::{self, IoSlice};
use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
#[cfg(feature = "redis")]
use rustls::{ClientConfig, ClientConnection, pki_types::ServerName};
use rustls::{Connection, ServerConfig, ServerConnection};

use crate::net::ciphertext::Ciphertext;
pub(crate) use crate::net::tls_state::Stage;
use crate::net::tls_state::State;

/// TLS of one connection.
pub(crate) struct Tls {
    state: Mutex<State>,
}

/// The state, while its lock is held.
struct Held<'a>(MutexGuard<'a, State>);

thread_local! {
    /// Whether this thread holds the lock of a connection, of whichever.
    static IS_HOLDING: Cell<bool> = const { Cell::new(false) };
}

impl<'a> Held<'a> {
    fn new(state: MutexGuard<'a, State>) -> Self {
        IS_HOLDING.set(true);
        Self(state)
    }
}

impl Deref for Held<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.0
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        IS_HOLDING.set(false);
    }
}

/// Whether the calling thread is in the middle of something under such a lock. rustls logs while it has the keys, if somebody in
/// the program's tree has it do so; and a logger of the program's may send, to this very client, or to one whose
/// thread does the same.
fn is_holding() -> bool {
    IS_HOLDING.get()
}

impl Tls {
    /// The server's side of a connection on which nothing has been read.
    ///
    /// # Errors
    ///
    /// The configuration cannot work.
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self::begin(ServerConnection::new(config)?.into(), Stage::Silent))
    }

    /// The client's side of a connection to the server of that name, on which nothing has been written. Its handshake comes
    /// with the first reads.
    ///
    /// # Errors
    ///
    /// The configuration cannot work.
    #[cfg(feature = "redis")]
    pub(crate) fn client(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, rustls::Error> {
        Ok(Self::begin(ClientConnection::new(config, name)?.into(), Stage::Handshake))
    }

    fn begin(keys: Connection, stage: Stage) -> Self {
        Self { state: Mutex::new(State::new(keys, stage)) }
    }

    fn lock(&self) -> Held<'_> {
        Held::new(self.state.lock())
    }

    pub(crate) fn stage(&self) -> Stage {
        self.lock().stage.clone()
    }

    /// The certificate that the client has shown, as DER.
    pub(crate) fn client_certificate(&self) -> Option<Vec<u8>> {
        let state = self.lock();
        Some(state.keys.peer_certificates()?.first()?.to_vec())
    }

    /// Appends plaintext to `buffer`, at most its spare capacity: what was opened before, or else what comes of one call of
    /// `receive`, which appends ciphertext. `Ok(0)` is the end of the stream, with the client's goodbye or without.
    ///
    /// What TLS has to say by itself goes with the next write, or by `send` before the next call of `receive`: the client may
    /// wait for it. A part of the handshake goes whole, as long as `send_flight` takes some of it.
    ///
    /// # Errors
    ///
    /// [`Interrupted`](io::ErrorKind::Interrupted) when something came of which nothing can be read yet,
    /// [`InvalidData`](io::ErrorKind::InvalidData) when it is no TLS, and those of `receive` and `send_flight`.
    pub(crate) fn read(
        &self,
        buffer: &mut Vec<u8>,
        receive: impl FnOnce(&mut Vec<u8>) -> io::Result<usize>,
        send: impl Fn(&[IoSlice<'_>]) -> io::Result<usize>,
        send_flight: impl Fn(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut state = self.lock();
        if let Some(read) = state.read_opened(buffer) {
            return read;
        }
        let mut arrived = mem::take(&mut state.unopened);
        if matches!(state.stage, Stage::Silent | Stage::Bypassed) {
            // Where it turns out to be no TLS, it is where it belongs.
            let start = buffer.len();
            drop(state);
            if receive(buffer)? == 0 {
                return Ok(0);
            }
            state = self.lock();
            if state.stage == Stage::Silent {
                // A handshake begins with a byte that is no letter (RFC 8446 §5.1), and a request with one that is.
                let is_tls = !buffer[start].is_ascii_alphabetic();
                state.stage = if is_tls { Stage::Handshake } else { Stage::Bypassed };
            }
            if state.stage == Stage::Bypassed {
                return Ok(buffer.len() - start);
            }
            arrived = buffer.split_off(start);
        } else if arrived.is_empty() {
            let output = state.begin_flush();
            let is_flight = state.stage == Stage::Handshake;
            arrived.reserve_exact(state.read_size);
            drop(state);
            if let Some(output) = output {
                if is_flight {
                    self.send_whole(output, send_flight)?;
                } else {
                    // What is left goes the next time.
                    let _ = self.send(output, &send);
                }
            }
            let received = receive(&mut arrived);
            state = self.lock();
            state.note_received(&received, arrived.capacity());
            if received? == 0 {
                return Ok(0);
            }
        }
        let read = state.open(arrived, buffer);
        if state.is_failed()
            && let Some(output) = state.begin_flush()
        {
            drop(state);
            let _ = self.send(output, &send);
        }
        read
    }

    /// Sends all of it, as long as `send` takes some.
    fn send_whole(
        &self,
        output: Ciphertext,
        send: impl Fn(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<()> {
        let is_taken = Cell::new(false);
        let send = |slices: &[IoSlice<'_>]| {
            let sent = send(slices);
            is_taken.set(sent.is_ok());
            sent
        };
        let mut next = Some(output);
        while let Some(output) = next {
            match self.send(output, send) {
                Err(error) if !is_taken.get() => return Err(error),
                _ => next = self.lock().begin_flush(),
            }
        }
        Ok(())
    }

    /// Writes some of `slices`, as far as `send` takes their ciphertext. A caller that is told that less was written comes
    /// again with the rest, or not at all.
    ///
    /// # Errors
    ///
    /// Those of `send`, [`WouldBlock`] for example, if nothing was written.
    pub(crate) fn write(
        &self,
        slices: &[IoSlice<'_>],
        send: impl Fn(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if is_holding() {
            // Somebody else tries again, as with a client that takes nothing now.
            return Err(WouldBlock.into());
        }
        let mut written = 0;
        loop {
            let mut state = self.lock();
            if state.stage == Stage::Bypassed {
                drop(state);
                return send(slices);
            }
            let begun = state.begin_sending(slices, written);
            // What TLS says about a failure.
            let last = if begun.is_err() { state.begin_flush() } else { None };
            drop(state);
            let step = match (begun, last) {
                (Ok(Some(output)), _) => self.send(output, &send),
                (Ok(None), _) => return Ok(written),
                (Err(error), last) => {
                    last.map(|output| self.send(output, &send));
                    Err(error)
                }
            };
            match step {
                Ok(count) => written += count,
                // It comes again with the next write.
                Err(_) if written > 0 => return Ok(written),
                Err(error) => return Err(error),
            }
        }
    }

    /// Says goodbye: nothing is written after it. To be called until it succeeds.
    ///
    /// # Errors
    ///
    /// Those of `send`, [`WouldBlock`] for example, if something is left.
    pub(crate) fn finish(
        &self,
        send: impl Fn(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<()> {
        if is_holding() {
            return Err(WouldBlock.into());
        }
        let mut state = self.lock();
        // Behind a write that was given up there is no end in good order.
        if state.stage != Stage::Open || state.output.is_owed() {
            return Ok(());
        }
        if !mem::replace(&mut state.has_finished, true) {
            state.keys.send_close_notify();
        }
        drop(state);
        self.write(&[], send).map(drop)
    }

    /// Says goodbye if that takes no wait: nobody writes, and nothing is half sent.
    pub(crate) fn finish_at_once(&self, send: impl Fn(&[IoSlice<'_>]) -> io::Result<usize>) {
        if is_holding() {
            return;
        }
        let Some(state) = self.state.try_lock() else { return };
        let mut state = Held::new(state);
        let is_amid = state.stage != Stage::Open || state.is_sending || state.output.is_owed();
        if is_amid || mem::replace(&mut state.has_finished, true) {
            return;
        }
        state.keys.send_close_notify();
        let output = state.begin_flush();
        drop(state);
        output.map(|output| self.send(output, send));
    }

    /// One call of `send` with what was taken: how much plaintext is written by it. It is [`WouldBlock`] where a part is
    /// left and no plaintext was.
    fn send(
        &self,
        mut output: Ciphertext,
        send: impl Fn(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let sent = send(&[IoSlice::new(output.unsent())]);
        let written = sent.and_then(|count| match output.note_sent(count) {
            0 if output.is_left() => Err(WouldBlock.into()),
            written => Ok(written),
        });
        let mut state = self.lock();
        state.is_sending = false;
        state.output = output;
        written
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ciphertext::KEPT;
    use crate::net::tls_state::{FIRST_READ, LONGEST_READ, PIECE};
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore};
    use std::cell::RefCell;
    use std::io::ErrorKind::{BrokenPipe, Interrupted, InvalidData, NotConnected};
    use std::io::{Read, Write};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Both ends, and what is on its way from ours to the client's.
    struct Ends {
        server: Tls,
        client: ClientConnection,
        wire: RefCell<Vec<u8>>,
        /// How many bytes the socket takes yet.
        room: AtomicUsize,
    }

    impl Ends {
        fn new() -> Self {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let certificate = made.cert.der().clone();
            let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.clone()], key)
                .unwrap();
            let mut roots = RootCertStore::empty();
            roots.add(certificate).unwrap();
            let client = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let name = ServerName::try_from("localhost").unwrap();
            let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
            client.set_buffer_limit(None);
            Self {
                server: Tls::new(Arc::new(config)).unwrap(),
                client,
                wire: RefCell::default(),
                room: AtomicUsize::new(usize::MAX),
            }
        }

        fn open() -> Self {
            let mut ends = Self::new();
            while ends.server.stage() != Stage::Open || ends.client.is_handshaking() {
                let sent = ends.sent_by_client();
                let mut buffer = Vec::with_capacity(5000);
                assert_eq!(ends.read(&mut buffer, &sent).unwrap_err().kind(), Interrupted);
                ends.wait();
                ends.receive();
            }
            ends
        }

        /// A read for which nothing comes: what TLS has to say goes out before it.
        fn wait(&self) {
            let send = |slices: &[IoSlice<'_>]| self.send(slices);
            let nothing = |_: &mut Vec<u8>| Err(WouldBlock.into());
            let read = self.server.read(&mut Vec::with_capacity(100), nothing, send, send);
            assert_eq!(read.unwrap_err().kind(), WouldBlock);
        }

        /// What the client has to send.
        fn sent_by_client(&mut self) -> Vec<u8> {
            let mut bytes = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut bytes).unwrap();
            }
            bytes
        }

        /// What the client makes of `plaintext`.
        fn sealed_by_client(&mut self, plaintext: &[u8]) -> Vec<u8> {
            self.client.writer().write_all(plaintext).unwrap();
            self.sent_by_client()
        }

        /// One read, in which `arrived` comes, as much of it as there is room for.
        fn read(&self, buffer: &mut Vec<u8>, arrived: &[u8]) -> io::Result<usize> {
            let receive = |buffer: &mut Vec<u8>| {
                assert!(arrived.len() <= buffer.capacity() - buffer.len(), "there is no room");
                buffer.extend_from_slice(arrived);
                Ok(arrived.len())
            };
            let send = |slices: &[IoSlice<'_>]| self.send(slices);
            self.server.read(buffer, receive, send, send)
        }

        /// The socket, which takes as much as there is room.
        fn send(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            assert!(self.server.state.try_lock().is_some(), "a socket is called under the lock");
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            let count = all.len().min(self.room.load(Ordering::Relaxed));
            self.room.fetch_sub(count, Ordering::Relaxed);
            self.wire.borrow_mut().extend_from_slice(&all[..count]);
            if count == 0 && !all.is_empty() { Err(WouldBlock.into()) } else { Ok(count) }
        }

        fn write(&self, slices: &[&[u8]]) -> io::Result<usize> {
            let slices: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
            self.server.write(&slices, |slices| self.send(slices))
        }

        /// What the client has received by now.
        fn receive(&mut self) -> Vec<u8> {
            let wire = self.wire.take();
            let (mut wire, mut received) = (&wire[..], Vec::new());
            while !wire.is_empty() {
                self.client.read_tls(&mut wire).unwrap();
                self.client.process_new_packets().unwrap();
                let _ = self.client.reader().read_to_end(&mut received);
            }
            received
        }
    }

    fn bytes(count: u32) -> Vec<u8> {
        (0..count).map(|at| (at / 251) as u8).collect()
    }

    #[test]
    fn what_the_socket_does_not_take_goes_first_the_next_time_and_nothing_is_lost_or_repeated() {
        let mut ends = Ends::open();
        for (room, length) in [(1, 99), (22, 999), (23, 5_000), (1_000, 70_000), (40_000, 150_000)]
        {
            let all = bytes(length);
            let (mut written, mut received) = (0, Vec::new());
            while written < all.len() {
                ends.room.store(room, Ordering::Relaxed);
                // In two parts, as a frame with its header.
                let (first, second) = all[written..].split_at(2.min(all.len() - written));
                match ends.write(&[first, second]) {
                    Ok(count) => written += count,
                    Err(error) => assert_eq!(error.kind(), WouldBlock),
                }
                received.extend(ends.receive());
                assert!(received.len() <= written + PIECE, "more has arrived than can be owed");
            }
            assert_eq!(ends.server.state.lock().output.len(), 0, "all counts as written");
            assert!(received == all, "with room for {room} at a time");
        }
    }

    #[test]
    fn a_slow_socket_is_seen_to_take_something_and_the_last_byte_counts_when_nothing_is_left() {
        let ends = Ends::open();
        let all = bytes(10_000);
        ends.room.store(0, Ordering::Relaxed);
        assert_eq!(ends.write(&[&all]).unwrap_err().kind(), WouldBlock);
        let mut written = 0;
        while written < all.len() {
            ends.room.store(500, Ordering::Relaxed);
            let count = ends.write(&[&all[written..]]).expect("it took 500 bytes");
            assert!((1..=500).contains(&count), "{count}");
            written += count;
            let is_left = ends.server.state.lock().output.is_left();
            assert_eq!(written < all.len(), is_left, "{written} are written");
        }
    }

    #[test]
    fn a_long_message_needs_no_second_write_where_the_socket_takes_it() {
        let mut ends = Ends::open();
        let all = bytes(1 << 20);
        assert_eq!(ends.write(&[&all[..10], &all[10..]]).unwrap(), all.len());
        assert!(ends.receive() == all);
        let kept = ends.server.state.lock().output.buffer().capacity();
        assert!(kept <= KEPT, "{kept} bytes are kept for nothing");
    }

    #[test]
    fn plaintext_comes_in_order_wherever_reads_end_and_however_little_room_there_is() {
        let mut ends = Ends::open();
        let all = bytes(100_000);
        let mut sealed = Vec::new();
        for chunk in [1, 99, 20_000, 9_900, 70_000].iter().scan(0, |at, length| {
            *at += length;
            Some(*at - length..*at)
        }) {
            sealed.extend(ends.sealed_by_client(&all[chunk]));
        }
        let (mut arriving, mut received) = (&sealed[..], Vec::new());
        let mut random = 7_usize;
        while received.len() < all.len() {
            random = (random * 48_271) % 0x7fff_ffff;
            let room = 1 + random % [3, 100, 5_000, 60_000][random % 4];
            let mut buffer = Vec::with_capacity(2 + room);
            buffer.extend(b"ab");
            let receive = |buffer: &mut Vec<u8>| {
                assert!(!arriving.is_empty(), "what has arrived has to come out by itself");
                let room = buffer.capacity() - buffer.len();
                let (first, rest) = arriving.split_at((1 + random % room).min(arriving.len()));
                buffer.extend_from_slice(first);
                arriving = rest;
                Ok(first.len())
            };
            let send = |slices: &[IoSlice<'_>]| ends.send(slices);
            let read = ends.server.read(&mut buffer, receive, send, send);
            match read {
                Ok(count) => {
                    assert_eq!((buffer.len(), &buffer[..2]), (2 + count, &b"ab"[..]));
                    assert!(buffer.capacity() < 2 * (2 + room), "the buffer was enlarged");
                    received.extend_from_slice(&buffer[2..]);
                }
                Err(error) => assert_eq!((error.kind(), buffer.len()), (Interrupted, 2)),
            }
        }
        assert!(received == all);
    }

    #[test]
    fn a_long_message_takes_few_reads_and_what_they_needed_is_given_back() {
        let mut ends = Ends::open();
        let all = bytes(1 << 20);
        let sealed = ends.sealed_by_client(&all);
        let (mut arriving, mut reads, mut received) = (&sealed[..], 0, Vec::new());
        while received.len() < all.len() {
            let mut buffer = Vec::with_capacity(8 << 10);
            let receive = |buffer: &mut Vec<u8>| {
                let room = buffer.capacity() - buffer.len();
                let (first, rest) = arriving.split_at(room.min(arriving.len()));
                buffer.extend_from_slice(first);
                (arriving, reads) = (rest, reads + 1);
                Ok(first.len())
            };
            let send = |slices: &[IoSlice<'_>]| ends.send(slices);
            match ends.server.read(&mut buffer, receive, send, send) {
                Ok(_) => received.append(&mut buffer),
                Err(error) => assert_eq!(error.kind(), Interrupted),
            }
        }
        assert!(received == all);
        assert!(reads <= 40, "{reads} reads for 64 records");
        for most in [LONGEST_READ, FIRST_READ] {
            let nothing = |buffer: &mut Vec<u8>| {
                assert!(buffer.capacity() <= most, "{} bytes wait", buffer.capacity());
                Err(WouldBlock.into())
            };
            let read = ends.server.read(&mut Vec::with_capacity(9), nothing, |_| Ok(0), |_| Ok(0));
            assert_eq!(read.unwrap_err().kind(), WouldBlock);
        }
    }

    #[test]
    fn the_goodbye_of_each_side_is_the_end_of_what_the_other_reads() {
        let mut ends = Ends::open();
        ends.client.writer().write_all(b"last").unwrap();
        ends.client.send_close_notify();
        let sent = ends.sent_by_client();
        let mut buffer = Vec::with_capacity(200);
        assert_eq!(ends.read(&mut buffer, &sent).unwrap(), 4);
        let never = |_: &mut Vec<u8>| panic!("the socket is asked after the goodbye");
        assert_eq!(ends.server.read(&mut buffer, never, |_| Ok(0), |_| Ok(0)).unwrap(), 0);

        ends.room.store(9, Ordering::Relaxed);
        let finished = ends.server.finish(|slices| ends.send(slices));
        assert_eq!(finished.unwrap_err().kind(), WouldBlock);
        ends.room.store(99, Ordering::Relaxed);
        ends.server.finish(|slices| ends.send(slices)).unwrap();
        ends.server.finish(|slices| ends.send(slices)).unwrap();
        ends.receive();
        assert_eq!(ends.client.reader().read(&mut [0]).unwrap(), 0, "no goodbye arrives");
    }

    #[test]
    fn a_client_that_asks_for_new_keys_without_end_is_given_up_and_owes_us_no_memory() {
        let mut ends = Ends::open();
        // The writer is blocked meanwhile.
        ends.room.store(0, Ordering::Relaxed);
        assert_eq!(ends.write(&[b"waits"]).unwrap_err().kind(), WouldBlock);
        let error = (0..10_000).find_map(|_| {
            ends.client.refresh_traffic_keys().unwrap();
            let sent = ends.sent_by_client();
            let read = ends.read(&mut Vec::with_capacity(200), &sent);
            read.err().filter(|error| error.kind() != Interrupted)
        });
        let error = error.expect("10,000 requests for new keys are taken");
        assert_eq!(error.kind(), InvalidData);
        let waiting = ends.server.state.lock().output.len();
        assert!(waiting < 1_000, "{waiting} bytes wait");
        ends.room.store(9_000, Ordering::Relaxed);
        assert_eq!(ends.write(&[b"waits"]).unwrap(), 5, "what was sealed before goes out");
        assert_eq!(ends.write(&[b"more"]).unwrap_err().kind(), BrokenPipe);
    }

    #[test]
    fn new_keys_while_the_writer_is_blocked_lose_nothing() {
        let mut ends = Ends::open();
        let mut received = Vec::new();
        for round in 0..200_u8 {
            let message = vec![round; 300];
            ends.room.store(100, Ordering::Relaxed);
            let mut written = ends.write(&[&message]).unwrap();
            ends.client.refresh_traffic_keys().unwrap();
            let sent = ends.sealed_by_client(&[round]);
            let mut buffer = Vec::with_capacity(1_000);
            assert_eq!(ends.read(&mut buffer, &sent).unwrap(), 1);
            assert_eq!(buffer, [round]);
            ends.room.store(usize::MAX, Ordering::Relaxed);
            written += ends.write(&[&message[written..]]).unwrap();
            assert_eq!(written, 300);
            received.extend(ends.receive());
        }
        assert!((0..200_u8).flat_map(|round| [round; 300]).eq(received));
    }

    #[test]
    fn a_flight_goes_on_as_long_as_the_socket_takes_a_little_of_it() {
        let mut ends = Ends::new();
        let hello = ends.sent_by_client();
        let read = ends.read(&mut Vec::with_capacity(5000), &hello);
        assert_eq!(read.unwrap_err().kind(), Interrupted);
        ends.room.store(0, Ordering::Relaxed);
        let calls = Cell::new(0);
        let little = |slices: &[IoSlice<'_>]| {
            calls.set(calls.get() + 1);
            ends.room.store(9, Ordering::Relaxed);
            ends.send(slices)
        };
        let waits = |_: &mut Vec<u8>| Err(WouldBlock.into());
        let nothing = |_: &[IoSlice<'_>]| Err(WouldBlock.into());
        let mut buffer = Vec::with_capacity(100);
        let never = |_: &mut Vec<u8>| panic!("it waits for a client that waits");
        assert_eq!(
            ends.server.read(&mut buffer, never, nothing, nothing).unwrap_err().kind(),
            WouldBlock
        );
        ends.server.read(&mut buffer, waits, nothing, little).unwrap_err();
        assert!(calls.get() > 20, "it took all in {} calls", calls.get());
        ends.receive();
        assert!(!ends.client.is_handshaking());
    }

    #[test]
    fn what_tls_says_by_itself_goes_with_the_answer_or_before_the_next_wait() {
        for answers in [true, false] {
            let mut ends = Ends::new();
            while ends.client.is_handshaking() {
                let sent = ends.sent_by_client();
                let _ = ends.read(&mut Vec::with_capacity(5000), &sent);
                ends.wait();
                ends.receive();
            }
            let with_request = ends.sealed_by_client(b"request");
            assert_eq!(ends.read(&mut Vec::with_capacity(5000), &with_request).unwrap(), 7);
            assert!(ends.wire.borrow().is_empty(), "tickets go by themselves");
            if answers {
                let sends = Cell::new(0);
                let send = |slices: &[IoSlice<'_>]| {
                    sends.set(sends.get() + 1);
                    ends.send(slices)
                };
                ends.server.write(&[IoSlice::new(b"answer")], send).unwrap();
                assert_eq!((sends.get(), &*ends.receive()), (1, &b"answer"[..]));
            } else {
                ends.wait();
                assert!(!ends.wire.borrow().is_empty(), "tickets wait for an answer");
            }
        }
    }

    #[test]
    fn behind_a_write_that_was_given_up_there_is_no_goodbye() {
        let mut ends = Ends::open();
        ends.room.store(500, Ordering::Relaxed);
        let written = ends.write(&[&bytes(10_000)]).unwrap();
        assert!(written < 10_000, "the socket has taken all");
        ends.room.store(usize::MAX, Ordering::Relaxed);
        ends.server.finish(|slices| ends.send(slices)).unwrap();
        ends.server.finish_at_once(|slices| ends.send(slices));
        assert!(ends.wire.borrow().len() <= 500, "something follows");
        ends.receive();
        assert!(ends.client.reader().read(&mut [0]).is_err(), "it ends in good order");
    }

    #[test]
    fn nothing_is_sealed_before_the_handshake_and_a_request_is_no_handshake() {
        let ends = Ends::new();
        assert_eq!(ends.write(&[b"too early"]).unwrap_err().kind(), NotConnected);
        let mut buffer = Vec::with_capacity(100);
        assert_eq!(ends.read(&mut buffer, b"GET /").unwrap(), 5);
        assert_eq!((ends.server.stage(), &buffer[..]), (Stage::Bypassed, &b"GET /"[..]));
        assert_eq!(ends.write(&[b"HTTP/1.1 ", b"400"]).unwrap(), 12);
        assert_eq!(*ends.wire.borrow(), b"HTTP/1.1 400");
    }

    #[test]
    fn what_is_no_tls_fails_for_good_and_the_client_is_told() {
        let ends = Ends::new();
        for _ in 0..3 {
            let read = ends.read(&mut Vec::with_capacity(100), &[22, 9, 9, 0, 5, 1, 2, 3, 4, 5]);
            assert_eq!(read.unwrap_err().kind(), InvalidData);
        }
        assert_eq!(ends.wire.borrow()[0], 21, "no alert");
    }

    #[test]
    fn a_logger_of_rustls_that_sends_waits_neither_for_itself_nor_for_another_one() {
        let (ends, other) = (Ends::open(), Ends::open());
        let held = ends.server.lock();
        let never = |_: &[IoSlice<'_>]| panic!("it is sent under the lock");
        for server in [&ends.server, &other.server] {
            let error = server.write(&[IoSlice::new(b"a line")], never).unwrap_err();
            assert_eq!(error.kind(), WouldBlock);
            assert_eq!(server.finish(never).unwrap_err().kind(), WouldBlock);
            server.finish_at_once(never);
        }
        drop(held);
        assert_eq!(ends.write(&[b"a line"]).unwrap(), 6);
    }

    #[test]
    fn a_handshake_in_records_of_one_byte_each_ends_one_way_or_the_other() {
        let mut ends = Ends::new();
        let hello = ends.sent_by_client();
        // The message without the head of its record.
        for message in [hello[5..].to_vec(), [&[1, 0, 0xff, 0xf0][..], &[0; 0xfff0]].concat()] {
            let ends = Ends::new();
            let mut outcome = None;
            for byte in message {
                let mut buffer = Vec::with_capacity(100);
                match ends.read(&mut buffer, &[22, 3, 1, 0, 1, byte]) {
                    Err(error) if error.kind() == Interrupted => {}
                    other => {
                        outcome = Some(other);
                        break;
                    }
                }
            }
            if outcome.is_none() {
                ends.wait();
            }
            let has_answered = !ends.wire.borrow().is_empty();
            assert!(has_answered || outcome.is_some(), "neither answered nor refused");
        }
    }
}
