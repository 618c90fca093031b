//! A file's content, owner and mode: what `file` and `template` share.

use flow_core::step::{Change, Check, Context, Outcome, Output, StepError, UndoError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use similar::{ChangeTag, TextDiff};

use super::masked::masked;
use super::validated::{Validation, candidate};
use crate::host::{Content, FileKind, Host, HostChange, HostContext, Ownership, Stat};
use crate::support::sha256;

/// Longer files are not managed, in bytes.
const LIMIT: u64 = 4 << 20;
/// Where files are kept that a run replaced.
const FORMER: &str = "/var/lib/flow/former";

/// Whether what changes in a file is shown line by line: `true`, `false`, or `"masked"`: with the values of what is
/// called a password, a secret or a token masked, also those that flow doesn't know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Diff {
    /// As it is, or not at all.
    Shown(bool),
    /// Without passwords.
    Without(Masked),
}

/// `masked`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Masked {
    /// Passwords are masked.
    Masked,
}

/// A file as it should be.
pub(super) struct Wanted<'a> {
    pub(super) path: &'a str,
    pub(super) content: &'a str,
    pub(super) ownership: Ownership,
    pub(super) parents: bool,
    pub(super) diff: Option<Diff>,
    pub(super) validate: &'a [String],
}

/// What a change of a file records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Recorded {
    /// SHA-256 of what is written.
    wanted: String,
    /// What was there.
    former: Option<Former>,
    /// The directory above, where it was missing and is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<Made>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Former {
    sha256: String,
    owner: String,
    group: String,
    mode: u32,
}

/// Permission bits written as in chmod: `0640`.
///
/// # Errors
/// What is wrong with the text.
pub(crate) fn parse_mode(text: Option<&str>) -> Result<Option<u32>, String> {
    let Some(text) = text else { return Ok(None) };
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .map(Some)
        .ok_or_else(|| format!("`mode` is an octal number as text, such as \"0640\", this is \"{text}\""))
}

/// An absolute path.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn validate_path(path: &str) -> Result<(), String> {
    if path.starts_with('/') { Ok(()) } else { Err(format!("`{path}` is no absolute path")) }
}

/// What of owner, group and mode differs, as in `mode 0644 -> 0600`.
pub(crate) fn ownership_differences(wanted: &Ownership, is: &Stat) -> Vec<String> {
    let mut differences = Vec::new();
    let mut compare = |what: &str, wanted: Option<String>, is: String| {
        if let Some(wanted) = wanted.filter(|wanted| *wanted != is) {
            differences.push(format!("{what} {is} -> {wanted}"));
        }
    };
    compare("owner", wanted.owner.clone(), is.owner.clone());
    compare("group", wanted.group.clone(), is.group.clone());
    compare("mode", wanted.mode.map(|mode| format!("{mode:04o}")), format!("{:04o}", is.mode));
    differences
}

