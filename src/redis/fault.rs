//! What is wrong with a Redis, in words for whoever has to mend it.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::base::shown::Shown;
#[cfg(feature = "tls")]
use crate::redis::trust;

const BROKEN: &str = "the connection broke";

/// Why there is no connection, or why a command failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault(String);

impl Fault {
    pub(crate) fn unreachable(error: &io::Error) -> Self {
        Self(format!("cannot be reached: {error}"))
    }

    /// What reading or writing failed with.
    pub(crate) fn of_stream(error: &io::Error) -> Self {
        #[cfg(feature = "tls")]
        if let Some(error) = error.get_ref().and_then(|error| error.downcast_ref()) {
            return Self(trust::explain(error));
        }
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::late(),
            _ => Self(format!("{BROKEN}: {error}")),
        }
    }

    /// What beginning TLS failed with.
    #[cfg(feature = "tls")]
    pub(crate) fn of_handshake(error: &io::Error) -> Self {
        let what = match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "does not answer it in time",
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => "ended the connection",
            _ => return Self::of_stream(error),
        };
        Self(format!("TLS does not begin, it {what}: write redis:// for a Redis without TLS"))
    }

    /// The same of a connection that ended or broke before Redis said anything.
    pub(crate) fn before_all(self, is_secure: bool) -> Self {
        if self != Self::ended() && !self.0.starts_with(BROKEN) {
            return self;
        }
        let advice = match is_secure {
            true => "if it wants a certificate of this node, `Cluster::tls_config` takes one",
            false => "if it speaks TLS, write rediss://",
        };
        Self(format!("{self}, and said nothing: {advice}"))
    }

    pub(crate) fn late() -> Self {
        Self("it does not answer in time".to_owned())
    }

    pub(crate) fn ended() -> Self {
        Self("it ended the connection".to_owned())
    }

    pub(crate) fn silent(time: Duration) -> Self {
        Self(format!("it said nothing for {time:?}"))
    }

    pub(crate) fn no_redis() -> Self {
        Self("it does not speak Redis' protocol (RESP3, Redis 6 or newer)".to_owned())
    }

    pub(crate) fn replica() -> Self {
        Self("it is a read-only replica: messages have to go through its master".to_owned())
    }

    /// It is a Redis Cluster, or it is none, other than before.
    pub(crate) fn redis_cluster(is_one: bool) -> Self {
        let what = if is_one { "a Redis Cluster" } else { "no Redis Cluster any more" };
        Self(format!("it is {what}, which was different when this node started: start it again"))
    }

    /// The same, of one of several.
    pub(crate) fn of_shard(self, address: impl fmt::Display) -> Self {
        Self(format!("the shard {address}: {self}"))
    }

    /// Its cluster has slots that nobody has, or none.
    pub(crate) fn no_slots() -> Self {
        Self("it is a Redis Cluster in which nobody has any slots: `redis-cli --cluster create` makes one".to_owned())
    }

    /// Its nodes do not agree.
    pub(crate) fn discord() -> Self {
        Self(
            "masters refuse slots that they have by the map: `redis-cli --cluster check` says more"
                .to_owned(),
        )
    }

    /// A thread of ours panicked over something that came.
    pub(crate) fn panicked() -> Self {
        Self("what came from it made this node panic".to_owned())
    }

    /// What it answered to a command. Of what it says to `HELLO` only the code is shown: it may repeat what was said, and
    /// credentials are said there.
    pub(crate) fn answer(command: &str, error: &[u8]) -> Self {
        let text = String::from_utf8_lossy(error);
        let code = text.split(' ').next().unwrap_or_default();
        let meaning = match code {
            "WRONGPASS" => "user or password are wrong",
            "NOAUTH" => "it wants a password, and the address has none",
            "NOPERM" => {
                "the user may not do it: it needs HELLO, SUBSCRIBE, UNSUBSCRIBE, PUBLISH, in a Redis \
                 Cluster SSUBSCRIBE, SUNSUBSCRIBE, SPUBLISH and CLUSTER SLOTS instead, and the \
                 channels that begin with the cluster's prefix"
            }
            "READONLY" => "it is a read-only replica: messages have to go through its master",
            _ if is_elsewhere(error) => "it does not have that channel in its cluster",
            "LOADING" | "MASTERDOWN" | "BUSY" => "it is not ready",
            "NOPROTO" => "it does not speak RESP3: Redis 6 or newer is needed",
            "ERR" if text.contains("unknown command") && command.contains("SUBSCRIBE") => {
                "it has no sharded channels: as a Redis Cluster, Redis 7 or newer is needed"
            }
            "ERR" if text.contains("unknown command") => {
                "it does not speak RESP3: Redis 6 or newer is needed"
            }
            _ => "it refuses",
        };
        let said = if command == "HELLO" { code } else { &text };
        Self(format!("{meaning} ({command}: {})", Shown::text(said)))
    }
}

/// Whether a shard of a Redis Cluster says that it does not have the slot, or cannot have it now.
pub(crate) fn is_elsewhere(error: &[u8]) -> bool {
    let code = error.split(|byte| *byte == b' ').next().unwrap_or_default();
    matches!(code, b"MOVED" | b"ASK" | b"TRYAGAIN" | b"CLUSTERDOWN")
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_repeats_the_credentials_does_not_show_them() {
        let text =
            b"ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'a' 'secret'";
        let shown = Fault::answer("HELLO", text).to_string();
        assert_eq!(shown, "it does not speak RESP3: Redis 6 or newer is needed (HELLO: ERR)");
        let shown = Fault::answer("SELECT", b"ERR DB index is out of range").to_string();
        assert_eq!(shown, "it refuses (SELECT: ERR DB index is out of range)");
    }
}
