//! Runs a future to its end on the calling thread: `async` is the traits' syntax here, not a runtime.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

/// Polls `future` on this thread, parking it until the future wakes it.
///
/// There is no reactor and no timer behind it: a future that waits for another runtime's sockets or clocks has to be
/// driven by that runtime.
///
/// ```
/// assert_eq!(rwf::block_on(async { 6 * 7 }), 42);
/// ```
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    // Handlers mostly finish in their first poll; only one that does not costs a waker.
    if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        return output;
    }
    drive(future)
}

/// Apart, so that the frame of those who call handlers stays small: at thousands of connections each line of a stack is
/// out of the caches by the next message.
#[inline(never)]
fn drive<F: Future>(mut future: Pin<&mut F>) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        thread::park();
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn a_future_woken_by_another_thread_finishes() {
        let (waker_sender, waker_receiver) = mpsc::channel::<Waker>();
        let waking = thread::spawn(move || {
            // The first waker is the no-op one, the second unparks.
            for waker in waker_receiver {
                waker.wake();
            }
        });
        let mut polls = 0;
        let future = std::future::poll_fn(move |context| {
            polls += 1;
            if polls < 4 {
                waker_sender.send(context.waker().clone()).unwrap();
                Poll::Pending
            } else {
                Poll::Ready("done")
            }
        });
        let (sender, value) = mpsc::channel();
        let blocking = thread::spawn(move || sender.send(block_on(future)).unwrap());
        let value = value.recv_timeout(Duration::from_secs(10));
        assert_eq!(value, Ok("done"), "the future was not woken");
        blocking.join().unwrap();
        waking.join().unwrap();
    }
}
