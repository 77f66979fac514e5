//! Who is connected, and how to reach them.

pub(crate) mod client;
pub(crate) mod reach;
pub(crate) mod registry;
pub(crate) mod session;
pub(crate) mod topics;

pub use self::client::Client;
pub use self::reach::{Comms, NotInHandler, Outcome, Recipient, SendError, ServerComms};
pub use self::topics::SubscribeError;
