//! `flow workflows`: what the binary carries.

use flow_core::workflow::{ParamKind, Source, parse};
use serde_json::json;

use crate::args::{Format, Global};
use crate::exit::{Error, Exit};
use crate::{files, screen};

pub fn workflows(global: &Global) -> Result<Exit, Error> {
    let mut rows = Vec::new();
    for (name, text) in files::shipped() {
        let source = Source { name: format!("shipped:{name}"), text: text.to_owned() };
        let workflow = parse(&source.into())?;
        rows.push((name, workflow));
    }
    rows.sort_by_key(|(name, _)| *name);
    if global.output == Format::Json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, workflow)| {
                let params: Vec<_> = workflow
                    .params
                    .iter()
                    .map(|(name, param)| {
                        json!({
                            "name": name, "type": param.kind.as_str(), "help": param.help,
                            "required": param.default.is_none(),
                        })
                    })
                    .collect();
                json!({ "file": name, "name": workflow.name.value, "summary": workflow.summary, "params": params })
            })
            .collect();
        screen::json(&rows);
        return Ok(Exit::Success);
    }
    for (place, (name, workflow)) in rows.iter().enumerate() {
        if place > 0 {
            screen::line("");
        }
        screen::line(&format!("{name}\n  {}", workflow.summary));
        let width = workflow.params.keys().map(String::len).max().unwrap_or(0);
        for (param, def) in &workflow.params {
            let mut notes = Vec::new();
            if def.default.is_none() {
                notes.push("required".to_owned());
            }
            if def.kind == ParamKind::Secret {
                notes.push("secret".to_owned());
            }
            let choices = def.choices.iter().map(|choice| choice.value.to_string());
            let choices: Vec<String> = choices.map(|choice| choice.trim_matches('"').to_owned()).collect();
            if !choices.is_empty() {
                notes.push(choices.join(" | "));
            }
            let notes = if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) };
            let first = def.help.trim().lines().next().unwrap_or_default();
            screen::line(&format!("    {param:width$}  {first}{notes}"));
        }
    }
    Ok(Exit::Success)
}
