//! Stopping a server, in every state, and servers inside other programs.

mod common;

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    DEADLINE, Echo, Guest, Raw, answer, get, join, serve, spawn, start, status, upgrade_request,
    wait_until,
};
use parking_lot::Mutex;
use rwf::controller::Websocket;
use rwf::http::{self, Server, ServerHandle};
use rwf::prelude::*;

/// Shuts down on another thread; the report comes through the channel.
fn shut_down(server: ServerHandle) -> Receiver<http::Report> {
    let (sender, report) = channel();
    thread::spawn(move || sender.send(server.shutdown().expect("no handler asks")));
    report
}

#[test]
fn clients_are_closed_with_1001_after_what_was_sent() {
    let server = serve(vec![route!("/" => Echo)]);
    let address = server.local_addr();
    let session = Guest::new();
    let cookie = session.cookie();
    let clients: Vec<_> = (0..5).map(|_| Raw::open_with(address, "/", &cookie)).collect();
    Comms::websocket(session).send("last words").unwrap();
    let report = shut_down(server);
    for mut client in clients {
        assert_eq!(client.text_frame(), "last words");
        assert_eq!(client.close_frame().0, 1001);
        client.send_close(1001, "");
        client.expect_end();
    }
    let report = report.recv_timeout(DEADLINE).unwrap();
    assert_eq!((report.closed, report.cut, report.running), (5, 0, 0));
}

#[test]
fn the_address_is_free_at_once() {
    let server = serve(vec![route!("/" => Echo)]);
    let address = server.local_addr();
    let mut client = Raw::open(address, "/");
    client.send_text("hello");
    client.text_frame();
    client.send_close(1000, "");
    client.close_frame();
    client.expect_end();
    drop(client);
    server.shutdown().unwrap();
    let again = spawn(Server::new(vec![route!("/" => Echo)]).bind(address));
    Raw::open(again.local_addr(), "/");
}

#[test]
fn a_client_that_does_not_answer_is_cut_in_time() {
    let settings = Websocket::new().close_timeout(Duration::from_secs(60));
    let server = start(
        Server::new(vec![route!("/" => Echo)])
            .shutdown_timeout(Duration::from_millis(200))
            .websocket(settings),
    );
    let mut client = Raw::open(server.local_addr(), "/");
    let began = Instant::now();
    let report = server.shutdown().unwrap();
    assert_eq!((report.closed, report.cut, report.running), (0, 1, 0));
    assert!(began.elapsed() < Duration::from_secs(5), "took {:?}", began.elapsed());
    assert_eq!(client.close_frame().0, 1001);
    client.expect_end();
}

#[test]
fn a_full_outbox_does_not_hold_up_the_shutdown() {
    let server =
        start(Server::new(vec![route!("/" => Echo)]).shutdown_timeout(Duration::from_millis(300)));
    let session = Guest::new();
    let cookie = session.cookie();
    let _client = Raw::open_with(server.local_addr(), "/", &cookie);
    let message = Message::binary(vec![7; 64 << 10]);
    let is_taken = |_: &usize| Comms::websocket(session).send(&message).is_ok();
    let taken = (0..10_000).take_while(is_taken).count();
    assert!(taken < 10_000, "{taken} messages of 64 KiB found room");
    let began = Instant::now();
    let report = server.shutdown().unwrap();
    assert_eq!((report.closed, report.cut), (0, 1));
    assert!(began.elapsed() < Duration::from_secs(5), "took {:?}", began.elapsed());
}

#[test]
fn a_request_that_is_being_read_is_answered_with_503() {
    let server = serve(vec![route!("/" => Echo)]);
    let address = server.local_addr();
    let mut half = Raw::connect(address);
    half.send(&upgrade_request("/", "").as_bytes()[..40]);
    let mut silent = Raw::connect(address);
    let mut kept = Raw::connect(address);
    kept.send(b"GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n");
    kept.response();
    // The half request is accepted by now: a full exchange came after it.
    let report = shut_down(server);
    let (head, _) = half.response();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    half.expect_end();
    silent.expect_end();
    kept.expect_end();
    drop((half, silent, kept));
    let report = report.recv_timeout(DEADLINE).unwrap();
    assert_eq!(report.cut, 0);
}

/// A connection whose thread runs: it has had an answer.
fn kept(address: SocketAddr) -> Raw {
    let mut client = Raw::connect(address);
    client.ask(&get("/none"));
    client
}

