//! Responses: a builder, and their bytes (RFC 9112 §4).

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::time::SystemTime;

use bytes::Bytes;

use crate::base::contained::contained;
use crate::http::cookie::Cookie;
use crate::http::credentials;
use crate::http::file::FilePart;
use crate::http::headers::{Headers, is_field_value, is_token};
#[cfg(feature = "json")]
use crate::http::json;
use crate::http::status::Status;

/// Most heads are shorter, that of a 101 with a session cookie too.
const USUAL_HEAD: usize = 320;

/// A body up to this length is copied behind its head, so that one slice is written; a longer one is shared.
const COPIED_BODY: usize = 4 << 10;

/// What a controller answers.
///
/// ```
/// use rwf::http::{Cookie, Response};
///
/// let page = Response::new().html("<h1>Hello</h1>").cookie(Cookie::new("seen", "yes"));
/// assert_eq!(page.status_code(), 200);
///
/// let missing = Response::not_found().text("no such room");
/// let elsewhere = Response::new().redirect("/login");
/// assert_eq!((missing.status_code().code(), elsewhere.status_code().code()), (404, 302));
/// ```
///
/// The server sets `Content-Length`, `Date` and `Connection`.
#[derive(Debug, Clone)]
pub struct Response {
    status: Status,
    headers: Headers,
    body: Body,
    /// The first header, cookie or value that cannot be sent.
    invalid: Option<String>,
    /// What the log says about the response beside its status.
    note: Option<String>,
    /// The connection went on as a WebSocket and has ended: nothing is left to answer.
    is_over: bool,
}

/// What a response brings, and where from.
#[derive(Debug, Clone)]
enum Body {
    Bytes(Bytes),
    File(FilePart),
}

macro_rules! by_name {
    ($($(#[$doc:meta])* $name:ident $status:ident)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name() -> Self {
            Self::new().status(Status::$status).text(Status::$status.reason())
        })*
    };
}

impl Response {
    /// An empty 200.
    #[must_use]
    pub fn new() -> Self {
        Self {
            status: Status::OK,
            headers: Headers::default(),
            body: Body::Bytes(Bytes::new()),
            invalid: None,
            note: None,
            is_over: false,
        }
    }

    /// What `WebsocketController::handle` returns when the WebSocket has ended.
    pub(crate) fn over() -> Self {
        Self { is_over: true, ..Self::new().status(Status::SWITCHING_PROTOCOLS) }
    }

    by_name! {
        /// 400 with its phrase as text.
        bad_request BAD_REQUEST
        /// 401 with its phrase as text. It needs a [`challenge`](Self::challenge) beside it.
        unauthorized UNAUTHORIZED
        /// 403 with its phrase as text.
        forbidden FORBIDDEN
        /// 404 with its phrase as text.
        not_found NOT_FOUND
        /// 405 with its phrase as text; name the methods in an `Allow` header.
        method_not_allowed METHOD_NOT_ALLOWED
        /// 429 with its phrase as text.
        too_many_requests TOO_MANY_REQUESTS
        /// 500 with its phrase as text.
        internal_error INTERNAL_SERVER_ERROR
        /// 503 with its phrase as text.
        service_unavailable SERVICE_UNAVAILABLE
    }

    /// An empty 204.
    #[must_use]
    pub fn no_content() -> Self {
        Self::new().status(Status::NO_CONTENT)
    }

    /// Sets the status, by number or by name.
    #[must_use]
    pub fn status(mut self, status: impl Into<Status>) -> Self {
        self.status = status.into();
        self
    }

