//! One process of a cluster, by a number of its own.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

/// One process of a cluster, from its start to its end: a number at random, which no other has.
///
/// `Display` writes it as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u64);

static OF_PROCESS: AtomicU64 = AtomicU64::new(NodeId::NONE.0);

impl NodeId {
    /// Stands for a process that is in no cluster.
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn random() -> Self {
        // 60 random bits, and the version, which is not zero.
        Self(Uuid::new_v4().as_u64_pair().0)
    }

    /// This process, as it is named in the cluster that it is in.
    pub(crate) fn of_process() -> Self {
        Self(OF_PROCESS.load(Ordering::Relaxed))
    }

    /// Names this process: connections that come from now on have the name in theirs.
    pub(crate) fn name_process(self) {
        OF_PROCESS.store(self.0, Ordering::Relaxed);
    }

    pub(crate) fn from_number(number: u64) -> Self {
        Self(number)
    }

    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
