//! How commands and answers are told apart on the two streams of one shell. Pure: bytes in, replies out.
//!
//! Each command runs in a subshell whose script arrives quoted, so that a syntax error, `exit` or
//! `exec` ends only that subshell. After it the shell prints a marker on each stream: a nonce of 128
//! random bits that only this shell's input holds, the command's number and, on standard output, its
//! exit status. What stands between two markers is the command's output, byte for byte.

use super::quote;
use crate::host::Reply;

/// The longest output of one command that is kept, on each stream. More is cut, and said to be.
pub(crate) const OUTPUT_LIMIT: usize = 32 * 1024 * 1024;

/// What a shell is sent before the first command: number 0, whose output is what a login printed.
pub(crate) fn prelude(nonce: &str) -> String {
    format!(
        "LC_ALL=C.UTF-8; PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; export LC_ALL PATH\n\
         unset ENV CDPATH; cd /; umask 022\n{}",
        marker(nonce, 0, "0")
    )
}

/// What a shell is sent for one command.
pub(crate) fn request(nonce: &str, number: u64, script: &str) -> String {
    format!("( eval {} ) </dev/null\n{}", force_quote(script), marker(nonce, number, "$?"))
}

fn marker(nonce: &str, number: u64, status: &str) -> String {
    format!("printf '{nonce} {number} %d\\n' \"{status}\"; printf '{nonce} {number} 0\\n' >&2\n")
}

/// Quotes even what needs no quotes: `eval` of a word such as `a=b` must not become an assignment.
fn force_quote(script: &str) -> String {
    let quoted = quote(script);
    if quoted.starts_with('\'') { quoted } else { format!("'{quoted}'") }
}

/// Finds markers in what arrives on one stream.
#[derive(Debug)]
pub(crate) struct Stream {
    nonce: Vec<u8>,
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are known to hold no marker's beginning.
    scanned: usize,
    cut: bool,
}

/// What one command left on one stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// The command's number.
    pub(crate) number: u64,
    /// The exit status (on standard output; 0 on standard error).
    pub(crate) status: i32,
    /// Its output.
    pub(crate) bytes: Vec<u8>,
    /// Whether more than [`OUTPUT_LIMIT`] came, and was dropped.
    pub(crate) cut: bool,
}

impl Stream {
    pub(crate) fn new(nonce: &str) -> Self {
        Self { nonce: nonce.as_bytes().to_vec(), buffer: Vec::new(), scanned: 0, cut: false }
    }

    /// Takes in what arrived and gives the parts that are complete now.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Part> {
        self.buffer.extend_from_slice(bytes);
        let mut parts = Vec::new();
        while let Some(part) = self.next_part() {
            parts.push(part);
        }
        if self.scanned > OUTPUT_LIMIT {
            // Keep the tail: it may hold the beginning of a marker.
            self.buffer.drain(OUTPUT_LIMIT..self.scanned);
            self.scanned = OUTPUT_LIMIT;
            self.cut = true;
        }
        parts
    }

    fn next_part(&mut self) -> Option<Part> {
        loop {
            let Some(at) = find(&self.buffer, &self.nonce, self.scanned) else {
                self.scanned = self.scanned.max((self.buffer.len() + 1).saturating_sub(self.nonce.len()));
                return None;
            };
            self.scanned = at;
            let rest = &self.buffer[at + self.nonce.len()..];
            let end = rest.iter().take(40).position(|&b| b == b'\n');
            match end.and_then(|end| numbers(&rest[..end]).map(|numbers| (end, numbers))) {
                Some((end, (number, status))) => {
                    let rest = self.buffer.split_off(at + self.nonce.len() + end + 1);
                    let mut bytes = std::mem::replace(&mut self.buffer, rest);
                    bytes.truncate(at.min(OUTPUT_LIMIT));
                    self.scanned = 0;
                    return Some(Part { number, status, bytes, cut: std::mem::take(&mut self.cut) });
                }
                None if end.is_none() && rest.len() < 40 => return None,
                // The nonce without a marker's rest: output that quotes the shell's own input.
                None => self.scanned = at + 1,
            }
        }
    }
}

/// The number and the status that follow a nonce.
fn numbers(bytes: &[u8]) -> Option<(u64, i32)> {
    let mut words = std::str::from_utf8(bytes).ok()?.strip_prefix(' ')?.split(' ');
    let numbers = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    words.next().is_none().then_some(numbers)
}

