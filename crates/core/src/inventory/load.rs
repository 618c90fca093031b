//! Which files an inventory is read from, and by which reader.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::builder::Builder;
use super::raw::{File, Place};
use super::vars_files::{self, VarsFiles};
use super::vault::{self, NoPasswords, VaultPasswords, Vaults};
use super::{Given, GroupOutline, Inventory, Merged, ini, templates, yaml};
use crate::workflow::{Code, Diagnostic, Diagnostics, Source};
use indexmap::IndexMap;

/// Ends of names that an inventory folder's files are passed over for (Ansible 2.19, `INVENTORY_IGNORE_EXTS`).
const PASSED_OVER: [&str; 12] =
    [".pyc", ".pyo", ".swp", ".bak", "~", ".rpm", ".md", ".txt", ".rst", ".orig", ".cfg", ".retry"];
/// Folders in folders deeper than this are refused.
const MAX_DEPTH: usize = 16;

/// Where an inventory is read, and with what.
pub struct Sources<'s> {
    /// Files, folders of files, and lists of hosts (`web1,web2,`), in Ansible's order: later ones win.
    pub given: Given,
    /// Opens vaults.
    pub vault: &'s dyn VaultPasswords,
}

/// An inventory, and where everything in it came from.
#[derive(Debug)]
pub struct Loaded {
    /// Hosts and groups, variables evaluated.
    pub inventory: Inventory,
    merged: Merged,
}

impl Loaded {
    /// What each group itself holds.
    pub fn groups(&self) -> &IndexMap<String, GroupOutline> {
        &self.merged.groups
    }

    /// Where the value of a host's variable stands.
    pub fn place(&self, host: &str, variable: &str) -> Option<&Place> {
        Some(&self.merged.hosts.get(host)?.vars.get(variable)?.place)
    }

    /// A host's variables as the files hold them, templates not evaluated. Secrets are in it.
    pub fn raw(&self, host: &str) -> Option<serde_json::Map<String, serde_json::Value>> {
        let vars = &self.merged.hosts.get(host)?.vars;
        Some(vars.iter().map(|(name, var)| (name.clone(), var.raw.to_value())).collect())
    }
}

/// Reads one Ansible inventory, INI or YAML, with the `group_vars` and `host_vars` beside it, without passwords
/// for vaults.
///
/// # Errors
/// See [`read_all`].
pub fn load(path: &Path) -> Result<Inventory, Diagnostics> {
    let given = Given { inventories: vec![path.to_owned()], playbook_dir: None };
    read_all(&Sources { given, vault: &NoPasswords }).map(|loaded| loaded.inventory)
}

/// Reads inventories with the `group_vars` and `host_vars` beside them and beside the playbook, opens vaults and
/// evaluates templates. A value that can't be evaluated is an error only where it is asked for: see
/// [`Host::faults`](super::Host::faults).
///
/// # Errors
/// Every place in the files that can't be read or understood. Scripts, plugins and TOML are not read, and
/// said to be.
pub fn read_all(sources: &Sources<'_>) -> Result<Loaded, Diagnostics> {
    let vaults = Vaults::new(sources.vault);
    let mut reader = Reader {
        builder: Builder::new(),
        diagnostics: Diagnostics::default(),
        read: Vec::new(),
        vaults: &vaults,
    };
    let mut folders: Vec<PathBuf> = Vec::new();
    for given in &sources.given.inventories {
        if let Some(names) = host_list(given) {
            reader.hosts(&names);
            continue;
        }
        let folder = if given.is_dir() {
            reader.folder(given, 0);
            given.clone()
        } else {
            reader.file(given);
            given.parent().unwrap_or(Path::new("")).to_owned()
        };
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    reader.finish(&sources.given, &folders)
}

/// The names of a list such as `web1,web2`. None: it is a path.
fn host_list(given: &Path) -> Option<Vec<&str>> {
    let text = given.to_str().filter(|text| text.contains(','))?;
    (!given.exists()).then(|| text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect())
}

struct Reader<'v> {
    builder: Builder,
    diagnostics: Diagnostics,
    read: Vec<PathBuf>,
    vaults: &'v Vaults<'v>,
}