#[test]
fn requests_that_have_arrived_before_the_shutdown_are_all_answered() {
    for round in 0..20 {
        let server = start(Server::new(vec![route!("/" => Echo)]));
        let mut clients: Vec<_> = (0..20).map(|_| kept(server.local_addr())).collect();
        // Longer than what is read at first of one who was idle.
        let cookie = "x".repeat(2000);
        let request = format!("GET /none HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n");
        for client in &mut clients {
            client.send(request.as_bytes());
        }
        let report = shut_down(server);
        for client in &mut clients {
            let (head, _) = client.response();
            assert!(matches!(status(&head), 404 | 503), "round {round}: {head}");
        }
        drop(clients);
        report.recv_timeout(DEADLINE).unwrap();
    }
}

#[test]
fn a_client_that_uploads_during_the_shutdown_reads_a_whole_503() {
    for round in 0..50 {
        let server = start(Server::new(vec![route!("/" => Echo)]).max_body_size(usize::MAX));
        let mut client = kept(server.local_addr());
        client.send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n");
        let mut upload = client.stream.try_clone().unwrap();
        let (progress, begun) = channel();
        let uploading = thread::spawn(move || {
            while upload.write_all(&[b'x'; 16 << 10]).is_ok() {
                let _ = progress.send(());
            }
        });
        begun.recv_timeout(DEADLINE).expect("nothing is uploaded");
        let report = shut_down(server);
        let (head, body) = client.response();
        assert_eq!((status(&head), body.as_str()), (503, "Service Unavailable"), "round {round}");
        client.expect_end();
        while begun.try_recv().is_ok() {}
        assert!(begun.recv_timeout(DEADLINE).is_ok(), "the upload was broken off in round {round}");
        client.stream.shutdown(Shutdown::Both).unwrap();
        uploading.join().unwrap();
        let report = report.recv_timeout(DEADLINE).unwrap();
        assert_eq!((report.closed, report.cut), (1, 0), "round {round}");
    }
}

/// A client that has read its last answer to the end of the stream, and keeps its own end open.
fn answered(address: SocketAddr) -> Raw {
    let mut client = Raw::connect(address);
    client.ask("GET /none HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    client.expect_end();
    client
}

#[test]
fn clients_that_keep_their_end_open_after_their_answer_do_not_hold_up_the_shutdown() {
    let never = Duration::MAX;
    let server = start(
        Server::new(vec![route!("/" => Echo)])
            .idle_timeout(never)
            .shutdown_timeout(never)
            .websocket(Websocket::new().close_timeout(never)),
    );
    let address = server.local_addr();
    let mut half = kept(address);
    half.send(b"GET / HTTP/1.1\r\n");
    let _answered = [(); 3].map(|()| answered(address));
    let began = Instant::now();
    let report = shut_down(server).recv_timeout(DEADLINE).expect("the shutdown waits for clients");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(3), "took {took:?}");
    assert_eq!((report.closed, report.cut), (4, 0));
    assert_eq!(status(&half.response().0), 503);
}

#[test]
fn a_client_that_sends_without_pause_after_its_answer_is_ended_soon_and_counts_as_closed() {
    let never = Duration::MAX;
    for shutdown_timeout in [Duration::ZERO, Duration::from_millis(50), never] {
        let server = start(
            Server::new(vec![route!("/" => Echo)])
                .idle_timeout(never)
                .shutdown_timeout(shutdown_timeout),
        );
        let mut client = answered(server.local_addr());
        let stream = client.stream.try_clone().unwrap();
        let sending = thread::spawn(move || while client.stream.write_all(&[b'x'; 99]).is_ok() {});
        let began = Instant::now();
        let report = server.shutdown().unwrap();
        let took = began.elapsed();
        assert!(took < Duration::from_secs(4), "took {took:?}");
        assert_eq!((report.closed, report.cut), (1, 0), "cut after {shutdown_timeout:?}");
        // A client that found no room when the server closed may not learn of that for a minute: Linux answers what it
        // asks with the full window of before.
        let _ = stream.shutdown(Shutdown::Both);
        join("the client", sending);
    }
}

