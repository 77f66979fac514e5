//! What clients and controllers say, as people get to see it: on one line, without control characters, and not too long.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// The longest value of a client, in characters: a path, a header.
const MAX_VALUE: usize = 256;
/// The longest text of the program, in characters: an error with its causes.
const MAX_TEXT: usize = 1024;

/// Wraps whatever comes from outside before it is written to the log or a page.
///
/// A line end would forge a line, and a terminal obeys sequences that begin with ESC or U+009B. Characters that do not
/// print are escaped, and what is too long is cut: `…(9000)` says how many characters it had.
pub(crate) struct Shown<T> {
    what: T,
    max: usize,
}

impl<T: fmt::Display> Shown<T> {
    /// A value that a client chose.
    pub(crate) fn value(what: T) -> Self {
        Self { what, max: MAX_VALUE }
    }

    /// A text of the program, which may hold a client's words.
    pub(crate) fn text(what: T) -> Self {
        Self { what, max: MAX_TEXT }
    }

    /// As a field of the log: one word stands as it is, anything else in quotes, so that it cannot pass for another
    /// field.
    pub(crate) fn field(what: T) -> String {
        let text = what.to_string();
        let is_plain = |c: char| c.is_alphanumeric() || "-_.@{}".contains(c);
        let shown = Shown::value(&text);
        if text.chars().all(is_plain) { shown.to_string() } else { format!("{shown:?}") }
    }

    /// Writes it with the characters in `kept` as they are.
    fn write(&self, f: &mut fmt::Formatter<'_>, kept: &[char]) -> fmt::Result {
        let mut line = Line { f, kept, room: self.max, length: 0 };
        write!(line, "{}", self.what)?;
        let length = line.length;
        if length > self.max { write!(f, "…({length})") } else { Ok(()) }
    }
}

impl Shown<&str> {
    /// The name of a type or a function of the program, as a field of the log: `Pair<A, B>` in quotes.
    pub(crate) fn name(name: &str) -> Cow<'_, str> {
        if name.contains(' ') { format!("{name:?}").into() } else { name.into() }
    }
}

/// Without quotes around it. Quotes and backslashes in it stay as they are, so that nothing is escaped twice.
impl<T: fmt::Display> fmt::Display for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, &['"', '\'', '\\'])
    }
}

/// In quotes, which show where it ends.
impl<T: fmt::Display> fmt::Debug for Shown<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        self.write(f, &['\''])?;
        f.write_char('"')
    }
}

struct Line<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    kept: &'a [char],
    /// How many characters still fit.
    room: usize,
    /// How many came so far, those included that did not fit.
    length: usize,
}

impl fmt::Write for Line<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.length += text.chars().count();
        let end = text.char_indices().nth(self.room).map_or(text.len(), |(end, _)| end);
        let text = &text[..end];
        self.room -= text.chars().count();
        for part in text.split_inclusive(self.kept) {
            let plain = part.strip_suffix(self.kept).unwrap_or(part);
            write!(self.f, "{}{}", plain.escape_debug(), &part[plain.len()..])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_print_is_escaped_and_the_rest_stays() {
        for (text, bare, quoted) in [
            ("", "", r#""""#),
            ("it's \"so\" \\", "", ""),
            ("täglich 語 e\u{301} ❤\u{fe0f}", "", "\"täglich 語 e\u{301} ❤\u{fe0f}\""),
            ("a\r\nb\tc\0", r"a\r\nb\tc\0", r#""a\r\nb\tc\0""#),
            ("\u{1b}[2J\u{7f}\u{9b}2J", r"\u{1b}[2J\u{7f}\u{9b}2J", r#""\u{1b}[2J\u{7f}\u{9b}2J""#),
            ("\u{85}\u{2028}\u{2029}", r"\u{85}\u{2028}\u{2029}", r#""\u{85}\u{2028}\u{2029}""#),
            ("\u{202e}\u{2066}\u{61c}", r"\u{202e}\u{2066}\u{61c}", r#""\u{202e}\u{2066}\u{61c}""#),
            ("\u{200b}\u{feff}\u{e0041}", r"\u{200b}\u{feff}\u{e0041}", ""),
            ("\u{301}", r"\u{301}", ""),
        ] {
            let expected = if bare.is_empty() { text } else { bare };
            assert_eq!(Shown::value(text).to_string(), expected, "{text:?}");
            let expected = if quoted.is_empty() { format!("{text:?}") } else { quoted.to_owned() };
            assert_eq!(format!("{:?}", Shown::value(text)), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_shown_twice_is_the_same() {
        let once = Shown::text("\"a\\\r\n\u{9b}'").to_string();
        assert_eq!(Shown::text(&once).to_string(), once);
    }

    #[test]
    fn what_is_long_is_cut_and_says_how_long_it_was() {
        let fits = "ä".repeat(MAX_VALUE);
        assert_eq!(Shown::value(&fits).to_string(), fits);
        assert_eq!(Shown::value(format!("{fits}b")).to_string(), format!("{fits}…(257)"));
        let pieces = format_args!("{}{}{}", "a".repeat(200), "b".repeat(200), "\n").to_string();
        let expected = format!("{}{}…(401)", "a".repeat(200), "b".repeat(56));
        assert_eq!(Shown::value(pieces).to_string(), expected);
        let long = "c".repeat(16 << 10);
        assert_eq!(format!("{:?}", Shown::text(long)), format!("\"{}…(16384)\"", "c".repeat(1024)));
    }
}
