//! Which part of a representation a request asks for (RFC 9110 §14.2).

use std::ops::Range;

/// What a `Range` header asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// All of it, also where the header makes no sense or wants several parts: a server may ignore it.
    Whole,
    /// From the first byte of it to before its end.
    Part(Range<u64>),
    /// What is not there: 416.
    Unsatisfiable,
}

/// What the header's value asks for of `length` bytes.
pub(crate) fn wanted(value: &str, length: u64) -> Wanted {
    part(value, length).unwrap_or(Wanted::Whole)
}

/// `None` where the header is to be ignored.
fn part(value: &str, length: u64) -> Option<Wanted> {
    let (unit, range) = value.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (first, last) = range.trim_matches([' ', '\t']).split_once('-')?;
    let range = match (first, last) {
        ("", suffix) => length.saturating_sub(number(suffix)?)..length,
        (first, "") => number(first)?..length,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if last < first {
                return None;
            }
            first..last.saturating_add(1).min(length)
        }
    };
    Some(if range.is_empty() { Wanted::Unsatisfiable } else { Wanted::Part(range) })
}

/// A number of any size: one that is too large is beyond every file.
fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_part_is_cut_to_what_is_there_and_anything_odd_is_ignored() {
        use Wanted::{Part, Unsatisfiable, Whole};
        for (value, expected) in [
            ("bytes=0-0", Part(0..1)),
            ("bytes=2-4", Part(2..5)),
            ("Bytes= 2-4\t", Part(2..5)),
            ("bytes=9-9", Part(9..10)),
            ("bytes=2-", Part(2..10)),
            ("bytes=2-99999999999999999999999", Part(2..10)),
            ("bytes=-3", Part(7..10)),
            ("bytes=-10", Part(0..10)),
            ("bytes=-99999999999999999999999", Part(0..10)),
            ("bytes=10-", Unsatisfiable),
            ("bytes=10-20", Unsatisfiable),
            ("bytes=99999999999999999999999-", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=4-2", Whole),
            ("bytes=0-0,2-3", Whole),
            ("bytes=-", Whole),
            ("bytes=", Whole),
            ("bytes", Whole),
            ("bytes=a-b", Whole),
            ("bytes=+1-2", Whole),
            ("bytes=1--2", Whole),
            ("bytes=1 - 2", Whole),
            ("lines=0-0", Whole),
            ("", Whole),
        ] {
            assert_eq!(wanted(value, 10), expected, "{value:?}");
        }
        for value in ["bytes=0-", "bytes=-1", "bytes=0-0"] {
            assert_eq!(wanted(value, 0), Unsatisfiable, "{value:?} of nothing");
        }
        assert_eq!(wanted("bytes=0-18446744073709551615", u64::MAX), Part(0..u64::MAX));
    }

    proptest! {
        #[test]
        fn a_part_is_never_empty_and_never_beyond_the_end(
            first in "[0-9]{0,21}",
            last in "[0-9]{0,21}",
            length in prop_oneof![0_u64..20, any::<u64>()],
        ) {
            if let Wanted::Part(part) = wanted(&format!("bytes={first}-{last}"), length) {
                prop_assert!(part.start < part.end && part.end <= length, "{:?}", part);
            }
        }
    }
}
