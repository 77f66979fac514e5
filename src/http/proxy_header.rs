//! The header by which a proxy says whose connection it passes on: the PROXY protocol, versions 1 and 2, of HAProxy.
//!
//! It stands before everything else, TLS too, and its reader must not take a byte of what comes behind it. So the parser
//! says how much more there is at least, and is asked again when that is there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// How a header of version 2 begins.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, a byte each for version and family, two for the length of what follows.
const FIXED: usize = 16;
/// `PROXY UNKNOWN` with its line end: no header is shorter.
const SHORTEST: usize = 15;
/// The longest header of version 1, with its line end.
const LONGEST_LINE: usize = 107;

/// What the bytes so far are.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The whole header: whose connection it is. `None` for the proxy's own, as for its health checks, or where it does not
    /// know.
    Whole(Option<SocketAddr>),
    /// At least so many bytes of it are missing.
    Needs(usize),
}

/// These bytes begin no header; why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// Looks at the beginning of a connection. A header may be `max_size` bytes long.
pub(crate) fn parse(bytes: &[u8], max_size: usize) -> Result<Step, Malformed> {
    let step = if begins(bytes, b"PROXY ") {
        parse_line(bytes)?
    } else if begins(bytes, SIGNATURE) {
        parse_binary(bytes)?
    } else {
        return Err(Malformed("it does not begin with a PROXY header"));
    };
    match step {
        Step::Needs(count) if bytes.len().saturating_add(count) > max_size => {
            Err(Malformed("the PROXY header is longer than `max_head_size`"))
        }
        step => Ok(step),
    }
}

/// Whether `bytes` are the beginning of something that begins with `start`.
fn begins(bytes: &[u8], start: &[u8]) -> bool {
    let length = bytes.len().min(start.len());
    bytes[..length] == start[..length]
}

/// Version 1: a line of words.
fn parse_line(bytes: &[u8]) -> Result<Step, Malformed> {
    if bytes.len() < SHORTEST {
        return Ok(Step::Needs(SHORTEST - bytes.len()));
    }
    if let Some(line) = bytes.strip_suffix(b"\r\n") {
        return parse_words(line).map(Step::Whole);
    }
    let missing = if bytes.ends_with(b"\r") { 1 } else { 2 };
    if bytes.len() + missing > LONGEST_LINE {
        return Err(Malformed("the line of the PROXY header does not end"));
    }
    Ok(Step::Needs(missing))
}

fn parse_words(line: &[u8]) -> Result<Option<SocketAddr>, Malformed> {
    const WRONG: Malformed = Malformed("the words of the PROXY header are wrong");
    let line = str::from_utf8(line).map_err(|_| WRONG)?;
    if line.contains(['\r', '\n']) {
        return Err(WRONG);
    }
    let words: Vec<_> = line.split(' ').collect();
    let source = match words[..] {
        // What stands behind it is to be ignored.
        ["PROXY", "UNKNOWN", ..] => return Ok(None),
        ["PROXY", "TCP4", source, target, source_port, target_port] => {
            addresses::<Ipv4Addr>(source, target, source_port, target_port)
        }
        ["PROXY", "TCP6", source, target, source_port, target_port] => {
            addresses::<Ipv6Addr>(source, target, source_port, target_port)
        }
        _ => None,
    };
    source.map(Some).ok_or(WRONG)
}

/// The source's address, if all are right.
fn addresses<T: FromStr + Into<IpAddr>>(
    source: &str,
    target: &str,
    source_port: &str,
    target_port: &str,
) -> Option<SocketAddr> {
    let (address, _): (T, T) = (source.parse().ok()?, target.parse().ok()?);
    let (port, _) = (port(source_port)?, port(target_port)?);
    Some(SocketAddr::new(address.into(), port))
}

fn port(text: &str) -> Option<u16> {
    let is_plain = text == "0" || (!text.starts_with(['0', '+']) && !text.is_empty());
    text.parse().ok().filter(|_| is_plain)
}

/// Version 2: fields of fixed length, then addresses, then more that need not be known.
fn parse_binary(bytes: &[u8]) -> Result<Step, Malformed> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else {
        return Ok(Step::Needs(FIXED - bytes.len()));
    };
    let [.., version, family, high, low] = *fixed;
    let is_proxied = match version {
        0x20 => false,
        0x21 => true,
        _ => return Err(Malformed("the version or command of the PROXY header is not known")),
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    // Of IPv4 and IPv6 two addresses and two ports, of Unix two paths.
    let least = match family {
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        // The proxy's own connection may be of any.
        _ if !is_proxied => 0,
        _ => return Err(Malformed("the PROXY header is of no TCP connection")),
    };
    if is_proxied && length < least {
        return Err(Malformed("the PROXY header is too short for its addresses"));
    }
    if rest.len() < length {
        return Ok(Step::Needs(length - rest.len()));
    }
    let source = match family {
        _ if !is_proxied => None,
        0x11 => source::<4>(rest, 8),
        0x21 => source::<16>(rest, 32),
        _ => None,
    };
    Ok(Step::Whole(source))
}

