//! What handlers receive and programs send: a message, text or binary.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;
use tungstenite::Utf8Bytes;

#[cfg(feature = "json")]
use crate::http::json::{self, JsonError};

/// A WebSocket message, text or binary (RFC 6455 §5.6). A clone shares the payload.
///
/// Pings, pongs and closes are the server's business and never reach a handler as messages. There will be no third kind,
/// so that a `match` needs no arm for it.
///
/// ```
/// use rwf::prelude::*;
///
/// let message = Message::from("hello");
/// match &message {
///     Message::Text(text) => assert_eq!(text.to_uppercase(), "HELLO"),
///     Message::Binary(bytes) => assert!(bytes.is_empty()),
/// }
/// assert_eq!(message, "hello");
/// assert_eq!(Message::from(vec![1, 2, 3]).as_bytes(), [1, 2, 3]);
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "RFC 6455 §5.6 has these two kinds, and handlers match on both"
)]
pub enum Message {
    /// UTF-8 text, checked on arrival.
    Text(Text),
    /// Bytes as they are.
    Binary(Bytes),
}

impl Message {
    /// A text message.
    #[must_use]
    pub fn text(text: impl Into<Text>) -> Self {
        Self::Text(text.into())
    }

    /// A binary message.
    #[must_use]
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Self::Binary(bytes.into())
    }

    /// A text message with `value` as JSON. With the feature `json`.
    ///
    /// ```
    /// use rwf::prelude::*;
    ///
    /// #[derive(serde::Serialize)]
    /// struct Position { x: f32, y: f32 }
    ///
    /// assert_eq!(Message::json(&Position { x: 0.5, y: 2.0 })?, r#"{"x":0.5,"y":2.0}"#);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// JSON has no such value: a map whose keys are no strings, or what `Serialize` of its type refuses.
    #[cfg(feature = "json")]
    pub fn json<T: serde_core::Serialize + ?Sized>(value: &T) -> Result<Self, JsonError> {
        json::write(value).map(Self::from)
    }

    /// The payload, whichever kind the message is.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The payload of a text message; `None` for a binary one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// The payload, whichever kind the message is, without a copy.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Text(text) => text.into_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The payload of a text message, without a copy.
    ///
    /// # Errors
    ///
    /// The message, if it is a binary one.
    pub fn into_text(self) -> Result<Text, Self> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Binary(_) => Err(self),
        }
    }

    /// The message to be sent as it is, where messages are compressed (`Websocket::deflate`, with the feature `deflate`): for
    /// one that holds a secret beside what somebody else may choose, who could find it out from the length
    /// ([why](crate::guide::security)). All that sends a message takes it.
    ///
    /// ```
    /// use rwf::prelude::*;
    ///
    /// fn answer(tab: ConnectionId, search: &str, token: &str) -> Result<usize, SendError> {
    ///     let page = format!("no results for {search}; your token is {token}");
    ///     Comms::connection(tab).send(Message::from(page).uncompressed())
    /// }
    /// # let _ = answer;
    /// ```
    #[must_use]
    pub fn uncompressed(self) -> Outgoing {
        Outgoing { message: self, is_compressible: false }
    }

    /// Length of the payload in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether the payload is empty, which is a message nevertheless.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }
}

/// A message to be sent, and whether it may be compressed. Made from whatever a [`Message`] is made from, and by
/// [`Message::uncompressed`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Outgoing {
    message: Message,
    is_compressible: bool,
}

impl Outgoing {
    pub(crate) fn into_parts(self) -> (Message, bool) {
        (self.message, self.is_compressible)
    }

    #[cfg(feature = "redis")]
    pub(crate) fn parts(&self) -> (&Message, bool) {
        (&self.message, self.is_compressible)
    }

    /// With another message in its place.
    pub(crate) fn map(self, change: impl FnOnce(Message) -> Message) -> Self {
        Self { message: change(self.message), ..self }
    }
}

impl<T: Into<Message>> From<T> for Outgoing {
    fn from(message: T) -> Self {
        Self { message: message.into(), is_compressible: true }
    }
}

