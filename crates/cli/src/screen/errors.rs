//! Errors: what is wrong, where, and the next action. For people on standard error; with
//! `--output json` on standard output too, as one line.

use flow_core::engine::EngineError;
use flow_core::plan::Moved;
use flow_core::workflow::{Diagnostic, Diagnostics};
use jiff::Timestamp;
use miette::{GraphicalReportHandler, GraphicalTheme};
use serde_json::{Value, json};

use super::tell;
use crate::args::Format;
use crate::codes;
use crate::commands::runs::outcome_word;
use crate::exit::Error;

/// Shows an error.
pub fn show(error: &Error, format: Format) {
    let messages = match error {
        Error::Diagnostics(diagnostics) | Error::Engine(EngineError::Refused(diagnostics)) => {
            show_diagnostics(diagnostics);
            diagnostics.0.iter().map(as_json).collect()
        }
        Error::MovedOn { file, made, moved } => show_moved(file, *made, moved),
        Error::Refused { message, hint } => vec![told(codes::REFUSED.0, message, hint.as_deref(), None)],
        Error::Coded { code, message, hint } => vec![told(code.0, message, Some(hint), None)],
        Error::Detailed { message, detail, hint } => {
            vec![told(codes::REFUSED.0, message, hint.as_deref(), detail.as_deref())]
        }
        Error::Engine(error) => vec![show_engine(error)],
    };
    if format == Format::Json {
        let code = error.exit() as u8;
        super::line(&json!({ "type": "error", "exit_code": code, "errors": messages }).to_string());
    }
}

/// Each task that isn't as it was shown, with what was shown and what is so now.
fn show_moved(file: &str, made: Timestamp, moved: &[Moved]) -> Vec<Value> {
    let lines = |one: &Moved| {
        let detail = one.detail.as_deref().unwrap_or_default().lines().map(|line| format!("\n  {line}"));
        format!("{}: {}{}", one.task, one.words, detail.collect::<String>())
    };
    let detail: Vec<String> = moved.iter().map(lines).collect();
    let message = format!(
        "since {file} was made ({}) the world has moved on; nothing was changed",
        super::local_time(made)
    );
    let hint = "look at it anew: make a new plan with `flow plan WORKFLOW --out FILE`";
    let whole = told(codes::MOVED_ON.0, &message, Some(hint), Some(&detail.join("\n")));
    let each = moved.iter().map(|one| json!({ "code": codes::MOVED_ON.0, "message": format!("{}: {}", one.task, one.words), "detail": one.detail, "hint": null }));
    std::iter::once(
        json!({ "code": codes::MOVED_ON.0, "message": whole["message"], "detail": null, "hint": hint }),
    )
    .chain(each)
    .collect()
}

fn show_engine(error: &EngineError) -> Value {
    let (message, hint, detail) = match error {
        EngineError::Refused(_) => (error.to_string(), None, None),
        EngineError::Store(store) => (store.to_string(), store.hint(), None),
        EngineError::Host { error: step, .. } => {
            (format!("{step}; nothing was changed"), step.hint.clone(), step.detail.clone())
        }
        EngineError::Ended { run, outcome } => (
            format!("run {run} has ended: {}", outcome_word(*outcome)),
            Some(format!("`flow show {run}` shows it; `flow run` starts a new one")),
            None,
        ),
        EngineError::TurnedBack { run } => {
            (error.to_string(), Some(format!("`flow undo {run}` goes on with it")), None)
        }
        EngineError::NothingToUndo { run } => {
            (error.to_string(), Some(format!("`flow show {run}` shows what it found")), None)
        }
        EngineError::Pivoted { run, .. } => (
            error.to_string(),
            Some(format!("it can only be gone on with: `flow resume {run}`, if it has not ended")),
            None,
        ),
        EngineError::NotUndoable { tasks, .. } => (
            error.to_string(),
            Some(
                "--keep-impossible takes back the rest and leaves these as they are, --keep TASK one of them"
                    .to_owned(),
            ),
            Some(tasks.iter().map(|(task, why)| format!("{task}: {why}\n")).collect()),
        ),
        EngineError::NoTask { run, .. } => {
            (error.to_string(), Some(format!("`flow show {run}` lists its tasks")), None)
        }
        EngineError::NoHost { hosts, .. } => {
            (error.to_string(), Some(format!("its hosts are {}", hosts.join(", "))), None)
        }
        EngineError::NotAsked { unknown, .. } => {
            let names: Vec<&str> = unknown.iter().map(|task| task.as_str()).collect();
            let hint = match names.as_slice() {
                [] => "no outcome of this run is unknown; `flow show` tells where its tasks stand".to_owned(),
                names => format!("what became of these is unknown: {}", names.join(", ")),
            };
            (error.to_string(), Some(hint), None)
        }
        EngineError::NotSettled { error: step, .. } => {
            (error.to_string(), step.hint.clone(), step.detail.clone())
        }
        EngineError::Unconfirmed { name } => {
            (error.to_string(), Some(format!("to go ahead: --confirm {name}")), None)
        }
        EngineError::History { .. } | EngineError::Definition { .. } => (
            error.to_string(),
            Some(
                "it was written by another version of flow, or damaged; keep a copy of the store".to_owned(),
            ),
            None,
        ),
        EngineError::Broken(_) => {
            (error.to_string(), Some("`flow resume` goes on with it; please report this".to_owned()), None)
        }
    };
    told(codes::of(error), &message, hint.as_deref(), detail.as_deref())
}

/// An error without a place.
pub fn plain(message: &str, hint: Option<&str>) {
    told(codes::FAILED.0, message, hint, None);
}

fn told(code: &str, message: &str, hint: Option<&str>, detail: Option<&str>) -> Value {
    tell(&format!("{} {message}", console::style(format!("error[{code}]:")).for_stderr().red().bold()));
    for line in detail.unwrap_or_default().trim().lines() {
        tell(&format!("    {line}"));
    }
    if let Some(hint) = hint {
        tell(&format!("{} {hint}", console::style("hint:").for_stderr().cyan()));
    }
    json!({ "code": code, "message": message, "detail": detail, "hint": hint })
}

fn as_json(diagnostic: &Diagnostic) -> Value {
    let place = diagnostic.source.as_ref().zip(diagnostic.labels.first()).map(|(source, (span, _))| {
        let before = source.text.get(..span.start).unwrap_or(&source.text);
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        json!({
            "file": source.name,
            "line": before.matches('\n').count() + 1,
            "column": before[line_start..].chars().count() + 1,
        })
    });
    json!({
        "code": diagnostic.code.0, "message": diagnostic.message, "hint": diagnostic.help, "place": place,
    })
}

fn show_diagnostics(diagnostics: &Diagnostics) {
    let theme = if console::colors_enabled_stderr() {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let width = usize::from(console::Term::stderr().size().1).clamp(60, 120);
    let handler = GraphicalReportHandler::new_themed(theme).with_width(width);
    for (count, diagnostic) in diagnostics.0.iter().enumerate() {
        if count > 0 {
            tell("");
        }
        let mut text = String::new();
        if handler.render_report(&mut text, diagnostic).is_ok() {
            tell(&text);
        } else {
            plain(&diagnostic.message, diagnostic.help.as_deref());
        }
    }
    if diagnostics.0.len() > 1 {
        tell(&format!("\n{} errors; nothing was changed", diagnostics.0.len()));
    }
}
