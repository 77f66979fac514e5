//! The threads of a server's connections: one each, and a few that have ended one and wait a moment for the next.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, unbounded};
use parking_lot::Mutex;

use crate::base::contained::contained;
use crate::base::deadline;
use crate::net::os;

/// What a thread is called that has no WebSocket.
const NAME: &str = "rwf-connection";
/// How long a spare thread waits for a connection.
const SPARE_TIME: Duration = Duration::from_secs(1);
/// How long a thread takes at most from the end of its connection to its own.
const END_TIME: Duration = Duration::from_secs(1);

/// Runs each job on a thread that has nothing else to do. To begin and end a thread costs more than a short connection,
/// so some wait for the next.
#[derive(Debug)]
pub(crate) struct Pool {
    stack_size: usize,
    max_spare: usize,
    /// Has no room, so that a job goes to a spare thread that waits for it or to nobody. `None` once the pool stops,
    /// which ends the spare threads.
    to_spare: Mutex<Option<Sender<Job>>>,
    jobs: Receiver<Job>,
    spare: AtomicUsize,
    threads: Mutex<Threads>,
    /// Told by each thread that ends after the pool began to stop.
    ended: (Sender<u64>, Receiver<u64>),
}

/// The threads by number; a handle is there once its thread was started.
#[derive(Debug, Default)]
struct Threads {
    handles: HashMap<u64, Option<JoinHandle<()>>>,
    next_number: u64,
}

struct Job(Box<dyn FnOnce() + Send>);

impl Pool {
    pub(crate) fn new(stack_size: usize, max_spare: usize) -> Arc<Self> {
        let (to_spare, jobs) = bounded(0);
        Arc::new(Self {
            stack_size,
            max_spare,
            to_spare: Mutex::new(Some(to_spare)),
            jobs,
            spare: AtomicUsize::new(0),
            threads: Mutex::default(),
            ended: unbounded(),
        })
    }

    /// Runs `job` at once, on a spare thread or a new one.
    ///
    /// # Errors
    ///
    /// There are no more threads to be had. The job is dropped.
    pub(crate) fn run(self: &Arc<Self>, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let job = Job(Box::new(job));
        let to_spare = self.to_spare.lock().clone();
        let handed_over = match to_spare {
            Some(to_spare) => to_spare.try_send(job),
            None => Err(TrySendError::Disconnected(job)),
        };
        match handed_over {
            Ok(()) => Ok(()),
            Err(error) => self.run_on_new_thread(error.into_inner()),
        }
    }

    fn run_on_new_thread(self: &Arc<Self>, job: Job) -> io::Result<()> {
        let number = {
            let mut threads = self.threads.lock();
            let number = threads.next_number;
            threads.next_number += 1;
            threads.handles.insert(number, None);
            number
        };
        let pool = Arc::clone(self);
        let builder = thread::Builder::new().name(NAME.to_owned()).stack_size(self.stack_size);
        let spawned = builder.spawn(move || pool.work(number, job));
        let mut threads = self.threads.lock();
        match spawned {
            Ok(handle) => {
                // It may have ended already.
                if let Some(place) = threads.handles.get_mut(&number) {
                    *place = Some(handle);
                }
                Ok(())
            }
            Err(error) => {
                threads.handles.remove(&number);
                Err(error)
            }
        }
    }

    /// The life of a thread.
    fn work(&self, number: u64, first: Job) {
        let mut next = Some(first);
        while let Some(Job(job)) = next {
            // The job takes care of its panics, but whoever stops the pool counts on the threads.
            contained(job);
            os::name_thread(NAME);
            next = self.next_job();
        }
        let own = self.threads.lock().handles.remove(&number);
        if own.is_none() {
            let _ = self.ended.0.send(number);
        }
    }

    /// Waits for a job, unless enough others do.
    fn next_job(&self) -> Option<Job> {
        let one_more = |spare| (spare < self.max_spare).then_some(spare + 1);
        self.spare.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        let job = self.jobs.recv_timeout(SPARE_TIME);
        self.spare.fetch_sub(1, Ordering::Relaxed);
        job.ok()
    }

    /// Ends and joins the threads, but for those whose jobs do not end, of which there are `running`.
    pub(crate) fn stop(&self, running: usize) {
        drop(self.to_spare.lock().take());
        let mut handles = mem::take(&mut self.threads.lock().handles);
        let deadline = deadline::after(END_TIME);
        while handles.len() > running {
            let Ok(number) = self.ended.1.recv_deadline(deadline) else { return };
            if let Some(Some(handle)) = handles.remove(&number) {
                let _ = handle.join();
            }
        }
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
    use std::sync::mpsc::channel;
    use std::thread::ThreadId;
    use std::time::Instant;

    const STACK: usize = 64 << 10;
    /// Nothing that works takes so long.
    const PATIENCE: Duration = Duration::from_secs(10);

    fn tell(pool: &Arc<Pool>, ran_on: &std::sync::mpsc::Sender<ThreadId>) {
        let ran_on = ran_on.clone();
        pool.run(move || ran_on.send(thread::current().id()).unwrap()).unwrap();
    }

    fn wait_for_spare(pool: &Pool, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while pool.spare.load(Ordering::Relaxed) != count {
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
        let deadline = Instant::now() + PATIENCE;
        // A spare thread that does not quite wait yet is not waited for either.
        while !{
            tell(&pool, &ran_on);
            first.contains(&next())
        } {
            assert!(Instant::now() < deadline, "no spare thread takes the next job");
        }
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
        let deadline = Instant::now() + PATIENCE;
        while !pool.threads.lock().handles.is_empty() {
            assert!(Instant::now() < deadline, "a thread that has ended is remembered");
            thread::yield_now();
        }
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