/// Reads a message as JSON, with the feature `json`. The prelude brings it.
///
/// It is a trait because [`Message::json`] makes a message, and a type has one function of a name:
/// `message.json::<Command>()` is this one.
#[cfg(feature = "json")]
pub trait ReadJson {
    /// The payload's value, which is JSON, whichever kind the message is.
    ///
    /// ```
    /// use rwf::prelude::*;
    ///
    /// #[derive(serde::Deserialize)]
    /// #[serde(tag = "type", rename_all = "lowercase")]
    /// enum Command { Say { text: String }, Leave }
    ///
    /// fn chat(mut socket: Socket) -> Result<(), Error> {
    ///     while let Some(message) = socket.recv()? {
    ///         match message.json() {
    ///             Ok(Command::Say { text }) => socket.send(text)?,
    ///             Ok(Command::Leave) => break,
    ///             // The one tab is told, and stays. With `?` it would be closed with 1007.
    ///             Err(error) => socket.send(error.to_string())?,
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// # let _ = websocket(chat);
    /// ```
    ///
    /// # Errors
    ///
    /// The payload is no JSON, or that of another value. Passed on through `?`, that closes the WebSocket with 1007.
    fn json<'a, T: serde_core::Deserialize<'a>>(&'a self) -> Result<T, JsonError>;
}

#[cfg(feature = "json")]
impl ReadJson for Message {
    fn json<'a, T: serde_core::Deserialize<'a>>(&'a self) -> Result<T, JsonError> {
        match self {
            Self::Text(text) => json::read(text),
            Self::Binary(bytes) => json::read_bytes(bytes),
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.debug_tuple("Text").field(&text.as_str()).finish(),
            Self::Binary(bytes) => f.debug_tuple("Binary").field(bytes).finish(),
        }
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<&String> for Message {
    fn from(text: &String) -> Self {
        Self::Text(text.as_str().into())
    }
}

impl From<Cow<'_, str>> for Message {
    fn from(text: Cow<'_, str>) -> Self {
        Self::Text(text.into_owned().into())
    }
}

impl From<Text> for Message {
    fn from(text: Text) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes.into())
    }
}

impl From<&[u8]> for Message {
    fn from(bytes: &[u8]) -> Self {
        Self::Binary(Bytes::copy_from_slice(bytes))
    }
}

impl<const N: usize> From<&[u8; N]> for Message {
    fn from(bytes: &[u8; N]) -> Self {
        Self::from(bytes.as_slice())
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }
}

impl From<&Self> for Message {
    fn from(message: &Self) -> Self {
        message.clone()
    }
}

impl PartialEq<str> for Message {
    fn eq(&self, text: &str) -> bool {
        self.as_text() == Some(text)
    }
}

impl PartialEq<&str> for Message {
    fn eq(&self, text: &&str) -> bool {
        self.as_text() == Some(*text)
    }
}

/// The payload of a text message: a `str` that is cheap to clone.
///
/// ```
/// use rwf::websocket::Text;
///
/// let text = Text::from("hey there");
/// assert_eq!(text.clone(), "hey there");
/// assert!(text.starts_with("hey"));
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Text(Utf8Bytes);

impl Text {
    /// Takes `bytes` over if they are UTF-8.
    #[inline]
    pub(crate) fn from_utf8(bytes: Bytes) -> Option<Self> {
        Utf8Bytes::try_from(bytes).ok().map(Self)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The text's bytes, shared.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0.into()
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.0.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self
    }
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self
    }
}

// Agrees with `str`, as `Borrow` demands.
impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.as_str().to_owned()
    }
}

impl From<Text> for Bytes {
    fn from(text: Text) -> Self {
        text.into_bytes()
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialEq<String> for Text {
    fn eq(&self, other: &String) -> bool {
        self.as_str() == other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_choose_the_kind() {
        assert_eq!(Message::from("a").as_text(), Some("a"));
        assert_eq!(Message::from(String::from("a")).as_text(), Some("a"));
        assert_eq!(Message::from(Cow::Borrowed("a")).as_text(), Some("a"));
        assert_eq!(Message::from(vec![1_u8]).as_text(), None);
        assert_eq!(Message::from(&[1_u8, 2][..]).as_bytes(), [1, 2]);
        assert_eq!(Message::from(b"xy").len(), 2);
    }

    #[test]
    fn a_message_gives_its_payload_away() {
        let bytes = vec![1, 2, 3];
        let address = bytes.as_ptr();
        assert_eq!(Message::from(bytes).into_bytes().as_ptr(), address, "it was copied");
        assert_eq!(Message::from("hey").into_text().unwrap(), "hey");
        assert_eq!(Message::from(vec![1]).into_text(), Err(Message::from(vec![1])));
    }

    #[test]
    fn a_clone_shares_the_payload() {
        let message = Message::binary(vec![7; 1000]);
        assert_eq!(message.as_bytes().as_ptr(), message.clone().as_bytes().as_ptr());
    }
}