#[test]
fn half_a_head_that_was_sent_just_before_the_shutdown_is_answered_with_503() {
    for round in 0..50 {
        let server = serve(vec![route!("/" => Echo)]);
        let mut client = kept(server.local_addr());
        client.send(&upgrade_request("/", "").as_bytes()[..40]);
        let report = shut_down(server);
        let (head, _) = client.response();
        assert_eq!(status(&head), 503, "round {round}");
        client.expect_end();
        drop(client);
        assert_eq!(report.recv_timeout(DEADLINE).unwrap().cut, 0, "round {round}");
    }
}

#[test]
fn a_request_that_was_sent_just_before_the_shutdown_is_answered() {
    for round in 0..50 {
        let server = serve(vec![route!("/hi" => answer(|_| Ok(Response::new().text("hi"))))]);
        let mut client = kept(server.local_addr());
        client.send(get("/hi").as_bytes());
        let report = shut_down(server);
        let (head, body) = client.response();
        assert_eq!((status(&head), body.as_str()), (200, "hi"), "round {round}");
        client.expect_end();
        drop(client);
        assert_eq!(report.recv_timeout(DEADLINE).unwrap().cut, 0, "round {round}");
    }
}

/// Waits for permission before it answers.
struct Gate {
    entered: Mutex<Sender<()>>,
    permission: Mutex<Receiver<()>>,
}

#[async_trait]
impl Controller for Gate {
    async fn handle(&self, _: &Request) -> Result<Response, Error> {
        self.entered.lock().send(())?;
        let _ = self.permission.lock().recv_timeout(DEADLINE);
        Ok(Response::new().text("worth waiting for"))
    }
}

#[test]
fn a_request_that_is_being_answered_gets_its_answer() {
    let ((entered, inside), (permit, permission)) = (channel(), channel());
    let gate = Gate { entered: Mutex::new(entered), permission: Mutex::new(permission) };
    let server = serve(vec![route!("/" => gate)]);
    let mut client = Raw::connect(server.local_addr());
    client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    inside.recv_timeout(DEADLINE).unwrap();
    let address = server.local_addr();
    let report = shut_down(server);
    wait_until("nothing listens", || TcpStream::connect(address).is_err());
    permit.send(()).unwrap();
    let (head, body) = client.response();
    assert_eq!(body, "worth waiting for");
    assert!(head.contains("Connection: close"), "{head}");
    client.expect_end();
    drop(client);
    // The look whether it listens may have been a connection too.
    let report = report.recv_timeout(DEADLINE).unwrap();
    assert!(report.closed >= 1, "{report:?}");
    assert_eq!((report.cut, report.running), (0, 0));
}

#[test]
fn a_handler_that_goes_on_is_reported_as_running() {
    let ((entered, inside), (permit, permission)) = (channel(), channel());
    let gate = Gate { entered: Mutex::new(entered), permission: Mutex::new(permission) };
    let server =
        start(Server::new(vec![route!("/" => gate)]).shutdown_timeout(Duration::from_millis(50)));
    let mut client = Raw::connect(server.local_addr());
    client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    inside.recv_timeout(DEADLINE).unwrap();
    let report = server.shutdown().unwrap();
    assert_eq!((report.closed, report.cut, report.running), (0, 1, 1));
    permit.send(()).unwrap();
}

#[test]
fn a_second_call_waits_for_the_first_and_gives_the_same_report() {
    let server = Arc::new(serve(vec![route!("/" => Echo)]));
    let mut client = Raw::open(server.local_addr(), "/");
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let server = Arc::clone(&server);
            thread::spawn(move || server.shutdown().unwrap())
        })
        .collect();
    let waiting = thread::spawn({
        let server = Arc::clone(&server);
        move || server.join().unwrap()
    });
    client.close_frame();
    client.send_close(1001, "");
    client.expect_end();
    drop(client);
    let reports: Vec<_> = calls.into_iter().map(|call| join("a shutdown", call)).collect();
    let waiting = join("the wait for the shutdown", waiting);
    for report in reports.iter().chain([&waiting, &server.shutdown().unwrap()]) {
        assert_eq!((report.closed, report.cut), (1, 0));
    }
}

/// Tells what a shutdown says that its own handler asks for.
#[derive(Default)]
struct Suicidal {
    server: Arc<OnceLock<ServerHandle>>,
}

