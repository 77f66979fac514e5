//! The opening handshake: a request is accepted or answered with an error (RFC 6455 §4.2). No socket in sight.

use data_encoding::BASE64;
use tungstenite::handshake::derive_accept_key;

use crate::base::shown::Shown;
use crate::http::headers::is_token;
use crate::http::method::Method;
use crate::http::origin::{is_of_host, same_origin};
use crate::http::parser::Parsed;
use crate::http::response::Response;
use crate::http::status::Status;
use crate::websocket::compression::Agreement;
#[cfg(feature = "deflate")]
use crate::websocket::extensions::{self, Malformed};
use crate::websocket::settings::{Origins, Websocket};

/// Why a request does not open a WebSocket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: Status,
    reason: String,
}

impl Refusal {
    fn new(status: Status, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }

    fn bad(reason: impl Into<String>) -> Self {
        Self::new(Status::BAD_REQUEST, reason)
    }

    fn upgrade(reason: &str) -> Self {
        Self::new(Status::UPGRADE_REQUIRED, reason)
    }

    /// The answer. The client gets the reason: it says what is wrong with its own request.
    pub(crate) fn response(&self) -> Response {
        let reason = self.reason.as_str();
        let response = Response::new().status(self.status).text(reason).no_sniffing().note(reason);
        match self.status {
            Status::METHOD_NOT_ALLOWED => response.header("Allow", "GET"),
            // RFC 6455 §4.4, RFC 9110 §15.5.22
            Status::UPGRADE_REQUIRED => response
                .header("Sec-WebSocket-Version", "13")
                .header("Upgrade", "websocket")
                .header("Connection", "Upgrade"),
            _ => response,
        }
        .append_header("Connection", "close")
    }
}

/// A request that opens a WebSocket.
#[derive(Debug)]
pub(crate) struct Opening {
    /// The 101.
    pub(crate) response: Response,
    /// What was agreed on about compression.
    pub(crate) agreement: Option<Agreement>,
}

/// The opening of the WebSocket. `is_secure` where the client is known to have come by TLS.
pub(crate) fn accept(
    request: &Parsed,
    is_secure: bool,
    subprotocol: Option<&str>,
    settings: &Websocket,
) -> Result<Opening, Refusal> {
    check_upgrade(request)?;
    check_version(request)?;
    let key = key(request)?;
    check_origin(request, is_secure, &settings.origins)?;
    check_subprotocols(request)?;
    let (agreement, extensions) = agree(request, settings)?.unzip();
    let response = Response::new()
        .status(Status::SWITCHING_PROTOCOLS)
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Accept", derive_accept_key(key.as_bytes()));
    let response = match extensions {
        Some(answer) => response.header("Sec-WebSocket-Extensions", answer),
        None => response,
    };
    let response = match subprotocol {
        Some(name) => response.header("Sec-WebSocket-Protocol", name),
        None => response,
    };
    Ok(Opening { response, agreement })
}

/// What is agreed on about compression, and the answer that says so.
#[cfg(feature = "deflate")]
fn agree(request: &Parsed, settings: &Websocket) -> Result<Option<(Agreement, String)>, Refusal> {
    let Some(deflate) = &settings.deflate else { return Ok(None) };
    extensions::negotiate(&request.headers, deflate)
        .map_err(|Malformed| Refusal::bad("the Sec-WebSocket-Extensions header is malformed"))
}

/// Nothing is offered, so nothing is agreed on.
#[cfg(not(feature = "deflate"))]
fn agree(_: &Parsed, _: &Websocket) -> Result<Option<(Agreement, String)>, Refusal> {
    Ok(None)
}

fn check_upgrade(request: &Parsed) -> Result<(), Refusal> {
    if request.method != Method::Get {
        let reason = "a WebSocket is opened with GET";
        return Err(Refusal::new(Status::METHOD_NOT_ALLOWED, reason));
    }
    if !request.headers.has_token("Upgrade", "websocket") {
        let reason = "this is a WebSocket endpoint; connect with a WebSocket client";
        return Err(Refusal::upgrade(reason));
    }
    if !request.is_http_11 {
        return Err(Refusal::bad("a WebSocket is opened with HTTP/1.1"));
    }
    if !request.headers.has_token("Connection", "Upgrade") {
        return Err(Refusal::bad("the Connection header does not say Upgrade"));
    }
    if !request.body.is_empty() {
        return Err(Refusal::bad("the request that opens a WebSocket has no body"));
    }
    Ok(())
}

