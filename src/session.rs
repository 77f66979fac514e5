//! Who a connection belongs to: sessions, and the connections of one session.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

/// A visitor, across connections, tabs and reloads.
///
/// Every visitor is a guest with a random id, kept in a cookie, until a controller that knows better says who it is
/// ([`Request::with_session`](crate::http::Request::with_session)). All the connections of a session are reached
/// together by [`Comms::websocket`](crate::comms::Comms::websocket).
///
/// ```
/// use rwf::prelude::*;
///
/// let user = SessionId::from(42);
/// assert_eq!(user.to_string(), "42");
/// assert_eq!("42".parse(), Ok(user));
///
/// let guest = SessionId::guest();
/// assert_eq!(guest.to_string().parse(), Ok(guest));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SessionId {
    /// Somebody known by a cookie alone.
    Guest(Uuid),
    /// A user of the program, by the program's own number.
    Authenticated(i64),
}

impl SessionId {
    /// A new guest, with a random id of 122 bits.
    #[must_use]
    pub fn guest() -> Self {
        Self::Guest(Uuid::new_v4())
    }

    /// The guest whose cookie holds `value`; `None` unless it is a version 4 UUID as this server writes them.
    pub(crate) fn from_cookie(value: &str) -> Option<Self> {
        let uuid = Uuid::try_parse(value).ok()?;
        (uuid.get_version_num() == 4 && value.len() == 36).then_some(Self::Guest(uuid))
    }
}

/// A guest's UUID or a user's number.
impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guest(uuid) => uuid.fmt(f),
            Self::Authenticated(user) => user.fmt(f),
        }
    }
}

/// Reads what `Display` writes.
impl FromStr for SessionId {
    type Err = ParseSessionIdError;

    fn from_str(text: &str) -> Result<Self, ParseSessionIdError> {
        if let Ok(user) = text.parse() {
            return Ok(Self::Authenticated(user));
        }
        Uuid::parse_str(text).map(Self::Guest).map_err(|_| ParseSessionIdError(text.to_owned()))
    }
}

/// The text is neither a UUID nor a whole number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseSessionIdError(String);

impl fmt::Display for ParseSessionIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no session: expected a UUID or a whole number", self.0)
    }
}

impl std::error::Error for ParseSessionIdError {}

impl From<&Self> for SessionId {
    fn from(session: &Self) -> Self {
        *session
    }
}

impl From<Uuid> for SessionId {
    fn from(uuid: Uuid) -> Self {
        Self::Guest(uuid)
    }
}

impl From<i64> for SessionId {
    fn from(user: i64) -> Self {
        Self::Authenticated(user)
    }
}

impl From<i32> for SessionId {
    fn from(user: i32) -> Self {
        Self::Authenticated(user.into())
    }
}

impl From<u32> for SessionId {
    fn from(user: u32) -> Self {
        Self::Authenticated(user.into())
    }
}

/// One connection of a session: one tab. Unique within the process, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl From<&Self> for ConnectionId {
    fn from(connection: &Self) -> Self {
        *connection
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_and_parse_are_inverse() {
        for session in [SessionId::guest(), 0.into(), (-7).into(), i64::MAX.into()] {
            assert_eq!(session.to_string().parse(), Ok(session));
        }
        assert!("visitor".parse::<SessionId>().is_err());
    }

    #[test]
    fn only_our_own_cookies_are_taken() {
        let SessionId::Guest(uuid) = SessionId::guest() else { panic!("a guest is a guest") };
        assert_eq!(SessionId::from_cookie(&uuid.to_string()), Some(SessionId::Guest(uuid)));
        assert_eq!(SessionId::from_cookie(&uuid.simple().to_string()), None);
        assert_eq!(SessionId::from_cookie("42"), None);
        assert_eq!(SessionId::from_cookie(&Uuid::nil().to_string()), None);
    }
}
