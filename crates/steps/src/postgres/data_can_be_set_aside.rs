//! `postgres.data_can_be_set_aside`: asked before anything is stopped.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

use super::copy_elsewhere::{has_room, named};
use super::data_set_aside::{Found, look, suffix, validate_path};
use super::moves::plan;
use super::room::{free, in_words, reserve};
use crate::host::{Host, HostContext};

/// Proves that `postgres.data_set_aside` will not be refused later, when everything is stopped. Changes nothing.
///
/// Refused: what is no data directory, a mount point, a symbolic link, a name that is taken. That PostgreSQL still
/// runs there is no matter. With `room_for`, also: too little room for what is to be cloned in its place.
/// Output: `set_aside` (where it will be, null where nothing is there).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataCanBeSetAside {
    /// The data directory: `/var/lib/postgresql/15/main`.
    pub data_dir: String,
    /// Bytes of the data that is cloned in its place; beside it a tenth, and 512 MiB at least, must be free. By default room is
    /// no matter.
    #[serde(default)]
    pub room_for: Option<u64>,
    /// As with `postgres.data_set_aside`: also what is no data directory. False by default.
    #[serde(default)]
    pub anything: bool,
    /// `HOST:PATH`: directories on other file systems into which `postgres.copy_elsewhere` will move what is set aside; what it gives back
    /// counts as room, and PATH must have room itself. By default none.
    #[serde(default)]
    pub elsewhere: Vec<String>,
    /// It is proven that nobody's row is in it: where there is no room, its removal is offered too. False by default.
    #[serde(default)]
    pub disposable: bool,
    /// Its removal was asked for: what it gives back counts as room. False by default.
    #[serde(default)]
    pub removed: bool,
}

impl DataCanBeSetAside {
    /// What is missing for the clone, in words.
    async fn too_little_room(&self, host: &dyn Host, path: &str) -> Result<Option<String>, StepError> {
        let Some(bytes) = self.room_for else { return Ok(None) };
        let (reserve, parent) = (reserve(bytes), path.rsplit_once('/').map_or("/", |(parent, _)| parent));
        let Some(free) = free(host, path).await? else {
            return Ok(Some(format!(
                "how much is free in {parent} can't be told, and a clone needs {}",
                in_words(bytes)
            )));
        };
        let needed = bytes.saturating_add(reserve);
        let into = named(&self.elsewhere, host.name());
        let goes = into.is_some() || self.removed;
        let own = if goes { super::copy::bytes(host, path, &[]).await? } else { None };
        if let Some(into) = into
            && let Err(why) = has_room(host, path, into, own).await?
        {
            return Ok(Some(why));
        }
        let free_then = free.saturating_add(own.unwrap_or(0));
        let name = host.name();
        Ok((free_then < needed).then(|| {
            format!(
                "the clone needs {} (the data that is kept, its WAL, and {} of reserve), and {} are free in {parent}{}: make room; or remove \
                 copies that aren't needed any more (`flow run set-aside.toml` lists them, `--set remove=HOST:PATH` removes one); or have what is set \
                 aside moved to another file system of this host: `--set set_aside_to={name}:PATH`{}",
                in_words(needed),
                in_words(reserve),
                in_words(free_then),
                match (into, self.removed) {
                    (Some(_), _) => " once the present data is moved",
                    (None, true) => " once the present data is removed",
                    (None, false) => "",
                },
                if self.disposable && !goes {
                    format!("; or, since it is proven to hold no relation of a user, removed for good: `--set remove_disposable={name}`")
                } else {
                    String::new()
                }
            )
        }))
    }
}

impl StepType for DataCanBeSetAside {
    const NAME: &'static str = "postgres.data_can_be_set_aside";
    const READ_ONLY: bool = true;

    fn validate(&self) -> Result<(), String> {
        validate_path(&self.data_dir)
    }
}

#[async_trait]
impl Step for DataCanBeSetAside {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let path = self.data_dir.trim_end_matches('/');
        if let Some(why) = self.too_little_room(&*host, path).await? {
            return Ok(Check::Refused(why));
        }
        let moves = match look(&*host, path, self.anything).await? {
            Found::Nothing => Vec::new(),
            Found::Refused(why) => return Ok(Check::Refused(why)),
            Found::Data => match plan(&*host, path, &suffix(cx)).await? {
                Ok(moves) => moves,
                Err(why) => return Ok(Check::Refused(why)),
            },
        };
        Ok(Check::Satisfied(Output::empty().with("set_aside", moves.last().map(|main| &main.to))))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{DATA, Lab, refused, satisfied};
    use serde_json::json;

    fn step() -> DataCanBeSetAside {
        DataCanBeSetAside {
            data_dir: DATA.into(),
            room_for: None,
            anything: false,
            elsewhere: Vec::new(),
            disposable: false,
            removed: false,
        }
    }

    #[tokio::test]
    async fn a_running_cluster_can_be_and_a_foreign_directory_can_not() {
        let lab = Lab::deployed().await;
        let output = satisfied(step().check(&lab.on("patroni1")).await.unwrap());
        assert!(output.0["set_aside"].as_str().unwrap().starts_with(&format!("{DATA}.set-aside-")));
        let bare = Lab::bare().await;
        satisfied(step().check(&bare.on("patroni1")).await.unwrap());
        bare.make("patroni1", "file", json!({ "path": format!("{DATA}/x"), "content": "", "parents": true }))
            .await;
        assert!(refused(step().check(&bare.on("patroni1")).await.unwrap()).contains("no data directory"));
    }

    #[tokio::test]
    async fn without_room_for_the_clone_it_is_refused_with_both_numbers() {
        let lab = Lab::deployed().await;
        let with = |gigabytes: u64| DataCanBeSetAside { room_for: Some(gigabytes << 30), ..step() };
        satisfied(with(10).check(&lab.on("patroni1")).await.unwrap());
        let why = refused(with(100).check(&lab.on("patroni1")).await.unwrap());
        assert!(
            why.contains("needs 110.0 GiB") && why.contains("100.0 GiB are free in /var/lib/postgresql/15"),
            "{why}"
        );
        assert!(why.contains("--set set_aside_to=patroni1:PATH"), "{why}");
        assert!(!why.contains("remove_disposable"), "{why}");
        let disposable = DataCanBeSetAside { disposable: true, ..with(100) };
        let why = refused(disposable.check(&lab.on("patroni1")).await.unwrap());
        assert!(why.contains("--set remove_disposable=patroni1"), "{why}");
        satisfied(step().check(&lab.on("patroni1")).await.unwrap());
    }
}
