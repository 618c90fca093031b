//! `postgres.copies`: the data directories that were set aside on a host, and what is in each.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::control::control;
use super::copy::{CopyName, belongings, bytes, plain_directory};
use super::copy_removed::removable;
use super::data_set_aside::validate_path;
use super::room::in_words;
use super::user_data::user_data;
use crate::host::{Host, HostContext};

/// Lists the copies of a data directory that were set aside beside it. Changes nothing.
///
/// Output: `copies`, a list, the oldest first: `path`, `since` (when that run began), `run`, `bytes` (with its WAL and tablespaces, null where
/// that can't be counted), `system_identifier`, `timeline`, `checkpoint` (where and when the last one was made), `user_data` (whether anything
/// of a user may be in it, null where that can't be told), `also` (its WAL and tablespaces elsewhere), `report` (keys and evidence of that
/// run, or null), `removing` (its removal was cut short), and `text`, all that in words.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresCopies {
    /// The data directory: `/var/lib/postgresql/15/main`.
    pub data_dir: String,
    /// Where `pg_controldata` is: `/usr/lib/postgresql/15/bin`.
    pub bin_dir: String,
    /// `HOST:PATH` of copies that are to be removed later: refused now where `postgres.copy_removed` would refuse one of this host's.
    /// By default none.
    #[serde(default)]
    pub to_remove: Vec<String>,
}

/// The longest note that is read, in bytes.
const NOTE_LIMIT: u64 = 1 << 20;

/// A copy, as it is given out.
#[derive(Debug, Clone, Serialize)]
struct Found {
    path: String,
    since: String,
    run: String,
    bytes: Option<u64>,
    system_identifier: Option<String>,
    timeline: Option<u32>,
    checkpoint: Option<String>,
    user_data: Option<bool>,
    also: Vec<String>,
    report: Option<String>,
    removing: bool,
    text: String,
}

impl StepType for PostgresCopies {
    const NAME: &'static str = "postgres.copies";
    const READ_ONLY: bool = true;

    fn validate(&self) -> Result<(), String> {
        validate_path(&self.data_dir)
    }
}

impl PostgresCopies {
    async fn found(&self, host: &dyn Host) -> Result<Vec<Found>, StepError> {
        let data_dir = self.data_dir.trim_end_matches('/');
        let parent = data_dir.rsplit_once('/').map_or("/", |(parent, _)| parent);
        let names = host.list(parent).await?.unwrap_or_default();
        let mut found = Vec::new();
        for path in names.iter().map(|name| format!("{parent}/{name}")) {
            if let Ok(name) = CopyName::of(&path, data_dir) {
                found.push(self.one(host, name, false).await?);
            } else if let Some(name) = CopyName::of_removing(&path, data_dir) {
                found.push(self.one(host, name, true).await?);
            } else if let Some(name) =
                path.strip_suffix(".flow.json").and_then(|of| CopyName::of(of, data_dir).ok())
            {
                found.extend(self.elsewhere(host, name, &path).await?);
            }
        }
        found.sort_by(|one, other| (&one.since, &one.path).cmp(&(&other.since, &other.path)));
        Ok(found)
    }

    /// What the note beside its first place says of a copy that was moved to another file system.
    async fn elsewhere(
        &self,
        host: &dyn Host,
        name: CopyName,
        note: &str,
    ) -> Result<Option<Found>, StepError> {
        let read = host.read(note, NOTE_LIMIT).await?;
        let read: Option<Value> = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let Some(now) = read.as_ref().and_then(|note| note["now"].as_str()).filter(|now| *now != name.path)
        else {
            return Ok(None);
        };
        let mut found = self.one(host, CopyName { path: now.to_owned(), ..name }, false).await?;
        found.text += ", on another file system: neither removed nor brought back by flow";
        Ok(Some(found))
    }