    /// Sets a header, in place of those of the same name. A name or value that no header can have, such as one with a
    /// line end, makes the response a 500 with a line in the log.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.remove(name);
        self.append_header(name, value)
    }

    /// Adds a header beside those of the same name; otherwise like [`header`](Self::header).
    #[must_use]
    pub fn append_header(mut self, name: &str, value: impl Into<String>) -> Self {
        let value = value.into();
        if is_token(name) && is_field_value(&value) {
            self.headers.append(name, &value);
        } else {
            self.invalid.get_or_insert_with(|| format!("the header {name:?}: {value:?}"));
        }
        self
    }

    /// Gives the client a cookie to keep. One that no header can hold makes the response a 500, with a line in the log.
    #[must_use]
    #[expect(clippy::needless_pass_by_value, reason = "it is made for this call")]
    pub fn cookie(mut self, cookie: Cookie) -> Self {
        if cookie.is_valid() {
            self.headers.append("Set-Cookie", &cookie.to_string());
        } else {
            self.invalid.get_or_insert_with(|| format!("the cookie {:?}", cookie.to_string()));
        }
        self
    }

    /// Sets the body: plain text.
    #[must_use]
    pub fn text(self, text: impl Into<String>) -> Self {
        self.body("text/plain; charset=utf-8", text.into())
    }

    /// Sets the body: HTML.
    #[must_use]
    pub fn html(self, html: impl Into<String>) -> Self {
        self.body("text/html; charset=utf-8", html.into())
    }

    /// Sets the body: `value` as JSON. One that JSON cannot hold makes the response a 500 with a line in the log. With the
    /// feature `json`.
    ///
    /// ```
    /// use rwf::prelude::*;
    ///
    /// #[derive(serde::Serialize)]
    /// struct Status { clients: usize }
    ///
    /// fn status(request: &Request) -> Result<Response, Error> {
    ///     Ok(Response::new().json(&Status { clients: 3 }))
    /// }
    ///
    /// assert_eq!(status(&Request::get("/status").build())?.body_bytes(), br#"{"clients":3}"#);
    /// # Ok::<(), Error>(())
    /// ```
    #[cfg(feature = "json")]
    #[must_use]
    pub fn json<T: serde_core::Serialize + ?Sized>(mut self, value: &T) -> Self {
        let text = json::write(value).unwrap_or_else(|error| {
            self.invalid.get_or_insert_with(|| error.to_string());
            String::new()
        });
        self.body("application/json", text)
    }

    /// Sets the body: bytes, as `application/octet-stream` unless a `Content-Type` is set after it. A `Bytes` that many
    /// responses share is in memory once, however many clients are slow to take it.
    #[must_use]
    pub fn bytes(self, bytes: impl Into<Bytes>) -> Self {
        self.body("application/octet-stream", bytes)
    }

    /// Sets the body: the content of a file, from its first byte to what is its last now, as `application/octet-stream`
    /// unless a `Content-Type` is set after it. It is read in pieces of 64 KiB while the client takes it, so that it may be
    /// of any length. A file that becomes shorter meanwhile cuts the connection: the client was told its length.
    ///
    /// For a whole folder there is [`StaticFiles`](crate::controller::StaticFiles).
    ///
    /// ```
    /// use rwf::prelude::*;
    /// use std::fs::File;
    ///
    /// fn report(request: &Request) -> Result<Response, Error> {
    ///     let name = "attachment; filename=report.pdf";
    ///     let response = Response::new().file(File::open("report.pdf")?)?;
    ///     Ok(response.header("Content-Type", "application/pdf").header("Content-Disposition", name))
    /// }
    ///
    /// let route = route!("/report" => report);
    /// # let _ = route;
    /// ```
    ///
    /// # Errors
    ///
    /// The system does not tell the file's length, or it is no regular file, whose length is known beforehand.
    pub fn file(self, file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            let reason = "a response takes regular files alone, whose length is known beforehand";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        Ok(self.file_part("application/octet-stream", file, 0..metadata.len()))
    }

    /// Sets the body: a part of a file.
    pub(crate) fn file_part(mut self, content_type: &str, file: File, range: Range<u64>) -> Self {
        self.body = Body::File(FilePart::new(file, range));
        self.header("Content-Type", content_type)
    }

    /// Sends the client to `location`: a 302, or another status that is set after it.
    #[must_use]
    pub fn redirect(self, location: impl Into<String>) -> Self {
        self.status(Status::FOUND).header("Location", location)
    }

    /// Tells a client how to say who it is, which a 401 has to (RFC 9110 §15.5.2): `Basic` has browsers ask for a user and a
    /// password, `Bearer` is for programs with tokens. The realm names what the credentials are for. Another challenge
    /// beside it offers a choice.
    ///
    /// ```
    /// use rwf::http::Response;
    ///
    /// let refusal = Response::unauthorized().challenge("Basic", "chat");
    /// let challenge = refusal.header_value("WWW-Authenticate");
    /// assert_eq!(challenge, Some(r#"Basic realm="chat", charset="UTF-8""#));
    /// ```
    #[must_use]
    pub fn challenge(self, scheme: &str, realm: &str) -> Self {
        self.append_header("WWW-Authenticate", credentials::challenge(scheme, realm))
    }

    fn body(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.body = Body::Bytes(body.into());
        self.header("Content-Type", content_type)
    }

    /// The status.
    #[must_use]
    pub fn status_code(&self) -> Status {
        self.status
    }

    /// The body; empty where it is a [`file`](Self::file).
    #[must_use]
    pub fn body_bytes(&self) -> &[u8] {
        match &self.body {
            Body::Bytes(bytes) => bytes,
            Body::File(_) => &[],
        }
    }

    /// The file that follows the head, but for a `HEAD` request.
    pub(crate) fn body_file(&self, for_head: bool) -> Option<&FilePart> {
        match &self.body {
            Body::File(part) if !for_head && !self.is_without_content() => Some(part),
            Body::File(_) | Body::Bytes(_) => None,
        }
    }

    /// Whether its status has no content. A 205 has a length and no content (RFC 9110 §15.3.6).
    fn is_without_content(&self) -> bool {
        self.status.is_bodiless() || self.status == 205
    }

    /// The first value of that header.
    #[must_use]
    pub fn header_value(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// Keeps browsers from taking the text for a page, for texts with a client's words in them.
    pub(crate) fn no_sniffing(self) -> Self {
        self.header("X-Content-Type-Options", "nosniff")
    }

    /// Adds a note to the response's line in the log, which says why it is as it is.
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    pub(crate) fn take_note(&mut self) -> Option<String> {
        self.note.take()
    }

    /// The first header, cookie or value that cannot be sent.
    pub(crate) fn invalid(&self) -> Option<&str> {
        self.invalid.as_deref()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether the author wants the connection closed.
    pub(crate) fn wants_close(&self) -> bool {
        self.headers.has_token("Connection", "close")
    }

    /// The response, or a 500 if it cannot be sent: a 1xx is no answer, and a header may be impossible.
    pub(crate) fn or_internal_error(mut self) -> Self {
        let what = match self.invalid.take() {
            None if self.status.code() >= 200 => return self,
            None => format!("the status {}", self.status),
            Some(what) => what,
        };
        // Its body may be memory of the program's own, with a destructor that panics.
        contained(|| drop(self));
        Self::internal_error().note(format!("the response cannot be sent: {what}"))
    }

    /// The bytes of a head that opens a WebSocket: no body and no framing.
    pub(crate) fn encode_upgrade(&self) -> Vec<u8> {
        let mut head = self.encode_head();
        head.push_str("Connection: Upgrade\r\n\r\n");
        head.into_bytes()
    }

    /// The bytes of the whole response, in two parts: what is made for it, and a long body from where it lies.
    /// `for_head` leaves the body out but not its length (RFC 9110 §9.3.2). A [file](Self::body_file) comes behind both.
    pub(crate) fn encode(&self, for_head: bool, connection: Option<&str>) -> (Vec<u8>, &[u8]) {
        let mut head = self.encode_head();
        let body = if self.is_without_content() { &[] } else { self.body_bytes() };
        if !self.status.is_bodiless() {
            let length = match &self.body {
                Body::File(part) if !self.is_without_content() => part.len(),
                Body::File(_) | Body::Bytes(_) => body.len() as u64,
            };
            let _ = write!(head, "Content-Length: {length}\r\n");
        }
        let is_of_the_author = |option: &&str| {
            !option.eq_ignore_ascii_case("close") && !option.eq_ignore_ascii_case("keep-alive")
        };
        let others = self.headers.list("Connection").filter(is_of_the_author);
        let options: Vec<_> = others.chain(connection).collect();
        if !options.is_empty() {
            let _ = write!(head, "Connection: {}\r\n", options.join(", "));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        if for_head {
            return (bytes, &[]);
        }
        if body.len() <= COPIED_BODY {
            bytes.extend_from_slice(body);
            return (bytes, &[]);
        }
        (bytes, body)
    }

    fn encode_head(&self) -> String {
        let mut head = String::with_capacity(USUAL_HEAD);
        let _ = write!(head, "HTTP/1.1 {} {}\r\n", self.status.code(), self.status.reason());
        let _ = write!(head, "Date: {}\r\n", httpdate::fmt_http_date(SystemTime::now()));
        for (name, value) in self.headers.iter() {
            let is_ours = ["Content-Length", "Transfer-Encoding", "Date", "Connection"]
                .iter()
                .any(|ours| name.eq_ignore_ascii_case(ours));
            if !is_ours {
                let _ = write!(head, "{name}: {value}\r\n");
            }
        }
        head
    }
}

impl Default for Response {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(response: &Response, for_head: bool) -> String {
        let (bytes, body) = response.encode(for_head, None);
        String::from_utf8([&bytes, body].concat()).unwrap()
    }

    #[test]
    fn a_long_body_is_sent_from_where_it_lies() {
        let long = Bytes::from(vec![b'x'; COPIED_BODY + 1]);
        let response = Response::new().bytes(long.clone());
        let (head, body) = response.encode(false, None);
        assert!(head.ends_with(b"\r\n\r\n"), "{:?}", String::from_utf8(head));
        assert!(std::ptr::eq(body, &*long), "it was copied");
        assert_eq!(response.encode(true, None).1, b"");
    }

    #[test]
    fn a_body_has_its_length_and_type() {
        let text = encoded(&Response::not_found().text("nö"), false);
        assert!(text.starts_with("HTTP/1.1 404 Not Found\r\nDate: "), "{text}");
        assert!(text.contains("\r\nContent-Type: text/plain; charset=utf-8\r\n"), "{text}");
        assert!(text.contains("\r\nContent-Length: 3\r\n"), "{text}");
        assert!(text.ends_with("\r\n\r\nnö"), "{text}");
        assert_eq!(text.matches("Content-Type").count(), 1, "{text}");
    }

    #[test]
    fn head_and_bodiless_statuses_send_none() {
        let text = encoded(&Response::new().text("four"), true);
        assert!(text.contains("Content-Length: 4\r\n") && text.ends_with("\r\n\r\n"), "{text}");
        let text = encoded(&Response::no_content().text("x"), false);
        assert!(!text.contains("Content-Length") && text.ends_with("\r\n\r\n"), "{text}");
    }

    #[test]
    fn framing_stays_with_the_server() {
        let text = encoded(
            &Response::new().header("content-length", "99").header("Transfer-Encoding", "chunked"),
            false,
        );
        assert!(text.contains("Content-Length: 0\r\n"), "{text}");
        assert!(!text.contains("99") && !text.contains("chunked"), "{text}");
    }

    #[test]
    fn a_header_that_would_split_the_response_is_caught() {
        let status = |response: Response| response.or_internal_error().status_code().code();
        assert_eq!(status(Response::new().header("X", "a\r\nSet-Cookie: b")), 500);
        assert_eq!(status(Response::new().header("X Y", "")), 500);
        assert_eq!(status(Response::new().cookie(Cookie::new("a", ";"))), 500);
        assert_eq!(status(Response::new().redirect("/x\r\n")), 500);
        assert_eq!(status(Response::new().status(103)), 500);
        assert_eq!(status(Response::new().header("X", "ok")), 200);
    }

    #[test]
    fn a_second_header_replaces_or_joins() {
        let response = Response::new().header("X", "1").header("x", "2").append_header("X", "3");
        assert_eq!(response.headers.get_all("X").collect::<Vec<_>>(), ["2", "3"]);
    }
}