impl Wanted<'_> {
    pub(super) async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let (stat, bytes) = tokio::try_join!(host.stat(self.path), self.read(&*host))?;
        let wanted = sha256(self.content.as_bytes());
        let Some(stat) = stat else {
            let parent = match self.parent() {
                Some(parent) => Made::missing(&*host, parent).await?,
                None => None,
            };
            let mut change = Change::new(format!("create {}", self.path)).with_data(Recorded {
                wanted,
                former: None,
                parent,
            });
            change.diff = self.shown("", true);
            return Ok(Check::Pending(change));
        };
        match stat.kind {
            FileKind::File => {}
            FileKind::Symlink => {
                let target = stat.target.unwrap_or_default();
                return Ok(Check::Refused(format!(
                    "{} is a symbolic link to {target}: name the file itself",
                    self.path
                )));
            }
            _ => return Ok(Check::Refused(format!("{} is there and is no file", self.path))),
        }
        let bytes = bytes.unwrap_or_default();
        let mut differences = ownership_differences(&self.ownership, &stat);
        let former = Former { sha256: sha256(&bytes), owner: stat.owner, group: stat.group, mode: stat.mode };
        let same = former.sha256 == wanted;
        if same && differences.is_empty() {
            return Ok(Check::Satisfied(self.output(&wanted)));
        }
        let mut diff = None;
        if !same {
            let before = String::from_utf8_lossy(&bytes);
            differences.insert(0, counts(&before, self.content));
            diff = self.shown(&before, readable(stat.mode));
        }
        let mut change = Change::new(format!("change {}: {}", self.path, differences.join(", ")))
            .with_data(Recorded { wanted, former: Some(former), parent: None });
        change.diff = diff;
        Ok(Check::Pending(change))
    }

    pub(super) async fn apply(&self, cx: &Context, change: &Change) -> Result<Output, StepError> {
        let host = cx.host().await?;
        let recorded: Recorded = change.data()?;
        if recorded.former.is_none()
            && let Some(parent) = self.parent()
            && host.stat(parent).await?.is_none()
        {
            let make = HostChange::MakeDirectory { path: parent.to_owned(), ownership: Ownership::default() };
            host.change(cx.attempt(), &make).await?;
        }
        let replaced = recorded.former.as_ref().filter(|former| former.sha256 != recorded.wanted);
        if !self.validate.is_empty() && (recorded.former.is_none() || replaced.is_some()) {
            self.replace_validated(cx, &*host, &recorded).await?;
            return Ok(self.output(&recorded.wanted));
        }
        if let Some(former) = replaced {
            self.keep_former(cx, &*host, former).await?;
        }
        host.change(cx.attempt(), &self.write(self.path.to_owned(), self.ownership.clone())).await?;
        Ok(self.output(&recorded.wanted))
    }

    fn write(&self, path: String, ownership: Ownership) -> HostChange {
        HostChange::WriteFile { path, content: Content(self.content.as_bytes().to_vec()), ownership }
    }

    /// Replaces the file if the command of `validate` has nothing against it; otherwise leaves nothing behind.
    async fn replace_validated(
        &self,
        cx: &Context,
        host: &dyn Host,
        recorded: &Recorded,
    ) -> Result<(), StepError> {
        let candidate = candidate(self.path);
        let Err(error) = self.try_candidate(cx, host, recorded, &candidate).await else { return Ok(()) };
        if error.outcome == Outcome::Lost {
            // It may still be at work; the next attempt writes the same place anew.
            return Err(error);
        }
        let clean = async {
            host.change(cx.attempt(), &HostChange::RemoveFile { path: candidate.clone() }).await?;
            match &recorded.parent {
                Some(made) => made.remove(cx, host).await,
                None => Ok(()),
            }
        };
        Err(match clean.await {
            Ok(()) => error,
            Err(left) => {
                let lines = error.detail.iter().cloned().chain([format!("{candidate} may be left: {left}")]);
                StepError { detail: Some(lines.collect::<Vec<_>>().join("\n")), ..error }
            }
        })
    }

    async fn try_candidate(
        &self,
        cx: &Context,
        host: &dyn Host,
        recorded: &Recorded,
        candidate: &str,
    ) -> Result<(), StepError> {
        let former = recorded.former.as_ref();
        let (wanted, root) = (&self.ownership, || "root".to_owned());
        let or = |wanted: &Option<String>, former: Option<&String>| {
            Some(wanted.as_ref().or(former).cloned().unwrap_or_else(root))
        };
        // All of it is said, since something else may be left there.
        let ownership = Ownership {
            owner: or(&wanted.owner, former.map(|former| &former.owner)),
            group: or(&wanted.group, former.map(|former| &former.group)),
            mode: Some(wanted.mode.or(former.map(|former| former.mode)).unwrap_or(0o644)),
        };
        host.change(cx.attempt(), &self.write(candidate.to_owned(), ownership)).await?;
        let whole = former.is_none_or(|former| readable(former.mode));
        let silent = self.diff.unwrap_or(Diff::Shown(whole)) != Diff::Shown(true);
        Validation { path: self.path, words: self.validate, silent }.run(cx, host, candidate).await?;
        if let Some(former) = former {
            self.keep_former(cx, host, former).await?;
        }
        let replace = HostChange::Replace { path: self.path.to_owned(), from: candidate.to_owned() };
        Ok(host.change(cx.attempt(), &replace).await?)
    }

    /// Copies what is there to where [`undo`] finds it, unless it is there already.
    async fn keep_former(&self, cx: &Context, host: &dyn Host, former: &Former) -> Result<(), StepError> {
        let Some(bytes) = self.read(host).await? else { return Ok(()) };
        let found = sha256(&bytes);
        if found != former.sha256 {
            return Err(StepError::failed(format!("{} was changed by someone else meanwhile", self.path)));
        }
        let (directory, path) = former_place(cx, self.path, &former.sha256);
        let kept = match host.stat(&path).await? {
            Some(_) => host.read(&path, LIMIT).await?,
            None => None,
        };
        if kept.is_some_and(|kept| kept == bytes) {
            return Ok(());
        }
        let private =
            |mode| Ownership { owner: Some("root".into()), group: Some("root".into()), mode: Some(mode) };
        if host.stat(&directory).await?.is_none() {
            let make = HostChange::MakeDirectory { path: directory, ownership: private(0o700) };
            host.change(cx.attempt(), &make).await?;
        }
        let write = HostChange::WriteFile { path, content: Content(bytes), ownership: private(0o600) };
        Ok(host.change(cx.attempt(), &write).await?)
    }

    /// The directory that is made where it is missing.
    fn parent(&self) -> Option<&str> {
        let (parent, _) = self.path.rsplit_once('/')?;
        (self.parents && !parent.is_empty()).then_some(parent)
    }

    async fn read(&self, host: &dyn Host) -> Result<Option<Vec<u8>>, crate::host::HostError> {
        match host.stat(self.path).await? {
            Some(stat) if stat.kind == FileKind::File => host.read(self.path, LIMIT).await,
            _ => Ok(None),
        }
    }

    /// What changes, as it is shown. Where the step doesn't say, `whole` decides.
    fn shown(&self, before: &str, whole: bool) -> Option<String> {
        match self.diff.unwrap_or(Diff::Shown(whole)) {
            Diff::Shown(false) => None,
            Diff::Shown(true) => Some(unified(self.path, before, self.content)),
            Diff::Without(Masked::Masked) => Some(unified_masked(self.path, before, self.content)),
        }
    }

    fn output(&self, sha256: &str) -> Output {
        Output::empty().with("path", self.path).with("sha256", sha256)
    }
}

