//! Where workflows come from: a file, or what the binary carries.

use std::io;
use std::path::{Path, PathBuf};

use flow_core::step::Registry;
use flow_core::workflow::{Bundle, Code, Diagnostic, Diagnostics, Files, nearest};
use include_dir::{Dir, include_dir};

/// How the name of a test file ends.
const TEST: &str = ".test.toml";

static SHIPPED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../workflows");

/// The workflows that the binary carries, by file name.
pub fn shipped() -> impl Iterator<Item = (&'static str, &'static str)> {
    SHIPPED.files().filter_map(|file| {
        let name = file.path().to_str()?;
        let workflow = name.ends_with(".toml") && !name.ends_with(TEST);
        workflow.then_some((name, file.contents_utf8()?))
    })
}

/// The workflow that the user named: a path as it is; a bare name among the shipped ones, unless
/// there is a file of that name here.
pub fn load(name: &str, registry: &Registry) -> Result<Bundle, Diagnostics> {
    let path = Path::new(name);
    let bare = path.components().count() == 1;
    if !bare || path.is_file() {
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let root = path.file_name().and_then(|name| name.to_str()).unwrap_or(name).to_owned();
        return Bundle::load(&Folder(folder), &root, registry);
    }
    load_shipped(name, registry)
}

/// The folder that counts as the playbook's: that of a workflow's file, else this one.
pub fn folder(workflow: Option<&str>) -> PathBuf {
    let path = workflow.map(Path::new).filter(|path| path.components().count() > 1 || path.is_file());
    let folder = path.and_then(Path::parent).filter(|folder| !folder.as_os_str().is_empty());
    folder.map_or_else(|| ".".into(), Path::to_owned)
}

/// The shipped workflow of that name, with or without its ending.
pub fn load_shipped(name: &str, registry: &Registry) -> Result<Bundle, Diagnostics> {
    let with_ending = format!("{}.toml", name.trim_end_matches(".toml"));
    if shipped().any(|(shipped, _)| shipped == with_ending) {
        return Bundle::load(&Shipped, &with_ending, registry);
    }
    let names: Vec<&str> = shipped().map(|(name, _)| name).collect();
    let wrong = Diagnostic::general(
        Code::FILE,
        format!("there is no file `{name}`, and no shipped workflow of that name"),
    );
    Err(match nearest(&with_ending, names.iter().copied()) {
        Some(near) => wrong.help(format!("did you mean `{near}`?")),
        None => wrong.help("`flow workflows` lists the shipped ones"),
    }
    .into())
}

/// The test file of a workflow that was named so: what it is called, and its text. None: it has none.
pub fn test_file(name: &str) -> io::Result<Option<(String, String)>> {
    let path = Path::new(name);
    let stem = name.trim_end_matches(".toml");
    if path.components().count() > 1 || path.is_file() {
        let beside = format!("{stem}{TEST}");
        return match std::fs::read_to_string(&beside) {
            Ok(text) => Ok(Some((beside, text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io::Error::new(error.kind(), format!("{beside}: {error}"))),
        };
    }
    let shipped = SHIPPED.get_file(format!("{stem}{TEST}")).and_then(|file| file.contents_utf8());
    Ok(shipped.map(|text| (format!("shipped:{stem}{TEST}"), text.to_owned())))
}

/// Writes a file that only its owner may read: whole, or not at all.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let name = path.file_name().ok_or_else(|| io::Error::other("it names no file"))?;
    let mut beside = name.to_owned();
    beside.push(format!(".{}.part", std::process::id()));
    let beside = path.with_file_name(beside);
    let written = std::fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&beside)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

struct Folder(PathBuf);

impl Files for Folder {
    fn read(&self, path: &str) -> io::Result<String> {
        std::fs::read_to_string(self.0.join(path))
    }

    fn display(&self, path: &str) -> String {
        self.0.join(path).display().to_string()
    }
}

struct Shipped;

impl Files for Shipped {
    fn read(&self, path: &str) -> io::Result<String> {
        let file = SHIPPED.get_file(path).ok_or(io::ErrorKind::NotFound)?;
        file.contents_utf8().map(str::to_owned).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    fn display(&self, path: &str) -> String {
        format!("shipped:{path}")
    }
}
