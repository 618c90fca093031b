//! `params_from`: a workflow that has the params of another one, and gives them on where it includes that.
//! Afterwards its params and its steps read as if all of that were written out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexMap;

use super::documents::included_file;
use super::parse::in_words;
use super::{Argument, ArgumentKind, Bundle, Code, Diagnostic, Diagnostics, Spanned, Workflow, expr};

/// Takes params over wherever a workflow says so. Gives the files of which not all params are known.
pub(super) fn take_over(
    bundle: &Bundle,
    files: &mut BTreeMap<String, Arc<Workflow>>,
    diagnostics: &mut Diagnostics,
) -> BTreeSet<String> {
    let mut taking = Taking { bundle, files, diagnostics, chain: Vec::new(), done: BTreeMap::new() };
    let paths: Vec<String> = taking.files.keys().cloned().collect();
    for path in &paths {
        taking.visit(path);
    }
    taking.done.into_iter().filter_map(|(path, known)| (!known).then_some(path)).collect()
}

struct Taking<'t> {
    bundle: &'t Bundle,
    files: &'t mut BTreeMap<String, Arc<Workflow>>,
    diagnostics: &'t mut Diagnostics,
    /// The files from the first one to the one under way.
    chain: Vec<String>,
    /// Files that were dealt with, and whether all of their params are known.
    done: BTreeMap<String, bool>,
}

impl Taking<'_> {
    /// Whether all params of a file are known, once they are taken over.
    fn visit(&mut self, path: &str) -> bool {
        if let Some(known) = self.done.get(path) {
            return *known;
        }
        let Some(workflow) = self.files.get(path).cloned() else { return false };
        let Some(from) = &workflow.params_from else {
            self.done.insert(path.to_owned(), true);
            return true;
        };
        self.chain.push(path.to_owned());
        let known = self.known(&workflow, from) && self.visit(&from.value);
        self.chain.pop();
        if known && let Some(other) = self.files.get(&from.value).cloned() {
            let taken = self.with_params_of(&workflow, &other, &from.value);
            self.files.insert(path.to_owned(), Arc::new(taken));
        }
        self.done.insert(path.to_owned(), known);
        known
    }

    /// Tells a file that isn't there, and one that leads back to itself.
    fn known(&mut self, workflow: &Workflow, from: &Spanned<String>) -> bool {
        let file = &from.value;
        let wrong = if let Some(start) = self.chain.iter().position(|known| known == file) {
            let mut names = self.chain[start..].to_vec();
            names.push(file.to_owned());
            let circle = Diagnostic::at(
                Code::FILE,
                &workflow.source,
                from.span.clone(),
                format!("`{file}` takes its params from itself: {}", names.join(" > ")),
            );
            circle.help("one of them must have params of its own: take `params_from` out there")
        } else if !self.bundle.files.contains_key(file) && !expr::is_template(file) {
            let message = format!("`{file}` is not among the workflow's files");
            Diagnostic::at(Code::FILE, &workflow.source, from.span.clone(), message)
        } else {
            return self.files.contains_key(file); // Why it can't be read was told.
        };
        self.diagnostics.push(wrong);
        false
    }

    /// The workflow with another one's params before its own, given on by its steps that include that one.
    fn with_params_of(&mut self, workflow: &Workflow, other: &Workflow, file: &str) -> Workflow {
        let mut taken = workflow.clone();
        let mut params = other.params.clone();
        for (name, mut own) in std::mem::take(&mut taken.params) {
            if let Some(theirs) = params.get(&name) {
                if theirs.kind != own.kind {
                    let (here, there) = (in_words(own.kind), in_words(theirs.kind));
                    let message = format!("`{name}` is {there} in `{file}`, and {here} here");
                    let clash = Diagnostic::at(Code::PARAM, &workflow.source, own.span.clone(), message);
                    self.diagnostics.push(clash.help("give it the type that it has there, or another name"));
                }
                if own.choices.is_empty() {
                    own.choices.clone_from(&theirs.choices);
                }
            }
            params.insert(name, own);
        }
        taken.params = params;
        for step in taken.steps.values_mut() {
            let Some(span) = included_file(step)
                .filter(|(included, _)| *included == file)
                .map(|(_, argument)| argument.span.clone())
            else {
                continue;
            };
            let argument = |kind| Argument { span: span.clone(), key: None, kind };
            let given = step.with.value.entry("params".to_owned());
            let given = given.or_insert_with(|| argument(ArgumentKind::Table(IndexMap::new())));
            if let ArgumentKind::Table(given) = &mut given.kind {
                for name in other.params.keys() {
                    let on = || argument(ArgumentKind::Text(format!("{{{{ params.{name} }}}}")));
                    given.entry(name.clone()).or_insert_with(on);
                }
            }
        }
        taken
    }
}
