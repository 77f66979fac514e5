//! Who is connected, and how to reach them.

#[cfg(feature = "redis")]
pub(crate) mod arrivals;
pub(crate) mod ask;
#[cfg(feature = "redis")]
pub(crate) mod asking;
#[cfg(feature = "redis")]
pub(crate) mod bell;
pub(crate) mod changes;
pub(crate) mod client;
#[cfg(feature = "redis")]
pub(crate) mod cluster;
pub(crate) mod crossing;
pub(crate) mod entries;
#[cfg(feature = "redis")]
pub(crate) mod envelope;
pub(crate) mod flush;
#[cfg(feature = "redis")]
pub(crate) mod gaps;
pub(crate) mod interest;
#[cfg(feature = "redis")]
pub(crate) mod joined;
pub(crate) mod members;
#[cfg(feature = "redis")]
pub(crate) mod notices;
pub(crate) mod outcome;
pub(crate) mod presence;
#[cfg(feature = "redis")]
pub(crate) mod presence_thread;
pub(crate) mod reach;
pub(crate) mod receivers;
pub(crate) mod registry;
#[cfg(feature = "redis")]
pub(crate) mod relay;
#[cfg(feature = "redis")]
pub(crate) mod relayed_requests;
#[cfg(feature = "redis")]
pub(crate) mod remote_presence;
#[cfg(feature = "redis")]
pub(crate) mod reports;
pub(crate) mod server;
pub(crate) mod session;
#[cfg(feature = "redis")]
pub(crate) mod survey;
pub(crate) mod topics;
pub(crate) mod watches;
#[cfg(feature = "redis")]
pub(crate) mod wire;

pub use self::ask::RequestError;
pub use self::client::Client;
pub use self::flush::FlushError;
pub use self::members::Members;
pub use self::outcome::{NotInHandler, Outcome, SendError};
pub use self::presence::{Change, Presence};
pub use self::reach::{Comms, Recipient};
pub use self::server::ServerComms;
pub use self::topics::SubscribeError;
