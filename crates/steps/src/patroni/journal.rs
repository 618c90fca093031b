//! What Patroni and its PostgreSQL complained of last.

use crate::host::{Host, quote};

/// How many lines of the journal are read.
const LINES: usize = 400;
/// How many complaints are told.
const TOLD: usize = 3;
/// The longest complaint that is told, in characters.
const LENGTH: usize = 300;

/// The unit's last complaints, oldest first, each once. What can't be read tells nothing.
pub(super) async fn complaints(host: &dyn Host, unit: &str) -> Vec<String> {
    let script = format!("timeout 1 journalctl -u {} -n {LINES} -o cat --no-pager", quote(unit));
    match host.probe(&script).await {
        Ok(reply) if reply.success() => last(&reply.text()),
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
    let cut = |line: &str| {
        let printable = |one: char| if one.is_control() { ' ' } else { one };
        let mut told: String = line.chars().take(LENGTH).map(printable).collect();
        if line.chars().nth(LENGTH).is_some() {
            told.push_str("...");
        }
        told
    };
    told.into_iter().rev().map(|(line, _)| cut(line)).collect()
}

/// What a line complains of, without time and process: by it a line is known to repeat another. Of PostgreSQL's own lines only
/// those that end a process: what a client did wrong tells nothing, and may quote its data.
fn complaint(line: &str) -> Option<&str> {
    if line.starts_with("patroni.exceptions.") {
        return Some(line);
    }
    let is_level = |word: &&str| {
        word.ends_with(':')
            && word.len() > 1
            && word[..word.len() - 1].chars().all(|one| one.is_ascii_uppercase())
    };
    let level = line.split_whitespace().find(is_level)?;
    let of_patroni = line.split_whitespace().nth(1).is_some_and(|time| time.contains(','));
    let matters = match level {
        "CRITICAL:" | "FATAL:" | "PANIC:" => true,
        "WARNING:" | "ERROR:" => of_patroni,
        _ => false,
    };
    line.split_once(level).filter(|_| matters).map(|(_, what)| what.trim())
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
2026-12-01 03:00:03.104 UTC [78] ERROR:  invalid input syntax for type integer: \"a customer\"
2026-12-01 03:00:03.104 UTC [78] STATEMENT:  select 'FATAL: 1'
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
        let long = format!("x FATAL: {}", "\u{e9}".repeat(500));
        assert_eq!(last(&long)[0].chars().count(), LENGTH + 3);
    }
}