/// The source's address, and its port, which stands at `port`.
fn source<const N: usize>(addresses: &[u8], port: usize) -> Option<SocketAddr>
where
    IpAddr: From<[u8; N]>,
{
    let address = *addresses.first_chunk::<N>()?;
    let port = *addresses.get(port..)?.first_chunk()?;
    Some(SocketAddr::new(address.into(), u16::from_be_bytes(port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 16 << 10;

    fn binary(version: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[version, family][..], &length, rest].concat()
    }

    const IPV4: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0x30, 0x39, 0x01, 0xbb];

    fn ipv6() -> Vec<u8> {
        let source = "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets();
        [&source[..], &[0; 16], &[0x30, 0x39, 0x01, 0xbb]].concat()
    }

    /// Right headers with whose connection they tell of.
    fn headers() -> Vec<(Vec<u8>, Option<&'static str>)> {
        let line = |line: &str| format!("{line}\r\n").into_bytes();
        let ssl = [0x20, 0, 5, 1, 0, 0, 0, 0];
        vec![
            (line("PROXY TCP4 192.0.2.7 198.51.100.1 12345 443"), Some("192.0.2.7:12345")),
            (line("PROXY TCP4 255.255.255.255 0.0.0.0 65535 0"), Some("255.255.255.255:65535")),
            (line("PROXY TCP6 2001:db8::7 ::1 12345 443"), Some("[2001:db8::7]:12345")),
            (line("PROXY UNKNOWN"), None),
            (line("PROXY UNKNOWN whatever stands here"), None),
            (line(&format!("PROXY UNKNOWN {}", "x".repeat(91))), None),
            (binary(0x21, 0x11, &IPV4), Some("192.0.2.7:12345")),
            (binary(0x21, 0x11, &[&IPV4[..], &ssl].concat()), Some("192.0.2.7:12345")),
            (binary(0x21, 0x21, &ipv6()), Some("[2001:db8::7]:12345")),
            (binary(0x21, 0x31, &[0; 216]), None),
            (binary(0x21, 0x00, b"ignored"), None),
            (binary(0x20, 0x00, b""), None),
            (binary(0x20, 0x11, &IPV4), None),
            (binary(0x20, 0x77, b"anything"), None),
        ]
    }

    /// Reads a header as a connection does, with a limit for what one read brings; how many bytes it took.
    fn read(bytes: &[u8], most: usize) -> Result<(Option<SocketAddr>, usize), Malformed> {
        let mut taken = 0;
        loop {
            match parse(&bytes[..taken], MAX)? {
                Step::Whole(client) => return Ok((client, taken)),
                Step::Needs(count) => {
                    assert!(count > 0, "it needs nothing and is not whole");
                    if taken == bytes.len() {
                        return Err(Malformed("it ends early"));
                    }
                    taken = (taken + count.min(most)).min(bytes.len());
                }
            }
        }
    }

    #[test]
    fn a_header_is_read_in_whatever_pieces_it_comes_and_not_a_byte_more() {
        for (header, client) in headers() {
            let client = client.map(|client| client.parse().unwrap());
            let bytes = [&header[..], b"\r\nGET / HTTP/1.1\r\n"].concat();
            for most in [1, 2, 3, 7, 16, MAX] {
                let text = String::from_utf8_lossy(&header);
                assert_eq!(read(&bytes, most), Ok((client, header.len())), "{text:?} by {most}");
            }
        }
    }

    #[test]
    fn a_part_of_a_header_needs_no_more_than_is_missing() {
        for (header, _) in headers() {
            for length in 0..header.len() {
                match parse(&header[..length], MAX) {
                    Ok(Step::Needs(count)) => assert!(count <= header.len() - length),
                    other => panic!("{length} bytes of {header:?}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn a_header_with_a_wrong_byte_is_another_one_or_none_in_whatever_pieces_it_comes() {
        for (header, _) in headers() {
            for at in 0..header.len() {
                for byte in
                    [0, 1, b'\n', b'\r', b' ', b'0', b'9', header[at] ^ 1, header[at] ^ 0x80, 255]
                {
                    let mut changed = header.clone();
                    changed[at] = byte;
                    changed.extend(b"GET / HTTP/1.1\r\n\r\n");
                    let [slowly, at_once] = [1, MAX].map(|most| read(&changed, most));
                    assert_eq!(slowly, at_once, "{byte} at {at} of {header:?}");
                    let end = slowly.map_or(0, |(_, end)| end);
                    assert!(end <= changed.len(), "it read behind the end");
                }
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
        assert_eq!(long.len(), LONGEST_LINE + 1);
        for most in [1, 2, 3, 7, MAX] {
            assert!(read(long.as_bytes(), most).is_err(), "a byte too long, by {most}");
        }
        for line in [
            "GET / HTTP/1.1\r\n",
            "PROXY\r\n is no header at all",
            "proxy TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY  TCP4 192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 2 \r\n",
            "PROXY TCP4 2001:db8::7 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.256 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.02.7 198.51.100.1 1 2\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 65536 2\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +1 2\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 01 2\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1  2\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 1 2\r\n",
            "PROXY UNKNOWN \n and a line\r\n",
            "PROXY UNKNOWN \r and a line\r\n",
        ] {
            assert!(read(line.as_bytes(), MAX).is_err(), "{line:?}");
        }
        for (what, header) in [
            ("version 1", binary(0x11, 0x11, &IPV4)),
            ("version 3", binary(0x31, 0x11, &IPV4)),
            ("another command", binary(0x22, 0x11, &IPV4)),
            ("UDP", binary(0x21, 0x12, &IPV4)),
            ("another family", binary(0x21, 0x41, &IPV4)),
            ("too short for IPv4", binary(0x21, 0x11, &IPV4[1..])),
            ("too short for IPv6", binary(0x21, 0x21, &ipv6()[1..])),
            ("too short for Unix", binary(0x21, 0x31, &[0; 215])),
            ("another signature", [&SIGNATURE[..11], b"\r\x21\x11\0\0"].concat()),
        ] {
            assert!(read(&header, MAX).is_err(), "{what}");
        }
    }

    #[test]
    fn a_length_that_is_only_announced_is_held_to_the_limit() {
        let mut header = binary(0x21, 0x11, &IPV4);
        header[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
        assert!(parse(&header, MAX).is_err());
        assert_eq!(parse(&header, usize::MAX), Ok(Step::Needs(65_535 - 12)));
    }
}
