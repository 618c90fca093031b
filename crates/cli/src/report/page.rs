//! The report as HTML. All that comes from outside goes through `plain`, and nothing else does.

use std::collections::HashMap;
use std::fmt::Write;

use flow_core::plan::DrawnTask;
use flow_core::run::{Event, Record};
use serde_json::{Map, Value};

use super::Report;
use super::time::timeline;
use crate::commands::show::Row;
use crate::drawing::{self, Look, States, escaped};
use crate::screen;

/// Longer texts are cut; `flow show -v` has them whole.
const LONGEST: usize = 20_000;

const HEAD: &str = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
    <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">\n\
    <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
    <meta name=\"referrer\" content=\"no-referrer\">\n";

/// The whole page.
pub fn page(report: &Report<'_>) -> String {
    let mut out = String::from(HEAD);
    let (id, workflow) = (plain(report.row.id.as_str()), plain(&report.row.workflow));
    let _ = write!(
        out,
        "<title>{workflow}: {} ({id})</title>\n<style>{}{}</style>\n</head>\n<body>\n<main>\n",
        report.status,
        drawing::STYLE,
        include_str!("style.css")
    );
    head(&mut out, report);
    next(&mut out, report);
    outputs(&mut out, report);
    counts(&mut out, report);
    let picture = timeline(report);
    if !picture.is_empty() {
        let _ = write!(out, "<section id=\"timeline\"><h2>Timeline</h2>\n{picture}\n</section>\n");
    }
    tasks(&mut out, report);
    params(&mut out, report);
    graph(&mut out, report);
    events(&mut out, report);
    let version = report
        .definition
        .map_or(String::new(), |definition| format!(" with flow {}", plain(&definition.flow)));
    let _ = write!(
        out,
        "<footer>Run <code>{id}</code>, begun{version}. Written by flow {} from the run's own events. Secrets are not in it.</footer>\n\
         </main>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    );
    out
}

fn head(out: &mut String, report: &Report<'_>) {
    let (start, end) = report.span();
    let summary = report.drawing.map_or("", |drawing| &drawing.summary);
    let _ = write!(
        out,
        "<header>\n<p class=\"pill {}\">{} {}</p>\n<h1>{}</h1>\n<p class=\"summary\">{}</p>\n<dl class=\"facts\">\n",
        pill(report.status),
        pill_sign(report.status),
        report.status,
        plain(&report.row.workflow),
        plain(summary)
    );
    let by: Vec<String> = report.owners().into_iter().map(plain).collect();
    let facts = [
        ("Run", format!("<code>{}</code>", plain(report.row.id.as_str()))),
        ("Began", format!("<time datetime=\"{start}\">{}</time>", screen::local_time(start))),
        ("Last event", format!("<time datetime=\"{end}\">{}</time>", screen::local_time(end))),
        ("Took", screen::seconds(start, end)),
        ("By", by.join("<br>")),
    ];
    for (name, value) in facts {
        let _ = writeln!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    out.push_str("</dl>\n</header>\n");
}

fn pill(status: &str) -> &'static str {
    match status {
        "succeeded" => "changed",
        "failed" | "killed" | "refused" => "failed",
        "undecided" => "unknown",
        "undone" => "undone",
        _ => "working",
    }
}

fn pill_sign(status: &str) -> &'static str {
    match pill(status) {
        "changed" => Look::Changed.sign(),
        "failed" => Look::Failed.sign(),
        "unknown" => Look::Unknown.sign(),
        "undone" => Look::Undone.sign(),
        _ => Look::Working.sign(),
    }
}

/// What went wrong, and what to do.
fn next(out: &mut String, report: &Report<'_>) {
    let wrong: Vec<(&str, &Row)> = report
        .in_order()
        .into_iter()
        .filter(|(_, row)| matches!(Look::of(row.state), Look::Failed | Look::Unknown))
        .collect();
    let what = match report.status {
        "succeeded" => "Every task is done, found as it should be, or skipped. Nothing is left to do.",
        "undone" => "What the run had changed was taken back. Nothing is left to do.",
        "running" => "A process was at work on the run when this was written.",
        "killed" => {
            "The process that worked on the run ended without a word. What became of its last tasks is found out when the run is gone on with."
        }
        "interrupted" => "The operator stopped the run. It can be gone on with.",
        "undecided" => {
            "What became of a task can't be told. Look at the host, then say so: nothing is guessed."
        }
        "refused" => "The run was refused before anything was changed.",
        _ => "A task failed. Mend the cause, then go on: what is done is not done again.",
    };
    let _ = write!(
        out,
        "<section id=\"next\" class=\"{}\">\n<h2>What to do next</h2>\n<p>{what}</p>\n",
        pill(report.status)
    );
    for (task, row) in wrong {
        let _ = write!(out, "<div class=\"wrong\"><p><strong>{}</strong> {}", plain(task), row.state);
        if let Some(message) = &row.message {
            let _ = write!(out, ": {}", plain(message));
        }
        out.push_str("</p>");
        error(out, row);
        out.push_str("</div>\n");
    }
    if !matches!(report.status, "succeeded" | "undone" | "running") {
        let _ = writeln!(out, "<p>To go on:</p><pre><code>{}</code></pre>", plain(&report.go_on));
    }
    out.push_str("</section>\n");
}