    async fn one(&self, host: &dyn Host, name: CopyName, removing: bool) -> Result<Found, StepError> {
        let at = if removing { name.removing() } else { name.path.clone() };
        // Whatever a link or a mount point leads to isn't what was set aside.
        if let Err(why) = plain_directory(host, &at).await? {
            return Ok(Found {
                text: format!("{why}: no copy that was set aside"),
                ..Found::named(name, removing)
            });
        }
        let report = format!("{}.flow-{}.json", self.data_dir.trim_end_matches('/'), name.run);
        let links = super::moves::links(host, &at).await?;
        let (control, user_data, bytes, reported) = tokio::try_join!(
            control(host, &self.bin_dir, &at),
            user_data(host, &at),
            bytes(host, &at, &links),
            async { Ok(host.stat(&report).await?) },
        )?;
        let strange = belongings(host, &at, &name).await?.err();
        let also = links.into_iter().map(|(_, target)| target).collect();
        let mut found = Found {
            bytes,
            system_identifier: control.as_ref().map(|control| control.system_identifier.clone()),
            timeline: control.as_ref().map(|control| control.timeline),
            checkpoint: control.map(|control| match control.checkpoint_time.as_str() {
                "" => control.redo,
                time => format!("{} ({time})", control.redo),
            }),
            user_data,
            also,
            report: reported.map(|_| report),
            ..Found::named(name, removing)
        };
        found.text = found.words(strange);
        Ok(found)
    }
}

impl Found {
    /// Of which nothing is known but its name.
    fn named(name: CopyName, removing: bool) -> Self {
        Self {
            path: name.path,
            since: name.since,
            run: name.run,
            bytes: None,
            system_identifier: None,
            timeline: None,
            checkpoint: None,
            user_data: None,
            also: Vec::new(),
            report: None,
            removing,
            text: String::new(),
        }
    }

    fn words(&self, strange: Option<String>) -> String {
        let mut words = vec![match self.bytes {
            Some(bytes) => in_words(bytes),
            None => "size not known".to_owned(),
        }];
        words.push(format!("set aside by run {}, begun {}", self.run, self.since));
        match (&self.system_identifier, self.timeline) {
            (Some(identifier), Some(timeline)) => {
                words.push(format!("cluster {identifier}{}", made(identifier)));
                words.push(format!("timeline {timeline}"));
            }
            _ => words.push("no cluster that pg_controldata can read".to_owned()),
        }
        words.extend(self.checkpoint.as_ref().map(|at| format!("last checkpoint {at}")));
        words.push(match self.user_data {
            Some(true) => "user data".to_owned(),
            Some(false) => "no user data".to_owned(),
            None => "user data not known".to_owned(),
        });
        if !self.also.is_empty() {
            words.push(format!("with {}", self.also.join(", ")));
        }
        words.extend(self.report.as_ref().map(|path| format!("keys and evidence in {path}")));
        if self.removing {
            words.push("ITS REMOVAL WAS CUT SHORT: it isn't whole".to_owned());
        }
        words.extend(strange);
        format!("{}: {}", self.path, words.join(", "))
    }
}

/// ` (made 2026-01-02 03:04:05 UTC)`: an identifier's upper 32 bits are initdb's time (`xlog.c`, `BootStrapXLOG`).
fn made(identifier: &str) -> String {
    let at = identifier.parse::<u64>().ok().map(|identifier| (identifier >> 32).cast_signed());
    let at = at.and_then(|at| jiff::Timestamp::from_second(at).ok());
    at.map(|at| at.strftime(" (made %Y-%m-%d %H:%M:%S UTC)").to_string()).unwrap_or_default()
}

#[async_trait]
impl Step for PostgresCopies {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let own = format!("{}:", host.name());
        for path in self.to_remove.iter().filter_map(|named| named.strip_prefix(&own)) {
            if let Err(why) = removable(&*host, path, &self.data_dir).await? {
                return Ok(Check::Refused(why));
            }
        }
        Ok(Check::Satisfied(Output::empty().with("copies", self.found(&*host).await?)))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}
