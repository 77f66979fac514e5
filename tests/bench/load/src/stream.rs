//! A connection to the server, in TLS or without, blocking or not.

use std::error::Error;
use std::io::ErrorKind::{InvalidData, UnexpectedEof, WouldBlock};
use std::io::{self, BufRead, IoSlice, Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustls::{ClientConnection, HandshakeKind};

use crate::Target;
use crate::tls;

pub(crate) struct Stream {
    tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Stream {
    pub(crate) fn connect(target: &Target) -> Result<Self, Box<dyn Error>> {
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, target.port))?;
        tcp.set_nodelay(true)?;
        let tls = target.tls.as_ref().map(tls::connection).transpose()?.map(Box::new);
        Ok(Self { tcp, tls })
    }

    /// Whether the handshake took up an earlier session.
    pub(crate) fn is_resumed(&self) -> bool {
        let kind = self.tls.as_ref().and_then(|tls| tls.handshake_kind());
        kind == Some(HandshakeKind::Resumed)
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// One read of the socket, into `buffer`: `take` gets what came, or where TLS is not in the way and `count_alone` is said,
    /// how much.
    pub(crate) fn receive(
        &mut self,
        buffer: &mut [u8],
        count_alone: bool,
        mut take: impl FnMut(Received<'_>) -> Result<(), Box<dyn Error>>,
    ) -> Result<(), Box<dyn Error>> {
        // With this flag TCP counts, and copies nothing (tcp(7)).
        let count_alone = count_alone && self.tls.is_none();
        let flags = if count_alone { RecvFlags::TRUNC } else { RecvFlags::empty() };
        let count = match recv(&self.tcp, &mut *buffer, flags) {
            Ok((_, 0)) => return Err("the server closed".into()),
            Ok((_, count)) => count,
            Err(Errno::WOULDBLOCK) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let Some(tls) = &mut self.tls else {
            let counted = Received::Counted(count);
            return take(if count_alone { counted } else { Received::Bytes(&buffer[..count]) });
        };
        let mut arrived = &buffer[..count];
        while !arrived.is_empty() {
            tls.read_tls(&mut arrived)?;
            tls.process_new_packets()?;
            loop {
                let mut reader = tls.reader();
                let Ok(opened @ [_, ..]) = reader.fill_buf() else { break };
                let length = opened.len();
                take(Received::Bytes(opened))?;
                reader.consume(length);
            }
        }
        Ok(())
    }

    /// Whether something that is sealed waits for the socket.
    pub(crate) fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// How much of `slices` is on its way: what TLS has sealed is, also if the socket takes it later.
    ///
    /// # Errors
    ///
    /// `WouldBlock` where something waits for the socket; to be called again, with what follows or with nothing.
    pub(crate) fn send(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.tcp.write_vectored(slices) };
        while tls.wants_write() {
            tls.write_tls(&mut self.tcp)?;
        }
        let count = tls.writer().write_vectored(slices)?;
        while tls.wants_write() {
            match tls.write_tls(&mut self.tcp) {
                Err(error) if error.kind() == WouldBlock && count > 0 => break,
                result => result.map(drop)?,
            }
        }
        Ok(count)
    }
}

/// What a read brought.
pub(crate) enum Received<'a> {
    Bytes(&'a [u8]),
    /// So many, which nobody has seen.
    Counted(usize),
}

impl Received<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Counted(count) => *count,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.tcp.read(buffer) };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == WouldBlock => {}
                // Many servers end without a goodbye.
                Err(error) if error.kind() == UnexpectedEof => return Ok(0),
                result => return result,
            }
            tls.read_tls(&mut self.tcp)?;
            tls.process_new_packets().map_err(|error| io::Error::new(InvalidData, error))?;
            while tls.wants_write() {
                tls.write_tls(&mut self.tcp)?;
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(&[IoSlice::new(bytes)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
