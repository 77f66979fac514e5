//! Bodies that are files: sent in pieces, in their whole length or not at all, whatever client and file do meanwhile.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use common::{DEADLINE, Folder, Raw, get, header, join, start, status, wait_until};
use rwf::controller::Websocket;
use rwf::http::{Route, Server};
use rwf::prelude::*;

const MIB: u64 = 1 << 20;
/// More than the buffers of both ends of a connection hold.
const BIG: u64 = 64 * MIB;

/// Serves the file at `/`, and something short at `/short`.
fn routes(path: PathBuf) -> Vec<Route> {
    let file = move |request: &Request| {
        let code: u16 = request.query("status").map_or(Ok(200), str::parse)?;
        Ok(Response::new().file(File::open(&path)?)?.status(code))
    };
    vec![route!("/" => file), route!("/short" => |_: &Request| Ok(Response::new().text("short")))]
}

/// Reads up to `length` bytes, or to the end of the stream in whatever way: how many came.
fn read(client: &mut Raw, length: u64) -> u64 {
    let mut buffer = vec![0; 256 << 10];
    let mut count = 0;
    while count < length {
        let room = buffer.len().min(usize::try_from(length - count).unwrap());
        match client.stream.read(&mut buffer[..room]) {
            Ok(0) | Err(_) => break,
            Ok(read) => count += read as u64,
        }
    }
    count
}

