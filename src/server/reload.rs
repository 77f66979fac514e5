//! Reading the certificates again, for the connections to come. SIGHUP has a thread of its own for it.

#[cfg(feature = "tls")]
use std::{io, thread};

use crossbeam_channel::Sender;

#[cfg(feature = "tls")]
use crate::base::contained::contained;
#[cfg(feature = "tls")]
use crate::server::acceptor::Connections;
#[cfg(feature = "tls")]
use crate::server::error::Error;

/// # Errors
///
/// A file is missing or wrong, or there is none. Everything stays as it was.
#[cfg(feature = "tls")]
pub(crate) fn read_again(connections: &Connections, address: &str) -> Result<(), Error> {
    let reloaded = match &connections.tls {
        Some(tls) => tls.reload(),
        None => {
            let reason = "is not set, and there is nothing to read again".to_owned();
            Err(Error::Setting { name: "tls", reason })
        }
    };
    match &reloaded {
        Ok(()) => contained(|| {
            log::info!(target: "rwf::server", "certificates were read again address={address}");
        }),
        Err(error) => contained(|| {
            log::error!(
                target: "rwf::server",
                "certificates stay as they were address={address}: {error}"
            );
        }),
    };
    reloaded
}

/// The thread that reads them again when it is told to: a file system that hangs keeps it, and not the one that waits for
/// the signal to shut down.
#[derive(Debug)]
pub(crate) struct Reloader {
    orders: Sender<()>,
}

impl Reloader {
    /// The thread ends with this value.
    #[cfg(feature = "tls")]
    pub(crate) fn start(read_again: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (orders, ordered) = crossbeam_channel::bounded(1);
        thread::Builder::new().name("rwf-reload".to_owned()).spawn(move || {
            for () in ordered {
                read_again();
            }
        })?;
        Ok(Self { orders })
    }

    pub(crate) fn order(&self) {
        // Where one waits already, it will see what this one would.
        let _ = self.orders.try_send(());
    }
}
