//! What waits for a client: who is judged slow, payloads that are the program's own memory, and who writes.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::{DEADLINE, Keeping, Raw, client_frame, start, wait_until};
use parking_lot::Mutex;
use rwf::comms::SendError;
use rwf::controller::{Overflow, Websocket};
use rwf::http::{Server, ServerHandle};
use rwf::prelude::*;
use rwf::websocket::Bytes;

/// A user of its own for each test, so that tests do not meet.
fn somebody() -> i64 {
    static NEXT: AtomicI64 = AtomicI64::new(910_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Answers each message twice, and tells how its connections ended and when.
struct Twice(Mutex<Sender<(u16, String, Instant)>>);

#[async_trait]
impl WebsocketController for Twice {
    async fn handle_message(&self, client: &SessionId, message: Message) -> Result<(), Error> {
        Comms::websocket(client).send(&message)?;
        Comms::websocket(client).send(message)?;
        // The next message is at hand meanwhile, so that the replies are gathered.
        thread::park_timeout(Duration::from_millis(1));
        Ok(())
    }

    async fn handle_close(
        &self,
        _: &SessionId,
        code: CloseCode,
        reason: &str,
    ) -> Result<(), Error> {
        self.0.lock().send((code.into(), reason.to_owned(), Instant::now()))?;
        Ok(())
    }
}

#[async_trait]
impl Controller for Twice {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        let user: i64 = request.param("user")?.parse()?;
        WebsocketController::handle(self, &request.with_session(user)).await
    }
}

type Ends = Receiver<(u16, String, Instant)>;

fn serve(settings: Websocket) -> (ServerHandle, Ends) {
    let (sender, ends) = channel();
    let routes = vec![route!("/:user" => Twice(Mutex::new(sender)))];
    (start(Server::new(routes).websocket(settings)), ends)
}

fn open(server: &ServerHandle, user: i64) -> Raw {
    Raw::open(server.local_addr(), &format!("/{user}"))
}

/// Sends until the connection takes no more.
fn fill(user: i64) -> usize {
    let message = Message::binary(vec![7; 64 << 10]);
    let deadline = Instant::now() + DEADLINE;
    let mut taken = 0;
    while Comms::websocket(user).send(&message).is_ok() {
        taken += 1;
        assert!(Instant::now() < deadline, "{taken} messages of 64 KiB found room");
    }
    taken
}

#[test]
fn replies_that_are_only_gathered_do_not_make_a_client_slow() {
    let settings = Websocket::new().outbox_messages(2);
    let (server, ends) = serve(settings);
    let user = somebody();
    let mut client = open(&server, user);
    let burst = client_frame(0x81, b"reply").repeat(200);
    client.send(&burst);
    let sender = thread::spawn(move || {
        let deadline = Instant::now() + DEADLINE;
        for number in 0..2000 {
            assert!(Instant::now() < deadline, "sends take too long");
            assert_eq!(Comms::websocket(user).send("pushed"), Ok(1), "push {number}");
        }
    });
    for number in 0..2400 {
        let text = client.text_frame();
        assert!(["reply", "pushed"].contains(&text.as_str()), "message {number}: {text}");
    }
    sender.join().unwrap();
    assert!(ends.try_recv().is_err(), "a client that reads was closed");
}

/// Keeps processors busy until it is dropped.
struct Busy(Arc<AtomicUsize>);

impl Busy {
    fn loops(count: usize) -> Self {
        let running = Arc::new(AtomicUsize::new(1));
        for _ in 0..count {
            let running = Arc::clone(&running);
            let end = Instant::now() + 6 * DEADLINE;
            thread::spawn(move || {
                while running.load(Ordering::Relaxed) > 0 && Instant::now() < end {
                    std::hint::spin_loop();
                }
            });
        }
        Self(running)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

#[test]
fn a_client_that_reads_is_never_slow_however_busy_the_machine_is() {
    let _busy = Busy::loops(4);
    let (server, ends) = serve(Websocket::new());
    let user = somebody();
    let mut client = open(&server, user);
    const THREADS: usize = 8;
    const MESSAGES: usize = 600;
    for _ in 0..5 {
        let senders: Vec<_> = (0..THREADS)
            .map(|_| {
                thread::spawn(move || {
                    (0..MESSAGES).map(|_| Comms::websocket(user).send("ten bytes!")).collect()
                })
            })
            .collect();
        for _ in 0..THREADS * MESSAGES {
            assert_eq!(client.text_frame(), "ten bytes!");
        }
        for sender in senders {
            let results: Vec<_> = sender.join().unwrap();
            assert!(results.iter().all(|result| *result == Ok(1)), "{results:?}");
        }
    }
    assert!(ends.try_recv().is_err(), "a client that reads was closed");
}

#[test]
fn many_small_messages_fit_and_count_for_more_than_their_bytes() {
    let settings = Websocket::new().overflow(Overflow::Refuse).outbox_bytes(1 << 20);
    let (server, _ends) = serve(settings);
    let user = somebody();
    let _client = open(&server, user);
    // What was refused was as long as the room that is left at most; tiny ones fill it, unless the systems took more of what
    // waits meanwhile.
    wait_until("empty messages fill the room that is left", || {
        fill(user);
        (0..=(64 << 10) / 64).any(|_| Comms::websocket(user).send("") != Ok(1))
    });
}

#[test]
fn a_client_that_overflows_is_over_for_its_handler_at_once() {
    let (server, ends) = serve(Websocket::new().close_timeout(Duration::from_secs(8)));
    let user = somebody();
    let mut client = open(&server, user);
    let taken = fill(user);
    let full = Instant::now();
    let (code, reason, at) = ends.recv_timeout(DEADLINE).expect("handle_close was not called");
    assert_eq!((code, reason.as_str()), (1013, "slow receiver"));
    assert!(at - full < Duration::from_secs(4), "handle_close came {:?} late", at - full);
    // Behind it the client can still take all, and say good bye, whatever it says before.
    for number in 0..taken {
        if number % 50 == 0 {
            client.send_text("what the server does not hand out any more");
        }
        assert_eq!(client.frame().payload.len(), 64 << 10, "message {number}");
    }
    assert_eq!(client.close_frame(), (1013, "slow receiver".to_owned()));
    client.send_text("crossing the close");
    client.send_close(1013, "");
    client.expect_end();
    drop(client);
    let report = server.shutdown().unwrap();
    assert_eq!(report.cut, 0, "{report:?}");
}

#[test]
fn a_client_that_says_good_bye_and_keeps_tcp_open_is_over_for_its_handler_at_once() {
    let (server, ends) = serve(Websocket::new().close_timeout(Duration::from_secs(8)));
    let mut client = open(&server, somebody());
    client.send_close(4001, "done");
    let sent = Instant::now();
    let (code, reason, at) = ends.recv_timeout(DEADLINE).expect("handle_close was not called");
    assert_eq!((code, reason.as_str()), (4001, "done"));
    assert!(at - sent < Duration::from_secs(4), "handle_close came {:?} late", at - sent);
    assert_eq!(client.close_frame(), (4001, "done".to_owned()));
}

/// Memory of the program's own, with a destructor of its own.
struct Owned<F: FnMut()>(Vec<u8>, F);

impl<F: FnMut()> AsRef<[u8]> for Owned<F> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl<F: FnMut()> Drop for Owned<F> {
    fn drop(&mut self) {
        (self.1)();
    }
}

/// A message whose payload, too long to be copied, does something when it is dropped.
fn owned(on_drop: impl FnMut() + Send + 'static) -> Message {
    owned_bytes(64 << 10, on_drop)
}

fn owned_bytes(length: usize, on_drop: impl FnMut() + Send + 'static) -> Message {
    Message::binary(Bytes::from_owner(Owned(vec![7; length], on_drop)))
}

/// Drops a message whose payload may panic at that.
fn drop_safely(message: Message) {
    let drop = std::panic::AssertUnwindSafe(|| drop(message));
    std::panic::catch_unwind(drop).unwrap_or_default();
}

/// Calls `action` on a thread, and fails when it does not return in time: it hangs then.
fn in_time<T: Send + 'static>(what: &str, action: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, done) = channel();
    let thread = thread::spawn(move || sender.send(action()).unwrap_or_default());
    match done.recv_timeout(DEADLINE) {
        Ok(value) => value,
        Err(RecvTimeoutError::Timeout) => panic!("{what} hangs"),
        Err(RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("it sends before it ends"),
        },
    }
}

#[test]
fn payloads_may_send_when_they_are_dropped() {
    let settings = Websocket::new().outbox_bytes(64 << 20);
    let (server, _ends) = serve(settings);
    let user = somebody();
    let mut client = open(&server, user);
    let dropped = Arc::new(AtomicUsize::new(0));
    let count = 200;
    in_time("sending to a slow client", {
        let dropped = Arc::clone(&dropped);
        move || {
            for _ in 0..count {
                let dropped = Arc::clone(&dropped);
                let on_drop = move || {
                    let _ = Comms::websocket(user).send("a payload's last words");
                    dropped.fetch_add(1, Ordering::Relaxed);
                };
                Comms::websocket(user).send(owned(on_drop)).unwrap();
            }
        }
    });
    let (mut long, mut words) = (0, 0);
    while (long, words) != (count, count) {
        match client.frame().first {
            0x82 => long += 1,
            _ => words += 1,
        }
    }
    assert_eq!(dropped.load(Ordering::Relaxed), count);
    let report = in_time("the shutdown", move || {
        let closing = thread::spawn(move || server.shutdown().unwrap());
        assert_eq!(client.close_frame().0, 1001);
        client.send_close(1001, "");
        client.expect_end();
        closing.join().unwrap()
    });
    assert_eq!((report.closed, report.running), (1, 0));
}

#[test]
fn payloads_without_a_byte_may_panic_when_they_are_dropped() {
    let (server, _ends) = serve(Websocket::new().outbox_bytes(64 << 20));
    let user = somebody();
    let mut client = open(&server, user);
    // Behind this one they wait in the outbox.
    let long = 32 << 20;
    Comms::websocket(user).send(vec![7; long]).unwrap();
    let count = 10;
    for _ in 0..count {
        let message = owned_bytes(0, || panic!("as the test wishes"));
        assert_eq!(Comms::websocket(user).send(&message), Ok(1));
        drop_safely(message);
    }
    assert_eq!(Comms::websocket(user).send("all is well"), Ok(1));
    assert_eq!(client.frame().payload.len(), long);
    for _ in 0..count {
        assert_eq!(client.frame().payload, b"");
    }
    assert_eq!(client.text_frame(), "all is well");
}

#[test]
fn payloads_may_panic_when_they_are_dropped() {
    let settings = Websocket::new().outbox_bytes(64 << 20);
    let (server, _ends) = serve(settings);
    let user = somebody();
    let mut client = open(&server, user);
    let count = 100;
    // The sender's own message goes with the last of its clones, which is the writer's.
    for _ in 0..count {
        let message = owned(|| panic!("as the test wishes"));
        assert_eq!(Comms::websocket(user).send(&message), Ok(1));
        drop_safely(message);
    }
    Comms::websocket(user).send("all is well").unwrap();
    for number in 0..count {
        assert_eq!(client.frame().first, 0x82, "message {number}");
    }
    assert_eq!(client.text_frame(), "all is well");
    client.send_close(1000, "");
    assert_eq!(client.close_frame().0, 1000);
    client.expect_end();
    let report = in_time("the shutdown", move || server.shutdown().unwrap());
    assert_eq!(report.running, 0);
}

#[test]
fn payloads_of_a_client_that_is_given_up_may_do_what_they_like() {
    let settings =
        Websocket::new().outbox_bytes(64 << 20).write_timeout(Duration::from_millis(100));
    let (server, ends) = serve(settings);
    let user = somebody();
    let _client = open(&server, user);
    for number in 0..200 {
        let on_drop = move || {
            let _ = Comms::websocket(user).send("a payload's last words");
            assert!(number % 2 == 0, "as the test wishes");
        };
        let message = owned(on_drop);
        let _ = Comms::websocket(user).send(&message);
        drop_safely(message);
    }
    let (code, reason, _) = ends.recv_timeout(DEADLINE).expect("the client was not given up");
    assert_eq!(code, 1006, "{reason}");
    let report = in_time("the shutdown", move || server.shutdown().unwrap());
    assert_eq!(report.running, 0);
}

#[test]
fn sends_of_a_slow_client_with_no_room_say_so_at_once() {
    let settings = Websocket::new().overflow(Overflow::Refuse);
    let (server, _ends) = serve(settings);
    let user = somebody();
    let _client = open(&server, user);
    fill(user);
    let began = Instant::now();
    for _ in 0..1000 {
        assert_eq!(
            Comms::websocket(user).send(Message::binary(vec![7; 64 << 10])),
            Err(SendError::Full)
        );
    }
    assert!(began.elapsed() < Duration::from_secs(5), "1000 refusals took {:?}", began.elapsed());
}

/// The system's name of the server's end of a connection, as this process has it open.
#[cfg(target_os = "linux")]
fn server_end(client: &Raw) -> String {
    let port = format!(":{:04X}", client.stream.local_addr().expect("it is connected").port());
    let table = std::fs::read_to_string("/proc/self/net/tcp").expect("is /proc mounted?");
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // Connections that have ended are still there for a while, without a name.
    let line = fields.into_iter().find(|fields| fields[2].ends_with(&port) && fields[9] != "0");
    format!("socket:[{}]", line.expect("the connection is not in the system's table")[9])
}

#[cfg(target_os = "linux")]
fn is_open(name: &str) -> bool {
    let open = std::fs::read_dir("/proc/self/fd").expect("is /proc mounted?");
    let mut names = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    names.any(|open| open.to_string_lossy() == name)
}

#[test]
#[cfg(target_os = "linux")]
fn a_request_that_is_kept_keeps_no_descriptor() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let server = start(Server::new(vec![route!("/:user" => Keeping(Arc::clone(&kept)))]));
    let client = open(&server, somebody());
    let name = server_end(&client);
    assert!(is_open(&name), "{name} is not found");
    drop(client);
    wait_until("the connection's descriptor is closed", || !is_open(&name));
    assert_eq!(kept.lock().len(), 1);
}

/// Every client whose buffers are full is given up for the same reason, whichever thread is told of it first.
#[test]
fn clients_that_take_nothing_are_all_told_why_while_sends_go_on() {
    const CLIENTS: usize = 30;
    let timeout = Duration::from_millis(300);
    let settings =
        Websocket::new().write_timeout(timeout).outbox_bytes(2 << 20).overflow(Overflow::Refuse);
    let (server, ends) = serve(settings);
    let users: Vec<_> = (0..CLIENTS).map(|_| somebody()).collect();
    let _clients: Vec<_> = users.iter().map(|user| open(&server, *user)).collect();
    let deadline = Instant::now() + DEADLINE;
    let message = Message::binary(vec![7; 16 << 10]);
    let mut reasons = Vec::new();
    while reasons.len() < CLIENTS {
        assert!(Instant::now() < deadline, "not all were given up: {reasons:?}");
        for user in &users {
            let _ = Comms::websocket(*user).send(&message);
        }
        reasons.extend(ends.try_iter().map(|(_, reason, _)| reason));
    }
    let expected = format!("the client took nothing for {timeout:?}");
    let others: Vec<_> = reasons.iter().filter(|reason| **reason != expected).collect();
    assert!(others.is_empty(), "they took nothing, and this is said: {others:?}");
}

#[test]
fn a_client_that_takes_its_backlog_needs_not_answer_a_ping_before() {
    let settings = Websocket::new()
        .outbox_bytes(256 << 20)
        .ping_interval(Duration::from_millis(150))
        .ping_timeout(Duration::from_millis(1500));
    let (server, ends) = serve(settings);
    let user = somebody();
    let mut client = open(&server, user);
    let count = 120;
    let message = Message::binary(vec![7; 1 << 20]);
    for _ in 0..count {
        Comms::websocket(user).send(&message).unwrap();
    }
    // It says nothing, and takes longer than a ping and its timeout for what waits. The systems hold the last of it:
    // then it has taken everything, and a ping that it leaves unanswered ends it as it should.
    let (mut taken, held) = (0, 20);
    while taken < count - held {
        let frame = client.frame();
        taken += usize::from(frame.first == 0x82);
        if let Ok(end) = ends.recv_timeout(Duration::from_millis(25)) {
            panic!("after {taken} of {count} it was given up: {end:?}");
        }
    }
}

#[test]
fn a_destructor_on_a_thread_of_the_server_cannot_wait_for_its_end() {
    let (server, _ends) = serve(Websocket::new().outbox_bytes(64 << 20));
    let server = Arc::new(server);
    let user = somebody();
    let mut client = open(&server, user);
    // More than the systems hold, so that a writer thread has the message behind it.
    Comms::websocket(user).send(vec![7; 30 << 20]).unwrap();
    let (sender, results) = channel();
    let this = Arc::clone(&server);
    let on_drop = move || sender.send(this.shutdown().map(drop)).unwrap_or_default();
    Comms::websocket(user).send(owned(on_drop)).unwrap();
    assert_eq!(client.frame().payload.len(), 30 << 20);
    assert_eq!(client.frame().payload.len(), 64 << 10);
    let result = results.recv_timeout(DEADLINE).expect("the destructor did not run or return");
    assert!(
        matches!(result, Err(rwf::http::Error::FromHandler)),
        "a writer thread waits for itself: {result:?}"
    );
    drop(client);
    let report = in_time("the shutdown", move || server.shutdown().unwrap());
    assert_eq!(report.running, 0);
}
