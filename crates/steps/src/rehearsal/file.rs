//! `NAME.test.toml`, beside the workflow `NAME.toml`: where its rehearsal begins, what its commands
//! answer, and what its author accepts.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::RehearsalError;
use super::stage::Accident;
use crate::host::sim::{CannedReply, CannedSql, Release, ScriptMatch};

/// A test file. Every key may be left out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TestFile {
    /// `release`: what the hosts run, `bookworm` or `trixie`.
    pub release: Option<Release>,
    /// `after`: the workflows that were run before, in order; shipped ones by name.
    pub after: Vec<Before>,
    /// `[params]`: as `--set` gives them.
    pub params: BTreeMap<String, ParamValue>,
    /// `[groups]`: the hosts of a group, where no inventory is given.
    pub groups: BTreeMap<String, Vec<String>>,
    /// `[vars.GROUP]`: the variables of a group, where no inventory is given.
    pub vars: BTreeMap<String, Map<String, Value>>,
    /// `[[accidents]]`: what happened to hosts before.
    accidents: Vec<AccidentEntry>,
    /// `[[commands]]`: what commands answer and do.
    commands: Vec<CommandEntry>,
    /// `[[queries]]`: what PostgreSQL answers.
    queries: Vec<QueryEntry>,
    /// `[accept]`: what isn't held against the workflow.
    pub accept: Accept,
}

/// A workflow that was run before.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "a workflow's file, or { workflow = FILE, params = { ... } }")]
pub enum Before {
    /// With the params of its own test file.
    File(String),
    /// With these, before those of its own test file.
    With(BeforeWith),
}

/// A workflow that was run before, and its params.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BeforeWith {
    /// Its file.
    pub workflow: String,
    /// Its params, as `--set`.
    pub params: BTreeMap<String, ParamValue>,
}

impl Before {
    /// Its file, and the params that are given.
    pub fn parts(&self) -> (&str, BTreeMap<String, ParamValue>) {
        match self {
            Self::File(file) => (file, BTreeMap::new()),
            Self::With(with) => (&with.workflow, with.params.clone()),
        }
    }
}

/// What an author accepts, by the names of steps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Accept {
    /// These change something when they are done a second time.
    pub not_idempotent: Vec<String>,
    /// These may leave an outcome that only a person can settle.
    pub unknown: Vec<String>,
    /// These leave something when they are taken back.
    pub undo: Vec<String>,
}

/// A param's value; what isn't text is written as on the command line.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum ParamValue {
    /// Text.
    Text(String),
    /// A number.
    Integer(i64),
    /// A number with a fraction.
    Number(f64),
    /// Yes or no.
    Boolean(bool),
    /// A list of texts.
    List(Vec<String>),
}

