//! The example `batch`: a job's own loop, watched and steered from several browsers.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use rwf::channel::{Receiver, Sender, bounded};
use rwf::prelude::*;
use rwf::testing::{self, TestClient, TestServer};

#[allow(dead_code, reason = "its `main` is not called")]
#[path = "../../examples/batch.rs"]
mod example;

use example::{State, run};

/// Nothing that works takes so long.
const DEADLINE: Duration = Duration::from_secs(10);

/// A job whose work the test does.
struct Job {
    server: TestServer,
    work: Sender<()>,
    ended: Receiver<State>,
}

impl Job {
    fn start(total: usize) -> Self {
        let (endpoint, events) = rwf::events(64);
        let server = testing::serve(vec![route!("/job" => endpoint)]);
        let (work, pieces) = bounded(0);
        let viewers = server.comms();
        let (end, ended) = bounded(1);
        thread::spawn(move || end.send(run(total, &pieces, &events, viewers).unwrap()));
        Self { server, work, ended }
    }

    fn view(&self) -> TestClient {
        self.server.connect("/job")
    }

    #[track_caller]
    fn work(&self, pieces: usize) {
        for _ in 0..pieces {
            self.work.send_timeout((), DEADLINE).expect("the job takes no work");
        }
    }

    #[track_caller]
    fn end(&self) -> State {
        self.ended.recv_timeout(DEADLINE).expect("the job does not end")
    }
}

/// Passes over what was shown before.
#[track_caller]
fn wait_for(viewer: &mut TestClient, state: &str, done: usize) {
    let expected = format!(r#""state":"{state}","done":{done},"#);
    while !viewer.recv_text().contains(&expected) {}
}

#[test]
fn every_viewer_sees_the_progress_and_the_end() {
    let job = Job::start(10);
    let mut first = job.view();
    assert_eq!(first.recv_text(), r#"{"state":"Running","done":0,"total":10}"#);
    job.work(4);
    wait_for(&mut first, "Running", 4);
    let mut late = job.view();
    assert_eq!(late.recv_text(), r#"{"state":"Running","done":4,"total":10}"#);
    job.work(6);
    assert_eq!(job.end(), State::Finished);
    for viewer in [&mut first, &mut late] {
        wait_for(viewer, "Finished", 10);
        viewer.expect_close(1001);
    }
}

#[test]
fn a_browser_pauses_the_job_and_another_one_resumes_it() {
    let job = Job::start(3);
    let (mut one, mut other) = (job.view(), job.view());
    job.work(1);
    one.send("pause");
    for viewer in [&mut one, &mut other] {
        wait_for(viewer, "Paused", 1);
    }
    let waited = job.work.send_timeout((), Duration::from_millis(200));
    assert!(waited.is_err(), "a job that is paused has taken work");
    other.send("resume");
    job.work(2);
    wait_for(&mut one, "Finished", 3);
    assert_eq!(job.end(), State::Finished);
}

#[test]
fn a_job_is_cancelled_also_while_it_is_paused() {
    for before in [None, Some("pause")] {
        let job = Job::start(100);
        let (mut one, mut other) = (job.view(), job.view());
        job.work(7);
        if let Some(command) = before {
            one.send(command);
            wait_for(&mut one, "Paused", 7);
        }
        one.send("cancel");
        wait_for(&mut other, "Cancelled", 7);
        assert!(job.work.send(()).is_err(), "whoever works is told that it is over");
        assert_eq!(job.end(), State::Cancelled);
    }
}

#[test]
fn a_command_that_there_is_not_is_answered_to_one_browser_and_changes_nothing() {
    let job = Job::start(1);
    let (mut one, mut other) = (job.view(), job.view());
    for viewer in [&mut one, &mut other] {
        wait_for(viewer, "Running", 0);
    }
    one.send("PAUSE");
    assert_eq!(one.recv_text(), r#"{"error":"say pause, resume or cancel"}"#);
    one.send(b"pause".to_vec());
    assert_eq!(one.recv_text(), r#"{"error":"say pause, resume or cancel"}"#);
    other.expect_nothing();
    job.work(1);
    assert_eq!(job.end(), State::Finished);
}

/// Viewers come, go, vanish, stop reading and shout all at once: the work goes on meanwhile, and all of it is done.
#[test]
fn viewers_of_any_kind_do_not_disturb_the_work() {
    let job = Job::start(200);
    let mut witness = job.view();
    let deaf = job.view().never_read();
    let start = Barrier::new(5);
    thread::scope(|scope| {
        for viewer in 0..4 {
            let (job, start) = (&job, &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..20 {
                    let mut client = job.view();
                    client.send(if round % 2 == 0 { "resume" } else { "what?" });
                    match (viewer + round) % 4 {
                        0 => client.close(1000, ""),
                        1 => client.reset(),
                        2 => client.send_unfinished("resume"),
                        _ => drop(client),
                    }
                }
            });
        }
        start.wait();
        job.work(199);
    });
    // The viewers are closed when the job is over.
    job.work(1);
    wait_for(&mut witness, "Finished", 200);
    drop(deaf);
    assert_eq!(job.end(), State::Finished);
}
