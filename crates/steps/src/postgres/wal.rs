//! The WAL of a data directory, read with no server: which timelines it went through, and its last records.

use std::time::Duration;

use flow_core::step::StepError;
use serde::{Deserialize, Serialize};

use super::control::Control;
use super::history::{Fork, Lsn, forks};
use crate::host::{Host, quote};
use crate::support::sha256;

/// How many records are read. Members that stopped together differ by a few.
const RECORDS: usize = 300;
/// Those, and what `pg_waldump` says where they end.
const LINES: usize = RECORDS + 1;
/// How many segments before the latest checkpoint are looked through.
const SEGMENTS_BACK: u64 = 4;
/// How long reading them may take, where nobody says: less than a probe may.
const PATIENCE: Duration = Duration::from_secs(25);
/// Longer history files are none, in bytes.
const HISTORY_LIMIT: u64 = 1 << 20;

/// What the WAL tells.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wal {
    /// Its highest timeline.
    pub(crate) timeline: u32,
    /// Where the timelines before were left, oldest first; none where the history file can't be read.
    pub(crate) history: Option<Vec<Fork>>,
    /// The last valid records, oldest first.
    pub(crate) records: Vec<WalRecord>,
    /// When the last of their transactions was committed, as `pg_waldump` writes it.
    pub(crate) last_commit: Option<String>,
}

/// A record of the WAL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WalRecord {
    /// Where it begins.
    pub(crate) at: Lsn,
    /// A digest of all that `pg_waldump` tells of it.
    pub(crate) digest: String,
    /// It changes nothing that anybody could read: a checkpoint, say. A primary that stops writes one after all others
    /// have stopped listening.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) idle: bool,
}

/// Reads it. Changes nothing, and works under a running server, where the end moves. What isn't read to its end within
/// `patience` has no records.
pub(crate) async fn wal(
    host: &dyn Host,
    bin_dir: &str,
    data_dir: &str,
    control: &Control,
    patience: Option<Duration>,
) -> Result<Wal, StepError> {
    let folder = format!("{data_dir}/pg_wal");
    let Timelines { segments, timeline, history } = timelines(host, data_dir, control).await?;
    let begin = begin(control, timeline, history.as_deref(), &segments);
    let text = match begin {
        Some(begin) => dumped(host, bin_dir, &folder, timeline, begin, patience.unwrap_or(PATIENCE)).await?,
        None => String::new(),
    };
    // Cut short by the time-out, what was read last isn't where the WAL ends.
    let text = if ended(&text) { text } else { String::new() };
    let records = text.lines().filter_map(record).collect();
    let last_commit = text.lines().rev().find_map(commit_time);
    Ok(Wal { timeline, history, records, last_commit })
}

/// Which timelines the WAL went through.
pub(crate) struct Timelines {
    /// The timeline and number of each segment file.
    segments: Vec<(u32, u64)>,
    /// The highest of these.
    pub(crate) timeline: u32,
    /// As [`Wal::history`].
    pub(crate) history: Option<Vec<Fork>>,
}

/// Reads them by the names of the WAL's files. Changes nothing.
pub(crate) async fn timelines(
    host: &dyn Host,
    data_dir: &str,
    control: &Control,
) -> Result<Timelines, StepError> {
    let folder = format!("{data_dir}/pg_wal");
    let segments = segments(&host.list(&folder).await?.unwrap_or_default());
    let timeline = segments.iter().map(|(timeline, _)| *timeline).max().unwrap_or(control.timeline);
    let history = match timeline {
        0 | 1 => Some(Vec::new()),
        later => {
            let file = host.read(&format!("{folder}/{later:08X}.history"), HISTORY_LIMIT).await?;
            file.and_then(|bytes| forks(&String::from_utf8_lossy(&bytes)))
        }
    };
    Ok(Timelines { segments, timeline, history })
}

/// The record that begins right there, where the WAL still has it.
pub(crate) async fn record_at(
    host: &dyn Host,
    bin_dir: &str,
    data_dir: &str,
    timeline: u32,
    at: Lsn,
) -> Result<Option<WalRecord>, StepError> {
    let folder = format!("{data_dir}/pg_wal");
    let program = quote(&format!("{}/pg_waldump", bin_dir.trim_end_matches('/')));
    let script = format!(
        "LC_ALL=C timeout 10 {program} -p {} -t {timeline} -s {at} -n 1 2>/dev/null | tail -n {LINES}",
        quote(&folder)
    );
    let text = host.probe(&script).await?.text();
    // Where none begins there, it tells the next one.
    Ok(text.lines().filter_map(record).find(|found| found.at == at))
}

