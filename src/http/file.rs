//! A body that is a part of a file, which is read in pieces while the client takes it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::net::os;

/// So much of a file is in memory at a time.
pub(crate) const PIECE: usize = 64 << 10;

/// A part of a file, or all of it.
#[derive(Debug, Clone)]
pub(crate) struct FilePart {
    file: Arc<File>,
    range: Range<u64>,
}

impl FilePart {
    pub(crate) fn new(file: File, range: Range<u64>) -> Self {
        Self { file: Arc::new(file), range }
    }

    pub(crate) fn len(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    /// Gives each piece to `write`, in order.
    ///
    /// # Errors
    ///
    /// Those of `write` and of the file; [`io::ErrorKind::UnexpectedEof`] when it has become shorter since its length was
    /// told. What it has grown by is not read.
    pub(crate) fn write_to(
        &self,
        mut write: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let length = usize::try_from(self.len()).unwrap_or(PIECE);
        let mut piece = vec![0; length.min(PIECE)];
        let mut at = self.range.start;
        while at < self.range.end {
            let left = usize::try_from(self.range.end - at).unwrap_or(PIECE);
            let room = left.min(PIECE);
            match os::read_at(&self.file, &mut piece[..room], at) {
                Ok(0) => return Err(self.shorter(at)),
                Ok(count) => {
                    write(&piece[..count])?;
                    at += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn shorter(&self, at: u64) -> io::Error {
        let (sent, length) = (at - self.range.start, self.len());
        let reason = format!(
            "the file has become shorter: {sent} of {length} bytes were sent, and no more are there"
        );
        io::Error::new(io::ErrorKind::UnexpectedEof, reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn file(name: &str, content: &[u8]) -> (File, std::path::PathBuf) {
        let path = std::env::temp_dir().join(format!("rwf-{name}-{}", std::process::id()));
        fs::write(&path, content).unwrap();
        (File::open(&path).unwrap(), path)
    }

    fn read(part: &FilePart) -> io::Result<(Vec<u8>, usize)> {
        let (mut bytes, mut longest) = (Vec::new(), 0);
        part.write_to(|piece| {
            longest = longest.max(piece.len());
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok((bytes, longest))
    }

    #[test]
    fn a_part_comes_in_pieces_and_ends_where_it_was_said_to() {
        let content: Vec<u8> = (0..3 * PIECE + 5).map(|at| (at % 251) as u8).collect();
        let (open, path) = file("part", &content);
        let open = Arc::new(open);
        let end = content.len() as u64;
        for range in [0..0, 0..1, 0..end, 1..end - 1, end - 1..end, end..end, 70_000..140_000] {
            let part = FilePart { file: Arc::clone(&open), range: range.clone() };
            let (bytes, longest) = read(&part).unwrap();
            let expected = &content[range.start as usize..range.end as usize];
            assert!(bytes == expected, "{range:?}");
            assert!(longest <= PIECE, "{longest}");
            assert_eq!(part.len(), expected.len() as u64);
        }
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_that_is_shorter_than_it_was_fails_and_says_so() {
        let (open, path) = file("shorter", b"abc");
        let error = read(&FilePart::new(open, 1..10)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert!(error.to_string().contains("2 of 9 bytes"), "{error}");
        fs::remove_file(path).unwrap();
    }
}
