//! How things look. Data goes to standard output; what is told on the way goes to standard error.
//! A closed pipe on standard output ends what is shown, never a run.

pub mod before;
pub mod errors;
mod live;
pub mod preview;
mod questions;
pub mod rehearsal;
pub mod undo;

use std::io::Write;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

pub use live::Screen;
pub use questions::Questions;

/// One line of data.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{}", text.trim_end());
}

/// A text of data as it is.
pub fn text(text: &str) {
    let _ = write!(std::io::stdout().lock(), "{text}");
}

/// Lines of data, indented.
pub fn indented(text: &str, by: usize) {
    for each in text.lines() {
        line(&format!("{:by$}{each}", ""));
    }
}

/// One JSON document of data.
pub fn json(value: &impl Serialize) {
    if let Ok(text) = serde_json::to_string_pretty(value) {
        line(&text);
    }
}

/// One line on standard error.
pub fn tell(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text.trim_end());
}

/// A time as people here read it, with the zone's name.
pub fn local_time(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %Z").to_string()
}

/// A span of time: `0.4 s`, `12 s`, `3 min 20 s`.
pub fn seconds(from: Timestamp, to: Timestamp) -> String {
    duration(to.duration_since(from).as_secs_f64().max(0.0))
}

/// So many seconds in words.
pub fn duration(seconds: f64) -> String {
    if seconds < 9.95 {
        format!("{seconds:.1} s")
    } else if seconds < 119.5 {
        format!("{seconds:.0} s")
    } else {
        let whole = seconds.round() as u64;
        format!("{} min {} s", whole / 60, whole % 60)
    }
}

/// "1 task", "3 tasks".
pub fn tasks(count: usize) -> String {
    counted(count, "task")
}

/// "1 step", "3 steps".
pub fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
