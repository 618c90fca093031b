//! `patroni.archived`: the primary's WAL comes into its archive.

use std::time::Duration;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

use super::archive::{Archive, asked, look};
use super::rest::{Api, report};
use super::settings::Settings;
use crate::host::{Host, HostContext};
use crate::support::{Seen, wait_until};

/// The archiver of the host's PostgreSQL works, where it leads and its WAL is archived: proven by a switch of WAL.
///
/// It counts as proven where the archiver has archived something since PostgreSQL was started, within the last ten minutes, and
/// hasn't failed since; else a new segment is begun (`pg_switch_wal`), and its archiving is waited for. pgBackRest's stanza must be this
/// cluster's. On replicas, where nothing is archived or archiving is off by a run, and where PostgreSQL can't be asked over its socket, nothing is
/// done. Output: `archived` (true; false where it failed before and still does; null where that isn't known or wanted), `why` (or null).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniArchived {
    /// It failed before already, so that it still fails is told and is no failure of this step. False by default.
    #[serde(default)]
    pub failed_before: bool,
    /// Patroni's configuration file. `/etc/patroni/config.yml` by default.
    #[serde(default = "super::config_file")]
    pub config_file: String,
    /// Seconds to wait. 60 by default.
    #[serde(default = "minute")]
    pub timeout: u64,
}

fn minute() -> u64 {
    60
}

/// It changes no row: a segment of WAL ends early.
const SWITCH: &str =
    "select pg_create_restore_point('flow: is it archived?') is not null, pg_switch_wal() is not null";
/// By the server's own clock.
const STATE: &str = "select current_setting('archive_mode') <> 'off', \
    coalesce(nullif(current_setting('archive_library', true), ''), current_setting('archive_command')) not in ('', '(disabled)'), \
    coalesce(last_archived_time > greatest(pg_postmaster_start_time(), now() - interval '10 minutes'), false), \
    coalesce(last_failed_time > coalesce(last_archived_time, '-infinity'), false), \
    extract(epoch from coalesce(last_archived_time, '-infinity')), failed_count, coalesce(last_failed_wal, '?') from pg_stat_archiver";

impl StepType for PatroniArchived {
    const NAME: &'static str = "patroni.archived";
    const NOT_UNDOABLE: &'static str = "what was archived stays";
}

/// What the archiver says.
#[derive(Debug, PartialEq)]
struct State {
    /// `archive_mode` is on in the server that runs.
    mode: bool,
    /// It has a command.
    command: bool,
    /// It has archived something lately.
    lately: bool,
    failing: bool,
    /// When it last archived something, in seconds; for comparison with itself.
    archived: String,
    failures: u64,
    failed_file: String,
}

fn state(row: &str) -> Option<State> {
    let words: Vec<&str> = row.split(' ').collect();
    let [mode, command, lately, failing, archived, failures, file] = words[..] else { return None };
    let yes = |word: &str| word == "t";
    Some(State {
        mode: yes(mode),
        command: yes(command),
        lately: yes(lately),
        failing: yes(failing),
        archived: archived.to_owned(),
        failures: failures.parse().ok()?,
        failed_file: file.to_owned(),
    })
}

async fn ask(host: &dyn Host, settings: &Settings, sql: &str) -> Result<Option<String>, StepError> {
    let reply = host.probe(&asked("says", settings, sql)).await?;
    Ok(reply.text().lines().find_map(|line| line.strip_prefix("says ")).map(str::to_owned))
}

fn told(archived: Option<bool>, why: Option<&str>) -> Check {
    Check::Satisfied(Output::empty().with("archived", archived).with("why", why))
}

impl PatroniArchived {
    /// A failure, or, where it failed before, only told.
    fn fails(&self, why: &str, hint: &str) -> Result<Check, StepError> {
        if self.failed_before {
            return Ok(told(Some(false), Some(&format!("it failed before already: {why}; {hint}"))));
        }
        Err(StepError::failed(why).with_hint(format!("{hint}; `flow resume` looks at it again")))
    }

    fn judge(&self, archive: &Archive, own: Option<&str>, state: Option<State>) -> Result<Check, StepError> {
        let Some(state) = state else {
            return Ok(told(None, Some("PostgreSQL can't be asked over its socket")));
        };
        if let Some(why) = archive.stanza().and_then(|backups| backups.of_another(own?)) {
            return self.fails(&why, "until then its WAL stays where it is");
        }
        if !state.mode {
            return self.fails(
                "WAL isn't archived: `archive_mode` is on in the configuration, and off in the PostgreSQL that runs",
                "it counts after a restart: `flow run postgresql-parameters.toml --set allow_restart=true`",
            );
        }
        if state.failing && self.failed_before {
            return self.fails(&failure(&state), LOG);
        }
        if state.lately && !state.failing {
            return Ok(told(Some(true), None));
        }
        Ok(Check::Pending(Change::new("begin a new segment of WAL, and wait until it is archived")))
    }

