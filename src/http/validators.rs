//! What tells one version of a representation from another, and what a request makes depend on it (RFC 9110 §8.8, §13).

use std::time::{Duration, SystemTime};

use httpdate::{fmt_http_date, parse_http_date};

use crate::http::headers::Headers;
use crate::http::response::Response;

/// The validators of a representation.
#[derive(Debug, Clone)]
pub(crate) struct Validators {
    /// With its quotes, and `W/` before it if it is weak.
    pub(crate) etag: String,
    /// In whole seconds, as headers have it.
    modified: Option<SystemTime>,
}

/// What the conditions of a request come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Send,
    /// 304: the client has it.
    NotModified,
    /// 412: it is not the version that the client speaks of.
    Failed,
}

impl Validators {
    pub(crate) fn new(etag: String, modified: Option<SystemTime>) -> Self {
        // A date of the future says nothing (RFC 9110 §8.8.2.1), and headers know no year before 1970.
        let modified = modified.filter(|modified| *modified <= SystemTime::now());
        let since_1970 = modified.and_then(|date| date.duration_since(SystemTime::UNIX_EPOCH).ok());
        let whole = |since: Duration| SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs());
        Self { etag, modified: since_1970.map(whole) }
    }

    /// Tells the client: the date only beside a strong tag. Beside a weak one there may be another version yet within the
    /// same second, for which the client would take its own then (RFC 9110 §8.8.2.2).
    pub(crate) fn add_to(&self, response: Response) -> Response {
        let response = response.header("ETag", self.etag.as_str());
        match self.modified.filter(|_| !self.is_weak()) {
            Some(modified) => response.header("Last-Modified", fmt_http_date(modified)),
            None => response,
        }
    }

    /// Weighs the conditions of a `GET` or `HEAD`, in the order of RFC 9110 §13.2.2.
    pub(crate) fn weigh(&self, headers: &Headers) -> Verdict {
        if headers.get("If-Match").is_some() {
            if !self.is_among(headers, "If-Match", same_strong) {
                return Verdict::Failed;
            }
        } else if self.is_later_than(headers.get("If-Unmodified-Since")) == Some(true) {
            return Verdict::Failed;
        }
        if headers.get("If-None-Match").is_some() {
            if self.is_among(headers, "If-None-Match", same_weak) {
                return Verdict::NotModified;
            }
        } else if self.is_later_than(headers.get("If-Modified-Since")) == Some(false) {
            return Verdict::NotModified;
        }
        Verdict::Send
    }

    /// Whether a `Range` counts: the client has the rest of the same version (RFC 9110 §13.1.5).
    pub(crate) fn allow_range(&self, headers: &Headers) -> bool {
        let Ok(condition) = headers.single("If-Range") else {
            return false;
        };
        condition.is_none_or(|validator| {
            let is_date =
                || parse_http_date(validator).ok().is_some_and(|date| self.modified == Some(date));
            // A date is as good as a strong tag where the tag beside it is one.
            same_strong(&self.etag, validator) || (!self.is_weak() && is_date())
        })
    }

    fn is_weak(&self) -> bool {
        self.etag.starts_with("W/")
    }

    fn is_among(&self, headers: &Headers, name: &str, is_same: fn(&str, &str) -> bool) -> bool {
        headers.list(name).any(|tag| tag == "*" || is_same(&self.etag, tag))
    }

    /// `None` where either date is not known.
    fn is_later_than(&self, date: Option<&str>) -> Option<bool> {
        let date = parse_http_date(date?).ok()?;
        Some(self.modified? > date)
    }
}

/// Weak tags are never the same here (RFC 9110 §8.8.3.2).
fn same_strong(one: &str, other: &str) -> bool {
    one == other && !one.starts_with("W/")
}