fn check_version(request: &Parsed) -> Result<(), Refusal> {
    match request.headers.single("Sec-WebSocket-Version") {
        Ok(Some("13")) => Ok(()),
        Ok(_) => Err(Refusal::upgrade("only version 13 is spoken here")),
        Err(count) => Err(Refusal::bad(format!("there are {count} Sec-WebSocket-Version headers"))),
    }
}

/// The key: 16 bytes of base64 (RFC 6455 §4.1).
fn key(request: &Parsed) -> Result<&str, Refusal> {
    match request.headers.single("Sec-WebSocket-Key") {
        Ok(Some(key)) if BASE64.decode(key.as_bytes()).is_ok_and(|key| key.len() == 16) => Ok(key),
        Ok(Some(key)) => {
            let key = Shown::value(key);
            Err(Refusal::bad(format!("the Sec-WebSocket-Key {key:?} is not 16 bytes of base64")))
        }
        Ok(None) => Err(Refusal::bad("there is no Sec-WebSocket-Key")),
        Err(count) => Err(Refusal::bad(format!("there are {count} Sec-WebSocket-Key headers"))),
    }
}

fn check_subprotocols(request: &Parsed) -> Result<(), Refusal> {
    match request.headers.list("Sec-WebSocket-Protocol").position(|name| !is_token(name)) {
        // Without the name: pages send credentials in its place, and the reason is logged.
        Some(at) => Err(Refusal::bad(format!(
            "the subprotocol at place {} is none: it is no token of RFC 9110 §5.6.2",
            at + 1
        ))),
        None => Ok(()),
    }
}

