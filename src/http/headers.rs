//! Header fields: case-insensitive names, repeated values, token lists (RFC 9110 §5).

/// The fields of a request or response, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Headers {
    /// Names and values one behind the other: a WebSocket keeps those of its request, and a string each would be most
    /// of what that takes.
    text: String,
    /// Where the names and the values end.
    ends: Vec<(usize, usize)>,
}

impl Headers {
    /// Without fields, with room for `count` of them that have `bytes` together.
    pub(crate) fn with_capacity(count: usize, bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), ends: Vec::with_capacity(count) }
    }

    /// Adds a field behind the others, whether or not the name is there already.
    pub(crate) fn append(&mut self, name: &str, value: &str) {
        self.text.push_str(name);
        let end_of_name = self.text.len();
        self.text.push_str(value);
        self.ends.push((end_of_name, self.text.len()));
    }

    /// Takes all fields of that name away.
    pub(crate) fn remove(&mut self, name: &str) {
        if self.get(name).is_none() {
            return;
        }
        let mut others = Self::default();
        for (key, value) in self.iter().filter(|(key, _)| !key.eq_ignore_ascii_case(name)) {
            others.append(key, value);
        }
        *self = others;
    }

    /// The first value of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.get_all(name).next()
    }

    /// All values of that name.
    pub(crate) fn get_all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The value of a field that may stand only once.
    ///
    /// # Errors
    ///
    /// The number of fields when there are several.
    pub(crate) fn single(&self, name: &str) -> Result<Option<&str>, usize> {
        let mut values = self.get_all(name);
        match (values.next(), values.count()) {
            (value, 0) => Ok(value),
            (_, more) => Err(more + 1),
        }
    }

    /// The members of a comma-separated list, over all fields of that name (RFC 9110 §5.6.1).
    pub(crate) fn list<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.get_all(name)
            .flat_map(|value| value.split(','))
            .map(|member| member.trim_matches([' ', '\t']))
            .filter(|member| !member.is_empty())
    }

    /// Whether a list has `token` as a whole member, in any case: `not-upgrade` has no `upgrade`.
    pub(crate) fn has_token(&self, name: &str, token: &str) -> bool {
        self.list(name).any(|member| member.eq_ignore_ascii_case(token))
    }

    /// All fields, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut start = 0;
        self.ends.iter().map(move |(end_of_name, end)| {
            let name = &self.text[start..*end_of_name];
            start = *end;
            (name, &self.text[*end_of_name..*end])
        })
    }
}

/// Whether `name` is a token (RFC 9110 §5.6.2), as the names of headers, cookies and subprotocols have to be.
pub(crate) fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Whether `value` can stand in a header: no line ends and no other control characters (RFC 9110 §5.5).
pub(crate) fn is_field_value(value: &str) -> bool {
    value.bytes().all(|byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::default();
        for (name, value) in fields {
            headers.append(name, value);
        }
        headers
    }

    #[test]
    fn tokens_are_whole_members_in_any_case() {
        let headers = headers(&[("connection", "keep-alive, UPGRADE"), ("Connection", "a,,b ,")]);
        assert!(headers.has_token("Connection", "upgrade"));
        assert!(headers.has_token("Connection", "B"));
        assert!(!headers.has_token("Connection", "keep"));
        assert_eq!(headers.list("connection").count(), 4);
    }

    #[test]
    fn a_second_field_makes_a_single_one_wrong() {
        let headers = headers(&[("Host", "a"), ("host", "b"), ("Accept", "c")]);
        assert_eq!(headers.single("HOST"), Err(2));
        assert_eq!(headers.single("accept"), Ok(Some("c")));
        assert_eq!(headers.single("origin"), Ok(None));
    }

    #[test]
    fn all_fields_of_a_name_are_removed_and_no_others() {
        let mut headers = headers(&[("Host", "a"), ("Accept", "c"), ("host", "b")]);
        headers.remove("HOST");
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("Accept", "c")]);
    }

    #[test]
    fn line_ends_do_not_fit_into_values() {
        assert!(is_field_value("täb\t ok"));
        assert!(!is_field_value("a\r\nSet-Cookie: b"));
        assert!(!is_field_value("\0"));
        assert!(is_token("X-Name") && !is_token("") && !is_token("a b") && !is_token("a:"));
    }
}
