//! Ciphertext on its way to the socket, and how much of the plaintext in it counts as written.

/// Buffers of ciphertext up to here are kept for the next write.
pub(super) const KEPT: usize = 1 << 10;

/// Ciphertext on its way to the socket.
#[derive(Default)]
pub(super) struct Ciphertext {
    bytes: Vec<u8>,
    sent: usize,
    /// How much plaintext was sealed into it.
    sealed: usize,
    /// How much of that the writer does not know to be written: with so many bytes its next write begins.
    owed: usize,
}

impl Ciphertext {
    pub(super) fn unsent(&self) -> &[u8] {
        self.bytes.get(self.sent..).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn reserve(&mut self, count: usize) {
        self.bytes.reserve(count);
    }

    /// Where more of it is to be appended.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The last record that was appended has so much plaintext in it.
    pub(super) fn note_sealed(&mut self, count: usize) {
        self.sealed = self.owed + count;
        self.owed = self.sealed;
    }

    /// Whether a writer begins its next write with plaintext that is sealed already.
    pub(super) fn is_owed(&self) -> bool {
        self.owed > 0
    }

    pub(super) fn is_left(&self) -> bool {
        self.sent < self.bytes.len()
    }

    /// The socket took `count` bytes: how much more plaintext counts as written. It is the same share of what was sealed,
    /// so that a slow client is seen to take something, and all of it only when nothing is left.
    pub(super) fn note_sent(&mut self, count: usize) -> usize {
        self.sent += count;
        let left = self.bytes.len() - self.sent;
        let owed = (self.sealed * left).div_ceil(self.bytes.len().max(1)).min(self.owed);
        let written = self.owed - owed;
        self.owed = owed;
        if left == 0 {
            self.sent = 0;
            self.bytes.clear();
            if self.bytes.capacity() > KEPT {
                self.bytes = Vec::new();
            }
        }
        written
    }
}
