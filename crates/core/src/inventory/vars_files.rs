//! `group_vars` and `host_vars`: which files belong to a name, and what they hold (Ansible 2.19,
//! plugins/vars/host_group_vars.py).

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::builder::VarsByName;
use super::load;
use super::tree::{self, NodeKind};
use crate::workflow::{Code, Diagnostic, Diagnostics};

const SUFFIXES: [&str; 3] = ["yml", "yaml", "json"];

/// What the files beside an inventory hold.
#[derive(Default)]
pub(super) struct VarsFiles {
    pub(super) groups: VarsByName,
    pub(super) hosts: VarsByName,
    /// The files that were read.
    pub(super) read: Vec<PathBuf>,
    pub(super) diagnostics: Diagnostics,
}

/// Reads the files of these groups and hosts below `folder`.
pub(super) fn read<'n>(
    folder: &Path,
    groups: impl Iterator<Item = &'n str>,
    hosts: impl Iterator<Item = &'n str>,
) -> VarsFiles {
    let mut files = VarsFiles::default();
    files.groups = files.entities(&folder.join("group_vars"), groups);
    files.hosts = files.entities(&folder.join("host_vars"), hosts);
    files
}

impl VarsFiles {
    /// The variables of each name that has files in a folder, which is listed once: of thousands of hosts
    /// mostly few have any.
    fn entities<'n>(&mut self, folder: &Path, names: impl Iterator<Item = &'n str>) -> VarsByName {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let there: HashSet<OsString> = entries.map(|entry| entry.file_name()).collect();
        let mut found = VarsByName::default();
        for name in names.filter(|_| !there.is_empty()) {
            if let Some(vars) = self.entity(folder, &there, name) {
                found.insert(name.to_owned(), vars);
            }
        }
        found
    }

    /// The variables of one name, where it has files. Later files win over earlier ones.
    fn entity(&mut self, folder: &Path, there: &HashSet<OsString>, name: &str) -> Option<Map<String, Value>> {
        let suffixed = SUFFIXES.map(|suffix| format!("{name}.{suffix}"));
        let names = std::iter::once(name).chain(suffixed.iter().map(String::as_str));
        let candidates = names.filter(|name| there.contains(OsStr::new(name))).map(|name| folder.join(name));
        let candidates: Vec<PathBuf> = candidates.filter(|path| path.exists()).collect();
        let (first, ignored) = candidates.split_first()?;
        for path in ignored {
            // Ansible reads the first alone and says nothing.
            let message = format!("`{}` and `{}` are both there", first.display(), path.display());
            self.diagnostics.push(Diagnostic::general(Code::INVENTORY, message).help(format!(
                "Ansible reads only the first; move `{}` into a folder `{name}`",
                path.display()
            )));
        }
        let mut paths = Vec::new();
        if first.is_dir() {
            self.folder(first, &mut paths);
        } else {
            paths.push(first.clone());
        }
        let mut vars = Map::new();
        for path in paths {
            match self.file(&path) {
                Ok(more) => vars.extend(more),
                Err(diagnostic) => self.diagnostics.push(diagnostic),
            }
            self.read.push(path);
        }
        Some(vars)
    }

    /// The files of a folder and those below it, in the order of their names. Hidden files, back-ups
    /// and other suffixes are passed over, as Ansible does.
    fn folder(&mut self, folder: &Path, paths: &mut Vec<PathBuf>) {
        let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut names: Vec<String> = match entries {
            Ok(entries) => entries.iter().filter_map(|entry| entry.file_name().into_string().ok()).collect(),
            Err(error) => {
                let message = format!("`{}` can't be read: {error}", folder.display());
                self.diagnostics.push(Diagnostic::general(Code::INVENTORY, message));
                return;
            }
        };
        names.sort();
        for name in names.iter().filter(|name| !name.starts_with('.') && !name.ends_with('~')) {
            let path = folder.join(name);
            match path.extension().map(|suffix| suffix.to_string_lossy().into_owned()) {
                None if path.is_dir() => self.folder(&path, paths),
                None => paths.push(path),
                Some(suffix) if SUFFIXES.contains(&suffix.as_str()) && path.is_file() => paths.push(path),
                Some(_) => {}
            }
        }
    }

    fn file(&self, path: &Path) -> Result<Map<String, Value>, Diagnostic> {
        let source = load::read(path)?;
        if source.text.starts_with("$ANSIBLE_VAULT") {
            return Err(Diagnostic::general(
                Code::INVENTORY,
                format!("`{}` is encrypted with ansible-vault", path.display()),
            )
            .help("vaults are not read; move the secrets out and give them as env:NAME or file:PATH"));
        }
        match tree::read(&source)? {
            None => Ok(Map::new()),
            Some(node) => match &node.kind {
                NodeKind::Table(fields) => Ok(tree::to_map(fields)),
                _ => {
                    let message = format!("variables are a table, this is {}", node.describe());
                    let span = node.span.start..node.span.start;
                    Err(Diagnostic::at(Code::INVENTORY, &source, span, message)
                        .help("write NAME: VALUE, each on its own line"))
                }
            },
        }
    }
}
