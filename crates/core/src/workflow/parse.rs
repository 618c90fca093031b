//! From TOML to a [`Workflow`]: every key of the language, its type and its range. Whether names
//! mean anything is for `check`.

mod fields;
mod params;
mod steps;

use std::sync::Arc;

use indexmap::IndexMap;

#[cfg(test)]
pub(super) use self::params::KEYS as PARAM_KEYS;
#[cfg(test)]
pub(super) use self::steps::KEYS as STEP_KEYS;
use super::{Code, Diagnostic, Diagnostics, Source, Spanned, Workflow, toml};
use fields::Reader;
pub(super) use fields::{describe, list};
pub(super) use params::{in_words, literal, matches_kind};

/// The keys of the top table.
pub(super) const KEYS: &[&str] = &[
    "name",
    "summary",
    "description",
    "whole",
    "confirm",
    "on_failure",
    "max_per_host",
    "max_failures",
    "limits",
    "params_from",
    "params",
    "steps",
    "outputs",
];

/// The most that a limit may be.
const MAX_LIMIT: u32 = 1_000_000;

/// Reads a workflow. All that is wrong is told at once.
///
/// # Errors
/// Text that isn't TOML, unknown keys, missing ones, wrong types, values outside their range.
pub fn parse(source: &Arc<Source>) -> Result<Workflow, Diagnostics> {
    let (workflow, diagnostics) = parse_lenient(source);
    match workflow {
        Some(workflow) => diagnostics.into_result(workflow),
        None => Err(diagnostics),
    }
}

/// Reads a workflow and keeps what could be read beside what is wrong, so that the rest can be
/// checked too. No workflow where the text isn't TOML or lacks what nothing can be said without.
pub(super) fn parse_lenient(source: &Arc<Source>) -> (Option<Workflow>, Diagnostics) {
    if source.text.trim().is_empty() {
        let empty = Diagnostic::general(Code::MISSING_KEY, format!("`{}` is empty", source.name))
            .help("a workflow needs `name`, `summary` and at least one `[steps.NAME]`");
        return (None, empty.into());
    }
    let (fields, diagnostics) = toml::read(source);
    let Some(fields) = fields else { return (None, diagnostics) };
    let mut reader = Reader::new(source, diagnostics);

    reader.unknown_keys(&fields, KEYS, "a workflow");
    let name = reader.required_text(&fields, "name", 0..0, "name = \"restart-patroni\"");
    let summary = reader.required_text(&fields, "summary", 0..0, "summary = \"one line for lists\"");
    if let Some(name) = &name {
        reader.workflow_name(name);
    }
    if let Some(summary) = &summary {
        reader.one_line("summary", summary);
    }
    let workflow = Workflow {
        source: Arc::clone(source),
        name: name.unwrap_or_else(|| Spanned::new(String::new(), 0..0)),
        summary: summary.map(|summary| summary.value).unwrap_or_default(),
        description: reader.text(&fields, "description"),
        whole: reader.boolean(&fields, "whole").unwrap_or_default(),
        confirm: reader.confirm(&fields),
        on_failure: reader.on_failure(&fields),
        max_per_host: reader.integer(&fields, "max_per_host", 1, MAX_LIMIT),
        max_failures: reader.integer(&fields, "max_failures", 1, MAX_LIMIT),
        limits: reader.limits(&fields),
        params_from: reader.params_from(&fields),
        params: reader.params(&fields),
        steps: reader.steps(&fields),
        outputs: reader.table(&fields, "outputs").map_or_else(IndexMap::new, |outputs| outputs.value),
    };
    reader.output_names(&workflow.outputs);
    (Some(workflow), reader.finish())
}

#[cfg(test)]
mod tests;
