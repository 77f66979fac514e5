//! Where a reply of Redis ends, found before anything is made of it: whatever comes, it nests no deeper and has no more parts
//! than what Redis says.

/// How deep replies nest. The answer to HELLO does so four times, in the arguments of modules. What decodes a frame calls
/// itself for those in it, and would come to the end of the stack.
const MAX_DEPTH: usize = 8;
/// Of how many frames a reply consists, at most. A Redis Cluster names some twenty for each range of slots.
const MAX_FRAMES: usize = 100_000;
/// The longest line, in bytes: an error, a number, a length. Each read looks again at one that is not whole.
const MAX_LINE: usize = 64 << 10;
/// The longest string, in bytes: Redis takes no longer ones by default (`proto-max-bulk-len`).
pub(crate) const MAX_STRING: usize = 512 << 20;

/// The bytes are not RESP3, or not what Redis says in it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// How long the first reply in `bytes` is; `None` while it is not whole.
pub(crate) fn length(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    // How many frames are still to come in each of those that are open.
    let (mut open, mut depth) = ([0; MAX_DEPTH], 0);
    let (mut at, mut frames) = (0, 1);
    loop {
        let Some((&kind, rest)) = bytes[at..].split_first() else { return Ok(None) };
        let parts = match kind {
            b'+' | b'-' | b':' | b',' | b'#' | b'_' | b'(' | b'$' | b'!' | b'=' => 0,
            b'*' | b'~' | b'>' => 1,
            b'%' | b'|' => 2,
            _ => return Err(Malformed),
        };
        let Some(line) = line(rest)? else { return Ok(None) };
        at += 1 + line.len() + 2;
        if matches!(kind, b'$' | b'!' | b'=') {
            at += number(line, MAX_STRING)? + 2;
            if at > bytes.len() {
                return Ok(None);
            }
        }
        if parts > 0 {
            // What attributes belong to follows them.
            let count = parts * number(line, MAX_FRAMES)? + usize::from(kind == b'|');
            frames += count;
            if frames > MAX_FRAMES || depth == MAX_DEPTH {
                return Err(Malformed);
            }
            open[depth] = count;
            depth += 1;
        }
        while depth > 0 && open[depth - 1] == 0 {
            depth -= 1;
        }
        match depth {
            0 => return Ok(Some(at)),
            _ => open[depth - 1] -= 1,
        }
    }
}

/// What stands before the end of a line, if that has come.
fn line(bytes: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    let most = &bytes[..bytes.len().min(MAX_LINE)];
    match most.windows(2).position(|end| end == b"\r\n") {
        Some(length) => Ok(Some(&most[..length])),
        None if most.len() < MAX_LINE => Ok(None),
        None => Err(Malformed),
    }
}

fn number(line: &[u8], most: usize) -> Result<usize, Malformed> {
    let number = std::str::from_utf8(line).ok().and_then(|line| line.parse().ok());
    number.filter(|number| *number <= most).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_as_long_as_what_is_in_it() {
        for reply in [
            &b"+OK\r\n"[..],
            b"$3\r\n\r\n+\r\n",
            b"=8\r\ntxt:\r\n+1\r\n",
            b"!2\r\nno\r\n",
            b"*0\r\n",
            b"%2\r\n+a\r\n*2\r\n:1\r\n*0\r\n+b\r\n%1\r\n+c\r\n_\r\n",
            b"|1\r\n+a\r\n:1\r\n*1\r\n:2\r\n",
            b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$0\r\n\r\n",
        ] {
            let more = [reply, b"+more\r\n"].concat();
            assert_eq!(length(&more), Ok(Some(reply.len())), "{reply:?}");
            for cut in 0..reply.len() {
                assert_eq!(length(&reply[..cut]), Ok(None), "{reply:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_nested_too_deep_or_has_too_many_parts_is_refused_as_soon_as_that_is_seen() {
        let nested = |depth| [b"*1\r\n".repeat(depth), b":1\r\n".to_vec()].concat();
        assert_eq!(length(&nested(MAX_DEPTH)), Ok(Some(4 * (MAX_DEPTH + 1))));
        assert_eq!(length(&nested(MAX_DEPTH + 1)), Err(Malformed));
        for bytes in [
            &b"*1\r\n".repeat(MAX_DEPTH + 1)[..],
            &b"|0\r\n".repeat(MAX_DEPTH + 1),
            b"*1000000000\r\n",
            b"%50000\r\n",
            b"*2\r\n*90000\r\n*0\r\n%18446744073709551615\r\n",
            b">9\r\n*99991\r\n",
            b"$536870913\r\n",
            b"$18446744073709551615\r\n",
            b"*-1\r\n",
            b"$?\r\n",
            &[b'+'; MAX_LINE + 1],
        ] {
            let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
            assert_eq!(length(bytes), Err(Malformed), "{shown}");
        }
        assert_eq!(length(b"$536870912\r\nx"), Ok(None), "it may come");
    }
}