    async fn look(&self, host: &dyn Host, settings: &Settings, before: &State) -> Result<Seen, StepError> {
        let Some(now) = ask(host, settings, STATE).await?.as_deref().and_then(state) else {
            return Ok(Seen::NotYet("PostgreSQL doesn't answer".to_owned()));
        };
        // It tries three times before it rests for a minute (pgarch.c, NUM_ARCHIVE_RETRIES).
        if now.failing && now.failures >= before.failures + 3 {
            return Err(StepError { permanent: true, ..StepError::failed(failure(&now)) });
        }
        Ok(if !now.command {
            Seen::NotYet("PostgreSQL hasn't read its `archive_command` yet".to_owned())
        } else if now.archived != before.archived && !now.failing {
            Seen::Yes(Output::empty().with("archived", true).with("why", None::<String>))
        } else {
            Seen::NotYet("nothing new is archived yet".to_owned())
        })
    }
}

const LOG: &str = "PostgreSQL's log says what the command answered";

fn failure(state: &State) -> String {
    format!("WAL isn't archived: {} failed, {} failures in all", state.failed_file, state.failures)
}

#[async_trait]
impl Step for PatroniArchived {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let settings = Settings::required(&*host, &self.config_file).await?;
        let report = match report(&*host, &Api::of(&settings)?).await? {
            Ok(report) if report.leads() => report,
            _ => return Ok(told(None, Some("it doesn't lead"))),
        };
        let archive = look(&*host, &self.config_file).await?;
        if let Some(run) = &archive.off_by {
            return Ok(told(None, Some(&format!("archiving is off by run {run}"))));
        }
        if archive.command.is_none() {
            return Ok(told(None, None));
        }
        let state = ask(&*host, &settings, STATE).await?.as_deref().and_then(state);
        self.judge(&archive, report.system_identifier.as_deref(), state)
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let host = cx.host().await?;
        let settings = Settings::required(&*host, &self.config_file).await?;
        // What is changed is not on the host's disk by way of flow, so its lock is proven by itself.
        host.fence(cx.attempt()).await?;
        let before = ask(&*host, &settings, STATE).await?.as_deref().and_then(state);
        let before = before.ok_or_else(|| StepError::failed("PostgreSQL doesn't answer"))?;
        ask(&*host, &settings, SWITCH).await?;
        let waited =
            wait_until(cx, Duration::from_secs(self.timeout), || self.look(&*host, &settings, &before)).await;
        waited.map_err(|error| error.with_hint(format!("{LOG}; once it works, `flow resume` goes on")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn judged(with: serde_json::Value, archive: &Archive, row: &str) -> Result<Check, StepError> {
        let step: PatroniArchived = serde_json::from_value(with).unwrap();
        step.judge(archive, Some("7"), state(row))
    }

    fn archived(check: Check) -> serde_json::Value {
        crate::testing::satisfied(check).0["archived"].clone()
    }

    const WELL: &str = "t t t f 1796098436.43 0 ?";
    const LONG_AGO: &str = "t t f f 1796098436.43 0 ?";
    const FAILING: &str = "t t f t -Infinity 3 000000010000000000000001";

    #[test]
    fn what_was_archived_lately_is_proven_and_all_else_is_tried() {
        let archive = Archive { command: Some("cp".into()), ..Archive::default() };
        assert_eq!(archived(judged(json!({}), &archive, WELL).unwrap()), true);
        for row in [LONG_AGO, FAILING] {
            crate::testing::pending(judged(json!({}), &archive, row).unwrap());
        }
        assert_eq!(archived(judged(json!({}), &archive, "").unwrap()), serde_json::Value::Null);
        let error = judged(json!({}), &archive, &WELL.replacen('t', "f", 1)).unwrap_err();
        assert!(error.hint.unwrap().contains("allow_restart=true"), "{}", error.message);
    }

    #[test]
    fn what_failed_before_is_told_and_fails_nothing() {
        let archive = Archive { command: Some("cp".into()), ..Archive::default() };
        let check = judged(json!({ "failed_before": true }), &archive, FAILING).unwrap();
        let output = crate::testing::satisfied(check).0;
        assert_eq!(output["archived"], false);
        assert!(output["why"].as_str().unwrap().contains("000000010000000000000001 failed"), "{output:?}");
        crate::testing::pending(judged(json!({ "failed_before": true }), &archive, LONG_AGO).unwrap());
    }

    #[test]
    fn a_stanza_of_another_cluster_is_a_failure_with_what_to_do() {
        let backups = crate::patroni::archive::Backups {
            stanza: "main".into(),
            identifiers: vec!["8".into()],
            ..Default::default()
        };
        let archive =
            Archive { command: Some("pgbackrest".into()), backups: Some(backups), ..Archive::default() };
        let restores = Archive { command: Some("cp".into()), ..archive.clone() };
        assert_eq!(archived(judged(json!({}), &restores, WELL).unwrap()), true, "WAL goes elsewhere");
        let error = judged(json!({}), &archive, WELL).unwrap_err();
        assert!(error.message.contains("takes WAL of 8, and this cluster is 7"), "{}", error.message);
        assert!(error.hint.unwrap().contains("flow resume"));
    }
}
