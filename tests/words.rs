//! The words that people search with lead to what they mean: rustdoc's search finds items by their aliases.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::Path;

/// How many lines of attributes stand between an alias and its item at most.
const ATTRIBUTES: usize = 4;

/// Whether the item has the word for an alias.
fn has_alias(source: &str, item: &str, word: &str) -> bool {
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(at, line)| {
        line.starts_with("#[doc(alias")
            && line.split('"').skip(1).step_by(2).any(|alias| alias == word)
            && lines[at..].iter().take(1 + ATTRIBUTES).any(|line| line.starts_with(item))
    })
}

#[test]
fn the_usual_words_lead_to_the_items_that_they_mean() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (file, item, words) in [
        ("base/rate.rs", "pub struct Rate", "rate_limit throttle"),
        ("comms/client.rs", "pub fn send(", "backpressure"),
        ("comms/members.rs", "pub fn members(", "online"),
        ("comms/presence.rs", "pub fn presence(", "online"),
        ("comms/reach.rs", "pub fn websocket(", "session user"),
        ("comms/reach.rs", "pub fn topic(", "room group publish"),
        ("comms/reach.rs", "pub fn notify(", "all everyone broadcast"),
        ("comms/reach.rs", "pub fn send(", "backpressure"),
        ("comms/reach.rs", "pub fn close(", "disconnect"),
        ("comms/server.rs", "pub fn websocket(", "session user"),
        ("comms/server.rs", "pub fn notify(", "all everyone broadcast"),
        ("controller/request.rs", "pub fn append_response_header(", "cors"),
        ("controller/socket.rs", "pub fn send(", "backpressure"),
        ("server/builder.rs", "pub fn bind(", "docker container"),
        ("server/builder.rs", "pub fn run(", "graceful graceful_shutdown"),
        ("server/builder.rs", "shutdown_timeout:", "graceful graceful_shutdown"),
        ("server/builder.rs", "pub fn handshake_rate_per_peer(", "rate_limit throttle"),
        ("server/handle.rs", "pub fn shutdown(", "graceful graceful_shutdown"),
        ("websocket/settings.rs", "pub struct Websocket", "WebsocketSettings WebsocketConfig"),
        ("websocket/settings.rs", "pub enum Overflow", "backpressure"),
        ("websocket/settings.rs", "pub fn outbox_bytes(", "backpressure"),
        ("websocket/settings.rs", "pub fn message_rate(", "rate_limit throttle"),
        ("websocket/settings.rs", "pub fn byte_rate(", "rate_limit throttle"),
        ("websocket/settings.rs", "pub fn ping_interval(", "heartbeat keepalive"),
        ("websocket/settings.rs", "pub fn ping_timeout(", "heartbeat keepalive"),
        ("websocket/settings.rs", "pub fn allow_origin(", "cors"),
    ] {
        let text = fs::read_to_string(source.join(file)).unwrap();
        for word in words.split(' ') {
            assert!(
                has_alias(&text, item, word),
                "{word:?} does not lead to `{item}` of src/{file}"
            );
        }
    }
}
