//! The header of a frame, in and out (RFC 6455 §5.2).

/// The longest header of a server: two bytes, and eight of length.
pub(crate) const MAX_SENT: usize = 10;
/// The longest header of a client: four bytes of mask more.
pub(crate) const MAX_RECEIVED: usize = 14;
/// The longest payload of a control frame, and the longest whose length fits into the second byte of a header.
pub(crate) const SHORT: usize = 125;

/// In the first byte: the frame is the last of its message.
pub(crate) const FIN: u8 = 0x80;
/// In the first byte of a message: it is compressed, where that was agreed on (RFC 7692 §6).
pub(crate) const RSV1: u8 = 0x40;
/// In the first byte: what no extension means anything by.
pub(crate) const RESERVED: u8 = 0x70;

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
    pub(crate) is_compressed: bool,
    pub(crate) mask: [u8; 4],
    /// The header's own length.
    pub(crate) size: usize,
    /// The payload's length.
    pub(crate) length: usize,
}

/// A message of one frame that is whole, and not compressed.
pub(crate) struct WholeMessage<'a> {
    pub(crate) is_text: bool,
    pub(crate) mask: [u8; 4],
    /// Under the mask.
    pub(crate) payload: &'a [u8],
    /// What stands behind it.
    pub(crate) rest: &'a [u8],
}

impl<'a> WholeMessage<'a> {
    /// The message that `bytes` begin with, if they begin with one that [`Header::parse`] takes: most frames are one, and
    /// this asks the fewest questions about it. `None` says nothing.
    #[inline]
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        const TEXT: u8 = FIN | Opcode::Text as u8;
        const BINARY: u8 = FIN | Opcode::Binary as u8;
        let [first @ (TEXT | BINARY), second @ 0x80..=0xfe, rest @ ..] = bytes else {
            return None;
        };
        let (length, rest) = match usize::from(second & 0x7f) {
            126 => {
                let (length, rest) = rest.split_first_chunk()?;
                let length = usize::from(u16::from_be_bytes(*length));
                if length <= SHORT {
                    return None;
                }
                (length, rest)
            }
            short => (short, rest),
        };
        let (mask, rest) = rest.split_first_chunk()?;
        let (payload, rest) = rest.split_at_checked(length)?;
        Some(Self { is_text: *first == TEXT, mask: *mask, payload, rest })
    }
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
    /// The header that `bytes` begin with, in which the bits of `reserved` may not be set; `None` when more are needed.
    ///
    /// # Errors
    ///
    /// The rule that the client broke. What the first two bytes show is told without waiting for the rest.
    #[inline]
    pub(crate) fn parse(bytes: &[u8], reserved: u8) -> Result<Option<Self>, &'static str> {
        let [first, second, rest @ ..] = bytes else {
            return Ok(None);
        };
        let opcode = Opcode::new(first & 0x0f).ok_or("unknown opcode")?;
        let is_final = first & FIN != 0;
        if first & reserved != 0 {
            return Err("reserved bits are set");
        }
        let is_compressed = first & RSV1 != 0;
        if is_compressed && !matches!(opcode, Opcode::Text | Opcode::Binary) {
            return Err("only the first frame of a message says that it is compressed");
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
            is_compressed,
            mask: *mask,
            size: bytes.len() - payload.len(),
            // What memory cannot hold is over every limit.
            length: usize::try_from(length).unwrap_or(usize::MAX),
        }))
    }
}

/// The header of a server's frame, which has no mask, as most are: of a payload that is [`SHORT`].
#[inline]
pub(crate) fn short(first: u8, length: usize) -> Option<[u8; 2]> {
    (length <= SHORT).then_some([first, length as u8])
}

