//! `node.rs` as a process: what it is told, and what it says.
#![allow(dead_code, reason = "each program uses its part")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(unreachable_pub, reason = "it is a module of each program")]

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::common::Raw;
use crate::redis;

const DEADLINE: Duration = Duration::from_secs(60);

/// Settings by which Redis is found to be away, and back, in a time that a test has.
pub const QUICK: [&str; 4] =
    ["probe_interval=200", "probe_timeout=1500", "connect_timeout=1000", "max_reconnect_delay=200"];

/// A client that has joined a topic.
pub fn join(node: &Node, user: &str, topic: &str) -> Raw {
    let (mut client, _) = node.connect(user);
    client.send_text(&format!("join {topic}"));
    assert_eq!(client.text_frame(), format!("joined {topic}"));
    client
}

/// A node in a process of its own; dropping it ends it.
#[derive(Debug)]
pub struct Node {
    pub address: SocketAddr,
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<String>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Node {
    #[track_caller]
    pub fn start(url: &str, settings: &[&str]) -> Self {
        Self::try_start(url, settings).unwrap_or_else(|log| panic!("no node starts: {log}"))
    }

    /// A node, or what it says when it does not start.
    pub fn try_start(url: &str, settings: &[&str]) -> Result<Self, String> {
        let mut command = Command::new(program());
        command.env_remove("RUST_LOG").arg(url).args(settings);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("cannot start a node: {error}; `cargo build --example cluster-node` makes it")
        });
        let (sender, output) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let kept = Arc::clone(&log);
        let logging = thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| kept.lock().push(line))
        });
        let Ok(address) = output.recv_timeout(DEADLINE) else {
            let _ = child.kill();
            let _ = child.wait();
            logging.join().unwrap();
            return Err(log.lock().join("\n"));
        };
        let input = child.stdin.take();
        Ok(Self { address: address.parse().unwrap(), child, input, output, log })
    }

    /// Gives a command and waits for the answer.
    #[track_caller]
    pub fn ask(&mut self, command: &str) -> String {
        writeln!(self.input.as_mut().unwrap(), "{command}").unwrap();
        self.output.recv_timeout(DEADLINE).unwrap_or_else(|error| {
            panic!("the node does not answer {command:?}: {error}; its log: {:#?}", self.log.lock())
        })
    }

    /// A client of a user, which has been told that it is connected, and its id.
    #[track_caller]
    pub fn connect(&self, user: &str) -> (Raw, String) {
        let mut client = Raw::open(self.address, &format!("/{user}"));
        let id = client.text_frame();
        (client, id.strip_prefix("id ").expect(&id).to_owned())
    }

    /// A value of the node's status.
    #[track_caller]
    pub fn status(&mut self, name: &str) -> String {
        let status = self.ask("status");
        let (_, rest) = status.split_once(&format!(" {name}: ")).expect(&status);
        rest.split([',', ' ', '}']).next().unwrap_or_default().to_owned()
    }

    #[track_caller]
    pub fn count(&mut self, name: &str) -> u64 {
        self.status(name).parse().unwrap()
    }

    #[track_caller]
    pub fn wait_until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition(self) {
            let status = (Instant::now() >= deadline).then(|| self.ask("status"));
            if let Some(status) = status {
                panic!("waited in vain until {what}: {status}; log: {}", self.log());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[track_caller]
    pub fn wait_until_connected(&mut self, is_connected: bool) {
        let what = format!("is_connected is {is_connected}");
        self.wait_until(&what, |node| node.status("is_connected") == is_connected.to_string());
    }

    /// Its resident memory, in bytes. Linux alone tells.
    pub fn memory(&self) -> usize {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.log.lock().join("\n")
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGSTOP.
    pub fn pause(&self) {
        redis::pause(&self.child);
    }

    /// SIGCONT.
    pub fn go_on(&self) {
        redis::go_on(&self.child);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Beside the program that runs this.
fn program() -> PathBuf {
    let own = env::current_exe().unwrap();
    let folder = own.parent().unwrap();
    // A test is in `deps`, an example is not.
    let folder = if folder.ends_with("deps") {
        folder.parent().unwrap().join("examples")
    } else {
        folder.into()
    };
    folder.join("cluster-node")
}
