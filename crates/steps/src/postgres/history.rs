//! Positions in the WAL, and the history files that tell where timelines fork (PostgreSQL 15 and 17, `timeline.c`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A position in the WAL, in bytes. Written `0/3000028`, as PostgreSQL does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Lsn(pub(crate) u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl FromStr for Lsn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let half = |text: &str| u32::from_str_radix(text, 16).ok().map(u64::from);
        let read = |(high, low): (&str, &str)| -> Option<u64> { Some((half(high)? << 32) | half(low)?) };
        text.split_once('/').and_then(read).map(Self).ok_or_else(|| format!("`{text}` is no WAL position"))
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> Self {
        lsn.to_string()
    }
}

impl TryFrom<String> for Lsn {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// Where a timeline was left for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fork {
    /// The timeline that was left.
    pub(crate) timeline: u32,
    /// Its last position; the next timeline begins here.
    pub(crate) at: Lsn,
}

/// Reads `00000003.history`: a line for each timeline before this one. `None`: it is no such file.
pub(crate) fn forks(text: &str) -> Option<Vec<Fork>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut words = line.split_whitespace();
            Some(Fork { timeline: words.next()?.parse().ok()?, at: words.next()?.parse().ok()? })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_written_as_postgresql_does() {
        for (text, bytes) in [("0/3000028", 0x0300_0028), ("16/B374D848", 0x16_B374_D848), ("0/0", 0)] {
            assert_eq!(text.parse(), Ok(Lsn(bytes)));
            assert_eq!(Lsn(bytes).to_string(), text);
        }
        for wrong in ["", "0", "0/", "x/1", "0/123456789"] {
            assert!(wrong.parse::<Lsn>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_history_file_tells_where_each_timeline_was_left() {
        let text = "1\t0/A000198\tno recovery target specified\n\n2\t0/C0000A0\tbefore 2026-01-02 03:04:05\n";
        let found = forks(text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!((found[1].timeline, found[1].at), (2, Lsn(0x0C00_00A0)));
        assert_eq!(forks("nothing of the kind"), None);
    }
}