impl Reader<'_> {
    fn hosts(&mut self, names: &[&str]) {
        for name in names {
            match super::range::expand(name) {
                Ok((hosts, _)) => {
                    hosts.iter().for_each(|host| self.builder.add_host(super::builder::UNGROUPED, host));
                }
                Err(why) => self.diagnostics.push(
                    Diagnostic::general(Code::INVENTORY, format!("`{name}` in the list of hosts: {why}"))
                        .help("a list of hosts is: -i web1,web2, (a file's name has no comma)"),
                ),
            }
        }
    }

    fn file(&mut self, path: &Path) {
        let file = match read(path, self.vaults) {
            Ok(file) => file,
            Err(error) => return self.diagnostics.push(error),
        };
        self.builder.begin(path);
        let found = match kind(path, &file.source.text) {
            Kind::Ini => ini::read(&file, &mut self.builder),
            Kind::Yaml => yaml::read(&file, &mut self.builder, self.vaults),
            Kind::Refused(why, help) => {
                let message = format!("`{}` {why}", path.display());
                Diagnostic::general(Code::INVENTORY, message).help(help).into()
            }
        };
        self.diagnostics.0.extend(found.0);
        self.read.push(path.to_owned());
    }

    /// The files of a folder in the order of their names, those of folders in it too.
    fn folder(&mut self, folder: &Path, depth: usize) {
        let cant = |why: String| {
            Diagnostic::general(Code::INVENTORY, format!("`{}` can't be read: {why}", folder.display()))
        };
        if depth > MAX_DEPTH {
            return self.diagnostics.push(cant(format!("folders are nested more than {MAX_DEPTH} deep")));
        }
        let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut names: Vec<String> = match entries {
            Ok(entries) => entries.iter().filter_map(|entry| entry.file_name().into_string().ok()).collect(),
            Err(error) => return self.diagnostics.push(cant(error.to_string())),
        };
        names.sort();
        let before = self.read.len();
        for name in &names {
            let variables = matches!(name.as_str(), "group_vars" | "host_vars" | "vars_plugins");
            if variables || name.starts_with('.') || PASSED_OVER.iter().any(|end| name.ends_with(end)) {
                continue;
            }
            let path = folder.join(name);
            if path.is_dir() { self.folder(&path, depth + 1) } else { self.file(&path) }
        }
        if depth == 0 && self.read.len() == before && self.diagnostics.0.is_empty() {
            let empty =
                Diagnostic::general(Code::INVENTORY, format!("`{}` holds no inventory", folder.display()));
            self.diagnostics
                .push(empty.help("a folder's INI and YAML files are read; name the right folder or file"));
        }
    }

    fn finish(mut self, given: &Given, folders: &[PathBuf]) -> Result<Loaded, Diagnostics> {
        let first = given.inventories.first().map(|path| path.display().to_string()).unwrap_or_default();
        let mut beside = Vec::new();
        let mut playbook = VarsFiles::default();
        // A name can lead out of the folders, so that no file is looked for before all are good.
        match self.builder.check_names(&first) {
            Ok(()) => {
                let of = |folder: &Path| {
                    let builder = &self.builder;
                    vars_files::read(folder, builder.group_names(), builder.host_names(), self.vaults)
                };
                beside = folders.iter().map(|folder| of(folder)).collect();
                if let Some(folder) = &given.playbook_dir
                    && !folders.iter().any(|other| same(other, folder))
                {
                    playbook = of(folder);
                }
            }
            Err(found) => self.diagnostics.0.extend(found.0),
        }
        for files in beside.iter_mut().chain([&mut playbook]) {
            self.diagnostics.0.append(&mut files.diagnostics.0);
            self.read.append(&mut files.read);
        }
        let merged = self.builder.finish(&beside, &playbook);
        self.diagnostics.into_result(())?;
        let mut inventory = templates::evaluate(&merged, given.playbook_dir.as_deref());
        inventory.sources = self.read;
        inventory.given = given.clone();
        Ok(Loaded { inventory, merged })
    }
}

/// Whether two paths are one folder.
fn same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        path.canonicalize().ok()
    };
    one == other || real(one).is_some_and(|one| Some(one) == real(other))
}

/// The text of a file; a vault is opened.
pub(super) fn read(path: &Path, vaults: &Vaults<'_>) -> Result<File, Diagnostic> {
    let bytes = std::fs::read(path).map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
            _ => error.to_string(),
        };
        Diagnostic::general(Code::INVENTORY, format!("`{}` can't be read: {why}", path.display()))
    })?;
    let name = path.display().to_string();
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        Diagnostic::general(Code::INVENTORY, format!("`{name}` is not UTF-8 text: line {line}"))
    })?;
    if !vault::is_vault(&text) {
        return Ok(File::new(Arc::new(Source { name, text }), false));
    }
    let text = vaults
        .open(&text, &name)
        .map_err(|(why, hint)| Diagnostic::general(Code::INVENTORY, format!("`{name}`: {why}")).help(hint))?;
    Ok(File::new(Arc::new(Source { name, text }), true))
}

enum Kind {
    Ini,
    Yaml,
    Refused(&'static str, &'static str),
}

fn kind(path: &Path, text: &str) -> Kind {
    if text.starts_with("#!") {
        return Kind::Refused(
            "is a script, and inventory scripts are not run",
            "save what it prints: ansible-inventory -i SCRIPT --list --yaml --output hosts.yml",
        );
    }
    match path.extension().and_then(|suffix| suffix.to_str()) {
        Some("yml" | "yaml" | "json") => Kind::Yaml,
        Some("toml") => Kind::Refused("is TOML", "inventories are Ansible's INI or YAML files"),
        Some("ini") => Kind::Ini,
        _ if looks_like_yaml(text) => Kind::Yaml,
        _ => Kind::Ini,
    }
}

/// Whether the first line that says anything can only be YAML.
fn looks_like_yaml(text: &str) -> bool {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    first.is_some_and(|line| line == "---" || line.starts_with('{') || line.ends_with(':'))
}

#[cfg(test)]
mod tests;
