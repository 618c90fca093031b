//! `postgres.data_can_be_set_aside`: asked before anything is stopped.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

use super::data_set_aside::{Found, look, suffix, validate_path};
use super::moves::plan;
use crate::host::HostContext;

/// Proves that `postgres.data_set_aside` will not be refused later, when everything is stopped. Changes nothing.
///
/// Refused: what is no data directory, a mount point, a symbolic link, a name that is taken. That PostgreSQL still
/// runs there is no matter. Output: `set_aside` (where it will be, null where nothing is there).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataCanBeSetAside {
    /// The data directory: `/var/lib/postgresql/15/main`.
    pub data_dir: String,
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
        let moves = match look(&*host, path).await? {
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
        DataCanBeSetAside { data_dir: DATA.into() }
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
}
