//! The protocol of Redis, version 3 (RESP3): commands to bytes, and bytes to what they say.

use redis_protocol::resp3::decode::complete::decode_range;
use redis_protocol::resp3::types::RangeFrame;

use crate::redis::frame::{self, Malformed};

/// Every number of so many digits fits into 64 bits, with a sign.
const MAX_DIGITS: usize = 18;

/// What Redis says: an answer to a command, in the order of commands, or a message, at any time.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply<'a> {
    Message {
        channel: &'a [u8],
        payload: &'a [u8],
    },
    /// The subscription to one channel holds from now on.
    Subscribed,
    Unsubscribed(&'a [u8]),
    /// Of the answer to HELLO, what matters here.
    Greeting(Greeting<'a>),
    Error(&'a [u8]),
    /// A number, which answers PUBLISH: how many hear the channel.
    Number(u64),
    /// Which slots of a Redis Cluster are where, which answers CLUSTER SLOTS.
    Slots(Vec<Range<'a>>),
    /// Any other answer.
    Done,
    /// Nothing that answers a command, or that is of interest.
    Other,
}

/// What a server says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Greeting<'a> {
    pub(crate) mode: &'a [u8],
    pub(crate) role: &'a [u8],
}

/// Slots from the first to the last that one master has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Range<'a> {
    pub(crate) first: usize,
    pub(crate) last: usize,
    /// Empty where it is the one that was asked.
    pub(crate) host: &'a [u8],
    pub(crate) port: u16,
}

/// Writes a command.
pub(crate) fn command(buffer: &mut Vec<u8>, arguments: &[&[u8]]) {
    array(buffer, arguments.len());
    for argument in arguments {
        bulk(buffer, &[argument]);
    }
}

/// Writes the beginning of a command of so many arguments.
pub(crate) fn array(buffer: &mut Vec<u8>, length: usize) {
    buffer.push(b'*');
    number(buffer, length);
}

/// Writes one argument, whose parts follow each other.
pub(crate) fn bulk(buffer: &mut Vec<u8>, parts: &[&[u8]]) {
    buffer.push(b'$');
    number(buffer, parts.iter().map(|part| part.len()).sum());
    parts.iter().for_each(|part| buffer.extend_from_slice(part));
    buffer.extend_from_slice(b"\r\n");
}

/// Four for each message, so that `format` would be most of what writing one takes.
fn number(buffer: &mut Vec<u8>, mut number: usize) {
    let start = buffer.len();
    loop {
        buffer.push(b'0' + (number % 10) as u8);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    buffer[start..].reverse();
    buffer.extend_from_slice(b"\r\n");
}

/// The first reply in `bytes`, and how many of them it takes; `None` while it is not whole.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Reply<'_>, usize)>, Malformed> {
    match frequent(bytes) {
        Some(found) => Ok(Some(found)),
        None => general(bytes),
    }
}

fn general(bytes: &[u8]) -> Result<Option<(Reply<'_>, usize)>, Malformed> {
    let Some(length) = frame::length(bytes)? else { return Ok(None) };
    match decode_range(&bytes[..length]) {
        Ok(Some((frame, decoded))) if decoded == length => Ok(Some((reply(bytes, &frame), length))),
        _ => Err(Malformed),
    }
}

/// The two replies that come for each message, in the form that Redis gives them, found without a frame for each of their
/// parts. `None` for one in another form, and while it is not whole.
fn frequent(bytes: &[u8]) -> Option<(Reply<'_>, usize)> {
    let (reply, rest) = if let Some(rest) = bytes.strip_prefix(b":") {
        let (number, rest) = digits(rest)?;
        (Reply::Number(number), rest)
    } else {
        let rest = bytes
            .strip_prefix(b">3\r\n$7\r\nmessage\r\n")
            .or_else(|| bytes.strip_prefix(b">3\r\n$8\r\nsmessage\r\n"))?;
        let (channel, rest) = string(rest)?;
        let (payload, rest) = string(rest)?;
        (Reply::Message { channel, payload }, rest)
    };
    Some((reply, bytes.len() - rest.len()))
}

/// A string, and what follows it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = digits(bytes.strip_prefix(b"$")?)?;
    let (text, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some((text, rest.strip_prefix(b"\r\n")?))
}

/// A number without a sign, and what follows its line.
fn digits(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let length = bytes.iter().take(MAX_DIGITS).take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = bytes.split_at(length);
    let rest = rest.strip_prefix(b"\r\n").filter(|_| length > 0)?;
    Some((digits.iter().fold(0, |sum, digit| 10 * sum + u64::from(digit - b'0')), rest))
}

fn reply<'a>(bytes: &'a [u8], frame: &RangeFrame) -> Reply<'a> {
    match frame {
        RangeFrame::Push { data, .. } => match data.as_slice() {
            [kind, rest @ ..] => push(bytes, text(bytes, kind), rest),
            [] => Reply::Other,
        },
        RangeFrame::SimpleError { data, .. } | RangeFrame::BlobError { data, .. } => {
            Reply::Error(&bytes[data.0..data.1])
        }
        RangeFrame::Map { data, .. } => {
            let mut greeting = Greeting::default();
            for (key, value) in data {
                match text(bytes, key) {
                    b"mode" => greeting.mode = text(bytes, value),
                    b"role" => greeting.role = text(bytes, value),
                    _ => {}
                }
            }
            Reply::Greeting(greeting)
        }
        RangeFrame::Number { data, .. } => Reply::Number(u64::try_from(*data).unwrap_or_default()),
        RangeFrame::Array { data, .. } => {
            Reply::Slots(data.iter().filter_map(|frame| range(bytes, frame)).collect())
        }
        _ => Reply::Done,
    }
}

