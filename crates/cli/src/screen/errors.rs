//! Errors: what is wrong, where, and the next action.

use flow_core::engine::EngineError;
use flow_core::workflow::Diagnostics;
use miette::{GraphicalReportHandler, GraphicalTheme};

use super::tell;
use crate::exit::Error;

/// Shows an error on standard error.
pub fn show(error: &Error) {
    match error {
        Error::Diagnostics(diagnostics) => show_diagnostics(diagnostics),
        Error::Refused { message, hint } => plain(message, hint.as_deref()),
        Error::Engine(error) => match error {
            EngineError::Refused(diagnostics) => show_diagnostics(diagnostics),
            EngineError::Store(store) => plain(&store.to_string(), store.hint().as_deref()),
            EngineError::Host { error: step, .. } => {
                plain(&format!("{step}; nothing was changed"), step.hint.as_deref());
                if let Some(detail) = &step.detail {
                    tell(detail);
                }
            }
            EngineError::Ended { run, outcome } => plain(
                &format!("run {run} has ended: {}", crate::commands::runs::outcome_word(*outcome)),
                Some(&format!("`flow show {run}` shows it; `flow run` starts a new one")),
            ),
            EngineError::Unconfirmed { name } => {
                plain(&error.to_string(), Some(&format!("to go ahead: --confirm {name}")));
            }
            EngineError::History { .. } | EngineError::Definition { .. } => plain(
                &error.to_string(),
                Some("it was written by another version of flow, or damaged; keep a copy of the store"),
            ),
            EngineError::NotAsked { .. } => plain(&error.to_string(), None),
            EngineError::Broken(_) => {
                plain(&error.to_string(), Some("`flow resume` goes on with it; please report this"))
            }
        },
    }
}

/// An error without a place.
pub fn plain(message: &str, hint: Option<&str>) {
    tell(&format!("{} {message}", console::style("error:").for_stderr().red().bold()));
    if let Some(hint) = hint {
        tell(&format!("{} {hint}", console::style("hint:").for_stderr().cyan()));
    }
}

fn show_diagnostics(diagnostics: &Diagnostics) {
    let theme = if console::colors_enabled_stderr() {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let width = usize::from(console::Term::stderr().size().1).clamp(60, 120);
    let handler = GraphicalReportHandler::new_themed(theme).with_width(width);
    for diagnostic in &diagnostics.0 {
        let mut text = String::new();
        if handler.render_report(&mut text, diagnostic).is_ok() {
            tell(&text);
        } else {
            plain(&diagnostic.message, diagnostic.help.as_deref());
        }
    }
    if diagnostics.0.len() > 1 {
        tell(&format!("{} errors; nothing was changed", diagnostics.0.len()));
    }
}
