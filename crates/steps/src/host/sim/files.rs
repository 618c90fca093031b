//! A host's file tree: paths to files, directories and links, with owners, inodes and devices.
//! Knows nothing of what the files mean. Errors are worded as the C library words them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::host::{FileKind, Ownership, Stat};

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeKind {
    /// A regular file with its bytes.
    #[serde(serialize_with = "write_bytes", deserialize_with = "read_bytes")]
    File(Vec<u8>),
    /// A directory.
    Directory,
    /// A link and where it points to.
    Symlink(String),
}

/// One entry of the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// File, directory, link.
    pub kind: NodeKind,
    /// Owner's name.
    pub owner: String,
    /// Group's name.
    pub group: String,
    /// Permission bits.
    pub mode: u32,
    /// Stays with it when it is renamed.
    pub inode: u64,
}

/// All files of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileTree {
    nodes: BTreeMap<String, Node>,
    /// Mount points and their device numbers; `/` is always there.
    pub mounts: BTreeMap<String, u64>,
    next_inode: u64,
}

/// Links followed on one path before it counts as a loop.
const MAX_LINKS: usize = 16;

type Answer<T> = Result<T, String>;

impl Default for FileTree {
    fn default() -> Self {
        let mut tree =
            Self { nodes: BTreeMap::new(), mounts: BTreeMap::from([("/".to_owned(), 1)]), next_inode: 2 };
        tree.insert("/", NodeKind::Directory, &Ownership::default());
        tree
    }
}