fn error(out: &mut String, row: &Row) {
    let text = |key: &str| row.error.as_ref().and_then(|error| error[key].as_str());
    if let Some(detail) = text("detail") {
        let _ = write!(out, "<pre>{}</pre>", plain(detail));
    }
    if let Some(hint) = text("hint") {
        let _ = write!(out, "<p class=\"hint\"><b>hint:</b> {}</p>", plain(hint));
    }
}

/// What the workflow says that it gives.
fn outputs(out: &mut String, report: &Report<'_>) {
    let fields = fields(&report.outputs);
    if !fields.is_empty() {
        let _ = write!(
            out,
            "<section id=\"outputs\"><h2>Outputs</h2>\n<dl class=\"output\">{fields}</dl></section>\n"
        );
    }
}

fn counts(out: &mut String, report: &Report<'_>) {
    let mut counts: std::collections::BTreeMap<(Look, &str), usize> = std::collections::BTreeMap::new();
    for row in report.tasks.values() {
        *counts.entry((Look::of(row.state), row.state)).or_default() += 1;
    }
    let _ = write!(out, "<p class=\"counts\">{}: ", screen::tasks(report.tasks.len()));
    for ((look, word), count) in counts {
        let _ =
            write!(out, "<span class=\"pill small {}\">{} {count} {word}</span> ", look.class(), look.sign());
    }
    out.push_str("</p>\n");
}

fn tasks(out: &mut String, report: &Report<'_>) {
    let drawn: HashMap<&str, &DrawnTask> = report
        .drawing
        .into_iter()
        .flat_map(|drawing| drawing.nodes.iter().flatten())
        .map(|task| (task.name.as_str(), task))
        .collect();
    out.push_str("<section id=\"tasks\"><h2>Tasks</h2>\n<div class=\"scroll\"><table>\n<thead><tr><th>State</th><th>Task</th><th>Began</th><th class=\"number\">Took</th><th class=\"number\">Attempts</th><th>What</th></tr></thead>\n<tbody>\n");
    for (name, row) in report.in_order() {
        task(out, name, row, drawn.get(name).copied());
    }
    out.push_str("</tbody></table></div></section>\n");
}

fn task(out: &mut String, name: &str, row: &Row, drawn: Option<&DrawnTask>) {
    let look = Look::of(row.state);
    let began = row.began.or(row.ended).map_or(String::new(), |at| {
        let local = screen::local_time(at);
        format!(
            "<time datetime=\"{at}\">{}</time>",
            local.split_once(' ').map_or(local.as_str(), |(_, time)| time)
        )
    });
    let took = row.began.zip(row.ended).map_or(String::new(), |(from, to)| screen::seconds(from, to));
    let attempts = if row.attempts > 0 { row.attempts.to_string() } else { String::new() };
    let uses = drawn.map_or(String::new(), |drawn| {
        let mark = if drawn.destructive { " <b>destructive</b>" } else { "" };
        format!("<small>{}{mark}</small>", plain(&drawn.uses))
    });
    let what = row.message.as_deref().or(row.change.as_deref()).unwrap_or_default();
    let _ = write!(
        out,
        "<tr class=\"task\"><td><span class=\"pill small {}\">{} {}</span></td><td><code>{}</code>{uses}</td><td>{began}</td><td class=\"number\">{took}</td><td class=\"number\">{attempts}</td><td>{}",
        look.class(),
        look.sign(),
        row.state,
        plain(name),
        plain(what)
    );
    let mut inner = String::new();
    if let Some(help) = drawn.and_then(|drawn| drawn.help.as_deref()) {
        let _ = write!(inner, "<p>{}</p>", plain(help));
    }
    if let Some(diff) = &row.diff {
        let _ = write!(inner, "<h3>Change</h3><pre class=\"diff\">{}</pre>", diff_lines(diff));
    }
    error(&mut inner, row);
    output(&mut inner, row.output.as_ref());
    if !inner.is_empty() {
        let open = if matches!(look, Look::Failed | Look::Unknown) { " open" } else { "" };
        let _ = write!(out, "<details{open}><summary>details</summary>{inner}</details>");
    }
    out.push_str("</td></tr>\n");
}

