//! What has to hold for any bytes that arrive, as one check for each of the fuzzers in `tests/fuzz`.

use std::iter;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use data_encoding::BASE64;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::comms::session::SessionId;
use crate::http::cookie::{self, Cookie, SameSite};
use crate::http::headers::{Headers, is_field_value, is_token};
use crate::http::method::Method;
use crate::http::parser::{Parsed, Parser, Phase, Step};
use crate::http::path::{self, Pattern};
use crate::http::peer;
use crate::http::proxy_header;
use crate::http::rejection::{Rejection, RequestLimits};
use crate::http::response::Response;
use crate::net::peer::Peer;
use crate::websocket::close::{Close, CloseCode};
use crate::websocket::compression::{Agreement, Deflation};
use crate::websocket::decoder::{self, Decoder, Event, Violation};
use crate::websocket::deflate::Deflate;
use crate::websocket::extensions::Side;
use crate::websocket::frame::Frame;
use crate::websocket::handshake::{self, Opening};
use crate::websocket::message::Message;
use crate::websocket::settings::Websocket;

/// What may be reserved on top of twice the bytes that came: the largest step by which any buffer grows, and a read.
const SPARE: usize = (64 << 10) + (8 << 10);

/// The sizes of reads: at most a power of two up to 128, which the seed chooses, and of any size below it.
fn pieces(seed: u8) -> impl Iterator<Item = usize> {
    let largest = 1 << (seed % 8);
    let mut state = u32::from(seed);
    iter::repeat_with(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1 + (state >> 16) as usize % largest
    })
}

/// Reads that take all there is room for.
fn whole() -> impl Iterator<Item = usize> {
    iter::repeat(usize::MAX)
}

/// A peer that has sent `rest`, which arrives in reads of these sizes.
struct Wire<'a, S> {
    rest: &'a [u8],
    sizes: S,
    arrived: usize,
}

impl<'a, S: Iterator<Item = usize>> Wire<'a, S> {
    fn new(rest: &'a [u8], sizes: S) -> Self {
        Self { rest, sizes, arrived: 0 }
    }

    /// One read, of at most what `buffer` has room for, as from a socket.
    fn read(&mut self, buffer: &mut Vec<u8>) -> usize {
        let reserved = buffer.capacity();
        assert!(reserved <= 2 * self.arrived + SPARE, "{reserved} for {} bytes", self.arrived);
        let room = reserved - buffer.len();
        assert!(room > 0, "a read without room for what it brings looks like the stream's end");
        let size = self.sizes.next().unwrap_or(1).min(room).min(self.rest.len());
        let (now, later) = self.rest.split_at(size);
        buffer.extend_from_slice(now);
        self.rest = later;
        self.arrived += size;
        size
    }
}

const REQUEST_LIMITS: RequestLimits =
    RequestLimits { max_head_size: 512, max_headers: 8, max_body_size: 64 };

/// All that came of a stream of requests.
#[derive(Debug, PartialEq, Eq)]
struct Requests {
    requests: Vec<Parsed>,
    rejection: Option<Rejection>,
    /// What is left behind the last request, where there was no rejection, and what it is.
    rest: Option<(Phase, Vec<u8>)>,
}

fn parse(wire: &[u8], limits: RequestLimits, sizes: impl Iterator<Item = usize>) -> Requests {
    let mut parser = Parser::new(limits);
    let mut wire = Wire::new(wire, sizes);
    let mut requests = Vec::new();
    let mut permissions = 0;
    loop {
        match parser.next() {
            Ok(Step::Request(request)) => {
                requests.push(*request);
                // As when a controller answers: it gets what came behind the request, and gives it back.
                let rest = parser.take_rest();
                parser.restore(rest);
            }
            Ok(Step::Continue) => {
                permissions += 1;
                assert!(permissions <= requests.len() + 1, "one permission for each request");
            }
            Ok(Step::NeedsInput) if wire.rest.is_empty() => {
                let rest = Some((parser.phase(), parser.take_rest()));
                return Requests { requests, rejection: None, rest };
            }
            Ok(Step::NeedsInput) => {
                parser.fill(|buffer| Ok(wire.read(buffer))).expect("memory does not fail");
            }
            Err(rejection) => return Requests { requests, rejection: Some(rejection), rest: None },
        }
    }
}

/// A seed, then the bytes of any number of requests.
pub fn request(data: &[u8]) {
    let [seed, wire @ ..] = data else { return };
    let outcome = parse(wire, REQUEST_LIMITS, whole());
    let in_pieces = parse(wire, REQUEST_LIMITS, pieces(*seed));
    assert_eq!(outcome, in_pieces, "whole, and in pieces");
    let in_bytes = parse(wire, REQUEST_LIMITS, iter::repeat(1));
    assert_eq!(outcome, in_bytes, "whole, and byte by byte");
    if let Some(rejection) = &outcome.rejection {
        let status = rejection.status.code();
        assert!([400, 413, 417, 431, 501, 505].contains(&status), "{rejection:?}");
    }
    // Longer than every limit, and the end of nothing.
    let endless = [wire, &[b'x'; 2000]].concat();
    let outcome_of_more = parse(&endless, REQUEST_LIMITS, pieces(*seed));
    assert!(outcome_of_more.rejection.is_some(), "it would be waited for: {outcome_of_more:?}");
    if let Some((_, rest)) = &outcome.rest {
        assert!(wire.ends_with(rest), "the rest is as it was sent");
    }
    for request in &outcome.requests {
        check_request(request);
    }
}

