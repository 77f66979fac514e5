//! What a controller's methods fail with.

use std::error::Error as StdError;
use std::fmt;

#[cfg(feature = "json")]
use crate::http::json::JsonError;
use crate::http::response::Response;
use crate::http::status::Status;
use crate::websocket::close::{Close, CloseCode};

/// What a controller's methods fail with: any error, through `?`, and optionally the answer that it deserves.
///
/// An error is logged with its text and its causes. The client sees none of that: an HTTP request gets a 500, a
/// WebSocket is closed with 1011, unless the author chose another answer. Only what is wrong with a client's JSON (a
/// `JsonError`, with the feature `json`) is told to it.
///
/// ```
/// use rwf::prelude::*;
///
/// fn parse(text: &str) -> Result<u32, Error> {
///     Ok(text.parse::<u32>()?)
/// }
///
/// assert!(parse("a").unwrap_err().to_string().contains("invalid digit"));
/// let error = Error::new("no such room").with_status(404);
/// assert_eq!(error.to_string(), "no such room");
/// ```
///
/// It is no `std::error::Error` itself, because it converts from all of them.
pub struct Error(Box<Inner>);

/// Behind a pointer, because every handler that succeeds hands an error's place back through all who called it.
struct Inner {
    source: Box<dyn StdError + Send + Sync>,
    status: Status,
    close: Option<Close>,
    /// Whether the client is told the text, which is about what it sent.
    is_told: bool,
}

impl Error {
    /// An error from a text or from another error.
    #[must_use]
    pub fn new(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source = source.into();
        #[cfg(feature = "json")]
        if let Some(error) = source.downcast_ref::<JsonError>().filter(|error| error.is_of_client())
        {
            let (status, text) = (error.status(), error.to_string());
            let close = Some(Close::new(CloseCode::INVALID_PAYLOAD, text));
            return Self(Box::new(Inner { source, status, close, is_told: true }));
        }
        let status = Status::INTERNAL_SERVER_ERROR;
        Self(Box::new(Inner { source, status, close: None, is_told: false }))
    }

    /// Answers an HTTP request with `status` instead of 500.
    #[must_use]
    pub fn with_status(mut self, status: impl Into<Status>) -> Self {
        self.0.status = status.into();
        self.0.is_told = false;
        self
    }

    /// Closes a WebSocket with `code` and `reason` instead of 1011; the client sees both. A code that may not be sent
    /// stays 1011, and a reason is cut to the 123 bytes that a close frame holds.
    #[must_use]
    pub fn with_close(mut self, code: impl Into<CloseCode>, reason: &str) -> Self {
        let code = code.into();
        self.0.close = code.is_sendable().then(|| Close::new(code, reason));
        self
    }

    /// The HTTP answer.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.status
    }

    /// Whether it was made from an error of type `E`.
    #[must_use]
    pub fn is<E: StdError + 'static>(&self) -> bool {
        self.0.source.is::<E>()
    }

    /// The error that it was made from, if that is an `E`.
    ///
    /// ```
    /// use rwf::prelude::*;
    /// use std::io;
    ///
    /// let error = Error::from(io::Error::other("disk"));
    /// assert_eq!(error.downcast_ref().map(io::Error::kind), Some(io::ErrorKind::Other));
    /// assert!(error.downcast_ref::<std::fmt::Error>().is_none());
    /// ```
    #[must_use]
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        self.0.source.downcast_ref()
    }

    /// The close that ends the WebSocket.
    pub(crate) fn close(&self) -> Close {
        self.0.close.clone().unwrap_or_else(|| Close::new(CloseCode::INTERNAL_ERROR, ""))
    }

    /// What the HTTP client is told.
    pub(crate) fn answer(&self) -> Response {
        let response = Response::new().status(self.0.status);
        if self.0.is_told {
            response.text(self.to_string()).no_sniffing()
        } else {
            response.text(self.0.status.reason())
        }
    }

    /// Whether the author chose the answer, which makes the error an expected one.
    pub(crate) fn is_chosen(&self) -> bool {
        self.0.close.is_some() || self.0.status != Status::INTERNAL_SERVER_ERROR
    }
}

/// From any error, boxed or not, from a text, and from the errors of crates such as `anyhow`.
impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for Error {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

/// The error and its causes, joined by colons.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.source)?;
        let mut cause = self.0.source.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_people_fail_with_becomes_one() {
        fn boxed() -> Result<(), Box<dyn StdError + Send + Sync>> {
            Err("boxed".into())
        }
        fn fail(how: &str) -> Result<(), Error> {
            match how {
                "text" => Err("text")?,
                "string" => Err("string".to_owned())?,
                "boxed" => boxed()?,
                "io" => Err(std::io::Error::other("io"))?,
                _ => Err(Error::new("itself"))?,
            }
            Ok(())
        }
        for how in ["text", "string", "boxed", "io", "itself"] {
            assert_eq!(fail(how).unwrap_err().to_string(), how);
        }
    }

    #[test]
    fn the_author_may_choose_the_answer() {
        let plain = Error::from(std::io::Error::other("disk"));
        assert_eq!((plain.status(), plain.close().code), (500.into(), CloseCode::INTERNAL_ERROR));
        assert!(!plain.is_chosen());

        let chosen = Error::new("banned").with_status(403).with_close(4003, "banned");
        assert_eq!((chosen.status(), chosen.close().code), (403.into(), CloseCode::from(4003)));
        assert!(chosen.is_chosen());
    }

    #[test]
    fn a_code_that_cannot_be_sent_stays_1011() {
        let error = Error::new("x").with_close(1006, "");
        assert_eq!(error.close().code, CloseCode::INTERNAL_ERROR);
    }
}
