//! Who a request says it is by its `Authorization` header, what a 401 asks for, and how secrets are compared.

use data_encoding::BASE64;
use subtle::ConstantTimeEq;

use crate::http::headers::Headers;

/// The token of `Authorization: Bearer` (RFC 6750 §2.1).
pub(crate) fn bearer(headers: &Headers) -> Option<&str> {
    of_scheme(headers, "Bearer")
}

/// User and password of `Authorization: Basic` (RFC 7617 §2).
pub(crate) fn basic(headers: &Headers) -> Option<(String, String)> {
    let decoded = BASE64.decode(of_scheme(headers, "Basic")?.as_bytes()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    if text.contains(char::is_control) {
        return None;
    }
    // A password may have colons, a user may not.
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// The credentials of that scheme, which are one token (RFC 9110 §11.2). Of several headers none is trusted: what stands
/// before this server may have looked at another one.
fn of_scheme<'a>(headers: &'a Headers, scheme: &str) -> Option<&'a str> {
    let (named, token) = headers.single("Authorization").ok()??.split_once(' ')?;
    let token = token.trim_start_matches(' ');
    let characters = token.trim_end_matches('=');
    let is_token = !characters.is_empty()
        && characters.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte));
    (named.eq_ignore_ascii_case(scheme) && is_token).then_some(token)
}

/// The value of a `WWW-Authenticate` header (RFC 9110 §11.6.1).
pub(crate) fn challenge(scheme: &str, realm: &str) -> String {
    let realm = realm.replace('\\', r"\\").replace('"', "\\\"");
    // What `basic` takes a user and a password for (RFC 7617 §2.1).
    let charset = if scheme.eq_ignore_ascii_case("Basic") { r#", charset="UTF-8""# } else { "" };
    format!("{scheme} realm=\"{realm}\"{charset}")
}

/// Whether two secrets are the same, in a time that does not tell where they differ: for a token, a password's hash or
/// a signature that a client sent. `==` ends at the first byte that differs, and whoever can measure that finds a secret
/// byte by byte.
///
/// Only secrets of the same length are compared: the time tells whether the lengths are the same.
///
/// ```
/// use rwf::http::constant_time_eq;
/// use rwf::prelude::*;
///
/// fn metrics(request: &Request, secret: &str) -> Result<Response, Error> {
///     if !request.bearer().is_some_and(|token| constant_time_eq(token, secret)) {
///         return Ok(Response::unauthorized().challenge("Bearer", "metrics"));
///     }
///     Ok(Response::new().text("clients 3\n"))
/// }
///
/// let request = Request::get("/metrics").header("Authorization", "Bearer c2VjcmV0").build();
/// assert_eq!(metrics(&request, "c2VjcmV0")?.status_code(), 200);
/// assert_eq!(metrics(&request, "c2VjcmV1")?.status_code(), 401);
/// # Ok::<(), Error>(())
/// ```
#[must_use]
pub fn constant_time_eq(one: impl AsRef<[u8]>, other: impl AsRef<[u8]>) -> bool {
    one.as_ref().ct_eq(other.as_ref()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> Headers {
        let mut headers = Headers::default();
        for value in values {
            headers.append("authorization", value);
        }
        headers
    }

    #[test]
    fn a_bearer_is_one_token_in_one_header() {
        for (values, token) in [
            (&["Bearer abc"][..], Some("abc")),
            (&["bEARER   a-._~+/9=="], Some("a-._~+/9==")),
            (&["Bearer"], None),
            (&["Bearer "], None),
            (&["Bearer =="], None),
            (&["Bearer\tabc"], None),
            (&["Bearerabc"], None),
            (&["Bearer a b"], None),
            (&["Bearer a,b"], None),
            (&["Bearer a=b"], None),
            (&["Bearer ä"], None),
            (&["Bearer \"abc\""], None),
            (&["Basic abc"], None),
            (&["abc"], None),
            (&[""], None),
            (&["Bearer abc", "Bearer abc"], None),
            (&["Bearer abc", "Basic YTpi"], None),
            (&[], None),
        ] {
            assert_eq!(bearer(&headers(values)), token, "{values:?}");
        }
    }

    #[test]
    fn basic_credentials_are_a_user_without_a_colon_and_a_password() {
        let encoded = |text: &[u8]| format!("basic {}", BASE64.encode(text));
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        for (text, expected) in [
            (&b"anna:secret"[..], pair("anna", "secret")),
            (b"anna:se:cr et:", pair("anna", "se:cr et:")),
            ("änne:pässword".as_bytes(), pair("änne", "pässword")),
            (b":", pair("", "")),
            (b"anna", None),
            (b"", None),
            (b"anna:\xff", None),
            (b"anna:a\nb", None),
            (b"an\0na:a", None),
            ("anna:\u{9b}".as_bytes(), None),
        ] {
            assert_eq!(basic(&headers(&[&encoded(text)])), expected, "{text:?}");
        }
        // The sample of RFC 7617 §2, and what base64 is not.
        let sample = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
        assert_eq!(basic(&headers(&[sample])), pair("Aladdin", "open sesame"));
        for wrong in [
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ",
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZR==",
            "Basic QWxh-_==",
            "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        ] {
            assert_eq!(basic(&headers(&[wrong])), None, "{wrong}");
        }
        assert_eq!(basic(&headers(&[sample, sample])), None, "of several none is trusted");
    }

    #[test]
    fn a_challenge_quotes_its_realm() {
        assert_eq!(challenge("Bearer", "a \"b\" \\"), r#"Bearer realm="a \"b\" \\""#);
        assert_eq!(challenge("basic", "chat"), r#"basic realm="chat", charset="UTF-8""#);
    }

    #[test]
    fn only_the_same_secrets_are_equal() {
        assert!(constant_time_eq("secret", b"secret") && constant_time_eq("", ""));
        for other in ["Secret", "secreT", "secre", "secrets", ""] {
            assert!(!constant_time_eq("secret", other), "{other}");
        }
    }
}
