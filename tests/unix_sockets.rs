//! Unix sockets, and several places in one server: the file, who may connect, who is at the other end, whom to believe.
//! That the promises hold there too is the matter of `over_unix.rs`.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{DEADLINE, Echo, Folder, Raw, Wire, answer, get, status, upgrade_request, wait_until};
use rwf::controller::{Rate, Websocket};
use rwf::http::{LocalAddr, Peer, Proxy, Server};
use rwf::prelude::*;

fn echo() -> Server {
    Server::new(vec![
        route!("/" => Echo),
        route!("/peer" => answer(|request| {
            let (peer, address) = (request.peer(), request.peer_addr());
            let (client, is_secure) = (request.client_ip(), request.is_secure());
            Ok(Response::new().text(format!("{peer} {address} {client} {is_secure}")))
        })),
    ])
}

fn connect(path: &Path) -> Raw {
    let stream = UnixStream::connect(path);
    let stream = stream.unwrap_or_else(|error| panic!("cannot connect to {path:?}: {error}"));
    Raw::from(Wire::Unix(stream))
}

/// The status of the answer to a handshake with these header lines.
fn shake_hands(path: &Path, headers: &str) -> u16 {
    let mut client = connect(path);
    client.send(upgrade_request("/", headers).as_bytes());
    status(&client.head())
}

/// What this process is as a peer.
fn own_peer() -> String {
    let uid = rustix::process::getuid().as_raw();
    format!("unix:pid:{}:uid:{uid}", std::process::id())
}

fn socket_in(folder: &Folder) -> PathBuf {
    folder.0.join("chat.sock")
}

#[test]
fn the_file_is_there_as_long_as_the_server_with_its_mode() {
    let folder = Folder::new();
    let path = socket_in(&folder);
    for (server, mode) in [(echo(), 0o600), (echo().unix_mode(0o660), 0o660)] {
        let server = server.bind_unix(&path).spawn().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        let mut client = connect(&path);
        assert_eq!(status(&client.ask(&get("/peer")).0), 200);
        drop(client);
        server.shutdown().unwrap();
        assert!(!path.exists(), "the file is left behind");
    }
    let error = echo().unix_mode(0o1777).bind_unix(&path).spawn().unwrap_err().to_string();
    assert!(error.contains("`unix_mode` has to be the mode of a file"), "{error}");
    assert!(error.contains("0o1777"), "{error}");
}

#[test]
fn a_stale_file_is_replaced_and_what_is_anothers_is_left_alone() {
    let folder = Folder::new();
    let path = socket_in(&folder);
    drop(UnixListener::bind(&path).unwrap());
    let server = echo().bind_unix(&path).spawn().unwrap();
    let error = echo().bind_unix(&path).spawn().unwrap_err();
    assert!(format!("{error:?}").contains("another program does"), "{error:?}");
    assert!(format!("{error:?}").contains(&*path.to_string_lossy()), "{error:?}");
    assert_eq!(status(&connect(&path).ask(&get("/peer")).0), 200, "the first one goes on");
    // Somebody has put another one in its place: that stays when this server ends.
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    server.shutdown().unwrap();
    UnixStream::connect(&path).expect("the other one's file is there");
    let file = folder.write("precious", "data");
    let error = echo().bind_unix(&file).spawn().unwrap_err();
    assert!(format!("{error:?}").contains("no socket"), "{error:?}");
    assert_eq!(fs::read(&file).unwrap(), b"data");
    let long = folder.0.join("x".repeat(200));
    let error = echo().bind_unix(long).spawn().unwrap_err();
    assert!(format!("{error:?}").contains("cannot listen on unix:"), "{error:?}");
}

#[test]
fn it_is_told_which_process_is_at_the_other_end() {
    let folder = Folder::new();
    let path = socket_in(&folder);
    let server = echo().bind_unix(&path).spawn().unwrap();
    let mut client = connect(&path);
    let (_, body) = client.ask(&get("/peer"));
    let peer = if cfg!(target_os = "linux") { own_peer() } else { "unix".to_owned() };
    assert_eq!(body, format!("{peer} 0.0.0.0:0 0.0.0.0 false"));
    let listed = server.connections();
    assert!(matches!(listed[0].peer, Peer::Unix(_)), "{:?}", listed[0]);
    assert!(listed[0].to_string().contains(&format!(" peer={peer} ")), "{}", listed[0]);
    assert_eq!(server.local_addrs(), [LocalAddr::Unix(path)]);
    assert_eq!(server.local_addr(), SocketAddr::from(([0, 0, 0, 0], 0)));
}