/// Puts the former file back, or takes the new one away. Where it was validated, new content of a cut-off
/// attempt may wait beside it.
pub(super) async fn undo(
    cx: &Context,
    path: &str,
    change: &Change,
    validated: bool,
) -> Result<(), UndoError> {
    let recorded: Recorded = change.data()?;
    let host = cx.host().await?;
    let beside = candidate(path);
    if validated && host.stat(&beside).await.map_err(StepError::from)?.is_some() {
        let remove = HostChange::RemoveFile { path: beside };
        host.change(cx.attempt(), &remove).await.map_err(StepError::from)?;
    }
    let now = host.read(path, LIMIT).await.map_err(StepError::from)?.map(|bytes| sha256(&bytes));
    let changed = |was: &str| now.as_deref() != Some(was);
    let Some(former) = recorded.former else {
        if now.is_some() {
            if changed(&recorded.wanted) {
                return Err(moved_on(path).into());
            }
            let remove = HostChange::RemoveFile { path: path.to_owned() };
            host.change(cx.attempt(), &remove).await.map_err(StepError::from)?;
        }
        if let Some(made) = recorded.parent {
            made.remove(cx, &*host).await?;
        }
        return Ok(());
    };
    let mode = Some(former.mode);
    let ownership = Ownership { owner: Some(former.owner), group: Some(former.group), mode };
    let (directory, kept) = former_place(cx, path, &former.sha256);
    let back = if !changed(&former.sha256) {
        HostChange::SetOwnership { path: path.to_owned(), ownership }
    } else if changed(&recorded.wanted) {
        return Err(moved_on(path).into());
    } else {
        let bytes = host.read(&kept, LIMIT).await.map_err(StepError::from)?;
        let Some(bytes) = bytes.filter(|bytes| sha256(bytes) == former.sha256) else {
            return Err(StepError::permanent(format!("the former content of {path} is not at {kept}")).into());
        };
        HostChange::WriteFile { path: path.to_owned(), content: Content(bytes), ownership }
    };
    host.change(cx.attempt(), &back).await.map_err(StepError::from)?;
    Ok(forget_former(cx, &*host, &directory, kept).await?)
}

/// The copy isn't needed any more once its content is back in its place. Folders of copies go with the
/// last of them.
async fn forget_former(
    cx: &Context,
    host: &dyn Host,
    directory: &str,
    kept: String,
) -> Result<(), StepError> {
    if host.stat(&kept).await?.is_none() {
        return Ok(());
    }
    host.change(cx.attempt(), &HostChange::RemoveFile { path: kept }).await?;
    for folder in [directory, FORMER] {
        if host.list(folder).await?.is_none_or(|names| !names.is_empty()) {
            break;
        }
        let remove = HostChange::RemoveDirectory { path: folder.to_owned() };
        host.change(cx.attempt(), &remove).await?;
    }
    Ok(())
}

fn moved_on(path: &str) -> StepError {
    StepError::permanent(format!("{path} was changed since: it is left as it is"))
        .with_hint("see what was changed; `--keep TASK` leaves it so and takes back the rest")
}

/// Directories that were missing and are made: the lowest, and the highest of those above it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made {
    lowest: String,
    highest: String,
}

