//! The header of a frame, in and out (RFC 6455 §5.2).

/// The longest header of a server: two bytes, and eight of length.
pub(crate) const MAX_SENT: usize = 10;
/// The longest header of a client: four bytes of mask more.
pub(crate) const MAX_RECEIVED: usize = 14;
/// The longest payload of a control frame, and the longest whose length fits into the second byte of a header.
pub(crate) const SHORT: usize = 125;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

/// The header of a client's frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) opcode: Opcode,
    pub(crate) is_final: bool,
    pub(crate) mask: [u8; 4],
    /// The header's own length.
    pub(crate) size: usize,
    /// The payload's length.
    pub(crate) length: usize,
}

impl Opcode {
    fn new(bits: u8) -> Option<Self> {
        match bits {
            0x0 => Some(Self::Continuation),
            0x1 => Some(Self::Text),
            0x2 => Some(Self::Binary),
            0x8 => Some(Self::Close),
            0x9 => Some(Self::Ping),
            0xa => Some(Self::Pong),
            _ => None,
        }
    }

    pub(crate) fn is_control(self) -> bool {
        self as u8 >= 0x8
    }
}

impl Header {
    /// The header that `bytes` begin with; `None` when more are needed.
    ///
    /// # Errors
    ///
    /// The rule that the client broke. What the first two bytes show is told without waiting for the rest.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Self>, &'static str> {
        let [first, second, rest @ ..] = bytes else {
            return Ok(None);
        };
        let opcode = Opcode::new(first & 0x0f).ok_or("unknown opcode")?;
        let is_final = first & 0x80 != 0;
        if first & 0x70 != 0 {
            return Err("reserved bits are set");
        }
        if second & 0x80 == 0 {
            return Err("client frames have to be masked");
        }
        let short = usize::from(second & 0x7f);
        if opcode.is_control() && !is_final {
            return Err("control frames cannot be fragmented");
        }
        if opcode.is_control() && short > SHORT {
            return Err("control frames hold at most 125 bytes");
        }
        let (length, shortest, mask) = match short {
            126 => {
                let Some((length, mask)) = rest.split_first_chunk() else { return Ok(None) };
                (u64::from(u16::from_be_bytes(*length)), 126, mask)
            }
            127 => {
                let Some((length, mask)) = rest.split_first_chunk() else { return Ok(None) };
                (u64::from_be_bytes(*length), 1 << 16, mask)
            }
            short => (short as u64, 0, rest),
        };
        if length < shortest {
            return Err("the length is not in its shortest form");
        }
        if length >> 63 != 0 {
            return Err("the length has its highest bit set");
        }
        let Some((mask, payload)) = mask.split_first_chunk() else {
            return Ok(None);
        };
        Ok(Some(Self {
            opcode,
            is_final,
            mask: *mask,
            size: bytes.len() - payload.len(),
            // What memory cannot hold is over every limit.
            length: usize::try_from(length).unwrap_or(usize::MAX),
        }))
    }
}

/// Writes the header of a server's frame, which is whole and has no mask, to the beginning of `out`; its length.
pub(crate) fn write(opcode: Opcode, length: usize, out: &mut [u8]) -> usize {
    out[0] = 0x80 | opcode as u8;
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if length <= SHORT => {
            out[1] = short;
            2
        }
        (_, Ok(length)) => {
            out[1] = 126;
            out[2..4].copy_from_slice(&length.to_be_bytes());
            4
        }
        _ => {
            out[1] = 127;
            out[2..MAX_SENT].copy_from_slice(&(length as u64).to_be_bytes());
            MAX_SENT
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_parsed_when_it_is_whole() {
        for (wire, opcode, is_final, length) in [
            (b"\x81\x85abcd".as_slice(), Opcode::Text, true, 5),
            (b"\x02\x80abcd", Opcode::Binary, false, 0),
            (b"\x00\xfe\x00\x7eabcd", Opcode::Continuation, false, 126),
            (b"\x82\xfe\xff\xffabcd", Opcode::Binary, true, 65_535),
            (b"\x82\xff\0\0\0\0\0\x01\0\0abcd", Opcode::Binary, true, 65_536),
            (b"\x88\x82abcd", Opcode::Close, true, 2),
            (b"\x89\xfdabcd", Opcode::Ping, true, 125),
            (b"\x8a\x80abcd", Opcode::Pong, true, 0),
        ] {
            for cut in 0..wire.len() {
                assert!(Header::parse(&wire[..cut]).unwrap().is_none(), "{wire:02x?} up to {cut}");
            }
            let header = Header::parse(&[wire, b"payload"].concat()).unwrap().unwrap();
            assert_eq!((header.opcode, header.is_final, header.length), (opcode, is_final, length));
            assert_eq!((&header.mask, header.size), (b"abcd", wire.len()));
        }
    }

    #[test]
    fn a_header_that_breaks_a_rule_is_told_as_soon_as_it_shows() {
        for (wire, word) in [
            (b"\x83\x80".as_slice(), "opcode"),
            (b"\x8b\x80", "opcode"),
            (b"\x87\xff", "opcode"),
            (b"\xc1\x80", "reserved"),
            (b"\x91\x80", "reserved"),
            (b"\x81\x05", "masked"),
            (b"\x08\x80", "fragmented"),
            (b"\x89\xfe", "125"),
            (b"\x88\xff", "125"),
            (b"\x81\xfe\x00\x7d", "shortest"),
            (b"\x81\xff\0\0\0\0\0\0\xff\xff", "shortest"),
            (b"\x81\xff\x80\0\0\0\0\0\0\0", "highest"),
        ] {
            assert!(Header::parse(&wire[..wire.len() - 1]).unwrap().is_none(), "{wire:02x?}");
            let error = Header::parse(wire).unwrap_err();
            assert!(error.contains(word), "{wire:02x?}: {error}");
        }
    }

    #[test]
    fn lengths_are_written_in_the_shortest_form() {
        for (length, expected) in [
            (0, b"\x82\0".as_slice()),
            (125, b"\x82\x7d"),
            (126, b"\x82\x7e\0\x7e"),
            (65_535, b"\x82\x7e\xff\xff"),
            (65_536, b"\x82\x7f\0\0\0\0\0\x01\0\0"),
        ] {
            let mut out = [0; MAX_SENT];
            let size = write(Opcode::Binary, length, &mut out);
            assert_eq!(&out[..size], expected, "{length} bytes");
        }
    }
}
