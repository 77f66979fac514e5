//! HTTP: requests in, responses out, and what is refused; over real sockets.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{
    DEADLINE, Guest, Raw, answer, get, header, new_secret, serve, start, status, upgrade_request,
    wait_until,
};
use rwf::controller::Websocket;
use rwf::http::{Cookie, Route, Server, ServerHandle, Status};
use rwf::prelude::*;

/// A route that answers with the request's method, path and body.
fn seen() -> Route {
    route!("/seen" => answer(|request| {
        let (method, path) = (request.method(), request.path());
        let body = String::from_utf8_lossy(request.body());
        Ok(Response::new().text(format!("{method} {path} [{body}]")))
    }))
}

/// A route, and how often it was called.
fn counted(path: &str) -> (Route, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let controller = answer(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new().text("counted"))
    });
    (route!(path => controller), count)
}

fn connect(server: &ServerHandle) -> Raw {
    Raw::connect(server.local_addr())
}

/// Sends `bytes` one at a time, each after `pause`, until something comes from the server, or its end.
fn drip(client: &mut Raw, bytes: &[u8], pause: Duration) {
    let deadline = Instant::now() + DEADLINE;
    for byte in bytes.iter().cycle() {
        assert!(Instant::now() < deadline, "dripped for {DEADLINE:?}, and the server took it");
        if !client.is_quiet_for(pause) || client.stream.write_all(&[*byte]).is_err() {
            return;
        }
    }
}

/// Fails when `began` is not at least `least` ago.
#[track_caller]
fn expect_elapsed(began: Instant, least: Duration, what: &str) {
    let elapsed = began.elapsed();
    assert!(elapsed >= least, "{what} came after {elapsed:?}, before {least:?} were over");
}

// Connections.

#[test]
fn many_requests_are_answered_on_one_connection() {
    let peers = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&peers);
    let server = serve(vec![route!("/:number" => answer(move |request| {
        noted.lock().unwrap().push(request.peer_addr());
        Ok(Response::new().text(request.param("number")?))
    }))]);
    let mut client = connect(&server);
    for number in 0..200 {
        let (head, body) = client.ask(&get(&format!("/{number}")));
        assert_eq!((status(&head), body), (200, number.to_string()));
        assert_eq!(header(&head, "connection"), None, "HTTP/1.1 is kept without saying so");
    }
    let own = client.stream.local_addr().unwrap();
    assert_eq!(*peers.lock().unwrap(), [own; 200], "all came on this connection");
}

#[test]
fn pipelined_requests_are_answered_in_order_though_the_first_takes_long() {
    let (open_gate, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let (slow_log, log) = mpsc::channel();
    let fast_log = slow_log.clone();
    let server = serve(vec![
        route!("/slow" => answer(move |_| {
            slow_log.send("slow begins".to_owned())?;
            gate.lock().unwrap().recv_timeout(DEADLINE)?;
            slow_log.send("slow ends".to_owned())?;
            Ok(Response::new().text("slow"))
        })),
        route!("/fast/:number" => answer(move |request| {
            let number = request.param("number")?;
            fast_log.send(format!("fast {number}"))?;
            Ok(Response::new().text(format!("{number}{}", request.text()?)))
        })),
    ]);
    let mut client = connect(&server);
    let fast = |number| {
        format!("POST /fast/{number} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n body")
    };
    let wire: String = [get("/slow")].into_iter().chain((0..20).map(fast)).collect();
    client.send(wire.as_bytes());
    open_gate.send(()).unwrap();
    assert_eq!(client.response().1, "slow");
    for number in 0..20 {
        assert_eq!(client.response().1, format!("{number} body"));
    }
    let expected: Vec<_> = ["slow begins".to_owned(), "slow ends".to_owned()]
        .into_iter()
        .chain((0..20).map(|number| format!("fast {number}")))
        .collect();
    assert_eq!(log.try_iter().collect::<Vec<_>>(), expected, "one request at a time");
}

#[test]
fn connections_are_kept_or_closed_as_version_and_header_say() {
    let server = serve(vec![
        seen(),
        route!("/last" => answer(|_| Ok(Response::new().header("connection", "Close").text("bye")))),
    ]);
    // The `Connection` header of the response, and whether the connection is kept.
    let cases: &[(&str, Option<&str>, bool)] = &[
        ("/seen HTTP/1.1\r\nHost: localhost\r\n", None, true),
        ("/seen HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n", None, true),
        ("/seen HTTP/1.1\r\nHost: localhost\r\nConnection: x-close\r\n", None, true),
        ("/seen HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n", Some("close"), false),
        ("/seen HTTP/1.1\r\nHost: localhost\r\nconnection: te, CLOSE\r\n", Some("close"), false),
        (
            "/seen HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive, close\r\n",
            Some("close"),
            false,
        ),
        ("/seen HTTP/1.0\r\n", Some("close"), false),
        ("/seen HTTP/1.0\r\nConnection: keep-alive\r\n", Some("keep-alive"), true),
        ("/seen HTTP/1.0\r\nConnection: te, Keep-Alive\r\n", Some("keep-alive"), true),
        ("/seen HTTP/1.0\r\nConnection: x-keep-alive\r\n", Some("close"), false),
        ("/last HTTP/1.1\r\nHost: localhost\r\n", Some("close"), false),
        ("/last HTTP/1.0\r\nConnection: keep-alive\r\n", Some("close"), false),
        ("/nowhere HTTP/1.1\r\nHost: localhost\r\n", None, true),
    ];
    for (request, connection, is_kept) in cases {
        let mut client = connect(&server);
        let (head, _) = client.ask(&format!("GET {request}\r\n"));
        assert_eq!(header(&head, "connection"), *connection, "{request:?}: {head}");
        if *is_kept {
            assert_eq!(status(&client.ask(&get("/seen")).0), 200, "{request:?}");
        } else {
            client.expect_end();
        }
    }
}

#[test]
fn close_wins_over_keep_alive_in_http_1_0_too() {
    // RFC 9112 §9.3: the `close` option is looked at first, whatever the version.
    let server = serve(vec![seen()]);
    let mut client = connect(&server);
    let request = "GET /seen HTTP/1.0\r\nConnection: close, keep-alive\r\n\r\n";
    let (head, _) = client.ask(request);
    assert_eq!(header(&head, "connection"), Some("close"), "{head}");
    client.expect_end();
}

#[test]
fn a_client_that_has_finished_writing_still_gets_its_answer() {
    let server = serve(vec![seen()]);
    let mut client = connect(&server);
    client.send(get("/seen").as_bytes());
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.response().1, "GET /seen []");
    client.expect_end();
}

#[test]
fn head_is_answered_like_get_but_for_the_body() {
    let server = serve(vec![
        seen(),
        route!("/text" => answer(|_| Ok(Response::new().text("four")))),
        route!("/html" => answer(|_| Ok(Response::new().html("<p>").cookie(Cookie::new("a", "b"))))),
        route!("/empty" => answer(|_| Ok(Response::no_content()))),
        route!("/elsewhere" => answer(|_| Ok(Response::new().redirect("/text").text("there")))),
        route!("/wrong" => answer(|_| Err(Error::new("wrong")))),
    ]);
    let mut client = connect(&server);
    let without_date = |head: &str| -> Vec<String> {
        head.lines().filter(|line| !line.starts_with("Date: ")).map(str::to_owned).collect()
    };
    for path in ["/text", "/html", "/empty", "/elsewhere", "/wrong", "/nowhere"] {
        let rest =
            format!("{path} HTTP/1.1\r\nHost: localhost\r\nCookie: {}\r\n\r\n", guest_cookie());
        let (got, _) = client.ask(&format!("GET {rest}"));
        client.send(format!("HEAD {rest}").as_bytes());
        let head = client.head();
        assert_eq!(without_date(&head), without_date(&got), "HEAD {path}");
    }
    // A body would stand here.
    assert_eq!(client.ask(&get("/seen")).1, "GET /seen []");
}

#[test]
fn a_refusal_of_head_has_no_body_either() {
    let server = start(Server::new(vec![seen()]).max_body_size(9));
    for rest in [
        "/%zz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "/seen HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n",
        "/seen HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        "/seen HTTP/1.1\r\n\r\n",
        "/seen HTTP/2.0\r\n\r\n",
        "/seen#here HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "/seen HTTP/1.1\r\nHost: localhost\r\n\0\r\n\r\n",
    ] {
        let mut client = connect(&server);
        client.send(format!("HEAD {rest}").as_bytes());
        assert!(status(&client.head()) >= 400, "{rest:?}");
        assert_eq!(String::from_utf8_lossy(&client.rest()), "", "the body of {rest:?}");
    }
}

