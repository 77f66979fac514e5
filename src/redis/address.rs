//! Where a Redis is, and who we are there: read from a URL, and never shown with its credentials.

use std::fmt;
#[cfg(unix)]
use std::path::PathBuf;

use percent_encoding::percent_decode_str;

const DEFAULT_PORT: u16 = 6379;

/// A Redis, with what it takes to be let in.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) endpoint: Endpoint,
    /// Whether it is spoken to through TLS.
    pub(crate) is_secure: bool,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) database: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Tcp {
        host: String,
        port: u16,
    },
    #[cfg(unix)]
    Unix(PathBuf),
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) user: String,
    pub(crate) password: String,
}

/// What would be its name may be a part of a password.
const UNKNOWN_PARAMETER: &str =
    "has a parameter that is not known: `db` of unix:// is the only one; write a ? as %3F";

impl Address {
    /// Reads `redis://[[user]:password@]host[:port][/database]`, `rediss://` for the same over TLS, or
    /// `unix://[[user]:password@]/path[?db=database]`.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words that repeat nothing of it but its scheme: it may hold a
    /// password anywhere.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        Self::parse_where(url, cfg!(feature = "tls"))
    }

    fn parse_where(url: &str, has_tls: bool) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or(
            "has to be an address like redis://127.0.0.1:6379 or unix:///run/redis/redis.sock",
        )?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        match scheme {
            "redis" => Self::parse_tcp(rest, query),
            "rediss" if has_tls => Ok(Self { is_secure: true, ..Self::parse_tcp(rest, query)? }),
            "unix" | "redis+unix" | "redis-socket" => Self::parse_unix(rest, query),
            "rediss" => {
                Err("has the scheme rediss, which needs the feature `tls` of rwf".to_owned())
            }
            _ => Err("has to begin with redis://, rediss:// or unix://".to_owned()),
        }
    }

    fn parse_tcp(rest: &str, query: &str) -> Result<Self, String> {
        if query.contains('=') {
            return Err(UNKNOWN_PARAMETER.to_owned());
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (credentials, host) = split_credentials(authority)?;
        let (host, port) = split_port(host)?;
        if host.is_empty() {
            return Err("has no host".to_owned());
        }
        let endpoint = Endpoint::Tcp { host: host.to_owned(), port };
        Ok(Self { endpoint, is_secure: false, credentials, database: database(path)? })
    }

    #[cfg(unix)]
    fn parse_unix(rest: &str, query: &str) -> Result<Self, String> {
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => return Err("has no path of a socket: unix:///run/redis/redis.sock".to_owned()),
        };
        let (credentials, host) = split_credentials(authority)?;
        if !host.is_empty() {
            return Err("has a host, where a Unix socket has a path alone".to_owned());
        }
        let number = match query.split_once('=') {
            Some(("db", number)) => number,
            Some(_) => return Err(UNKNOWN_PARAMETER.to_owned()),
            None => "",
        };
        let endpoint = Endpoint::Unix(decode(path)?.into());
        Ok(Self { endpoint, is_secure: false, credentials, database: database(number)? })
    }

    #[cfg(not(unix))]
    fn parse_unix(_: &str, _: &str) -> Result<Self, String> {
        Err("is a Unix socket, which this system does not have".to_owned())
    }
}

/// Without credentials.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Endpoint::Tcp { host, port } => write!(f, "{host}:{port}"),
            #[cfg(unix)]
            Endpoint::Unix(path) => path.display().fmt(f),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn split_credentials(authority: &str) -> Result<(Option<Credentials>, &str), String> {
    // The last one: a password may hold others, although it had better be escaped.
    let Some((credentials, host)) = authority.rsplit_once('@') else {
        return Ok((None, authority));
    };
    let (user, password) = credentials.split_once(':').ok_or(
        "has a user without a password: write redis://user:password@host, or redis://:password@host",
    )?;
    let user = if user.is_empty() { "default".to_owned() } else { decode(user)? };
    Ok((Some(Credentials { user, password: decode(password)? }), host))
}

