//! The answer to a request for something that is there: all of it, a part, or that the client has it already.

use std::fs::File;
use std::ops::Range;

use bytes::Bytes;

use crate::http::method::Method;
use crate::http::parser::Parsed;
use crate::http::range::{Wanted, wanted};
use crate::http::response::Response;
use crate::http::status::Status;
use crate::http::validators::{Validators, Verdict};

/// A content and which version of it this is.
#[derive(Debug)]
pub(crate) struct Representation {
    pub(crate) content: Content,
    /// Of the content, in bytes.
    pub(crate) length: u64,
    pub(crate) validators: Validators,
}

#[derive(Debug)]
pub(crate) enum Content {
    File(File),
    Bytes(Bytes),
}

impl Representation {
    /// The answer to a `GET` or `HEAD`, made of `base`, which has the headers that go with the content.
    pub(crate) fn answer(self, request: &Parsed, media_type: &str, base: Response) -> Response {
        let Self { content, length, validators } = self;
        let headers = &request.headers;
        let base = validators.add_to(base.header("Accept-Ranges", "bytes"));
        match validators.weigh(headers) {
            Verdict::Send => {}
            Verdict::NotModified => return base.status(Status::NOT_MODIFIED),
            Verdict::Failed => return Response::new().status(Status::PRECONDITION_FAILED),
        }
        // It concerns `GET` alone, and several headers make no sense.
        let range = headers.single("Range").ok().flatten();
        let counts = request.method == Method::Get && validators.allow_range(headers);
        match range.filter(|_| counts).map_or(Wanted::Whole, |range| wanted(range, length)) {
            Wanted::Whole => content.into_body(base, media_type, 0..length),
            Wanted::Part(part) => {
                let value = format!("bytes {}-{}/{length}", part.start, part.end - 1);
                let base = base.status(Status::PARTIAL_CONTENT).header("Content-Range", value);
                content.into_body(base, media_type, part)
            }
            Wanted::Unsatisfiable => {
                let status = Status::RANGE_NOT_SATISFIABLE;
                let response = Response::new().status(status).text(status.reason());
                response.header("Content-Range", format!("bytes */{length}"))
            }
        }
    }
}

impl Content {
    fn into_body(self, response: Response, media_type: &str, part: Range<u64>) -> Response {
        match self {
            Self::File(file) => response.file_part(media_type, file, part),
            Self::Bytes(bytes) => {
                // They lie in memory, so that their number is a `usize`.
                let index = |at: u64| usize::try_from(at).unwrap_or(bytes.len());
                let part = bytes.slice(index(part.start)..index(part.end));
                response.bytes(part).header("Content-Type", media_type)
            }
        }
    }
}
