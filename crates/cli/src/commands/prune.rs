//! `flow runs --prune`: remove runs that nobody will go on with.

use std::time::Duration;

use clap::Args;
use flow_core::run::RunId;
use flow_core::store::{Claim, RunRow, Store};
use jiff::Timestamp;
use serde_json::json;

use super::runs::{short, status};
use crate::args::{Format, Global};
use crate::exit::{Error, Exit};
use crate::{context, screen};

#[derive(Args, Clone)]
pub struct PruneArgs {
    /// Show which runs would be removed; with --yes, remove them.
    #[arg(long)]
    pub prune: bool,

    /// The newest COUNT runs stay.
    #[arg(long, value_name = "COUNT", requires = "prune")]
    pub keep: Option<usize>,

    /// Only runs that began longer ago than this: 30d, 12h.
    #[arg(long, value_name = "TIME", requires = "prune", value_parser = parse_age)]
    pub older_than: Option<Duration>,

    /// Remove them.
    #[arg(long, requires = "prune")]
    pub yes: bool,

    /// These runs, by the beginnings of their ids; also such that could be gone on with.
    #[arg(value_name = "RUN", requires = "prune")]
    pub runs: Vec<String>,
}

/// A run, how it stands, and why it stays; none where it goes.
struct Row {
    run: RunRow,
    status: &'static str,
    stays: Option<&'static str>,
}

pub fn prune(global: &Global, args: &PruneArgs) -> Result<Exit, Error> {
    if args.keep.is_none() && args.older_than.is_none() && args.runs.is_empty() {
        return Err(Error::refused(
            "it isn't said which runs to remove",
            "--keep COUNT, --older-than 30d, or the runs' ids",
        ));
    }
    let mut store = context::store(global)?;
    let all = store.runs()?;
    let mut rows =
        if args.runs.is_empty() { by_age(&*store, &all, args)? } else { by_name(&*store, &args.runs)? };
    // Whoever works on a run holds its claim: it is taken before anything is removed.
    let claims = claim_all(&*store, &mut rows, args.yes);
    let (go, stay): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.stays.is_none());
    let ids: Vec<RunId> = go.iter().map(|row| row.run.id.clone()).collect();
    let sizes = if args.yes && !ids.is_empty() { Some(store.remove(&ids)?) } else { None };
    drop(claims);
    if global.output == Format::Json {
        let as_json = |row: &&Row| {
            json!({ "id": row.run.id, "workflow": row.run.workflow, "started": row.run.started, "status": row.status,
                "why": row.stays })
        };
        screen::json(&json!({
            "removed": args.yes, "runs": go.iter().map(as_json).collect::<Vec<_>>(),
            "kept": stay.iter().map(as_json).collect::<Vec<_>>(),
            "bytes_before": sizes.map(|sizes| sizes.0), "bytes_after": sizes.map(|sizes| sizes.1),
        }));
        return Ok(Exit::Success);
    }
    for row in &go {
        tell(&all, row, if args.yes { "removed" } else { "would go" }, "");
    }
    for row in &stay {
        tell(&all, row, "stays", row.stays.unwrap_or_default());
    }
    if args.yes && go.iter().any(|row| !matches!(row.status, "succeeded" | "undone" | "refused")) {
        screen::tell(
            "hosts that are still locked for a removed run stay so: `flow unlock RUN` takes its locks off",
        );
    }
    screen::tell(&match sizes {
        Some((before, after)) => format!(
            "{} removed; the store has {} now, {} before",
            screen::counted(go.len(), "run"),
            kibibytes(after),
            kibibytes(before)
        ),
        None if go.is_empty() => "no run to remove".to_owned(),
        None => {
            format!(
                "{} would go; nothing was removed yet; to go ahead: --yes",
                screen::counted(go.len(), "run")
            )
        }
    });
    Ok(Exit::Success)
}

fn tell(all: &[RunRow], row: &Row, mark: &str, why: &str) {
    screen::line(&format!(
        "{mark:8}  {id:6}  {}  {:12}  {}{}",
        screen::local_time(row.run.started),
        row.status,
        row.run.workflow,
        if why.is_empty() { String::new() } else { format!("  ({why})") },
        id = short(all, &row.run.id),
    ));
}

/// The runs that are old enough, and those that are but stay: nobody knows yet that they are over.
fn by_age(store: &dyn Store, all: &[RunRow], args: &PruneArgs) -> Result<Vec<Row>, Error> {
    let now = Timestamp::now();
    let old = |row: &&RunRow| match args.older_than {
        None => true,
        Some(age) => now.duration_since(row.started).as_secs_f64() >= age.as_secs_f64(),
    };
    let mut rows = Vec::new();
    for run in all.iter().skip(args.keep.unwrap_or(0)).filter(old) {
        let status = status(store, &run.id)?;
        let stays = match status {
            "succeeded" | "undone" | "refused" => None,
            _ if store.is_imported(&run.id)? => None,
            "running" => Some("it is being worked on"),
            _ => Some("it could be gone on with; to remove it, name it"),
        };
        rows.push(Row { run: run.clone(), status, stays });
    }
    Ok(rows)
}

fn by_name(store: &dyn Store, names: &[String]) -> Result<Vec<Row>, Error> {
    let mut rows: Vec<Row> = Vec::new();
    for name in names {
        let run = store.find(name)?;
        if rows.iter().all(|row| row.run.id != run.id) {
            let status = status(store, &run.id)?;
            rows.push(Row { run, status, stays: None });
        }
    }
    Ok(rows)
}

/// Takes the claims of all that go; one that is taken by somebody stays.
fn claim_all(store: &dyn Store, rows: &mut [Row], hold: bool) -> Vec<Box<dyn Claim>> {
    let mut claims = Vec::new();
    for row in rows.iter_mut().filter(|row| row.stays.is_none()) {
        match store.claim(&row.run.id, &context::owner()) {
            Ok(claim) if hold => claims.push(claim),
            Ok(_) => {}
            Err(_) => row.stays = Some("it is being worked on"),
        }
    }
    claims
}

fn kibibytes(bytes: u64) -> String {
    format!("{} KiB", bytes.div_ceil(1024))
}

fn parse_age(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a number of days or hours: 30d, 12h".to_owned();
    let (number, hours) = match (text.strip_suffix('d'), text.strip_suffix('h')) {
        (Some(days), _) => (days, 24),
        (_, Some(hours)) => (hours, 1),
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(hours * 3600).map(Duration::from_secs).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_a_number_of_days_or_hours() {
        assert_eq!(parse_age("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(parse_age("12h"), Ok(Duration::from_secs(12 * 3600)));
        for wrong in ["", "d", "30", "-1d", "1w", "é", "99999999999999999999d"] {
            assert!(parse_age(wrong).is_err(), "{wrong}");
        }
    }
}
