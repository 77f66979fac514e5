//! The head of a request: the request line and the headers (RFC 9112 §2 to §5).

use std::borrow::Cow;

use crate::base::shown::Shown;
use crate::http::headers::Headers;
use crate::http::host::split_authority;
use crate::http::method::Method;
use crate::http::rejection::Rejection;
use crate::http::status::Status;

/// The head of a request as it stood on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) method: Method,
    /// Not decoded.
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) is_http_11: bool,
    pub(crate) headers: Headers,
}

/// Other protocols begin with a byte that no method has, and may never send the end of a line.
pub(crate) fn check_first_byte(buffer: &[u8]) -> Result<(), Rejection> {
    match buffer {
        // It may be the first half of an empty line.
        [] | [b'\r'] | [b'!'..=b'~', ..] => Ok(()),
        [first, ..] => Err(Rejection::bad(format!("no request begins with the byte {first:#04x}"))),
    }
}

/// The request line and the headers, and their length, once the empty line behind them is there.
///
/// Of several faults the first line's is reported, as if the lines had come one by one: so that the answer does not
/// depend on how many lines a read brings.
pub(crate) fn parse_head(
    lines: &[u8],
    max_headers: usize,
) -> Result<Option<(Head, usize)>, Rejection> {
    parse_lines(lines, max_headers).or_else(|_| {
        let faulty = up_to_first_fault(lines, |lines| parse_lines(lines, max_headers).is_err());
        parse_lines(faulty, max_headers)
    })
}

/// The shortest beginning of `lines` that is faulty, where all of them are. More lines never mend a fault, so bisection
/// finds it. To try one line more each time would take time that grows with the square of the length.
fn up_to_first_fault(lines: &[u8], mut is_faulty: impl FnMut(&[u8]) -> bool) -> &[u8] {
    let is_end = |byte: &u8| *byte == b'\n';
    let (mut sound, mut faulty) = (0_usize, lines.len());
    loop {
        let middle = sound.midpoint(faulty);
        let after = lines[middle..faulty - 1].iter().position(is_end).map(|at| middle + at + 1);
        let before = || lines[sound..middle].iter().rposition(is_end).map(|at| sound + at + 1);
        match after.or_else(before) {
            Some(end) if is_faulty(&lines[..end]) => faulty = end,
            Some(end) => sound = end,
            None => return &lines[..faulty],
        }
    }
}

fn parse_lines(bytes: &[u8], max_headers: usize) -> Result<Option<(Head, usize)>, Rejection> {
    let mut fields = room_for_fields(bytes, max_headers);
    let mut head = httparse::Request::new(&mut fields);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => {
            check_line_ends(bytes)?;
            return Ok(None);
        }
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Rejection::too_large_head(format!("more than {} headers", max_headers)));
        }
        Err(httparse::Error::Version) if names_http_version(bytes) => {
            let reason = "only HTTP/1.1 and HTTP/1.0 are spoken here";
            return Err(Rejection::new(Status::HTTP_VERSION_NOT_SUPPORTED, reason));
        }
        Err(error) => return Err(Rejection::bad(error.to_string())),
    };
    check_line_ends(&bytes[..length])?;
    let (Some(method), Some(target), Some(version)) = (head.method, head.path, head.version) else {
        return Err(Rejection::bad("the request line is incomplete"));
    };
    let Some(method) = Method::parse(method) else {
        let reason = format!("the method {:?} is unknown", Shown::value(method));
        return Err(Rejection::new(Status::NOT_IMPLEMENTED, reason));
    };
    let mut headers = Headers::with_capacity(head.headers.len(), length);
    for field in head.headers.iter() {
        headers.append(field.name, &field_text(field.value));
    }
    let (path, query, authority) = split_target(target)?;
    let is_http_11 = version == 1;
    check_host(&headers, is_http_11)?;
    if let Some(authority) = authority {
        // The target's host counts, not the header's (RFC 9112 §3.2.2).
        headers = headers_with_host(&headers, authority);
    }
    let (path, query) = (path.to_owned(), query.to_owned());
    Ok(Some((Head { method, path, query, is_http_11, headers }, length)))
}

/// Room for as many headers as there are lines: the limit may be far more.
pub(crate) fn room_for_fields(bytes: &[u8], max_headers: usize) -> Vec<httparse::Header<'_>> {
    let lines = bytes.split(|byte| *byte == b'\n').count();
    // Not on the stack: every connection keeps the pages that its stack has once needed.
    vec![httparse::EMPTY_HEADER; lines.min(max_headers)]
}

/// Lines end with CR LF. A lone LF or CR is read differently by different servers, which is how requests are smuggled.
pub(crate) fn check_line_ends(head: &[u8]) -> Result<(), Rejection> {
    let mut previous = 0;
    for &byte in head {
        if (byte == b'\n') != (previous == b'\r') {
            return Err(Rejection::bad("a line does not end with CR LF"));
        }
        previous = byte;
    }
    Ok(())
}

/// Whether the request line ends with some version of HTTP, such as that of HTTP/2's preface.
fn names_http_version(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(_), Some(_), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return false;
    };
    matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// Bytes over 127 are read as UTF-8 where they are that, and as Latin-1 otherwise (RFC 9110 §5.5).
