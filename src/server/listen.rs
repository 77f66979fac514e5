//! Where a server is to listen, as it was told, and how it comes to that.

use std::fmt::Debug;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
#[cfg(unix)]
use std::path::PathBuf;

use crate::controller::settings::Settings;
use crate::net::listener::{Listener, LocalAddr};
use crate::server::error::Error;

/// One place to listen at.
#[derive(Debug)]
pub(crate) enum Place {
    /// The first of these addresses that can be had.
    Resolved(Vec<SocketAddr>),
    Unresolved(String, io::Error),
    #[cfg(unix)]
    Unix(PathBuf),
    Given(Listener),
    /// The sockets that systemd has passed on could not be had.
    #[cfg(all(unix, feature = "systemd"))]
    NotPassed(io::Error),
}

/// All places of a server; the default one until it is told another, or none.
#[derive(Debug, Default)]
pub(crate) struct Places {
    places: Vec<Place>,
    are_none: bool,
}

impl Place {
    pub(crate) fn resolve(address: &(impl ToSocketAddrs + Debug)) -> Self {
        match address.to_socket_addrs() {
            Ok(resolved) => Self::Resolved(resolved.collect()),
            Err(error) => Self::Unresolved(format!("{address:?}"), error),
        }
    }

    fn listen(self, settings: &Settings) -> Result<(Listener, LocalAddr), Error> {
        let (listener, address) = match self {
            Self::Unresolved(address, source) => return Err(Error::Address { address, source }),
            Self::Given(listener) => (Ok(listener), "the given listener".to_owned()),
            #[cfg(all(unix, feature = "systemd"))]
            Self::NotPassed(error) => (Err(error), "the sockets of systemd".to_owned()),
            Self::Resolved(addresses) if addresses.is_empty() => {
                let reason = "has to be at least one address, and is none".to_owned();
                return Err(Error::Setting { name: "bind", reason });
            }
            Self::Resolved(addresses) => {
                let text: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                (bind_first(&addresses, settings), text.join(", "))
            }
            #[cfg(unix)]
            Self::Unix(path) => {
                let listener = Listener::bind_unix(&path, settings.backlog, settings.unix_mode);
                (listener, LocalAddr::Unix(path).to_string())
            }
        };
        let listening = listener.and_then(|listener| {
            let address = listener.local_addr()?;
            Ok((listener, address))
        });
        listening.map_err(|source| Error::Listen { address, source })
    }
}

fn bind_first(addresses: &[SocketAddr], settings: &Settings) -> io::Result<Listener> {
    let mut last = io::ErrorKind::AddrNotAvailable.into();
    for address in addresses {
        match Listener::bind_tcp(*address, settings.backlog, settings.ipv6_only) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Places {
    pub(crate) fn add(&mut self, place: Place) {
        self.places.push(place);
    }

    /// It is to listen nowhere.
    pub(crate) fn have_none(&mut self) {
        self.are_none = true;
    }

    pub(crate) fn are_none(&self) -> bool {
        self.are_none
    }

    /// Listens at all of them.
    ///
    /// # Errors
    ///
    /// It could not at one: then it does at none.
    pub(crate) fn listen(
        mut self,
        settings: &Settings,
    ) -> Result<Vec<(Listener, LocalAddr)>, Error> {
        if self.are_none && !self.places.is_empty() {
            let reason = "cannot be where the server is told to listen somewhere; leave out one";
            return Err(Error::Setting { name: "no_listener", reason: reason.to_owned() });
        }
        if self.places.is_empty() && !self.are_none {
            self.add(Place::Resolved(vec![SocketAddr::from(([127, 0, 0, 1], 8000))]));
        }
        self.places.into_iter().map(|place| place.listen(settings)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_port_is_an_error_that_says_so() {
        for (address, has_no_port) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("[::1]", true),
            ("localhost", true),
            ("127.0.0.1:http", false),
            ("127.0.0.1:80000", false),
        ] {
            let mut places = Places::default();
            places.add(Place::resolve(&address));
            let error = places.listen(&Settings::default()).unwrap_err().to_string();
            let begin = format!("cannot resolve the address {address:?}");
            let says = error.contains("the port is missing");
            assert!(error.starts_with(&begin) && says == has_no_port, "{address}: {error}");
        }
    }
}
