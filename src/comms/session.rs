//! Who a connection belongs to: sessions, the secrets behind them, and the connections of one session.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::{Uuid, uuid};

#[cfg(feature = "redis")]
use crate::redis::node::NodeId;

/// A visitor, across connections, tabs and reloads. It names somebody and proves nothing: ids may be shown, logged and
/// sent to others.
///
/// Every visitor is a guest until a controller that knows better says who it is
/// ([`Request::with_session`](crate::http::Request::with_session)): a user by the program's own number, name or UUID. A
/// guest's cookie holds a secret, from which the id is derived and which the id does not reveal; no cookie makes anybody
/// a user. All the connections of a session are reached together by
/// [`Comms::websocket`](crate::comms::Comms::websocket).
///
/// ```
/// use rwf::prelude::*;
///
/// for (user, text) in [(SessionId::from(42), "42"), (SessionId::from("alice"), "@alice")] {
///     assert_eq!(user.to_string(), text);
///     assert_eq!(text.parse(), Ok(user));
/// }
/// assert_ne!(SessionId::from("42"), SessionId::from(42), "a name is no number");
/// assert_eq!(SessionId::from("alice").user_name(), Some("alice"));
/// ```
///
/// A clone is cheap. `Display` shows a guest as a UUID, a user as a number, `@name` or `{UUID}`; `Debug` the same, with
/// the control characters of names escaped, as logs want it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(Who);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Who {
    Guest(Uuid),
    /// Has room for every `i64` and every `u64`.
    Number(i128),
    Name(Arc<str>),
    Uuid(Uuid),
}

impl SessionId {
    /// A new guest with a random id, to which no cookie belongs.
    #[must_use]
    pub fn guest() -> Self {
        Self(Who::Guest(Uuid::new_v4()))
    }

    /// The guest whose cookie holds `value`, for programs that see the cookie where rwf does not; `None` unless it is a
    /// version 4 UUID as servers write them.
    ///
    /// ```
    /// use rwf::prelude::*;
    ///
    /// let guest = SessionId::from_cookie("3f2b8c1e-7d4a-4c5b-9e6f-1a2b3c4d5e6f").ok_or("no session")?;
    /// assert!(guest.is_guest());
    /// assert_ne!(SessionId::from_cookie(&guest.to_string()), Some(guest), "an id is no cookie");
    /// # Ok::<(), &str>(())
    /// ```
    #[must_use]
    pub fn from_cookie(value: &str) -> Option<Self> {
        Secret::from_cookie(value).map(Secret::session)
    }

    /// Whether it is somebody of whom no controller has said who it is.
    #[must_use]
    pub fn is_guest(&self) -> bool {
        matches!(self.0, Who::Guest(_))
    }

    /// The number of a user who has one, in the type that the program gave it in; `None` also where it does not fit.
    ///
    /// ```
    /// # use rwf::prelude::*;
    /// let client = SessionId::from(42);
    /// let user: Option<i64> = client.user_number();
    /// assert_eq!(user, Some(42));
    /// ```
    #[must_use]
    pub fn user_number<N: TryFrom<i128>>(&self) -> Option<N> {
        if let Who::Number(number) = self.0 { number.try_into().ok() } else { None }
    }

    /// The name of a user who has one.
    #[must_use]
    pub fn user_name(&self) -> Option<&str> {
        if let Who::Name(name) = &self.0 { Some(name) } else { None }
    }

    /// The UUID of a user who has one. A guest has none that a program could use.
    #[must_use]
    pub fn user_uuid(&self) -> Option<Uuid> {
        if let Who::Uuid(uuid) = self.0 { Some(uuid) } else { None }
    }
}

/// A guest's UUID, a user's number, `@name` or `{UUID}`. A name stands there as it is; `Debug` escapes it.
impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Who::Guest(uuid) => uuid.fmt(f),
            Who::Number(number) => number.fmt(f),
            Who::Name(name) => f.write_str("@").and_then(|()| f.write_str(name)),
            Who::Uuid(uuid) => uuid.braced().fmt(f),
        }
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Who::Name(name) => write!(f, "@{}", name.escape_debug()),
            Who::Guest(_) | Who::Number(_) | Who::Uuid(_) => fmt::Display::fmt(self, f),
        }
    }
}

/// Reads what `Display` writes.
impl FromStr for SessionId {
    type Err = ParseSessionIdError;

    fn from_str(text: &str) -> Result<Self, ParseSessionIdError> {
        if let Some(name) = text.strip_prefix('@') {
            return Ok(name.into());
        }
        if let Ok(number) = text.parse::<i64>() {
            return Ok(number.into());
        }
        if let Ok(number) = text.parse::<u64>() {
            return Ok(number.into());
        }
        // Of the forms that the parser takes, these lengths tell the two that `Display` writes.
        match (Uuid::try_parse(text), text.len()) {
            (Ok(uuid), uuid::fmt::Hyphenated::LENGTH) => Ok(Self(Who::Guest(uuid))),
            (Ok(uuid), uuid::fmt::Braced::LENGTH) => Ok(uuid.into()),
            _ => Err(ParseSessionIdError(text.to_owned())),
        }
    }
}

