//! The servers of the process: those that run, and what those have counted that have ended.

use std::fmt::Debug;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;

use crate::comms::session::ServerId;
use crate::controller::stats::Stats;

/// A server, for whoever sums them.
pub(crate) trait Counting: Debug + Send + Sync {
    fn id(&self) -> ServerId;

    fn stats(&self) -> Stats;
}

#[derive(Debug)]
struct Process {
    running: Vec<Arc<dyn Counting>>,
    /// Of all servers that have ended.
    ended: Stats,
}

static PROCESS: LazyLock<Mutex<Process>> =
    LazyLock::new(|| Mutex::new(Process { running: Vec::new(), ended: Stats::new(&[]) }));

/// A server begins. It is kept until it has [ended](retire).
pub(crate) fn register(server: Arc<dyn Counting>) {
    PROCESS.lock().running.push(server);
}

/// A server has ended: nothing will happen there any more.
pub(crate) fn retire(id: ServerId) {
    let mut process = PROCESS.lock();
    let Some(place) = process.running.iter().position(|server| server.id() == id) else { return };
    let server = process.running.remove(place);
    process.ended.add(&server.stats());
    // Before the server, whose controllers are the program's, and so are their destructors.
    drop(process);
}

/// What is going on in one server; `None` if it does not run.
pub(crate) fn stats_of(id: ServerId) -> Option<Stats> {
    let running = PROCESS.lock().running.clone();
    running.iter().find(|server| server.id() == id).map(|server| server.stats())
}

/// What is going on in all servers of this process, and what went on in those that have ended. Routes that are written the
/// same are one.
///
/// ```
/// let stats = rwf::stats();
/// println!("{} WebSockets are open in this process", stats.websockets.now);
/// ```
#[must_use]
pub fn stats() -> Stats {
    let process = PROCESS.lock();
    let (running, mut stats) = (process.running.clone(), process.ended.clone());
    drop(process);
    for server in running {
        stats.add(&server.stats());
    }
    stats
}
