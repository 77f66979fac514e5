//! What the log says, and what it does not.

mod common;

use std::sync::OnceLock;
use std::time::Duration;

use common::{Raw, start, wait_until};
use parking_lot::Mutex;
use rwf::http::Server;
use rwf::prelude::*;

/// Keeps all lines of this process.
struct Lines(Mutex<Vec<String>>);

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().push(format!("{} {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}

/// The lines so far that contain `part`.
fn lines(part: &str) -> Vec<String> {
    static LINES: OnceLock<Lines> = OnceLock::new();
    let lines = LINES.get_or_init(|| Lines(Mutex::default()));
    if log::set_logger(lines).is_ok() {
        log::set_max_level(log::LevelFilter::Debug);
    }
    lines.0.lock().iter().filter(|line| line.contains(part)).cloned().collect()
}

/// The only line that contains `part`, once it is there.
fn line(part: &str) -> String {
    wait_until(&format!("the log says {part:?}"), || !lines(part).is_empty());
    let lines = lines(part);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    lines[0].clone()
}

/// Does what the path says.
#[derive(Default)]
struct Doing;

#[async_trait]
impl Controller for Doing {
    async fn handle(&self, request: &Request) -> Result<Response, Error> {
        match request.param("what")? {
            "fail" => Err(Error::new("the disk is full")),
            "refuse" => Err(Error::new("no such room").with_status(404)),
            "panic" => panic!("as the path says"),
            "answer" => Ok(Response::new()),
            _ => WebsocketController::handle(self, request).await,
        }
    }
}

#[async_trait]
impl WebsocketController for Doing {
    async fn handle_message(&self, _: &SessionId, message: Message) -> Result<(), Error> {
        let pause: u64 = message.as_text().unwrap_or_default().parse()?;
        std::thread::park_timeout(Duration::from_millis(pause));
        Ok(())
    }
}

#[test]
fn each_request_is_one_line() {
    lines("");
    let server = start(Server::new(vec![route!("/one/:what" => Doing)]));
    let mut client = Raw::connect(server.local_addr());
    for what in ["answer?token=secret", "fail", "refuse", "panic", "foreign"] {
        let origin = "Origin: http://evil.example";
        client.send(
            format!("GET /one/{what} HTTP/1.1\r\nHost: localhost\r\n{origin}\r\n\r\n").as_bytes(),
        );
        client.response();
    }
    let answer = line("/one/answer");
    assert!(answer.starts_with("INFO GET /one/answer 200 controller=Doing took="), "{answer}");
    assert_eq!(lines("secret"), [""; 0], "queries hold tokens");
    let fail = line("/one/fail");
    assert!(fail.starts_with("ERROR GET /one/fail 500"), "{fail}");
    assert!(fail.ends_with("the disk is full"), "{fail}");
    let refuse = line("/one/refuse");
    assert!(refuse.starts_with("INFO ") && refuse.ends_with("no such room"), "{refuse}");
    assert!(line("/one/panic").contains("panicked"));
    assert!(line("/one/foreign").contains("426"));
}

#[test]
fn a_websocket_is_a_line_at_its_beginning_and_one_at_its_end() {
    lines("");
    let server = start(Server::new(vec![route!("/two/:what" => Doing)]));
    let session = SessionId::guest();
    let cookie = format!("Cookie: rwf_session={session}\r\n");
    let mut client = Raw::open_with(server.local_addr(), "/two/x", &cookie);
    let connected = line(&format!("connected session={session}"));
    assert!(connected.contains("path=/two/x controller=Doing peer=127.0.0.1:"), "{connected}");
    client.send_text("0");
    client.send_close(4000, "a\nb");
    client.close_frame();
    drop(client);
    let closed = line(&format!("closed session={session}"));
    assert!(closed.contains(r#"path=/two/x code=4000 reason="a\nb" by=client after="#), "{closed}");
    assert!(closed.contains("in=1 out=0"), "{closed}");
}

#[test]
fn clients_cannot_write_control_characters_into_the_log() {
    lines("");
    let server = start(Server::new(vec![route!("/three/:what" => Doing)]));
    let mut client = Raw::connect(server.local_addr());
    client.send("GET /three/\u{9b}2J\u{202e} HTTP/1.1\r\nHost: localhost\r\n\r\n".as_bytes());
    client.response();
    let line = line("/three/");
    assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{line:?}");
}

#[test]
fn a_handler_that_runs_long_is_warned_of_once() {
    lines("");
    let server = start(
        Server::new(vec![route!("/four/:what" => Doing)])
            .handler_warning(Duration::from_millis(60)),
    );
    let session = SessionId::guest();
    let cookie = format!("Cookie: rwf_session={session}\r\n");
    let mut client = Raw::open_with(server.local_addr(), "/four/x", &cookie);
    for _ in 0..20 {
        client.send_text("5");
    }
    client.send_text("400");
    let warning = line(&format!("a handler has run for 60ms and still does: session={session}"));
    assert!(warning.starts_with("WARN ") && warning.contains("path=/four/x peer="), "{warning}");
    client.send_close(1000, "");
    client.close_frame();
    line(&format!("still does: session={session}"));
}

#[test]
#[cfg(target_os = "linux")]
fn threads_are_named_by_route_and_session() {
    let server = start(Server::new(vec![route!("/five/:what" => Doing)]));
    let session = SessionId::guest();
    let cookie = format!("Cookie: rwf_session={session}\r\n");
    let mut client = Raw::open_with(server.local_addr(), "/five/x", &cookie);
    client.send_frame(0x89, b"");
    client.frame();
    let name = format!("five/x {:.8}", session.to_string());
    let names: Vec<_> = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .collect();
    assert!(names.iter().any(|comm| comm.trim() == name), "no {name:?} among {names:?}");
}
