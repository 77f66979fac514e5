//! The slots of a Redis Cluster: which one a channel is in, and who has it.

use crate::redis::resp::Range;

/// How many slots a Redis Cluster has.
pub(crate) const COUNT: usize = 16_384;

/// The slot of a channel: a checksum of its name, or of what stands between the first `{` and the next `}` if that is
/// anything.
pub(crate) fn slot(channel: &str) -> usize {
    let name = channel.as_bytes();
    let tag = name.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &name[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        rest.get(..close).filter(|tag| !tag.is_empty())
    });
    usize::from(checksum(tag.unwrap_or(name))) % COUNT
}

/// CRC-16/XMODEM.
fn checksum(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |sum, byte| (sum << 8) ^ TABLE[usize::from((sum >> 8) as u8 ^ byte)])
}

const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < table.len() {
        let mut sum = (index as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 0x8000 == 0 { sum << 1 } else { (sum << 1) ^ 0x1021 };
            bit += 1;
        }
        table[index] = sum;
        index += 1;
    }
    table
};

/// The master that has a slot, by its place among the masters.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Map {
    pub(crate) masters: Vec<(String, u16)>,
    /// By slot. Nobody may have one.
    pub(crate) owners: Vec<Option<usize>>,
}

impl Map {
    /// What a Redis says of its cluster, which was asked at `host`: a master that has no name of its own is that one.
    pub(crate) fn new(ranges: &[Range<'_>], host: &str) -> Self {
        let mut map = Self { masters: Vec::new(), owners: vec![None; COUNT] };
        for range in ranges {
            let name = match str::from_utf8(range.host) {
                Ok("") => host,
                // It has a port alone, and knows of no name.
                Ok("?") | Err(_) => continue,
                Ok(name) => name,
            };
            let is_this = |(other, port): &(String, u16)| other == name && *port == range.port;
            let master = map.masters.iter().position(is_this).unwrap_or_else(|| {
                map.masters.push((name.to_owned(), range.port));
                map.masters.len() - 1
            });
            for slot in range.first..=range.last.min(COUNT - 1) {
                map.owners[slot] = Some(master);
            }
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_in_the_slot_that_redis_says() {
        // As `CLUSTER KEYSLOT` answers.
        for (channel, expected) in [
            ("123456789", 12739),
            ("", 0),
            ("foo", 12182),
            ("{foo}bar", 12182),
            ("a{foo}b{bar}", 12182),
            ("foo{}", 5542),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}", 4015),
            ("x}{y", 9970),
            ("rwf:all", 13_938),
        ] {
            assert_eq!(slot(channel), expected, "{channel}");
        }
    }

    #[test]
    fn a_map_has_each_master_once_and_leaves_out_what_nobody_has() {
        let range = |first, last, host: &'static str, port| Range {
            first,
            last,
            host: host.as_bytes(),
            port,
        };
        let ranges = [
            range(0, 5, "10.0.0.1", 7000),
            range(6, 6, "", 7001),
            range(7, 8, "10.0.0.1", 7000),
            range(9, 9, "?", 7002),
            range(16_383, usize::MAX, "10.0.0.1", 7001),
        ];
        let map = Map::new(&ranges, "asked");
        let name = |host: &str, port| (host.to_owned(), port);
        let expected = [name("10.0.0.1", 7000), name("asked", 7001), name("10.0.0.1", 7001)];
        assert_eq!(map.masters, expected);
        let owners = [0, 6, 8, 9, 10, 16_383].map(|slot| map.owners[slot]);
        assert_eq!(owners, [Some(0), Some(1), Some(0), None, None, Some(2)]);
    }
}
