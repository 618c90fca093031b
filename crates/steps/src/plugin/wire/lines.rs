//! Bytes to lines.

use super::Nonsense;

/// A longer line is refused, in bytes without its end.
pub const LINE_LIMIT: usize = 4 * 1024 * 1024;

/// Cuts bytes into lines as they come. Keeps at most [`LINE_LIMIT`] bytes and what was last pushed.
#[derive(Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
    /// Up to here there is no line end.
    searched: usize,
}

impl Lines {
    /// Takes in what came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole line without its end; none until more has come.
    ///
    /// # Errors
    /// A line that is too long, whole or not.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, Nonsense> {
        let found = self.bytes[self.searched..].iter().position(|&byte| byte == b'\n');
        let end = found.map(|at| self.searched + at);
        if end.unwrap_or(self.bytes.len()) > LINE_LIMIT {
            return Err(Nonsense::TooLong);
        }
        let Some(end) = end else {
            self.searched = self.bytes.len();
            return Ok(None);
        };
        let rest = self.bytes.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.bytes, rest);
        self.searched = 0;
        line.pop();
        Ok(Some(line))
    }

    /// What came after the last line end.
    pub fn rest(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for piece in pieces {
            lines.push(piece);
            while let Some(line) = lines.next_line().unwrap() {
                found.push(line);
            }
        }
        found
    }

    #[test]
    fn lines_are_the_same_however_they_come_in_pieces() {
        let bytes = b"one\n\ntwo\nrest";
        let whole = lines(&[bytes]);
        assert_eq!(whole, [b"one".to_vec(), Vec::new(), b"two".to_vec()]);
        for at in 0..bytes.len() {
            assert_eq!(lines(&[&bytes[..at], &bytes[at..]]), whole, "cut at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(lines(&single), whole);
    }

    #[test]
    fn a_line_without_an_end_is_refused_once_it_is_too_long() {
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; LINE_LIMIT]);
        assert_eq!(lines.next_line(), Ok(None));
        lines.push(b"x");
        assert_eq!(lines.next_line(), Err(Nonsense::TooLong));
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; LINE_LIMIT]);
        lines.push(b"\n");
        assert_eq!(lines.next_line().unwrap().map(|line| line.len()), Some(LINE_LIMIT));
    }
}
