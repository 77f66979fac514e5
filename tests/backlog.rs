//! More connects than can be accepted at once, and more connections than there are descriptors or threads for.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;
#[path = "hostile/process.rs"]
mod process;

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{DEADLINE, Raw, client_frame, get, status, upgrade_request, wait_until};
use process::ServerProcess;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{Resource, Rlimit, getrlimit, getuid, setrlimit};

/// Begins to connect, without waiting for the server's system to answer.
fn begin_to_connect(server: SocketAddr) -> TcpStream {
    let stream: TcpStream =
        socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .unwrap()
            .into();
    stream.set_nonblocking(true).unwrap();
    match connect(&stream, &server) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => stream,
        Err(error) => panic!("cannot begin to connect: {error}"),
    }
}

/// Waits until the connection is there, or fails.
fn finish_connecting(stream: &TcpStream, deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    let left = Timespec::try_from(left).unwrap();
    let ready = poll(&mut [PollFd::new(stream, PollFlags::OUT)], Some(&left)).unwrap();
    assert_eq!(ready, 1, "a connect was not answered");
    assert!(stream.take_error().unwrap().is_none(), "a connect was refused");
    stream.set_nonblocking(false).unwrap();
}

#[test]
fn a_burst_of_two_thousand_connects_is_accepted_at_once() {
    const COUNT: usize = 2000;
    /// The promise is well under a second; a client whose first packet finds no room tries again after one.
    const BOUND: Duration = Duration::from_secs(3);
    if !process::has_room_for(COUNT) {
        return;
    }
    let server = ServerProcess::start(&[]);
    let idle = server.threads();
    let began = Instant::now();
    let streams: Vec<_> = (0..COUNT).map(|_| begin_to_connect(server.address)).collect();
    for stream in &streams {
        finish_connecting(stream, began + DEADLINE);
    }
    let connected = began.elapsed();
    wait_until("all are accepted", || server.threads() == idle + COUNT);
    let accepted = began.elapsed();
    for mut stream in &streams {
        stream.write_all(get("/hello").as_bytes()).unwrap();
    }
    for stream in streams {
        let (head, body) = Raw::from(stream).response();
        assert_eq!((status(&head), body.as_str()), (200, "hello"));
    }
    let answered = began.elapsed();
    println!(
        "{COUNT} connects: connected {connected:.0?}, accepted {accepted:.0?}, answered {answered:.0?}"
    );
    assert!(accepted < BOUND, "a burst of {COUNT} connects took {accepted:?} to accept");
}

/// More clients than the server can take, whose requests wait to be accepted.
fn crowd(server: SocketAddr, count: usize) -> Vec<Raw> {
    let mut clients: Vec<_> = (0..count).map(|_| Raw::connect(server)).collect();
    for client in &mut clients {
        client.send(upgrade_request("/echo", "").as_bytes());
    }
    clients
}

/// Fails unless the server keeps calm for a second while `clients` go on being served: what it logged and computed.
fn assert_calm(what: &str, server: &ServerProcess, clients: &mut [Raw]) {
    let (lines, time) = (server.log_lines(), server.processor_time());
    let end = Instant::now() + Duration::from_secs(1);
    let mut longest = Duration::ZERO;
    let mut rounds = 0;
    while Instant::now() < end {
        for client in &mut *clients {
            let began = Instant::now();
            client.send_text("still there?");
            assert_eq!(client.text_frame(), "still there?");
            longest = longest.max(began.elapsed());
            rounds += 1;
        }
        // The echoes themselves take little, so that spinning would show.
        thread::sleep(Duration::from_millis(100));
    }
    let (lines, time) = (server.log_lines() - lines, server.processor_time() - time);
    println!(
        "out of {what}: {lines} lines and {time:?} of computing in a second; {rounds} echoes, the longest {longest:.1?}"
    );
    assert!(lines <= 2, "{lines} lines in a second:\n{}", server.log());
    assert!(time < Duration::from_millis(250), "it computed for {time:?} of a second: it spins");
    assert!(longest < Duration::from_secs(1), "a client that was there waited for {longest:?}");
}

/// Fails unless a client that sends more than the systems between hold, and reads its echoes meanwhile, gets all.
fn assert_long_echo(client: &mut Raw) {
    const COUNT: usize = 300;
    let mut writer = client.stream.try_clone().unwrap();
    let sending = thread::spawn(move || {
        let frame = client_frame(0x82, &[7; 64 << 10]);
        (0..COUNT).try_for_each(|_| writer.write_all(&frame))
    });
    for number in 0..COUNT {
        let frame = client.frame();
        assert_eq!((frame.first, frame.payload.len()), (0x82, 64 << 10), "echo {number}");
    }
    sending.join().unwrap().expect("the client could not send");
}

/// Waits until the server has logged that it cannot go on.
fn wait_for_trouble(server: &ServerProcess) {
    wait_until("the trouble is logged", || server.log().contains("cannot take a connection"));
}