impl FileTree {
    /// The path with links on the way followed; a link at its end only where `last` says so.
    fn resolve(&self, path: &str, last: bool) -> Answer<String> {
        if !path.starts_with('/') {
            return Err(format!("{path}: not an absolute path"));
        }
        let mut todo: Vec<String> = split(path).rev().map(str::to_owned).collect();
        let mut done = String::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == ".." {
                done.truncate(done.rfind('/').unwrap_or(0));
                continue;
            }
            let here = format!("{done}/{part}");
            match self.nodes.get(&here).map(|node| &node.kind) {
                Some(NodeKind::Symlink(target)) if last || !todo.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(format!("{path}: Too many levels of symbolic links"));
                    }
                    if target.starts_with('/') {
                        done.clear();
                    }
                    todo.extend(split(target).rev().map(str::to_owned));
                }
                Some(NodeKind::File(_)) if !todo.is_empty() => {
                    return Err(format!("{path}: Not a directory"));
                }
                _ => done = here,
            }
        }
        Ok(if done.is_empty() { "/".to_owned() } else { done })
    }

    /// The inode that the next file gets: what is written later has this one or a higher.
    pub fn next_inode(&self) -> u64 {
        self.next_inode
    }

    /// Every path and what is there, in order.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// What is at a path; a link is not followed.
    pub fn node(&self, path: &str) -> Option<&Node> {
        self.nodes.get(&self.resolve(path, false).ok()?)
    }

    /// Whether something is there, links followed.
    pub fn exists(&self, path: &str) -> bool {
        self.resolve(path, true).is_ok_and(|path| self.nodes.contains_key(&path))
    }

    /// Whether a directory is there, links followed.
    pub fn is_directory(&self, path: &str) -> bool {
        self.resolve(path, true)
            .ok()
            .and_then(|path| self.nodes.get(&path))
            .is_some_and(|node| node.kind == NodeKind::Directory)
    }

    /// As stat(2) without following a link.
    pub fn stat(&self, path: &str) -> Option<Stat> {
        let path = self.resolve(path, false).ok()?;
        let node = self.nodes.get(&path)?;
        let (kind, size, target) = match &node.kind {
            NodeKind::File(bytes) => (FileKind::File, bytes.len() as u64, None),
            NodeKind::Directory => (FileKind::Directory, 4096, None),
            NodeKind::Symlink(target) => (FileKind::Symlink, target.len() as u64, Some(target.clone())),
        };
        Some(Stat {
            kind,
            mode: node.mode,
            owner: node.owner.clone(),
            group: node.group.clone(),
            size,
            inode: node.inode,
            device: self.device(&path),
            target,
        })
    }

    /// A file's bytes, links followed. `None`: nothing is there.
    pub fn read(&self, path: &str) -> Answer<Option<&[u8]>> {
        match self.nodes.get(&self.resolve(path, true)?).map(|node| &node.kind) {
            None => Ok(None),
            Some(NodeKind::File(bytes)) => Ok(Some(bytes)),
            Some(_) => Err(format!("{path}: Is a directory")),
        }
    }

    /// A file as text; `None` where there is no such file or it isn't text.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.read(path).ok().flatten().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// The names in a directory, sorted. `None`: no such directory.
    pub fn list(&self, path: &str) -> Option<Vec<String>> {
        let path = self.resolve(path, true).ok()?;
        if self.nodes.get(&path)?.kind != NodeKind::Directory {
            return None;
        }
        let below = if path == "/" { "/".to_owned() } else { format!("{path}/") };
        let names = self
            .nodes
            .range(below.clone()..)
            .take_while(|(name, _)| name.starts_with(&below))
            .map(|(name, _)| &name[below.len()..])
            .filter(|name| !name.is_empty() && !name.contains('/'));
        Some(names.map(str::to_owned).collect())
    }

    /// Writes a file in place of what was there, with a new inode.
    pub fn write(&mut self, path: &str, bytes: impl Into<Vec<u8>>, ownership: &Ownership) -> Answer<()> {
        let path = self.place(path)?;
        if self.nodes.get(&path).is_some_and(|node| node.kind == NodeKind::Directory) {
            return Err(format!("{path}: Is a directory"));
        }
        self.insert(&path, NodeKind::File(bytes.into()), ownership);
        Ok(())
    }

    /// Makes a directory and those above it. False: all was as asked already.
    pub fn make_directory(&mut self, path: &str, ownership: &Ownership) -> Answer<bool> {
        let path = self.resolve(path, true)?;
        match self.nodes.get(&path).map(|node| &node.kind) {
            Some(NodeKind::Directory) => return self.set_ownership(&path, ownership),
            Some(_) => return Err(format!("{path}: File exists")),
            None => {}
        }
        self.make_directory(parent(&path), &Ownership::default())?;
        self.insert(&path, NodeKind::Directory, ownership);
        Ok(true)
    }

    /// Sets what is given. False: all was as asked already.
    pub fn set_ownership(&mut self, path: &str, ownership: &Ownership) -> Answer<bool> {
        let resolved = self.resolve(path, true)?;
        let node =
            self.nodes.get_mut(&resolved).ok_or_else(|| format!("{path}: No such file or directory"))?;
        let before = node.clone();
        node.apply(ownership);
        Ok(*node != before)
    }

    /// rename(2), with the refusals of [`HostChange::Rename`](crate::host::HostChange::Rename).
    pub fn rename(&mut self, from: &str, to: &str) -> Answer<()> {
        let source = self.resolve(from, false)?;
        if !self.nodes.contains_key(&source) {
            return Err(format!("{from}: No such file or directory"));
        }
        let target = self.place(to)?;
        if self.nodes.contains_key(&target) {
            return Err(format!("{to}: File exists"));
        }
        if self.mounts.contains_key(&source) {
            return Err(format!("{from}: Device or resource busy"));
        }
        if self.device(&source) != self.device(parent(&target)) {
            return Err(format!("{from} -> {to}: Invalid cross-device link"));
        }
        if target.starts_with(&format!("{source}/")) {
            return Err(format!("{from} -> {to}: Invalid argument"));
        }
        let moved: Vec<String> = self.subtree(&source);
        for path in moved {
            if let Some(node) = self.nodes.remove(&path) {
                self.nodes.insert(format!("{target}{}", &path[source.len()..]), node);
            }
        }
        Ok(())
    }

    /// rename(2) of a file over another one, with the refusals of
    /// [`HostChange::Replace`](crate::host::HostChange::Replace).
    pub fn replace(&mut self, path: &str, from: &str) -> Answer<()> {
        let (source, target) = (self.resolve(from, false)?, self.place(path)?);
        if self.nodes.get(&target).is_some_and(|node| node.kind == NodeKind::Directory) {
            return Err(format!("{path}: Is a directory"));
        }
        if !self.nodes.get(&source).is_some_and(|node| matches!(node.kind, NodeKind::File(_))) {
            return Err(format!("{from}: No such file or directory"));
        }
        if let Some(node) = self.nodes.remove(&source) {
            self.nodes.insert(target, node);
        }
        Ok(())
    }

    /// Removes a file or a link. False: nothing was there.
    pub fn remove_file(&mut self, path: &str) -> Answer<bool> {
        let resolved = self.resolve(path, false)?;
        match self.nodes.get(&resolved).map(|node| &node.kind) {
            None => Ok(false),
            Some(NodeKind::Directory) => Err(format!("{path}: Is a directory")),
            Some(_) => Ok(self.nodes.remove(&resolved).is_some()),
        }
    }

    /// Removes whatever is at a path, with all below. False: nothing was there.
    pub fn remove_directory(&mut self, path: &str) -> Answer<bool> {
        match self.list(path) {
            None if self.exists(path) => Err(format!("{path}: Not a directory")),
            None => Ok(false),
            Some(names) if names.is_empty() => Ok(self.remove_tree(path)),
            Some(_) => Err(format!("{path}: Directory not empty")),
        }
    }

    /// Removes a path and all below it.
    pub fn remove_tree(&mut self, path: &str) -> bool {
        let Ok(resolved) = self.resolve(path, false) else { return false };
        let paths = self.subtree(&resolved);
        paths.iter().filter(|path| self.nodes.remove(*path).is_some()).count() > 0
    }

    /// Makes or replaces a link. False: it was there already.
    pub fn symlink(&mut self, path: &str, target: &str) -> Answer<bool> {
        let path = self.place(path)?;
        match self.nodes.get(&path).map(|node| &node.kind) {
            Some(NodeKind::Symlink(old)) if old == target => return Ok(false),
            Some(NodeKind::Directory) => return Err(format!("{path}: Is a directory")),
            _ => {}
        }
        let ownership = Ownership { mode: Some(0o777), ..Ownership::default() };
        self.insert(&path, NodeKind::Symlink(target.to_owned()), &ownership);
        Ok(true)
    }

    /// Where a new entry goes: its directory must be there.
    fn place(&self, path: &str) -> Answer<String> {
        let path = path.trim_end_matches('/');
        let (directory, name) = path.rsplit_once('/').ok_or_else(|| format!("{path}: not absolute"))?;
        let directory = self.resolve(if directory.is_empty() { "/" } else { directory }, true)?;
        match self.nodes.get(&directory).map(|node| &node.kind) {
            Some(NodeKind::Directory) => Ok(format!("{}/{name}", directory.trim_end_matches('/'))),
            Some(_) => Err(format!("{path}: Not a directory")),
            None => Err(format!("{path}: No such file or directory")),
        }
    }

    fn subtree(&self, path: &str) -> Vec<String> {
        let below = format!("{path}/");
        let inside = self.nodes.range(below.clone()..).take_while(|(name, _)| name.starts_with(&below));
        let inside = inside.map(|(name, _)| name.clone());
        self.nodes.get_key_value(path).map(|(name, _)| name.clone()).into_iter().chain(inside).collect()
    }

    fn device(&self, path: &str) -> u64 {
        let holds = |mount: &str| {
            mount == "/" || path == mount || path.strip_prefix(mount).is_some_and(|p| p.starts_with('/'))
        };
        let nearest =
            self.mounts.iter().filter(|(mount, _)| holds(mount)).max_by_key(|(mount, _)| mount.len());
        nearest.map_or(1, |(_, device)| *device)
    }

    fn insert(&mut self, path: &str, kind: NodeKind, ownership: &Ownership) {
        let old = self.nodes.get(path);
        let mode = if kind == NodeKind::Directory { 0o755 } else { 0o644 };
        let mut node = Node {
            owner: old.map_or_else(|| "root".to_owned(), |node| node.owner.clone()),
            group: old.map_or_else(|| "root".to_owned(), |node| node.group.clone()),
            mode: old.map_or(mode, |node| node.mode),
            kind,
            inode: self.next_inode,
        };
        node.apply(ownership);
        self.next_inode += 1;
        self.nodes.insert(path.to_owned(), node);
    }
}

impl Node {
    fn apply(&mut self, ownership: &Ownership) {
        if let Some(owner) = &ownership.owner {
            self.owner.clone_from(owner);
        }
        if let Some(group) = &ownership.group {
            self.group.clone_from(group);
        }
        self.mode = ownership.mode.unwrap_or(self.mode);
    }
}

fn split(path: &str) -> impl DoubleEndedIterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".")
}

fn parent(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((directory, _)) => directory,
    }
}

/// Text as text, so that the world's file can be read by people; other bytes as numbers.
fn write_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => serializer.serialize_str(text),
        Err(_) => serializer.collect_seq(bytes),
    }
}

fn read_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Stored {
        Text(String),
        Bytes(Vec<u8>),
    }
    Ok(match Stored::deserialize(deserializer)? {
        Stored::Text(text) => text.into_bytes(),
        Stored::Bytes(bytes) => bytes,
    })
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