fn check_request(request: &Parsed) {
    let Parsed { path, query, headers, body, .. } = request;
    let is_visible = |text: &str| text.bytes().all(|byte| byte > b' ' && byte != 0x7f);
    assert!(is_visible(path) && is_visible(query) && !path.contains(['?', '#']), "{request:?}");
    assert!(path.starts_with('/') || path == "*", "{request:?}");
    // An absolute target may bring a host that the headers lack.
    assert!(headers.iter().count() <= REQUEST_LIMITS.max_headers + 1, "{request:?}");
    assert!(headers.iter().all(|(name, value)| is_token(name) && is_field_value(value)));
    let length: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    // A byte that is no UTF-8 becomes a character of two.
    assert!(path.len() + query.len() + length <= 2 * REQUEST_LIMITS.max_head_size);
    assert!(body.len() <= REQUEST_LIMITS.max_body_size, "{request:?}");
    assert!(body.capacity() <= 2 * body.len() + 8, "{} for {}", body.capacity(), body.len());
    let hosts = headers.get_all("Host").count();
    assert!(hosts == 1 || hosts == 0 && !request.is_http_11, "{request:?}");
    let host = headers.get("Host").unwrap_or_default();
    assert!(is_visible(host) && !host.contains(['/', '?', '#', '@', '\\']), "{request:?}");
    let framings =
        ["Content-Length", "Transfer-Encoding"].map(|name| headers.get_all(name).count());
    assert!(framings.iter().sum::<usize>() <= 1, "{request:?}");

    let limits = RequestLimits { max_head_size: 4096, max_headers: 16, ..REQUEST_LIMITS };
    let again = parse(&written(request), limits, whole());
    let expected = Requests {
        requests: vec![request.clone()],
        rejection: None,
        rest: Some((Phase::Idle, Vec::new())),
    };
    assert_eq!(again, expected, "what was understood, written down and read again");
}

fn written(request: &Parsed) -> Vec<u8> {
    let Parsed { method, path, query, headers, body, .. } = request;
    let mark = if query.is_empty() { "" } else { "?" };
    let version = u8::from(request.is_http_11);
    let mut head = format!("{method} {path}{mark}{query} HTTP/1.{version}\r\n");
    for (name, value) in headers.iter() {
        head += &format!("{name}: {value}\r\n");
    }
    let head = head + "\r\n";
    match headers.get("Transfer-Encoding") {
        Some(_) if body.is_empty() => [head.as_bytes(), b"0\r\n\r\n"].concat(),
        Some(_) => {
            let size = format!("{:x}\r\n", body.len());
            [head.as_bytes(), size.as_bytes(), body, b"\r\n0\r\n\r\n"].concat()
        }
        None => [head.as_bytes(), body].concat(),
    }
}

/// The bytes of requests, each of which may open a WebSocket.
pub fn handshake(data: &[u8]) {
    let limits = RequestLimits { max_head_size: 4096, max_headers: 32, max_body_size: 64 };
    let spoken = ["chat.v2", "chat.v1"];
    let same_host = Websocket::new();
    let listed = Websocket::new().allow_origin("https://friend.example").subprotocols(spoken);
    let any = Websocket::new().allow_any_origin().subprotocols(spoken);
    for request in &parse(data, limits, whole()).requests {
        check_trust(&request.headers);
        for is_secure in [false, true] {
            let open = |settings| opens(request, is_secure, settings);
            let is_open = [&same_host, &listed, &any].map(open);
            assert!(is_open.is_sorted(), "a more open endpoint refuses what a stricter one takes");
            if is_open[0] {
                check_same_host(&request.headers, is_secure);
            }
        }
        let status = rejected_with(request, &any);
        assert_ne!(status, Some(403), "any origin is allowed");
    }
}

fn rejected_with(request: &Parsed, settings: &Websocket) -> Option<u16> {
    let rejection = handshake::accept(request, false, None, settings).err()?;
    Some(rejection.response().status_code().code())
}

fn opens(request: &Parsed, is_secure: bool, settings: &Websocket) -> bool {
    let spoken = &settings.subprotocols;
    let mut offered = request.headers.list("Sec-WebSocket-Protocol");
    let subprotocol = offered.find(|offer| spoken.iter().any(|name| name == offer));
    match handshake::accept(request, is_secure, subprotocol, settings) {
        Ok(opening) => {
            check_opening(request, &opening, subprotocol);
            true
        }
        Err(rejection) => {
            check_refusal(&rejection.response());
            false
        }
    }
}

fn check_opening(request: &Parsed, opening: &Opening, subprotocol: Option<&str>) {
    let response = &opening.response;
    let has = |name, part| {
        request.headers.get_all(name).any(|value| value.to_ascii_lowercase().contains(part))
    };
    assert!(request.method == Method::Get && request.is_http_11 && request.body.is_empty());
    assert!(has("Upgrade", "websocket") && has("Connection", "upgrade"), "{request:?}");
    assert!(request.headers.list("Sec-WebSocket-Protocol").all(is_token), "{request:?}");
    let all = |name| request.headers.get_all(name).collect::<Vec<_>>();
    assert_eq!(all("Sec-WebSocket-Version"), ["13"]);
    let [key] = all("Sec-WebSocket-Key")[..] else { panic!("one key: {request:?}") };
    assert_eq!(BASE64.decode(key.as_bytes()).map(|key| key.len()), Ok(16), "{key}");

    let (status, headers, body) = read_response(&response.encode_upgrade());
    assert_eq!((status, body.as_slice()), (101, &b""[..]));
    let one = |name| headers.single(name).expect("a header stands once");
    assert_eq!((one("Upgrade"), one("Connection")), (Some("websocket"), Some("Upgrade")));
    assert_eq!(one("Sec-WebSocket-Protocol"), subprotocol);
    assert_eq!(one("Content-Length"), None);
    let extensions = one("Sec-WebSocket-Extensions");
    assert_eq!(extensions.is_some(), opening.agreement.is_some());
    let is_offered = |name: &str| {
        request.headers.list("Sec-WebSocket-Extensions").any(|offer| offer.starts_with(name))
    };
    assert!(extensions.is_none_or(|_| is_offered("permessage-deflate")), "{request:?}");
    let accept = one("Sec-WebSocket-Accept").map(|accept| BASE64.decode(accept.as_bytes()));
    assert!(matches!(accept, Some(Ok(digest)) if digest.len() == 20));
}

