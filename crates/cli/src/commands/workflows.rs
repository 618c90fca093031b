//! `flow workflows`: what the binary carries.

use flow_core::workflow::{Source, parse};
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
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, workflow) in &rows {
        screen::line(&format!("{name:width$}  {}", workflow.summary));
        for (param, def) in &workflow.params {
            let must = if def.default.is_none() { " (required)" } else { "" };
            screen::line(&format!("{:width$}    --set {param}=  {}{must}", "", def.help));
        }
    }
    Ok(Exit::Success)
}