impl ParamValue {
    /// As `--set` takes it.
    pub fn as_set(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Integer(number) => number.to_string(),
            Self::Number(number) => number.to_string(),
            Self::Boolean(yes) => yes.to_string(),
            Self::List(items) => items.join(","),
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(
    untagged,
    expecting = "an accident is `initdb` with or without `data_dir`, `stop` with `unit`, `replace`, or `edit_config`"
)]
enum AccidentEntry {
    Initdb(Initdb),
    Stop(Stop),
    Replace(Replace),
    EditConfig(EditConfig),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Initdb {
    initdb: String,
    data_dir: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stop {
    stop: String,
    unit: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Replace {
    replace: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct EditConfig {
    edit_config: Value,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandEntry {
    run: Option<String>,
    contains: Option<String>,
    begins: Option<String>,
    host: Option<String>,
    where_exists: Option<String>,
    where_absent: Option<String>,
    #[serde(default)]
    exit: i32,
    #[serde(default)]
    stdout: String,
    #[serde(default)]
    stderr: String,
    #[serde(default)]
    creates: Paths,
    #[serde(default)]
    removes: Paths,
    #[serde(default = "yes")]
    changes: bool,
}

fn yes() -> bool {
    true
}

/// One path or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Paths {
    One(String),
    Several(Vec<String>),
}

impl Default for Paths {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl From<Paths> for Vec<String> {
    fn from(paths: Paths) -> Self {
        match paths {
            Paths::One(path) => vec![path],
            Paths::Several(paths) => paths,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct QueryEntry {
    query: Option<String>,
    contains: Option<String>,
    host: Option<String>,
    #[serde(default)]
    rows: Vec<Map<String, Value>>,
    error: Option<String>,
}

impl TestFile {
    /// Reads a test file. `name` is how it is called in messages.
    ///
    /// # Errors
    /// Not TOML, an unknown key, an entry that says nothing or too much.
    pub fn parse(name: &str, text: &str) -> Result<Self, RehearsalError> {
        let file: Self = toml::from_str(text).map_err(|error| {
            let line =
                error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            RehearsalError::File {
                message: format!("{name}, line {line}: {}", error.message().replace('\n', " ")),
                hint: Some("docs/testing-workflows.md has every key".to_owned()),
            }
        })?;
        file.commands().and(file.queries()).map_err(|error| match error {
            RehearsalError::File { message, hint } => {
                RehearsalError::File { message: format!("{name}: {message}"), hint }
            }
            other => other,
        })?;
        Ok(file)
    }

    /// What happened to hosts before. `release` decides where Debian keeps its data.
    pub fn accidents(&self, release: Release) -> Vec<Accident> {
        let version = if release == Release::Trixie { 17 } else { 15 };
        let default = format!("/var/lib/postgresql/{version}/main");
        let accident = |entry: &AccidentEntry| match entry {
            AccidentEntry::Initdb(entry) => Accident::Initdb {
                hosts: entry.initdb.clone(),
                data_dir: entry.data_dir.clone().unwrap_or_else(|| default.clone()),
            },
            AccidentEntry::Stop(entry) => {
                Accident::Stopped { hosts: entry.stop.clone(), unit: entry.unit.clone() }
            }
            AccidentEntry::Replace(entry) => Accident::Replaced { hosts: entry.replace.clone() },
            AccidentEntry::EditConfig(entry) => Accident::EditedConfig { patch: entry.edit_config.clone() },
        };
        self.accidents.iter().map(accident).collect()
    }

    /// What commands answer.
    ///
    /// # Errors
    /// An entry without, or with more than one, of `run`, `begins` and `contains`.
    pub fn commands(&self) -> Result<Vec<CannedReply>, RehearsalError> {
        self.commands.iter().cloned().map(CommandEntry::into_reply).collect()
    }

    /// What PostgreSQL answers.
    ///
    /// # Errors
    /// An entry without, or with both, of `query` and `contains`.
    pub fn queries(&self) -> Result<Vec<CannedSql>, RehearsalError> {
        self.queries.iter().cloned().map(QueryEntry::into_rows).collect()
    }
}

impl CommandEntry {
    fn into_reply(self) -> Result<CannedReply, RehearsalError> {
        let script = match (self.run, self.begins, self.contains) {
            (Some(text), None, None) => ScriptMatch::Trimmed(text.trim().to_owned()),
            (None, Some(text), None) => ScriptMatch::Prefix(text),
            (None, None, Some(text)) => ScriptMatch::Containing(text),
            _ => return Err(wrong("each of [[commands]] has one of `run`, `begins` and `contains`")),
        };
        Ok(CannedReply {
            host: self.host,
            code: self.exit,
            stderr: self.stderr,
            where_exists: self.where_exists,
            where_absent: self.where_absent,
            creates: self.creates.into(),
            removes: self.removes.into(),
            only_looks: !self.changes,
            ..CannedReply::new(script, self.stdout)
        })
    }
}

impl QueryEntry {
    fn into_rows(self) -> Result<CannedSql, RehearsalError> {
        let query = match (self.query, self.contains) {
            (Some(text), None) => ScriptMatch::Trimmed(text.trim().to_owned()),
            (None, Some(text)) => ScriptMatch::Containing(text),
            _ => return Err(wrong("each of [[queries]] has one of `query` and `contains`")),
        };
        Ok(CannedSql { host: self.host, query, result: self.error.map_or(Ok(self.rows), Err) })
    }
}

fn wrong(message: &str) -> RehearsalError {
    RehearsalError::File {
        message: message.to_owned(),
        hint: Some("`run` is the whole script, `begins` its beginning, `contains` a part of it".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_file_says_where_it_begins_what_commands_answer_and_what_is_accepted() {
        let file = TestFile::parse(
            "x.test.toml",
            "release = \"trixie\"\nafter = [\"deploy.toml\", { workflow = \"x.toml\", params = { n = 1 } }]\n[params]\nmode = \"reset\"\ncount = 3\n\
             [[accidents]]\ninitdb = \"promoters[-1]\"\n\
             [[commands]]\nrun = \"dump\"\ncreates = \"/var/backups/all\"\n\
             [[commands]]\ncontains = \"look\"\nexit = 1\nwhere_absent = \"/var/backups/all\"\nchanges = false\n\
             [accept]\nunknown = [\"x\"]\n",
        )
        .unwrap();
        assert_eq!(file.params["count"].as_set(), "3");
        let before: Vec<_> = file.after.iter().map(|one| (one.parts().0, one.parts().1.len())).collect();
        assert_eq!(before, [("deploy.toml", 0), ("x.toml", 1)]);
        let commands = file.commands().unwrap();
        assert_eq!(commands[0].creates, ["/var/backups/all"]);
        assert!(commands[1].only_looks && commands[1].code == 1);
        let Accident::Initdb { data_dir, .. } = &file.accidents(Release::Trixie)[0] else { unreachable!() };
        assert_eq!(data_dir, "/var/lib/postgresql/17/main");
        assert_eq!(file.accept.unknown, ["x"]);
    }

    #[test]
    fn what_is_wrong_in_a_test_file_is_told_with_its_line() {
        let error = TestFile::parse("x.test.toml", "release = \"bookworm\"\ncolour = 1\n").unwrap_err();
        assert!(error.to_string().starts_with("x.test.toml, line 2: unknown field `colour`"), "{error}");
        let error = TestFile::parse("x.test.toml", "[[commands]]\nexit = 1\n").unwrap_err();
        assert!(error.to_string().contains("one of `run`, `begins` and `contains`"), "{error}");
    }
}
