//! How a Redis is reached: where it is, and over TLS whom to take for it.

use std::time::Instant;

#[cfg(feature = "tls")]
use std::sync::Arc;

#[cfg(feature = "tls")]
use rustls::ClientConfig;

use crate::redis::address::Address;
#[cfg(feature = "tls")]
use crate::redis::address::Endpoint;
use crate::redis::fault::Fault;
use crate::redis::socket::Socket;

#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    pub(crate) address: Address,
    /// There is one where the address says TLS.
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

impl Dialer {
    /// A connection on which nothing has been said.
    pub(crate) fn dial(&self, deadline: Instant) -> Result<Socket, Fault> {
        let socket = Socket::connect(&self.address.endpoint, deadline);
        let socket = socket.map_err(|error| Fault::unreachable(&error))?;
        #[cfg(feature = "tls")]
        if let (Endpoint::Tcp { host, .. }, Some(config)) = (&self.address.endpoint, &self.tls) {
            return socket.secured(host, config).map_err(|error| Fault::of_stream(&error));
        }
        Ok(socket)
    }

    /// Has TLS begin, where there is any.
    pub(crate) fn shake_hands(&self, socket: &Socket, deadline: Instant) -> Result<(), Fault> {
        #[cfg(feature = "tls")]
        if let Socket::Tls(secure) = socket {
            return secure.shake_hands(deadline).map_err(|error| Fault::of_handshake(&error));
        }
        let _ = (socket, deadline);
        Ok(())
    }
}