fn output(out: &mut String, output: Option<&Value>) {
    let fields = output.and_then(Value::as_object).map(fields).unwrap_or_default();
    if !fields.is_empty() {
        let _ = write!(out, "<h3>Output</h3><dl class=\"output\">{fields}</dl>");
    }
}

/// Fields with their values; what is empty says nothing.
fn fields(fields: &Map<String, Value>) -> String {
    let mut text = String::new();
    for (name, value) in fields {
        let shown = match value {
            Value::Null => continue,
            Value::String(text) if text.is_empty() => continue,
            Value::String(text) => text.clone(),
            value => format!("{value:#}"),
        };
        let _ = write!(text, "<dt>{}</dt><dd><pre>{}</pre></dd>", plain(name), plain(&shown));
    }
    text
}

fn diff_lines(diff: &str) -> String {
    let mut out = String::new();
    for line in diff.lines() {
        let class = match line.as_bytes().first() {
            Some(b'+') => "add",
            Some(b'-') => "del",
            Some(b'@') => "at",
            _ => "",
        };
        let _ = writeln!(out, "<span class=\"{class}\">{}</span>", plain(line));
    }
    out
}

fn params(out: &mut String, report: &Report<'_>) {
    let params = report.params();
    if params.is_empty() {
        return;
    }
    out.push_str("<section id=\"params\"><h2>Params</h2><dl class=\"output\">\n");
    for (name, value) in params {
        let _ = writeln!(out, "<dt>{}</dt><dd><pre>{}</pre></dd>", plain(name), plain(&value));
    }
    out.push_str("</dl></section>\n");
}

fn graph(out: &mut String, report: &Report<'_>) {
    let Some(drawing) = report.drawing else { return };
    let states: States = report.tasks.iter().map(|(name, row)| (name.clone(), row.state)).collect();
    let svg = drawing::svg(drawing, Some(&states));
    let _ = write!(
        out,
        "<section id=\"graph\"><h2>What needed what</h2>\n<div class=\"scroll\">{svg}</div></section>\n"
    );
}

fn events(out: &mut String, report: &Report<'_>) {
    let _ = write!(
        out,
        "<section id=\"events\"><h2>Events</h2>\n<details><summary>{}</summary><div class=\"scroll\"><table>\n<tbody>\n",
        screen::counted(report.records.len(), "event")
    );
    for Record { seq, at, event } in report.records {
        let Ok(Value::Object(mut fields)) = serde_json::to_value(event) else { continue };
        let kind = fields.remove("event").and_then(|kind| kind.as_str().map(|kind| kind.replace('_', " ")));
        let task = event.task().map_or("", |task| task.as_str());
        let _ = writeln!(
            out,
            "<tr><td class=\"number\">{seq}</td><td><time datetime=\"{at}\">{}</time></td><td>{}</td><td><code>{}</code></td><td>{}</td></tr>",
            screen::local_time(*at),
            plain(&kind.unwrap_or_default()),
            plain(task),
            plain(&told(event))
        );
    }
    out.push_str("</tbody></table></div></details></section>\n");
}

/// The one thing worth knowing of an event besides its kind.
fn told(event: &Event) -> String {
    match event {
        Event::RunStarted { owner, .. } => owner.clone(),
        Event::RunResumed { owner, epoch } | Event::UndoStarted { owner, epoch } => {
            format!("{owner}, epoch {epoch}")
        }
        Event::HostMet { host, identity } => format!("{host}, machine {}", identity.machine_id),
        Event::HostsChosen { hosts, .. } => hosts.join(", "),
        Event::TaskSkipped { why, .. } | Event::TaskKept { why, .. } => why.clone(),
        Event::TaskIntended { attempt, change, .. } => format!("attempt {attempt}: {}", change.summary),
        Event::TaskFailed { error, .. }
        | Event::TaskUnknown { error, .. }
        | Event::UndoFailed { error, .. }
        | Event::UndoUnknown { error, .. } => error.message.clone(),
        Event::RunEnded { outcome, error } => {
            let word = crate::commands::runs::outcome_word(*outcome);
            error.as_ref().map_or_else(|| word.to_owned(), |error| format!("{word}: {}", error.message))
        }
        _ => String::new(),
    }
}

/// Text from outside, as text: without terminal colours, cut where it is very long, escaped.
fn plain(text: &str) -> String {
    let text = console::strip_ansi_codes(text).replace("\r\n", "\n");
    match text.char_indices().nth(LONGEST) {
        None => escaped(&text),
        Some((end, _)) => format!("{}\n… cut here; flow show -v has it whole", escaped(&text[..end])),
    }
}
