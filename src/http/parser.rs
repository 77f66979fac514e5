//! Bytes in, requests out, under limits (RFC 9112). No socket in sight.

use std::borrow::Cow;
use std::io;

use crate::base::shown::Shown;
use crate::http::headers::Headers;
use crate::http::host::split_authority;
use crate::http::method::Method;
use crate::http::status::Status;

/// One read takes at most this much.
const READ: usize = 2048;
/// The longest line before a chunk, with its extensions, which are ignored.
const MAX_CHUNK_LINE: usize = 1024;

/// The limits of what is read of a request, all from the server's settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestLimits {
    pub(crate) max_head_size: usize,
    pub(crate) max_headers: usize,
    pub(crate) max_body_size: usize,
}

/// A request that is answered with an error status, after which the connection is closed: its end is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) status: Status,
    pub(crate) reason: String,
}

/// A whole request as it stood on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub(crate) method: Method,
    /// Not decoded.
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) is_http_11: bool,
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
}

/// What the bytes so far amount to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    NeedsInput,
    /// The client waits for permission to send its body.
    Continue,
    Request(Box<Parsed>),
}

/// What the parser waits for; each has a deadline of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not a byte of the request has come.
    Idle,
    Head,
    Body,
}

/// Turns bytes into requests. What comes behind a request stays for the next.
#[derive(Debug)]
pub(crate) struct Parser {
    limits: RequestLimits,
    buffer: Vec<u8>,
    /// Up to here the buffer was looked at for the end of a line.
    scanned: usize,
    body: Option<Body>,
    /// Whether the last head asks for no body, from its method on: it may be rejected before it is whole.
    is_head: bool,
}

/// A request whose body is arriving.
#[derive(Debug)]
struct Body {
    request: Box<Parsed>,
    framing: Framing,
    wants_continue: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(usize),
    ChunkSize,
    ChunkData(usize),
    ChunkEnd,
    Trailers,
}

impl Parser {
    pub(crate) fn new(limits: RequestLimits) -> Self {
        Self { limits, buffer: Vec::new(), scanned: 0, body: None, is_head: false }
    }

    pub(crate) fn phase(&self) -> Phase {
        match &self.body {
            Some(_) => Phase::Body,
            None if self.buffer.is_empty() => Phase::Idle,
            None => Phase::Head,
        }
    }

    /// Whether the last head was that of a `HEAD` request, also when it was rejected.
    pub(crate) fn is_head(&self) -> bool {
        self.is_head
    }

