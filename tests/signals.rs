//! SIGINT and SIGTERM before, while and after servers run, sent to a program of its own: `tests/signals/program.rs`.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use common::tls::{HOST, IDENTITY, Identity, TlsWire};
use common::{DEADLINE, Folder, Raw, wait_until};
use rustix::process::{Pid, Signal, kill_process};

/// The program; dropping it ends it.
struct Program {
    child: Child,
    output: Receiver<String>,
    log: Receiver<String>,
}

impl Program {
    fn start() -> Self {
        Self::start_after("")
    }

    /// Starts it from a shell that has done this.
    fn start_after(shell: &str) -> Self {
        common::have_default_signals();
        let own = std::env::current_exe().unwrap();
        let program = own.ancestors().nth(2).unwrap().join("examples/signals-program");
        assert!(program.exists(), "`cargo build --example signals-program` makes {program:?}");
        let mut child = Command::new("sh")
            .args(["-c", &format!("{shell}\nexec \"$0\"")])
            .arg(program)
            .env("RUST_LOG", "rwf=debug")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let output = lines(child.stdout.take().unwrap());
        let log = lines(child.stderr.take().unwrap());
        let mut program = Self { child, output, log };
        program.ask("echo", "echo");
        program
    }

    fn ask(&mut self, command: &str, answer: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{command}").unwrap();
        assert_eq!(self.line(), answer, "the answer to {command:?}");
    }

    /// Has it call `run()`, and opens a WebSocket to that once it waits for signals.
    fn run(&mut self) -> Raw {
        writeln!(self.child.stdin.as_mut().unwrap(), "run").unwrap();
        let line = self.line();
        let address = line.strip_prefix("address=").unwrap_or_else(|| panic!("{line:?}"));
        self.expect_log("shut it down from now on");
        Raw::open(address.parse().unwrap(), "/")
    }

    fn line(&self) -> String {
        self.output.recv_timeout(DEADLINE).expect("the program says nothing")
    }

    fn expect_log(&self, text: &str) {
        while !self
            .log
            .recv_timeout(DEADLINE)
            .unwrap_or_else(|_| panic!("no {text:?}"))
            .contains(text)
        {}
    }

    fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What ended it: a signal, which it has been sent.
    fn expect_end_by(&mut self, signal: Signal) {
        let mut status = None;
        wait_until("the program ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let status = status.unwrap();
        assert_eq!(status.signal(), Some(signal.as_raw()), "{status}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    let from = BufReader::new(from).lines();
    thread::spawn(move || from.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    lines
}

fn expect_shutdown(mut client: Raw) {
    assert_eq!(client.close_frame().0, 1001);
    client.send_close(1001, "");
    client.expect_end();
}

#[test]
fn a_failed_start_leaves_the_programs_handler_alone() {
    let mut program = Program::start();
    program.ask("handle", "handles");
    program.ask("fail", "failed");
    for _ in 0..2 {
        program.send(Signal::TERM);
        assert_eq!(program.line(), "own SIGTERM");
    }
    program.ask("echo", "echo");
}

#[test]
fn after_a_failed_start_signals_end_the_process_as_before() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut program = Program::start();
        program.ask("fail", "failed");
        program.send(signal);
        program.expect_end_by(signal);
    }
}

#[test]
fn a_failed_start_beside_a_running_server_leaves_it_its_signals() {
    let mut program = Program::start();
    let client = program.run();
    program.ask("fail", "failed");
    program.send(Signal::TERM);
    expect_shutdown(client);
    assert_eq!(program.line(), "ended");
    program.ask("echo", "echo");
}

#[test]
fn one_signal_shuts_all_running_servers_down() {
    let mut program = Program::start();
    let clients = [program.run(), program.run(), program.run()];
    program.send(Signal::INT);
    clients.into_iter().for_each(expect_shutdown);
    for _ in 0..3 {
        assert_eq!(program.line(), "ended");
    }
    program.ask("echo", "echo");
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    for own in [false, true] {
        let mut program = Program::start();
        if own {
            program.ask("handle", "handles");
        }
        let mut clients = [program.run(), program.run()];
        program.send(Signal::TERM);
        // They do not answer, which the servers wait for.
        clients.iter_mut().for_each(|client| assert_eq!(client.close_frame().0, 1001));
        program.send(Signal::TERM);
        program.expect_end_by(Signal::TERM);
    }
}

#[test]
fn after_the_end_of_a_run_signals_end_the_process_as_before() {
    let mut program = Program::start();
    // A server that starts after the end of another has its signals too.
    for _ in 0..2 {
        let client = program.run();
        program.send(Signal::TERM);
        expect_shutdown(client);
        assert_eq!(program.line(), "ended");
    }
    program.send(Signal::INT);
    program.expect_end_by(Signal::INT);
}

#[test]
fn the_programs_handler_goes_on_after_the_end_of_a_run() {
    let mut program = Program::start();
    program.ask("handle", "handles");
    let client = program.run();
    program.send(Signal::TERM);
    expect_shutdown(client);
    let mut said = [program.line(), program.line()];
    said.sort();
    assert_eq!(said, ["ended", "own SIGTERM"]);
    for _ in 0..2 {
        program.send(Signal::TERM);
        assert_eq!(program.line(), "own SIGTERM");
    }
    program.ask("echo", "echo");
    // It has none for this one.
    program.send(Signal::INT);
    program.expect_end_by(Signal::INT);
}

#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    let mut program = Program::start_after("trap '' INT");
    for _ in 0..2 {
        let client = program.run();
        program.send(Signal::INT);
        program.send(Signal::INT);
        program.send(Signal::TERM);
        expect_shutdown(client);
        program.expect_log("shutting down signal=SIGTERM");
        assert_eq!(program.line(), "ended");
        program.send(Signal::INT);
        program.ask("echo", "echo");
    }
    program.send(Signal::TERM);
    program.expect_end_by(Signal::TERM);
}

#[test]
fn sighup_has_certificates_read_again_and_ends_the_process_when_no_server_has_any() {
    let folder = Folder::new();
    let certificate = folder.write("cert.pem", &IDENTITY.certificate_pem);
    let key = folder.write("key.pem", &IDENTITY.key_pem);
    let mut program = Program::start();
    let command = format!("tls {} {}", certificate.display(), key.display());
    writeln!(program.child.stdin.as_mut().unwrap(), "{command}").unwrap();
    let line = program.line();
    let address = line.strip_prefix("address=").unwrap_or_else(|| panic!("{line:?}"));
    let address = address.parse().unwrap();
    program.expect_log("shut it down from now on");
    let is_believed = |identity: &Identity| {
        let wire = TlsWire::connect_with(address, Arc::new(identity.client()), HOST).unwrap();
        wire.shake_hands().is_ok()
    };
    assert!(is_believed(&IDENTITY));
    let renewed = Identity::new(&[HOST]);
    folder.write("key.pem", &renewed.key_pem);
    program.send(Signal::HUP);
    program.expect_log("certificates stay as they were");
    assert!(is_believed(&IDENTITY), "the old certificate is not kept");
    folder.write("cert.pem", &renewed.certificate_pem);
    program.send(Signal::HUP);
    program.expect_log("certificates were read again");
    assert!(is_believed(&renewed) && !is_believed(&IDENTITY));

    // A file that is never there to be read keeps nobody from stopping.
    std::fs::remove_file(&key).unwrap();
    assert!(Command::new("mkfifo").arg(&key).status().unwrap().success());
    program.send(Signal::HUP);
    program.send(Signal::HUP);
    program.send(Signal::TERM);
    assert_eq!(program.line(), "ended");
    program.send(Signal::HUP);
    program.expect_end_by(Signal::HUP);
}
