//! Bytes in, requests out, under limits (RFC 9112). No socket in sight.

use std::io;
use std::mem;

use crate::http::body::Body;
use crate::http::head::{Head, check_first_byte, parse_head};
use crate::http::headers::Headers;
use crate::http::method::Method;
use crate::http::rejection::{Rejection, RequestLimits};

/// One read takes at most this much.
const READ: usize = 2048;

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
    /// A request whose body is arriving.
    arriving: Option<(Box<Parsed>, Body)>,
    /// Whether the last head begins with `HEAD `, so that the answer has no body. Known before the head is whole,
    /// because it may be rejected before.
    is_head: bool,
}

impl Parser {
    pub(crate) fn new(limits: RequestLimits) -> Self {
        Self { limits, buffer: Vec::new(), scanned: 0, arriving: None, is_head: false }
    }

    pub(crate) fn phase(&self) -> Phase {
        match &self.arriving {
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

    /// The first byte of what has arrived behind the last request.
    pub(crate) fn first_byte(&self) -> Option<u8> {
        self.buffer.first().copied()
    }

    /// What came behind the last request: the next one, or the first frames of a client that did not wait.
    pub(crate) fn take_rest(&mut self) -> Vec<u8> {
        mem::take(&mut self.buffer)
    }

    /// Puts back what [`take_rest`](Self::take_rest) took.
    pub(crate) fn restore(&mut self, rest: Vec<u8>) {
        self.buffer = rest;
        self.scanned = 0;
        self.is_head = false;
    }

    /// The next step.
    pub(crate) fn next(&mut self) -> Result<Step, Rejection> {
        if self.arriving.is_none() {
            let Some(head) = self.take_head()? else { return Ok(Step::NeedsInput) };
            let body = Body::announced_by(&head, self.limits)?;
            self.arriving = Some((Box::new(head.into()), body));
        }
        let Some((request, body)) = &mut self.arriving else { return Ok(Step::NeedsInput) };
        if !body.advance(&mut self.buffer, &mut request.body, self.limits)? {
            let is_awaited = self.buffer.is_empty() && body.take_wants_continue();
            return Ok(if is_awaited { Step::Continue } else { Step::NeedsInput });
        }
        let whole = self.arriving.take();
        Ok(whole.map_or(Step::NeedsInput, |(request, _)| Step::Request(request)))
    }

    /// Takes the head out of the buffer once it is whole.
    fn take_head(&mut self) -> Result<Option<Head>, Rejection> {
        // A server should ignore an empty line before a request (RFC 9112 §2.2).
        let blank = self.buffer.chunks_exact(2).take_while(|pair| pair == b"\r\n").count() * 2;
        self.buffer.drain(..blank);
        self.scanned = self.scanned.saturating_sub(blank);
        self.is_head = self.buffer.starts_with(b"HEAD ");
        check_first_byte(&self.buffer)?;
        let limit = self.limits.max_head_size;
        let arrived = &self.buffer[..self.buffer.len().min(limit)];
        // A head that trickles in is parsed line by line, not byte by byte.
        let last_line_end = arrived[self.scanned..].iter().rposition(|byte| *byte == b'\n');
        let parsed = match last_line_end {
            Some(last) => parse_head(&arrived[..=self.scanned + last], self.limits.max_headers)?,
            None => None,
        };
        self.scanned = arrived.len();
        let Some((head, length)) = parsed else {
            if arrived.len() < limit {
                return Ok(None);
            }
            let reason = format!("the head is longer than {limit} bytes");
            return Err(Rejection::too_large_head(reason));
        };
        self.buffer.drain(..length);
        self.scanned = 0;
        Ok(Some(head))
    }
}

impl From<Head> for Parsed {
    fn from(Head { method, path, query, is_http_11, headers }: Head) -> Self {
        Self { method, path, query, is_http_11, headers, body: Vec::new() }
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