fn check_refusal(response: &Response) {
    let (head, body) = response.encode(false, Some("close"));
    let (status, headers, body) = read_response(&[&head, body].concat());
    match status {
        400 | 403 => {}
        405 => assert_eq!(headers.get("Allow"), Some("GET")),
        426 => assert_eq!(headers.get("Sec-WebSocket-Version"), Some("13")),
        _ => panic!("{response:?}"),
    }
    assert_eq!(headers.single("Content-Length"), Ok(Some(body.len().to_string().as_str())));
    assert!(headers.has_token("Connection", "close"), "{response:?}");
}

/// The page is of the host that it talks to, as far as the names go.
fn check_same_host(headers: &Headers, is_secure: bool) {
    let Some(origin) = headers.get("Origin") else { return };
    let (scheme, authority) = origin.split_once("://").expect("an origin has a scheme");
    let schemes: &[&str] = if is_secure { &["https"] } else { &["https", "http"] };
    assert!(schemes.iter().any(|own| own.eq_ignore_ascii_case(scheme)), "{origin}");
    assert!(!authority.contains(['/', '@', '?', '#', '\\']), "{origin}");
    let host = headers.get("Host").unwrap_or_default();
    assert_eq!(host_name(authority), host_name(host), "{origin} at {host}");
}

/// The host in lower case and without its port, an address in its shortest form; `localhost` for each name of this
/// machine.
fn host_name(authority: &str) -> String {
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => authority,
    };
    let name = name.to_ascii_lowercase();
    match name.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) if address.to_canonical().is_loopback() => "localhost".to_owned(),
        Ok(address) => address.to_string(),
        Err(_) if name.ends_with(".localhost") => "localhost".to_owned(),
        Err(_) => name,
    }
}

/// Nobody is believed who may not be, and a host is only what it seems.
fn check_trust(headers: &Headers) {
    let host = headers.get("Host").unwrap_or_default();
    if peer::is_our_host(host, true, &[]) {
        assert_eq!(host_name(host), "localhost", "{host}");
    }
    let proxy = IpAddr::from([10, 0, 0, 1]);
    let peer = Peer::from(SocketAddr::from((proxy, 0)));
    assert_eq!(peer::client(headers, peer, &[]), peer);
    assert!(peer::is_secure(headers, &peer, &[]).is_none());
    let listed: Vec<Result<IpAddr, _>> = headers.list("X-Forwarded-For").map(str::parse).collect();
    let believed = listed.into_iter().rev().map_while(Result::ok).find(|ip| *ip != proxy);
    let client = peer::client(headers, peer, &[proxy.into()]);
    assert_eq!(client.ip(), believed.unwrap_or(proxy));
}

/// Status, headers and body, as a client reads them.
fn read_response(bytes: &[u8]) -> (u16, Headers, Vec<u8>) {
    let mut fields = [httparse::EMPTY_HEADER; 16];
    let mut head = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(length)) = head.parse(bytes) else {
        panic!("{:?}", String::from_utf8_lossy(bytes));
    };
    let mut headers = Headers::default();
    for field in head.headers.iter() {
        headers.append(field.name, str::from_utf8(field.value).expect("we write UTF-8"));
    }
    (head.code.unwrap_or_default(), headers, bytes[length..].to_vec())
}

const FRAME_LIMITS: [decoder::MessageLimits; 4] = [
    frame_limits(64, 64, 4, 1),
    frame_limits(200, 130, 3, 32),
    frame_limits(70_000, 70_000, 1000, 8192),
    frame_limits(usize::MAX, usize::MAX, usize::MAX, 256),
];

const fn frame_limits(
    max_message_size: usize,
    max_frame_size: usize,
    max_fragments: usize,
    read_buffer_size: usize,
) -> decoder::MessageLimits {
    decoder::MessageLimits { max_message_size, max_frame_size, max_fragments, read_buffer_size }
}

/// Decodes `wire`, whose first `early` bytes came in one segment with the request.
fn decode(
    wire: &[u8],
    early: usize,
    limits: decoder::MessageLimits,
    sizes: impl Iterator<Item = usize>,
) -> (Vec<Event>, Option<Violation>) {
    let (early, wire) = wire.split_at(early.min(wire.len()));
    let decoder = Decoder::new(limits, early.to_vec());
    decode_by(decoder, Wire { arrived: early.len(), ..Wire::new(wire, sizes) })
}

