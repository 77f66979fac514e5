//! What was read from Redis and is not yet understood: it grows for a long reply, up to a limit.

use std::io::{self, Read};
use std::sync::Arc;

use crate::redis::fault::Fault;
use crate::redis::frame;
use crate::redis::socket::Socket;

/// What one read brings at most, while no reply is longer.
const BUFFER: usize = 64 << 10;
/// For the longest string and what stands around it.
const MAX_BUFFER: usize = frame::MAX_STRING + BUFFER;

/// What was read and not yet understood.
pub(crate) struct ReadBuffer {
    socket: Arc<Socket>,
    buffer: Vec<u8>,
    /// What is in the buffer.
    start: usize,
    end: usize,
}

impl ReadBuffer {
    pub(crate) fn new(socket: Arc<Socket>) -> Self {
        Self { socket, buffer: vec![0; BUFFER], start: 0, end: 0 }
    }

    pub(crate) fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// So many bytes are understood.
    pub(crate) fn take(&mut self, count: usize) {
        self.start += count;
    }

    /// Reads more, behind what there is.
    pub(crate) fn fill(&mut self) -> Result<(), Fault> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end == 0 && self.buffer.len() > BUFFER {
            self.buffer = vec![0; BUFFER];
        }
        if self.end == self.buffer.len() {
            if self.end >= MAX_BUFFER {
                return Err(Fault::no_redis());
            }
            self.buffer.resize((2 * self.end).min(MAX_BUFFER), 0);
        }
        loop {
            match (&*self.socket).read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(Fault::ended()),
                Ok(count) => {
                    self.end += count;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Fault::of_stream(&error)),
            }
        }
    }
}
