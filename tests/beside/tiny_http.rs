//! A tiny_http server and WebSockets in one program, on one port: the program has the port, looks at the first line that
//! a client sends, and hands the connection over to rwf, or passes its bytes on to tiny_http.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rwf::http::{Server, ServerHandle};
use rwf::prelude::*;

/// Until when a client has to say what it wants.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);
/// How long it may be silent between requests for tiny_http, which has no deadline of its own.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_LINE: usize = 8 << 10;

/// Reads until a line is whole, or no line that is worth it.
fn read_line(mut stream: &TcpStream) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + OPEN_TIMEOUT;
    let mut read = Vec::new();
    let mut part = [0; 1024];
    while read.len() < MAX_LINE && !read.contains(&b'\n') {
        let remaining = deadline.saturating_duration_since(Instant::now());
        stream.set_read_timeout(Some(remaining.max(Duration::from_millis(1))))?;
        match stream.read(&mut part)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => read.extend_from_slice(&part[..count]),
        }
    }
    Ok(read)
}

/// One connection of the shared port.
fn share(client: TcpStream, websockets: &ServerHandle, pages: SocketAddr) -> io::Result<()> {
    let read = read_line(&client)?;
    if read.starts_with(b"GET /chat ") {
        // A client that it does not take was told so.
        let _ = websockets.serve(client, read);
        return Ok(());
    }
    client.set_read_timeout(Some(IDLE_TIMEOUT))?;
    client.set_write_timeout(Some(IDLE_TIMEOUT))?;
    let mut server = TcpStream::connect(pages)?;
    server.write_all(&read)?;
    thread::scope(|scope| {
        scope.spawn(|| pass_on(&client, &server));
        pass_on(&server, &client);
    });
    Ok(())
}

/// Passes bytes on until one of them ends, or stalls.
fn pass_on(mut from: &TcpStream, mut to: &TcpStream) {
    let how = match io::copy(&mut from, &mut to) {
        Ok(_) => Shutdown::Write,
        Err(_) => Shutdown::Both,
    };
    let _ = to.shutdown(how);
}

/// The server that was there before.
fn serve_pages(server: &tiny_http::Server) {
    for mut request in server.incoming_requests() {
        let mut body = String::new();
        let answer = match request.as_reader().read_to_string(&mut body) {
            Ok(_) => format!("{} {} {}", request.method(), request.url(), body.len()),
            Err(error) => error.to_string(),
        };
        let _ = request.respond(tiny_http::Response::from_string(answer));
    }
}

fn chat(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.recv()? {
        socket.comms().notify().send(message)?;
    }
    Ok(())
}

/// Starts all of it; where it is, and the server of the WebSockets, with which the program shuts them down.
fn start() -> (SocketAddr, Arc<ServerHandle>) {
    let routes = vec![route!("/chat" => websocket(chat))];
    let websockets = Arc::new(Server::new(routes).no_listener().spawn().unwrap());
    let tiny_http = tiny_http::Server::http("127.0.0.1:0").unwrap();
    let pages = tiny_http.server_addr().to_ip().unwrap();
    thread::spawn(move || serve_pages(&tiny_http));

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = Arc::clone(&websockets);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let serving = Arc::clone(&serving);
            // A small stack: most of these threads end at once, and the others only copy.
            let thread = thread::Builder::new().stack_size(128 << 10);
            let _ = thread.spawn(move || share(client, &serving, pages));
        }
    });
    (address, websockets)
}

/// Nothing that works takes so long.
const PATIENCE: Duration = Duration::from_secs(10);

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

type WebSocket = tungstenite::WebSocket<TcpStream>;

fn open(address: SocketAddr) -> WebSocket {
    tungstenite::client("ws://localhost/chat", connect(address)).unwrap().0
}

/// The body of the next response of tiny_http.
fn response(stream: &mut TcpStream) -> String {
    let mut received = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&received).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("tiny-http"), "{head}");
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            if body.len() == length.unwrap().parse().unwrap() {
                return body.to_owned();
            }
        }
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "it ends: {text}");
        received.push(byte[0]);
    }
}

#[test]
fn pages_are_tiny_https_and_websockets_are_rwfs() {
    let (address, _websockets) = start();
    let mut clients = [open(address), open(address)];
    let mut page = connect(address);
    for path in ["/", "/chat/about", "/chat?no"] {
        write!(page, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert_eq!(response(&mut page), format!("GET {path} 0"), "on one connection");
    }
    clients[0].send("hello".into()).unwrap();
    for client in &mut clients {
        assert_eq!(client.read().unwrap(), "hello".into());
    }
}

#[test]
fn bytes_may_come_in_any_pieces() {
    let (address, _websockets) = start();
    let mut page = connect(address);
    page.set_nodelay(true).unwrap();
    for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" {
        page.write_all(&[*byte]).unwrap();
    }
    assert_eq!(response(&mut page), "GET / 0");
    let length = 3_000_000;
    write!(page, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n").unwrap();
    page.write_all(&vec![b'x'; length]).unwrap();
    assert_eq!(response(&mut page), format!("POST / {length}"));
    page.shutdown(Shutdown::Write).unwrap();
    assert_eq!(page.read(&mut [0]).unwrap(), 0, "the end of one side is passed on to the other");
}

#[test]
fn a_client_that_says_nothing_is_left() {
    let (address, _websockets) = start();
    let began = Instant::now();
    assert_eq!(connect(address).read(&mut [0]).unwrap(), 0);
    assert!(began.elapsed() >= OPEN_TIMEOUT && began.elapsed() < PATIENCE);
}

#[test]
fn a_shutdown_closes_the_websockets() {
    let (address, websockets) = start();
    let mut client = open(address);
    client.send("hello".into()).unwrap();
    client.read().unwrap();
    let stopping = thread::spawn(move || websockets.shutdown().unwrap());
    let tungstenite::Message::Close(Some(close)) = client.read().unwrap() else {
        panic!("no close frame");
    };
    assert_eq!(u16::from(close.code), 1001);
    let _ = client.read();
    drop(client);
    let report = stopping.join().unwrap();
    assert_eq!((report.closed, report.cut), (1, 0));

    let mut late = connect(address);
    write!(late, "GET /chat HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut head = String::new();
    late.read_to_string(&mut head).unwrap();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
}
