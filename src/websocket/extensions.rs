//! What is agreed on with a client about compression: its offers in, the answer out (RFC 6455 §9.1, RFC 7692 §7.1). No
//! socket in sight.

use std::fmt::Write;

use crate::http::headers::{Headers, is_token};
use crate::websocket::deflate::{Deflate, MAX_WINDOW_BITS, MIN_WINDOW_BITS};

const NAME: &str = "permessage-deflate";
/// What the RFC has; zlib has no 8.
const WINDOW_BITS_OF_RFC: [&str; 8] = ["8", "9", "10", "11", "12", "13", "14", "15"];
/// A client has no use for more offers: the rest are not looked at.
const MAX_OFFERS: usize = 16;

/// What was agreed on with a client: both sides may compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreement {
    /// Those that it was agreed on under.
    pub(crate) settings: Deflate,
    pub(crate) server: Side,
    pub(crate) client: Side,
}

/// What one side's compressor does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Side {
    /// Whether its messages may refer to those before them.
    pub(crate) keeps_context: bool,
    /// How far back they may refer, as a power of two.
    pub(crate) window_bits: u8,
}

/// The header does not keep to its grammar: the connection fails (RFC 6455 §9.1).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// An offer of the extension, as far as it makes sense.
#[derive(Debug, Default)]
struct Offer {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    /// Whether the client lets us limit it, and to what it limits itself.
    client_max_window_bits: Option<Option<u8>>,
}

/// The first offer that can be kept, and the answer to it. Other extensions are passed over, and so is an offer that the
/// RFC has us decline.
pub(crate) fn negotiate(
    headers: &Headers,
    settings: &Deflate,
) -> Result<Option<(Agreement, String)>, Malformed> {
    let mut agreed = None;
    for extension in headers.list("Sec-WebSocket-Extensions").take(MAX_OFFERS) {
        let (name, params) = parse(extension)?;
        if agreed.is_none() && name == NAME {
            agreed = offer(&params).and_then(|offer| offer.accept(settings));
        }
    }
    Ok(agreed)
}

type Param<'a> = (&'a str, Option<String>);

/// The name and the parameters of `a; b; c=1; d="2"`. A comma or semicolon cannot be in a quoted value, which has to be a
/// token too, so a split at them is right, or shows what is malformed.
fn parse(extension: &str) -> Result<(&str, Vec<Param<'_>>), Malformed> {
    let mut parts = extension.split(';').map(|part| part.trim_matches([' ', '\t']));
    let name = parts.next().filter(|name| is_token(name)).ok_or(Malformed)?;
    let params = parts.map(|part| {
        let (key, value) = match part.split_once('=') {
            Some((key, value)) => (key.trim_end_matches([' ', '\t']), Some(unquote(value)?)),
            None => (part, None),
        };
        if is_token(key) { Ok((key, value)) } else { Err(Malformed) }
    });
    Ok((name, params.collect::<Result<_, _>>()?))
}

fn unquote(value: &str) -> Result<String, Malformed> {
    let value = value.trim_start_matches([' ', '\t']);
    let text = match value.strip_prefix('"') {
        None => value.to_owned(),
        Some(rest) => {
            let inside = rest.strip_suffix('"').ok_or(Malformed)?;
            let mut text = String::new();
            let mut characters = inside.chars();
            while let Some(character) = characters.next() {
                text.push(match character {
                    '\\' => characters.next().ok_or(Malformed)?,
                    _ => character,
                });
            }
            text
        }
    };
    if is_token(&text) { Ok(text) } else { Err(Malformed) }
}