/// The text is no session as `Display` writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseSessionIdError(String);

impl fmt::Display for ParseSessionIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = &self.0;
        write!(f, "{text:?} is no session: expected a UUID, a whole number, `@name` or `{{UUID}}`")
    }
}

impl std::error::Error for ParseSessionIdError {}

impl From<&Self> for SessionId {
    fn from(session: &Self) -> Self {
        session.clone()
    }
}

macro_rules! from_numbers {
    ($($number:ty)*) => {$(
        /// The user of that number.
        impl From<$number> for SessionId {
            fn from(user: $number) -> Self {
                Self(Who::Number(user.into()))
            }
        }
    )*};
}

from_numbers!(i32 i64 u32 u64);

/// The user of that number.
impl From<usize> for SessionId {
    fn from(user: usize) -> Self {
        // No machine's numbers are longer.
        Self::from(user as u64)
    }
}

/// The user of that name.
impl From<&str> for SessionId {
    fn from(user: &str) -> Self {
        Self(Who::Name(user.into()))
    }
}

/// The user of that name.
impl From<String> for SessionId {
    fn from(user: String) -> Self {
        Self(Who::Name(user.into()))
    }
}

/// The user of that UUID, which the program has given it. It is never a guest, even if a guest's id is the same UUID.
impl From<Uuid> for SessionId {
    fn from(user: Uuid) -> Self {
        Self(Who::Uuid(user))
    }
}

/// What a guest's cookie holds: whoever knows it is that guest.
#[derive(Clone, Copy)]
pub(crate) struct Secret(Uuid);

impl Secret {
    /// Of 122 random bits.
    pub(crate) fn random() -> Self {
        Self(Uuid::new_v4())
    }

    pub(crate) fn from_cookie(value: &str) -> Option<Self> {
        let uuid = Uuid::try_parse(value).ok()?;
        let is_ours = uuid.get_version_num() == 4 && value.len() == uuid::fmt::Hyphenated::LENGTH;
        is_ours.then_some(Self(uuid))
    }

    /// The value of the cookie.
    pub(crate) fn to_cookie(self) -> String {
        self.0.to_string()
    }

    /// The guest whose secret it is. Its id is a version 5 UUID: a digest, from which the secret cannot be computed.
    pub(crate) fn session(self) -> SessionId {
        const GUESTS: Uuid = uuid!("0f5c4d1b-94a7-4ca1-b7a5-3c1a8e6d27f9");
        SessionId(Who::Guest(Uuid::new_v5(&GUESTS, self.0.as_bytes())))
    }
}

/// Shows nothing of it.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// One connection of a session: one tab. Unique within the process, never used twice.
///
/// In a [cluster](crate::guide::cluster) it is unique among all nodes: `Display` writes `7@` and the node then,
/// which `FromStr` reads, so that one node may be told of a connection of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    #[cfg(feature = "redis")]
    node: NodeId,
    number: u64,
}

impl ConnectionId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            #[cfg(feature = "redis")]
            node: NodeId::of_process(),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// The number within the process.
    pub(crate) fn number(self) -> u64 {
        self.number
    }
}

#[cfg(feature = "redis")]
impl ConnectionId {
    pub(crate) fn on(node: NodeId, number: u64) -> Self {
        Self { node, number }
    }

    /// Where it is. One that came before its process joined a cluster is nowhere that others could reach.
    pub(crate) fn node(self) -> NodeId {
        self.node
    }
}

/// One server of the process. Unique, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ServerId(u64);

impl ServerId {
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
        #[cfg(feature = "redis")]
        if self.node != NodeId::NONE {
            return write!(f, "{}@{}", self.number, self.node);
        }
        self.number.fmt(f)
    }
}

/// Reads what `Display` writes. With the feature `redis`.
#[cfg(feature = "redis")]
impl FromStr for ConnectionId {
    type Err = ParseConnectionIdError;

    fn from_str(text: &str) -> Result<Self, ParseConnectionIdError> {
        let (number, node) = match text.split_once('@') {
            Some((number, node)) => (number, u64::from_str_radix(node, 16)),
            None => (text, Ok(NodeId::NONE.number())),
        };
        match (number.parse(), node) {
            (Ok(number), Ok(node)) => Ok(Self { node: NodeId::from_number(node), number }),
            _ => Err(ParseConnectionIdError(text.to_owned())),
        }
    }
}

/// The text is no connection as `Display` writes it.
#[cfg(feature = "redis")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseConnectionIdError(String);

#[cfg(feature = "redis")]
impl fmt::Display for ParseConnectionIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = &self.0;
        write!(f, "{text:?} is no connection: expected a number, or a number, `@` and a node")
    }
}

