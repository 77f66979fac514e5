//! A client that reads slowly, or not at all, while the test does something else.

use std::io::Read;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often a client of more than as many bytes per second reads.
const READS_PER_SECOND: u32 = 20;

/// A client that reads slowly, or not at all: from [`TestClient::read_slowly`](crate::testing::TestClient::read_slowly) and
/// [`TestClient::never_read`](crate::testing::TestClient::never_read). It answers neither pings nor a close, and ends its stream
/// when it is dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the connection"]
pub struct SlowReader {
    stream: TcpStream,
    received: Arc<AtomicUsize>,
    reading: Option<Reading>,
}

#[derive(Debug)]
struct Reading {
    thread: JoinHandle<()>,
    /// Dropped, it ends a pause of the thread.
    running: Sender<()>,
}

impl SlowReader {
    /// Reads nothing.
    pub(crate) fn idle(stream: TcpStream) -> Self {
        Self { stream, received: Arc::default(), reading: None }
    }

    /// Reads on a thread of its own.
    #[track_caller]
    pub(crate) fn start(stream: TcpStream, bytes_per_second: u32) -> Self {
        let received = Arc::<AtomicUsize>::default();
        let (running, stop) = channel();
        let theirs = stream.set_read_timeout(None).and_then(|()| stream.try_clone());
        let started = theirs.and_then(|stream| {
            let received = Arc::clone(&received);
            let reading = move || read(stream, bytes_per_second, &received, &stop);
            thread::Builder::new().name("slow-reader".to_owned()).spawn(reading)
        });
        match started {
            Ok(thread) => Self { stream, received, reading: Some(Reading { thread, running }) },
            Err(error) => {
                panic!("the system gave no thread or descriptor for a slow client: {error}")
            }
        }
    }

    /// How many bytes it has read by now; over TLS, of what TLS makes of them.
    #[must_use]
    pub fn received_bytes(&self) -> usize {
        self.received.load(Ordering::Relaxed)
    }
}

/// Reads until the server ends the stream, the client does, or it is told to stop.
fn read(mut stream: TcpStream, bytes_per_second: u32, received: &AtomicUsize, stop: &Receiver<()>) {
    let at_once = (bytes_per_second / READS_PER_SECOND).max(1);
    let pause = Duration::from_secs(1) * at_once / bytes_per_second;
    let mut buffer = vec![0; at_once as usize];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        received.fetch_add(count, Ordering::Relaxed);
        if stop.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

impl Drop for SlowReader {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(Reading { thread, running }) = self.reading.take() {
            drop(running);
            let _ = thread.join();
        }
    }
}
