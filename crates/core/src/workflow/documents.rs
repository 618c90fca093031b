//! A workflow together with those it includes: finding their files, reading and checking them all.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use super::parse::parse_lenient;
use super::{
    Argument, ArgumentKind, Bundle, BundledFile, Code, Diagnostic, Diagnostics, Files, Source, Span, StepDef,
    Workflow, check, expr, inherit,
};
use crate::step::Registry;

/// The step type that runs another workflow.
pub(super) const INCLUDE: &str = "workflow";

/// The workflows of a bundle, read and checked.
#[derive(Debug, Clone)]
pub struct Documents {
    /// The one that is run.
    pub root: Arc<Workflow>,
    /// All of them, the root too, by their path in the bundle.
    pub files: BTreeMap<String, Arc<Workflow>>,
}

impl Documents {
    /// Reads and checks every workflow of a bundle. All that is wrong is told at once.
    ///
    /// # Errors
    /// Whatever can be refused without an inventory: see `docs/workflow-language.md`.
    pub fn load(bundle: &Bundle, registry: &Registry) -> Result<Self, Diagnostics> {
        let mut diagnostics = Diagnostics::default();
        let mut files = BTreeMap::new();
        let mut pending = vec![bundle.root.clone()];
        while let Some(path) = pending.pop() {
            let Entry::Vacant(entry) = files.entry(path) else { continue };
            let Some(source) = bundle.source(entry.key()) else {
                // The root; an included file that isn't there is told where it is named.
                if *entry.key() == bundle.root {
                    let message = format!("the bundle has no file `{}`", bundle.root);
                    diagnostics.push(Diagnostic::general(Code::FILE, message));
                }
                continue;
            };
            let (workflow, found) = parse_lenient(&source);
            diagnostics.0.extend(found.0);
            let Some(workflow) = workflow else { continue };
            pending.extend(named(&workflow).map(str::to_owned));
            entry.insert(Arc::new(workflow));
        }
        let unknown = inherit::take_over(bundle, &mut files, &mut diagnostics);
        check::check(bundle, &files, &unknown, registry, &mut diagnostics);
        match files.get(&bundle.root) {
            Some(root) => {
                let root = Arc::clone(root);
                sort(&mut diagnostics, &root.source);
                diagnostics.into_result(Self { root, files })
            }
            None => Err(diagnostics),
        }
    }

    /// Reads the files of a workflow, and reads and checks all of them: [`Bundle::load`] and
    /// [`Documents::load`] in one, so that a missing file hides no other error.
    ///
    /// # Errors
    /// Those of the two.
    pub fn read(files: &dyn Files, root: &str, registry: &Registry) -> Result<(Bundle, Self), Diagnostics> {
        let (bundle, mut diagnostics) = Bundle::gather(files, root, registry);
        if bundle.files.is_empty() {
            return Err(diagnostics);
        }
        match Self::load(&bundle, registry) {
            Ok(documents) => diagnostics.into_result((bundle, documents)),
            Err(found) => {
                // A file that couldn't be read is missing in the bundle too: told once.
                let place = |one: &Diagnostic| (one.code, one.source.clone(), one.labels.clone());
                let told: Vec<_> = diagnostics.0.iter().map(place).collect();
                diagnostics.0.extend(found.0.into_iter().filter(|one| !told.contains(&place(one))));
                if let Some(source) = bundle.source(root) {
                    sort(&mut diagnostics, &source);
                }
                Err(diagnostics)
            }
        }
    }

    /// The workflow that a step includes, where it includes one.
    pub fn included(&self, step: &StepDef) -> Option<&Arc<Workflow>> {
        self.files.get(included_file(step)?.0)
    }
}

/// In the order in which a reader meets them: file by file, the root first, from top to bottom.
fn sort(diagnostics: &mut Diagnostics, root: &Arc<Source>) {
    diagnostics.0.sort_by_cached_key(|one| {
        let file = one.source.as_ref().map(|source| (source != root, source.name.clone()));
        (file, one.labels.first().map(|(span, _)| span.start))
    });
}

/// The file that a step includes, and the argument that names it.
pub(crate) fn included_file(step: &StepDef) -> Option<(&str, &Argument)> {
    (step.uses.value == INCLUDE).then_some(())?;
    literal_text(step.with.value.get("file")?)
}

/// The other workflows that one names: those it includes, and the one whose params it takes over.
fn named(workflow: &Workflow) -> impl Iterator<Item = &str> {
    let included = workflow.steps.values().filter_map(included_file).map(|(file, _)| file);
    included.chain(workflow.params_from.as_ref().map(|file| file.value.as_str()))
}