#[test]
fn what_a_proxy_says_is_believed_by_choice() {
    let folder = Folder::new();
    let path = socket_in(&folder);
    let uid = rustix::process::getuid().as_raw();
    for (proxy, is_believed) in [
        (None, false),
        (Some(Proxy::from([127, 0, 0, 1])), false),
        (Some(Proxy::Unix), true),
        (Some(Proxy::UnixUser(uid)), cfg!(target_os = "linux")),
        (Some(Proxy::UnixUser(uid + 1)), false),
    ] {
        let server = echo().bind_unix(&path);
        let server = proxy.into_iter().fold(server, Server::trust_proxy).spawn().unwrap();
        let request = "GET /peer HTTP/1.1\r\nHost: chat.example\r\n\
            X-Forwarded-For: 6.6.6.6, 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\r\n";
        let (_, body) = connect(&path).ask(request);
        let expected = if is_believed { " 192.0.2.7 true" } else { " 0.0.0.0 false" };
        assert!(body.ends_with(expected), "{proxy:?}: {body}");
        server.shutdown().unwrap();
    }
}

#[test]
fn any_host_is_let_in_and_a_page_has_to_come_from_it() {
    let folder = Folder::new();
    let path = socket_in(&folder);
    let _server = echo().bind_unix(&path).spawn().unwrap();
    let come = |host: &str, origin: &str| {
        let mut client = connect(&path);
        let request = upgrade_request("/", &format!("Origin: {origin}\r\n"));
        client.send(request.replace("Host: localhost", &format!("Host: {host}")).as_bytes());
        status(&client.head())
    };
    assert_eq!(come("chat.example", "https://chat.example"), 101);
    assert_eq!(come("chat.example", "https://evil.example"), 403);
    assert_eq!(come("chat.example", "null"), 403);
}

#[test]
fn limits_per_peer_are_per_user_and_a_trusted_proxy_has_none() {
    let folder = Folder::new();
    let path = socket_in(&folder);
    let rate = Rate::per(2, Duration::from_secs(3600));
    for (is_trusted, statuses) in [(false, [101, 101, 429, 429]), (true, [101; 4])] {
        let server = echo().bind_unix(&path).handshake_rate_per_peer(rate);
        let server = if is_trusted { server.trust_proxy(Proxy::Unix) } else { server };
        let _server = server.spawn().unwrap();
        let came: Vec<_> = (0..4).map(|_| shake_hands(&path, "")).collect();
        assert_eq!(came, statuses, "trusted: {is_trusted}");
    }
    let server = echo().bind_unix(&path).max_connections_per_peer(2).spawn().unwrap();
    let mut clients: Vec<_> = (0..2).map(|_| connect(&path)).collect();
    wait_until("both are there", || server.connections().len() == 2);
    let head = connect(&path).head();
    assert_eq!(status(&head), 503, "{head}");
    clients.clear();
    wait_until("both have gone", || server.connections().is_empty());
    assert_eq!(shake_hands(&path, ""), 101);
    server.shutdown().unwrap();
    let server = echo().bind_unix(&path).max_connections_per_peer(1).trust_proxy(Proxy::Unix);
    let _server = server.spawn().unwrap();
    let open: Vec<_> = (0..3).map(|_| connect(&path).ask(&get("/peer"))).collect();
    assert!(open.iter().all(|(head, _)| status(head) == 200), "{open:?}");
}

#[test]
fn what_waits_in_the_system_is_bounded_where_it_is_set() {
    let folder = Folder::new();
    let path = socket_in(&folder);
    for (limit, most) in [(Some(1), 5_000), (Some(16 << 10), 20_000), (Some(usize::MAX), 1 << 20)] {
        let settings = Websocket::new().max_unsent_bytes(limit).outbox_bytes(8 << 20);
        let server = echo().websocket(settings).bind_unix(&path).spawn().unwrap();
        let mut client = connect(&path);
        client.send(upgrade_request("/", "").as_bytes());
        client.head();
        let message = Message::binary(vec![7; 4 << 20]);
        wait_until("it is sent", || server.comms().notify().send(message.clone()) == Ok(1));
        // What the system does not hold waits with us.
        let told = |server: &rwf::http::ServerHandle| {
            let listed = server.connections();
            listed.first().map_or(0, |connection| connection.waiting.bytes)
        };
        let waiting = told(&server);
        assert!(waiting >= (4 << 20) - most, "{limit:?}: {waiting} bytes wait");
        assert_eq!(client.frame().payload.len(), 4 << 20, "{limit:?}");
    }
}

