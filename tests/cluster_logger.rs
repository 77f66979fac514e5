//! A logger that starts and ends servers when it is told that the process has joined or left its cluster.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[path = "cluster/redis.rs"]
mod redis;

use std::sync::OnceLock;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use redis::{Redis, is_installed};
use rwf::cluster::Cluster;
use rwf::http::{Server, ServerHandle};

static CLUSTER: OnceLock<Cluster> = OnceLock::new();
/// What it was told, and the server that it has started then.
static TOLD: Mutex<Vec<(String, Option<ServerHandle>)>> = Mutex::new(Vec::new());

fn serve() -> ServerHandle {
    let cluster = CLUSTER.get().unwrap().clone();
    Server::new(vec![]).bind("127.0.0.1:0").cluster(cluster).spawn().unwrap()
}

struct Starting;

impl log::Log for Starting {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let line = record.args().to_string();
        let is_first =
            |what| line.contains(what) && !TOLD.lock().iter().any(|(told, _)| told.contains(what));
        if is_first("has joined the cluster") || is_first("has left the cluster") {
            TOLD.lock().push((line, None));
            let server = serve();
            TOLD.lock().last_mut().unwrap().1 = Some(server);
        }
    }

    fn flush(&self) {}
}

#[test]
fn a_logger_may_start_servers_of_the_cluster_that_was_joined_or_left() {
    if !is_installed() {
        return;
    }
    let redis = Redis::start();
    let cluster = CLUSTER.get_or_init(|| Cluster::redis(redis.url()));
    log::set_logger(&Starting).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let (done, is_done) = channel();
    thread::spawn(move || {
        let server = serve();
        server.shutdown().unwrap();
        let second = TOLD.lock().last_mut().unwrap().1.take().expect("it was told of the first");
        assert!(cluster.status().is_connected, "the second one is in it still");
        second.shutdown().unwrap();
        let third = TOLD.lock().last_mut().unwrap().1.take().expect("it was told of the end");
        assert!(cluster.status().is_connected, "the third one is in it again");
        third.shutdown().unwrap();
        assert!(!cluster.status().is_connected);
        done.send(()).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(20)).expect("nobody waits for the logger's server");
}
