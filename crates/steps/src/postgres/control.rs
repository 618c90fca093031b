//! What `pg_controldata` tells of a data directory.

use flow_core::step::StepError;
use serde::{Deserialize, Serialize};

use crate::host::{Host, quote};

/// The fields that procedures need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Control {
    /// The database system identifier, decimal.
    pub(crate) system_identifier: String,
    /// `in production`, `shut down`, `in archive recovery`.
    pub(crate) state: String,
    /// The latest checkpoint's timeline.
    pub(crate) timeline: u32,
    /// The latest checkpoint's REDO location.
    pub(crate) redo: String,
    /// The minimum recovery ending location; `0/0` on a primary.
    #[serde(default)]
    pub(crate) minimum_recovery: String,
    /// When the latest checkpoint was made, as `pg_controldata` writes it, in the host's time zone; empty where it doesn't say.
    #[serde(default)]
    pub(crate) checkpoint_time: String,
    /// Bytes of a WAL segment; 16 MiB unless initdb was told otherwise.
    #[serde(default = "segment")]
    pub(crate) segment: u64,
    /// It has what pg_rewind wants: checksums, or hints in the WAL.
    #[serde(default)]
    pub(crate) rewindable: bool,
}

fn segment() -> u64 {
    16 << 20
}

/// Reads a data directory's control file. `None`: there is none, or `pg_controldata` can't read it.
pub(crate) async fn control(
    host: &dyn Host,
    bin_dir: &str,
    data_dir: &str,
) -> Result<Option<Control>, StepError> {
    let program = format!("{}/pg_controldata", bin_dir.trim_end_matches('/'));
    let reply = host.probe(&format!("LC_ALL=C {} {}", quote(&program), quote(data_dir))).await?;
    Ok(if reply.success() { parse(&reply.text()) } else { None })
}

fn parse(text: &str) -> Option<Control> {
    let field = |name: &str| {
        text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
    };
    Some(Control {
        system_identifier: field("Database system identifier")?,
        state: field("Database cluster state").unwrap_or_default(),
        timeline: field("Latest checkpoint's TimeLineID").and_then(|text| text.parse().ok()).unwrap_or(0),
        redo: field("Latest checkpoint's REDO location").unwrap_or_default(),
        minimum_recovery: field("Minimum recovery ending location").unwrap_or_default(),
        checkpoint_time: field("Time of latest checkpoint").unwrap_or_default(),
        segment: field("Bytes per WAL segment").and_then(|text| text.parse().ok()).unwrap_or_else(segment),
        rewindable: field("Data page checksum version").is_some_and(|version| version != "0")
            || field("wal_log_hints setting").is_some_and(|setting| setting == "on"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_pg_controldata_are_read() {
        let text = "pg_control version number:            1300\n\
            Database system identifier:           7711162655563234249\n\
            Database cluster state:               in production\n\
            Latest checkpoint location:           0/3000028\n\
            Latest checkpoint's REDO location:    0/3000028\n\
            Latest checkpoint's TimeLineID:       2\n\
            Latest checkpoint's PrevTimeLineID:   2\n\
            Minimum recovery ending location:     0/5000060\n\
            wal_log_hints setting:                off\n\
            Bytes per WAL segment:                67108864\n\
            Data page checksum version:           1";
        let control = parse(text).unwrap();
        assert_eq!(control.system_identifier, "7711162655563234249");
        assert_eq!((control.timeline, control.redo.as_str()), (2, "0/3000028"));
        assert_eq!((control.state.as_str(), control.rewindable), ("in production", true));
        let neither = text.replace("version:           1", "version:           0");
        assert!(!parse(&neither).unwrap().rewindable);
        assert!(parse(&neither.replace("off", "on")).unwrap().rewindable);
        assert_eq!((control.minimum_recovery.as_str(), control.segment), ("0/5000060", 64 << 20));
        assert_eq!(parse("nothing of the kind"), None);
    }
}