/// Asks for the file, and takes its head byte by byte, so that nothing of the body is taken.
fn begin(client: &mut Raw) -> String {
    client.send(get("/").as_bytes());
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

#[cfg(target_os = "linux")]
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
#[cfg(target_os = "linux")]
fn a_long_file_takes_no_memory() {
    let folder = Folder::new();
    let server = start(Server::new(routes(folder.sparse("big", BIG))));
    let before = resident();
    let mut clients: Vec<_> = (0..4).map(|_| Raw::connect(server.local_addr())).collect();
    for client in &mut clients {
        assert_eq!(header(&begin(client), "content-length"), Some("67108864"));
    }
    let mut most = before;
    for _ in 0..16 {
        for client in &mut clients {
            assert_eq!(read(client, BIG / 16), BIG / 16);
        }
        most = most.max(resident());
    }
    // Of one of the files alone it would be 64 MiB.
    assert!(most - before < 16 * MIB, "{before} bytes, then {most}");
}

#[test]
fn files_of_any_length_come_whole_and_the_connection_is_kept() {
    let folder = Folder::new();
    for length in [0, 1, 65_535, 65_536, 65_537, 1_000_000] {
        let content: Vec<u8> = (0..length).map(|at: u32| (at % 251) as u8).collect();
        let server = start(Server::new(routes(folder.write("file", &content))));
        let mut client = Raw::connect(server.local_addr());
        for _ in 0..2 {
            // The second request comes with the first.
            client.send(get("/").repeat(2).as_bytes());
            for _ in 0..2 {
                let head = client.head();
                assert_eq!(status(&head), 200);
                assert_eq!(
                    header(&head, "content-length"),
                    Some(content.len().to_string()).as_deref()
                );
                assert_eq!(header(&head, "content-type"), Some("application/octet-stream"));
                assert!(client.take(content.len()) == content, "{length} bytes are others");
            }
        }
        assert_eq!(client.ask(&get("/short")).1, "short");
    }
}

#[test]
fn no_byte_of_the_file_comes_where_a_response_has_no_content() {
    let folder = Folder::new();
    let server = start(Server::new(routes(folder.write("file", "content"))));
    let mut client = Raw::connect(server.local_addr());
    for (request, code, length) in [
        ("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n", 200, Some("7")),
        ("GET /?status=204 HTTP/1.1\r\nHost: localhost\r\n\r\n", 204, None),
        ("GET /?status=205 HTTP/1.1\r\nHost: localhost\r\n\r\n", 205, Some("0")),
        ("GET /?status=304 HTTP/1.1\r\nHost: localhost\r\n\r\n", 304, None),
    ] {
        client.send(request.as_bytes());
        let head = client.head();
        assert_eq!((status(&head), header(&head, "content-length")), (code, length), "{request}");
        assert_eq!(client.ask(&get("/short")).1, "short", "after {request}");
    }
}

#[test]
fn what_is_no_file_is_none_to_send() {
    let folder = Folder::new();
    let server = start(Server::new(routes(folder.0.clone())));
    assert_eq!(status(&Raw::connect(server.local_addr()).ask(&get("/")).0), 500);
}

#[test]
fn a_file_that_becomes_shorter_cuts_its_connection_and_no_other() {
    let folder = Folder::new();
    let path = folder.sparse("big", BIG);
    let server = start(Server::new(routes(path.clone())));
    let mut client = Raw::connect(server.local_addr());
    let mut other = Raw::connect(server.local_addr());
    begin(&mut client);
    File::options().write(true).open(&path).unwrap().set_len(MIB).unwrap();
    let received = read(&mut client, BIG);
    assert!(received < BIG, "{received} bytes of a file that has no more than {MIB}");
    assert_eq!(other.ask(&get("/short")).1, "short");
}

#[test]
fn what_a_file_grows_by_is_not_sent() {
    let folder = Folder::new();
    let path = folder.sparse("big", BIG);
    let server = start(Server::new(routes(path.clone())));
    let mut client = Raw::connect(server.local_addr());
    begin(&mut client);
    File::options().append(true).open(&path).unwrap().write_all(b"more").unwrap();
    assert_eq!(read(&mut client, BIG), BIG);
    assert_eq!(client.ask(&get("/short")).1, "short");
}

#[test]
fn a_client_that_does_not_read_is_given_up_after_the_write_timeout() {
    let folder = Folder::new();
    let settings = Websocket::new().write_timeout(Duration::from_millis(200));
    let routes = routes(folder.sparse("big", BIG));
    let server = start(Server::new(routes).websocket(settings).max_connections(1));
    let mut client = Raw::connect(server.local_addr());
    begin(&mut client);
    wait_until("the only connection is free for another client", || {
        let mut other = Raw::connect(server.local_addr());
        let _ = other.stream.write_all(get("/short").as_bytes());
        matches!(other.try_head(), Ok(Some(head)) if status(&head) == 200)
    });
    let received = read(&mut client, BIG);
    assert!(received < BIG, "it got all {received} bytes");
}

#[test]
fn a_shutdown_lets_a_download_end() {
    let folder = Folder::new();
    let server = start(Server::new(routes(folder.sparse("big", BIG))));
    let mut client = Raw::connect(server.local_addr());
    begin(&mut client);
    let address = server.local_addr();
    let stopping = thread::spawn(move || server.shutdown().unwrap());
    wait_until("the server takes no more connections", || {
        std::net::TcpStream::connect(address).is_err()
    });
    assert_eq!(read(&mut client, BIG), BIG);
    client.expect_end();
    let report = join("the shutdown", stopping);
    // Attempts to connect may count as well.
    assert!(report.closed >= 1 && (report.cut, report.running) == (0, 0), "{report:?}");
}

#[test]
fn a_shutdown_cuts_a_download_that_takes_longer_than_it_may() {
    let folder = Folder::new();
    let routes = routes(folder.sparse("big", BIG));
    let server = start(Server::new(routes).shutdown_timeout(Duration::from_millis(200)));
    let mut client = Raw::connect(server.local_addr());
    begin(&mut client);
    let report = join("the shutdown", thread::spawn(move || server.shutdown().unwrap()));
    assert_eq!((report.closed, report.cut, report.running), (0, 1, 0));
    client.stream.set_read_timeout(Some(DEADLINE)).unwrap();
    assert!(read(&mut client, BIG) < BIG);
}