impl Made {
    /// What has to be made for a directory to be there; nothing where it is.
    pub(super) async fn missing(host: &dyn Host, path: &str) -> Result<Option<Self>, StepError> {
        let above: Vec<&str> = ancestors(path.trim_end_matches('/'));
        let found = futures_util::future::try_join_all(above.iter().map(|path| host.stat(path))).await?;
        let missing = above.iter().zip(found).take_while(|(_, found)| found.is_none());
        let highest = missing.last().map(|(path, _)| (*path).to_owned());
        Ok(highest.map(|highest| Self { lowest: above[0].to_owned(), highest }))
    }

    /// Removes them again, from the lowest up, as far as nothing else was put there.
    pub(super) async fn remove(&self, cx: &Context, host: &dyn Host) -> Result<(), StepError> {
        for path in ancestors(&self.lowest) {
            match host.list(path).await? {
                Some(names) if !names.is_empty() => break,
                Some(_) => {
                    let remove = HostChange::RemoveDirectory { path: path.to_owned() };
                    host.change(cx.attempt(), &remove).await?;
                }
                None => {}
            }
            if path == self.highest {
                break;
            }
        }
        Ok(())
    }
}

/// A path and what is above it, without the root.
fn ancestors(path: &str) -> Vec<&str> {
    std::iter::successors(Some(path), |path| path.rsplit_once('/').map(|(above, _)| above))
        .take_while(|path| !path.is_empty())
        .collect()
}

/// Directory and path of a task's copy of a former file; another content has another place. Each task has
/// its own, since it is removed once the task was taken back.
fn former_place(cx: &Context, path: &str, content: &str) -> (String, String) {
    let directory = format!("{FORMER}/{}", cx.run());
    let name = path.rsplit('/').next().unwrap_or_default();
    let content = content.get(..8).unwrap_or(content);
    let whose = sha256(format!("{} {path}", cx.attempt().task).as_bytes());
    let kept = format!("{directory}/{name}.{}-{content}", &whose[..8]);
    (directory, kept)
}

/// A former file that others may not read may hold secrets that nobody here knows of.
fn readable(former_mode: u32) -> bool {
    former_mode & 0o004 != 0
}

/// As [`unified`], with each line as [`masked`] shows it: that a password changes is seen, not to what.
fn unified_masked(path: &str, before: &str, after: &str) -> String {
    let diff = TextDiff::from_lines(before, after);
    let (before, after) = (masked(before), masked(after));
    let mut text = format!("--- {path}\n+++ {path}\n");
    for hunk in diff.unified_diff().context_radius(3).iter_hunks() {
        text.push_str(&format!("{}\n", hunk.header()));
        for change in hunk.iter_changes() {
            let line = match (change.old_index(), change.new_index()) {
                (Some(old), _) => before.get(old),
                (None, new) => new.and_then(|new| after.get(new)),
            };
            text.push_str(&format!("{}{}\n", change.tag(), line.map_or("", String::as_str)));
        }
    }
    text
}

fn unified(path: &str, before: &str, after: &str) -> String {
    let diff = TextDiff::from_lines(before, after);
    diff.unified_diff().context_radius(3).header(path, path).to_string()
}