fn split_port(host: &str) -> Result<(&str, u16), String> {
    let (host, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("has a [ without its ]")?;
            (host, port.strip_prefix(':'))
        }
        None => host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Ok(DEFAULT_PORT), str::parse);
    Ok((host, port.map_err(|_| "has a port that is no number up to 65535")?))
}

fn database(number: &str) -> Result<u32, String> {
    let number = if number.is_empty() { Ok(0) } else { number.parse() };
    number.map_err(|_| "has a database that is no number".to_owned())
}

fn decode(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    Ok(decoded.map_err(|_| "has escapes that are no UTF-8")?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Endpoint {
        Endpoint::Tcp { host: host.to_owned(), port }
    }

    fn credentials(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials { user: user.to_owned(), password: password.to_owned() })
    }

    #[test]
    fn an_address_says_where_and_who() {
        for (url, endpoint, who, database) in [
            ("redis://127.0.0.1/", tcp("127.0.0.1", 6379), None, 0),
            ("redis://cache.example:7000/3", tcp("cache.example", 7000), None, 3),
            ("redis://[::1]:7000", tcp("::1", 7000), None, 0),
            (
                "redis://:secret@localhost",
                tcp("localhost", 6379),
                credentials("default", "secret"),
                0,
            ),
            ("redis://al%3Aice:p%40ss@h/0", tcp("h", 6379), credentials("al:ice", "p@ss"), 0),
            ("redis://a:p@ss@h", tcp("h", 6379), credentials("a", "p@ss"), 0),
            #[cfg(unix)]
            (
                "unix:///run/my%20redis.sock?db=2",
                Endpoint::Unix("/run/my redis.sock".into()),
                None,
                2,
            ),
            #[cfg(unix)]
            ("unix://a:b@/r.sock", Endpoint::Unix("/r.sock".into()), credentials("a", "b"), 0),
        ] {
            let expected = Address { endpoint, is_secure: false, credentials: who, database };
            assert!(Address::parse(url) == Ok(expected), "{url}: {:?}", Address::parse(url));
        }
        for (url, plain) in
            [("rediss://h", "redis://h"), ("rediss://a:b@[::1]:7000/1", "redis://a:b@[::1]:7000/1")]
        {
            let expected = Address { is_secure: true, ..Address::parse(plain).unwrap() };
            let address = Address::parse_where(url, true);
            assert!(address == Ok(expected), "{url}: {address:?}");
        }
    }

    #[test]
    fn a_wrong_address_says_what_is_wrong_and_repeats_no_secret() {
        for (url, expected) in [
            ("secret", "redis://127.0.0.1:6379"),
            ("http://secret@h", "has to begin with redis://"),
            ("rediss://:secret@h:x", "has a port"),
            ("redis://secret@h", "a user without a password"),
            ("redis://:secret@", "has no host"),
            ("redis://:secret@h:99999", "has a port"),
            ("redis://:secret@[::1", "has a [ without"),
            ("redis://:secret@h/one", "has a database"),
            ("redis://:secret%ff@h", "no UTF-8"),
            ("redis://h?password=secret", "has a parameter that is not known"),
            ("redis://:abc?secret=z@h", "%3F"),
            ("unix:///r.sock?secret=1", "has a parameter that is not known"),
            ("unix://secret", "has no path"),
        ] {
            let error = Address::parse_where(url, true).expect_err(url);
            assert!(error.contains(expected), "{url}: {error}");
            assert!(!error.contains("secret"), "{url}: {error}");
        }
        let error = Address::parse_where("rediss://:secret@h", false).expect_err("without TLS");
        assert!(error.contains("needs the feature `tls`") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn what_is_shown_holds_no_credentials() {
        for url in ["redis://alice:secret@h:7/1", "redis://:secret@[::1]"] {
            let address = Address::parse(url).unwrap();
            let shown = format!("{address} {address:?}");
            assert!(!shown.contains("secret") && !shown.contains("alice"), "{shown}");
        }
    }
}
