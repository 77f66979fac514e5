//! Origins, the pages that requests come from: whether one is a page of the host that a request names (RFC 6454).

use crate::http::host::{canonical, split_authority};
use crate::http::peer::is_loopback_name;

/// Whether two origins are the same, as browsers write them or with their usual port.
pub(crate) fn same_origin(one: &str, other: &str) -> bool {
    match (split_origin(one), split_origin(other)) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

/// Whether a page of `origin` was served by `host`. A proxy before us may end TLS without telling, so that an https
/// page may always be ours. Where the client is known to use TLS, an http page is not taken for ours: anybody who can
/// change what the network carries may have written it. Pages of other schemes never are: `capacitor://localhost` is a
/// page of an app on a phone.
///
/// A `Host` names no scheme, so the usual port of the origin's scheme may be left out on either side. All loopback
/// names count as one host: whoever serves a page on any of them, at the same port, runs on this machine.
pub(crate) fn is_of_host(origin: &str, host: &str, is_secure: bool) -> bool {
    split_origin(origin).is_some_and(|(scheme, authority)| {
        let is_possible = scheme == "https" || (scheme == "http" && !is_secure);
        is_possible && !host.is_empty() && authority == normal_authority(&scheme, host)
    })
}

/// Scheme and authority, as they can be compared, the authority with its port.
fn split_origin(origin: &str) -> Option<(String, (String, String))> {
    let (scheme, authority) = origin.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let authority = normal_authority(&scheme, authority);
    Some((scheme, authority))
}

/// Host and port, for a scheme in lower case.
fn normal_authority(scheme: &str, authority: &str) -> (String, String) {
    let usual = match scheme {
        "http" | "ws" => "80",
        "https" | "wss" => "443",
        _ => "",
    };
    let (host, port) = split_authority(authority).unwrap_or((authority, ""));
    let port = if port.is_empty() { usual } else { port };
    let host = if is_loopback_name(host) { "localhost".to_owned() } else { canonical(host) };
    (host, port.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_addresses_are_part_of_the_host() {
        for (origin, host, expected) in [
            ("http://localhost:8000", "localhost:8000", true),
            ("http://localhost:8000", "localhost:8001", false),
            ("http://localhost:8000", "127.0.0.1:8000", true),
            ("http://127.0.0.1:8000", "LOCALHOST:8000", true),
            ("http://[::1]:8000", "localhost:8000", true),
            ("http://127.0.0.1:8000", "example.com:8000", false),
            ("http://localhost.evil.example:8000", "localhost:8000", false),
            ("http://[::1]:8000", "[::1]:8000", true),
            ("http://[::1]", "[::1]", true),
            ("https://a.example", "a.example:443", true),
            ("http://a.example", "a.example:443", false),
            ("http://", "", false),
        ] {
            assert_eq!(is_of_host(origin, host, false), expected, "{origin} at {host}");
        }
    }

    #[test]
    fn an_address_is_the_same_however_it_is_written() {
        assert!(same_origin("https://[0:0::5]", "https://[::5]"));
        assert!(same_origin("https://[2001:DB8::1]:443", "https://[2001:db8:0::1]"));
        assert!(!same_origin("https://[::5]", "https://[::6]"));
        assert!(is_of_host("https://[::5]", "[0:0::5]", true));
    }
}
