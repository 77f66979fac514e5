//! Cookies: the request's pairs in, `Set-Cookie` out (RFC 6265).

use std::fmt;
use std::time::Duration;

use crate::http::headers::is_token;

/// A cookie for the client to keep: [`Response::cookie`](crate::http::Response::cookie).
///
/// A new one is `HttpOnly; SameSite=Lax; Path=/` and ends with the browser's session.
///
/// ```
/// use rwf::http::Cookie;
/// use std::time::Duration;
///
/// let cookie = Cookie::new("theme", "dark").max_age(Duration::from_secs(3600)).http_only(false);
/// assert_eq!(cookie.to_string(), "theme=dark; Path=/; Max-Age=3600; SameSite=Lax");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cookie {
    name: String,
    value: String,
    path: String,
    domain: Option<String>,
    max_age: Option<Duration>,
    http_only: bool,
    secure: bool,
    same_site: SameSite,
}

/// When a browser sends a cookie along with requests that another site caused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SameSite {
    /// Never.
    Strict,
    /// Only when a link is followed.
    #[default]
    Lax,
    /// Always; browsers demand [`Cookie::secure`] with it.
    None,
}

impl Cookie {
    /// A cookie of that name and value.
    #[must_use]
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
            path: "/".to_owned(),
            domain: None,
            max_age: None,
            http_only: true,
            secure: false,
            same_site: SameSite::Lax,
        }
    }

    /// The paths below which the client sends it back; `/` unless said otherwise.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// The domain whose hosts get it back; this host alone unless said otherwise.
    #[must_use]
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.domain = Some(domain.into());
        self
    }

    /// How long the client keeps it, in whole seconds; zero removes it.
    #[must_use]
    pub fn max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }

    /// Whether scripts in the page cannot read it.
    #[must_use]
    pub fn http_only(mut self, http_only: bool) -> Self {
        self.http_only = http_only;
        self
    }

    /// Whether it travels over TLS alone.
    #[must_use]
    pub fn secure(mut self, secure: bool) -> Self {
        self.secure = secure;
        self
    }

    /// Whether the client sends it along with requests that other sites cause.
    #[must_use]
    pub fn same_site(mut self, same_site: SameSite) -> Self {
        self.same_site = same_site;
        self
    }

    /// Whether all parts keep to the characters that a cookie may have (RFC 6265 §4.1.1).
    pub(crate) fn is_valid(&self) -> bool {
        let is_octet = |byte: u8| byte.is_ascii_graphic() && !b"\",;\\".contains(&byte);
        let is_attribute =
            |value: &str| value.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b';');
        is_token(&self.name)
            && self.value.bytes().all(is_octet)
            && is_attribute(&self.path)
            && self.domain.as_deref().is_none_or(is_attribute)
    }
}

/// The value of a `Set-Cookie` header.
impl fmt::Display for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}; Path={}", self.name, self.value, self.path)?;
        if let Some(domain) = &self.domain {
            write!(f, "; Domain={domain}")?;
        }
        if let Some(max_age) = self.max_age {
            write!(f, "; Max-Age={}", max_age.as_secs())?;
        }
        if self.http_only {
            f.write_str("; HttpOnly")?;
        }
        if self.secure {
            f.write_str("; Secure")?;
        }
        write!(f, "; SameSite={:?}", self.same_site)
    }
}

/// The values of the cookies of that name in a `Cookie` header.
pub(crate) fn find_all<'a>(header: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    header.split(';').filter_map(move |pair| {
        let (key, value) = pair.trim_matches([' ', '\t']).split_once('=')?;
        (key == name).then(|| {
            value.strip_prefix('"').and_then(|quoted| quoted.strip_suffix('"')).unwrap_or(value)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_exactly() {
        let find = |header, name| find_all(header, name).next();
        let header = "a=1; ab=2;b=\"quoted\"; broken; =x; a=3";
        assert_eq!(find(header, "a"), Some("1"));
        assert_eq!(find(header, "ab"), Some("2"));
        assert_eq!(find(header, "b"), Some("quoted"));
        assert_eq!(find(header, "broken"), None);
        assert_eq!(find(header, "A"), None);
        assert_eq!(find_all(header, "a").collect::<Vec<_>>(), ["1", "3"]);
    }

    #[test]
    fn a_cookie_cannot_smuggle_another_header() {
        assert!(Cookie::new("a", "b").is_valid());
        assert!(!Cookie::new("a", "b\r\nX: y").is_valid());
        assert!(!Cookie::new("a", "b; Domain=x").is_valid());
        assert!(!Cookie::new("a b", "").is_valid());
        assert!(!Cookie::new("a", "").path("/;x").is_valid());
    }
}
