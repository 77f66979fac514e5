//! A connection to Redis that is kept: what is subscribed to, and what is published.

pub(crate) mod address;
pub(crate) mod desk;
pub(crate) mod dialect;
pub(crate) mod dialer;
pub(crate) mod fault;
pub(crate) mod frame;
pub(crate) mod history;
pub(crate) mod link;
pub(crate) mod links;
pub(crate) mod node;
pub(crate) mod parcel;
pub(crate) mod pending;
pub(crate) mod resp;
pub(crate) mod scout;
#[cfg(feature = "tls")]
pub(crate) mod secure;
pub(crate) mod sequences;
pub(crate) mod settings;
pub(crate) mod shards;
pub(crate) mod slots;
pub(crate) mod socket;
pub(crate) mod subscriptions;
pub(crate) mod tally;
#[cfg(feature = "tls")]
pub(crate) mod trust;
