//! Path patterns of routes, and what they take out of a request's path.

use std::fmt;

use percent_encoding::percent_decode_str;

/// A pattern such as `/chat/:room` or `/files/*rest`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    text: String,
    segments: Vec<Segment>,
}

/// Literal before parameter before rest: the order in which the router prefers them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal(String),
    Parameter(String),
    Rest(String),
}

/// Names with the decoded values that a request's path gave them.
pub(crate) type Parameters = Vec<(String, String)>;

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// What is wrong with it, as a sentence without its subject.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix('/') else {
            return Err("has to begin with `/`".to_owned());
        };
        let is_wrong = |c: &char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#');
        if let Some(wrong) = text.chars().find(is_wrong) {
            return Err(format!("cannot contain {wrong:?}"));
        }
        let mut segments = Vec::new();
        let mut names = Vec::new();
        for segment in path.split('/') {
            if let Some(Segment::Rest(name)) = segments.last() {
                return Err(format!("cannot go on after `*{name}`, which takes the rest"));
            }
            let segment = match segment.as_bytes().first() {
                Some(b':') => Segment::Parameter(segment[1..].to_owned()),
                Some(b'*') => Segment::Rest(segment[1..].to_owned()),
                _ => Segment::Literal(decode(segment)?),
            };
            if let Segment::Parameter(name) | Segment::Rest(name) = &segment {
                if name.is_empty() {
                    return Err("has a parameter without a name".to_owned());
                }
                if names.contains(name) {
                    return Err(format!("has two parameters named `{name}`"));
                }
                names.push(name.clone());
            }
            segments.push(segment);
        }
        Ok(Self { text: text.to_owned(), segments })
    }

    /// The parameters if `segments` fit.
    pub(crate) fn matches(&self, segments: &[String]) -> Option<Parameters> {
        let mut parameters = Parameters::new();
        let mut rest = segments;
        for segment in &self.segments {
            match segment {
                // `/files/*rest` takes `/files/`, with an empty rest, and does not take `/files`.
                Segment::Rest(_) if rest.is_empty() => return None,
                Segment::Rest(name) => {
                    parameters.push((name.clone(), rest.join("/")));
                    rest = &[];
                    break;
                }
                Segment::Literal(literal) => {
                    rest = rest.strip_prefix(std::slice::from_ref(literal))?;
                }
                Segment::Parameter(name) => {
                    let (value, others) = rest.split_first()?;
                    if value.is_empty() {
                        return None;
                    }
                    parameters.push((name.clone(), value.clone()));
                    rest = others;
                }
            }
        }
        rest.is_empty().then_some(parameters)
    }

    /// A key that sorts the more specific pattern first.
    pub(crate) fn precedence(&self) -> impl Ord + use<> {
        self.segments.iter().map(Segment::kind).collect::<Vec<_>>()
    }

    /// Whether both match the same paths, so that one of them could never be reached.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(|pair| match pair {
                (Segment::Literal(one), Segment::Literal(other)) => one == other,
                (one, other) => one.kind() == other.kind(),
            })
    }
}

impl Segment {
    fn kind(&self) -> u8 {
        match self {
            Self::Literal(_) => 0,
            Self::Parameter(_) => 1,
            Self::Rest(_) => 2,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The decoded segments of a request's path; `None` when one cannot be decoded.
///
/// Segments are decoded after they were split: `%2F` is a character of its segment.
pub(crate) fn segments(path: &str) -> Option<Vec<String>> {
    path.strip_prefix('/')?.split('/').map(|segment| decode(segment).ok()).collect()
}

/// The segment without its escapes, or what is wrong with it, as a sentence without its subject.
fn decode(segment: &str) -> Result<String, &'static str> {
    let escapes_are_whole = segment
        .split('%')
        .skip(1)
        .all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()));
    if !escapes_are_whole {
        return Err("has a `%` that is not followed by two hexadecimal digits");
    }
    let decoded = percent_decode_str(segment).decode_utf8();
    let decoded = decoded.map_err(|_| "is not UTF-8 when decoded")?;
    if decoded.contains('\0') {
        return Err("has a NUL when decoded, which is refused in every request");
    }
    Ok(decoded.into_owned())
}

/// The decoded pairs of a query, in order; what cannot be decoded keeps its replacement characters.
pub(crate) fn query(text: &str) -> Vec<(String, String)> {
    let decode =
        |part: &str| percent_decode_str(&part.replace('+', " ")).decode_utf8_lossy().into_owned();
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matched(pattern: &str, path: &str) -> Option<Vec<(String, String)>> {
        Pattern::parse(pattern).unwrap().matches(&segments(path).unwrap())
    }

    fn pairs(pairs: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
        Some(pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    #[test]
    fn parameters_take_one_segment_and_rest_takes_all() {
        assert_eq!(matched("/", "/"), pairs(&[]));
        assert_eq!(matched("/chat", "/chat"), pairs(&[]));
        assert_eq!(matched("/chat", "/chat/"), None);
        assert_eq!(matched("/chat/:room", "/chat/blue%20room"), pairs(&[("room", "blue room")]));
        assert_eq!(matched("/chat/:room", "/chat/a%2Fb"), pairs(&[("room", "a/b")]));
        assert_eq!(matched("/chat/:room", "/chat/"), None);
        assert_eq!(matched("/chat/:room", "/chat/a/b"), None);
        assert_eq!(matched("/f/*rest", "/f/a/b"), pairs(&[("rest", "a/b")]));
        assert_eq!(matched("/f/*rest", "/f/"), pairs(&[("rest", "")]));
        assert_eq!(matched("/f/*rest", "/f"), None);
        assert_eq!(matched("/:a/x/:b", "/1/x/2"), pairs(&[("a", "1"), ("b", "2")]));
    }

    #[test]
    fn wrong_patterns_say_what_is_wrong() {
        for (pattern, part) in [
            ("chat", "begin with"),
            ("/a?b", "'?'"),
            ("/a b", "' '"),
            ("/a\u{7f}", r"'\u{7f}'"),
            ("/:a\0", r"'\0'"),
            ("/%", "two hexadecimal digits"),
            ("/a/%zz", "two hexadecimal digits"),
            ("/%00", "NUL"),
            ("/%ff", "is not UTF-8"),
            ("/:", "without a name"),
            ("/:a/:a", "two parameters"),
            ("/*rest/more", "takes the rest"),
        ] {
            let error = Pattern::parse(pattern).unwrap_err();
            assert!(error.contains(part), "{pattern}: {error}");
        }
    }

    #[test]
    fn patterns_with_the_same_shape_are_alike() {
        let alike = |a, b| Pattern::parse(a).unwrap().is_like(&Pattern::parse(b).unwrap());
        assert!(alike("/a/:x", "/a/:y"));
        assert!(!alike("/a/:x", "/a/b"));
        assert!(!alike("/a", "/a/"));
    }

    #[test]
    fn broken_escapes_are_refused() {
        for path in ["/%", "/%1", "/%zz", "/%ff", "/%00", "no-slash"] {
            assert_eq!(segments(path), None, "{path}");
        }
    }

    #[test]
    fn queries_are_decoded_in_order() {
        let expected = pairs(&[("a", "1 2"), ("b", ""), ("a", "ä&"), ("c", "=")]);
        assert_eq!(Some(query("a=1+2&b&&a=%C3%A4%26&c==")), expected);
    }
}
