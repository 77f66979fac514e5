//! A job with a loop of its own, which shows its progress to browsers and takes pause, resume and cancel from them.
//! Run it with `cargo run --example batch`.
//! Try it by opening http://localhost:8000/ in two tabs; it ends by itself after twenty seconds of work.

use std::thread;
use std::time::Duration;

use rwf::channel::{Receiver, RecvError, bounded, never, select, tick};
use rwf::comms::ServerComms;
use rwf::controller::Events;
use rwf::http::Server;
use rwf::prelude::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Running,
    Paused,
    Finished,
    Cancelled,
}

/// Where the job stands.
#[derive(Clone, Copy, PartialEq)]
struct Job {
    done: usize,
    total: usize,
    state: State,
}

impl Job {
    fn is_over(&self) -> bool {
        matches!(self.state, State::Finished | State::Cancelled)
    }

    /// As JSON, for the page.
    fn status(&self) -> String {
        let Self { done, total, state } = self;
        format!(r#"{{"state":"{state:?}","done":{done},"total":{total}}}"#)
    }

    fn note_piece(&mut self) {
        self.done += 1;
        if self.done == self.total {
            self.state = State::Finished;
        }
    }

    fn take(&mut self, event: Event) {
        // A client that has left meanwhile cannot be answered, which is no concern of the job.
        match event {
            Event::Opened(client) => drop(client.send(self.status())),
            Event::Message(client, command) => match command.as_text() {
                Some("pause") => self.state = State::Paused,
                Some("resume") => self.state = State::Running,
                Some("cancel") => self.state = State::Cancelled,
                _ => drop(client.send(r#"{"error":"say pause, resume or cancel"}"#)),
            },
            Event::Closed(..) => {}
        }
    }
}

/// Takes `total` pieces of work as they are done, or until somebody cancels; all viewers are shown what has changed, ten
/// times a second at most.
///
/// # Errors
///
/// Whoever does the work, or the server, has ended before.
pub(crate) fn run(
    total: usize,
    work: &Receiver<()>,
    events: &Events,
    viewers: ServerComms,
) -> Result<State, RecvError> {
    let mut job = Job { done: 0, total, state: State::Running };
    let mut shown = job;
    let (clock, nothing) = (tick(Duration::from_millis(100)), never());
    while !job.is_over() {
        // What is not taken holds up whoever does the work.
        let work = if job.state == State::Paused { &nothing } else { work };
        select! {
            recv(work) -> piece => {
                piece?;
                job.note_piece();
            }
            recv(events) -> event => job.take(event?),
            recv(clock) -> _ => if shown != job {
                show(&job, viewers);
                shown = job;
            }
        }
    }
    show(&job, viewers);
    Ok(job.state)
}

fn show(job: &Job, viewers: ServerComms) {
    if let Err(error) = viewers.notify().send(job.status()) {
        println!("nobody could be shown the progress: {error}");
    }
}

fn main() -> Result<(), Error> {
    let total = 400;
    let (endpoint, events) = rwf::events(64);
    let server = Server::new(vec![
        route!("/" => |_: &Request| Ok(Response::new().html(include_str!("batch.html")))),
        route!("/job" => endpoint),
    ])
    .spawn()?;
    println!("the job is at http://{}/", server.local_addr());

    let (done, work) = bounded(0);
    let worker = thread::spawn(move || {
        for _ in 0..total {
            // Here the work would be done.
            thread::sleep(Duration::from_millis(50));
            if done.send(()).is_err() {
                return;
            }
        }
    });
    let state = run(total, &work, &events, server.comms())?;
    // A worker that is not through ends with its next piece.
    drop(work);
    if worker.join().is_err() {
        println!("the worker has panicked");
    }
    // What the viewers were shown last goes out before their close.
    let report = server.shutdown()?;
    println!("{state:?}; {} viewers closed, {} cut", report.closed, report.cut);
    Ok(())
}