/// `+3 -1 lines`
fn counts(before: &str, after: &str) -> String {
    let diff = TextDiff::from_lines(before, after);
    let count = |tag| diff.iter_all_changes().filter(|change| change.tag() == tag).count();
    format!("+{} -{} lines", count(ChangeTag::Insert), count(ChangeTag::Delete))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::{File, Template};
    use crate::testing::{Lab, pending, refused, satisfied};
    use flow_core::step::Step;
    use serde_json::json;

    fn file(with: serde_json::Value) -> File {
        serde_json::from_value(with).unwrap()
    }

    #[tokio::test]
    async fn a_file_is_made_changed_and_put_back() {
        let lab = Lab::bare().await;
        let cx = lab.on("patroni1");
        let first = file(json!({ "path": "/etc/new/a.conf", "content": "one\n", "parents": true }));
        let (made, _) = lab.establish(&first, &cx).await;
        assert_eq!(made.summary, "create /etc/new/a.conf");
        assert!(made.diff.unwrap().contains("+one"));

        let second = file(json!({ "path": "/etc/new/a.conf", "content": "two\n", "mode": "0600" }));
        let (changed, output) = lab.establish(&second, &cx).await;
        assert_eq!(changed.summary, "change /etc/new/a.conf: +1 -1 lines, mode 0644 -> 0600");
        assert!(changed.diff.as_deref().unwrap().contains("-one\n+two"));

        second.undo(&cx, &changed, Some(&output)).await.unwrap();
        assert_eq!(lab.text("patroni1", "/etc/new/a.conf").as_deref(), Some("one\n"));
        assert_eq!(
            cx.host().await.unwrap().stat(FORMER).await.unwrap(),
            None,
            "the copy isn't needed any more"
        );
        satisfied(first.check(&cx).await.unwrap());
        let made = Change { diff: None, ..made };
        first.undo(&cx, &made, None).await.unwrap();
        assert_eq!(lab.text("patroni1", "/etc/new/a.conf"), None);
        assert_eq!(
            cx.host().await.unwrap().stat("/etc/new").await.unwrap(),
            None,
            "what was made for it too"
        );
        assert!(cx.host().await.unwrap().stat("/etc").await.unwrap().is_some());
        // Once more, as after a crash, changes nothing.
        let effects = lab.effects().len();
        first.undo(&cx, &made, None).await.unwrap();
        assert_eq!(lab.effects().len(), effects);
    }

    #[tokio::test]
    async fn what_others_may_not_read_is_not_shown() {
        let lab = Lab::bare().await;
        let cx = lab.on("patroni1");
        lab.establish(&file(json!({ "path": "/root/x", "content": "secret\n", "mode": "0600" })), &cx).await;
        let with = |diff: Option<serde_json::Value>| {
            file(json!({ "path": "/root/x", "content": "y\n", "diff": diff }))
        };
        let change = pending(with(None).check(&cx).await.unwrap());
        assert_eq!((change.summary.as_str(), change.diff), ("change /root/x: +1 -1 lines", None));
        assert!(pending(with(Some(json!(true))).check(&cx).await.unwrap()).diff.is_some());
        let recorded = serde_json::to_string(&change.data).unwrap();
        assert!(!recorded.contains("secret"), "{recorded}");
    }

    #[tokio::test]
    async fn passwords_that_nobody_here_knows_are_masked_where_that_is_asked_for() {
        let lab = Lab::bare().await;
        let cx = lab.on("patroni1");
        let with = |content: &str| {
            file(json!({ "path": "/root/x", "content": content, "mode": "0600", "diff": "masked" }))
        };
        let text =
            |password: &str, wait: &str| format!("a: 1\nb:\n  password: \"{password}\"\nwait: {wait}\n");
        lab.establish(&with(&text("s3cret", "700ms")), &cx).await;
        let shown = async |content: &str| pending(with(content).check(&cx).await.unwrap()).diff.unwrap();
        let diff = shown(&text("s3cret", "500ms")).await;
        let lines: Vec<&str> = diff.lines().skip(3).collect();
        assert_eq!(lines, [" a: 1", " b:", "   password: ••••••", "-wait: 700ms", "+wait: 500ms"]);
        let diff = shown(&text("an0ther", "700ms")).await;
        assert!(diff.contains("-  password: ••••••\n+  password: ••••••\n"), "{diff}");
        assert!(!diff.contains("s3cret") && !diff.contains("an0ther"), "{diff}");
    }

    #[tokio::test]
    async fn undo_leaves_alone_what_was_changed_since() {
        let lab = Lab::bare().await;
        let cx = lab.on("patroni1");
        let step = file(json!({ "path": "/root/x", "content": "ours\n" }));
        let (change, _) = lab.establish(&step, &cx).await;
        lab.establish(&file(json!({ "path": "/root/x", "content": "theirs\n" })), &cx).await;
        let error = step.undo(&cx, &change, None).await.unwrap_err();
        assert_eq!(error.to_string(), "/root/x was changed since: it is left as it is");
    }

    #[tokio::test]
    async fn a_directory_at_the_place_of_a_file_is_refused() {
        let lab = Lab::bare().await;
        let step = file(json!({ "path": "/etc", "content": "" }));
        assert_eq!(refused(step.check(&lab.on("patroni1")).await.unwrap()), "/etc is there and is no file");
    }

    #[tokio::test]
    async fn a_template_is_rendered_and_a_second_run_changes_nothing() {
        let lab = Lab::bare().await.with_file("t.conf", "answer = {{ answer }}\n");
        let cx = lab.on("patroni1");
        let step: Template =
            serde_json::from_value(json!({ "src": "t.conf", "path": "/etc/t.conf" })).unwrap();
        lab.establish(&step, &cx).await;
        assert_eq!(lab.text("patroni1", "/etc/t.conf").as_deref(), Some("answer = 42\n"));
        let effects = lab.effects().len();
        satisfied(step.check(&cx).await.unwrap());
        assert_eq!(lab.effects().len(), effects);
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(parse_mode(Some("0640")), Ok(Some(0o640)));
        for wrong in ["0680", "rw", "17777", ""] {
            assert!(parse_mode(Some(wrong)).is_err(), "{wrong}");
        }
    }
}