fn same_weak(one: &str, other: &str) -> bool {
    let opaque = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
    opaque(one) == opaque(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: &str = "Tue, 02 Jan 2024 00:00:00 GMT";
    const BEFORE: &str = "Mon, 01 Jan 2024 23:59:59 GMT";
    type Fields = &'static [(&'static str, &'static str)];
    const AFTER: &str = "Tue, 02 Jan 2024 00:00:01 GMT";

    fn headers(fields: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::default();
        for (name, value) in fields {
            headers.append(name, value);
        }
        headers
    }

    fn of_that_day(etag: &str) -> Validators {
        let modified = parse_http_date(DAY).unwrap() + Duration::from_millis(900);
        Validators::new(etag.to_owned(), Some(modified))
    }

    #[test]
    fn conditions_are_weighed_in_their_order() {
        use Verdict::{Failed, NotModified, Send};
        let cases: &[(Fields, Verdict, Verdict)] = &[
            (&[], Send, Send),
            (&[("If-None-Match", "\"a\"")], NotModified, NotModified),
            (&[("If-None-Match", "W/\"a\"")], NotModified, NotModified),
            (&[("If-None-Match", "\"x\", W/\"y\",\"a\"")], NotModified, NotModified),
            (&[("If-None-Match", "\"x\""), ("If-None-Match", "\"a\"")], NotModified, NotModified),
            (&[("If-None-Match", "*")], NotModified, NotModified),
            (&[("If-None-Match", "\"x\"")], Send, Send),
            (&[("If-None-Match", "a")], Send, Send),
            (&[("If-None-Match", "")], Send, Send),
            (&[("If-Modified-Since", DAY)], NotModified, NotModified),
            (&[("If-Modified-Since", AFTER)], NotModified, NotModified),
            (&[("If-Modified-Since", BEFORE)], Send, Send),
            (&[("If-Modified-Since", "yesterday")], Send, Send),
            (&[("If-None-Match", "\"x\""), ("If-Modified-Since", DAY)], Send, Send),
            (&[("If-Match", "\"a\"")], Send, Failed),
            (&[("If-Match", "*")], Send, Send),
            (&[("If-Match", "\"x\"")], Failed, Failed),
            (&[("If-Match", "\"a\""), ("If-None-Match", "\"a\"")], NotModified, Failed),
            (&[("If-Unmodified-Since", BEFORE)], Failed, Failed),
            (&[("If-Unmodified-Since", DAY)], Send, Send),
            (&[("If-Match", "*"), ("If-Unmodified-Since", BEFORE)], Send, Send),
        ];
        for (fields, strong, weak) in cases {
            let headers = headers(fields);
            assert_eq!(of_that_day("\"a\"").weigh(&headers), *strong, "{fields:?}");
            assert_eq!(of_that_day("W/\"a\"").weigh(&headers), *weak, "weak, {fields:?}");
        }
        let undated = Validators::new("\"a\"".to_owned(), None);
        for name in ["If-Modified-Since", "If-Unmodified-Since"] {
            assert_eq!(undated.weigh(&headers(&[(name, BEFORE)])), Send, "{name}");
        }
    }

    #[test]
    fn a_range_counts_for_the_same_version_alone() {
        let cases: &[(Fields, bool, bool)] = &[
            (&[], true, true),
            (&[("If-Range", "\"a\"")], true, false),
            (&[("If-Range", "W/\"a\"")], false, false),
            (&[("If-Range", "\"x\"")], false, false),
            (&[("If-Range", DAY)], true, false),
            (&[("If-Range", AFTER)], false, false),
            (&[("If-Range", "\"a\""), ("If-Range", "\"a\"")], false, false),
        ];
        for (fields, strong, weak) in cases {
            let headers = headers(fields);
            assert_eq!(of_that_day("\"a\"").allow_range(&headers), *strong, "{fields:?}");
            assert_eq!(of_that_day("W/\"a\"").allow_range(&headers), *weak, "weak, {fields:?}");
        }
    }

    #[test]
    fn a_date_that_says_nothing_or_that_headers_cannot_have_is_left_out() {
        let of = |etag: &str, modified| {
            let validators = Validators::new(etag.to_owned(), Some(modified));
            let response = validators.add_to(Response::new());
            response.header_value("Last-Modified").map(str::to_owned)
        };
        let (hour, day) = (Duration::from_secs(3600), parse_http_date(DAY).unwrap());
        assert_eq!(of("\"a\"", SystemTime::now() + hour), None);
        assert_eq!(of("\"a\"", SystemTime::UNIX_EPOCH - hour), None);
        assert_eq!(of("W/\"a\"", day), None, "another version may have it too");
        assert_eq!(of("\"a\"", day).as_deref(), Some(DAY));
    }
}
