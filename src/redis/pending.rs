//! Commands that were written, and whose answers have not come: Redis answers in their order.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::redis::parcel::Parcel;

#[derive(Debug)]
pub(crate) enum Pending {
    Publish(Parcel),
    /// A message that goes elsewhere meanwhile, whatever is answered.
    Taken,
    /// A probe, published.
    Probe,
    /// Each channel is answered by itself; by which order it was subscribed to.
    Subscribe(VecDeque<(Arc<str>, u64)>),
    /// So many channels are yet to be answered.
    Unsubscribe(usize),
    /// Sharded channels, which Redis may end by itself too, or refuse to: what it says to that cannot be told apart, and
    /// its answer to the HELLO behind them ends it.
    Leave,
    /// Any other command, by name.
    Command(&'static str),
}

/// An answer that fits no command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unasked;
