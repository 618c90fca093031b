//! Workflows as steps: their arguments, workflows that include themselves, and what a workflow must
//! say when it reaches a destructive step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Checker;
use crate::step::Registry;
use crate::workflow::documents::{INCLUDE, included_file, literal_text};
use crate::workflow::parse::{describe, in_words, list, literal, matches_kind};
use crate::workflow::{
    Argument, ArgumentKind, Code, Diagnostic, Diagnostics, Param, ParamKind, StepDef, Workflow, expr, nearest,
};

/// What a step of the type `workflow` takes.
const ARGUMENTS: [&str; 3] = ["file", "params", "tags"];

/// Tells workflows that include themselves, also by way of others.
pub(super) fn circles(root: &str, files: &BTreeMap<String, Arc<Workflow>>, diagnostics: &mut Diagnostics) {
    Walk { files, chain: Vec::new(), done: Vec::new(), diagnostics }.visit(root);
}

/// The destructive step type that each file leads to, where it leads to one.
pub(super) fn destructive(
    files: &BTreeMap<String, Arc<Workflow>>,
    registry: &Registry,
) -> BTreeMap<String, String> {
    let mut known = BTreeMap::new();
    loop {
        let before = known.len();
        for (path, workflow) in files {
            if !known.contains_key(path)
                && let Some(name) = workflow.steps.values().find_map(|step| leads_to(step, registry, &known))
            {
                known.insert(path.clone(), name);
            }
        }
        if known.len() == before {
            return known;
        }
    }
}

fn leads_to(step: &StepDef, registry: &Registry, files: &BTreeMap<String, String>) -> Option<String> {
    match included_file(step) {
        Some((path, _)) => files.get(path).cloned(),
        None => registry.get(&step.uses.value).filter(|info| info.destructive).map(|info| info.name.clone()),
    }
}

struct Walk<'w> {
    files: &'w BTreeMap<String, Arc<Workflow>>,
    /// The files from the root to the one under way.
    chain: Vec<String>,
    /// Files below which all is known.
    done: Vec<String>,
    diagnostics: &'w mut Diagnostics,
}

impl Walk<'_> {
    fn visit(&mut self, path: &str) {
        let Some(workflow) = self.files.get(path) else { return };
        let workflow = Arc::clone(workflow);
        self.chain.push(path.to_owned());
        for (file, argument) in workflow.steps.values().filter_map(included_file) {
            if let Some(start) = self.chain.iter().position(|known| known == file) {
                let mut names = self.chain[start..].to_vec();
                names.push(file.to_owned());
                let message = if names.len() == 2 {
                    format!("`{file}` includes itself")
                } else {
                    format!("`{file}` includes itself: {}", names.join(" > "))
                };
                let circle = Diagnostic::at(Code::FILE, &workflow.source, argument.span.clone(), message)
                    .help("a run must come to an end; take this step out");
                self.diagnostics.push(circle);
            } else if !self.done.iter().any(|known| known == file) {
                self.visit(file);
            }
        }
        self.chain.pop();
        self.done.push(path.to_owned());
    }
}

