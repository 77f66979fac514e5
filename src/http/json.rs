//! JSON (RFC 8259): values as text and back, and what is wrong with a text that holds no such value.

use std::any::type_name;
use std::fmt::{self, Write as _};

use serde_core::{Deserialize, Serialize};

use crate::base::shown::Shown;
use crate::http::status::Status;

/// Why a client's JSON could not be read, or a value of the program could not be written.
///
/// Its text says what is wrong and where. It may quote the client, escaped and cut, so that it can be logged and answered.
/// A handler answers it to its client, or passes it on with `?`: what could not be read then closes the WebSocket with
/// 1007, or answers the request with [`status`](Self::status), and both carry the text. What could not be written is a
/// mistake in the program, hence 1011 or 500, and the client sees none of it.
///
/// Text that nests more than 127 deep is refused. A value that takes all of that, as `serde_json::Value` does, needs up to
/// 96 KiB of stack, and 256 KiB in debug builds: mind it where [`stack_size`](crate::http::Server::stack_size) is small.
///
/// ```
/// use rwf::prelude::*;
///
/// #[derive(serde::Deserialize)]
/// struct Order { items: Vec<u32> }
///
/// let error = Message::from(r#"{"items": [1, "two"]}"#).json::<Order>().err().unwrap();
/// assert_eq!(
///     error.to_string(),
///     "no valid JSON at line 1, column 19, in `items[1]`: invalid type: string \"two\", expected u32"
/// );
/// assert_eq!((error.line(), error.column(), error.path()), (Some(1), Some(19), Some("items[1]")));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct JsonError {
    fault: Fault,
    reason: String,
    place: Option<Place>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The program's value cannot be written.
    Value,
    /// The client says that it sends something else.
    MediaType,
    /// The client's text is no JSON, or holds another value.
    Text,
}

#[derive(Clone, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
    path: String,
}

impl JsonError {
    /// A body of another type.
    pub(crate) fn media_type(content_type: Option<&str>) -> Self {
        let reason = match content_type {
            Some(other) => format!("is {:?}", Shown::value(other)),
            None => "is missing".to_owned(),
        };
        Self { fault: Fault::MediaType, reason, place: None }
    }

    fn value<T: ?Sized>(error: &serde_json::Error) -> Self {
        let reason = format!("{}: {error}", type_name::<T>());
        Self { fault: Fault::Value, reason: Shown::text(reason).to_string(), place: None }
    }

    fn text(error: &serde_json::Error, text: &[u8]) -> Self {
        let (line, column) = (error.line(), error.column());
        let reason = error.to_string();
        let reason = match reason.strip_suffix(&format!(" at line {line} column {column}")) {
            Some(reason) => reason,
            None => &reason,
        };
        // Of what is malformed, the column is that of the first byte that does not fit; otherwise of the last that was
        // read.
        let read = if error.is_data() { column } else { column.saturating_sub(1) };
        let lines = text.split_inclusive(|byte| *byte == b'\n');
        let start: usize = lines.take(line.saturating_sub(1)).map(<[u8]>::len).sum();
        let path = path_at(&text[..text.len().min(start + read)]);
        Self {
            fault: Fault::Text,
            reason: Shown::value(reason).to_string(),
            place: (line > 0).then_some(Place { line, column, path }),
        }
    }

    /// Whether the client sent what it should not have.
    pub(crate) fn is_of_client(&self) -> bool {
        self.fault != Fault::Value
    }

    /// The HTTP status that it deserves: 400, 415 for a body of another type, 500 for a value that cannot be written.
    #[must_use]
    pub fn status(&self) -> Status {
        match self.fault {
            Fault::Value => Status::INTERNAL_SERVER_ERROR,
            Fault::MediaType => Status::UNSUPPORTED_MEDIA_TYPE,
            Fault::Text => Status::BAD_REQUEST,
        }
    }

