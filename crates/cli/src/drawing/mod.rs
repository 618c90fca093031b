//! The DAG as a drawing: mermaid and dot for other programs, SVG for eyes. With a run, every task
//! carries its state: as a colour, and as a sign and a word for those who can't tell colours apart.

mod layout;
mod steps;
mod svg;
mod text;

use std::collections::BTreeMap;

pub use svg::{STYLE, svg};
pub use text::{dot, mermaid};

/// The state of each task by its name, in the words of `flow show`.
pub type States = BTreeMap<String, &'static str>;

/// How a state looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Look {
    Failed,
    Unknown,
    Working,
    Changed,
    Ok,
    Skipped,
    Undone,
    Waiting,
}

impl Look {
    /// How a task in this state looks. A word that isn't known looks as if nothing was known of it.
    pub fn of(word: &str) -> Self {
        match word {
            "failed" | "rejected" | "not undone" => Self::Failed,
            "unknown" | "undo unknown" => Self::Unknown,
            "begun" | "retrying" | "asked" | "undoing" | "not done" => Self::Working,
            "changed" | "kept" => Self::Changed,
            "ok" | "approved" => Self::Ok,
            "skipped" => Self::Skipped,
            "undone" => Self::Undone,
            _ => Self::Waiting,
        }
    }

    /// The sign that tells it without colour.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Failed => "✕",
            Self::Unknown => "?",
            Self::Working => "…",
            Self::Changed => "✓",
            Self::Ok => "=",
            Self::Skipped => "–",
            Self::Undone => "↺",
            Self::Waiting => "·",
        }
    }

    /// Its class in style sheets.
    pub fn class(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Unknown => "unknown",
            Self::Working => "working",
            Self::Changed => "changed",
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Undone => "undone",
            Self::Waiting => "waiting",
        }
    }

    /// Fill and line for drawings that other programs make, readable on light and on dark.
    pub fn colours(self) -> (&'static str, &'static str) {
        match self {
            Self::Failed => ("#f8d0cc", "#b3261e"),
            Self::Unknown => ("#f6dcae", "#8f5a00"),
            Self::Working => ("#d7e3fb", "#2f5fb3"),
            Self::Changed => ("#cfe8d6", "#1f6f3d"),
            Self::Ok => ("#e4efe7", "#5f8a6c"),
            Self::Skipped => ("#eeeeee", "#8a8a8a"),
            Self::Undone => ("#e6dcf5", "#6a48a8"),
            Self::Waiting => ("#ffffff", "#8a8a8a"),
        }
    }
}

/// Text as it may stand in HTML and XML, in elements and in attributes. Control characters, which
/// neither can hold, are replaced.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            // What turns the direction of text around could make it read otherwise than it is.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
