//! What TLS knows of one connection: it opens what has come from the peer, and seals what is to go to it.

use std::io::ErrorKind::{
    BrokenPipe, Interrupted, InvalidData, NotConnected, WouldBlock, WriteZero,
};
use std::io::{self, BufRead, IoSlice, Write};
use std::mem;

use rustls::Connection;

use crate::net::ciphertext::Ciphertext;

/// The longest record.
const RECORD: usize = 16 << 10;
/// By how much a record is longer than what it holds, at most (RFC 8446 §5.2, RFC 5246 §6.2.3).
const RECORD_OVERHEAD: usize = 32;
/// How much is sealed at a time: two records. A slow client has so much ciphertext waiting beside its outbox.
pub(super) const PIECE: usize = 2 * RECORD;
/// What is longer than a piece by so much is sealed with it: for the header of a frame alone, a write would be too much.
const SLACK: usize = 64;
/// What a read takes to begin with: it grows with what comes at once, and most connections are quiet.
pub(super) const FIRST_READ: usize = 512;
/// What it takes at most: two records.
pub(super) const LONGEST_READ: usize = 2 * (RECORD + RECORD_OVERHEAD);
/// What a record of data begins with (RFC 5246 §6.2.1), and with TLS 1.3 every one that is sealed (RFC 8446 §5.2).
const APPLICATION_DATA: u8 = 23;
/// Why a connection ends after 16,777,216 records with AES-GCM.
const KEYS_ARE_USED_UP: &str = "the keys that TLS 1.2 gave this connection have sealed as many \
    records as is safe; the client has to connect again";

/// The state of one connection.
pub(super) struct State {
    pub(super) stage: Stage,
    pub(super) keys: Connection,
    /// How much ciphertext the next read takes: doubled when a read took as much.
    pub(super) read_size: usize,
    /// How much plaintext is ready to be read.
    readable: usize,
    /// Ciphertext that found no room behind plaintext that nobody has read.
    pub(super) unopened: Vec<u8>,
    has_peer_finished: bool,
    pub(super) has_finished: bool,
    pub(super) output: Ciphertext,
    /// Whether a thread has taken `output` to send it.
    pub(super) is_sending: bool,
}

/// How far a connection has come.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stage {
    /// Nothing has arrived at the server.
    Silent,
    Handshake,
    Open,
    /// The client does not speak TLS: everything passes as it is, for an answer that it understands.
    Bypassed,
    Failed(rustls::Error),
    /// No more can be sealed: it is over.
    UsedUp,
}

impl State {
    pub(super) fn new(mut keys: Connection, stage: Stage) -> Self {
        // What is sealed is taken out at once, so that `PIECE` is the limit.
        keys.set_buffer_limit(None);
        Self {
            stage,
            keys,
            read_size: FIRST_READ,
            readable: 0,
            unopened: Vec::new(),
            has_peer_finished: false,
            has_finished: false,
            output: Ciphertext::default(),
            is_sending: false,
        }
    }

    /// A read had room for `room` bytes of ciphertext.
    pub(super) fn note_received(&mut self, received: &io::Result<usize>, room: usize) {
        match received {
            Ok(count) if *count == room => {
                self.read_size = (2 * self.read_size).min(LONGEST_READ);
            }
            // Nothing comes: what a burst needed is given back.
            Err(_) => self.read_size = FIRST_READ,
            Ok(_) => {}
        }
    }

    /// What can be read without the socket, if that is anything: plaintext, the end, or why there will be none.
    pub(super) fn read_opened(&mut self, buffer: &mut Vec<u8>) -> Option<io::Result<usize>> {
        if self.readable > 0 {
            return Some(Ok(self.take_plaintext(buffer)));
        }
        if self.has_peer_finished {
            return Some(Ok(0));
        }
        match &self.stage {
            Stage::Failed(error) => Some(Err(io::Error::new(InvalidData, error.clone()))),
            Stage::UsedUp => Some(Err(io::Error::new(BrokenPipe, KEYS_ARE_USED_UP))),
            _ => None,
        }
    }

    /// Appends what is ready to `buffer`, as far as there is room.
    fn take_plaintext(&mut self, buffer: &mut Vec<u8>) -> usize {
        let start = buffer.len();
        while self.readable > 0 && buffer.len() < buffer.capacity() {
            let mut reader = self.keys.reader();
            // What it could say instead is known from `process_new_packets`.
            let opened = reader.fill_buf().unwrap_or_default();
            let count = opened.len().min(buffer.capacity() - buffer.len());
            buffer.extend_from_slice(&opened[..count]);
            reader.consume(count);
            self.readable = if count == 0 { 0 } else { self.readable.saturating_sub(count) };
        }
        buffer.len() - start
    }

