//! The limits of what is read of a request, and the rejection of one that is over them or makes no sense.

use crate::http::status::Status;

/// The limits of what is read of a request, all from the server's settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestLimits {
    pub(crate) max_head_size: usize,
    pub(crate) max_headers: usize,
    pub(crate) max_body_size: usize,
}

/// A request that is answered with an error status, after which the connection is closed: where the request ends, and
/// the next one begins, is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) status: Status,
    pub(crate) reason: String,
}

impl Rejection {
    pub(crate) fn new(status: Status, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }

    pub(crate) fn bad(reason: impl Into<String>) -> Self {
        Self::new(Status::BAD_REQUEST, reason)
    }

    pub(crate) fn too_large_head(reason: impl Into<String>) -> Self {
        Self::new(Status::REQUEST_HEADER_FIELDS_TOO_LARGE, reason)
    }

    pub(crate) fn too_large_body(limit: usize) -> Self {
        Self::new(Status::CONTENT_TOO_LARGE, format!("the body is longer than {limit} bytes"))
    }
}