fn decode_by(
    mut decoder: Decoder,
    mut wire: Wire<'_, impl Iterator<Item = usize>>,
) -> (Vec<Event>, Option<Violation>) {
    let mut events = Vec::new();
    loop {
        match decoder.next() {
            Ok(Some(event)) => events.push(event),
            Ok(None) if wire.rest.is_empty() => return (events, None),
            Ok(None) => {
                decoder.fill(|buffer| Ok(wire.read(buffer))).expect("memory does not fail");
            }
            Err(violation) => return (events, Some(violation)),
        }
    }
}

/// A seed, a choice of limits, how many bytes came with the request, then the bytes of frames.
pub fn frames(data: &[u8]) {
    let [seed, choice, early, wire @ ..] = data else { return };
    let limits = FRAME_LIMITS[usize::from(*choice) % FRAME_LIMITS.len()];
    let (events, violation) = decode(wire, 0, limits, whole());
    let in_pieces = decode(wire, usize::from(*early), limits, pieces(*seed));
    assert_eq!((&events, &violation), (&in_pieces.0, &in_pieces.1), "whole, and in pieces");
    let delivered: usize = events.iter().map(|event| check_event(event, limits)).sum();
    assert!(delivered <= wire.len(), "no more comes out than went in");
    if let Some(Close { code, reason }) = violation {
        assert!([1002, 1007, 1008, 1009].contains(&u16::from(code)) && reason.len() <= 123);
    }

    let written: Vec<u8> = events.iter().flat_map(|event| masked(&frame(event))).collect();
    let again = decode(&written, 0, FRAME_LIMITS[3], pieces(*seed));
    assert_eq!(again, (events, None), "what was understood, encoded and decoded again");
}

/// A seed, a choice of limits and of what was agreed on, then the bytes of frames, compressed or not. The same bytes are then
/// a message, which is compressed, cut and inflated.
pub fn deflate(data: &[u8]) {
    let [seed, choice, wire @ ..] = data else { return };
    let limits = FRAME_LIMITS[usize::from(*choice) % 3];
    let side = Side { keeps_context: choice & 0x80 != 0, window_bits: 9 + choice / 3 % 7 };
    let settings = Deflate::new().level(1 + seed % 9).threshold(0);
    let agreement = Agreement { settings, server: side, client: side };
    let decoder = |limits| Decoder::new(limits, Vec::new()).inflating(&agreement);
    let outcome = decode_by(decoder(limits), Wire::new(wire, whole()));
    let in_pieces = decode_by(decoder(limits), Wire::new(wire, pieces(*seed)));
    assert_eq!(outcome, in_pieces, "whole, and in pieces");
    for event in &outcome.0 {
        check_event(event, limits);
    }
    if let Some(Close { code, reason }) = outcome.1 {
        assert!([1002, 1007, 1008, 1009].contains(&u16::from(code)) && reason.len() <= 123);
    }

    let deflation = Deflation::new(&agreement);
    let (first, last) = wire.split_at(wire.len() / 2);
    let messages = [first, last, wire, &[]].map(Message::from);
    let frames = messages.clone().map(|message| {
        let frame = Frame::message(message).compressible();
        let compressed = match deflation.method() {
            Some(method) => method.deflate(&frame),
            None => deflation.next(&frame),
        };
        assert!(compressed.as_ref().is_none_or(|compressed| compressed.len() < frame.len()));
        masked(compressed.as_ref().unwrap_or(&frame))
    });
    let (events, violation) =
        decode_by(decoder(FRAME_LIMITS[3]), Wire::new(&frames.concat(), pieces(*seed)));
    assert_eq!((events, violation), (messages.map(Event::Message).to_vec(), None));
}

/// Length of what the event holds.
fn check_event(event: &Event, limits: decoder::MessageLimits) -> usize {
    match event {
        Event::Message(message) => {
            assert!(message.len() <= limits.max_message_size, "{} bytes", message.len());
            let text = message.as_text().map(str::as_bytes);
            assert!(text.is_none_or(|text| str::from_utf8(text).is_ok()), "{message:?}");
            message.len()
        }
        Event::Ping(payload) | Event::Pong(payload) => {
            assert!(payload.len() <= 125, "{event:?}");
            payload.len()
        }
        Event::Close(Close { code, reason }) => {
            let is_empty = *code == CloseCode::NO_STATUS && reason.is_empty();
            assert!(is_empty || code.is_sendable() && reason.len() <= 123, "{event:?}");
            reason.len()
        }
    }
}

fn frame(event: &Event) -> Frame {
    match event {
        Event::Message(message) => Frame::message(message.clone()),
        Event::Ping(payload) => Frame::ping(payload.clone()),
        Event::Pong(payload) => Frame::pong(payload.clone()),
        Event::Close(close) => Frame::close(close),
    }
}

