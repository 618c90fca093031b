//! `flow explain`: what the code of an error means, and what to do. The pages of `docs/errors`.

use clap::Args;
use flow_core::workflow::nearest;
use include_dir::{Dir, include_dir};
use serde_json::json;

use crate::args::{Format, Global};
use crate::exit::{Error, Exit};
use crate::screen;

static PAGES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../docs/errors");

#[derive(Args, Clone)]
pub struct ExplainArgs {
    /// A code, with or without `flow::` [default: lists them].
    pub code: Option<String>,
}

pub fn explain(global: &Global, args: &ExplainArgs) -> Result<Exit, Error> {
    let json = global.output == Format::Json;
    let Some(code) = &args.code else {
        list(json);
        return Ok(Exit::Success);
    };
    let wanted = code.trim_start_matches("flow::").to_lowercase();
    let Some((name, page)) = pages().find(|(name, _)| *name == wanted) else {
        let hint = match nearest(&wanted, pages().map(|(name, _)| name)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`flow explain` lists the codes".to_owned(),
        };
        return Err(Error::refused(format!("no error has the code `{code}`"), hint));
    };
    if json {
        screen::json(&json!({ "code": format!("flow::{name}"), "summary": summary(page), "text": page }));
    } else {
        screen::text(page);
    }
    Ok(Exit::Success)
}

fn list(json: bool) {
    if json {
        let rows =
            pages().map(|(name, page)| json!({ "code": format!("flow::{name}"), "summary": summary(page) }));
        screen::json(&rows.collect::<Vec<_>>());
        return;
    }
    let width = pages().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, page) in pages() {
        screen::line(&format!("{name:width$}  {}", summary(page)));
    }
}

/// The pages by name, in the order of their names.
fn pages() -> impl Iterator<Item = (&'static str, &'static str)> {
    let mut pages: Vec<_> = PAGES
        .files()
        .filter_map(|file| {
            let name = file.path().file_stem()?.to_str()?;
            file.contents_utf8().map(|text| (name, text))
        })
        .collect();
    pages.sort_unstable();
    pages.into_iter()
}

/// The first sentence below the title.
fn summary(page: &str) -> &str {
    let text = page.lines().skip(1).find(|line| !line.trim().is_empty()).unwrap_or_default();
    text.split_inclusive(". ").next().unwrap_or(text).trim_end()
}
