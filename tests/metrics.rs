//! What Prometheus gets to see.

mod common;

use std::collections::BTreeMap;

use common::{Raw, echo, get, header, serve, status, wait_until};
use rwf::block_on;
use rwf::http::ServerHandle;
use rwf::prelude::*;
use rwf::stats::Metrics;

/// The samples of an answer, by name with labels.
fn samples(body: &str) -> BTreeMap<&str, f64> {
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?}"));
            (name, value.parse().unwrap_or_else(|_| panic!("{line:?}")))
        })
        .collect()
}

fn shown(server: &ServerHandle) -> String {
    Raw::connect(server.local_addr()).ask(&get("/metrics")).1
}

fn routes() -> Vec<rwf::http::Route> {
    vec![route!("/metered/:id" => websocket(echo)), route!("/metrics" => Metrics::new())]
}

#[test]
fn a_server_shows_what_goes_on_in_it() {
    let server = serve(routes());
    let mut client = Raw::open(server.local_addr(), "/metered/7");
    client.send_text("hello");
    client.text_frame();
    wait_until("it is counted", || server.stats().sent.messages == 1);
    let (head, body) = Raw::connect(server.local_addr()).ask(&get("/metrics"));
    assert_eq!(status(&head), 200);
    assert_eq!(header(&head, "content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let samples = samples(&body);
    for (name, value) in [
        ("rwf_open_connections", 2.0),
        ("rwf_connections_total", 2.0),
        ("rwf_open_websockets{route=\"/metered/:id\"}", 1.0),
        ("rwf_open_websockets{route=\"/metrics\"}", 0.0),
        ("rwf_http_requests_total{route=\"/metrics\"}", 1.0),
        ("rwf_messages_received_total{route=\"/metered/:id\"}", 1.0),
        ("rwf_received_bytes_total{route=\"/metered/:id\"}", 11.0),
        ("rwf_sent_bytes_total{route=\"/metered/:id\"}", 7.0),
        ("rwf_handshake_seconds_count", 1.0),
        ("rwf_handshake_seconds_bucket{le=\"+Inf\"}", 1.0),
        ("rwf_websockets_closed_total{cause=\"client\"}", 0.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name} in {body}");
    }
    let slowest = "rwf_slowest_handler_seconds{route=\"/metered/:id\",handler=\"echo\",call=";
    assert!(body.contains(slowest), "{body}");
}

#[test]
fn the_format_is_that_of_prometheus() {
    let server = serve(routes());
    let body = shown(&server);
    assert!(body.ends_with('\n'), "the last line ends too");
    let (mut family, mut kind) = ("", "");
    let mut families = Vec::new();
    for line in body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap();
            assert!(!families.contains(&family), "{family} comes twice");
            families.push(family);
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, of_type) = typed.split_once(' ').unwrap();
            assert_eq!(name, family, "the type stands behind the help");
            kind = of_type;
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        } else {
            let name = &line[..line.find(['{', ' ']).unwrap()];
            let suffixes: &[&str] =
                if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            let stem = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} in {family}"));
            assert!(suffixes.contains(&stem), "{line} in {family}");
        }
    }
    for histogram in ["rwf_handshake_seconds", "rwf_handler_seconds"] {
        let bucket = format!("{histogram}_bucket");
        let counts: Vec<f64> = body
            .lines()
            .filter(|line| line.starts_with(&bucket))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
            .collect();
        assert!(counts.is_sorted(), "{histogram}: {counts:?}");
        let count = samples(&body)[&*format!("{histogram}_count")];
        assert_eq!(counts.last(), Some(&count), "{histogram}");
    }
}

#[test]
fn a_server_shows_itself_and_without_one_the_process_is_shown() {
    let (one, two) = (serve(routes()), serve(routes()));
    let _client = Raw::open(one.local_addr(), "/metered/7");
    let opened = "rwf_websockets_total{route=\"/metered/:id\"}";
    assert_eq!(samples(&shown(&one))[opened], 1.0);
    assert_eq!(samples(&shown(&two))[opened], 0.0);

    let built = block_on(Metrics::new().handle(&Request::get("/metrics").build())).unwrap();
    let body = String::from_utf8(built.body_bytes().to_vec()).unwrap();
    assert!(samples(&body)[opened] >= 1.0, "{body}");
    let three = serve(vec![route!("/metrics" => Metrics::of_process())]);
    assert!(samples(&shown(&three))[opened] >= 1.0);
}

#[test]
fn only_who_reads_is_answered() {
    let server = serve(routes());
    let post = get("/metrics").replace("GET", "POST");
    let (head, _) = Raw::connect(server.local_addr()).ask(&post);
    assert_eq!((status(&head), header(&head, "allow")), (405, Some("GET, HEAD")));
}