fn field_text(value: &[u8]) -> Cow<'_, str> {
    match str::from_utf8(value) {
        Ok(text) => text.into(),
        Err(_) => value.iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// Path, query, and the authority of a target in absolute form (RFC 9112 §3.2).
fn split_target(target: &str) -> Result<(&str, &str, Option<&str>), Rejection> {
    // A client never sends a fragment (RFC 9110 §7.1), and a proxy before us may have read this one as a part of the
    // path.
    if target.contains('#') {
        return Err(Rejection::bad("the request's target has a fragment"));
    }
    let (authority, rest) = match target.split_once("://") {
        Some((scheme, absolute))
            if ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) =>
        {
            let end = absolute.find(['/', '?']).unwrap_or(absolute.len());
            let (authority, rest) = absolute.split_at(end);
            if split_authority(authority).is_none() {
                return Err(Rejection::bad("the request's target names no host"));
            }
            (Some(authority), rest)
        }
        _ => (None, target),
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    match path {
        "" if authority.is_some() => Ok(("/", query, authority)),
        "*" => Ok((path, query, authority)),
        path if path.starts_with('/') => Ok((path, query, authority)),
        _ => Err(Rejection::bad("the request's target is not a path")),
    }
}

/// An HTTP/1.1 request has one `Host`, and it is a host or, for a target without one, empty (RFC 9112 §3.2).
fn check_host(headers: &Headers, is_required: bool) -> Result<(), Rejection> {
    match headers.single("Host") {
        Ok(Some(host)) if host.is_empty() || split_authority(host).is_some() => Ok(()),
        Ok(Some(host)) => {
            Err(Rejection::bad(format!("the Host {:?} is not a host", Shown::value(host))))
        }
        Ok(None) if is_required => Err(Rejection::bad("there is no Host header")),
        Ok(None) => Ok(()),
        Err(count) => Err(Rejection::bad(format!("there are {count} Host headers"))),
    }
}

fn headers_with_host(headers: &Headers, host: &str) -> Headers {
    let mut changed = Headers::default();
    changed.append("Host", host);
    for (name, value) in headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("Host")) {
        changed.append(name, value);
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fault_is_found_wherever_it_is_with_little_work() {
        let long = "y".repeat(5000);
        let short = |count| vec!["a:\r\n"; count];
        let texts =
            [short(1), short(2), short(7), short(20_000), vec!["\n", "\n", long.as_str(), "\n"]];
        for lines in texts {
            let wire: Vec<u8> = lines.concat().into_bytes();
            let ends: Vec<usize> = (1..=wire.len()).filter(|end| wire[end - 1] == b'\n').collect();
            for fault in [0, 1, 2, ends.len() / 3, ends.len() - 1] {
                let Some(first) = ends.get(fault) else { continue };
                let mut tried = 0;
                let found = up_to_first_fault(&wire, |lines| {
                    tried += 1;
                    lines.len() >= *first
                });
                assert_eq!(found.len(), *first, "fault in line {fault} of {}", ends.len());
                let most = 2 * (wire.len().ilog2() as usize + 1);
                assert!(tried <= most, "{tried} times for {} lines", ends.len());
            }
        }
    }

    #[test]
    fn more_lines_make_up_for_no_fault() {
        let lines = [
            "GET / HTTP/1.1\r\n",
            "GET / HTTP/2.0\r\n",
            "BREW /# HTTP/1.0\r\n",
            "Host: x\r\n",
            "A: b\n",
            " b\r\n",
            "\r\n",
            "X: \0\r\n",
            "\n",
            "\r\r\n",
        ];
        let all = |length| 0..lines.len().pow(length);
        for (length, number) in (1..=5).flat_map(|length| all(length).map(move |n| (length, n))) {
            let wire: String =
                (0..length).map(|at| lines[number / lines.len().pow(at) % lines.len()]).collect();
            let wire = wire.as_bytes();
            let ends = (1..=wire.len()).filter(|end| wire[end - 1] == b'\n');
            let outcomes: Vec<_> = ends.map(|end| parse_lines(&wire[..end], 2)).collect();
            let first = outcomes.iter().position(Result::is_err).unwrap_or(outcomes.len());
            let text = String::from_utf8_lossy(wire);
            assert!(outcomes[first..].iter().all(Result::is_err), "{text:?}");
            let expected = outcomes.get(first).or(outcomes.last());
            assert_eq!(Some(&parse_head(wire, 2)), expected, "{text:?}");
        }
    }

    #[test]
    fn as_many_headers_as_may_be_are_taken_and_one_more_is_not() {
        for count in [0, 1, 2, 31, 32, 33, 34, 99, 100] {
            let outcome = |lines: usize| {
                let wire = format!("GET / HTTP/1.0\r\n{}\r\n", "X: y\r\n".repeat(lines));
                parse_head(wire.as_bytes(), count).map(|parsed| parsed.is_some())
            };
            assert_eq!(outcome(count), Ok(true), "{count}");
            let rejection = outcome(count + 1).unwrap_err();
            assert_eq!(rejection.reason, format!("more than {count} headers"));
            assert_eq!(rejection.status.code(), 431);
        }
    }
}