    /// What is wrong, without the place.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The line up to which the text was read, from 1, if it was.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.place.as_ref().map(|place| place.line)
    }

    /// The byte of that line, from 1, if the text was read; 0 where the line before was the last with content.
    #[must_use]
    pub fn column(&self) -> Option<usize> {
        self.place.as_ref().map(|place| place.column)
    }

    /// The field or element at that place, such as `user.roles[0]`, if the text was read; empty for the whole value.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        self.place.as_ref().map(|place| place.path.as_str())
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, reason, place } = self;
        match fault {
            Fault::Value => write!(f, "cannot write a value as JSON, a {reason}"),
            Fault::MediaType => {
                write!(f, "the Content-Type has to be application/json, and {reason}")
            }
            Fault::Text => {
                f.write_str("no valid JSON")?;
                if let Some(Place { line, column, path }) = place {
                    write!(f, " at line {line}, column {column}")?;
                    if !path.is_empty() {
                        write!(f, ", in `{path}`")?;
                    }
                }
                write!(f, ": {reason}")
            }
        }
    }
}

impl fmt::Debug for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JsonError({self})")
    }
}

impl std::error::Error for JsonError {}

/// The text of a value.
pub(crate) fn write<T: Serialize + ?Sized>(value: &T) -> Result<String, JsonError> {
    serde_json::to_string(value).map_err(|error| JsonError::value::<T>(&error))
}

/// The value of a text.
pub(crate) fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, JsonError> {
    serde_json::from_str(text).map_err(|error| JsonError::text(&error, text.as_bytes()))
}

/// The value of a text that is not known to be UTF-8.
pub(crate) fn read_bytes<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, JsonError> {
    serde_json::from_slice(text).map_err(|error| JsonError::text(&error, text))
}

/// Whether a Content-Type is JSON: `application/json`, or what is built on it (RFC 6839 §3.1). Parameters have no meaning
/// (RFC 8259 §11).
pub(crate) fn is_json(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media_type == "application/json"
        || (media_type.starts_with("application/") && media_type.ends_with("+json"))
}

/// Where one stands in an object or array.
enum Step<'a> {
    Key(Option<&'a [u8]>),
    Index(usize),
}

