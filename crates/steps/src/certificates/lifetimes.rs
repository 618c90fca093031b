//! `certificate.lifetimes`: when the certificates of a host end.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use futures_util::future::try_join_all;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::compare::LIMIT;
use super::leaf::DAYS_AT_MOST;
use super::read::Certificate;
use super::rehearsed;
use crate::host::{Host, HostContext, HostError};
use crate::support::Patience;
use crate::system::content::validate_path;

/// When certificates on a host end. Changes nothing, and refuses nothing: that is `certificate.valid`.
///
/// Files that aren't there are passed over. Of a file with several certificates the one that ends first counts. Output: `at` (when it was
/// looked), `days` as given, `found`: of each file `path`, `authority` (it is a CA's), `ends` with `Ok` (the time) or `Err` (why it can't be read).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lifetimes {
    /// Absolute paths of certificates on the host.
    pub files: Vec<String>,
    /// How many days each should last from now on; given on with what was seen. 14 by default.
    #[serde(default = "two_weeks")]
    pub days: u32,
    /// For a look that is to end within seconds: what can't be seen, or not soon, is told instead of failing, also where the
    /// host can't be reached (output `unreachable`, the reason). False by default.
    #[serde(default)]
    pub tell_unseen: bool,
}

fn two_weeks() -> u32 {
    14
}

impl StepType for Lifetimes {
    const NAME: &'static str = "certificate.lifetimes";
    const READ_ONLY: bool = true;

    fn validate(&self) -> Result<(), String> {
        if self.days > DAYS_AT_MOST {
            return Err(format!("`days` is at most {DAYS_AT_MOST}"));
        }
        self.files.iter().try_for_each(|path| validate_path(path))
    }
}

/// When the certificates of a host end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ends {
    /// When it was looked, by the operator's clock.
    pub(crate) at: Timestamp,
    /// How many days each should last from then on.
    pub(crate) days: u32,
    /// Those that are there.
    pub(crate) found: Vec<End>,
}

/// One certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct End {
    /// Where it lies.
    pub(crate) path: String,
    /// It is a CA's.
    #[serde(default)]
    pub(crate) authority: bool,
    /// When it ends, or why that can't be read.
    pub(crate) ends: Result<Timestamp, String>,
}

/// When the first of a file's certificates ends. None: there is no such file.
async fn look(host: &dyn Host, path: &str) -> Result<Option<End>, HostError> {
    let end = |authority, ends| Ok(Some(End { path: path.to_owned(), authority, ends }));
    let bytes = match host.read(path, LIMIT).await {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(None),
        Err(HostError::Failed { message, .. }) => return end(false, Err(message)),
        Err(error) => return Err(error),
    };
    match Certificate::all_from_pem(&bytes) {
        Err(why) => end(false, Err(why)),
        Ok(all) => {
            let first = all.iter().min_by_key(|one| one.not_after);
            end(
                first.is_some_and(|first| first.is_authority),
                first.map(|first| first.not_after).ok_or_else(|| "it is empty".to_owned()),
            )
        }
    }
}

#[async_trait]
impl Step for Lifetimes {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let look = async { Ok(try_join_all(self.files.iter().map(|path| look(&*host, path))).await?) };
        let found = if self.tell_unseen {
            Patience::with(&*host).await?.keep(&*host, look).await?
        } else {
            look.await?
        };
        let found = found.into_iter().flatten().collect();
        let seen = Ends { at: rehearsed::now(cx), days: self.days, found };
        Ok(Check::Satisfied(crate::support::output(&seen)?))
    }

    fn unseen(&self, why: &StepError) -> Option<Output> {
        self.tell_unseen.then(|| crate::support::unseen(why))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::super::leaf_tests::{CERT, Desk};
    use super::*;
    use crate::testing::satisfied;
    use serde_json::json;

    #[tokio::test]
    async fn each_certificate_that_is_there_is_told_with_its_end_and_what_is_none_with_why() {
        let desk = Desk::new().await;
        desk.establish(&desk.step(&json!({}))).await;
        desk.write("/etc/none.crt", "no PEM", 0o644).await;
        let step: Lifetimes =
            serde_json::from_value(json!({ "files": [CERT, "/etc/none.crt", "/etc/absent.crt"] })).unwrap();
        let seen = satisfied(step.check(&desk.cx()).await.unwrap()).0;
        let found = seen["found"].as_array().unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0]["path"], CERT);
        let ends: Timestamp = found[0]["ends"]["Ok"].as_str().unwrap().parse().unwrap();
        assert!(ends > seen["at"].as_str().unwrap().parse().unwrap());
        assert_eq!(found[1]["ends"]["Err"], "it is not in PEM");
    }
}
