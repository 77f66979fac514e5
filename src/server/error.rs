//! Why a server could not start, stop, or take a connection over.

use std::net::IpAddr;
use std::path::PathBuf;
use std::{fmt, io};

use crate::controller::refusal::Refusal;

/// Why a server could not start, stop, or take a connection over. It says with what value, and what to do.
///
/// `Debug` prints the same text as `Display`, followed by the causes: it is what a `main` that returns the error shows.
#[non_exhaustive]
pub enum Error {
    /// The address could not be resolved.
    #[non_exhaustive]
    Address {
        /// As it was given.
        address: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Listening failed, mostly because another program has the address.
    #[non_exhaustive]
    Listen {
        /// Where.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// A route's path is wrong.
    #[non_exhaustive]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Two routes match the same paths.
    #[non_exhaustive]
    Duplicate {
        /// The first path.
        first: String,
        /// The path that could never be reached.
        second: String,
    },
    /// A setting that cannot work.
    #[non_exhaustive]
    Setting {
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A file of a certificate or of a key cannot be used.
    #[non_exhaustive]
    TlsFile {
        /// The file, as it was given.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The process cannot join its cluster. With the feature `redis`.
    #[cfg(feature = "redis")]
    #[non_exhaustive]
    Cluster {
        /// Where its Redis is, without credentials.
        address: String,
        /// What is wrong there.
        reason: String,
    },
    /// The system gave no thread, no signal handler or the like.
    #[non_exhaustive]
    System {
        /// What was wanted.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A connection that was [handed over](crate::http::ServerHandle::serve) is not served. Its client was told.
    #[non_exhaustive]
    Refused {
        /// Why: the server has as many connections as it may have, or stops.
        reason: Refusal,
    },
    /// A handler called `shutdown` or `join`, which wait for handlers: it would wait for itself.
    FromHandler,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { address, .. } => {
                write!(f, "cannot resolve the address {address}")?;
                f.write_str(if has_port(address) {
                    ""
                } else {
                    ": the port is missing; add one, as \":8000\""
                })
            }
            Self::Listen { address, source } => {
                write!(f, "cannot listen on {address}")?;
                if source.kind() == io::ErrorKind::AddrInUse {
                    f.write_str(
                        ": another program does, or this one; stop it, or listen elsewhere",
                    )?;
                }
                Ok(())
            }
            Self::Path { path, reason } => write!(f, "the route path {path:?} {reason}"),
            Self::Duplicate { first, second } => {
                write!(f, "the routes {first:?} and {second:?} match the same paths; remove one")
            }
            Self::Setting { name, reason } => write!(f, "the setting `{name}` {reason}"),
            Self::TlsFile { file, reason } => {
                write!(f, "cannot use {} for TLS: {reason}", file.display())
            }
            #[cfg(feature = "redis")]
            Self::Cluster { address, reason } => {
                write!(f, "cannot join the cluster at the Redis {address}: {reason}")
            }
            Self::System { what, .. } => write!(f, "the system gave no {what}"),
            Self::Refused { reason: Refusal::Shutdown } => {
                f.write_str("the connection was refused with 503: the server shuts down, or has")
            }
            Self::Refused { reason } => write!(
                f,
                "the connection was refused with 503: there are as many as `{reason}` allows"
            ),
            Self::FromHandler => f.write_str(
                "a handler cannot wait for its own server to stop; let another thread call it",
            ),
        }
    }
}

/// Whether an address may have a port, as far as its text shows it.
fn has_port(address: &str) -> bool {
    let text = address.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    // A pair, say, has one.
    let Some(text) = text else { return true };
    let is_ip = text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
    text.contains(':') && !is_ip
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        match std::error::Error::source(self) {
            Some(source) => write!(f, " ({source})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Address { source, .. }
            | Self::Listen { source, .. }
            | Self::System { source, .. } => Some(source),
            #[cfg(feature = "redis")]
            Self::Cluster { .. } => None,
            Self::Path { .. }
            | Self::Duplicate { .. }
            | Self::Setting { .. }
            | Self::TlsFile { .. }
            | Self::Refused { .. }
            | Self::FromHandler => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_stays_small() {
        assert!(size_of::<Error>() <= 64, "{} bytes", size_of::<Error>());
    }

    #[test]
    fn debug_is_for_the_person_at_the_terminal() {
        let error = Error::Listen {
            address: "127.0.0.1:8000".to_owned(),
            source: io::ErrorKind::AddrInUse.into(),
        };
        let text = format!("{error:?}");
        assert!(text.starts_with("cannot listen on 127.0.0.1:8000: another program"), "{text}");
        assert!(text.contains("address in use"), "{text}");
    }
}