impl<'c> Checker<'c> {
    /// Checks the arguments of a step that includes a workflow.
    pub(super) fn include(&mut self, step: &StepDef) {
        for (name, argument) in &step.with.value {
            if !ARGUMENTS.contains(&name.as_str()) {
                let span = argument.key.as_ref().unwrap_or(&argument.span);
                let unknown = self
                    .at(Code::UNKNOWN_ARGUMENT, span, format!("`{INCLUDE}` has no argument `{name}`"))
                    .help(match nearest(name, ARGUMENTS) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => "it has `file`, `params` for what the workflow takes, and `tags`".to_owned(),
                    });
                self.push(unknown);
            }
        }
        let Some(file) = step.with.value.get("file") else {
            let missing = self
                .at(Code::MISSING_ARGUMENT, &step.uses.span, format!("`{INCLUDE}` needs the argument `file`"))
                .help("add: with.file = \"restart-one.toml\"");
            self.push(missing);
            return;
        };
        let Some((path, _)) = included_file(step) else {
            let dynamic = match &file.kind {
                ArgumentKind::Text(_) => self
                    .at(Code::FILE, &file.span, "an included workflow is known before the run")
                    .label("this is a template")
                    .help("write the file's name; choose between two with `if` on two steps"),
                _ => self
                    .at(Code::TYPE, &file.span, "`file` must be a string")
                    .label(format!("this is {}", describe(file))),
            };
            self.push(dynamic);
            return;
        };
        match self.files.get(path) {
            Some(included) => {
                self.included_params(step, path, file, included);
                self.included_tags(step, path, included);
            }
            None => {
                let absent =
                    self.at(Code::FILE, &file.span, format!("`{path}` is not among the workflow's files"));
                self.push(absent);
            }
        }
    }

    fn included_params(&mut self, step: &StepDef, path: &str, file: &Argument, included: &Workflow) {
        let none = indexmap::IndexMap::new();
        let given = match step.with.value.get("params").map(|params| (&params.kind, params)) {
            None => &none,
            Some((ArgumentKind::Table(fields), _)) => fields,
            Some((_, params)) => {
                let wrong = self
                    .at(Code::TYPE, &params.span, "`params` must be a table")
                    .label(format!("this is {}", describe(params)))
                    .help("write: params = { NAME = \"VALUE\" }");
                self.push(wrong);
                return;
            }
        };
        for (name, value) in given {
            match included.params.get(name) {
                Some(param) => self.included_param(name, value, param),
                None => {
                    let span = value.key.as_ref().unwrap_or(&value.span);
                    let unknown = self.at(Code::PARAM, span, format!("`{path}` has no param `{name}`"));
                    let known: Vec<&str> = included.params.keys().map(String::as_str).collect();
                    let help = match nearest(name, known.iter().copied()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None if known.is_empty() => "it takes none".to_owned(),
                        None => format!("it has {}", list(&known)),
                    };
                    self.push(unknown.help(help));
                }
            }
        }
        for (name, param) in &included.params {
            let typo = |given: &String| {
                !included.params.contains_key(given) && nearest(given, [name.as_str()]).is_some()
            };
            if param.default.is_none() && !given.contains_key(name) && !given.keys().any(typo) {
                let missing = self
                    .at(Code::PARAM, &file.span, format!("`{path}` needs the param `{name}`"))
                    .help(format!("{name}: {}", param.help));
                self.push(missing);
            }
        }
    }

    /// Tells tags that the included workflow doesn't have, or takes none of.
    fn included_tags(&mut self, step: &StepDef, path: &str, included: &Workflow) {
        let Some(tags) = step.with.value.get("tags") else { return };
        let ArgumentKind::List(tags_given) = &tags.kind else {
            self.wrong_tags(tags);
            return;
        };
        if tags_given.is_empty() {
            let empty = self.at(Code::TYPE, &tags.span, "`tags` is empty, so no step would run");
            self.push(empty.help(format!("leave it out for all of `{path}`")));
        }
        if included.whole {
            let message = format!("`{path}` is only right as a whole: it takes no `tags`");
            let span = tags.key.as_ref().unwrap_or(&tags.span);
            let whole = self.at(Code::FILTER, span, message).help("include it without them");
            self.push(whole);
            return;
        }
        let known = self.tags_of(path);
        for tag in tags_given {
            match literal_text(tag) {
                None => self.wrong_tags(tag),
                Some((name, _)) if !known.contains(name) => {
                    let help = match nearest(name, known.iter().copied()) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None if known.is_empty() => "it has no tags".to_owned(),
                        None => format!("its tags are {}", list(&known.iter().copied().collect::<Vec<_>>())),
                    };
                    let message = format!("no step of `{path}` has the tag `{name}`");
                    let unknown = self.at(Code::FILTER, &tag.span, message).help(help);
                    self.push(unknown);
                }
                Some(_) => {}
            }
        }
    }

    fn wrong_tags(&mut self, argument: &Argument) {
        let label = match &argument.kind {
            ArgumentKind::Text(text) if expr::is_template(text) => "this is a template".to_owned(),
            _ => format!("this is {}", describe(argument)),
        };
        let wrong = self.at(Code::TYPE, &argument.span, "`tags` must be a list of tags, written out");
        self.push(wrong.label(label).help("write: tags = [\"TAG\"]"));
    }

    /// The tags of a workflow's steps, and of those that they lead to.
    fn tags_of(&self, path: &str) -> BTreeSet<&'c str> {
        let (mut tags, mut seen, mut open) = (BTreeSet::new(), BTreeSet::new(), vec![path]);
        while let Some(path) = open.pop() {
            let Some(workflow) = self.files.get(path).filter(|_| seen.insert(path.to_owned())) else {
                continue;
            };
            tags.extend(workflow.steps.values().flat_map(|step| &step.tags).map(|tag| tag.value.as_str()));
            open.extend(workflow.steps.values().filter_map(included_file).map(|(file, _)| file));
        }
        tags
    }

    fn included_param(&mut self, name: &str, value: &Argument, param: &Param) {
        if !matches_kind(value, param.kind) {
            let wrong = self
                .at(Code::TYPE, &value.span, format!("`{name}` must be {}", in_words(param.kind)))
                .label(format!("this is {}", describe(value)))
                .help(format!("{name}: {}", param.help));
            self.push(wrong);
            return;
        }
        if value.is_dynamic() {
            return;
        }
        let given = literal(value);
        if !param.choices.is_empty() && !param.choices.iter().any(|choice| choice.value == given) {
            let shown: Vec<String> = param.choices.iter().map(|choice| choice.value.to_string()).collect();
            let outside = self
                .at(Code::PARAM, &value.span, format!("`{name}` can't be {given}"))
                .help(format!("the choices are {}", shown.join(", ")));
            self.push(outside);
        }
        if param.kind == ParamKind::Secret {
            let bare = self
                .at(Code::TYPE, &value.span, "a secret must not stand in a workflow")
                .help(format!("pass a param of the type `secret` on: {name} = \"{{{{ params.NAME }}}}\""));
            self.push(bare);
        }
    }

    /// Tells where `confirm` is missing though a destructive step can be reached.
    pub(super) fn confirmation(&mut self) {
        if self.workflow.confirm.is_some() {
            return;
        }
        let destructive: Vec<(&StepDef, String)> = self
            .workflow
            .steps
            .values()
            .filter_map(|step| Some((step, leads_to(step, self.registry, self.destructive)?)))
            .collect();
        let Some(((first, reached), more)) = destructive.split_first() else { return };
        let message = if reached == &first.uses.value {
            format!("`{reached}` is destructive, so this workflow needs `confirm`")
        } else {
            format!("this step reaches `{reached}`, which is destructive, so this workflow needs `confirm`")
        };
        let named = self.workflow.params.iter().find(|(_, param)| param.kind == ParamKind::String);
        let example = named.map_or_else(|| "NAME".to_owned(), |(name, _)| format!("{{{{ params.{name} }}}}"));
        let mut missing = self
            .at(Code::MISSING_KEY, &first.uses.span, message)
            .help(format!("above the first table, say which name must be typed: confirm = \"{example}\""));
        for (step, _) in more {
            missing = missing.also(step.uses.span.clone(), "and here");
        }
        self.push(missing);
    }
}