/// The path of what stands at the end of `text`, the beginning of a JSON text.
fn path_at(text: &[u8]) -> String {
    let mut steps = Vec::new();
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'{' => steps.push(Step::Key(None)),
            b'[' => steps.push(Step::Index(0)),
            b'}' | b']' => drop(steps.pop()),
            b',' => match steps.last_mut() {
                Some(Step::Key(key)) => *key = None,
                Some(Step::Index(index)) => *index += 1,
                None => {}
            },
            b'"' => {
                let start = at;
                while text.get(at).is_some_and(|byte| *byte != b'"') {
                    at += if text[at] == b'\\' { 2 } else { 1 };
                }
                if let Some(Step::Key(key @ None)) = steps.last_mut() {
                    *key = (at < text.len()).then(|| &text[start..at]);
                }
                at += 1;
            }
            _ => {}
        }
    }
    let mut path = String::new();
    for step in &steps {
        let _ = match step {
            Step::Index(index) => write!(path, "[{index}]"),
            Step::Key(None) => Ok(()),
            Step::Key(Some(key)) => {
                let key = String::from_utf8_lossy(key);
                let dot = if path.is_empty() { "" } else { "." };
                if key.chars().all(|c| c.is_alphanumeric() || c == '_') {
                    write!(path, "{dot}{key}")
                } else {
                    write!(path, "[{:?}]", Shown::value(key))
                }
            }
        };
    }
    Shown::value(path).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;
    use std::collections::HashMap;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "they are only read")]
    struct Order {
        user: User,
        #[serde(default)]
        items: Vec<HashMap<String, u32>>,
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "they are only read")]
    struct User {
        id: u32,
    }

    fn error(text: &str) -> JsonError {
        let error = read::<Order>(text).unwrap_err();
        assert_eq!(read_bytes::<Order>(text.as_bytes()).unwrap_err(), error, "{text:?}");
        error
    }

    #[test]
    fn the_place_of_what_is_wrong_is_told() {
        for (text, line, column, path, reason) in [
            ("", 1, 0, "", "EOF"),
            ("x", 1, 1, "", "expected value"),
            ("7", 1, 1, "", "invalid type"),
            ("{\"user\": 7}", 1, 10, "user", "invalid type"),
            ("{\"user\": }", 1, 10, "user", "expected value"),
            ("{\"user\": {\"id\": \"\\\"}\"}}", 1, 21, "user.id", "invalid type: string"),
            ("{\"user\": {\"id\":\n 1.5}}", 2, 4, "user.id", "floating point"),
            ("{\"user\": {}}", 1, 11, "user", "missing field `id`"),
            ("{\n\n}", 3, 1, "", "missing field `user`"),
            ("{\"user\": {\"id\": 1}, \"x\": 1}", 1, 23, "x", "unknown field `x`"),
            (
                "{\"user\": {\"id\": 1}, \"items\": [{}, {\"a\": 1, \"b, c\": -1}]}",
                1,
                53,
                "items[1][\"b, c\"]",
                "integer `-1`",
            ),
            ("{\"user\": {\"id\": 1}} {}", 1, 21, "", "trailing characters"),
            ("{\"user", 1, 6, "", "EOF"),
            ("{\"a\\", 1, 4, "", "EOF"),
        ] {
            let error = error(text);
            let place = (error.line(), error.column());
            assert_eq!(place, (Some(line), Some(column)), "{text:?}: {error}");
            assert!(error.reason().contains(reason), "{text:?}: {error}");
            assert_eq!(error.path(), Some(path), "{text:?}: {error}");
            assert_eq!(error.status(), 400);
        }
    }

    #[test]
    fn what_a_client_chose_is_escaped_and_cut() {
        let long = "k".repeat(5000);
        for key in ["a\\u001b[2J\\n", "\u{202e}", long.as_str()] {
            let error = error(&format!("{{\"{key}\": 1}}"));
            let text = format!("{error} {error:?} {}", error.path().unwrap());
            assert!(!text.contains(['\u{1b}', '\n', '\u{202e}']), "{text:?}");
            assert!(text.len() < 2000, "{} bytes", text.len());
        }
    }

    #[test]
    fn what_cannot_be_written_names_its_type_and_is_the_program_s_fault() {
        let error = write(&HashMap::from([(vec![1], 2)])).unwrap_err();
        assert!(error.to_string().contains("HashMap<alloc::vec::Vec<i32>, i32>"), "{error}");
        assert!(!error.is_of_client());
        assert_eq!((error.status(), error.line()), (500.into(), None));
    }

    #[test]
    fn json_is_told_by_its_media_type() {
        for yes in ["application/json", "Application/JSON ; charset=utf-8", "application/a.b+json"]
        {
            assert!(is_json(yes), "{yes}");
        }
        for no in ["", "text/json", "text/plain", "application/jsonp", "text/x+json"] {
            assert!(!is_json(no), "{no}");
        }
    }

    #[test]
    fn no_beginning_of_a_text_is_too_odd_for_a_path() {
        for text in ["}]}", ",,\"", "[[[\"\\", "{\"a\":[", "\"\\\"{"] {
            for end in 0..=text.len() {
                let _ = path_at(&text.as_bytes()[..end]);
            }
        }
        assert_eq!(path_at(b"{\"a\":[{\"b\":{}},[1,2"), "a[1][1]");
    }

    proptest! {
        #[test]
        fn whatever_is_wrong_is_told(
            text in proptest::collection::vec(
                proptest::sample::select(b"{}[]\",:\\ a1u\n\xff\x1b".to_vec()),
                0..40,
            ),
        ) {
            if let Err(error) = read_bytes::<HashMap<String, Vec<u32>>>(&text) {
                prop_assert!(!error.to_string().contains(char::is_control), "{:?}", error);
                let lines = text.split(|byte| *byte == b'\n').count();
                prop_assert!(error.line().is_some_and(|line| line <= lines), "{:?}", error);
            }
        }
    }
}
