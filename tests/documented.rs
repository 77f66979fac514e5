//! The documented program, as a user has it: a package that depends on rwf alone, with the two documented files put
//! together as its `main.rs`, run on the port that it names.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::{Raw, get, status, wait_until};
use rwf::prelude::SessionId;

/// Verbatim, like all of this folder: formatting it would make it something else than what is documented.
const CONTROLLER: &str = include_str!("documented/echo.rs");
const SERVER: &str = include_str!("documented/server.rs");

/// Where the documented program listens.
const ADDRESS: &str = "127.0.0.1:8000";

/// How long another program may keep the documented port before the program is not run: other tests give it back.
const PORT_DEADLINE: Duration = Duration::from_secs(60);

/// Builds a package that depends on rwf alone, with `text` as its `main.rs`: the executable, and what cargo said.
fn build(name: &str, text: &str) -> (PathBuf, String) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let package = target.join(name);
    let manifest = format!(
        "[package]\nname = {name:?}\nedition = \"2024\"\n\n[dependencies]\nrwf = {{ path = {repository:?} }}\n\n\
        [workspace]\n"
    );
    fs::create_dir_all(package.join("src")).unwrap();
    for (file, text) in [("Cargo.toml", manifest.as_str()), ("src/main.rs", text)] {
        // An unchanged file is left alone, so that nothing is built again.
        if fs::read_to_string(package.join(file)).ok().as_deref() != Some(text) {
            fs::write(package.join(file), text).unwrap();
        }
    }
    // The versions that the tests run with, so that nothing is looked up and most is built already.
    let (ours, its) = (repository.join("Cargo.lock"), package.join("Cargo.lock"));
    let changed = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    if changed(&its) < changed(&ours) {
        fs::copy(ours, its).unwrap();
    }
    let output = Command::new(env!("CARGO"))
        .args(["build", "--offline", "--message-format=json-render-diagnostics", "--manifest-path"])
        .arg(package.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target.parent().unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "the documented program does not compile:\n{said}");
    let messages = String::from_utf8(output.stdout).unwrap();
    let executable = messages.split_once("\"executable\":\"").unwrap().1.split('"').next().unwrap();
    (PathBuf::from(executable), said)
}

/// The documented program while it runs.
struct Program {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    /// Fills the log until the program has ended.
    reader: Option<JoinHandle<()>>,
}

impl Program {
    /// Starts it as soon as its port is free; `None` when another program keeps that.
    fn start(executable: &Path) -> Option<Self> {
        let deadline = Instant::now() + PORT_DEADLINE;
        loop {
            let mut program = Self::spawn(executable);
            wait_until("the program listens or ends", || {
                program.has_logged("listening on") || program.has_ended().is_some()
            });
            if program.has_ended().is_none() {
                return Some(program);
            }
            let log = program.log();
            assert!(log.contains(&format!("cannot listen on {ADDRESS}: another program")), "{log}");
            if Instant::now() >= deadline {
                return None;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn spawn(executable: &Path) -> Self {
        common::have_default_signals();
        let mut child = Command::new(executable)
            .env_remove("RUST_LOG")
            .env_remove("RUST_LOG_STYLE")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let reader = thread::spawn({
            let log = Arc::clone(&log);
            move || lines.map_while(Result::ok).for_each(|line| log.lock().unwrap().push(line))
        });
        Self { child, log, reader: Some(reader) }
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    fn has_logged(&self, text: &str) -> bool {
        self.log.lock().unwrap().iter().any(|line| line.contains(text))
    }

    /// Waits for a line at level `info` that contains all of `parts`.
    fn expect_line(&self, parts: &[&str]) {
        let is_it =
            |line: &String| line.contains(" INFO ") && parts.iter().all(|part| line.contains(part));
        let deadline = Instant::now() + common::DEADLINE;
        while !self.log.lock().unwrap().iter().any(is_it) {
            assert!(
                Instant::now() < deadline,
                "no line with {parts:?} in the log:\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn send_signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
    }

    /// Its status once it has ended; then the log is whole.
    fn has_ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().unwrap()?;
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        Some(status)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_documented_program_runs_as_written() {
    // Both files bring the prelude, which in one file is once too often.
    let program = format!("{CONTROLLER}\n#[allow(unused_imports)]\n{SERVER}");
    let (executable, said) = build("documented-program", &program);
    assert!(!said.contains("warning"), "the documented program compiles with a warning:\n{said}");

    let address: SocketAddr = ADDRESS.parse().unwrap();
    for signal in ["INT", "TERM"] {
        let Some(mut program) = Program::start(&executable) else {
            println!(
                "skipped: it compiles, but another program has {ADDRESS}, where it has to listen, for \
                 {PORT_DEADLINE:?} already"
            );
            return;
        };
        program.expect_line(&["listening on http://127.0.0.1:8000"]);

        let mut client = Raw::connect(address);
        assert_eq!(status(&client.ask(&get("/")).0), 404);
        client.send(common::upgrade_request("/websocket", "").as_bytes());
        let head = client.head();
        assert_eq!(status(&head), 101, "{head}");
        let secret = common::new_secret(&head).unwrap();
        let session = SessionId::from_cookie(secret).unwrap();
        let peer = format!("peer={}", client.stream.local_addr().unwrap());
        program.expect_line(&[&format!("Client {session} connected to the echo server")]);
        let session = format!("session={session}");
        program.expect_line(&[
            "websocket connected",
            &session,
            "path=/websocket",
            "controller=Echo",
            &peer,
        ]);
        for text in ["hey there", "", "grüße"] {
            client.send_text(text);
            assert_eq!(client.text_frame(), text);
        }
        client.send_close(1000, "bye");
        assert_eq!(client.close_frame(), (1000, "bye".to_owned()));
        client.expect_end();
        drop(client);
        program.expect_line(&[
            "websocket closed",
            &session,
            "code=1000",
            "\"bye\"",
            "by=client",
            "in=3 out=3",
        ]);

        let mut clients = [(); 3].map(|()| Raw::open(address, "/websocket"));
        program.send_signal(signal);
        for client in &mut clients {
            assert_eq!(client.close_frame().0, 1001, "SIG{signal}");
            client.send_close(1001, "");
            client.expect_end();
        }
        drop(clients);
        wait_until("the program ends", || program.has_ended().is_some());
        let status = program.has_ended().unwrap();
        assert_eq!(status.code(), Some(0), "SIG{signal}: {status}:\n{}", program.log());
        program.expect_line(&[&format!("shutting down signal=SIG{signal}")]);
        program.expect_line(&["websocket closed", "code=1001", "by=server"]);
        program.expect_line(&["stopped listening address=127.0.0.1:8000 closed=3 cut=0"]);
    }
}