/// A frame as a client sends it.
fn masked(frame: &Frame) -> Vec<u8> {
    let wire = frame.wire();
    let mask = [0x11, 0x22, 0x93, 0xf4];
    let head = match wire[1] {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let payload = wire[head..].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    let mut masked = wire[..head].to_vec();
    masked[1] |= 0x80;
    masked.extend(mask);
    masked.extend(payload);
    masked
}

/// A line each: two patterns, a path, a query.
pub fn path(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.splitn(4, '\n');
    let [one, other, path, query] = [(); 4].map(|()| lines.next().unwrap_or_default());
    check_query(query);
    let segments = path::segments(path);
    if let Some(segments) = &segments {
        check_segments(path, segments);
    }
    let segments = segments.unwrap_or_default();
    let [first, second] = [one, other].map(|text| {
        let pattern = Pattern::parse(text).ok()?;
        assert!(pattern.to_string() == text && pattern.is_like(&pattern), "{text:?}");
        Some((pattern.matches(&segments), pattern))
    });
    for (text, matched) in [(one, &first), (other, &second)] {
        if let Some((parameters, _)) = matched {
            check_match(text, &segments, parameters.as_deref());
        }
    }
    if let (Some((taken, first)), Some((others, second))) = (first, second) {
        assert_eq!(first.is_like(&second), second.is_like(&first));
        let are_equal = taken.is_some() == others.is_some();
        assert!(are_equal || !first.is_like(&second), "{one:?}, {other:?}: {path:?}");
    }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn check_segments(path: &str, segments: &[String]) {
    assert_eq!(segments.len(), path.matches('/').count(), "{path:?}");
    assert!(segments.iter().all(|segment| !segment.contains('\0')), "{path:?}");
    let again: String = segments.iter().map(|segment| format!("/{}", encoded(segment))).collect();
    assert_eq!(path::segments(&again).as_deref(), Some(segments), "{path:?}, encoded again");
}

/// What a pattern takes fills its gaps to give the path again, and it takes what it should.
fn check_match(pattern: &str, segments: &[String], parameters: Option<&[(String, String)]>) {
    let wanted: Vec<&str> = pattern.split('/').skip(1).collect();
    let takes_rest = pattern.contains("/*");
    let has_length = segments.len() == wanted.len() || takes_rest && segments.len() > wanted.len();
    let fits = |(wanted, segment): (&&str, &String)| match wanted.as_bytes().first() {
        Some(b':') => !segment.is_empty(),
        Some(b'*') => true,
        _ => {
            path::segments(&format!("/{wanted}")).as_deref() == Some(std::slice::from_ref(segment))
        }
    };
    let is_match = has_length && wanted.iter().zip(segments).all(fits);
    assert_eq!(parameters.is_some(), is_match, "{pattern:?}: {segments:?}");
    let Some(parameters) = parameters else { return };
    let mut values = parameters.iter();
    let filled: Vec<&str> = (wanted.iter().zip(segments))
        .map(|(wanted, segment)| match wanted.strip_prefix([':', '*']) {
            Some(gap) => {
                let (name, value) = values.next().expect("a value for each gap");
                assert_eq!(name, gap, "{pattern:?}");
                value.as_str()
            }
            None => segment.as_str(),
        })
        .collect();
    assert_eq!(filled.join("/"), segments.join("/"), "{pattern:?}");
    assert_eq!(values.next(), None, "{pattern:?}");
}

fn check_query(text: &str) {
    let pairs = path::query(text);
    assert!(pairs.len() <= text.split('&').count(), "{text:?}");
    let again: Vec<String> = (pairs.iter())
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
        .collect();
    assert_eq!(path::query(&again.join("&")), pairs, "{text:?}, encoded again");
    assert_eq!(path::query(&text.replace('+', "%20")), pairs, "{text:?}, with other spaces");
}

/// A byte of choices, then parts with `ff` between them: a `Cookie` header, and the name, value, path and domain of a
/// cookie.
pub fn cookies(data: &[u8]) {
    let [choices, parts @ ..] = data else { return };
    let mut parts = parts.splitn(5, |byte| *byte == 0xff);
    let [header, name, value, path, domain] =
        [(); 5].map(|()| String::from_utf8_lossy(parts.next().unwrap_or_default()));
    check_lookup(&header, &name);
    let mut cookie = Cookie::new(&*name, &*value).path(&*path);
    let mut attributes = vec![("path", trimmed(&path).to_owned())];
    if choices & 1 != 0 {
        cookie = cookie.domain(&*domain);
        attributes.push(("domain", trimmed(&domain).to_owned()));
    }
    if choices & 2 != 0 {
        cookie = cookie.max_age(Duration::from_millis(60_900));
        attributes.push(("max-age", "60".to_owned()));
    }
    let (has_http_only, is_secure) = (choices & 4 != 0, choices & 8 != 0);
    let same_site =
        [SameSite::Strict, SameSite::Lax, SameSite::None][usize::from(choices >> 4) % 3];
    cookie = cookie.http_only(has_http_only).secure(is_secure).same_site(same_site);
    attributes.extend(has_http_only.then(|| ("httponly", String::new())));
    attributes.extend(is_secure.then(|| ("secure", String::new())));
    attributes.push(("samesite", format!("{same_site:?}")));

    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !name.is_empty() && [&name, &value, &path, &domain].into_iter().all(|text| is_plain(text)) {
        assert!(cookie.is_valid(), "{cookie}");
    }
    if cookie.is_valid() {
        check_set_cookie(&cookie.to_string(), (&name, &value), &attributes);
        let found = format!("{name}={value}; {header}");
        assert_eq!(cookie::find_all(&found, &name).next(), Some(&*value), "{found:?}");
    }
    check_cookie_response(cookie);
}

fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn check_lookup(header: &str, name: &str) {
    let start = format!("{name}=");
    let first = header.split(';').map(trimmed).find_map(|pair| pair.strip_prefix(&start));
    let Some(value) = cookie::find_all(header, name).next() else {
        assert!(first.is_none() || name.contains('='), "{header:?} has {name:?}");
        return;
    };
    assert!(first == Some(value) || first == Some(&format!("\"{value}\"")), "{header:?}: {name:?}");
    if let Some(session) = SessionId::from_cookie(value) {
        assert!(session.is_guest(), "{value} makes somebody a user");
        assert_eq!(SessionId::from_cookie(&session.to_string()), None, "an id is a cookie");
    }
}

/// A line of `Set-Cookie`, as a browser takes it apart (RFC 6265 §5.2), says what was meant and nothing else.
fn check_set_cookie(line: &str, meant: (&str, &str), attributes: &[(&str, String)]) {
    assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line:?}");
    let mut parts = line.split(';').map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (trimmed(name), trimmed(value))
    });
    assert_eq!(parts.next(), Some(meant), "{line}");
    let read: Vec<_> =
        parts.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    let meant: Vec<_> =
        attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    assert_eq!(read, meant, "{line}");
}

