//! The cookies that a browser keeps and sends back.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::testing::response::TestResponse;

/// Names with values, in the order in which they came. A clone is the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cookies(Arc<Mutex<Vec<(String, String)>>>);

impl Cookies {
    pub(crate) fn set(&self, name: &str, value: &str) {
        let mut cookies = self.0.lock();
        match cookies.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => value.clone_into(old),
            None => cookies.push((name.to_owned(), value.to_owned())),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<String> {
        let cookies = self.0.lock();
        cookies.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    }

    /// The value of the `Cookie` header; `None` without cookies.
    pub(crate) fn header(&self) -> Option<String> {
        let cookies = self.0.lock();
        let pairs: Vec<_> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    /// Keeps what the response sets, and forgets what it takes back. Paths, domains and times make no difference: a test
    /// talks to one host and is short.
    pub(crate) fn keep(&self, response: &TestResponse) {
        for cookie in response.header_values("Set-Cookie") {
            let mut parts = cookie.split(';').map(str::trim);
            let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else {
                continue;
            };
            if parts.any(|attribute| attribute.eq_ignore_ascii_case("Max-Age=0")) {
                self.0.lock().retain(|(key, _)| key != name);
            } else {
                self.set(name, value);
            }
        }
    }
}