#[test]
fn a_client_that_takes_nothing_is_found_though_tcp_would_not_tell() {
    let folder = Folder::new();
    let path = socket_in(&folder);
    let timeout = Duration::from_millis(200);
    let settings = Websocket::new().write_timeout(timeout).outbox_bytes(8 << 20);
    let server = echo().websocket(settings).bind_unix(&path).spawn().unwrap();
    let mut client = connect(&path);
    client.send(upgrade_request("/", "").as_bytes());
    client.head();
    let began = Instant::now();
    let message = Message::binary(vec![7; 4 << 20]);
    wait_until("it is sent", || server.comms().notify().send(message.clone()) == Ok(1));
    wait_until("it is given up", || server.connections().is_empty());
    let took = began.elapsed();
    assert!(took >= timeout && took < DEADLINE / 2, "{took:?}");
}

#[test]
fn a_given_listener_is_served_and_left_as_it_is() {
    let folder = Folder::new();
    let path = socket_in(&folder);
    for is_nonblocking in [false, true] {
        let listener = UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(is_nonblocking).unwrap();
        let kept = listener.try_clone().unwrap();
        let server = echo().listener(listener).spawn().unwrap();
        assert_eq!(shake_hands(&path, ""), 101);
        let began = Instant::now();
        server.shutdown().unwrap();
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert!(path.exists(), "the file is not the server's to remove");
        kept.set_nonblocking(true).unwrap();
        while kept.accept().is_ok() {}
        UnixStream::connect(&path).expect("whoever else holds it goes on");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn two_servers_share_a_listener_and_end_alone() {
    let folder = Folder::new();
    let path = socket_in(&folder);
    let listener = UnixListener::bind(&path).unwrap();
    let one = echo().listener(listener.try_clone().unwrap()).spawn().unwrap();
    let two = echo().listener(listener).spawn().unwrap();
    for _ in 0..20 {
        assert_eq!(shake_hands(&path, ""), 101);
    }
    // Of both that wait one has got each connection, and the other may wait in `accept`.
    let began = Instant::now();
    one.shutdown().unwrap();
    for _ in 0..20 {
        assert_eq!(shake_hands(&path, ""), 101);
    }
    two.shutdown().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(UnixStream::connect(&path).is_err(), "nobody listens");
}

#[test]
#[cfg(target_os = "linux")]
fn servers_that_share_a_listener_end_soon_wherever_its_file_has_gone() {
    let folder = Folder::new();
    let path = socket_in(&folder);
    for is_replaced in [true, false] {
        let listener = UnixListener::bind(&path).unwrap();
        let servers: Vec<_> = (0..4)
            .map(|_| echo().listener(listener.try_clone().unwrap()).spawn().unwrap())
            .collect();
        // A connection wakes all of them, one gets it, and others may wait in `accept` from then on.
        for _ in 0..50 {
            assert_eq!(shake_hands(&path, ""), 101);
        }
        fs::remove_file(&path).unwrap();
        let other = is_replaced.then(|| UnixListener::bind(&path).unwrap());
        let began = Instant::now();
        for server in servers {
            server.shutdown().unwrap();
        }
        let took = began.elapsed();
        assert!(took < Duration::from_secs(4), "replaced: {is_replaced}, took {took:?}");
        if let Some(other) = other {
            other.set_nonblocking(true).unwrap();
            let error = other.accept().unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "nobody has come to it");
            fs::remove_file(&path).unwrap();
        }
    }
}

#[test]
fn one_server_listens_at_several_places() {
    let folder = Folder::new();
    let path = socket_in(&folder);
    let given = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = echo()
        .bind("127.0.0.1:0")
        .bind_unix(&path)
        .listener(given)
        .bind("127.0.0.2:0")
        .max_connections(4)
        .spawn()
        .unwrap();
    let [LocalAddr::Tcp(first), LocalAddr::Unix(_), LocalAddr::Tcp(given), LocalAddr::Tcp(last)] =
        server.local_addrs()
    else {
        panic!("{:?}", server.local_addrs());
    };
    assert_eq!(server.local_addr(), *first);
    let mut clients = vec![connect(&path)];
    clients.extend([first, given, last].map(|address| Raw::connect(*address)));
    for client in &mut clients {
        client.send(upgrade_request("/", "").as_bytes());
        assert_eq!(status(&client.head()), 101);
    }
    // The limits are the server's, wherever somebody comes to.
    assert_eq!(status(&Raw::connect(*last).head()), 503);
    assert_eq!(server.comms().notify().send("to all"), Ok(4));
    for client in &mut clients {
        assert_eq!(client.text_frame(), "to all");
    }
    let closing = std::thread::spawn(move || {
        for client in &mut clients {
            assert_eq!(client.close_frame().0, 1001);
            client.send_close(1001, "");
            client.expect_end();
        }
    });
    let addresses = [*first, *given, *last];
    let report = server.shutdown().unwrap();
    assert_eq!((report.closed, report.cut), (4, 0));
    common::join("the clients", closing);
    assert!(addresses.iter().all(|address| TcpStream::connect(address).is_err()));
    assert!(UnixStream::connect(&path).is_err());
}

#[test]
fn where_one_place_cannot_be_had_the_server_listens_nowhere() {
    let folder = Folder::new();
    let path = socket_in(&folder);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = echo().bind(free).bind_unix(&path).bind(taken.local_addr().unwrap());
    let error = server.spawn().unwrap_err().to_string();
    assert!(error.contains(&taken.local_addr().unwrap().to_string()), "{error}");
    assert!(!path.exists() && TcpStream::connect(free).is_err(), "it listens somewhere");
}

#[test]
fn a_file_with_a_relative_path_goes_too_wherever_the_program_is_by_then() {
    // A process has one folder for all its threads: the other tests are in another process.
    const CHILD: &str = "RWF_TEST_RELATIVE_PATH";
    if std::env::var_os(CHILD).is_none() {
        let own = std::env::current_exe().unwrap();
        let name = "a_file_with_a_relative_path_goes_too_wherever_the_program_is_by_then";
        let run = Command::new(own).args(["--exact", name]).env(CHILD, "1").output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
        return;
    }
    let folder = Folder::new();
    std::env::set_current_dir(&folder.0).unwrap();
    let server = echo().bind_unix("chat.sock").spawn().unwrap();
    assert!(socket_in(&folder).exists());
    std::env::set_current_dir("/").unwrap();
    let began = Instant::now();
    server.shutdown().unwrap();
    assert!(!socket_in(&folder).exists(), "the file is left behind");
    assert!(began.elapsed() < Duration::from_secs(3), "nobody woke it up");
}

#[test]
fn all_addresses_are_those_of_ipv4_too_unless_they_are_left_out() {
    let Ok(both) = echo().bind("[::]:0").spawn() else {
        println!("SKIPPED: there is no IPv6 here");
        return;
    };
    let port = both.local_addr().port();
    for (ip, shown) in
        [(IpAddr::from([127, 0, 0, 1]), "127.0.0.1:"), ("::1".parse().unwrap(), "[::1]:")]
    {
        let (_, body) = Raw::connect((ip, port).into()).ask(&get("/peer"));
        assert!(body.starts_with(shown), "{body}");
    }
    let error = echo().bind(("0.0.0.0", port)).spawn().unwrap_err().to_string();
    assert!(error.contains("another program does"), "{error}");
    both.shutdown().unwrap();

    let alone = echo().bind("[::]:0").ipv6_only(true).spawn().unwrap();
    let port = alone.local_addr().port();
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "it takes IPv4");
    alone.shutdown().unwrap();
    // Each with a socket of its own, on the same port.
    let server = echo().ipv6_only(true).bind(("::", port)).bind(("0.0.0.0", port)).spawn();
    let server = server.unwrap();
    for ip in [IpAddr::from([127, 0, 0, 1]), "::1".parse().unwrap()] {
        assert_eq!(status(&Raw::connect((ip, port).into()).ask(&get("/peer")).0), 200);
    }
    assert_eq!(server.local_addrs().len(), 2);
}