/// A cookie that no header can hold makes a 500, and none of it gets out.
fn check_cookie_response(cookie: Cookie) {
    let line = cookie.is_valid().then(|| cookie.to_string());
    let response = Response::new().cookie(cookie).or_internal_error();
    let (status, headers, _) = read_response(&response.encode(false, None).0);
    assert_eq!(status, if line.is_some() { 200 } else { 500 });
    assert_eq!(headers.single("Set-Cookie"), Ok(line.as_deref()));
}

/// A header that says whose connection it is, behind a byte that says in what pieces it comes: it is read alike in all of
/// them, without a byte of what stands behind it, and no more than the limit.
pub fn proxy_header(data: &[u8]) {
    const MAX: usize = 600;
    let Some((seed, bytes)) = data.split_first() else { return };
    let read = |mut sizes: Box<dyn Iterator<Item = usize>>| {
        let mut taken = 0;
        loop {
            match proxy_header::parse(&bytes[..taken], MAX) {
                Ok(proxy_header::Step::Needs(count)) => {
                    assert!(count > 0 && taken + count <= MAX, "{count} more than {taken}");
                    if taken == bytes.len() {
                        return None;
                    }
                    let size = sizes.next().unwrap_or(1);
                    taken = (taken + count.min(size)).min(bytes.len());
                }
                Ok(proxy_header::Step::Whole(client)) => return Some((client, taken)),
                Err(_) => return None,
            }
        }
    };
    let header = read(Box::new(pieces(*seed)));
    assert_eq!(header, read(Box::new(whole())), "it depends on the pieces");
    if let Some((client, length)) = header {
        let whole = proxy_header::parse(&bytes[..length], MAX);
        assert_eq!(whole, Ok(proxy_header::Step::Whole(client)));
        // One byte less is not the whole of it.
        assert!(matches!(
            proxy_header::parse(&bytes[..length - 1], MAX),
            Ok(proxy_header::Step::Needs(_))
        ));
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    type Check = (&'static str, fn(&[u8]));

    const CHECKS: [Check; 7] = [
        ("request", request),
        ("handshake", handshake),
        ("frames", frames),
        ("deflate", deflate),
        ("path", path),
        ("cookies", cookies),
        ("proxy_header", proxy_header),
    ];

    #[test]
    fn everything_holds_for_what_the_fuzzers_found() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
        for (target, check) in CHECKS {
            let files = fs::read_dir(corpora.join(target)).expect(target);
            let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
            assert!(!files.is_empty(), "the corpus {target} is empty");
            for file in files {
                println!("{}", file.display());
                check(&fs::read(file).unwrap());
            }
        }
    }

    /// Mostly sound requests of a first line, header lines and a body, of which one byte may be spoilt.
    fn requests(
        first: &'static [&'static str],
        lines: &'static [&'static str],
        bodies: &'static [&'static str],
    ) -> impl Strategy<Value = Vec<u8>> {
        let request = (select(first), vec(select(lines), 0..4), select(bodies))
            .prop_map(|(first, lines, body)| format!("{first}{}\r\n{body}", lines.concat()));
        let spoilt = proptest::option::of((any::<usize>(), any::<u8>()));
        (vec(request, 1..4), spoilt).prop_map(|(requests, spoilt)| {
            let mut wire = requests.concat().into_bytes();
            let length = wire.len();
            if let Some((index, byte)) = spoilt {
                wire[index % length] = byte;
            }
            wire
        })
    }

    fn plain_requests() -> impl Strategy<Value = Vec<u8>> {
        const FIRST: &[&str] = &[
            "GET /a/%20?b=c HTTP/1.1\r\nHost: x\r\n",
            "POST * HTTP/1.1\r\nHost: x\r\n",
            "HEAD http://y:1/# HTTP/1.0\r\n",
            "\r\nPUT / HTTP/1.1\r\nHost: x/y\r\n",
        ];
        const LINES: &[&str] = &[
            "Host: z\r\n",
            "Content-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Expect: 100-continue\r\n",
            "X: a\tb\u{e4}\r\n",
            "X: y\n",
        ];
        const BODIES: &[&str] = &[
            "",
            "",
            "hello",
            "5;x\r\nhello\r\n0\r\n\r\n",
            "5\r\nhello\r\n\r\n",
            "0\r\nX: y\r\n\r\n",
        ];
        requests(FIRST, LINES, BODIES)
    }

    /// Requests of which up to three places are changed, into what is often just not a request any more.
    fn spoilt_requests() -> impl Strategy<Value = Vec<u8>> {
        const PUT: &[&str] = &[
            "", "\r", "\n", "\r\n", "\r\n\r\n", "\0", " ", "\t", ":", ";", "\u{e4}", "9", "x",
            "GET", "HTTP/1.2", "HTTP/2.0", "HTTP/3",
        ];
        let many = (0..12_usize).prop_map(|count| "X: y\r\n".repeat(count));
        let long = (400..600_usize).prop_map(|count| "y".repeat(count));
        let put = prop_oneof![12 => select(PUT).prop_map(str::to_owned), 1 => many, 1 => long];
        let change = (any::<usize>(), 0..5_usize, put);
        (plain_requests(), vec(change, 0..4)).prop_map(|(mut wire, changes)| {
            for (index, cut, put) in changes {
                let start = index % (wire.len() + 1);
                let end = wire.len().min(start + cut);
                wire.splice(start..end, put.bytes());
            }
            wire
        })
    }

    fn openings() -> impl Strategy<Value = Vec<u8>> {
        const FIRST: &[&str] = &["GET / HTTP/1.1\r\nHost: localhost:80\r\nUpgrade: websocket\r\n\
            Connection: Upgrade\r\n"];
        const LINES: &[&str] = &[
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSE=\r\n",
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSEh\r\n",
            "Sec-WebSocket-Version: 13, 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            "Sec-WebSocket-Protocol: chat.v1, chat.v2\r\n",
            "Sec-WebSocket-Protocol: chat v1\r\n",
            "Origin: http://127.0.0.1\r\n",
            "Origin: http://localhost.example\r\n",
            "Origin: https://friend.example\r\n",
            "Origin: capacitor://localhost\r\n",
            "Origin: https://localhost\r\n",
            "X-Forwarded-For: 10.0.0.2,::1, 10.0.0.1\r\n",
        ];
        requests(FIRST, LINES, &[""])
    }

    fn any_frames() -> impl Strategy<Value = Vec<u8>> {
        let first = select(&[0x81, 0x82, 0x80, 0x00, 0x01, 0x02, 0x88, 0x89, 0x8a, 0xc1, 0x83][..]);
        let frame = (first, vec(any::<u8>(), 0..140)).prop_map(|(first, p)| part(first, &p));
        let parts = prop_oneof![8 => frame, 1 => vec(any::<u8>(), 0..16)];
        vec(parts, 0..12).prop_map(|parts| parts.concat())
    }

    /// A masked frame with this first byte.
    fn part(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut wire = masked(&Frame::message(Message::from(payload)));
        wire[0] = first;
        wire
    }

    fn events() -> impl Strategy<Value = Event> {
        let code = prop_oneof![1000..=1003_u16, 1007..=1014_u16, 3000..=4999_u16];
        prop_oneof![
            any::<String>().prop_map(|text| Event::Message(text.into())),
            vec(any::<u8>(), 0..600).prop_map(|bytes| Event::Message(bytes.into())),
            vec(any::<u8>(), 0..=125).prop_map(|bytes| Event::Ping(bytes.into())),
            vec(any::<u8>(), 0..=125).prop_map(|bytes| Event::Pong(bytes.into())),
            (code, any::<String>()).prop_map(|(code, s)| Event::Close(Close::new(code.into(), s))),
        ]
    }

    /// A message in fragments of `size` bytes with pings between them, or whatever else it is in one frame.
    fn sent(event: &Event, size: usize) -> (Vec<u8>, Vec<Event>) {
        let message = match event {
            Event::Message(message) if size > 0 && message.len() > size => message,
            _ => return (masked(&frame(event)), vec![event.clone()]),
        };
        let ping = Event::Ping(Default::default());
        let mut opcode = if message.as_text().is_some() { 1 } else { 2 };
        let (mut wire, mut expected) = (Vec::new(), Vec::new());
        for fragment in message.as_bytes().chunks(size) {
            wire.extend(part(std::mem::take(&mut opcode), fragment));
            wire.extend(masked(&frame(&ping)));
            expected.push(ping.clone());
        }
        wire.extend(part(0x80, b""));
        expected.push(event.clone());
        (wire, expected)
    }

    /// A request with this body: in chunks of `chunk` bytes, or by its length if that is zero.
    fn with_body(body: &[u8], chunk: usize) -> Vec<u8> {
        let head = b"POST / HTTP/1.1\r\nHost: x\r\n".as_slice();
        if chunk == 0 {
            let length = format!("Content-Length: {}\r\n\r\n", body.len());
            return [head, length.as_bytes(), body].concat();
        }
        let mut wire = [head, b"Transfer-Encoding: chunked\r\n\r\n"].concat();
        for chunk in body.chunks(chunk) {
            wire.extend(format!("{:X}\r\n", chunk.len()).bytes());
            wire.extend(chunk);
            wire.extend(b"\r\n");
        }
        wire.extend(b"0\r\n\r\n");
        wire
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn everything_holds_for_any_bytes(data in vec(any::<u8>(), 0..200)) {
            CHECKS.iter().for_each(|(_, check)| check(&data));
        }

        #[test]
        fn everything_holds_for_any_requests(seed: u8, wire in plain_requests()) {
            request(&[&[seed], wire.as_slice()].concat());
        }

        #[test]
        fn any_split_of_spoilt_requests_gives_the_same_requests_and_the_same_refusal(
            seed: u8,
            wire in spoilt_requests(),
        ) {
            request(&[&[seed], wire.as_slice()].concat());
        }

        #[test]
        fn everything_holds_for_any_openings(wire in openings()) {
            handshake(&wire);
        }

        #[test]
        fn everything_holds_for_any_frames(head: [u8; 3], wire in any_frames()) {
            frames(&[&head, wire.as_slice()].concat());
        }

        #[test]
        fn everything_holds_for_any_paths(lines in [r"(/[a:*%20.]{0,4}){0,4}"; 4]) {
            path(lines.join("\n").as_bytes());
        }

        #[test]
        fn everything_holds_for_any_cookies(
            choices: u8,
            parts in ["[a=; \"]{0,16}", "a|b c", "[a1;, ]{0,3}", "[/; ]{0,2}", "[x;\n]?"],
        ) {
            let parts = parts.each_ref().map(String::as_bytes).join(&0xff);
            cookies(&[&[choices], parts.as_slice()].concat());
        }

        #[test]
        fn requests_arrive_as_they_were_sent(
            seed: u8,
            sent in vec((vec(any::<u8>(), 0..=64), 0..20_usize), 0..8),
        ) {
            let wire: Vec<_> = sent.iter().map(|(body, chunk)| with_body(body, *chunk)).collect();
            let outcome = parse(&wire.concat(), REQUEST_LIMITS, pieces(seed));
            let bodies = outcome.requests.into_iter().map(|request| request.body);
            prop_assert_eq!(outcome.rest, Some((Phase::Idle, Vec::new())));
            prop_assert!(bodies.eq(sent.into_iter().map(|(body, _)| body)));
        }

        #[test]
        fn messages_arrive_as_they_were_sent(
            seed: u8,
            early in 0..200_usize,
            events in vec((events(), 0..200_usize), 0..8),
        ) {
            let sent = events.iter().map(|(event, size)| sent(event, *size));
            let (wire, expected): (Vec<_>, Vec<_>) = sent.unzip();
            let limits = FRAME_LIMITS[usize::from(seed) % 2 + 2];
            let arrived = decode(&wire.concat(), early, limits, pieces(seed));
            prop_assert_eq!(arrived, (expected.concat(), None));
        }

        #[test]
        fn the_limits_of_requests_are_exact(
            seed: u8,
            head in 505..520_usize,
            body in 60..70_usize,
            headers in 6..10_usize,
            chunk in 0..70_usize,
        ) {
            let arrives = |wire: &[u8]| parse(wire, REQUEST_LIMITS, pieces(seed)).rejection.is_none();
            let start = "GET / HTTP/1.0\r\nX: ";
            let padding = "y".repeat(head - start.len() - 4);
            prop_assert_eq!(arrives(format!("{start}{padding}\r\n\r\n").as_bytes()), head <= 512);
            prop_assert_eq!(arrives(&with_body(&vec![b'y'; body], chunk)), body <= 64);
            let fields = "X: y\r\n".repeat(headers);
            prop_assert_eq!(arrives(format!("GET / HTTP/1.0\r\n{fields}\r\n").as_bytes()), headers <= 8);
        }

        #[test]
        fn the_limits_of_messages_are_exact(
            seed: u8,
            length in 300..600_usize,
            size in 1..300_usize,
        ) {
            let (wire, _) = sent(&Event::Message(vec![0; length].into()), size);
            // A message that is sent in fragments ends with an empty one.
            let fragments = length.div_ceil(size) + 1;
            for less in 0..4 {
                let limit = |index, exact: usize| exact - usize::from(less == index);
                let limits = frame_limits(limit(0, length), limit(1, size), limit(2, fragments), 8);
                let (_, violation) = decode(&wire, 0, limits, pieces(seed));
                let code = violation.map(|close| u16::from(close.code));
                prop_assert_eq!(code, [Some(1009), Some(1009), Some(1008), None][less]);
            }
        }

        #[test]
        fn a_close_arrives_if_it_may_be_sent(
            code in prop_oneof![990..1020_u16, 2990..5010_u16, any::<u16>()],
            reason in "\\PC{0,200}",
        ) {
            let is_sendable = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            let checked = Close::checked(code.into(), &reason);
            prop_assert_eq!(checked.is_ok(), is_sendable && reason.len() <= 123);
            let close = Close::new(code.into(), reason.clone());
            prop_assert!(reason.starts_with(&close.reason) && close.reason.len() <= 123);
            prop_assert!(reason == close.reason || close.reason.len() > 119);
            let arrived = decode(&masked(&Frame::close(&close)), 0, FRAME_LIMITS[1], whole());
            match arrived {
                (events, None) if is_sendable => prop_assert_eq!(events, [Event::Close(close)]),
                // A close frame says that there is no code by having none.
                (events, None) if code == 1005 => {
                    prop_assert_eq!(events, [Event::Close(Close::new(CloseCode::NO_STATUS, ""))]);
                }
                (_, violation) => {
                    prop_assert_eq!(violation.map(|close| u16::from(close.code)), Some(1002));
                    prop_assert!(!is_sendable && code != 1005);
                }
            }
        }

        #[test]
        fn parameters_are_what_stood_in_the_path(
            values in vec((any::<bool>(), "[^\0]+"), 1..5),
            rest in proptest::option::of("[^\0]*"),
        ) {
            let (mut pattern, mut url, mut expected) = (String::new(), String::new(), Vec::new());
            for (index, (is_gap, value)) in values.into_iter().enumerate() {
                url += &format!("/{}", encoded(&value));
                if is_gap {
                    pattern += &format!("/:p{index}");
                    expected.push((format!("p{index}"), value));
                } else {
                    pattern += &format!("/{}", encoded(&value));
                }
            }
            if let Some(rest) = rest {
                pattern += "/*rest";
                url += &format!("/{}", rest.split('/').map(encoded).collect::<Vec<_>>().join("/"));
                expected.push(("rest".to_owned(), rest));
            }
            let pattern = Pattern::parse(&pattern).map_err(TestCaseError::fail)?;
            let segments = path::segments(&url).expect("what was encoded can be decoded");
            prop_assert_eq!(pattern.matches(&segments), Some(expected));
        }
    }
}
