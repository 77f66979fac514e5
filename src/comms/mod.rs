//! Who is connected, and how to reach them.

pub(crate) mod reach;
pub(crate) mod registry;
pub(crate) mod session;
pub(crate) mod topics;

pub use self::reach::{Comms, SendError};
pub use self::topics::SubscribeError;
