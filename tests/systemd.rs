//! A server that systemd starts: the sockets that it passes on, and what it is told. The part of systemd is played by this
//! test, with the program `tests/systemd/program.rs`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::{DEADLINE, Folder, Raw, Wire, status, upgrade_request, wait_until};
use rustix::process::{Pid, Signal, kill_process};

/// The program; dropping it ends it.
struct Program {
    child: Child,
    log: Receiver<String>,
}

/// Has a shell pass on what are its standard input and output as the descriptors 3 and 4.
const PASS_ON: &str = "exec 3<&0 4>&1 </dev/null >/dev/null";

impl Program {
    /// Starts it from a shell that has done `shell`, which may say what the environment is.
    fn start(shell: &str, three: impl Into<OwnedFd>, four: impl Into<OwnedFd>) -> Self {
        common::have_default_signals();
        let own = std::env::current_exe().unwrap();
        let program = own.ancestors().nth(2).unwrap().join("examples/systemd-program");
        assert!(program.exists(), "`cargo build --example systemd-program` makes {program:?}");
        let mut child = Command::new("sh")
            .args(["-c", &format!("{PASS_ON}\n{shell}\nexec \"$0\"")])
            .arg(program)
            .stdin(three.into())
            .stdout(four.into())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, log) = channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, log }
    }

    /// The next line of its log with `text`.
    fn expect_log(&self, text: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.log.recv_timeout(DEADLINE) {
                Ok(line) if line.contains(text) => return line,
                Ok(line) => seen.push(line),
                Err(_) => panic!("no {text:?} in {seen:?}"),
            }
        }
    }

    fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        wait_until("the program ends", || self.child.try_wait().unwrap().is_some());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn nothing() -> OwnedFd {
    std::fs::File::open("/dev/null").unwrap().into()
}

fn expect_echo(mut client: Raw) {
    client.send(upgrade_request("/", "").as_bytes());
    assert_eq!(status(&client.head()), 101);
    client.send_text("hello");
    assert_eq!(client.text_frame(), "hello");
}

#[test]
fn sockets_that_are_passed_on_are_served_and_those_of_others_are_not() {
    let folder = Folder::new();
    let path = folder.0.join("passed.sock");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let unix = UnixListener::bind(&path).unwrap();
    let kept = unix.try_clone().unwrap();
    let environment = "export LISTEN_FDS=2 LISTEN_PID=$$ LISTEN_FDNAMES=web:proxy";
    let program = Program::start(environment, tcp, unix);
    program.expect_log(&format!("listening on http://{address} "));
    program.expect_log(&format!("listening on unix:{} ", path.display()));
    expect_echo(Raw::connect(address));
    expect_echo(Raw::from(Wire::Unix(UnixStream::connect(&path).unwrap())));
    program.stop();
    assert!(path.exists(), "the file is systemd's");
    drop(kept);

    // They are another process's: this one listens where it would without them.
    for environment in ["export LISTEN_FDS=1 LISTEN_PID=1", "export LISTEN_FDS=1", "true"] {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        let shell = format!("{environment}\nexport BIND=127.0.0.1:0");
        let program = Program::start(&shell, tcp, nothing());
        let line = program.expect_log("listening on http://");
        assert!(!line.contains(&address.to_string()), "{environment}: {line}");
        program.stop();
    }
}

#[test]
fn what_no_connections_come_from_is_an_error_at_start() {
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    for (what, socket) in [
        ("datagrams", OwnedFd::from(datagrams)),
        ("a connection", OwnedFd::from(connected)),
        ("no socket", nothing()),
    ] {
        let environment = "export LISTEN_FDS=1 LISTEN_PID=$$";
        let mut program = Program::start(environment, socket, nothing());
        let line = program.expect_log("the sockets of systemd");
        assert!(
            line.contains("socket 0 of LISTEN_FDS is no TCP or Unix listener"),
            "{what}: {line}"
        );
        assert!(!program.child.wait().unwrap().success(), "{what}");
    }
    for count in ["many", "-1", "20000000"] {
        let environment = format!("export LISTEN_FDS={count} LISTEN_PID=$$");
        let mut program = Program::start(&environment, nothing(), nothing());
        let line = program.expect_log("the sockets of systemd");
        assert!(line.contains("LISTEN_FDS has to be a number"), "{count}: {line}");
        assert!(!program.child.wait().unwrap().success(), "{count}");
    }
}

/// What the program tells within the deadline.
fn told(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 1024];
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let length = manager.recv(&mut buffer).expect("the program tells nothing");
    String::from_utf8(buffer[..length].to_vec()).unwrap()
}

#[test]
fn it_is_told_that_the_server_is_ready_and_that_it_stops() {
    let folder = Folder::new();
    let path = folder.0.join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let environment = format!("export BIND=127.0.0.1:0 NOTIFY_SOCKET={}", path.display());
    let program = Program::start(&environment, nothing(), nothing());
    let ready = told(&manager);
    let address = ready.strip_prefix("READY=1\nSTATUS=listening on ");
    let address = address.unwrap_or_else(|| panic!("{ready:?}"));
    expect_echo(Raw::connect(address.parse().unwrap()));
    manager.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let error = manager.recv(&mut [0; 9]).expect_err("it wants no watchdog");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    program.stop();
    assert_eq!(told(&manager), "STOPPING=1");
}

#[test]
fn it_is_told_in_time_that_the_server_is_alive_if_it_wants_to_know() {
    let folder = Folder::new();
    let path = folder.0.join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    let notify = format!("export BIND=127.0.0.1:0 NOTIFY_SOCKET={}", path.display());
    let time = Duration::from_millis(400);
    let environment = format!("{notify} WATCHDOG_USEC={} WATCHDOG_PID=$$", time.as_micros());
    let program = Program::start(&environment, nothing(), nothing());
    while !told(&manager).starts_with("READY=1") {}
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    for _ in 0..10 {
        assert_eq!(told(&manager), "WATCHDOG=1");
        longest = longest.max(last.elapsed());
        last = Instant::now();
    }
    assert!(longest < time, "{longest:?} without a word, of {time:?}");
    program.stop();

    // The time is another process's.
    let environment = format!("{notify} WATCHDOG_USEC=20000 WATCHDOG_PID=1");
    let program = Program::start(&environment, nothing(), nothing());
    while !told(&manager).starts_with("READY=1") {}
    manager.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(manager.recv(&mut [0; 99]).is_err(), "it is told what it does not want to know");
    program.stop();
}

#[test]
fn a_manager_that_cannot_be_told_is_a_line_in_the_log() {
    let shell = "export BIND=127.0.0.1:0 NOTIFY_SOCKET=/nonexistent/notify";
    let program = Program::start(shell, nothing(), nothing());
    program.expect_log("systemd was not told state=READY=1: ");
    program.stop();
}
