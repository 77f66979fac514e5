//! Starts everybody, watches the server, and judges.
#![allow(clippy::unwrap_used, reason = "a panic ends the run with its message")]

use std::env;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use crate::process::{Cost, ServerProcess};
use crate::traffic::{ABUSE, HONEST, Traffic};

/// So short that what they end is ended many times in a run.
const SETTINGS: [&str; 6] = [
    "open_timeout=1500",
    "write_timeout=1500",
    "close_timeout=1000",
    "ping_interval=2000",
    "ping_timeout=2000",
    "max_message_size=262144",
];

/// How long after the last client everything has to be gone.
const PATIENCE: Duration = Duration::from_secs(20);

const MIB: f64 = (1 << 20) as f64;

pub(crate) fn main() -> ExitCode {
    let seconds = env::args().nth(1).map_or(60, |seconds| seconds.parse().expect("seconds"));
    let mut server = ServerProcess::start(&SETTINGS);
    server.ask("watch");
    let idle = server.cost();
    println!("idle: {idle:?}");
    let traffic = Traffic::new(server.address, Duration::from_secs(seconds));
    let mut faults = Vec::new();
    let samples = thread::scope(|scope| {
        let mut threads = Vec::new();
        for (name, count, client) in HONEST.iter().chain(ABUSE) {
            for number in 0..*count {
                let traffic = &traffic;
                let run = move || client(traffic, number as u64);
                let thread = thread::Builder::new().name((*name).to_owned());
                threads.push((name, thread.spawn_scoped(scope, run).unwrap()));
            }
        }
        let samples = watch(&mut server, &traffic, &mut faults);
        for (name, thread) in threads {
            if thread.join().is_err() {
                faults.push(format!("{name}: a client failed, see above"));
            }
        }
        samples
    });
    faults.extend(judge_costs(&server, idle, &samples));
    match server.ask("present").as_str() {
        "0" => {}
        present => faults.push(format!("all clients are gone, and present is {present}")),
    }
    let stats = server.ask("stats");
    if !stats.starts_with("connections=0 websockets=0 waiting=0 writers=0 ") {
        faults.push(format!("all clients are gone, and what is counted is {stats}"));
    }
    if server.log().contains("panicked") {
        faults.push(format!("the server panicked:\n{}", server.log()));
    }
    traffic.print();
    println!("{} lines of errors in the server's log", server.log_lines());
    for fault in &faults {
        eprintln!("FAULT: {fault}");
    }
    println!("{}", if faults.is_empty() { "everything held" } else { "it did not hold" });
    if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the server costs, each second; and two messages to everybody, a look at what is counted, and an end to those who
/// wait for one.
fn watch(server: &mut ServerProcess, traffic: &Traffic, faults: &mut Vec<String>) -> Vec<Cost> {
    let (mut samples, mut kicked) = (Vec::new(), 0);
    let mut next = Instant::now();
    while !traffic.is_over() {
        next += Duration::from_secs(1);
        server.ask("notify 2 200");
        kicked += server.ask("kick /sink").parse::<usize>().unwrap();
        let stats = server.ask("stats");
        if !stats.starts_with("connections=") {
            faults.push(format!("what is counted does not go on from what was: {stats}"));
        }
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let cost = server.cost();
        samples.push(cost);
        let Cost { memory, threads, descriptors } = cost;
        let memory = memory as f64 / MIB;
        println!(
            "{:4} s: {memory:6.1} MiB, {threads} threads, {descriptors} descriptors",
            samples.len()
        );
    }
    if kicked == 0 {
        faults.push("there was nobody to kick".to_owned());
    }
    samples
}

/// Memory has to stay below what it was in the first third by this much more: a tenth, for chance, and a fixed part for
/// the allocator's pools, which are filled once and kept.
fn bound(first: f64) -> f64 {
    first * 1.1 + 6.0
}

fn judge_costs(server: &ServerProcess, idle: Cost, samples: &[Cost]) -> Vec<String> {
    let mut faults = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    let is_back = |now: Cost| (now.threads, now.descriptors) == (idle.threads, idle.descriptors);
    while !is_back(server.cost()) && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    let end = server.cost();
    if !is_back(end) {
        faults.push(format!("all clients are gone, and it costs {end:?}; idle it was {idle:?}"));
    }
    let third = (samples.len() / 3).max(1);
    let (first, last) = (median(&samples[..third]), median(&samples[samples.len() - third..]));
    let end = end.memory as f64 / MIB;
    println!(
        "memory: {first:.1} MiB in the first third, {last:.1} in the last, {end:.1} at the end"
    );
    for (when, memory) in [("in the last third", last), ("at the end", end)] {
        if memory > bound(first) {
            faults.push(format!(
                "memory grew from {first:.1} MiB to {memory:.1} {when}, over {:.1}",
                bound(first)
            ));
        }
    }
    faults
}

fn median(samples: &[Cost]) -> f64 {
    let mut memory: Vec<_> = samples.iter().map(|cost| cost.memory).collect();
    memory.sort_unstable();
    memory[memory.len() / 2] as f64 / MIB
}