/// The text of an argument that is known before the run.
pub(super) fn literal_text(argument: &Argument) -> Option<(&str, &Argument)> {
    match &argument.kind {
        ArgumentKind::Text(text) if !expr::is_template(text) => Some((text, argument)),
        _ => None,
    }
}

impl Bundle {
    /// Reads a workflow, those it includes, and the files that their steps name.
    ///
    /// `root` and all paths are relative to the root workflow's folder, the names of included files
    /// too. What is named by a template isn't known yet and isn't read.
    ///
    /// # Errors
    /// A file that can't be read, or lies outside the folder. A workflow with errors of its own is
    /// taken as far as it can be read; [`Documents::load`] tells them.
    pub fn load(files: &dyn Files, root: &str, registry: &Registry) -> Result<Self, Diagnostics> {
        let (bundle, diagnostics) = Self::gather(files, root, registry);
        diagnostics.into_result(bundle)
    }

    /// What could be read, and what couldn't.
    fn gather(files: &dyn Files, root: &str, registry: &Registry) -> (Self, Diagnostics) {
        let bundle = Self { root: root.to_owned(), files: BTreeMap::new() };
        let mut loader = Loader { files, bundle, diagnostics: Diagnostics::default() };
        match files.read(root) {
            Ok(text) => loader.add(root, text),
            Err(error) => {
                let message = format!("`{}` can't be read: {}", files.display(root), reason(&error));
                loader.diagnostics.push(Diagnostic::general(Code::FILE, message));
            }
        }
        let mut pending = vec![root.to_owned()];
        let mut at = 0;
        while let Some(path) = pending.get(at).cloned() {
            at += 1;
            let Some(source) = loader.bundle.source(&path) else { continue };
            let (Some(workflow), _) = parse_lenient(&source) else { continue };
            for step in workflow.steps.values() {
                loader.step(&source, step, registry);
            }
            if let Some(file) = workflow.params_from.as_ref().filter(|file| !expr::is_template(&file.value)) {
                loader.file(&source, &file.value, &file.span);
            }
            for file in named(&workflow) {
                if !pending.iter().any(|known| known == file) {
                    pending.push(file.to_owned());
                }
            }
        }
        (loader.bundle, loader.diagnostics)
    }
}

struct Loader<'f> {
    files: &'f dyn Files,
    bundle: Bundle,
    diagnostics: Diagnostics,
}

impl Loader<'_> {
    fn add(&mut self, path: &str, text: String) {
        let file = BundledFile { display: self.files.display(path), text };
        self.bundle.files.insert(path.to_owned(), file);
    }

    fn step(&mut self, source: &Arc<Source>, step: &StepDef, registry: &Registry) {
        let names: &[&str] = match registry.get(&step.uses.value) {
            Some(info) => info.files,
            None if step.uses.value == INCLUDE => &["file"],
            None => &[],
        };
        for name in names {
            if let Some((path, argument)) = step.with.value.get(*name).and_then(literal_text) {
                self.file(source, path, &argument.span);
            }
        }
    }

    fn file(&mut self, source: &Arc<Source>, path: &str, span: &Span) {
        if self.bundle.files.contains_key(path) {
            return;
        }
        if let Err((message, help)) = within_folder(path) {
            let refused = Diagnostic::at(Code::FILE, source, span.clone(), message).help(help);
            self.diagnostics.push(refused);
            return;
        }
        match self.files.read(path) {
            Ok(text) => self.add(path, text),
            Err(error) => {
                let message = format!("`{}` can't be read: {}", self.files.display(path), reason(&error));
                let unread = Diagnostic::at(Code::FILE, source, span.clone(), message)
                    .help("paths are relative to the folder of the workflow that is run");
                self.diagnostics.push(unread);
            }
        }
    }
}

/// Refuses a path that isn't one of a file below the folder, written plainly.
fn within_folder(path: &str) -> Result<(), (String, String)> {
    let plain = "a path below the workflow's folder, such as `templates/patroni.yml`".to_owned();
    if path.is_empty() {
        return Err(("the file's name is empty".to_owned(), plain));
    }
    if path.starts_with('/') {
        return Err((format!("`{path}` is an absolute path"), plain));
    }
    if path.split('/').any(|part| part == "..") {
        return Err((format!("`{path}` leads out of the workflow's folder"), plain));
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let shortest = parts.join("/");
    if shortest != path {
        return Err((format!("`{path}` is not written plainly"), format!("write: `{shortest}`")));
    }
    Ok(())
}

/// Why a file can't be read, without the number of the error.
fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
        std::io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        std::io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        std::io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
