//! Newest values: messages under a key, of which the newest replaces the one that still waits for the client.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::websocket::batch::{Account, Payload};
use crate::websocket::frame::Frame;

/// What waits in the channel of an outbox.
#[derive(Debug)]
pub(crate) enum Waiting {
    Message(Frame),
    Latest(Arc<Latest>),
}

/// The place of a key in the channel. It is there once, however often its value is replaced.
#[derive(Debug)]
pub(crate) struct Latest {
    /// Until whoever writes takes it. The lock is held for no more than that.
    frame: Mutex<Option<Frame>>,
    key: Arc<str>,
}

/// The places of the keys. A key is forgotten when its value has been taken: until then the value counts for it.
#[derive(Debug, Default)]
pub(crate) struct LatestKeys(BTreeMap<Arc<str>, Arc<Latest>>);

impl Waiting {
    /// The message, and what it counts for.
    pub(crate) fn into_parts(self) -> Option<(Frame, Account)> {
        let parts = match self {
            Self::Message(frame) => (Account::of(&frame), frame),
            Self::Latest(latest) => {
                let frame = latest.take()?;
                (Account::of_latest(&frame, latest.key.len()), frame)
            }
        };
        Some((parts.1, parts.0))
    }
}

impl Latest {
    /// The value, for whoever writes or drops it.
    pub(crate) fn take(&self) -> Option<Frame> {
        self.frame.lock().take()
    }
}

impl LatestKeys {
    /// A place for a key that has none in the channel.
    pub(crate) fn insert(&mut self, key: &str, frame: &Frame) -> Arc<Latest> {
        // Its last value may have been taken just now.
        let known = self.0.get_key_value(key).map(|(key, _)| Arc::clone(key));
        let key = known.unwrap_or_else(|| key.into());
        let latest = Arc::new(Latest { frame: Mutex::new(Some(frame.clone())), key });
        self.0.insert(Arc::clone(&latest.key), Arc::clone(&latest));
        latest
    }

    /// Forgets the key of a value that was taken, unless another value waits under it by now.
    pub(crate) fn remove(&mut self, taken: &Arc<Latest>) {
        if self.0.get(&taken.key).is_some_and(|latest| Arc::ptr_eq(latest, taken)) {
            self.0.remove(&taken.key);
        }
    }

    /// Replaces the value that waits under `key`, if there is one and `may_grow` allows for so many bytes more. Returns the
    /// old value, and what it and the new one count for.
    pub(crate) fn replace(
        &self,
        key: &str,
        frame: &Frame,
        may_grow: impl FnOnce(usize) -> bool,
    ) -> Option<(Payload, Account, Account)> {
        let mut waiting = self.0.get(key)?.frame.lock();
        let (old, new) = (
            Account::of_latest(waiting.as_ref()?, key.len()),
            Account::of_latest(frame, key.len()),
        );
        if !may_grow(new.bytes.saturating_sub(old.bytes)) {
            return None;
        }
        let old_frame = waiting.replace(frame.clone())?;
        Some((old_frame.into(), old, new))
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
