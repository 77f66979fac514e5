//! The body of a request: how long it is, and the chunks that it may come in (RFC 9112 §6, §7).

use crate::base::shown::Shown;
use crate::http::head::{Head, check_line_ends, room_for_fields};
use crate::http::rejection::{Rejection, RequestLimits};
use crate::http::status::Status;

/// The longest line before a chunk, with its extensions, which are ignored.
const MAX_CHUNK_LINE: usize = 1024;

/// A body that is arriving.
#[derive(Debug)]
pub(crate) struct Body {
    framing: Framing,
    /// Whether the client waits for permission to send it.
    wants_continue: bool,
}

/// What comes next, and how its end is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// So many bytes, to the end of the body.
    Length(usize),
    ChunkSize,
    /// So many bytes, to the end of the chunk.
    ChunkData(usize),
    ChunkEnd,
    Trailers,
}

impl Body {
    /// The body that a head announces.
    pub(crate) fn announced_by(head: &Head, limits: RequestLimits) -> Result<Self, Rejection> {
        let framing = framing(head, limits.max_body_size)?;
        Ok(Self { framing, wants_continue: wants_continue(head, framing)? })
    }

    /// Moves what has arrived of the body from the front of `buffer` to `body`; whether that was the rest of it.
    pub(crate) fn advance(
        &mut self,
        buffer: &mut Vec<u8>,
        body: &mut Vec<u8>,
        limits: RequestLimits,
    ) -> Result<bool, Rejection> {
        loop {
            match &mut self.framing {
                Framing::Length(remaining) => {
                    take(buffer, remaining, body);
                    return Ok(*remaining == 0);
                }
                Framing::ChunkSize => {
                    let Some((line, size)) = chunk_size(buffer)? else { return Ok(false) };
                    if size > limits.max_body_size.saturating_sub(body.len()) {
                        return Err(Rejection::too_large_body(limits.max_body_size));
                    }
                    buffer.drain(..line);
                    self.framing =
                        if size == 0 { Framing::Trailers } else { Framing::ChunkData(size) };
                }
                Framing::ChunkData(remaining) => {
                    take(buffer, remaining, body);
                    if *remaining > 0 {
                        return Ok(false);
                    }
                    self.framing = Framing::ChunkEnd;
                }
                Framing::ChunkEnd => match buffer.get(..2) {
                    Some(b"\r\n") => {
                        buffer.drain(..2);
                        self.framing = Framing::ChunkSize;
                    }
                    Some(_) => {
                        return Err(Rejection::bad("a chunk is not followed by a line end"));
                    }
                    None => return Ok(false),
                },
                Framing::Trailers => {
                    let Some(length) = skip_trailers(buffer, limits)? else { return Ok(false) };
                    buffer.drain(..length);
                    return Ok(true);
                }
            }
        }
    }

    /// Whether the client has to be told now to send the body. It is told once.
    pub(crate) fn take_wants_continue(&mut self) -> bool {
        std::mem::take(&mut self.wants_continue)
    }
}

/// Moves up to `remaining` bytes from the front of `buffer` to `body`.
fn take(buffer: &mut Vec<u8>, remaining: &mut usize, body: &mut Vec<u8>) {
    let count = buffer.len().min(*remaining);
    body.extend(buffer.drain(..count));
    *remaining -= count;
}

/// How the body ends (RFC 9112 §6). Whatever two servers could read differently is refused.
fn framing(head: &Head, max_body_size: usize) -> Result<Framing, Rejection> {
    let length = head.headers.single("Content-Length");
    let coding = head.headers.single("Transfer-Encoding");
    match (length, coding) {
        (Ok(None), Ok(None)) => Ok(Framing::Length(0)),
        (Ok(None), Ok(Some(coding))) if !head.is_http_11 => Err(Rejection::bad(format!(
            "HTTP/1.0 knows no Transfer-Encoding {:?}",
            Shown::value(coding)
        ))),
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
            Err(Rejection::new(status, reason))
        }
        (Ok(Some(length)), Ok(None)) => {
            if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(Rejection::bad(format!(
                    "the Content-Length {:?} is not a number",
                    Shown::value(length)
                )));
            }
            match length.parse() {
                Ok(length) if length <= max_body_size => Ok(Framing::Length(length)),
                _ => Err(Rejection::too_large_body(max_body_size)),
            }
        }
        (Ok(Some(_)), Ok(Some(_))) => {
            Err(Rejection::bad("there are both a Content-Length and a Transfer-Encoding"))
        }
        (Err(count), _) => Err(Rejection::bad(format!("there are {count} Content-Length headers"))),
        (_, Err(count)) => {
            Err(Rejection::bad(format!("there are {count} Transfer-Encoding headers")))
        }
    }
}