/// Writes the header of a server's frame, which has no mask, to the beginning of `out`; its length.
pub(crate) fn write(first: u8, length: usize, out: &mut [u8; MAX_SENT]) -> usize {
    if let Some(short) = short(first, length) {
        out[..2].copy_from_slice(&short);
        return 2;
    }
    out[0] = first;
    if let Ok(length) = u16::try_from(length) {
        out[1] = 126;
        out[2..4].copy_from_slice(&length.to_be_bytes());
        return 4;
    }
    out[1] = 127;
    out[2..].copy_from_slice(&(length as u64).to_be_bytes());
    MAX_SENT
}

/// How many bytes [`write()`] writes.
#[inline]
pub(crate) fn size(length: usize) -> usize {
    match length {
        0..=SHORT => 2,
        126..=0xffff => 4,
        _ => MAX_SENT,
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
                assert!(
                    Header::parse(&wire[..cut], RESERVED).unwrap().is_none(),
                    "{wire:02x?} up to {cut}"
                );
            }
            let header = Header::parse(&[wire, b"payload"].concat(), RESERVED).unwrap().unwrap();
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
            assert!(
                Header::parse(&wire[..wire.len() - 1], RESERVED).unwrap().is_none(),
                "{wire:02x?}"
            );
            let error = Header::parse(wire, RESERVED).unwrap_err();
            assert!(error.contains(word), "{wire:02x?}: {error}");
        }
    }

    #[test]
    fn a_message_says_in_its_first_frame_that_it_is_compressed_where_that_was_agreed_on() {
        let reserved = RESERVED & !RSV1;
        for first in [0xc1, 0x41, 0xc2, 0x42] {
            let wire = [first, 0x80, 1, 2, 3, 4];
            assert!(Header::parse(&wire, reserved).unwrap().unwrap().is_compressed, "{first:x}");
            assert!(
                !Header::parse(&[first & !RSV1, 0x80, 1, 2, 3, 4], reserved)
                    .unwrap()
                    .unwrap()
                    .is_compressed
            );
            assert!(
                Header::parse(&wire, RESERVED).is_err(),
                "{first:x} where nothing was agreed on"
            );
        }
        for first in [0xc0, 0x40, 0xc8, 0xc9, 0xca, 0xe1, 0xd1, 0xf1, 0xa1, 0x91] {
            assert!(Header::parse(&[first, 0x80], reserved).is_err(), "{first:x}");
        }
    }

    #[test]
    fn a_whole_message_is_taken_for_what_its_header_says() {
        let lengths = [0, 1, 125, 126, 127, 65_535, 65_536];
        let announced = [vec![0x80], vec![0xfd], vec![0xfe, 0, 125], vec![0xfe, 0, 126]];
        let announced = announced.into_iter().chain([vec![0xfe, 255, 255], vec![0x7e, 0, 126]]);
        let announced = announced.chain([[vec![0xff], 65_536_u64.to_be_bytes().to_vec()].concat()]);
        let mut taken = 0;
        for (first, announced) in
            announced.flat_map(|bytes| (0..=255).map(move |b| (b, bytes.clone())))
        {
            for behind in lengths {
                let wire = [&[first], &announced[..], b"mask", &vec![7; behind]].concat();
                let Some(whole) = WholeMessage::parse(&wire) else { continue };
                let header = Header::parse(&wire, RESERVED).unwrap().unwrap();
                let opcode = if whole.is_text { Opcode::Text } else { Opcode::Binary };
                assert_eq!(
                    (opcode, true, false),
                    (header.opcode, header.is_final, header.is_compressed)
                );
                assert_eq!((whole.mask, whole.payload.len()), (header.mask, header.length));
                assert_eq!(whole.rest.len(), wire.len() - header.size - header.length);
                taken += 1;
            }
        }
        assert_eq!(taken, 2 * (7 + 5 + 4 + 2), "texts and binaries of four announced lengths");
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
            let size = write(FIN | Opcode::Binary as u8, length, &mut out);
            assert_eq!(&out[..size], expected, "{length} bytes");
            assert_eq!(super::size(length), size, "{length} bytes");
        }
    }
}
