//! `server.rs` as a process: what it is told, and what it costs. Linux only.
#![allow(dead_code, reason = "each program uses its part")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(unreachable_pub, reason = "it is a module of each program")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, getuid, prlimit, setrlimit};

/// Nothing that the server is told takes so long.
const DEADLINE: Duration = Duration::from_secs(60);

/// The server in a process of its own; dropping it ends it.
#[derive(Debug)]
pub struct ServerProcess {
    pub address: SocketAddr,
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<String>,
    log: Arc<Mutex<Vec<String>>>,
}

/// Threads and descriptors for what runs beside a test.
const BESIDE: u64 = 1000;

/// Whether this user may have the threads and descriptors for so many connections at once; where not, it says so.
pub fn has_room_for(connections: usize) -> bool {
    let needed = connections as u64 + BESIDE;
    let has_room = |what: &str, most: Option<u64>| match most {
        Some(most) if most < needed => {
            println!("skipped: it takes {needed} {what}, and this user may have {most}");
            false
        }
        _ => true,
    };
    // The superuser may have any number of threads.
    (getuid().is_root() || has_room("threads", getrlimit(Resource::Nproc).current))
        && has_room("descriptors", getrlimit(Resource::Nofile).maximum)
}

/// What a process costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Resident memory, in bytes.
    pub memory: usize,
    pub threads: usize,
    pub descriptors: usize,
}

impl ServerProcess {
    /// Starts the server with these settings.
    pub fn start(settings: &[&str]) -> Self {
        Self::start_as(&program(), settings, |_| {})
    }

    /// Starts `program`, which is a copy of it, after a change of the command.
    pub fn start_as(program: &Path, settings: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(program);
        // Its lines are counted, and they are to be those of errors, whatever this shell wants to see.
        command.env_remove("RUST_LOG");
        command.args(settings).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        change(&mut command);
        // It may open as many descriptors as this process may, which are more than shells give.
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        let _ = setrlimit(Resource::Nofile, limit);
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!(
                "cannot start {program:?}: {error}; `cargo build --example hostile-server` makes it"
            )
        });
        let (sender, output) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let kept = Arc::clone(&log);
        thread::spawn(move || lines.map_while(Result::ok).for_each(|line| kept.lock().push(line)));
        let address = ([127, 0, 0, 1], 0).into();
        let input = child.stdin.take();
        let mut process = Self { address, child, input, output, log };
        process.address = process.answer().parse().unwrap();
        process
    }

    /// Gives a command and waits for the answer.
    pub fn ask(&mut self, command: &str) -> String {
        writeln!(self.input.as_mut().unwrap(), "{command}").unwrap();
        self.answer()
    }

    fn answer(&self) -> String {
        self.output.recv_timeout(DEADLINE).unwrap_or_else(|error| {
            panic!("the server does not answer: {error}; its log: {:#?}", self.log.lock())
        })
    }

    /// How many lines it has logged.
    pub fn log_lines(&self) -> usize {
        self.log.lock().len()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.log.lock().join("\n")
    }

    /// What it costs now.
    pub fn cost(&self) -> Cost {
        Cost { memory: self.memory(), threads: self.threads(), descriptors: self.descriptors() }
    }

    /// Its resident memory in bytes, counted page by page: the short figure of `status` may be late.
    pub fn memory(&self) -> usize {
        memory_of(self.child.id())
    }

    /// The result of `act`, and the most memory that the server took meanwhile.
    pub fn watched<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> (T, usize) {
        let id = self.child.id();
        let (running, has_ended) = channel::<()>();
        let watching = thread::spawn(move || {
            let mut highest = memory_of(id);
            while has_ended.recv_timeout(Duration::from_millis(10))
                == Err(RecvTimeoutError::Timeout)
            {
                highest = highest.max(memory_of(id));
            }
            highest
        });
        let result = act(self);
        drop(running);
        (result, watching.join().unwrap())
    }

    /// The addresses that it has reserved, in bytes.
    pub fn address_space(&self) -> usize {
        let text = fs::read_to_string(self.proc("status")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
    }

    pub fn threads(&self) -> usize {
        fs::read_dir(self.proc("task")).unwrap().count()
    }

    pub fn descriptors(&self) -> usize {
        fs::read_dir(self.proc("fd")).unwrap().count()
    }

    /// Processor time that it has used.
    pub fn processor_time(&self) -> Duration {
        let text = fs::read_to_string(self.proc("stat")).unwrap();
        // The name in parentheses may hold anything; user and system time are fields 14 and 15, in hundredths.
        let fields: Vec<_> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(10 * ticks)
    }

    /// Changes one of its limits; what it was before.
    pub fn limit(&self, resource: Resource, current: u64) -> u64 {
        let limit = Rlimit { current: Some(current), maximum: getrlimit(resource).maximum };
        let before = prlimit(Some(Pid::from_child(&self.child)), resource, limit).unwrap();
        before.current.unwrap_or(u64::MAX)
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.child.id()))
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        drop(self.input.take());
        let deadline = Instant::now() + DEADLINE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                eprintln!("the server did not end by itself; its log: {:#?}", self.log.lock());
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
        if thread::panicking() {
            eprintln!("the server's log: {:#?}", self.log.lock());
        }
    }
}

fn memory_of(process: u32) -> usize {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
}

/// Beside this program, or one folder up from the tests.
pub fn program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let folder = own.parent().unwrap();
    let name = "hostile-server";
    let beside = folder.join(name);
    if beside.exists() { beside } else { folder.parent().unwrap().join("examples").join(name) }
}