#[test]
fn without_descriptors_clients_are_served_and_accepting_goes_on_when_there_are_some() {
    const LIMIT: u64 = 64;
    if !process::has_room_for(LIMIT as usize) {
        return;
    }
    let server = ServerProcess::start(&[]);
    let before = server.limit(Resource::Nofile, LIMIT);
    let mut inside: Vec<_> = (0..30).map(|_| Raw::open(server.address, "/echo")).collect();
    let mut crowd = crowd(server.address, 80);
    wait_for_trouble(&server);
    let full = server.descriptors();
    assert!(full < inside.len() + crowd.len(), "the descriptors have not run out: {full}");
    assert_calm("descriptors", &server, &mut inside);

    // Some leave, and as many get in: the first of the crowd are in already, the next are the first to wait.
    inside.truncate(10);
    let waiting = crowd.split_off(40);
    let mut first = crowd;
    for client in &mut first {
        assert_eq!(status(&client.head()), 101);
    }
    wait_until("the places are taken", || server.descriptors() == full);
    assert_calm("descriptors again", &server, &mut first);
    server.limit(Resource::Nofile, before);
    for mut client in waiting {
        assert_eq!(status(&client.head()), 101);
        client.send_text("at last");
        assert_eq!(client.text_frame(), "at last");
    }
    assert_calm("nothing", &server, &mut inside);
}

/// A user and group without the right to exceed limits, whom nobody else is, and the superuser can become.
fn somebody() -> u32 {
    2_000_000 + std::process::id()
}

fn become_somebody(command: &mut Command) {
    command.uid(somebody()).gid(somebody());
}

/// The server where others can start it too: the checkout may be for its owner alone. Removed when dropped.
struct PublicCopy {
    folder: PathBuf,
    program: PathBuf,
}

impl PublicCopy {
    /// A copy that [`somebody`] can start; `None` when no folder for files that come and go lets them.
    fn new() -> Option<Self> {
        let program = process::program();
        let bytes = fs::read(&program).unwrap_or_else(|error| {
            panic!(
                "cannot read {program:?}: {error}; `cargo build --example hostile-server` makes it"
            )
        });
        let folders = [std::env::temp_dir(), "/tmp".into(), "/var/tmp".into(), "/dev/shm".into()];
        let copies = |folder: &PathBuf| Self::within(folder, &bytes).ok();
        folders.iter().filter_map(copies).find(Self::can_be_started)
    }

    fn within(folder: &Path, program: &[u8]) -> io::Result<Self> {
        let folder = folder.join(format!("rwf-backlog-{}", std::process::id()));
        // It is made by this call or not at all: another's folder is not to be trusted.
        fs::create_dir(&folder)?;
        let copy = Self { program: folder.join("server"), folder };
        fs::write(&copy.program, program)?;
        for path in [&copy.folder, &copy.program] {
            fs::set_permissions(path, Permissions::from_mode(0o755))?;
        }
        Ok(copy)
    }

    /// Without input the server starts and stops.
    fn can_be_started(&self) -> bool {
        let mut attempt = Command::new(&self.program);
        attempt.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        become_somebody(&mut attempt);
        attempt.status().is_ok_and(|status| status.success())
    }
}

impl Drop for PublicCopy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn without_threads_clients_are_served_and_accepting_goes_on_when_there_are_some() {
    const LIMIT: u64 = 40;
    let mut attempt = Command::new("true");
    become_somebody(&mut attempt);
    if !getuid().is_root() || !attempt.status().is_ok_and(|status| status.success()) {
        println!(
            "skipped: the limit counts all threads of a user, and only the superuser can be somebody else"
        );
        return;
    }
    let Some(copy) = PublicCopy::new() else {
        println!(
            "skipped: no folder, the temporary one included, lets another user start a program"
        );
        return;
    };
    let before = getrlimit(Resource::Nproc);
    let server = ServerProcess::start_as(&copy.program, &[], |command| {
        become_somebody(command);
        // The superuser is not limited, so that this limits the server alone.
        let limit = Rlimit { current: Some(LIMIT), maximum: before.maximum };
        setrlimit(Resource::Nproc, limit).unwrap();
    });
    setrlimit(Resource::Nproc, before).unwrap();
    let idle = server.threads();
    let mut inside: Vec<_> =
        (idle..LIMIT as usize).map(|_| Raw::open(server.address, "/echo")).collect();
    // Without a thread a client is refused at once, and the others notice nothing.
    for _ in 0..20 {
        let turned_away = Raw::connect(server.address);
        let _ = (&turned_away.stream).write_all(get("/hello").as_bytes());
        let mut answer = [0; 13];
        match (&turned_away.stream).read_exact(&mut answer) {
            Ok(()) => assert_eq!(&answer, b"HTTP/1.1 503 "),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
    }
    wait_for_trouble(&server);
    assert_calm("threads", &server, &mut inside);
    // Nor is there a thread to wait for a client that takes its time.
    assert_long_echo(&mut inside[0]);
    assert_calm("threads again", &server, &mut inside);

    inside.truncate(20);
    wait_until("there are threads again", || server.threads() == idle + 20);
    inside.extend((0..10).map(|_| Raw::open(server.address, "/echo")));
    assert_calm("nothing", &server, &mut inside);
}
