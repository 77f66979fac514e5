//! A request's way to the server and back, and what was answered.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use crate::base::deadline;
use crate::base::shown::Shown;
use crate::http::headers::Headers;
use crate::http::status::Status;
use crate::testing::wire::{Target, Wire, is_a_pause, may_wait};

/// What the server answered.
///
/// ```
/// use rwf::prelude::*;
///
/// fn health(_: &Request) -> Result<Response, Error> {
///     Ok(Response::new().text("ok"))
/// }
///
/// let server = rwf::testing::serve(vec![route!("/health" => health)]);
/// let response = server.get("/health");
/// assert_eq!(response.status(), 200);
/// assert_eq!(response.header("Content-Type"), Some("text/plain; charset=utf-8"));
/// assert_eq!(response.text(), "ok");
/// ```
///
/// `Display` and `Debug` show the status and the body.
#[derive(Clone)]
pub struct TestResponse {
    status: Status,
    headers: Headers,
    body: Vec<u8>,
}

impl TestResponse {
    /// The status.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// The first header of that name, in any case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// All headers, in order. A repeated one comes as often as it was sent.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.iter()
    }

    /// The body; empty when there is none.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body as text.
    ///
    /// # Panics
    ///
    /// It is not UTF-8.
    #[must_use]
    #[track_caller]
    pub fn text(&self) -> &str {
        match str::from_utf8(&self.body) {
            Ok(text) => text,
            Err(error) => panic!("the body of the response is no text: {error}: {self}"),
        }
    }

    pub(crate) fn header_values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.get_all(name)
    }
}

/// The status, and the body on one line, cut if it is long.
impl fmt::Display for TestResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if self.body.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", Shown::text(String::from_utf8_lossy(&self.body)))
    }
}

impl fmt::Debug for TestResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A response, with its connection and what came behind it.
pub(crate) struct Answered {
    pub(crate) response: TestResponse,
    pub(crate) wire: Wire,
    pub(crate) rest: Vec<u8>,
}

/// Sends `request` to `host` on a connection of its own, and reads the response, which has no body where `for_head` says so.
pub(crate) fn ask(
    target: &Target,
    host: &str,
    request: &[u8],
    for_head: bool,
    timeout: Duration,
) -> io::Result<Answered> {
    let deadline = deadline::after(timeout);
    let mut wire = Wire::connect(target, host, deadline)?;
    // A server that refuses a request need not read all of it: then its answer is what counts.
    let sent = wire.write_all(request);
    let mut received = Vec::new();
    let end_of_head = loop {
        if let Some(at) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
        if read_more(&mut wire, &mut received, deadline)? == 0 {
            sent?;
            return Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "the server ended the connection before the end of its response's head",
            ));
        }
    };
    let mut rest = received.split_off(end_of_head);
    let (status, headers) = parse_head(&received)?;
    let mut response = TestResponse { status, headers, body: Vec::new() };
    if !for_head && !status.is_bodiless() {
        let length = response.header("Content-Length").and_then(|length| length.parse().ok());
        let length = length.unwrap_or(0);
        while rest.len() < length {
            if read_more(&mut wire, &mut rest, deadline)? == 0 {
                let text = format!("the body ended after {} of {length} bytes", rest.len());
                return Err(io::Error::new(ErrorKind::UnexpectedEof, text));
            }
        }
        let behind = rest.split_off(length);
        response.body = std::mem::replace(&mut rest, behind);
    }
    Ok(Answered { response, wire, rest })
}

/// Appends one read, waiting until `deadline`. Zero is the end of the stream.
fn read_more(wire: &mut Wire, received: &mut Vec<u8>, deadline: Instant) -> io::Result<usize> {
    let mut buffer = [0; 4096];
    while may_wait(wire.stream(), deadline) {
        match wire.read(&mut buffer) {
            Ok(count) => {
                received.extend_from_slice(&buffer[..count]);
                return Ok(count);
            }
            Err(error) if is_a_pause(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(ErrorKind::TimedOut, "it takes longer than `Visitor::timeout`"))
}

/// The status and the headers of a head as rwf writes it.
fn parse_head(head: &[u8]) -> io::Result<(Status, Headers)> {
    let head = String::from_utf8_lossy(head);
    let no_response = || {
        let text = format!("this is no response: {:?}", Shown::text(&head));
        io::Error::new(ErrorKind::InvalidData, text)
    };
    let mut lines = head.split("\r\n");
    let code: Option<u16> =
        lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let status = Status::from(code.ok_or_else(no_response)?);
    let mut headers = Headers::default();
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or_else(no_response)?;
        headers.append(name, value.trim());
    }
    Ok((status, headers))
}