/// Browsers send the cookies of this host along with connections that any other site's page opens, so the page has to
/// be one of ours. A client without an `Origin` is no browser and could claim what it likes (RFC 6455 §10.2).
fn check_origin(request: &Parsed, is_secure: bool, origins: &Origins) -> Result<(), Refusal> {
    let Origins::SameHost(listed) = origins else {
        return Ok(());
    };
    let origin = match request.headers.single("Origin") {
        Ok(None) => return Ok(()),
        Ok(Some(origin)) => origin,
        Err(count) => {
            return Err(Refusal::bad(format!("there are {count} Origin headers")));
        }
    };
    let host = request.headers.get("Host").unwrap_or_default();
    if is_of_host(origin, host, is_secure)
        || listed.iter().any(|listed| same_origin(listed, origin))
    {
        return Ok(());
    }
    let origin = Shown::value(origin);
    let reason = format!("pages from {origin} may not connect here; see `allow_origin`");
    Err(Refusal::new(Status::FORBIDDEN, reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::headers::Headers;

    const GOOD: &[(&str, &str)] = &[
        ("Host", "server.example.com"),
        ("Upgrade", "websocket"),
        ("Connection", "keep-alive, Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    ];

    fn request(fields: &[(&str, &str)]) -> Parsed {
        let mut headers = Headers::default();
        for (name, value) in fields {
            headers.append(name, value);
        }
        Parsed {
            method: Method::Get,
            path: "/chat".to_owned(),
            query: String::new(),
            is_http_11: true,
            headers,
            body: Vec::new(),
        }
    }

    /// The good request with `name` replaced by `values`.
    fn changed(name: &str, values: &[&str]) -> Parsed {
        let mut fields: Vec<_> = GOOD.iter().copied().filter(|(key, _)| *key != name).collect();
        fields.extend(values.iter().map(|value| (name, *value)));
        request(&fields)
    }

    fn status(request: &Parsed) -> u16 {
        match accept(request, false, None, &Websocket::new()) {
            Ok(opening) => opening.response.status_code().code(),
            Err(refusal) => refusal.status.code(),
        }
    }

    #[test]
    fn the_sample_of_the_rfc_is_accepted() {
        let opening = accept(&request(GOOD), false, Some("chat"), &Websocket::new()).unwrap();
        let Opening { response, agreement } = opening;
        assert_eq!(agreement, None);
        assert_eq!(
            response.header_value("Sec-WebSocket-Accept"),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        let text = String::from_utf8(response.encode_upgrade()).unwrap();
        assert!(text.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{text}");
        assert!(text.contains("\r\nConnection: Upgrade\r\n"), "{text}");
        assert!(text.contains("\r\nSec-WebSocket-Protocol: chat\r\n"), "{text}");
        assert!(!text.contains("Content-Length"), "{text}");
    }

    #[test]
    fn each_rule_has_its_status() {
        let cases: &[(&str, &[&str], u16)] = &[
            ("Upgrade", &["WebSocket"], 101),
            ("Upgrade", &["h2c, websocket"], 101),
            ("Upgrade", &[], 426),
            ("Upgrade", &["websockets"], 426),
            ("Connection", &["UPGRADE"], 101),
            ("Connection", &["keep-alive", "upgrade"], 101),
            ("Connection", &["not-upgrade"], 400),
            ("Connection", &["keep-alive"], 400),
            ("Connection", &[], 400),
            ("Sec-WebSocket-Version", &["8"], 426),
            ("Sec-WebSocket-Version", &["13, 8"], 426),
            ("Sec-WebSocket-Version", &["13", "13"], 400),
            ("Sec-WebSocket-Version", &[], 426),
            ("Sec-WebSocket-Key", &[], 400),
            ("Sec-WebSocket-Key", &[""], 400),
            ("Sec-WebSocket-Key", &["dGhlIHNhbXBsZQ=="], 400),
            ("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25jZQ"], 400),
            ("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25jZQ==, a"], 400),
            ("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=="], 400),
            ("Sec-WebSocket-Protocol", &["a, b c"], 400),
            ("Origin", &["http://server.example.com"], 101),
            ("Origin", &["https://SERVER.example.com:443"], 101),
            ("Origin", &["http://server.example.com:8000"], 403),
            ("Origin", &["http://evil.example.com"], 403),
            ("Origin", &["http://server.example.com.evil.com"], 403),
            ("Origin", &["http://evil.com/server.example.com"], 403),
            ("Origin", &["null"], 403),
            ("Origin", &["http://server.example.com", "http://server.example.com"], 400),
        ];
        for (name, values, expected) in cases {
            assert_eq!(status(&changed(name, values)), *expected, "{name}: {values:?}");
        }
        let mut post = request(GOOD);
        post.method = Method::Post;
        assert_eq!(status(&post), 405);
        let mut old = request(GOOD);
        old.is_http_11 = false;
        assert_eq!(status(&old), 400);
    }

    #[test]
    fn a_page_has_the_scheme_that_its_connection_has_or_may_have() {
        for (scheme, in_the_clear, over_tls) in [
            ("https", true, true),
            ("HTTPS", true, true),
            ("http", true, false),
            ("Http", true, false),
            ("wss", false, false),
            ("capacitor", false, false),
            ("", false, false),
        ] {
            for name in ["a.example", "localhost"] {
                let origin = format!("{scheme}://{name}");
                assert_eq!(is_of_host(&origin, name, false), in_the_clear, "{origin}");
                assert_eq!(is_of_host(&origin, name, true), over_tls, "{origin} over TLS");
            }
        }
    }

    #[test]
    fn listed_origins_and_any_are_let_in() {
        let foreign = changed("Origin", &["https://Friend.example"]);
        let listed = Websocket::new().allow_origin("https://friend.example");
        assert!(accept(&foreign, false, None, &listed).is_ok());
        assert!(accept(&foreign, false, None, &Websocket::new().allow_any_origin()).is_ok());
        let other = changed("Origin", &["http://friend.example"]);
        assert!(accept(&other, false, None, &listed).is_err(), "the scheme counts");
        let null = Websocket::new().allow_origin("null");
        assert!(accept(&changed("Origin", &["null"]), false, None, &null).is_ok());
    }
}