    /// Lets `read` append to the buffer.
    pub(crate) fn fill(
        &mut self,
        read: impl FnOnce(&mut Vec<u8>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.buffer.reserve(READ);
        read(&mut self.buffer)
    }

    /// What came behind the last request: the next one, or the first frames of a client that did not wait.
    pub(crate) fn take_rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Puts back what [`take_rest`](Self::take_rest) took.
    pub(crate) fn restore(&mut self, rest: Vec<u8>) {
        self.buffer = rest;
        self.scanned = 0;
        self.is_head = false;
    }

    /// The next step.
    pub(crate) fn next(&mut self) -> Result<Step, Rejection> {
        if self.body.is_none() && !self.begin()? {
            return Ok(Step::NeedsInput);
        }
        self.advance_body()
    }

    /// Parses the head once it is complete.
    fn begin(&mut self) -> Result<bool, Rejection> {
        // A server should ignore an empty line before a request (RFC 9112 §2.2).
        let blank = self.buffer.chunks_exact(2).take_while(|pair| pair == b"\r\n").count() * 2;
        self.buffer.drain(..blank);
        self.scanned = self.scanned.saturating_sub(blank);
        self.is_head = self.buffer.starts_with(b"HEAD ");
        check_first_byte(&self.buffer)?;
        let limit = self.limits.max_head_size;
        let head = &self.buffer[..self.buffer.len().min(limit)];
        // A head that trickles in is parsed line by line, not byte by byte.
        let last_line_end = head[self.scanned..].iter().rposition(|byte| *byte == b'\n');
        let parsed = match last_line_end {
            Some(last) => parse_head(&head[..=self.scanned + last], self.limits)?,
            None => None,
        };
        self.scanned = head.len();
        let Some((request, length)) = parsed else {
            return if head.len() == limit {
                Err(too_large_head(format!("the head is longer than {limit} bytes")))
            } else {
                Ok(false)
            };
        };
        self.buffer.drain(..length);
        self.scanned = 0;
        let framing = framing(&request, self.limits.max_body_size)?;
        let wants_continue = wants_continue(&request, framing)?;
        self.body = Some(Body { request: Box::new(request), framing, wants_continue });
        Ok(true)
    }

    fn advance_body(&mut self) -> Result<Step, Rejection> {
        let limit = self.limits.max_body_size;
        let Some(body) = &mut self.body else {
            return Ok(Step::NeedsInput);
        };
        loop {
            let is_complete = match &mut body.framing {
                Framing::Length(remaining) => {
                    take(&mut self.buffer, remaining, &mut body.request.body);
                    *remaining == 0
                }
                Framing::ChunkSize => {
                    let Some((line, size)) = chunk_size(&self.buffer)? else { break };
                    if size > limit.saturating_sub(body.request.body.len()) {
                        return Err(too_large_body(limit));
                    }
                    self.buffer.drain(..line);
                    body.framing =
                        if size == 0 { Framing::Trailers } else { Framing::ChunkData(size) };
                    continue;
                }
                Framing::ChunkData(remaining) => {
                    take(&mut self.buffer, remaining, &mut body.request.body);
                    if *remaining > 0 {
                        break;
                    }
                    body.framing = Framing::ChunkEnd;
                    continue;
                }
                Framing::ChunkEnd => match self.buffer.get(..2) {
                    Some(b"\r\n") => {
                        self.buffer.drain(..2);
                        body.framing = Framing::ChunkSize;
                        continue;
                    }
                    Some(_) => return Err(bad("a chunk is not followed by a line end")),
                    None => break,
                },
                Framing::Trailers => match skip_trailers(&self.buffer, self.limits)? {
                    Some(length) => {
                        self.buffer.drain(..length);
                        true
                    }
                    None => break,
                },
            };
            if is_complete {
                let request = self.body.take().expect("the body was just read").request;
                return Ok(Step::Request(request));
            }
            break;
        }
        if body.wants_continue && self.buffer.is_empty() {
            body.wants_continue = false;
            return Ok(Step::Continue);
        }
        Ok(Step::NeedsInput)
    }
}

fn bad(reason: impl Into<String>) -> Rejection {
    Rejection { status: Status::BAD_REQUEST, reason: reason.into() }
}

fn too_large_head(reason: String) -> Rejection {
    Rejection { status: Status::REQUEST_HEADER_FIELDS_TOO_LARGE, reason }
}

fn too_large_body(limit: usize) -> Rejection {
    let reason = format!("the body is longer than {limit} bytes");
    Rejection { status: Status::CONTENT_TOO_LARGE, reason }
}

/// Moves up to `remaining` bytes from the front of `buffer` to `body`.
fn take(buffer: &mut Vec<u8>, remaining: &mut usize, body: &mut Vec<u8>) {
    let count = buffer.len().min(*remaining);
    body.extend(buffer.drain(..count));
    *remaining -= count;
}

/// Other protocols begin with a byte that no method has, and may never send the end of a line.
fn check_first_byte(buffer: &[u8]) -> Result<(), Rejection> {
    match buffer {
        // It may be the first half of an empty line.
        [] | [b'\r'] | [b'!'..=b'~', ..] => Ok(()),
        [first, ..] => Err(bad(format!("no request begins with the byte {first:#04x}"))),
    }
}

/// The request line and the headers, and their length, once the empty line behind them is there.
///
/// Of several faults, that of the first line is told, as if each line had come alone: so that the answer does not
/// depend on where the reads end.
fn parse_head(lines: &[u8], limits: RequestLimits) -> Result<Option<(Parsed, usize)>, Rejection> {
    parse_lines(lines, limits).or_else(|_| {
        let faulty = up_to_first_fault(lines, |lines| parse_lines(lines, limits).is_err());
        parse_lines(faulty, limits)
    })
}

/// The fewest of `lines` that are faulty, where all together are. More lines make up for no fault, so it is searched for
/// by halves: to try one line more each time would take a time that grows with the square of the length.
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

fn parse_lines(bytes: &[u8], limits: RequestLimits) -> Result<Option<(Parsed, usize)>, Rejection> {
    let mut fields = room_for_fields(bytes, limits.max_headers);
    let mut head = httparse::Request::new(&mut fields);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => {
            check_line_ends(bytes)?;
            return Ok(None);
        }
        Err(httparse::Error::TooManyHeaders) => {
            return Err(too_large_head(format!("more than {} headers", limits.max_headers)));
        }
        Err(httparse::Error::Version) if names_http_version(bytes) => {
            let reason = "only HTTP/1.1 and HTTP/1.0 are spoken here".to_owned();
            return Err(Rejection { status: Status::HTTP_VERSION_NOT_SUPPORTED, reason });
        }
        Err(error) => return Err(bad(error.to_string())),
    };
    check_line_ends(&bytes[..length])?;
    let (Some(method), Some(target), Some(version)) = (head.method, head.path, head.version) else {
        return Err(bad("the request line is incomplete"));
    };
    let Some(method) = Method::parse(method) else {
        let reason = format!("the method {:?} is unknown", Shown::value(method));
        return Err(Rejection { status: Status::NOT_IMPLEMENTED, reason });
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
    let request = Parsed {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        is_http_11,
        headers,
        body: Vec::new(),
    };
    Ok(Some((request, length)))
}

/// Room for as many headers as there are lines: the limit may be far more.
fn room_for_fields(bytes: &[u8], max_headers: usize) -> Vec<httparse::Header<'_>> {
    let lines = bytes.split(|byte| *byte == b'\n').count();
    // Not on the stack: every connection keeps the pages that its stack has once needed.
    vec![httparse::EMPTY_HEADER; lines.min(max_headers)]
}