    /// Appends the plaintext of what has arrived to `buffer`, as far as there is room.
    pub(super) fn open(&mut self, mut arrived: Vec<u8>, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let (start, mut fed) = (buffer.len(), 0);
        while fed < arrived.len()
            && !self.has_peer_finished
            && matches!(self.stage, Stage::Handshake | Stage::Open)
        {
            match self.keys.read_tls(&mut &arrived[fed..]) {
                Ok(count) => fed += count,
                // There is too much plaintext, for which there is no room.
                Err(_) if self.readable > 0 => {
                    arrived.drain(..fed);
                    self.unopened = arrived;
                    break;
                }
                Err(error) => {
                    self.stage = Stage::Failed(rustls::Error::General(error.to_string()));
                    break;
                }
            }
            match self.keys.process_new_packets() {
                Ok(state) => {
                    self.readable = state.plaintext_bytes_to_read();
                    self.has_peer_finished = state.peer_has_closed();
                    if !self.keys.is_handshaking() {
                        self.stage = Stage::Open;
                    }
                }
                Err(error) => self.stage = Stage::Failed(error),
            }
            self.take_plaintext(buffer);
        }
        if buffer.len() > start {
            return Ok(buffer.len() - start);
        }
        self.read_opened(buffer).unwrap_or_else(|| Err(Interrupted.into()))
    }

    pub(super) fn is_failed(&self) -> bool {
        matches!(self.stage, Stage::Failed(_) | Stage::UsedUp)
    }

    fn has_output(&self) -> bool {
        self.output.is_left() || self.keys.wants_write()
    }

    /// Takes what TLS has to say by itself, unless somebody writes, who sends it too.
    pub(super) fn begin_flush(&mut self) -> Option<Ciphertext> {
        if self.is_sending || self.output.is_owed() || !self.has_output() {
            return None;
        }
        self.is_sending = true;
        Some(self.take_output())
    }

    /// Takes what is to be sent next, behind which a piece of `slices` is sealed, from `written` on, if none is there.
    pub(super) fn begin_sending(
        &mut self,
        slices: &[IoSlice<'_>],
        written: usize,
    ) -> io::Result<Option<Ciphertext>> {
        if self.is_sending {
            // The reader does, which does not wait for the socket.
            return Err(WouldBlock.into());
        }
        if !self.output.is_owed() {
            self.seal(slices, written)?;
        }
        if !self.has_output() {
            return Ok(None);
        }
        self.is_sending = true;
        Ok(Some(self.take_output()))
    }

    fn take_output(&mut self) -> Ciphertext {
        self.collect_output();
        mem::take(&mut self.output)
    }

    /// Takes what rustls has to send.
    fn collect_output(&mut self) {
        while self.keys.wants_write() {
            // Nothing goes wrong with a write to memory.
            let _ = self.keys.write_tls(self.output.buffer());
        }
    }

    /// Seals the next piece of `slices` behind `written` bytes.
    fn seal(&mut self, slices: &[IoSlice<'_>], written: usize) -> io::Result<()> {
        let left = slices.iter().map(|slice| slice.len()).sum::<usize>() - written;
        if left == 0 {
            return Ok(());
        }
        match &self.stage {
            Stage::Open | Stage::Bypassed => {}
            Stage::Failed(error) => return Err(io::Error::new(BrokenPipe, error.clone())),
            Stage::UsedUp => return Err(io::Error::new(BrokenPipe, KEYS_ARE_USED_UP)),
            Stage::Silent | Stage::Handshake => {
                return Err(io::Error::new(NotConnected, "the TLS handshake is not complete"));
            }
        }
        let piece = if left <= PIECE + SLACK { left } else { PIECE };
        self.output.reserve(piece + piece.div_ceil(RECORD) * RECORD_OVERHEAD);
        let mut sealed = 0;
        // One record after the other, so that they have one buffer of rustls in turn.
        while sealed < piece {
            let record = part(slices, written + sealed, RECORD.min(piece - sealed));
            sealed += self.seal_record(record)?;
        }
        Ok(())
    }

    /// Seals one record behind what is there, and tells how much is in it.
    fn seal_record(&mut self, [first, second]: [&[u8]; 2]) -> io::Result<usize> {
        self.collect_output();
        let before = self.output.len();
        let count = match second {
            [] => self.keys.writer().write(first)?,
            _ => self.keys.writer().write_vectored(&[IoSlice::new(first), IoSlice::new(second)])?,
        };
        self.collect_output();
        if self.output.buffer().get(before) != Some(&APPLICATION_DATA) {
            // rustls says goodbye in place of a record more than the keys of TLS 1.2 are good for, and then nothing. With
            // TLS 1.3, where all records look like data, it has new keys in time.
            self.stage = Stage::UsedUp;
            return Err(io::Error::new(BrokenPipe, KEYS_ARE_USED_UP));
        }
        if count == 0 {
            return Err(WriteZero.into());
        }
        self.output.note_sealed(count);
        Ok(count)
    }
}

/// Up to `room` bytes of `slices` behind `skipped` ones, or what stands in two of them.
fn part<'a>(slices: &'a [IoSlice<'_>], skipped: usize, room: usize) -> [&'a [u8]; 2] {
    let (mut skipped, mut room) = (skipped, room);
    let mut part = [&[][..]; 2];
    let mut places = part.iter_mut();
    for slice in slices {
        let rest = slice.get(skipped..).unwrap_or_default();
        skipped = skipped.saturating_sub(slice.len());
        if rest.is_empty() || room == 0 {
            continue;
        }
        let Some(place) = places.next() else { break };
        *place = &rest[..rest.len().min(room)];
        room -= place.len();
    }
    part
}