/// Whether the client waits for a 100 before it sends its body (RFC 9110 §10.1.1).
fn wants_continue(head: &Head, framing: Framing) -> Result<bool, Rejection> {
    match head.headers.get("Expect") {
        None => Ok(false),
        Some(expected) if expected.eq_ignore_ascii_case("100-continue") => {
            Ok(head.is_http_11 && framing != Framing::Length(0))
        }
        Some(expected) => Err(Rejection::new(
            Status::EXPECTATION_FAILED,
            format!("the expectation {:?} is unknown", Shown::value(expected)),
        )),
    }
}

/// The line before a chunk (RFC 9112 §7.1): its length, and the chunk's.
fn chunk_size(buffer: &[u8]) -> Result<Option<(usize, usize)>, Rejection> {
    // A size has at least one digit; httparse reads none as zero, which would end the body.
    if buffer.first().is_some_and(|byte| !byte.is_ascii_hexdigit()) {
        return Err(Rejection::bad("a chunk has no valid size"));
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
        _ => Err(Rejection::bad("a chunk has no valid size")),
    }
}

/// Space behind the size is allowed only before an extension, which has no control characters (RFC 9112 §7.1.1).
fn check_chunk_extension(line: &[u8]) -> Result<(), Rejection> {
    let text = line.strip_suffix(b"\r\n").unwrap_or(line);
    if text.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(Rejection::bad("there is a control character before a chunk"));
    }
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let has_space = matches!(line[digits..], [b' ' | b'\t', ..]);
    if has_space && !line[digits..].trim_ascii_start().starts_with(b";") {
        return Err(Rejection::bad("there is space behind the size of a chunk"));
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
            Err(Rejection::too_large_head("the trailers are too long"))
        }
        Err(error) => Err(Rejection::bad(format!("in the trailers: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_trailers_as_may_be_are_skipped_and_one_more_is_not() {
        for count in [0, 1, 2, 31, 32, 33, 34, 99, 100] {
            let limits =
                RequestLimits { max_headers: count, max_head_size: 10_000, max_body_size: 0 };
            let trailers = |lines: usize| {
                let wire = format!("{}\r\n", "X: y\r\n".repeat(lines));
                skip_trailers(wire.as_bytes(), limits).map(|length| length.is_some())
            };
            assert_eq!(trailers(count), Ok(true), "{count}");
            let rejection = trailers(count + 1).unwrap_err();
            assert_eq!(rejection.reason, "the trailers are too long");
            assert_eq!(rejection.status.code(), 431);
        }
    }

    /// The body that `wire` holds, which arrives in reads of at most `size` bytes, or the status of its rejection.
    fn unchunked(wire: &str, size: usize) -> Result<Vec<u8>, u16> {
        let limits = RequestLimits { max_head_size: 500, max_headers: 10, max_body_size: 50 };
        let mut arriving = Body { framing: Framing::ChunkSize, wants_continue: false };
        let (mut buffer, mut body) = (Vec::new(), Vec::new());
        for read in wire.as_bytes().chunks(size) {
            buffer.extend_from_slice(read);
            match arriving.advance(&mut buffer, &mut body, limits) {
                Ok(true) => return Ok(body),
                Ok(false) => {}
                Err(rejection) => return Err(rejection.status.code()),
            }
        }
        panic!("{wire:?} does not end the body");
    }

    #[test]
    fn a_chunk_size_may_begin_with_any_number_of_zeros_that_its_line_has_room_for() {
        let zeros = |count| "0".repeat(count);
        let chunked = |line: &str| format!("{line}\r\nabcde\r\n{}\r\n\r\n", zeros(26));
        for size in [1, 3, 9999] {
            for line in [zeros(25) + "5", zeros(16) + "5;a=b", zeros(MAX_CHUNK_LINE - 3) + "5"] {
                assert_eq!(
                    unchunked(&chunked(&line), size).as_deref(),
                    Ok(&b"abcde"[..]),
                    "{line:?}"
                );
            }
            for line in
                [zeros(MAX_CHUNK_LINE - 2) + "5", zeros(9) + &"f".repeat(17), zeros(30) + "x"]
            {
                assert_eq!(unchunked(&chunked(&line), size), Err(400), "{line:?}");
            }
        }
    }
}