// Bodies.

#[test]
fn bodies_reach_the_controller_in_either_framing() {
    let server = serve(vec![seen()]);
    let mut client = connect(&server);
    let cases: &[(&str, &[&str], &str)] = &[
        ("Content-Length: 0", &[], ""),
        ("Content-Length: 5", &["hello"], "hello"),
        ("content-length: 005", &["h", "el", "lo"], "hello"),
        ("Transfer-Encoding: chunked", &["0\r\n\r\n"], ""),
        ("Transfer-Encoding: chunked", &["5\r\nhello\r\n0\r\n\r\n"], "hello"),
        ("transfer-encoding: CHUNKED", &["2\r\nhe\r\n", "3\r\nllo\r\n", "0\r\n\r\n"], "hello"),
        ("Transfer-Encoding: chunked", &["5", "\r", "\nhel", "lo\r", "\n0\r\n", "\r\n"], "hello"),
        ("Transfer-Encoding: chunked", &["005;a=b;c\r\nhello\r\n0;d\r\n\r\n"], "hello"),
        ("Transfer-Encoding: chunked", &["A\r\n0123456789\r\n0\r\n\r\n"], "0123456789"),
        ("Transfer-Encoding: chunked", &["5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"], "hello"),
        ("Transfer-Encoding: chunked", &["9\r\n0\r\n\r\nGET \r\n0\r\n\r\n"], "0\r\n\r\nGET "),
    ];
    for method in ["POST", "PUT", "PATCH", "DELETE", "GET"] {
        for (field, pieces, body) in cases {
            client.send(
                format!("{method} /seen HTTP/1.1\r\nHost: localhost\r\n{field}\r\n\r\n").as_bytes(),
            );
            for piece in *pieces {
                client.send(piece.as_bytes());
            }
            let expected = format!("{method} /seen [{body}]");
            assert_eq!(client.response().1, expected, "{method} with {field}, {pieces:?}");
        }
    }
}

#[test]
fn a_body_may_be_just_as_long_as_the_limit() {
    let server = serve(vec![route!("/" => answer(|request| {
        Ok(Response::new().bytes(request.body().to_vec()))
    }))]);
    let body: Vec<u8> = (0..1 << 20).map(|at| b'a' + (at % 26) as u8).collect();
    let chunked = body
        .chunks(70_000)
        .flat_map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat());
    let cases = [
        ("Content-Length: 1048576", body.clone()),
        ("Transfer-Encoding: chunked", chunked.chain(*b"0\r\n\r\n").collect()),
    ];
    let mut client = connect(&server);
    for (field, wire) in cases {
        client.send(format!("POST / HTTP/1.1\r\nHost: localhost\r\n{field}\r\n\r\n").as_bytes());
        client.send(&wire);
        let (head, received) = client.response();
        assert_eq!(status(&head), 200, "{field}");
        assert!(received.as_bytes() == body, "{field}: {} bytes came back changed", received.len());
    }
}

#[test]
fn permission_to_continue_comes_before_the_body_and_the_answer_after_it() {
    let server = serve(vec![seen()]);
    let mut client = connect(&server);
    for (field, body) in [
        ("Content-Length: 5", "hello"),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
        ("Expect: 100-Continue\r\nContent-Length: 5", "hello"),
    ] {
        let head = format!(
            "POST /seen HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n{field}\r\n\r\n"
        );
        client.send(head.as_bytes());
        assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n", "{field}");
        client.expect_nothing_for(Duration::from_millis(20));
        client.send(body.as_bytes());
        let (head, answer) = client.response();
        assert_eq!((status(&head), answer.as_str()), (200, "POST /seen [hello]"), "{field}");
    }
}

#[test]
fn nobody_gets_a_permission_that_is_not_awaited() {
    let server = start(Server::new(vec![seen()]).max_body_size(9));
    // What is sent at first, what is sent a moment later, the one status that comes.
    let cases: &[(&str, &str, &str, u16)] = &[
        ("body at once", "HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", "", 200),
        (
            "chunked body at once",
            "HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "",
            200,
        ),
        ("no body", "HTTP/1.1\r\n\r\n", "", 200),
        ("empty body", "HTTP/1.1\r\nContent-Length: 0\r\n\r\n", "", 200),
        ("HTTP/1.0", "HTTP/1.0\r\nContent-Length: 5\r\n\r\n", "hello", 200),
        ("too long", "HTTP/1.1\r\nContent-Length: 10\r\n\r\n", "", 413),
    ];
    for (what, first, later, expected) in cases {
        let mut client = connect(&server);
        let first = first.replacen("\r\n", "\r\nHost: localhost\r\nExpect: 100-continue\r\n", 1);
        client.send(format!("POST /seen {first}").as_bytes());
        if !later.is_empty() {
            client.expect_nothing_for(Duration::from_millis(50));
            client.send(later.as_bytes());
        }
        assert_eq!(status(&client.head()), *expected, "{what}");
    }
}

// Requests.

#[test]
fn path_parameters_are_decoded_segment_by_segment() {
    let show = |name: &'static str| {
        answer(move |request| Ok(Response::new().text(format!("{name}={}", request.param(name)?))))
    };
    let server = serve(vec![
        route!("/chat/:room" => show("room")),
        route!("/chat/lobby" => answer(|_| Ok(Response::new().text("the lobby")))),
        route!("/files/*rest" => show("rest")),
        route!("/a b/:x".replace(' ', "%20") => show("x")),
        route!("/from/:from/to/:to" => answer(|request| {
            Ok(Response::new().text(format!("{}>{}", request.param("from")?, request.param("to")?)))
        })),
    ]);
    let cases: &[(&str, Result<&str, u16>)] = &[
        ("/chat/red", Ok("room=red")),
        ("/chat/blue%20room", Ok("room=blue room")),
        ("/chat/a%2Fb", Ok("room=a/b")),
        ("/chat/a+b", Ok("room=a+b")),
        ("/chat/%c3%A4%F0%9F%A6%80", Ok("room=ä🦀")),
        ("/chat/%25%32%30", Ok("room=%20")),
        ("/chat/%2e%2e", Ok("room=..")),
        ("/chat/red?room=blue", Ok("room=red")),
        ("/chat/lobby", Ok("the lobby")),
        ("/chat/l%6fbby", Ok("the lobby")),
        ("/%63hat/red", Ok("room=red")),
        ("/chat", Err(404)),
        ("/chat/", Err(404)),
        ("/chat/a/b", Err(404)),
        ("/chat%2Fred", Err(404)),
        ("/Chat/red", Err(404)),
        ("/chat/%", Err(400)),
        ("/chat/%2", Err(400)),
        ("/chat/%zz", Err(400)),
        ("/chat/%ff", Err(400)),
        ("/chat/%00", Err(400)),
        ("/files/", Ok("rest=")),
        ("/files/a", Ok("rest=a")),
        ("/files/a/b%20c//d/", Ok("rest=a/b c//d/")),
        ("/a%20b/c", Ok("x=c")),
        ("/from/here/to/%74here", Ok("here>there")),
        ("/from/here/to", Err(404)),
    ];
    for (path, expected) in cases {
        let (head, body) = connect(&server).ask(&get(path));
        match expected {
            Ok(text) => assert_eq!((status(&head), body.as_str()), (200, *text), "{path}"),
            Err(code) => assert_eq!(status(&head), *code, "{path}: {body}"),
        }
    }
}

