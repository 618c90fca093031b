//! `group_vars` and `host_vars`: which files belong to a name, and what they hold (Ansible 2.19,
//! plugins/vars/host_group_vars.py).

use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use super::load;
use super::raw::Vars;
use super::tree::{self, NodeKind};
use super::vault::Vaults;
use crate::workflow::{Code, Diagnostic, Diagnostics};

const SUFFIXES: [&str; 3] = ["yml", "yaml", "json"];

/// What the files beside an inventory or a playbook hold, by the name of the group or host.
#[derive(Default)]
pub(super) struct VarsFiles {
    pub(super) groups: IndexMap<String, Vars>,
    pub(super) hosts: IndexMap<String, Vars>,
    /// The files that were read.
    pub(super) read: Vec<PathBuf>,
    pub(super) diagnostics: Diagnostics,
}

/// Reads the files of these groups and hosts below `folder`.
pub(super) fn read<'n>(
    folder: &Path,
    groups: impl Iterator<Item = &'n str>,
    hosts: impl Iterator<Item = &'n str>,
    vaults: &Vaults<'_>,
) -> VarsFiles {
    let mut files = VarsFiles::default();
    let (group_vars, host_vars) = (folder.join("group_vars"), folder.join("host_vars"));
    if group_vars.is_dir() {
        for name in groups {
            if let Some(vars) = files.entity(&group_vars, name, vaults) {
                files.groups.insert(name.to_owned(), vars);
            }
        }
    }
    if host_vars.is_dir() {
        for name in hosts {
            if let Some(vars) = files.entity(&host_vars, name, vaults) {
                files.hosts.insert(name.to_owned(), vars);
            }
        }
    }
    files
}

impl VarsFiles {
    /// The variables of one name, where it has files. Later files win over earlier ones.
    fn entity(&mut self, folder: &Path, name: &str, vaults: &Vaults<'_>) -> Option<Vars> {
        let mut candidates = vec![folder.join(name)];
        candidates.extend(SUFFIXES.map(|suffix| folder.join(format!("{name}.{suffix}"))));
        candidates.retain(|path| path.exists());
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
        let mut vars = Vars::new();
        for path in paths {
            match variables(&path, vaults) {
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
}

/// The variables of one file.
fn variables(path: &Path, vaults: &Vaults<'_>) -> Result<Vars, Diagnostic> {
    let file = load::read(path, vaults)?;
    match tree::read(&file, vaults)? {
        None => Ok(Vars::new()),
        Some(node) => match &node.kind {
            NodeKind::Table(fields) => Ok(tree::to_vars(fields, &file)),
            _ => {
                let message = format!("variables are a table, this is {}", node.describe());
                let span = node.span.start..node.span.start;
                Err(file.refuse(span, message).help("write NAME: VALUE, each on its own line"))
            }
        },
    }
}
