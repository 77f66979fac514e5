//! A logger that waits for whoever stops the server. Alone in its process, because a process has one logger.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "cluster/redis.rs"]
mod redis;

use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use redis::{Redis, is_installed};
use rwf::http::Server;
use rwf::prelude::*;

const DEADLINE: Duration = Duration::from_secs(30);

/// What the thread that stops the server holds, and the logger wants.
static HELD: Mutex<()> = Mutex::new(());
/// Tells that the thread which talks of watches is in the logger.
static ENTERED: Mutex<Option<mpsc::Sender<()>>> = Mutex::new(None);

struct Waiting;

impl log::Log for Waiting {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _: &log::Record<'_>) {
        if thread::current().name() == Some("rwf-presence") {
            if let Some(entered) = ENTERED.lock().unwrap().take() {
                let _ = entered.send(());
            }
            let _held = HELD.lock();
        }
    }

    fn flush(&self) {}
}

#[test]
fn a_shutdown_ends_though_the_logger_of_another_thread_waits_for_it() {
    if !is_installed() {
        return;
    }
    log::set_logger(&Waiting).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let redis = Redis::start();
    let (entered, has_entered) = mpsc::channel();
    *ENTERED.lock().unwrap() = Some(entered);
    let (ended, has_ended) = mpsc::channel();
    // Nothing that is said of watches may cross, which the log tells.
    let cluster = Cluster::redis(redis.url()).max_message_size(1);
    let server = Server::new(vec![]).bind("127.0.0.1:0").cluster(cluster).spawn().unwrap();
    thread::spawn(move || {
        let held = HELD.lock().unwrap();
        let watch = Comms::notify().presence().unwrap();
        has_entered.recv_timeout(DEADLINE).expect("the log was told nothing");
        let began = Instant::now();
        server.shutdown().unwrap();
        let _ = ended.send(began.elapsed());
        drop((held, watch));
    });
    let took = has_ended.recv_timeout(DEADLINE).expect("the shutdown does not end");
    assert!(took < DEADLINE / 2, "the shutdown took {took:?}");
}
