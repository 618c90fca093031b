//! What Patroni and its PostgreSQL complained of last.

use std::time::Duration;

use crate::host::{Host, quote};
use crate::support::within;

/// How many lines of the journal are read.
const LINES: usize = 400;
/// How many complaints are told.
const TOLD: usize = 3;
/// The longest complaint that is told, in characters.
const LENGTH: usize = 300;
/// How long reading may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// The levels of Patroni and of PostgreSQL that matter.
const LEVELS: [&str; 5] = ["WARNING:", "ERROR:", "CRITICAL:", "FATAL:", "PANIC:"];

/// The unit's last complaints, oldest first, each once. What can't be read tells nothing.
pub(super) async fn complaints(host: &dyn Host, unit: &str) -> Vec<String> {
    let script = format!("journalctl -u {} -n {LINES} -o cat --no-pager", quote(unit));
    match within(Some(PATIENCE), host.probe(&script)).await {
        Some(Ok(reply)) if reply.success() => last(&reply.text()),
        _ => Vec::new(),
    }
}

fn last(journal: &str) -> Vec<String> {
    let mut told: Vec<(&str, &str)> = Vec::new();
    for line in journal.lines().rev().map(str::trim) {
        if let Some(what) = complaint(line)
            && told.len() < TOLD
            && !told.iter().any(|(_, known)| *known == what)
        {
            told.push((line, what));
        }
    }
    let cut = |line: &str| match line.char_indices().nth(LENGTH) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line.to_owned(),
    };
    told.into_iter().rev().map(|(line, _)| cut(line)).collect()
}

/// What a line complains of, without time and process: by it a line is known to repeat another.
fn complaint(line: &str) -> Option<&str> {
    if line.starts_with("patroni.exceptions.") {
        return Some(line);
    }
    let words = line.split_whitespace();
    words
        .filter(|word| LEVELS.contains(word))
        .find_map(|level| line.split_once(level))
        .map(|(_, what)| what.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_complaints_are_told_once_each() {
        let journal = "\
2026-12-01 03:00:00,101 INFO: No PostgreSQL configuration items changed, nothing to reload.
2026-12-01 03:00:00,102 WARNING: Postgresql is not running.
2026-12-01 03:00:01,103 CRITICAL: system ID mismatch, node patroni3 belongs to a different cluster: 1 != 2
2026-12-01 03:00:02.104 UTC [77] FATAL:  data directory \"/d\" has invalid permissions
2026-12-01 03:00:02.104 UTC [77] DETAIL:  Permissions should be u=rwx (0700).
2026-12-01 03:00:11,103 CRITICAL: system ID mismatch, node patroni3 belongs to a different cluster: 1 != 2
patroni.exceptions.PatroniFatalException: Failed to bootstrap cluster
patroni.service: Main process exited, code=exited, status=1/FAILURE
";
        assert_eq!(
            last(journal),
            [
                "2026-12-01 03:00:02.104 UTC [77] FATAL:  data directory \"/d\" has invalid permissions",
                "2026-12-01 03:00:11,103 CRITICAL: system ID mismatch, node patroni3 belongs to a different cluster: 1 != 2",
                "patroni.exceptions.PatroniFatalException: Failed to bootstrap cluster",
            ]
        );
        assert!(last("").is_empty());
        let long = format!("x ERROR: {}", "\u{e9}".repeat(500));
        assert_eq!(last(&long)[0].chars().count(), LENGTH + 3);
    }
}