/// Lines end with CR LF. A lone LF or CR is read differently by different servers, which is how requests are smuggled.
fn check_line_ends(head: &[u8]) -> Result<(), Rejection> {
    let mut previous = 0;
    for &byte in head {
        if (byte == b'\n') != (previous == b'\r') {
            return Err(bad("a line does not end with CR LF"));
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
    // A fragment is never sent (RFC 9110 §7.1): whoever routed the request here may have read it as a path.
    if target.contains('#') {
        return Err(bad("the request's target has a fragment"));
    }
    let (authority, rest) = match target.split_once("://") {
        Some((scheme, absolute))
            if ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) =>
        {
            let end = absolute.find(['/', '?']).unwrap_or(absolute.len());
            let (authority, rest) = absolute.split_at(end);
            if split_authority(authority).is_none() {
                return Err(bad("the request's target names no host"));
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
        _ => Err(bad("the request's target is not a path")),
    }
}

/// An HTTP/1.1 request has one `Host`, and it is a host or, for a target without one, empty (RFC 9112 §3.2).
fn check_host(headers: &Headers, is_required: bool) -> Result<(), Rejection> {
    match headers.single("Host") {
        Ok(Some(host)) if host.is_empty() || split_authority(host).is_some() => Ok(()),
        Ok(Some(host)) => Err(bad(format!("the Host {:?} is not a host", Shown::value(host)))),
        Ok(None) if is_required => Err(bad("there is no Host header")),
        Ok(None) => Ok(()),
        Err(count) => Err(bad(format!("there are {count} Host headers"))),
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

/// How the body ends (RFC 9112 §6). Whatever two servers could read differently is refused.
fn framing(request: &Parsed, max_body_size: usize) -> Result<Framing, Rejection> {
    let length = request.headers.single("Content-Length");
    let coding = request.headers.single("Transfer-Encoding");
    match (length, coding) {
        (Ok(None), Ok(None)) => Ok(Framing::Length(0)),
        (Ok(None), Ok(Some(coding))) if !request.is_http_11 => {
            Err(bad(format!("HTTP/1.0 knows no Transfer-Encoding {:?}", Shown::value(coding))))
        }
        (Ok(None), Ok(Some(coding))) if coding.eq_ignore_ascii_case("chunked") => {
            Ok(Framing::ChunkSize)
        }
        (Ok(None), Ok(Some(coding))) => {
            let mut codings = coding.rsplit(',').map(|coding| coding.trim());
            let is_chunked = |coding: &str| coding.eq_ignore_ascii_case("chunked");
            // The end of the body is known, what is in it is not (RFC 9112 §6.1).
            let is_framed = codings.next().is_some_and(is_chunked) && !codings.any(is_chunked);
            let status = if is_framed { Status::NOT_IMPLEMENTED } else { Status::BAD_REQUEST };
            let reason = format!("the Transfer-Encoding {:?} is not chunked", Shown::value(coding));
            Err(Rejection { status, reason })
        }
        (Ok(Some(length)), Ok(None)) => {
            if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(bad(format!(
                    "the Content-Length {:?} is not a number",
                    Shown::value(length)
                )));
            }
            match length.parse() {
                Ok(length) if length <= max_body_size => Ok(Framing::Length(length)),
                _ => Err(too_large_body(max_body_size)),
            }
        }
        (Ok(Some(_)), Ok(Some(_))) => {
            Err(bad("there are both a Content-Length and a Transfer-Encoding"))
        }
        (Err(count), _) => Err(bad(format!("there are {count} Content-Length headers"))),
        (_, Err(count)) => Err(bad(format!("there are {count} Transfer-Encoding headers"))),
    }
}

/// Whether the client waits for a 100 before it sends its body (RFC 9110 §10.1.1).
fn wants_continue(request: &Parsed, framing: Framing) -> Result<bool, Rejection> {
    match request.headers.get("Expect") {
        None => Ok(false),
        Some(expected) if expected.eq_ignore_ascii_case("100-continue") => {
            Ok(request.is_http_11 && framing != Framing::Length(0))
        }
        Some(expected) => Err(Rejection {
            status: Status::EXPECTATION_FAILED,
            reason: format!("the expectation {:?} is unknown", Shown::value(expected)),
        }),
    }
}

/// The line before a chunk (RFC 9112 §7.1): its length, and the chunk's.
fn chunk_size(buffer: &[u8]) -> Result<Option<(usize, usize)>, Rejection> {
    // A size has at least one digit; httparse reads none as zero, which would end the body.
    if buffer.first().is_some_and(|byte| !byte.is_ascii_hexdigit()) {
        return Err(bad("a chunk has no valid size"));
    }
    // httparse takes 16 digits, the RFC any number of them: zeros before others say nothing.
    let zeros = buffer.iter().take_while(|byte| **byte == b'0').count();
    let is_number = buffer.get(zeros).is_some_and(u8::is_ascii_hexdigit);
    let skipped = if is_number { zeros } else { zeros.saturating_sub(1) };
    match httparse::parse_chunk_size(&buffer[skipped..]) {
        Ok(httparse::Status::Complete((rest, size))) if skipped + rest <= MAX_CHUNK_LINE => {
            let line = skipped + rest;
            check_line_ends(&buffer[..line])?;
            check_chunk_extension(&buffer[..line])?;
            // More than memory holds is over every limit.
            Ok(Some((line, usize::try_from(size).unwrap_or(usize::MAX))))
        }
        Ok(httparse::Status::Partial) if buffer.len() <= MAX_CHUNK_LINE => Ok(None),
        _ => Err(bad("a chunk has no valid size")),
    }
}

/// Space behind a size is allowed before an extension only, and in that are no control characters (RFC 9112 §7.1.1).
fn check_chunk_extension(line: &[u8]) -> Result<(), Rejection> {
    let text = line.strip_suffix(b"\r\n").unwrap_or(line);
    if text.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(bad("there is a control character before a chunk"));
    }
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let has_space = matches!(line[digits..], [b' ' | b'\t', ..]);
    if has_space && !line[digits..].trim_ascii_start().starts_with(b";") {
        return Err(bad("there is space behind the size of a chunk"));
    }
    Ok(())
}

/// The length of the trailers, whose content is ignored.
fn skip_trailers(buffer: &[u8], limits: RequestLimits) -> Result<Option<usize>, Rejection> {
    let bytes = &buffer[..buffer.len().min(limits.max_head_size)];
    let mut fields = room_for_fields(bytes, limits.max_headers);
    match httparse::parse_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete((length, _))) => {
            check_line_ends(&buffer[..length])?;
            Ok(Some(length))
        }
        Ok(httparse::Status::Partial) if buffer.len() < limits.max_head_size => Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            Err(too_large_head("the trailers are too long".to_owned()))
        }
        Err(error) => Err(bad(format!("in the trailers: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: RequestLimits =
        RequestLimits { max_head_size: 500, max_headers: 10, max_body_size: 50 };

    /// Feeds `wire` in reads of at most `size` bytes; requests, the number of 100s, and the rejection that ended them.
    fn parse(wire: &[u8], size: usize) -> (Vec<Parsed>, usize, Option<Rejection>) {
        let mut parser = Parser::new(LIMITS);
        let (mut requests, mut continues) = (Vec::new(), 0);
        let mut reads = wire.chunks(size);
        loop {
            match parser.next() {
                Ok(Step::Request(request)) => requests.push(*request),
                Ok(Step::Continue) => continues += 1,
                Ok(Step::NeedsInput) => match reads.next() {
                    Some(read) => {
                        parser
                            .fill(|buffer| {
                                buffer.extend_from_slice(read);
                                Ok(read.len())
                            })
                            .unwrap();
                    }
                    None => return (requests, continues, None),
                },
                Err(rejection) => return (requests, continues, Some(rejection)),
            }
        }
    }

    fn rejected(wire: &[u8]) -> u16 {
        match parse(wire, wire.len()) {
            (_, _, Some(rejection)) => rejection.status.code(),
            (requests, ..) => {
                panic!("{:?} was not refused: {requests:?}", String::from_utf8_lossy(wire))
            }
        }
    }

    #[test]
    fn any_split_gives_the_same_requests() {
        let wire = b"\r\nGET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n\
            POST /p HTTP/1.1\r\nhost: x\r\nContent-Length: 4\r\n\r\nbody\
            PUT /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n\
            3;ext=1\r\nabc\r\n2;\ta=\"\xc3\xb6\"\r\nde\r\n0\r\nTrailer: t\r\n\r\n\
            GET http://other:1/abs HTTP/1.1\r\nHost: x\r\n\r\n\
            GET / HTTP/1.0\r\n\r\n";
        let (whole, _, rejection) = parse(wire, wire.len());
        assert_eq!(rejection, None);
        let seen: Vec<_> =
            whole.iter().map(|r| (r.path.as_str(), r.query.as_str(), r.body.as_slice())).collect();
        let expected: [(&str, &str, &[u8]); 5] = [
            ("/a", "b=c", b""),
            ("/p", "", b"body"),
            ("/c", "", b"abcde"),
            ("/abs", "", b""),
            ("/", "", b""),
        ];
        assert_eq!(seen, expected);
        assert_eq!(whole[3].headers.get("host"), Some("other:1"));
        for size in 1..wire.len() {
            assert_eq!(parse(wire, size), (whole.clone(), 0, None), "reads of {size} bytes");
        }
    }

    #[test]
    fn what_servers_could_read_differently_is_refused() {
        let post = |fields: &str, body: &str| {
            rejected(format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n{body}").as_bytes())
        };
        assert_eq!(post("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", ""), 400);
        assert_eq!(post("Content-Length: 1\r\nContent-Length: 1\r\n", "a"), 400);
        assert_eq!(post("Content-Length: 1, 1\r\n", "a"), 400);
        assert_eq!(post("Content-Length: +1\r\n", "a"), 400);
        assert_eq!(post("Content-Length: 0x1\r\n", "a"), 400);
        assert_eq!(post("Content-Length: \r\n", "a"), 400);
        assert_eq!(post("Transfer-Encoding: gzip, chunked\r\n", ""), 501);
        assert_eq!(post("Transfer-Encoding: chunked, chunked\r\n", ""), 400);
        assert_eq!(post("Transfer-Encoding: chunked, gzip\r\n", ""), 400);
        assert_eq!(post("Transfer-Encoding: xchunked\r\n", ""), 400);
        assert_eq!(post("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", ""), 400);
        assert_eq!(post("Transfer-Encoding : chunked\r\n", ""), 400);
        assert_eq!(post("X: a\r\n b\r\n", ""), 400, "obs-fold");
        assert_eq!(post("X: a\rb\r\n", ""), 400, "bare CR");
        assert_eq!(post("X: a\nY: b\r\n", ""), 400, "bare LF");
        assert_eq!(post("X: a\0b\r\n", ""), 400, "NUL");
        assert_eq!(post("Transfer-Encoding: chunked\r\n", "1\nab\r\n"), 400, "bare LF in chunk");
        assert_eq!(post("Transfer-Encoding: chunked\r\n", "1\r\nabc"), 400);
        assert_eq!(post("Transfer-Encoding: chunked\r\n", "-1\r\n"), 400);
        assert_eq!(post("Transfer-Encoding: chunked\r\n", "\r\n"), 400, "no size");
        assert_eq!(post("Transfer-Encoding: chunked\r\n", "1 \r\na\r\n"), 400, "size and space");
        assert_eq!(post("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n"), 400);
        for control in (0..0x20).filter(|byte| *byte != b'\t').chain([0x7f]) {
            let line = format!("1;a{}b\r\na\r\n0\r\n\r\n", char::from(control));
            assert_eq!(post("Transfer-Encoding: chunked\r\n", &line), 400, "{line:?}");
        }
        assert_eq!(rejected(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
    }

    #[test]
    fn other_faults_have_their_statuses() {
        let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(500));
        let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(10));
        let cases: &[(&str, &[u8], u16)] = &[
            ("no host", b"GET / HTTP/1.1\r\n\r\n", 400),
            ("two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            ("not a host", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
            ("not a name", b"GET / HTTP/1.1\r\nHost: a].localhost\r\n\r\n", 400),
            ("not a port", b"GET / HTTP/1.1\r\nHost: localhost:99999\r\n\r\n", 400),
            ("not a target's host", b"GET http://[::1/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
            ("no version", b"GET /\r\n\r\n", 400),
            ("not HTTP", b"GET / SPDY/3\r\n\r\n", 400),
            ("TLS", b"\x16\x03\x01\x02\x00\x01", 400),
            ("unknown method", b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", 501),
            ("not a path", b"GET x HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("a fragment", b"GET /who#/public HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("an empty fragment", b"GET /# HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("a fragment in a query", b"GET /?a#b HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("a host's fragment", b"GET http://x#/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("bare LF at once", b"GET / HTTP/1.1\nHost", 400),
            ("long head", long.as_bytes(), 431),
            ("many headers", many.as_bytes(), 431),
            ("long body", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 51\r\n\r\n", 413),
            (
                "endless number",
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
                413,
            ),
            (
                "long chunks",
                b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n33\r\n",
                413,
            ),
            (
                "unknown expectation",
                b"POST / HTTP/1.1\r\nHost: x\r\nExpect: tea\r\nContent-Length: 1\r\n\r\n",
                417,
            ),
        ];
        for (what, wire, status) in cases {
            assert_eq!(rejected(wire), *status, "{what}");
        }
    }

    #[test]
    fn any_split_gives_the_same_refusal() {
        let get = |rest: &str| format!("GET / HTTP/1.1\r\nHost: x\r\n{rest}");
        let chunked = |rest: &str| {
            format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{rest}")
        };
        let (many, long) = ("X: y\r\n".repeat(10), "y".repeat(500));
        let cases = [
            ("another version", "GET / HTTP/1.2\r\nHost: x\r\n\r\n".to_owned(), 505),
            ("half a version", "GET / HTTP/3\r\nHost: x\r\n\r\n".to_owned(), 400),
            ("another version without a line end", format!("GET / HTTP/2.0{long}"), 431),
            ("no version in a long line", format!("GET / {long}"), 431),
            ("not HTTP and without a line end", format!("no\0{long}"), 431),
            ("a bare LF before too many headers", get(&format!("A: b\n{many}\r\n")), 400),
            ("a bare LF after too many headers", get(&format!("{many}A: b\n\r\n")), 431),
            ("a bad line before a long one", get(&format!("A: \0\r\nX: {long}\r\n\r\n")), 400),
            ("a bad line that is too long", get(&format!("A: \0{long}\r\n\r\n")), 431),
            ("a bad line after another fault", get("Host: y\r\nA: \0\r\n\r\n"), 400),
            ("half an empty line", "\r\n\r\n\rGET / HTTP/1.1\r\n".to_owned(), 400),
            ("a bare LF before a chunk", chunked("1;a\nb\r\n"), 400),
            ("a long line before a chunk", chunked(&format!("33;{}\r\n", "a".repeat(1024))), 400),
            ("a bad trailer before a long one", chunked(&format!("0\r\n\0: {long}\r\n")), 400),
            ("a bad trailer after too many", chunked(&format!("0\r\n{many}A: b\r\n\0\r\n")), 431),
        ];
        for (what, wire, status) in &cases {
            let whole = parse(wire.as_bytes(), wire.len());
            assert_eq!(
                whole.2.as_ref().map(|r| r.status.code()),
                Some(*status),
                "{what}: {whole:?}"
            );
            for size in 1..wire.len() {
                assert_eq!(parse(wire.as_bytes(), size), whole, "{what}, in reads of {size} bytes");
            }
        }
    }

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
        let limits = RequestLimits { max_headers: 2, ..LIMITS };
        let all = |length| 0..lines.len().pow(length);
        for (length, number) in (1..=5).flat_map(|length| all(length).map(move |n| (length, n))) {
            let wire: String =
                (0..length).map(|at| lines[number / lines.len().pow(at) % lines.len()]).collect();
            let wire = wire.as_bytes();
            let ends = (1..=wire.len()).filter(|end| wire[end - 1] == b'\n');
            let outcomes: Vec<_> = ends.map(|end| parse_lines(&wire[..end], limits)).collect();
            let first = outcomes.iter().position(Result::is_err).unwrap_or(outcomes.len());
            let text = String::from_utf8_lossy(wire);
            assert!(outcomes[first..].iter().all(Result::is_err), "{text:?}");
            let expected = outcomes.get(first).or(outcomes.last());
            assert_eq!(Some(&parse_head(wire, limits)), expected, "{text:?}");
        }
    }

    #[test]
    fn other_protocols_are_refused_at_once() {
        for (what, wire, status) in [
            ("TLS", b"\x16".as_slice(), 400),
            ("a WebSocket frame", b"\x81", 400),
            ("a proxy's preface", b"\r\n\r\n\0", 400),
            ("HTTP/2", b"PRI * HTTP/2.0\r\n", 505),
        ] {
            assert_eq!(rejected(wire), status, "{what}");
        }
    }

    #[test]
    fn the_longest_chunk_size_does_not_overflow() {
        let mut parser = Parser::new(RequestLimits { max_body_size: usize::MAX, ..LIMITS });
        let wire =
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n";
        parser
            .fill(|buffer| {
                buffer.extend_from_slice(wire);
                Ok(wire.len())
            })
            .unwrap();
        assert_eq!(parser.next(), Ok(Step::NeedsInput));
    }

    #[test]
    fn a_chunk_size_may_begin_with_any_number_of_zeros_that_its_line_has_room_for() {
        let chunked = |line: &str| {
            let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
            format!("{head}{line}\r\nabcde\r\n{0}\r\n\r\n", "0".repeat(26)).into_bytes()
        };
        let zeros = |count| "0".repeat(count);
        for line in [zeros(25) + "5", zeros(16) + "5;a=b", zeros(MAX_CHUNK_LINE - 3) + "5"] {
            let wire = chunked(&line);
            for size in [1, 3, wire.len()] {
                let (requests, _, rejection) = parse(&wire, size);
                let bodies: Vec<_> = requests.iter().map(|request| &*request.body).collect();
                assert_eq!((bodies, rejection), (vec![&b"abcde"[..]], None), "{line:?}");
            }
        }
        for line in [zeros(MAX_CHUNK_LINE - 2) + "5", zeros(9) + &"f".repeat(17), zeros(30) + "x"] {
            let wire = chunked(&line);
            for size in [1, 3, wire.len()] {
                let status = parse(&wire, size).2.map(|rejection| rejection.status.code());
                assert_eq!(status, Some(400), "{line:?}");
            }
        }
    }

    #[test]
    fn memory_for_headers_follows_those_that_came_not_the_most_that_may() {
        for max_headers in [1 << 40, usize::MAX] {
            let mut parser =
                Parser::new(RequestLimits { max_headers, max_head_size: 1 << 20, ..LIMITS });
            let lines: String = (0..5000).map(|number| format!("X-{number}: y\r\n")).collect();
            let wire = format!(
                "POST / HTTP/1.1\r\nHost: x\r\n{lines}Transfer-Encoding: chunked\r\n\r\n0\r\n{lines}\r\n"
            );
            for read in wire.as_bytes().chunks(9_999) {
                parser
                    .fill(|buffer| {
                        buffer.extend_from_slice(read);
                        Ok(read.len())
                    })
                    .unwrap();
                match parser.next() {
                    Ok(Step::Request(request)) => assert_eq!(request.headers.iter().count(), 5002),
                    step => assert_eq!(step, Ok(Step::NeedsInput)),
                }
            }
            assert_eq!(parser.phase(), Phase::Idle, "all of it was taken");
        }
    }

    #[test]
    fn as_many_headers_as_may_be_are_taken_and_one_more_is_not() {
        for count in [0, 1, 2, 31, 32, 33, 34, 99, 100] {
            let limits = RequestLimits { max_headers: count, max_head_size: 10_000, ..LIMITS };
            let outcome = |lines: usize| {
                let wire = format!("GET / HTTP/1.0\r\n{}\r\n", "X: y\r\n".repeat(lines));
                parse_head(wire.as_bytes(), limits).map(|parsed| parsed.is_some())
            };
            let trailers = |lines: usize| {
                let wire = format!("{}\r\n", "X: y\r\n".repeat(lines));
                skip_trailers(wire.as_bytes(), limits).map(|length| length.is_some())
            };
            assert_eq!((outcome(count), trailers(count)), (Ok(true), Ok(true)), "{count}");
            let rejection = outcome(count + 1).unwrap_err();
            assert_eq!(rejection.reason, format!("more than {count} headers"));
            assert_eq!(rejection.status.code(), 431);
            let rejection = trailers(count + 1).unwrap_err();
            assert_eq!(rejection.reason, "the trailers are too long");
            assert_eq!(rejection.status.code(), 431);
        }
    }

    #[test]
    fn permission_is_given_once_and_only_when_it_is_awaited() {
        let head =
            "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
        let (requests, continues, _) = parse(format!("{head}body").as_bytes(), head.len());
        assert_eq!((requests.len(), continues), (1, 1));
        let (requests, continues, _) = parse(format!("{head}body").as_bytes(), 999);
        assert_eq!((requests.len(), continues), (1, 0));
    }

    #[test]
    fn the_rest_stays_for_the_websocket() {
        let mut parser = Parser::new(LIMITS);
        parser
            .fill(|buffer| {
                buffer.extend_from_slice(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n\x81\x80");
                Ok(1)
            })
            .unwrap();
        assert!(matches!(parser.next(), Ok(Step::Request(_))));
        assert_eq!(parser.take_rest(), b"\x81\x80");
    }
}