#[async_trait]
impl WebsocketController for Suicidal {
    async fn handle_message(&self, client: &SessionId, _: Message) -> Result<(), Error> {
        let server = self.server.get().expect("the server is known");
        for result in [server.shutdown(), server.join()] {
            let text = result.map_or_else(|error| error.to_string(), |_| "stopped".to_owned());
            Comms::websocket(client).send(text)?;
        }
        Ok(())
    }
}

#[async_trait]
impl Controller for Suicidal {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        WebsocketController::handle(self, request).await
    }
}

#[test]
fn a_handler_that_calls_shutdown_gets_an_error() {
    let controller = Suicidal::default();
    let handle = Arc::clone(&controller.server);
    handle.set(serve(vec![route!("/" => controller)])).unwrap();
    let server = handle.get().unwrap();
    let mut client = Raw::open(server.local_addr(), "/");
    client.send_text("stop");
    for _ in 0..2 {
        let text = client.text_frame();
        assert!(text.contains("handler cannot wait"), "{text}");
    }
    client.send_close(1000, "");
    client.close_frame();
    drop(client);
    server.shutdown().unwrap();
}

#[test]
fn dropping_the_handle_shuts_down() {
    let server = serve(vec![route!("/" => Echo)]);
    let address = server.local_addr();
    let mut client = Raw::open(address, "/");
    let dropping = thread::spawn(move || drop(server));
    assert_eq!(client.close_frame().0, 1001);
    client.send_close(1001, "");
    client.expect_end();
    drop(client);
    join("dropping the handle", dropping);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn two_servers_live_in_one_process() {
    let one = serve(vec![route!("/" => Echo)]);
    let other = serve(vec![route!("/" => Echo)]);
    let session = Guest::new();
    let cookie = session.cookie();
    let mut here = Raw::open_with(one.local_addr(), "/", &cookie);
    let mut there = Raw::open_with(other.local_addr(), "/", &cookie);
    assert_eq!(Comms::websocket(session).send("both"), Ok(2));
    assert_eq!(here.text_frame(), "both");
    assert_eq!(there.text_frame(), "both");
    let report = shut_down(one);
    here.close_frame();
    here.send_close(1001, "");
    here.expect_end();
    drop(here);
    assert_eq!(report.recv_timeout(DEADLINE).unwrap().closed, 1);
    there.send_text("unharmed");
    assert_eq!(there.text_frame(), "unharmed");
}

#[test]
fn a_given_listener_is_served() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = spawn(Server::new(vec![route!("/" => Echo)]).listener(listener));
    assert_eq!(server.local_addr(), address);
    let mut client = Raw::open(address, "/");
    client.send_text("hello");
    assert_eq!(client.text_frame(), "hello");
}

/// Drops the handle of its own server.
#[derive(Default)]
struct Dropping {
    server: Arc<Mutex<Option<ServerHandle>>>,
}

#[async_trait]
impl WebsocketController for Dropping {
    async fn handle_message(&self, _: &SessionId, _: Message) -> Result<(), Error> {
        drop(self.server.lock().take());
        Ok(())
    }
}

#[async_trait]
impl Controller for Dropping {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        WebsocketController::handle(self, request).await
    }
}

#[test]
fn a_handle_dropped_by_a_handler_shuts_down_all_the_same() {
    let controller = Dropping::default();
    let handle = Arc::clone(&controller.server);
    let server = start(
        Server::new(vec![route!("/" => controller)])
            .shutdown_timeout(Duration::from_millis(100))
            .websocket(Websocket::new().close_timeout(Duration::from_millis(100))),
    );
    let address = server.local_addr();
    *handle.lock() = Some(server);
    let mut silent = Raw::open(address, "/");
    let mut client = Raw::open(address, "/");
    client.send_text("drop it");
    for client in [&mut client, &mut silent] {
        assert_eq!(client.close_frame().0, 1001);
        client.expect_end();
    }
    wait_until("nothing listens", || TcpStream::connect(address).is_err());
}

#[test]
fn a_listener_that_others_share_goes_on_for_them() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let shared = listener.try_clone().unwrap();
    let address = listener.local_addr().unwrap();
    spawn(Server::new(vec![route!("/" => Echo)]).listener(listener)).shutdown().unwrap();
    let again = spawn(Server::new(vec![route!("/" => Echo)]).listener(shared));
    let mut client = Raw::open(address, "/");
    client.send_text("hello");
    assert_eq!(client.text_frame(), "hello");
    drop(client);
    again.shutdown().unwrap();
}

