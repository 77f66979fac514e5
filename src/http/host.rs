//! A host and its port, as `Host` and absolute targets name them (RFC 3986 §3.2).

use std::net::Ipv6Addr;

/// Host and port, if both are valid. An IPv6 address keeps its brackets, and the port may be empty or missing.
pub(crate) fn split_authority(authority: &str) -> Option<(&str, &str)> {
    let end = match authority.find(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, rest) = authority.split_at(end);
    let port = if rest.is_empty() { "" } else { rest.strip_prefix(':')? };
    (is_host(host) && is_port(port)).then_some((host, port))
}

/// The address in a host of the form `[::1]`.
pub(crate) fn bracketed_address(host: &str) -> Option<Ipv6Addr> {
    host.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// The form in which hosts are compared: in lower case, an IPv6 address as short as can be.
pub(crate) fn canonical(host: &str) -> String {
    match bracketed_address(host) {
        Some(address) => format!("[{address}]"),
        None => host.to_ascii_lowercase(),
    }
}

/// Whether a setting can name a host like this. Wildcards are not supported, and percent escapes would never match:
/// browsers send the character itself.
pub(crate) fn is_literal(host: &str) -> bool {
    is_host(host) && !host.contains(['*', '%'])
}

/// Whether it is a host name: labels with dots between them, none empty; a dot at the end stands for the root of the
/// DNS. IPv4 addresses count as names too.
pub(crate) fn is_name(name: &str) -> bool {
    let labels = name.strip_suffix('.').unwrap_or(name);
    let mut between_percents = name.split('%');
    labels.split('.').all(|label| !label.is_empty())
        && between_percents.next().is_some_and(is_plain)
        && between_percents.all(begins_with_hex)
}

fn is_host(host: &str) -> bool {
    bracketed_address(host).is_some() || is_name(host)
}

/// RFC 3986 allows any number of digits, TCP five of them and no more than 65,535.
fn is_port(port: &str) -> bool {
    port.is_empty()
        || (port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok())
}

/// Only unreserved characters and sub-delimiters (RFC 3986 §2.2, §2.3).
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte))
}

fn begins_with_hex(text: &str) -> bool {
    text.split_at_checked(2).is_some_and(|(digits, rest)| {
        digits.bytes().all(|byte| byte.is_ascii_hexdigit()) && is_plain(rest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sound_authority_is_split() {
        for (authority, host, port) in [
            ("localhost", "localhost", ""),
            ("localhost:", "localhost", ""),
            ("localhost:0", "localhost", "0"),
            ("app.LOCALHOST:65535", "app.LOCALHOST", "65535"),
            ("chat.example.", "chat.example.", ""),
            ("under_score.example:00080", "under_score.example", "00080"),
            ("gr%C3%BC%c3%9fe.example", "gr%C3%BC%c3%9fe.example", ""),
            ("127.0.0.1:80", "127.0.0.1", "80"),
            ("[::1]", "[::1]", ""),
            ("[::ffff:127.0.0.1]:8000", "[::ffff:127.0.0.1]", "8000"),
        ] {
            assert_eq!(split_authority(authority), Some((host, port)), "{authority:?}");
        }
    }

    #[test]
    fn a_malformed_authority_is_none() {
        for authority in [
            "",
            ":",
            ":80",
            ".",
            "..",
            ".localhost",
            "a..localhost",
            "localhost..",
            "a b",
            "local host",
            " ",
            "localhost:port",
            "localhost:99999",
            "localhost:65536",
            "localhost:+80",
            "localhost:-1",
            "localhost: 80",
            "localhost:80:80",
            "localhost:8\u{660}",
            "user@localhost",
            "user:80@localhost",
            "http://localhost",
            "localhost/",
            "localhost?",
            "localhost#",
            "local\\host",
            "local\thost",
            "local\0host",
            "\"localhost\"",
            "<localhost>",
            "{localhost}",
            "local|host",
            "local^host",
            "local`host",
            "gr\u{fc}n.localhost",
            "%",
            "%4",
            "%4g.localhost",
            "a%4\u{e4}",
            "a].localhost",
            "[a.localhost",
            "a[.localhost",
            "[",
            "]",
            "[]",
            "[::1",
            "::1]",
            "::1",
            "[::1]]",
            "[[::1]]",
            "[::1]80",
            "[::1].localhost",
            "a[::1]",
            "[::1]:port",
            "[::1]:99999",
            "[127.0.0.1]",
            "[localhost]",
            "[::1%25eth0]",
            "[::1%1]",
            "[v1.a]",
            "[::12345]",
            "[ ::1]",
        ] {
            assert_eq!(split_authority(authority), None, "{authority:?}");
        }
    }
}