async fn dumped(
    host: &dyn Host,
    bin_dir: &str,
    folder: &str,
    timeline: u32,
    begin: Lsn,
    patience: Duration,
) -> Result<String, StepError> {
    let program = quote(&format!("{}/pg_waldump", bin_dir.trim_end_matches('/')));
    // It ends with an error where the valid records end: that is what is looked for. Out of time it gives nothing at all.
    let dump = format!("{program} -p {} -t {timeline} -s {begin} 2>&1 | tail -n {LINES}", quote(folder));
    let script = format!("LC_ALL=C timeout {:.1} sh -c {}", patience.as_secs_f32(), quote(&dump));
    Ok(host.probe(&script).await?.text())
}

/// Whether `pg_waldump` came to where the valid records end: it says so, on the last line.
fn ended(text: &str) -> bool {
    text.lines().next_back().is_some_and(|line| line.starts_with("pg_waldump: "))
}

/// The timeline and number of each segment file.
fn segments(names: &[String]) -> Vec<(u32, u64)> {
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let segment = |name: &String| {
        let name = name.as_str();
        if name.len() != 24 || !name.is_ascii() {
            return None;
        }
        // The last eight digits count up to what 4 GiB have of segments; told apart they are ordered all the same.
        Some((u32::try_from(hex(&name[..8])?).ok()?, (hex(&name[8..16])? << 32) | hex(&name[16..])?))
    };
    names.iter().filter_map(segment).collect()
}

/// Where to begin: at the start of a segment some way before the latest checkpoint, so that the last records of members that
/// are behind are found; never before the timeline's first segment, which holds the end of the timeline before too.
fn begin(control: &Control, timeline: u32, history: Option<&[Fork]>, segments: &[(u32, u64)]) -> Option<Lsn> {
    let redo: Lsn = control.redo.parse().ok()?;
    let size = control.segment;
    let number = |lsn: Lsn| ((lsn.0 >> 32) << 32) | ((lsn.0 & 0xffff_ffff) / size);
    let start = |number: u64| Lsn(((number >> 32) << 32) | ((number & 0xffff_ffff) * size));
    let fork = history.and_then(<[Fork]>::last).map(|fork| number(fork.at));
    let there = |number: u64| segments.contains(&(timeline, number));
    let mut at = match (timeline == control.timeline, fork) {
        (true, _) => number(redo),
        // Not replayed up to its own timeline yet, or not known from where it came.
        (false, fork) => fork?,
    };
    if !there(at) {
        return (timeline == control.timeline).then_some(redo);
    }
    for _ in 0..SEGMENTS_BACK {
        let before = if at & 0xffff_ffff == 0 { break } else { at - 1 };
        if fork.is_some_and(|fork| before < fork) || !there(before) {
            break;
        }
        at = before;
    }
    Some(start(at))
}

/// `rmgr: Heap len (rec/tot): 54/54, tx: 735, lsn: 0/01529C28, prev 0/01529BF0, desc: ...`
fn record(line: &str) -> Option<WalRecord> {
    let at = line.split_once(" lsn: ")?.1.split_once(',')?.0;
    Some(WalRecord {
        at: at.trim().parse().ok()?,
        digest: sha256(line.as_bytes())[..16].to_owned(),
        idle: idle(line),
    })
}

/// The records that hold no change of data, by the names of their resource manager and kind.
const IDLE: [(&str, &str); 7] = [
    ("XLOG", "CHECKPOINT_SHUTDOWN"),
    ("XLOG", "CHECKPOINT_ONLINE"),
    ("XLOG", "CHECKPOINT_REDO"),
    ("XLOG", "SWITCH"),
    ("XLOG", "PARAMETER_CHANGE"),
    ("XLOG", "END_OF_RECOVERY"),
    ("Standby", "RUNNING_XACTS"),
];

fn idle(line: &str) -> bool {
    let word = |after: &str| line.split_once(after).and_then(|(_, rest)| rest.split_whitespace().next());
    let (Some(manager), Some(kind)) = (word("rmgr: "), word(" desc: ")) else { return false };
    IDLE.contains(&(manager, kind))
}

