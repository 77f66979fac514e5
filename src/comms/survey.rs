//! What a node asks the others, until they have answered.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;

/// An answer; none for this node's own, which is asked too where it hears the channel, and need not answer itself.
type Answer = Option<Vec<u8>>;

#[derive(Debug, Default)]
pub(crate) struct Survey {
    open: Mutex<Open>,
    last: AtomicU64,
}

#[derive(Debug, Default)]
struct Open {
    /// Who waits for the answers to a question. There is one for each node at most.
    askers: HashMap<u64, Sender<Answer>>,
    is_over: bool,
}

impl Survey {
    /// A question's number, and where its answers come: a channel that ends when none can come any more.
    pub(crate) fn begin(&self) -> (u64, Receiver<Answer>) {
        let number = self.last.fetch_add(1, Ordering::Relaxed);
        let (sender, answers) = unbounded();
        let mut open = self.open.lock();
        if !open.is_over {
            open.askers.insert(number, sender);
        }
        (number, answers)
    }

    /// Hands an answer over, if anybody waits for it still.
    pub(crate) fn answer(&self, number: u64, answer: Answer) {
        if let Some(sender) = self.open.lock().askers.get(&number) {
            let _ = sender.send(answer);
        }
    }

    pub(crate) fn end(&self, number: u64) {
        let sender = self.open.lock().askers.remove(&number);
        drop(sender);
    }

    /// The process leaves the cluster: nobody answers any more.
    pub(crate) fn close(&self) {
        let mut open = self.open.lock();
        open.is_over = true;
        let askers = std::mem::take(&mut open.askers);
        drop(open);
        drop(askers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_is_told_the_end_and_nobody_waits_behind_it() {
        let survey = Survey::default();
        let (number, answers) = survey.begin();
        survey.answer(number, Some(vec![1]));
        survey.close();
        assert_eq!(answers.recv(), Ok(Some(vec![1])), "what came before is there still");
        assert!(answers.recv().is_err());
        let (number, answers) = survey.begin();
        survey.answer(number, None);
        assert!(answers.recv().is_err());
    }
}