/// `None` for an offer that has to be declined: with a parameter that is unknown, stands twice, or has a value that it
/// cannot have (RFC 7692 §7.1).
fn offer(params: &[Param<'_>]) -> Option<Offer> {
    let mut offer = Offer::default();
    for (index, (name, value)) in params.iter().enumerate() {
        if params[..index].iter().any(|(other, _)| other == name) {
            return None;
        }
        match (*name, value) {
            ("server_no_context_takeover", None) => offer.server_no_context_takeover = true,
            ("client_no_context_takeover", None) => offer.client_no_context_takeover = true,
            ("server_max_window_bits", Some(bits)) => {
                offer.server_max_window_bits = Some(window_bits(bits)?);
            }
            ("client_max_window_bits", None) => offer.client_max_window_bits = Some(None),
            ("client_max_window_bits", Some(bits)) => {
                offer.client_max_window_bits = Some(Some(window_bits(bits)?));
            }
            _ => return None,
        }
    }
    Some(offer)
}

/// A number without leading zeros (RFC 7692 §7.1.2).
fn window_bits(text: &str) -> Option<u8> {
    WINDOW_BITS_OF_RFC.contains(&text).then(|| text.parse().ok())?
}

impl Offer {
    /// `None` where the client wants a window that there is no compressor for.
    fn accept(&self, settings: &Deflate) -> Option<(Agreement, String)> {
        let most = settings.window_bits;
        let server = Side {
            keeps_context: settings.context_takeover && !self.server_no_context_takeover,
            window_bits: self.server_max_window_bits.map_or(most, |bits| bits.min(most)),
        };
        if server.window_bits < MIN_WINDOW_BITS {
            return None;
        }
        let client = Side {
            keeps_context: settings.context_takeover && !self.client_no_context_takeover,
            window_bits: match self.client_max_window_bits {
                Some(bits) => bits.map_or(most, |bits| bits.min(most)),
                // It would not know of a limit.
                None => MAX_WINDOW_BITS,
            },
        };
        let mut answer = NAME.to_owned();
        if !server.keeps_context {
            answer += "; server_no_context_takeover";
        }
        if !client.keeps_context {
            answer += "; client_no_context_takeover";
        }
        if self.server_max_window_bits.is_some() || server.window_bits < MAX_WINDOW_BITS {
            let _ = write!(answer, "; server_max_window_bits={}", server.window_bits);
        }
        if client.window_bits < MAX_WINDOW_BITS {
            let _ = write!(answer, "; client_max_window_bits={}", client.window_bits);
        }
        Some((Agreement { settings: *settings, server, client }, answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(offers: &[&str], settings: Deflate) -> Result<Option<String>, Malformed> {
        let mut headers = Headers::default();
        offers.iter().for_each(|offer| headers.append("sec-websocket-extensions", offer));
        Ok(negotiate(&headers, &settings)?.map(|(_, answer)| answer))
    }

    const NO_CONTEXT: &str =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    #[test]
    fn offers_have_their_answers() {
        let both = |rest: &str| Some(format!("{NO_CONTEXT}{rest}"));
        let cases: &[(&[&str], Option<String>)] = &[
            (&[], None),
            (&[""], None),
            (&[" , ,"], None),
            (&["x-webkit-deflate-frame"], None),
            (&["permessage-deflates"], None),
            (&["permessage-deflate"], both("")),
            (&["permessage-deflate; client_max_window_bits"], both("")),
            (&["permessage-deflate;client_max_window_bits=15"], both("")),
            (
                &["permessage-deflate ;\tclient_max_window_bits = 10"],
                both("; client_max_window_bits=10"),
            ),
            // A window of 8 bits is one that is inflated, but not one that is compressed with.
            (&["permessage-deflate; client_max_window_bits=8"], both("; client_max_window_bits=8")),
            (&["permessage-deflate; server_max_window_bits=8"], None),
            (&["permessage-deflate; server_max_window_bits=9"], both("; server_max_window_bits=9")),
            (
                &["permessage-deflate; server_max_window_bits=\"1\\2\""],
                both("; server_max_window_bits=12"),
            ),
            (
                &["permessage-deflate; server_max_window_bits=15"],
                both("; server_max_window_bits=15"),
            ),
            (
                &["permessage-deflate; server_no_context_takeover; client_no_context_takeover"],
                both(""),
            ),
            // The RFC has these declined; the next offer is looked at.
            (&["permessage-deflate; server_max_window_bits"], None),
            (&["permessage-deflate; server_max_window_bits=16"], None),
            (&["permessage-deflate; server_max_window_bits=7"], None),
            (&["permessage-deflate; server_max_window_bits=08"], None),
            (&["permessage-deflate; server_max_window_bits=+9"], None),
            (&["permessage-deflate; client_max_window_bits=0"], None),
            (&["permessage-deflate; client_max_window_bits=1000"], None),
            (&["permessage-deflate; server_no_context_takeover=1"], None),
            (&["permessage-deflate; client_no_context_takeover=true"], None),
            (&["permessage-deflate; unknown"], None),
            (&["permessage-deflate; Client_No_Context_Takeover"], None),
            (&["permessage-deflate; client_max_window_bits; client_max_window_bits=9"], None),
            (&["permessage-deflate; server_no_context_takeover; server_no_context_takeover"], None),
            (&["permessage-deflate; server_max_window_bits=8, permessage-deflate"], both("")),
            (&["bbf-usp-protocol", "permessage-deflate; x=y", "permessage-deflate"], both("")),
            (
                &["permessage-deflate; server_max_window_bits=10, \
                     permessage-deflate; server_max_window_bits=11"],
                both("; server_max_window_bits=10"),
            ),
        ];
        for (offers, expected) in cases {
            assert_eq!(answer(offers, Deflate::new()), Ok(expected.clone()), "{offers:?}");
        }
    }

    #[test]
    fn settings_limit_what_is_agreed_on() {
        let small = Deflate::new().window_bits(11);
        let context = small.context_takeover(true);
        let cases: &[(Deflate, &str, &str)] = &[
            // A client that has not said that it can be limited is not.
            (
                small,
                "",
                "; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=11",
            ),
            (context, "", "; server_max_window_bits=11"),
            (
                context,
                "; client_max_window_bits",
                "; server_max_window_bits=11; client_max_window_bits=11",
            ),
            (
                context,
                "; client_max_window_bits=9; server_max_window_bits=10",
                "; server_max_window_bits=10; client_max_window_bits=9",
            ),
            (
                context,
                "; server_no_context_takeover",
                "; server_no_context_takeover; server_max_window_bits=11",
            ),
            (
                context,
                "; client_no_context_takeover",
                "; client_no_context_takeover; server_max_window_bits=11",
            ),
            (Deflate::new().context_takeover(true), "; client_max_window_bits", ""),
        ];
        for (settings, offer, expected) in cases {
            let answer = answer(&[&format!("{NAME}{offer}")], *settings).unwrap();
            assert_eq!(answer, Some(format!("{NAME}{expected}")), "{settings:?} {offer:?}");
        }
    }

    #[test]
    fn a_header_that_breaks_the_grammar_is_malformed() {
        for offer in [
            ";",
            "permessage-deflate;",
            "permessage-deflate; ; client_no_context_takeover",
            "permessage deflate",
            "permessage-deflate; =1",
            "permessage-deflate; server_max_window_bits=",
            "permessage-deflate; server_max_window_bits=\"",
            "permessage-deflate; server_max_window_bits=\"10",
            "permessage-deflate; server_max_window_bits=10\"",
            "permessage-deflate; server_max_window_bits=\"1,0\"",
            "permessage-deflate; server_max_window_bits=\"1\\\"",
            "permessage-deflate; server_max_window_bits=\"\"",
            "permessage-deflate; server_max_window_bits=1=0",
            "permessage-deflate, other; a=(b)",
        ] {
            assert_eq!(answer(&[offer], Deflate::new()), Err(Malformed), "{offer:?}");
        }
    }
}
