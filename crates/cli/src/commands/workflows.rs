//! `flow workflows`: what the binary carries.

use std::sync::Arc;

use flow_core::step::Registry;
use flow_core::workflow::{Documents, ParamKind};
use serde_json::json;

use crate::args::{Format, Global};
use crate::exit::{Error, Exit};
use crate::{files, screen};

pub fn workflows(global: &Global) -> Result<Exit, Error> {
    let mut registry = Registry::new();
    flow_steps::register(&mut registry);
    let mut rows = Vec::new();
    for (name, _) in files::shipped() {
        let bundle = files::load_shipped(name, &registry)?;
        rows.push((name, Documents::load(&bundle, &registry)?.root));
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
        let own = || workflow.params.iter().filter(|(_, def)| Arc::ptr_eq(&def.source, &workflow.source));
        let width = own().map(|(param, _)| param.len()).max().unwrap_or(0);
        for (param, def) in own() {
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
            let first = first_sentence(&def.help);
            hanging(&format!("    {param:width$}  "), &format!("{first}{notes}"));
        }
        if let Some(file) = &workflow.params_from {
            screen::line(&format!("    and the params of {}", file.value));
        }
    }
    Ok(Exit::Success)
}

/// Words after a head, on as many lines as they take.
fn hanging(head: &str, words: &str) {
    const WIDTH: usize = 120;
    let mut line = head.to_owned();
    let mut empty = true;
    for word in words.split_whitespace() {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            screen::line(&line);
            line = " ".repeat(head.chars().count());
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    screen::line(&line);
}

/// Up to its full stop, also where that is on a later line.
fn first_sentence(help: &str) -> String {
    let flat = help.split_whitespace().collect::<Vec<_>>().join(" ");
    match flat.find(". ") {
        Some(end) => flat[..=end].to_owned(),
        None => flat,
    }
}