#[test]
fn queries_are_decoded_and_may_repeat() {
    let server = serve(vec![route!("/" => answer(|request| {
        let all: Vec<_> = request.queries().collect();
        Ok(Response::new().text(format!("{:?} {all:?}", request.query("a"))))
    }))]);
    let cases = [
        ("/", r#"None []"#),
        ("/?", r#"None []"#),
        ("/?a", r#"Some("") [("a", "")]"#),
        ("/?a=1&b=2&a=3", r#"Some("1") [("a", "1"), ("b", "2"), ("a", "3")]"#),
        ("/?b=x+y%2Bz&a=%C3%A4%26%3D", r#"Some("ä&=") [("b", "x y+z"), ("a", "ä&=")]"#),
        ("/?%61=b=c?d/e", r#"Some("b=c?d/e") [("a", "b=c?d/e")]"#),
        ("/?A=1&&=2", r#"None [("A", "1"), ("", "2")]"#),
        ("http://other.localhost/?a=1", r#"Some("1") [("a", "1")]"#),
    ];
    let mut client = connect(&server);
    for (target, expected) in cases {
        assert_eq!(client.ask(&get(target)).1, expected, "{target}");
    }
}

#[test]
fn headers_are_found_in_any_case_and_kept_when_repeated() {
    let server = serve(vec![route!("/" => answer(|request| {
        let all: Vec<_> = request.headers().collect();
        let one = (request.header("X-NAME"), request.header("x-none"));
        Ok(Response::new().text(format!("{one:?} {all:?}")))
    }))]);
    let wire = "GET / HTTP/1.1\r\nHost: localhost\r\nx-Name:first\r\nX-EMPTY:\r\nX-nAME: \t second one \t\r\n\
        X-Text: größe\r\n\r\n";
    let expected = r#"(Some("first"), None) [("Host", "localhost"), ("x-Name", "first"), ("X-EMPTY", ""), ("X-nAME", "second one"), ("X-Text", "größe")]"#;
    assert_eq!(connect(&server).ask(wire).1, expected);
}

#[test]
fn cookies_are_found_by_their_exact_name_in_all_headers() {
    let server = serve(vec![route!("/:name" => answer(|request| {
        Ok(Response::new().text(format!("{:?}", request.cookie(request.param("name")?))))
    }))]);
    let mut client = connect(&server);
    for (name, expected) in [
        ("a", r#"Some("1")"#),
        ("ab", r#"Some("2 3")"#),
        ("A", "None"),
        ("c", r#"Some("x=y")"#),
        ("d", r#"Some("")"#),
        ("e", r#"Some("later")"#),
        ("f", "None"),
    ] {
        let request = format!(
            "GET /{name} HTTP/1.1\r\nHost: localhost\r\nCookie: ab=\"2 3\"; a=1;c=x=y; d=; f\r\n\
             cookie: a=9; e=later\r\n\r\n"
        );
        assert_eq!(client.ask(&request).1, expected, "cookie {name}");
    }
}

#[test]
fn a_request_says_all_that_was_sent() {
    let (sender, requests) = mpsc::channel();
    let server = serve(vec![route!("/rooms/:room" => answer(move |request| {
        sender.send(request.clone())?;
        Ok(Response::new())
    }))]);
    let session = Guest::new();
    let mut client = connect(&server);
    client.ask(&format!(
        "PATCH /rooms/blue%20room?page=2 HTTP/1.1\r\nHost: localhost\r\n{}\
         Content-Length: 7\r\n\r\ngrüße",
        session.cookie()
    ));
    let request = requests.recv_timeout(DEADLINE).unwrap();
    assert_eq!(request.method(), "PATCH");
    assert_eq!(request.path(), "/rooms/blue%20room", "as it was sent");
    assert_eq!(request.param("room").unwrap(), "blue room");
    assert_eq!(request.query("page"), Some("2"));
    assert_eq!(request.header("host"), Some("localhost"));
    assert_eq!(request.cookie("rwf_session"), Some(session.secret.to_string().as_str()));
    assert_eq!(request.body(), "grüße".as_bytes());
    assert_eq!(request.text().unwrap(), "grüße");
    assert_eq!(request.peer_addr(), client.stream.local_addr().unwrap());
    assert_eq!(request.session_id(), session.session());
    assert!(request.param("door").is_err());

    client.ask(&get("/rooms/2"));
    let next = requests.recv_timeout(DEADLINE).unwrap();
    assert_eq!(next.connection_id(), request.connection_id(), "one connection");
    assert_ne!(next.session_id(), session.session(), "without its cookie a visitor is unknown");
}

// Refusals.

/// Requests whose end is not known: what, the bytes, the status.
const REFUSED: &[(&str, &str, u16)] = &[
    ("no request", "hello\r\n\r\n", 400),
    ("lower-case version", "GET / http/1.1\r\nHost: localhost\r\n\r\n", 400),
    ("no version", "GET /\r\n\r\n", 400),
    ("no Host", "GET / HTTP/1.1\r\n\r\n", 400),
    ("two Hosts", "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
    ("no path", "GET x HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    ("proxying", "CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n", 400),
    ("undecodable path", "GET /%zz HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (
        "both lengths",
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "both lengths, the other way around",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "two lengths",
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nContent-Length: 3\r\n\r\n",
        400,
    ),
    (
        "two equal lengths",
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\ncontent-length: 0\r\n\r\n",
        400,
    ),
    (
        "a list of lengths",
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0, 0\r\n\r\n",
        400,
    ),
    ("a signed length", "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: +0\r\n\r\n", 400),
    (
        "a hexadecimal length",
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0x0\r\n\r\n",
        400,
    ),
    ("an empty length", "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length:\r\n\r\n", 400),
    (
        "a space before the colon",
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length : 0\r\n\r\n",
        400,
    ),
    (
        "a coding that is not chunked",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: identity\r\n\r\n",
        400,
    ),
    (
        "a coding before chunked",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        501,
    ),
    (
        "chunked twice",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "almost chunked",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    ("chunked in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("a folded line", "GET / HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n", 400),
    ("a folded first line", "GET / HTTP/1.1\r\n Host: localhost\r\n\r\n", 400),
    ("a bare CR in a value", "GET / HTTP/1.1\r\nHost: localhost\r\nX: a\rY: b\r\n\r\n", 400),
    ("a bare CR in the target", "GET /\r HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    ("bare line feeds", "GET / HTTP/1.1\nHost: x\n\n", 400),
    ("a bare line feed in a value", "GET / HTTP/1.1\r\nHost: localhost\r\nX: a\nY: b\r\n\r\n", 400),
    ("a NUL in a value", "GET / HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n", 400),
    ("a NUL in a name", "GET / HTTP/1.1\r\nHost: localhost\r\nX\0: a\r\n\r\n", 400),
    ("a NUL in the target", "GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    ("a header without a name", "GET / HTTP/1.1\r\nHost: localhost\r\n: a\r\n\r\n", 400),
    ("a header without a colon", "GET / HTTP/1.1\r\nHost: localhost\r\nX\r\n\r\n", 400),
    (
        "a chunk longer than it says",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        400,
    ),
    (
        "a bare line feed behind a chunk's size",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0;a\nb\r\n\r\n",
        400,
    ),
    (
        "a bare CR behind a chunk's size",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0;a\rb\r\n\r\n",
        400,
    ),
    (
        "NUL in a chunk's extension",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0;a\0b\r\n\r\n",
        400,
    ),
    ("a fragment", "GET /#/public HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (
        "a chunk with a signed size",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        400,
    ),
    (
        "a chunk line that ends with a line feed",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n",
        400,
    ),
    (
        "a trailer that is none",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX : y\r\n\r\n",
        400,
    ),
    ("a long body", "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100001\r\n\r\n", 413),
    (
        "an endless body",
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n",
        413,
    ),
    (
        "a long chunk",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n186a1\r\n",
        413,
    ),
    (
        "a chunk of 2^64 - 1 bytes",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        413,
    ),
    ("an expectation", "GET / HTTP/1.1\r\nHost: localhost\r\nExpect: tea\r\n\r\n", 417),
    ("an unknown method", "BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
    ("a method in lower case", "get / HTTP/1.1\r\nHost: localhost\r\n\r\n", 501),
    ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("HTTP/1.2", "GET / HTTP/1.2\r\nHost: localhost\r\n\r\n", 505),
];

/// Each has its status, and what comes behind it is not executed.
fn expect_refused(cases: &[(&str, &str, u16)]) {
    let (root, roots) = counted("/");
    let (smuggled, executed) = counted("/executed");
    let server = start(Server::new(vec![root, smuggled]).max_body_size(100_000));
    for (what, wire, expected) in cases {
        let mut client = connect(&server);
        client.send(format!("{wire}{}", get("/executed")).as_bytes());
        let (head, body) = client.response();
        assert_eq!(status(&head), *expected, "{what}: {wire:?}: {head}{body}");
        assert_eq!(header(&head, "connection"), Some("close"), "{what}: {head}");
        client.expect_end();
    }
    assert_eq!(executed.load(Ordering::SeqCst), 0, "what came behind a refused request ran");
    assert_eq!(roots.load(Ordering::SeqCst), 0, "a refused request ran");
    assert_eq!(connect(&server).ask(&get("/executed")).1, "counted", "others are served");
}

#[test]
fn what_is_refused_has_its_status_and_nothing_after_it_is_executed() {
    expect_refused(REFUSED);
}

#[test]
fn a_chunk_without_a_size_is_refused() {
    // RFC 9112 §7.1: a size has at least one digit. Whoever reads none as zero takes what follows for a request.
    expect_refused(&[
        (
            "an empty line",
            "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\r\n\r\n",
            400,
        ),
        (
            "an empty line after a chunk",
            "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n\r\n\r\n",
            400,
        ),
        (
            "only an extension",
            "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n;a=b\r\n\r\n",
            400,
        ),
        (
            "only a space",
            "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n \r\n\r\n",
            400,
        ),
    ]);
}

#[test]
fn a_chunk_line_has_one_limit_however_it_arrives() {
    let server = serve(vec![seen()]);
    let outcome = |length: usize, pieces: usize| {
        let line = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(length));
        let wire = format!(
            "POST /seen HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{line}"
        );
        let mut client = connect(&server);
        let size = wire.len().div_ceil(pieces);
        for piece in wire.as_bytes().chunks(size) {
            // The server reads each piece before the next, or has answered.
            if client.is_quiet_for(Duration::from_millis(30)) {
                client.send(piece);
            }
        }
        status(&client.response().0)
    };
    for length in [1000, 2000] {
        assert_eq!(
            outcome(length, 1),
            outcome(length, 3),
            "a line of {length} bytes, in 1 or 3 pieces"
        );
    }
}

#[test]
fn an_absolute_target_without_a_host_is_refused() {
    // RFC 9110 §4.2.1: the recipient of an http URI without a host has to reject it.
    expect_refused(&[
        ("no host", "GET http:/// HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        ("no host, with a query", "GET http://?a HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    ]);
}

#[test]
fn a_space_in_the_target_is_no_question_of_the_version() {
    // The request line has a part too many; the version that it ends with is spoken here.
    let server = serve(vec![seen()]);
    for line in ["GET /a b HTTP/1.1", "GET / HTTP/1.1 HTTP/1.1"] {
        let (head, _) = connect(&server).ask(&format!("{line}\r\nHost: localhost\r\n\r\n"));
        assert_eq!(status(&head), 400, "{line:?}: {head}");
    }
}

#[test]
fn heads_over_their_limits_are_431_wherever_they_end() {
    let server = start(Server::new(vec![seen()]).max_head_size(1000).max_headers(10));
    let padded = |length: usize| {
        let (start, end) = ("GET /seen HTTP/1.1\r\nHost: localhost\r\nX: ", "\r\n\r\n");
        format!("{start}{}{end}", "y".repeat(length - start.len() - end.len()))
    };
    let fields = |count: usize| {
        format!("GET /seen HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(count - 1))
    };
    for (what, request, expected) in [
        ("as long as the limit", padded(1000), 200),
        ("a byte longer", padded(1001), 431),
        ("much longer", padded(200_000), 431),
        ("a long target", format!("GET /{}", "a".repeat(2000)), 431),
        ("as many headers as the limit", fields(10), 200),
        ("one more", fields(11), 431),
    ] {
        let mut client = connect(&server);
        let (head, _) = client.ask(&request);
        assert_eq!(status(&head), expected, "{what}");
        if expected == 431 {
            client.expect_end();
        }
    }
}

#[test]
fn a_request_that_ends_midway_is_400() {
    let server = serve(vec![seen()]);
    for wire in [
        "GET /se",
        "GET /seen HTTP/1.1\r\nHost: localhost\r\n",
        "POST /seen HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhell",
        "POST /seen HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let mut client = connect(&server);
        client.send(wire.as_bytes());
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(status(&client.response().0), 400, "{wire:?}");
        client.expect_end();
    }
}

#[test]
fn an_error_response_is_not_lost_when_the_client_has_sent_much_more() {
    let server = start(
        Server::new(vec![
            seen(),
            route!("/last" => answer(|_| Ok(Response::new().header("Connection", "close")))),
        ])
        .max_body_size(1000),
    );
    let much = "x".repeat(500 << 10);
    for (what, head, expected) in [
        ("413", "POST /seen HTTP/1.1\r\nHost: localhost\r\nContent-Length: 512000\r\n\r\n", 413),
        (
            "413, chunked",
            "POST /seen HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n7d000\r\n",
            413,
        ),
        ("431", "GET /seen HTTP/1.1\r\nHost: localhost\r\nX: ", 431),
        ("400", "GET /seen HTTP/1.1\r\n\r\n", 400),
        ("an answer that closes", "GET /last HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
    ] {
        let mut client = connect(&server);
        client.send(format!("{head}{much}").as_bytes());
        assert_eq!(status(&client.response().0), expected, "{what}");
        client.expect_end();
    }
}

#[test]
fn a_client_that_uploads_without_pause_reads_its_refusal_whole() {
    let server = start(
        Server::new(vec![seen()]).max_body_size(1 << 40).body_timeout(Duration::from_millis(50)),
    );
    let cases = [
        ("POST /seen HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999\r\n\r\n", 408),
        ("POST /seen HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999999\r\n\r\n", 413),
        ("POST /seen HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n", 400),
    ];
    for (head, expected) in cases.repeat(10) {
        let mut client = connect(&server);
        client.send(head.as_bytes());
        let mut upload = client.stream.try_clone().unwrap();
        let uploading = thread::spawn(move || while upload.write_all(&[b'x'; 16 << 10]).is_ok() {});
        let (head, body) = client.response();
        assert_eq!(status(&head), expected, "{body}");
        client.expect_end();
        assert!(!uploading.is_finished(), "the upload was broken off after {expected}");
        client.stream.shutdown(Shutdown::Both).unwrap();
        uploading.join().unwrap();
    }
}

#[test]
fn a_path_without_a_route_is_404_and_the_connection_goes_on() {
    let server = serve(vec![seen()]);
    let mut client = connect(&server);
    for path in ["/", "/seen/", "/SEEN", "//seen", "/seen/more", "/../seen"] {
        let (head, body) = client.ask(&get(path));
        assert_eq!((status(&head), body.as_str()), (404, "Not Found"), "{path}");
    }
    assert_eq!(client.ask(&get("/seen")).1, "GET /seen []");
}

#[test]
fn options_for_the_whole_server_are_no_error_of_the_client() {
    // RFC 9110 §9.3.7: `*` asks about the server in general; that there is no route for it makes it no bad request.
    let server = serve(vec![seen()]);
    let mut client = connect(&server);
    let (head, _) = client.ask("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_ne!(status(&head), 400, "{head}");
}

// Time.

#[test]
fn a_head_that_drips_in_is_408_at_the_open_timeout() {
    let timeout = Duration::from_millis(300);
    let server = start(Server::new(vec![seen()]).open_timeout(timeout));
    let endless = format!("GET /seen HTTP/1.1\r\nHost: localhost\r\nX: {}", "y".repeat(9000));
    for earlier_requests in [0, 1] {
        let mut client = connect(&server);
        let mut began = Instant::now();
        for _ in 0..earlier_requests {
            client.ask(&get("/seen"));
            began = Instant::now();
        }
        drip(&mut client, endless.as_bytes(), Duration::from_millis(20));
        assert_eq!(status(&client.response().0), 408, "after {earlier_requests} requests");
        expect_elapsed(began, timeout, "408");
        client.expect_end();
    }
}

#[test]
fn a_body_that_drips_in_is_408_at_the_body_timeout() {
    let timeout = Duration::from_millis(300);
    let server = start(Server::new(vec![seen()]).body_timeout(timeout));
    for field in ["Content-Length: 99999", "Transfer-Encoding: chunked"] {
        let mut client = connect(&server);
        let began = Instant::now();
        client
            .send(format!("POST /seen HTTP/1.1\r\nHost: localhost\r\n{field}\r\n\r\n").as_bytes());
        drip(&mut client, b"1\r\na\r\n", Duration::from_millis(20));
        assert_eq!(status(&client.response().0), 408, "{field}");
        expect_elapsed(began, timeout, "408");
        client.expect_end();
    }
}

#[test]
fn a_body_has_its_own_time_beside_that_of_the_head() {
    let server = start(Server::new(vec![seen()]).open_timeout(Duration::from_millis(300)));
    let mut client = connect(&server);
    client.send(b"POST /seen HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\na");
    client.expect_nothing_for(Duration::from_millis(600));
    client.send(b"b");
    assert_eq!(client.response().1, "POST /seen [ab]");
}

#[test]
fn a_client_that_stays_silent_is_closed_at_the_open_timeout_without_an_answer() {
    let timeout = Duration::from_millis(200);
    let server = start(Server::new(vec![seen()]).open_timeout(timeout));
    let began = Instant::now();
    let mut client = connect(&server);
    client.expect_end();
    expect_elapsed(began, timeout, "the end");
}

#[test]
fn empty_lines_do_not_keep_a_connection_open() {
    let timeout = Duration::from_millis(300);
    let server = start(Server::new(vec![seen()]).open_timeout(timeout).idle_timeout(timeout));
    for earlier_requests in [0, 1] {
        let mut client = connect(&server);
        for _ in 0..earlier_requests {
            client.ask(&get("/seen"));
        }
        drip(&mut client, b"\r\n", Duration::from_millis(20));
    }
}

#[test]
fn a_kept_connection_is_closed_at_the_idle_timeout_without_an_answer() {
    let timeout = Duration::from_millis(1200);
    let server = start(
        Server::new(vec![seen()]).idle_timeout(timeout).open_timeout(Duration::from_millis(250)),
    );
    let mut client = connect(&server);
    for _ in 0..2 {
        client.ask(&get("/seen"));
        // The open timeout is over, the idle one is not.
        client.expect_nothing_for(Duration::from_millis(400));
    }
    let began = Instant::now();
    client.ask(&get("/seen"));
    client.expect_end();
    expect_elapsed(began, timeout, "the end");
}

#[test]
fn the_time_of_a_slow_controller_does_not_count() {
    let server = start(
        Server::new(vec![route!("/" => answer(|_| {
            thread::sleep(Duration::from_millis(600));
            Ok(Response::new().text("slept"))
        }))])
        .open_timeout(Duration::from_millis(400))
        .body_timeout(Duration::from_millis(400))
        .idle_timeout(Duration::from_millis(500)),
    );
    let mut client = connect(&server);
    client.send(format!("{0}{0}", get("/")).as_bytes());
    for _ in 0..2 {
        assert_eq!(client.response().1, "slept");
    }
    assert_eq!(client.ask(&get("/")).1, "slept");
}

#[test]
fn a_client_that_sends_on_after_its_last_answer_is_cut_at_the_idle_timeout_or_after_5_s() {
    let never = Duration::MAX;
    for (idle_timeout, most) in [(Duration::from_millis(200), 4), (never, 9)] {
        let settings = Websocket::new().close_timeout(never);
        let server =
            start(Server::new(vec![seen()]).idle_timeout(idle_timeout).websocket(settings));
        let mut client = connect(&server);
        assert_eq!(status(&client.ask("GET /seen HTTP/1.1\r\n\r\n").0), 400);
        let began = Instant::now();
        wait_until("the server takes no more", || client.stream.write_all(&[b'x'; 1000]).is_err());
        let took = began.elapsed();
        assert!(took < Duration::from_secs(most), "cut after {took:?} only");
    }
}

#[test]
fn an_answer_that_nobody_takes_is_given_up_at_the_write_timeout_and_counts_as_cut() {
    const LENGTH: usize = 64 << 20;
    let timeout = Duration::from_millis(200);
    let (sender, called) = mpsc::channel();
    let route = route!("/" => answer(move |_| {
        sender.send(())?;
        Ok(Response::new().bytes(vec![b'x'; LENGTH]))
    }));
    let server = start(Server::new(vec![route]).websocket(Websocket::new().write_timeout(timeout)));
    let mut client = connect(&server);
    client.send(get("/").as_bytes());
    called.recv_timeout(DEADLINE).unwrap();
    let began = Instant::now();
    let report = server.shutdown().unwrap();
    expect_elapsed(began, timeout / 2, "the end of the shutdown");
    assert!(began.elapsed() < Duration::from_secs(8), "given up after {:?}", began.elapsed());
    assert!(client.rest().len() < LENGTH, "all of it was taken");
    assert_eq!((report.closed, report.cut), (0, 1), "an answer that was cut is no good end");
}

#[test]
fn clients_that_take_nothing_of_a_body_are_given_up() {
    const COUNT: usize = 8;
    let timeout = Duration::from_secs(1);
    let body = Bytes::from(vec![b'x'; 64 << 20]);
    let route = route!("/:what" => answer(move |request| match request.param("what")? {
        "long" => Ok(Response::new().bytes(body.clone())),
        _ => Ok(Response::new()),
    }));
    let server = start(
        Server::new(vec![route])
            .max_connections(COUNT)
            .websocket(Websocket::new().write_timeout(timeout)),
    );
    let mut clients: Vec<_> = (0..COUNT).map(|_| connect(&server)).collect();
    for client in &mut clients {
        client.send(get("/long").as_bytes());
        client.head();
    }
    // That a kernel enlarges its buffer may count once or twice.
    let deadline = Instant::now() + 4 * timeout;
    let mut others = Vec::new();
    while others.len() < COUNT {
        let left = COUNT - others.len();
        assert!(Instant::now() < deadline, "{left} of {COUNT} clients were not given up");
        let mut other = connect(&server);
        match status(&other.ask(&get("/short")).0) {
            200 => others.push(other),
            _ => thread::sleep(Duration::from_millis(10)),
        }
    }
}

#[test]
fn a_client_that_takes_a_body_slowly_but_steadily_gets_all_of_it() {
    const LENGTH: usize = 12 << 20;
    let body = Bytes::from((0..LENGTH).map(|at| (at / 7) as u8).collect::<Vec<_>>());
    let sent = body.clone();
    let route = route!("/" => answer(move |_| Ok(Response::new().bytes(sent.clone()))));
    let timeout = Duration::from_millis(400);
    let server = start(Server::new(vec![route]).websocket(Websocket::new().write_timeout(timeout)));
    let mut client = connect(&server);
    client.send(get("/").as_bytes());
    client.head();
    let began = Instant::now();
    for chunk in body.chunks(LENGTH / 64) {
        assert!(client.take(chunk.len()) == chunk, "the body is not what was sent");
        thread::sleep(timeout / 8);
    }
    expect_elapsed(began, 4 * timeout, "the end of the body");
    // Nothing of the stall is left on the connection.
    assert_eq!(status(&client.ask(&get("/none")).0), 404);
}

// Controllers.

#[test]
fn errors_of_a_controller_have_their_status_and_keep_their_text_from_the_client() {
    let secret = "password123";
    let error = move |change: fn(Error) -> Error| answer(move |_| Err(change(Error::new(secret))));
    let server = serve(vec![
        route!("/plain" => error(|error| error)),
        route!("/missing" => error(|error| error.with_status(404))),
        route!("/banned" => error(|error| error.with_status(Status::FORBIDDEN))),
        route!("/teapot" => error(|error| error.with_status(418))),
        route!("/nonsense" => error(|error| error.with_status(9))),
        route!("/closing" => error(|error| error.with_close(4000, "password123"))),
        route!("/io" => answer(move |_| Err(std::io::Error::other(secret).into()))),
        route!("/question" => answer(|_| { "password123".parse::<u8>()?; Ok(Response::new()) })),
        route!("/param" => answer(|request| Ok(Response::new().text(request.param("password123")?)))),
        route!("/text" => answer(|request| Ok(Response::new().text(request.text()?)))),
    ]);
    let mut client = connect(&server);
    for (path, expected, text) in [
        ("/plain", 500, "Internal Server Error"),
        ("/missing", 404, "Not Found"),
        ("/banned", 403, "Forbidden"),
        ("/teapot", 418, ""),
        ("/nonsense", 500, "Internal Server Error"),
        ("/closing", 500, "Internal Server Error"),
        ("/io", 500, "Internal Server Error"),
        ("/question", 500, "Internal Server Error"),
        ("/param", 500, "Internal Server Error"),
    ] {
        let (head, body) = client.ask(&get(path));
        assert_eq!((status(&head), body.as_str()), (expected, text), "{path}");
        assert!(!head.contains(secret), "{path}: {head}");
    }
    client.send(b"POST /text HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n\xff\xff");
    assert_eq!(status(&client.response().0), 400, "a body that is no text");
}

#[test]
fn a_panic_is_500_and_the_connection_goes_on() {
    let server = serve(vec![
        seen(),
        route!("/panic" => answer(|request| panic!("{} makes it panic", request.path()))),
    ]);
    let mut client = connect(&server);
    for _ in 0..3 {
        let (head, body) = client.ask(&get("/panic"));
        assert_eq!((status(&head), body.as_str()), (500, "Internal Server Error"));
        assert_eq!(header(&head, "connection"), None, "{head}");
        assert_eq!(client.ask(&get("/seen")).1, "GET /seen []");
    }
}

#[test]
fn what_no_header_can_hold_becomes_a_500_instead_of_another_header() {
    let injection = "a\r\nX-Injected: yes\r\n\r\n<script>";
    let server = serve(vec![
        seen(),
        route!("/header" => answer(move |_| Ok(Response::new().header("X-Name", injection)))),
        route!("/append" => answer(move |_| Ok(Response::new().append_header("X-Name", injection)))),
        route!("/name" => answer(move |_| Ok(Response::new().header(injection, "a")))),
        route!("/redirect" => answer(move |_| Ok(Response::new().redirect(injection)))),
        route!("/cookie" => answer(move |_| Ok(Response::new().cookie(Cookie::new("a", injection))))),
        route!("/cookie-path" => answer(move |_| {
            Ok(Response::new().cookie(Cookie::new("a", "b").path(injection)))
        })),
        route!("/connection" => answer(move |_| Ok(Response::new().header("Connection", injection)))),
        route!("/nul" => answer(|_| Ok(Response::new().header("X-Name", "a\0X-Injected")))),
        route!("/then-good" => answer(move |_| {
            Ok(Response::new().header("X-Name", injection).header("X-Name", "good"))
        })),
    ]);
    let mut client = connect(&server);
    for path in [
        "/header",
        "/append",
        "/name",
        "/redirect",
        "/cookie",
        "/cookie-path",
        "/connection",
        "/nul",
        "/then-good",
    ] {
        let (head, body) = client.ask(&get(path));
        assert_eq!(
            (status(&head), body.as_str()),
            (500, "Internal Server Error"),
            "{path}: {head}"
        );
        assert!(!head.contains("X-Injected"), "{path}: {head}");
    }
    assert_eq!(client.ask(&get("/seen")).1, "GET /seen []", "the connection goes on");
}

#[test]
fn responses_are_sent_as_they_were_built() {
    type Case = (
        &'static str,
        fn() -> Response,
        u16,
        &'static [(&'static str, &'static str)],
        &'static str,
    );
    let cases: &[Case] = &[
        ("empty", Response::new, 200, &[("Content-Length", "0")], ""),
        (
            "text",
            || Response::new().text("grüße"),
            200,
            &[("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "7")],
            "grüße",
        ),
        (
            "html",
            || Response::new().html("<p>"),
            200,
            &[("Content-Type", "text/html; charset=utf-8"), ("Content-Length", "3")],
            "<p>",
        ),
        (
            "bytes",
            || Response::new().bytes(b"\0\x01".to_vec()),
            200,
            &[("Content-Type", "application/octet-stream"), ("Content-Length", "2")],
            "\0\x01",
        ),
        (
            "another type",
            || Response::new().bytes("{}").header("content-type", "application/json"),
            200,
            &[("Content-Type", "application/json")],
            "{}",
        ),
        (
            "redirect",
            || Response::new().redirect("/login?a=b"),
            302,
            &[("Location", "/login?a=b")],
            "",
        ),
        (
            "another redirect",
            || Response::new().redirect("/new").status(308),
            308,
            &[("Location", "/new")],
            "",
        ),
        (
            "cookie",
            || Response::new().cookie(Cookie::new("theme", "dark").secure(true)),
            200,
            &[("Set-Cookie", "theme=dark; Path=/; HttpOnly; Secure; SameSite=Lax")],
            "",
        ),
        (
            "replaced header",
            || Response::new().header("X", "1").header("x", "2"),
            200,
            &[("X", "2")],
            "",
        ),
        (
            "added headers",
            || Response::new().append_header("X", "1").append_header("X", "2"),
            200,
            &[("X", "1"), ("X", "2")],
            "",
        ),
        ("no content", || Response::no_content().text("lost"), 204, &[], ""),
        (
            "reset content",
            || Response::new().status(205).text("lost"),
            205,
            &[("Content-Length", "0")],
            "",
        ),
        ("not modified", || Response::new().status(304).text("lost"), 304, &[], ""),
        ("status of its own", || Response::new().status(499).text("odd"), 499, &[], "odd"),
        ("impossible status", || Response::new().status(7), 500, &[], ""),
        (
            "framing is not for controllers",
            || {
                Response::new()
                    .header("Content-Length", "99")
                    .header("Transfer-Encoding", "chunked")
                    .text("a")
            },
            200,
            &[("Content-Length", "1")],
            "a",
        ),
        ("bad request", Response::bad_request, 400, &[], "Bad Request"),
        ("unauthorized", Response::unauthorized, 401, &[], "Unauthorized"),
        ("forbidden", Response::forbidden, 403, &[], "Forbidden"),
        ("not found", Response::not_found, 404, &[], "Not Found"),
        ("too many requests", Response::too_many_requests, 429, &[], "Too Many Requests"),
    ];
    let routes = cases.iter().enumerate();
    let routes = routes.map(|(number, (_, response, ..))| {
        route!(format!("/{number}") => answer(move |_| Ok(response())))
    });
    let server = serve(routes.collect());
    let mut client = connect(&server);
    let cookie = guest_cookie();
    for (number, (what, _, code, headers, expected)) in cases.iter().enumerate() {
        let (head, body) = client
            .ask(&format!("GET /{number} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n"));
        assert_eq!((status(&head), body.as_str()), (*code, *expected), "{what}: {head}");
        assert!(header(&head, "date").is_some_and(|date| date.ends_with(" GMT")), "{what}: {head}");
        assert_eq!(header(&head, "transfer-encoding"), None, "{what}: {head}");
        if matches!(code, 204 | 304) {
            assert_eq!(header(&head, "content-length"), None, "{what}: {head}");
        }
        for (name, _) in *headers {
            let wanted: Vec<_> =
                headers.iter().filter(|(key, _)| key == name).map(|(_, value)| *value).collect();
            assert_eq!(values(&head, name), wanted, "{what}: {name} in {head}");
        }
    }
}

#[test]
fn a_status_that_answers_nothing_becomes_a_500() {
    // A client goes on waiting after a 1xx (RFC 9110 §15.2), and the next response on the connection would be taken
    // for the answer to this request.
    let server = serve(vec![
        seen(),
        route!("/100" => answer(|_| Ok(Response::new().status(100)))),
        route!("/101" => answer(|_| Ok(Response::new().status(101)))),
        route!("/103" => answer(|_| Err(Error::new("early").with_status(103)))),
    ]);
    for path in ["/100", "/101", "/103"] {
        let (head, _) = connect(&server).ask(&get(path));
        assert_eq!(status(&head), 500, "{path}: {head}");
    }
}

// Sessions.

/// The values of all headers of that name in a head.
fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

/// A cookie as a visitor that was here before sends it.
fn guest_cookie() -> String {
    format!("rwf_session={}", Guest::new().secret)
}

fn with_cookie(path: &str, cookie: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n")
}

/// A server that answers with the session at `/`.
fn session_server() -> ServerHandle {
    serve(vec![
        route!("/" => answer(|request| Ok(Response::new().text(request.session_id().to_string())))),
        route!("/wrong" => answer(|request| Err(Error::new(request.session_id().to_string())))),
        route!("/panic" => answer(|request| panic!("{}", request.session_id()))),
        route!("/asset" => answer(|_| Ok(Response::new().text("h1 { color: red }")))),
        route!("/refused" => answer(|_| Ok(Response::new().status(401)))),
        route!("/logged" => answer(|request| Ok(Response::new().text(format!("{request:?}"))))),
        route!("/user" => answer(|request| {
            Ok(Response::new().text(request.with_session("alice").session_id().to_string()))
        })),
        route!("/twice" => answer(|request| {
            let (here, there) = (request.session_id(), request.clone().session_id());
            assert_eq!(here, there, "a clone is somebody else");
            Ok(Response::new().text(here.to_string()))
        })),
        route!("/known" => answer(|request| {
            let known = request.with_session(42);
            assert_eq!(request.with_session(43).session_id(), 43.into());
            Ok(Response::new().text(format!("{} {}", known.session_id(), request.session_id())))
        })),
    ])
}

#[test]
fn a_new_visitor_gets_a_session_cookie_and_keeps_it() {
    let server = session_server();
    let mut client = connect(&server);
    let (head, session) = client.ask(&get("/"));
    let cookie = header(&head, "set-cookie").unwrap_or_else(|| panic!("no cookie in {head}"));
    let secret = new_secret(&head).unwrap_or_else(|| panic!("no session in {head}"));
    assert_eq!(cookie, format!("rwf_session={secret}; Path=/; HttpOnly; SameSite=Lax"));
    let uuid = rwf::Uuid::parse_str(secret).unwrap();
    assert_eq!((uuid.get_version_num(), secret.len()), (4, 36), "{secret}");
    assert_eq!(SessionId::from_cookie(secret), session.parse().ok(), "whose cookie it is");

    let pair = cookie.split(';').next().unwrap();
    let more = format!("theme=dark; {pair}; x=y");
    for (what, cookie, mut client) in [
        ("on the same connection", pair, client),
        ("on another connection", pair, connect(&server)),
        ("among other cookies", more.as_str(), connect(&server)),
    ] {
        let (head, again) = client.ask(&with_cookie("/", cookie));
        assert_eq!(again, session, "{what}");
        assert_eq!(header(&head, "set-cookie"), None, "{what}: {head}");
    }
    let (_, other) = connect(&server).ask(&get("/"));
    assert_ne!(other, session, "another visitor is another guest");
}

#[test]
fn cookies_that_the_server_did_not_write_are_replaced() {
    let server = session_server();
    for value in [
        "",
        "42",
        "not-a-session",
        "00000000-0000-0000-0000-000000000000",
        "6ba7b810-9dad-11d1-80b4-00c04fd430c8",
        "3f2b8c1e7d4a4c5b9e6f1a2b3c4d5e6f",
        "{3f2b8c1e-7d4a-4c5b-9e6f-1a2b3c4d5e6f}",
        "3f2b8c1e-7d4a-4c5b-9e6f-1a2b3c4d5e6",
    ] {
        let (head, session) =
            connect(&server).ask(&with_cookie("/", &format!("rwf_session={value}")));
        let new = new_secret(&head).and_then(SessionId::from_cookie);
        assert_eq!(new, session.parse().ok(), "{value:?}: {head}");
        assert_ne!(session, value, "a visitor chose its session");
    }
}

#[test]
fn a_shown_session_is_no_key_to_it() {
    let server = session_server();
    let guest = Guest::new();
    let ask = |cookie: &str| {
        let request = with_cookie("/", &format!("rwf_session={cookie}"));
        connect(&server).ask(&request).1.parse::<SessionId>().unwrap()
    };
    assert_eq!(ask(&guest.secret.to_string()), guest.session());
    let shown = guest.session().to_string();
    assert_ne!(ask(&shown), guest.session(), "whoever reads {shown} in a log is that visitor");

    // A controller may have said of somebody `with_session(uuid)`; that is no guest.
    for user in [SessionId::from(guest.secret), "alice".into(), 42.into()] {
        for cookie in [user.to_string(), guest.secret.to_string()] {
            assert_ne!(ask(&cookie), user, "the cookie {cookie} makes a user");
        }
    }
}

#[test]
fn a_session_begins_when_somebody_asks_for_it() {
    let server = session_server();
    let mut client = connect(&server);
    for path in ["/", "/twice", "/wrong", "/panic", "/known"] {
        let (head, _) = client.ask(&get(path));
        assert_eq!(values(&head, "set-cookie").len(), 1, "{path} asks: {head}");
    }
    for path in ["/asset", "/refused", "/user", "/logged", "/nowhere"] {
        let (head, _) = client.ask(&get(path));
        assert_eq!(header(&head, "set-cookie"), None, "{path} does not ask: {head}");
    }
    let not_ours = "GET /asset HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    assert_eq!(header(&client.ask(not_ours).0, "set-cookie"), None);
}

#[test]
fn the_debug_form_of_a_request_names_a_session_that_there_is() {
    let server = session_server();
    let guest = Guest::new();
    let cookie = format!("rwf_session={}", guest.secret);
    let (head, shown) = connect(&server).ask(&with_cookie("/logged", &cookie));
    assert!(shown.contains(&guest.to_string()), "{shown}");
    assert!(!shown.contains(&guest.secret.to_string()), "it shows the cookie: {shown}");
    assert_eq!(header(&head, "set-cookie"), None, "{head}");
    let (_, shown) = connect(&server).ask(&get("/logged"));
    assert!(shown.contains("session: None"), "{shown}");
}

#[test]
fn without_session_cookies_none_is_read_and_none_is_set() {
    let server = start(
        Server::new(vec![route!("/" => answer(|request| {
            let session = request.session_id();
            assert_eq!(session, request.session_id(), "one request is one visitor");
            Ok(Response::new().text(session.to_string()))
        }))])
        .no_session_cookie(),
    );
    let guest = Guest::new();
    let request = with_cookie("/", &format!("rwf_session={}", guest.secret));
    let mut client = connect(&server);
    let [(head, first), (_, second)] = [client.ask(&request), client.ask(&request)];
    assert_eq!(header(&head, "set-cookie"), None, "{head}");
    assert!(first.parse::<SessionId>().unwrap().is_guest());
    assert!(first != second && first != guest.to_string(), "{first}, {second}, {guest}");
}

#[test]
fn a_request_can_be_put_into_another_session() {
    let server = session_server();
    let guest = Guest::new();
    let (head, body) =
        connect(&server).ask(&with_cookie("/known", &format!("rwf_session={}", guest.secret)));
    assert_eq!(body, format!("42 {guest}"), "the original stays");
    assert_eq!(header(&head, "set-cookie"), None, "{head}");
    let (head, _) = connect(&server).ask(&get("/known"));
    let cookie = header(&head, "set-cookie").unwrap_or_default();
    assert!(!cookie.starts_with("rwf_session=42;"), "a user's number is no cookie: {head}");
}

#[test]
fn the_session_cookie_has_the_name_that_the_server_gives_it() {
    let server = start(
        Server::new(vec![route!("/" => answer(|request| {
            Ok(Response::new().text(request.session_id().to_string()))
        }))])
        .session_cookie("my-app"),
    );
    let (head, _) = connect(&server).ask(&with_cookie("/", &guest_cookie()));
    let cookie = header(&head, "set-cookie").unwrap_or_default();
    let pair = cookie.split(';').next().unwrap().to_owned();
    assert!(pair.starts_with("my-app="), "{head}");
    let (head, session) = connect(&server).ask(&with_cookie("/", &pair));
    let whose = SessionId::from_cookie(&pair["my-app=".len()..]);
    assert_eq!(whose, session.parse().ok(), "{pair}");
    assert_eq!(header(&head, "set-cookie"), None, "{head}");
}

// Whom the server believes.

#[test]
fn a_loopback_server_refuses_other_peoples_names() {
    let ask = |server: &ServerHandle, host: &str| {
        let mut client = connect(server);
        status(&client.ask(&format!("GET /seen HTTP/1.1\r\nHost: {host}\r\n\r\n")).0)
    };
    let server = start(Server::new(vec![seen()]).allow_host("chat.example"));
    for host in ["localhost", "127.0.0.1:8000", "[::1]", "chat.example", "CHAT.example:81"] {
        assert_eq!(ask(&server, host), 200, "{host}");
    }
    for host in ["evil.example", "localhost.evil.example", "chat.example.evil", "192.168.1.1"] {
        assert_eq!(ask(&server, host), 403, "{host}");
    }
    for host in [
        "a].localhost",
        "[::1",
        "localhost:port",
        "localhost:99999",
        "a b.localhost",
        "user@localhost",
        ".localhost",
        "a..localhost",
        "[127.0.0.1]",
        ":8000",
    ] {
        assert_eq!(ask(&server, host), 400, "{host}: it is nobody's name");
    }
    assert_eq!(ask(&server, ""), 403, "an empty host is no fault, and not ours");
    let absolute = "GET http://evil.example/seen HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(status(&connect(&server).ask(absolute).0), 403, "the target's host counts");
}

#[test]
fn a_proxy_is_believed_when_it_is_trusted() {
    let ask = |server: &ServerHandle| {
        let forwarded = "X-Forwarded-For: 1.1.1.1, 2.2.2.2\r\nX-Forwarded-Proto: https\r\n";
        connect(server).ask(&format!("GET / HTTP/1.1\r\nHost: localhost\r\n{forwarded}\r\n"))
    };
    let route = || {
        route!("/" => answer(|request| {
            let _ = request.session_id();
            Ok(Response::new().text(format!("{} {}", request.client_ip(), request.is_secure())))
        }))
    };
    let (head, body) = ask(&serve(vec![route()]));
    assert_eq!(body, "127.0.0.1 false");
    assert!(!head.contains("; Secure"), "{head}");
    let proxy: IpAddr = [127, 0, 0, 1].into();
    let (head, body) = ask(&start(Server::new(vec![route()]).trust_proxy(proxy)));
    assert_eq!(body, "2.2.2.2 true");
    assert!(head.contains("; Secure"), "{head}");
}

#[test]
fn a_form_of_another_site_does_not_replace_a_visitors_session() {
    let server = session_server();
    let ask = |method: &str, said: &str| {
        let request = format!("{method} / HTTP/1.1\r\nHost: localhost\r\n{said}\r\n\r\n");
        header(&connect(&server).ask(&request).0, "set-cookie").is_some()
    };
    for (method, said, expected) in [
        ("POST", "Sec-Fetch-Site: same-origin", true),
        ("GET", "Sec-Fetch-Site: cross-site", true),
        ("POST", "Sec-Fetch-Site: cross-site", false),
        // In the clear browsers say no more than this.
        ("POST", "Origin: http://localhost", true),
        ("GET", "Origin: http://evil.example", true),
        ("POST", "Origin: http://evil.example", false),
        ("POST", "Origin: null", false),
    ] {
        assert_eq!(ask(method, said), expected, "{method} with {said}");
    }
}

/// A server that listens on an IPv6 address, and a client that came to it by IPv4; `None`, with the reason printed, where
/// this system has no such way.
fn start_on_ipv6(server: Server, address: &str) -> Option<(ServerHandle, Raw)> {
    let server = match server.bind((address, 0)).spawn() {
        Ok(server) => server,
        Err(error) => {
            println!("skipped: {error}");
            return None;
        }
    };
    let ipv4 = SocketAddr::from(([127, 0, 0, 1], server.local_addr().port()));
    match TcpStream::connect(ipv4) {
        Ok(client) => Some((server, Raw::from(client))),
        Err(error) => {
            println!("skipped: {address} takes no IPv4 connections: {error}");
            None
        }
    }
}

#[test]
fn an_ipv4_peer_of_an_ipv6_listener_has_its_ipv4_address() {
    let proxy = Ipv4Addr::LOCALHOST;
    for (named, trusted) in [
        ("nobody", None),
        ("an IPv4 address", Some(IpAddr::from(proxy))),
        ("a mapped address", Some(proxy.to_ipv6_mapped().into())),
    ] {
        let routes = vec![route!("/" => answer(|request| {
            let (peer, client) = (request.peer_addr(), request.client_ip());
            Ok(Response::new().text(format!("{peer} {client} {}", request.is_secure())))
        }))];
        let mut server = Server::new(routes).max_connections_per_peer(1);
        if let Some(trusted) = trusted {
            server = server.trust_proxy(trusted);
        }
        let Some((_server, mut client)) = start_on_ipv6(server, "::") else { return };
        let forwarded = "X-Forwarded-For: ::ffff:9.8.7.6\r\nX-Forwarded-Proto: https\r\n";
        let request = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{forwarded}\r\n");
        let (peer, said) = (client.stream.local_addr().unwrap(), client.ask(&request).1);
        let expected = if trusted.is_some() { "9.8.7.6 true" } else { "127.0.0.1 false" };
        assert_eq!(said, format!("{peer} {expected}"), "trusting {named}");

        let mut second = Raw::connect(client.stream.peer_addr().unwrap());
        if trusted.is_some() {
            assert_eq!(status(&second.ask(&request).0), 200, "{named} has no limit");
        } else {
            assert_eq!(status(&second.head()), 503, "the limit of one address");
        }
    }
}

#[test]
fn a_listener_on_a_mapped_loopback_address_refuses_other_peoples_names() {
    let server = Server::new(vec![seen()]);
    let Some((_server, mut client)) = start_on_ipv6(server, "::ffff:127.0.0.1") else { return };
    for host in ["localhost", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]:8000"] {
        let request = format!("GET /seen HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(status(&client.ask(&request).0), 200, "{host}");
    }
    let foreign = "GET /seen HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    assert_eq!(status(&client.ask(foreign).0), 403);
}

// Credentials.

#[test]
fn credentials_are_those_of_the_one_authorization_header() {
    let server = serve(vec![route!("/" => answer(|request| {
        let said = format!("{:?} {:?}", request.bearer(), request.basic_auth());
        Ok(Response::unauthorized().text(said).challenge("Basic", "a \"b\"").challenge("Bearer", "c"))
    }))]);
    let mut client = connect(&server);
    for (headers, said) in [
        ("", "None None"),
        ("authorization: bearer abc\r\n", "Some(\"abc\") None"),
        ("Authorization: Basic YW5uYTo6\r\n", "None Some((\"anna\", \":\"))"),
        ("Authorization: Bearer abc\r\nAuthorization: Bearer abc\r\n", "None None"),
        ("Authorization: Basic YW5uYTo6\r\nAuthorization: Bearer abc\r\n", "None None"),
        ("Authorization: Bearer a b\r\n", "None None"),
    ] {
        let (head, body) =
            client.ask(&format!("GET / HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"));
        assert_eq!((status(&head), body.as_str()), (401, said), "{headers:?}");
        let challenges: Vec<_> =
            head.lines().filter_map(|line| line.strip_prefix("WWW-Authenticate: ")).collect();
        let basic = r#"Basic realm="a \"b\"", charset="UTF-8""#;
        assert_eq!(challenges, [basic, r#"Bearer realm="c""#]);
    }
}

// Headers that a controller before another one adds.

#[test]
fn a_header_is_added_to_any_answer_but_none_of_the_server_s_own() {
    let server = serve(vec![
        route!("/" => answer(|request| {
            request.append_response_header("X-A", "1");
            request.append_response_header("x-a", "2");
            request.append_response_header("Set-Cookie", "a=b");
            for name in ["Content-Length", "Upgrade", "Sec-WebSocket-Protocol", "sec-websocket-extensions"] {
                request.append_response_header(name, "not-ours");
            }
            match request.query("how") {
                Some("fails") => Err("it failed".into()),
                Some("cannot") => Ok(Response::new().header("X-Wrong", "a\nb")),
                Some("opens") => request.upgrade(|_| Ok(())),
                _ => Ok(Response::new().header("X-A", "0").cookie(Cookie::new("c", "d"))),
            }
        })),
        route!("/wrong" => answer(|request| {
            request.append_response_header("X-A", "1");
            request.append_response_header("X-Wrong", "a\r\nSet-Cookie: b");
            if request.query("how").is_some() { request.upgrade(|_| Ok(())) } else { Ok(Response::new()) }
        })),
    ]);
    let all = |head: &str, name: &str| -> Vec<String> {
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        let named = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.split(';').next().unwrap().to_owned()).collect()
    };
    for (path, code, values, cookies) in [
        ("/", 200, &["0", "1", "2"][..], &["c=d", "a=b"][..]),
        ("/?how=fails", 500, &["1", "2"], &["a=b"]),
        ("/?how=cannot", 500, &["1", "2"], &["a=b"]),
        ("/wrong", 500, &[], &[]),
    ] {
        let (head, _) = connect(&server).ask(&get(path));
        assert_eq!(
            (status(&head), all(&head, "X-A")),
            (code, values.iter().map(|v| (*v).to_owned()).collect()),
            "{path}"
        );
        assert_eq!(all(&head, "Set-Cookie"), cookies, "{path}");
        assert!(!head.contains("not-ours"), "{head}");
    }
    let mut client = connect(&server);
    client.send(upgrade_request("/?how=opens", "").as_bytes());
    let head = client.head();
    assert_eq!((status(&head), all(&head, "X-A")), (101, vec!["1".to_owned(), "2".to_owned()]));
    assert_eq!(all(&head, "Upgrade"), ["websocket"]);
    assert!(
        all(&head, "Set-Cookie").contains(&"a=b".to_owned()) && !head.contains("not-ours"),
        "{head}"
    );
    assert_eq!(client.close_frame().0, 1000);

    let mut client = connect(&server);
    client.send(upgrade_request("/wrong?how=opens", "").as_bytes());
    assert_eq!(status(&client.head()), 500, "a header that would split the 101 opens nothing");
}

#[test]
fn a_body_whose_destructor_panics_is_answered_and_its_connection_kept() {
    struct Bomb(Vec<u8>);
    impl AsRef<[u8]> for Bomb {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            if !thread::panicking() {
                panic!("as the test wishes");
            }
        }
    }
    let bomb = |length| Bytes::from_owner(Bomb(vec![b'x'; length]));
    let server = serve(vec![
        route!("/short" => answer(move |_| Ok(Response::new().bytes(bomb(10))))),
        route!("/long" => answer(move |_| Ok(Response::new().bytes(bomb(100_000))))),
        route!("/invalid" => answer(move |_| Ok(Response::new().bytes(bomb(10)).header("A", "b\nc")))),
        route!("/none" => answer(move |_| Ok(Response::no_content().bytes(bomb(10))))),
    ]);
    let mut client = Raw::connect(server.local_addr());
    for (path, expected) in [("/short", 200), ("/long", 200), ("/invalid", 500), ("/none", 204)] {
        let (head, _) = client.ask(&get(path));
        assert_eq!(status(&head), expected, "{path}");
    }
    client.send(b"HEAD /long HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(status(&client.head()), 200, "the connection is not kept");
}