#[test]
#[cfg(unix)]
fn the_flags_of_a_given_listener_are_left_alone() {
    use rustix::fs::{OFlags, fcntl_getfl};
    for nonblocking in [false, true] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(nonblocking).unwrap();
        let shared = listener.try_clone().unwrap();
        let is_nonblocking = || fcntl_getfl(&shared).unwrap().contains(OFlags::NONBLOCK);
        let server = spawn(Server::new(vec![route!("/" => Echo)]).listener(listener));
        for _ in 0..3 {
            Raw::open(server.local_addr(), "/");
        }
        assert_eq!(is_nonblocking(), nonblocking, "while the server runs");
        let began = Instant::now();
        server.shutdown().unwrap();
        assert!(began.elapsed() < Duration::from_secs(5), "took {:?}", began.elapsed());
        assert_eq!(is_nonblocking(), nonblocking, "after its end");
    }
}

#[test]
fn servers_that_share_a_blocking_listener_shut_down_promptly() {
    for round in 0..50 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let servers = [listener.try_clone().unwrap(), listener]
            .map(|listener| spawn(Server::new(vec![route!("/" => Echo)]).listener(listener)));
        // Each is told of each connection, and may be left waiting for one that the other took.
        for _ in 0..round % 5 {
            kept(address);
        }
        let began = Instant::now();
        let [one, other] = servers.map(shut_down);
        one.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("one waits on, round {round}"));
        other
            .recv_timeout(DEADLINE)
            .unwrap_or_else(|_| panic!("the other waits on, round {round}"));
        let took = began.elapsed();
        assert!(took < Duration::from_secs(3), "round {round} took {took:?}");
        assert!(TcpStream::connect(address).is_err(), "somebody still listens, round {round}");
    }
}

#[test]
fn a_shutdown_is_prompt_beside_a_program_that_takes_connections_too() {
    for round in 0..20 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let shared = listener.try_clone().unwrap();
        let address = listener.local_addr().unwrap();
        let server = spawn(Server::new(vec![route!("/" => Echo)]).listener(listener));
        let (stop, stopped) = channel::<()>();
        let taking = thread::spawn(move || {
            while stopped.try_recv().is_err() {
                shared.accept().unwrap();
            }
        });
        for _ in 0..round {
            TcpStream::connect(address).unwrap();
        }
        let began = Instant::now();
        server.shutdown().unwrap();
        let took = began.elapsed();
        assert!(took < Duration::from_secs(3), "round {round} took {took:?}");
        stop.send(()).unwrap();
        // One that it has taken meanwhile may have ended it.
        let _ = TcpStream::connect(address);
        taking.join().unwrap();
    }
}

#[test]
fn never_is_a_timeout_too() {
    let never = Duration::MAX;
    let websocket = Websocket::new()
        .ping_interval(never)
        .ping_timeout(never)
        .write_timeout(never)
        .close_timeout(never);
    let server = start(
        Server::new(vec![route!("/" => Echo)])
            .open_timeout(never)
            .body_timeout(never)
            .idle_timeout(never)
            .shutdown_timeout(never)
            .websocket(websocket),
    );
    let mut client = Raw::open(server.local_addr(), "/");
    client.send_text("hello");
    assert_eq!(client.text_frame(), "hello");
    let report = shut_down(server);
    assert_eq!(client.close_frame().0, 1001);
    client.send_close(1001, "");
    client.expect_end();
    drop(client);
    assert_eq!(report.recv_timeout(DEADLINE).unwrap().closed, 1);
}

#[test]
fn idle_connections_end_at_once_while_a_handler_goes_on() {
    let ((entered, inside), (permit, permission)) = (channel(), channel());
    let gate = Gate { entered: Mutex::new(entered), permission: Mutex::new(permission) };
    let server = serve(vec![route!("/" => gate)]);
    let mut busy = Raw::connect(server.local_addr());
    let mut idle = Raw::connect(server.local_addr());
    idle.send(b"GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n");
    idle.response();
    busy.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    inside.recv_timeout(DEADLINE).unwrap();
    let report = shut_down(server);
    idle.expect_end();
    assert!(report.try_recv().is_err(), "the shutdown waits for the handler");
    permit.send(()).unwrap();
    busy.response();
    drop(busy);
    assert_eq!(report.recv_timeout(DEADLINE).unwrap().closed, 2);
}
