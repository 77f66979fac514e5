//! A Redis of a test's own, on a port of its own, and what is done to it.
#![allow(dead_code, reason = "each program uses its part")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(unreachable_pub, reason = "it is a module of each program")]

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

const DEADLINE: Duration = Duration::from_secs(20);

/// Whether there is a `redis-server` to test with. Where there is none it says so, and in CI there has to be one.
pub fn is_installed() -> bool {
    let found = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
    let is_found = found.is_ok_and(|status| status.success());
    if !is_found {
        assert!(env::var_os("CI").is_none(), "`redis-server` is not installed, and CI needs it");
        println!("skipped: `redis-server` is not installed (Debian: apt-get install redis-server)");
    }
    is_found
}

/// A Redis in a process of its own; dropping it ends it.
#[derive(Debug)]
pub struct Redis {
    pub address: SocketAddr,
    arguments: Vec<String>,
    child: Child,
}

impl Redis {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further arguments: settings, as in its file, with `--`.
    pub fn start_with(arguments: &[&str]) -> Self {
        let arguments: Vec<_> = arguments.iter().map(ToString::to_string).collect();
        Self::start_where(|| (arguments.clone(), ())).0
    }

    /// With arguments that are made anew for each try, as further ports are, and what goes with them.
    pub fn start_where<T>(make: impl Fn() -> (Vec<String>, T)) -> (Self, T) {
        // A port that is free now may be taken by then.
        for _ in 0..10 {
            let (address, (arguments, made)) = (free_address(), make());
            if let Some(child) = spawn(address, &arguments) {
                return (Self { address, arguments, child }, made);
            }
        }
        panic!("no redis-server starts on any of ten free ports");
    }

    pub fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again where it was.
    pub fn start_again(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(child) = spawn(self.address, &self.arguments) {
                self.child = child;
                return;
            }
            assert!(Instant::now() < deadline, "redis-server does not start again");
        }
    }

    /// SIGSTOP: it holds its connections, and says nothing.
    pub fn pause(&self) {
        pause(&self.child);
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        go_on(&self.child);
    }

    /// Gives a command, in words; the first line of the answer.
    #[track_caller]
    pub fn ask(&self, command: &str) -> String {
        ask(self.address, command).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// Gives a command, in words; the whole answer.
    #[track_caller]
    pub fn ask_all(&self, command: &str) -> String {
        let mut stream = connect(self.address).unwrap();
        write!(stream, "{command}\r\nQUIT\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap_or_else(|error| panic!("{command}: {error}"));
        answer.strip_suffix("+OK\r\n").unwrap_or(&answer).to_owned()
    }

    /// How many subscribers a channel has.
    pub fn subscribers(&self, channel: &str) -> usize {
        let mut stream = connect(self.address).unwrap();
        write!(stream, "PUBSUB NUMSUB {channel}\r\nQUIT\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let count = answer.lines().find_map(|line| line.strip_prefix(':'));
        count.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{answer:?}"))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Stops a process, and waits until it does nothing more.
pub fn pause(child: &Child) {
    let process = Pid::from_child(child);
    kill_process(process, Signal::STOP).unwrap();
    waitpid(Some(process), WaitOptions::UNTRACED).unwrap();
}

pub fn go_on(child: &Child) {
    kill_process(Pid::from_child(child), Signal::CONT).unwrap();
}

pub fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    Ok(stream)
}

fn ask(address: SocketAddr, command: &str) -> std::io::Result<String> {
    let mut stream = connect(address)?;
    write!(stream, "{command}\r\n")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

/// A Redis that answers, unless it has ended.
fn spawn(address: SocketAddr, arguments: &[String]) -> Option<Child> {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string()]);
    command.args(["--save", "", "--appendonly", "no", "--daemonize", "no"]).args(arguments);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + DEADLINE;
    while child.try_wait().unwrap().is_none() {
        // One that wants a password answers too.
        if ask(address, "PING").is_ok_and(|answer| answer.starts_with(['+', '-'])) {
            return Some(child);
        }
        assert!(Instant::now() < deadline, "redis-server does not answer");
        thread::sleep(Duration::from_millis(5));
    }
    None
}

/// Stands before a Redis: delays what it says and is said, and cuts it.
#[derive(Debug)]
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    to: SocketAddr,
    delay: AtomicU64,
    streams: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    pub fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { to, delay: AtomicU64::new(0), streams: Mutex::default() };
        let state = Arc::new(state);
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(shared.to) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || shared.copy(&from, &to));
                }
                shared.streams.lock().extend([client, server]);
            }
        });
        Self { address, state }
    }

    pub fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }

    /// How long each piece takes from now on.
    pub fn delay(&self, time: Duration) {
        let time = u64::try_from(time.as_millis()).unwrap();
        self.state.delay.store(time, Ordering::Relaxed);
    }

    /// Says something that the Redis did not say.
    pub fn say(&self, bytes: &[u8]) {
        for mut client in self.state.streams.lock().iter().step_by(2) {
            // It may end the connection before it has all.
            let _ = client.write_all(bytes);
        }
    }

    /// Ends all connections.
    pub fn cut(&self) {
        for stream in self.state.streams.lock().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl State {
    fn copy(&self, mut from: &TcpStream, mut to: &TcpStream) {
        let mut buffer = [0; 16 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            thread::sleep(Duration::from_millis(self.delay.load(Ordering::Relaxed)));
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        for stream in [from, to] {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
