//! The threads of a server's connections: one each, and a few that have ended one and wait a moment for the next.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::base::contained::contained;
use crate::base::deadline;
use crate::net::os;

/// The name of a thread while it runs no WebSocket.
const NAME: &str = "rwf-connection";
/// How long a spare thread waits for a connection.
const SPARE_TIME: Duration = Duration::from_secs(1);
/// How long a thread may take to end after its connection has ended.
const END_TIME: Duration = Duration::from_secs(1);

/// Runs each job on a thread that has nothing else to do. To begin and end a thread costs more than a short connection,
/// so some wait for the next.
#[derive(Debug)]
pub(crate) struct Pool {
    stack_size: usize,
    max_spare: usize,
    state: Mutex<State>,
    /// Signalled when there is a job for a spare thread, and when the pool stops.
    has_job: Condvar,
    /// Signalled when a job has ended while the pool stops.
    has_ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Jobs that spare threads have not taken yet: never more than there are spare threads.
    jobs: VecDeque<Job>,
    spare: usize,
    threads: HashMap<u64, Thread>,
    next_number: u64,
    is_stopping: bool,
}

#[derive(Debug)]
struct Thread {
    /// `None` until the thread runs.
    handle: Option<JoinHandle<()>>,
    is_busy: bool,
}

struct Job(Box<dyn FnOnce() + Send>);

impl Pool {
    pub(crate) fn new(stack_size: usize, max_spare: usize) -> Arc<Self> {
        Arc::new(Self {
            stack_size,
            max_spare,
            state: Mutex::default(),
            has_job: Condvar::new(),
            has_ended: Condvar::new(),
        })
    }

    /// Runs `job` at once, on a spare thread or a new one.
    ///
    /// # Errors
    ///
    /// There are no more threads to be had. The job is dropped.
    pub(crate) fn run(self: &Arc<Self>, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let job = Job(Box::new(job));
        let mut state = self.state.lock();
        if state.jobs.len() < state.spare {
            state.jobs.push_back(job);
            drop(state);
            self.has_job.notify_one();
            return Ok(());
        }
        let number = state.next_number;
        state.next_number += 1;
        state.threads.insert(number, Thread { handle: None, is_busy: true });
        drop(state);
        let pool = Arc::clone(self);
        let builder = thread::Builder::new().name(NAME.to_owned()).stack_size(self.stack_size);
        let spawned = builder.spawn(move || pool.work(number, job));
        let mut state = self.state.lock();
        match spawned {
            Ok(handle) => {
                if let Some(thread) = state.threads.get_mut(&number) {
                    thread.handle = Some(handle);
                }
                Ok(())
            }
            Err(error) => {
                state.threads.remove(&number);
                Err(error)
            }
        }
    }

    /// What a thread does from its start to its end: its first job, and others as they come.
    fn work(&self, number: u64, first: Job) {
        let mut next = Some(first);
        while let Some(Job(job)) = next {
            // Should a job panic, the thread still has to note that it is not busy any more: `stop` waits for that.
            contained(job);
            os::name_thread(NAME);
            next = self.next_job(number);
        }
    }

    /// Waits for a job; without one the thread is to end.
    fn next_job(&self, number: u64) -> Option<Job> {
        let deadline = deadline::after(SPARE_TIME);
        let mut state = self.state.lock();
        state.set_busy(number, false);
        if state.is_stopping {
            self.has_ended.notify_all();
            return None;
        }
        if state.spare < self.max_spare {
            state.spare += 1;
            let mut is_over = false;
            while state.jobs.is_empty() && !state.is_stopping && !is_over {
                is_over = self.has_job.wait_until(&mut state, deadline).timed_out();
            }
            state.spare -= 1;
            if let Some(job) = state.jobs.pop_front() {
                state.set_busy(number, true);
                return Some(job);
            }
            if state.is_stopping {
                return None;
            }
        }
        let forgotten = state.threads.remove(&number);
        drop(state);
        drop(forgotten);
        None
    }

    /// Ends and joins the threads, but for those whose jobs do not end, of which there are `running`.
    pub(crate) fn stop(&self, running: usize) {
        let deadline = deadline::after(END_TIME);
        let mut state = self.state.lock();
        state.is_stopping = true;
        self.has_job.notify_all();
        while state.busy() > running {
            if self.has_ended.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        let threads = std::mem::take(&mut state.threads);
        drop(state);
        for thread in threads.into_values().filter(|thread| !thread.is_busy) {
            let _ = thread.handle.map(JoinHandle::join);
        }
    }
}

impl State {
    fn set_busy(&mut self, number: u64, is_busy: bool) {
        if let Some(thread) = self.threads.get_mut(&number) {
            thread.is_busy = is_busy;
        }
    }

    fn busy(&self) -> usize {
        self.jobs.len() + self.threads.values().filter(|thread| thread.is_busy).count()
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Job")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::mpsc::{Sender, channel};
    use std::thread::ThreadId;
    use std::time::Instant;

    const STACK: usize = 64 << 10;
    /// Nothing that works takes so long.
    const PATIENCE: Duration = Duration::from_secs(10);

    fn tell(pool: &Arc<Pool>, ran_on: &Sender<ThreadId>) {
        let ran_on = ran_on.clone();
        pool.run(move || ran_on.send(thread::current().id()).unwrap()).unwrap();
    }

    fn wait_for_spare(pool: &Pool, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while pool.state.lock().spare != count {
            assert!(Instant::now() < deadline, "there are no {count} spare threads");
            thread::yield_now();
        }
    }

    #[test]
    fn jobs_run_at_once_beside_each_other_and_few_threads_stay() {
        let pool = Pool::new(STACK, 2);
        let (release, released) = channel::<()>();
        let released = Arc::new(Mutex::new(released));
        let (ran_on, threads) = channel();
        for _ in 0..5 {
            let (ran_on, released) = (ran_on.clone(), Arc::clone(&released));
            pool.run(move || {
                ran_on.send(thread::current().id()).unwrap();
                let _ = released.lock().recv();
            })
            .unwrap();
        }
        let next = || threads.recv_timeout(PATIENCE).expect("a job does not run");
        let first: HashSet<_> = (0..5).map(|_| next()).collect();
        assert_eq!(first.len(), 5, "each has a thread of its own");
        drop(release);
        wait_for_spare(&pool, 2);
        tell(&pool, &ran_on);
        assert!(first.contains(&next()), "a spare thread takes the next job");
        pool.stop(0);
        assert_eq!(Arc::strong_count(&pool), 1, "threads are left");
    }

    #[test]
    fn spare_threads_end_when_nothing_comes() {
        let pool = Pool::new(STACK, 1);
        let (ran_on, threads) = channel();
        tell(&pool, &ran_on);
        threads.recv_timeout(PATIENCE).expect("the job does not run");
        wait_for_spare(&pool, 1);
        wait_for_spare(&pool, 0);
        assert!(pool.state.lock().threads.is_empty());
        pool.stop(0);
    }

    #[test]
    fn a_job_that_does_not_end_holds_up_nobody() {
        let pool = Pool::new(STACK, 1);
        let (release, released) = channel::<()>();
        pool.run(move || {
            let _ = released.recv();
        })
        .unwrap();
        pool.run(|| panic!("as the test wishes")).unwrap();
        let began = Instant::now();
        pool.stop(1);
        assert!(began.elapsed() < END_TIME, "it waited for the job that does not end");
        drop(release);
    }
}