/// Where `needle` begins in `hay`, from `start` on.
pub(crate) fn find(hay: &[u8], needle: &[u8], start: usize) -> Option<usize> {
    let first = *needle.first()?;
    let mut at = start;
    while at + needle.len() <= hay.len() {
        at += hay[at..=hay.len() - needle.len()].iter().position(|&b| b == first)?;
        if hay[at..].starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// Puts the two streams of a shell together to replies, in order.
#[derive(Debug)]
pub(crate) struct Frames {
    out: Stream,
    err: Stream,
    outs: std::collections::VecDeque<Part>,
    errs: std::collections::VecDeque<Part>,
}

impl Frames {
    pub(crate) fn new(nonce: &str) -> Self {
        Self {
            out: Stream::new(nonce),
            err: Stream::new(nonce),
            outs: Default::default(),
            errs: Default::default(),
        }
    }

    pub(crate) fn out(&mut self, bytes: &[u8]) {
        self.outs.extend(self.out.feed(bytes));
    }

    pub(crate) fn err(&mut self, bytes: &[u8]) {
        self.errs.extend(self.err.feed(bytes));
    }

    /// The next command whose answer is whole: its number, its reply, and whether output was cut.
    pub(crate) fn next(&mut self) -> Option<(u64, Reply, bool)> {
        if self.outs.is_empty() || self.errs.is_empty() {
            return None;
        }
        let (out, err) = (self.outs.pop_front()?, self.errs.pop_front()?);
        let cut = out.cut || err.cut;
        Some((out.number, Reply { code: out.status, stdout: out.bytes, stderr: err.bytes }, cut))
    }

    /// What arrived on standard error and belongs to no command yet: why a shell did not start.
    pub(crate) fn pending_error(&self) -> String {
        let text = String::from_utf8_lossy(&self.err.buffer);
        let text = text.trim();
        if text.is_empty() {
            String::from_utf8_lossy(&self.out.buffer).trim().to_owned()
        } else {
            text.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONCE: &str = "0123456789abcdef0123456789abcdef";

    fn answers(frames: &mut Frames) -> Vec<(u64, Reply, bool)> {
        std::iter::from_fn(|| frames.next()).collect()
    }

    proptest! {
        #[test]
        fn outputs_of_any_bytes_in_any_pieces_stay_apart(
            outputs in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..200), prop::collection::vec(any::<u8>(), 0..50), 0i32..256), 1..20),
            piece in 1usize..70,
        ) {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            for (number, (o, e, status)) in outputs.iter().enumerate() {
                out.extend([o.as_slice(), format!("{NONCE} {number} {status}\n").as_bytes()].concat());
                err.extend([e.as_slice(), format!("{NONCE} {number} 0\n").as_bytes()].concat());
            }
            let mut frames = Frames::new(NONCE);
            let mut got = Vec::new();
            for chunk in out.chunks(piece) {
                frames.out(chunk);
            }
            for chunk in err.chunks(piece) {
                frames.err(chunk);
                got.extend(answers(&mut frames));
            }
            let want: Vec<_> = outputs.into_iter().enumerate()
                .map(|(n, (stdout, stderr, code))| (n as u64, Reply { code, stdout, stderr }, false)).collect();
            prop_assert_eq!(got, want);
        }

        #[test]
        fn find_agrees_with_windows(hay in prop::collection::vec(0u8..3, 0..60), needle in prop::collection::vec(0u8..3, 1..4), start in 0usize..10) {
            let start = start.min(hay.len());
            let want = hay[start..].windows(needle.len()).position(|w| w == needle).map(|p| p + start);
            prop_assert_eq!(find(&hay, &needle, start), want);
        }
    }

    #[test]
    fn output_beyond_the_limit_is_cut_and_the_next_answer_is_whole() {
        let mut frames = Frames::new(NONCE);
        let block = vec![b'0'; 1024 * 1024];
        for _ in 0..40 {
            frames.out(&block);
        }
        frames.out(format!("{NONCE} 1 0\nnext{NONCE} 2 3\n").as_bytes());
        frames.err(format!("{NONCE} 1 0\n{NONCE} 2 0\n").as_bytes());
        let got = answers(&mut frames);
        assert_eq!((got[0].1.stdout.len(), got[0].2), (OUTPUT_LIMIT, true));
        assert_eq!(got[1], (2, Reply { code: 3, stdout: b"next".to_vec(), stderr: vec![] }, false));
    }
}