/// `... desc: COMMIT 2026-01-02 03:04:05.678901 UTC; ...`
fn commit_time(line: &str) -> Option<String> {
    let rest = line.split_once("desc: COMMIT ")?.1;
    Some(rest.split(';').next().unwrap_or(rest).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(timeline: u32, redo: &str) -> Control {
        Control {
            system_identifier: "7".into(),
            state: "shut down".into(),
            timeline,
            redo: redo.into(),
            minimum_recovery: "0/0".into(),
            checkpoint_time: String::new(),
            segment: 16 << 20,
            rewindable: true,
        }
    }

    #[test]
    fn records_and_the_last_commit_are_read_from_pg_waldump() {
        let line = "rmgr: Transaction len (rec/tot):     34/    34, tx:        735, lsn: 0/01529C28, prev 0/01529BF0, desc: COMMIT 2026-01-02 03:04:05.678901 UTC; inval msgs: x";
        let read = record(line).unwrap();
        assert_eq!((read.at, read.digest.len(), read.idle), (Lsn(0x0152_9C28), 16, false));
        assert_eq!(commit_time(line).unwrap(), "2026-01-02 03:04:05.678901 UTC");
        assert_eq!(record("first record is after 0/1000000"), None);
        let end = "pg_waldump: error: error in WAL record at 0/1529C28: invalid record length at 0/1529C50: wanted 24, got 0";
        assert_eq!(record(end), None);
        assert!(ended(&format!("{line}\n{end}\n")));
        assert!(!ended(line) && !ended(""), "the time-out came first");
    }

    #[test]
    fn it_begins_some_segments_before_the_checkpoint_and_not_before_the_fork() {
        let segments =
            |timeline, numbers: std::ops::Range<u64>| numbers.map(|n| (timeline, n)).collect::<Vec<_>>();
        assert_eq!(begin(&control(1, "0/9000028"), 1, Some(&[]), &segments(1, 1..12)), Some(Lsn(0x500_0000)));
        assert_eq!(begin(&control(1, "0/9000028"), 1, Some(&[]), &segments(1, 8..12)), Some(Lsn(0x800_0000)));
        let fork = [Fork { timeline: 1, at: Lsn(0x800_0198) }];
        assert_eq!(
            begin(&control(2, "0/9000028"), 2, Some(&fork), &segments(2, 8..12)),
            Some(Lsn(0x800_0000))
        );
        // The checkpoint is still one of the timeline before.
        assert_eq!(
            begin(&control(1, "0/7000028"), 2, Some(&fork), &segments(2, 8..12)),
            Some(Lsn(0x800_0000))
        );
        assert_eq!(begin(&control(1, "0/7000028"), 2, None, &segments(2, 8..12)), None);
    }

    #[test]
    fn a_checkpoint_changes_nothing_and_what_is_not_known_may() {
        let line = |manager: &str, desc: &str| {
            format!(
                "rmgr: {manager:<11} len (rec/tot):    114/   114, tx:          0, lsn: 0/05000108, prev 0/050000D0, desc: {desc}"
            )
        };
        for (manager, desc) in [
            ("XLOG", "CHECKPOINT_SHUTDOWN redo 0/5000108; tli 2; prev tli 2; fpw true; xid 0:741; shutdown"),
            ("XLOG", "SWITCH "),
            ("Standby", "RUNNING_XACTS nextXid 741 latestCompletedXid 740 oldestRunningXid 741"),
        ] {
            assert!(record(&line(manager, desc)).unwrap().idle, "{desc}");
        }
        for (manager, desc) in [
            ("Heap", "INSERT off 3 flags 0x00, blkref #0: rel 1663/5/16384 blk 0"),
            ("Transaction", "COMMIT 2026-01-02 03:04:05.678901 UTC"),
            ("XLOG", "FPI_FOR_HINT , blkref #0: rel 1663/5/16384 blk 0 FPW"),
            ("LogicalMessage", "CHECKPOINT_SHUTDOWN"),
        ] {
            assert!(!record(&line(manager, desc)).unwrap().idle, "{desc}");
        }
    }

    #[test]
    fn only_segments_are_segments() {
        let names = [
            "000000020000000A0000000B",
            "00000002.history",
            "archive_status",
            "000000020000000A0000000B.partial",
        ];
        assert_eq!(segments(&names.map(str::to_owned)), [(2, (0xA << 32) | 0xB)]);
    }
}