/// The first of those who have the slots is their master.
fn range<'a>(bytes: &'a [u8], frame: &RangeFrame) -> Option<Range<'a>> {
    let RangeFrame::Array { data, .. } = frame else { return None };
    let [first, last, RangeFrame::Array { data: master, .. }, ..] = data.as_slice() else {
        return None;
    };
    let [host, port, ..] = master.as_slice() else { return None };
    Some(Range {
        first: number_in(first)?,
        last: number_in(last)?,
        host: text(bytes, host),
        port: number_in(port)?,
    })
}

fn number_in<T: TryFrom<i64>>(frame: &RangeFrame) -> Option<T> {
    let RangeFrame::Number { data, .. } = frame else { return None };
    (*data).try_into().ok()
}

fn push<'a>(bytes: &'a [u8], kind: &[u8], rest: &[RangeFrame]) -> Reply<'a> {
    match (kind, rest) {
        (b"message" | b"smessage", [channel, payload]) => {
            Reply::Message { channel: text(bytes, channel), payload: text(bytes, payload) }
        }
        (b"subscribe" | b"ssubscribe", _) => Reply::Subscribed,
        (b"unsubscribe" | b"sunsubscribe", [channel, ..]) => {
            Reply::Unsubscribed(text(bytes, channel))
        }
        _ => Reply::Other,
    }
}

/// The bytes of a string; none of anything else.
fn text<'a>(bytes: &'a [u8], frame: &RangeFrame) -> &'a [u8] {
    match frame {
        RangeFrame::BlobString { data, .. } | RangeFrame::SimpleString { data, .. } => {
            &bytes[data.0..data.1]
        }
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_an_array_of_strings() {
        let mut buffer = Vec::new();
        command(&mut buffer, &[b"PUBLISH", b"a", b""]);
        assert_eq!(buffer, b"*3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$0\r\n\r\n");
        buffer.clear();
        array(&mut buffer, 1_234_567_890);
        assert_eq!(buffer, b"*1234567890\r\n");
    }

    const STREAM: &[u8] = b"%3\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n\
        >3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n\
        >3\r\n$7\r\nmessage\r\n$1\r\na\r\n$4\r\n\r\n\0x\r\n:2\r\n+OK\r\n-NOPERM no\r\n\
        >3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n>2\r\n$10\r\ninvalidate\r\n_\r\n\
        *2\r\n*4\r\n:0\r\n:5460\r\n*3\r\n$0\r\n\r\n:7000\r\n$1\r\nx\r\n*2\r\n$1\r\nh\r\n:1\r\n*2\r\n:1\r\n:2\r\n";

    fn expected() -> [Reply<'static>; 9] {
        [
            Reply::Greeting(Greeting { mode: b"standalone", role: b"master" }),
            Reply::Subscribed,
            Reply::Message { channel: b"a", payload: b"\r\n\0x" },
            Reply::Number(2),
            Reply::Done,
            Reply::Error(b"NOPERM no"),
            Reply::Unsubscribed(b"a"),
            Reply::Other,
            Reply::Slots(vec![Range { first: 0, last: 5460, host: b"", port: 7000 }]),
        ]
    }

    #[test]
    fn replies_come_one_after_the_other_and_wait_until_they_are_whole() {
        for cut in 0..=STREAM.len() {
            let (mut at, mut replies) = (0, Vec::new());
            for end in [cut, STREAM.len()] {
                while let Some((reply, length)) = parse(&STREAM[at..end]).unwrap() {
                    replies.push(reply);
                    at += length;
                }
            }
            assert_eq!(replies, expected(), "cut at {cut}");
        }
    }

    #[test]
    fn what_is_frequent_is_found_as_everything_else_is() {
        let message = |channel: &[u8], payload: &[u8]| {
            let mut bytes = Vec::new();
            bytes.extend_from_slice(b">3\r\n");
            [b"message", channel, payload].iter().for_each(|part| bulk(&mut bytes, &[part]));
            bytes
        };
        for (bytes, is_frequent) in [
            (message(b"a", b"$1\r\nx\r\n"), true),
            (message(b"", b""), true),
            (message(b"room", &[7; 70_000]), true),
            (b":0\r\n".to_vec(), true),
            (b":999999999999999999\r\n".to_vec(), true),
            (b":9223372036854775807\r\n".to_vec(), false),
            (b":0000000000000000000001\r\n".to_vec(), false),
            (b":-1\r\n".to_vec(), false),
            (b":+1\r\n".to_vec(), false),
            (b":\r\n".to_vec(), false),
            (b">3\r\n+message\r\n$1\r\na\r\n$1\r\nb\r\n".to_vec(), false),
            (b">3\r\n$7\r\nmessage\r\n$1\r\nab\r\n$1\r\nb\r\n".to_vec(), false),
            (b">3\r\n$7\r\nmessage\r\n$99999999999999999999\r\na\r\n".to_vec(), false),
        ] {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
            let more = [&bytes[..], b"+more\r\n"].concat();
            let found = frequent(&more);
            assert_eq!(found.is_some(), is_frequent, "{shown}");
            if found.is_some() {
                assert_eq!(Ok(found), general(&more), "{shown}");
            }
            for cut in 0..bytes.len().min(100) {
                assert_eq!(frequent(&bytes[..cut]), None, "{shown} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_no_reply_is_an_error() {
        for bytes in
            [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b":one\r\n", b"$-7\r\n\r\n", b"\0\0"]
        {
            assert_eq!(parse(bytes), Err(Malformed), "{bytes:?}");
        }
    }
}