#[cfg(feature = "redis")]
impl std::error::Error for ParseConnectionIdError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions() -> Vec<SessionId> {
        let uuid = Uuid::new_v4();
        let numbers = [0.into(), (-7).into(), i64::MIN.into(), i64::MAX.into(), u64::MAX.into()];
        let names = ["", "alice", "42", "@", "a b\n", "{}", &uuid.to_string()].map(SessionId::from);
        let uuids = [SessionId::guest(), uuid.into(), Secret(uuid).session()];
        numbers.into_iter().chain(names).chain(uuids).chain([SessionId(Who::Guest(uuid))]).collect()
    }

    #[test]
    fn display_and_parse_are_inverse() {
        for session in sessions() {
            assert_eq!(session.to_string().parse(), Ok(session));
        }
        let simple = Uuid::new_v4().simple().to_string();
        for text in ["visitor", "", "-", "1.5", "18446744073709551616", simple.as_str()] {
            let error = text.parse::<SessionId>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[cfg(feature = "redis")]
    #[test]
    fn a_connection_is_read_as_it_is_written_with_its_node_and_without() {
        let node = NodeId::random();
        for connection in [ConnectionId::on(NodeId::NONE, 7), ConnectionId::on(node, u64::MAX)] {
            assert_eq!(connection.to_string().parse(), Ok(connection));
        }
        assert_eq!(ConnectionId::on(NodeId::NONE, 7).to_string(), "7");
        for text in ["", "@", "7@", "@7", "-7", "7@xyz", "7@1@2"] {
            assert!(
                text.parse::<ConnectionId>().unwrap_err().to_string().contains(text),
                "{text:?}"
            );
        }
    }

    #[test]
    fn users_by_number_name_and_uuid_and_guests_are_different_people() {
        let sessions = sessions();
        let distinct: std::collections::HashSet<_> = sessions.iter().collect();
        assert_eq!(distinct.len(), sessions.len(), "{sessions:?}");
        let over = u64::MAX - 6;
        assert_ne!(
            SessionId::from(over),
            SessionId::from(over.cast_signed()),
            "no wrapping around"
        );
        assert_eq!(SessionId::from(7_u64), SessionId::from(7), "a number is a number in any type");
    }

    #[test]
    fn a_session_says_who_it_is() {
        let uuid = Uuid::new_v4();
        for (session, is_guest, number, name, of_uuid) in [
            (SessionId::guest(), true, None, None, None),
            (42.into(), false, Some(42), None, None),
            (u64::MAX.into(), false, Some(u64::MAX), None, None),
            ("alice".into(), false, None, Some("alice"), None),
            (uuid.into(), false, None, None, Some(uuid)),
        ] {
            assert_eq!(session.is_guest(), is_guest, "{session}");
            assert_eq!(session.user_number(), number, "{session}");
            assert_eq!(session.user_name(), name, "{session}");
            assert_eq!(session.user_uuid(), of_uuid, "{session}");
        }
        assert_eq!(SessionId::from(u64::MAX).user_number::<i64>(), None, "it does not fit");
    }

    #[test]
    fn a_session_in_the_log_is_escaped() {
        assert_eq!(format!("{:?}", SessionId::from(42)), "42");
        assert_eq!(format!("{:?}", SessionId::from("alice")), "@alice");
        assert_eq!(format!("{:?}", SessionId::from("a\nforged line")), "@a\\nforged line");
        let guest = SessionId::guest();
        assert_eq!(format!("{guest:?}"), guest.to_string());
    }

    #[test]
    fn what_is_shown_of_a_guest_is_not_what_its_cookie_holds() {
        let secret = Secret::random();
        let cookie = secret.to_cookie();
        let guest = SessionId::from_cookie(&cookie).unwrap();
        assert_eq!(
            SessionId::from_cookie(&cookie),
            Some(guest.clone()),
            "the same guest each time"
        );
        assert_ne!(guest, Secret::random().session(), "another cookie is another guest");
        assert_ne!(SessionId::from_cookie(&guest.to_string()), Some(guest.clone()));
        let shown = format!("{guest} {guest:?} {secret:?}");
        assert!(!shown.contains(&cookie), "{shown}");

        let fresh = SessionId::guest();
        assert_ne!(SessionId::from_cookie(&fresh.to_string()), Some(fresh), "nobody's cookie");
        assert_ne!(SessionId::from(secret.0), guest, "a user's UUID is no cookie");
    }

    #[test]
    fn only_our_own_cookies_are_taken() {
        let uuid = Secret::random().0;
        assert!(SessionId::from_cookie(&uuid.to_string()).is_some());
        for value in [uuid.simple().to_string(), uuid.braced().to_string(), uuid.urn().to_string()]
        {
            assert_eq!(SessionId::from_cookie(&value), None, "{value:?}");
        }
        let derived = Secret(uuid).session().to_string();
        for value in ["42", "@alice", "", &Uuid::nil().to_string(), &derived] {
            assert_eq!(SessionId::from_cookie(value), None, "{value:?}");
        }
    }
}
