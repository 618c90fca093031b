//! `patroni.survey`: what several members together are.

use std::collections::BTreeSet;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::status::Status;

/// Puts together what `patroni.status` saw on each host. Asks no host.
///
/// Two leaders at once are refused. Output: `leader` (the host that leads, by its REST API or else by the
/// leader's key, or null), `first` (the leader, else
/// the first host of the list), `others` (all but `first`), `identifiers` (host to system identifier), `mismatch`
/// (true where there is more than one), `healthy` (one member leads, all others run as replicas, and the system
/// identifier of every host's data is known and the same), `paused`, `dynamic_config` (the leader's copy, else the first
/// that was found), `summary` (a line for each host).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniSurvey {
    /// Host to what `patroni.status` gave there: `"{{ steps.status.hosts }}"`.
    #[schemars(with = "IndexMap<String, serde_json::Map<String, Value>>")]
    pub members: IndexMap<String, Value>,
}

impl StepType for PatroniSurvey {
    const NAME: &'static str = "patroni.survey";
    const READ_ONLY: bool = true;
}

impl PatroniSurvey {
    fn read(&self) -> Result<IndexMap<String, Status>, StepError> {
        let one = |(host, value): (&String, &Value)| {
            let status: Status = serde_json::from_value(value.clone()).map_err(|error| {
                StepError::permanent(format!("`members` of {host} is no output of patroni.status: {error}"))
            })?;
            Ok((host.clone(), status))
        };
        self.members.iter().map(one).collect()
    }
}

fn judge(all: &IndexMap<String, Status>) -> Result<Output, StepError> {
    let hosts_where = |is_so: &dyn Fn(&Status) -> bool| -> Vec<&String> {
        all.iter().filter(|(_, status)| is_so(status)).map(|(host, _)| host).collect()
    };
    let mut leaders = hosts_where(&|status| status.role.as_deref() == Some("leader"));
    if leaders.is_empty() {
        leaders = hosts_where(&|status| status.holds_leader_key);
    }
    if let [one, other, ..] = leaders.as_slice() {
        return Err(StepError::permanent(format!("two members say that they lead: {one} and {other}"))
            .with_hint("find out which one clients write to before anything else"));
    }
    let Some(first) = leaders.first().copied().or_else(|| all.keys().next()) else {
        return Err(StepError::permanent("no member was looked at: the list of hosts is empty"));
    };
    let others: Vec<&String> = all.keys().filter(|host| *host != first).collect();
    let identifiers: IndexMap<&String, &Option<String>> =
        all.iter().map(|(host, status)| (host, &status.system_identifier)).collect();
    let distinct: BTreeSet<&String> = identifiers.values().filter_map(|id| id.as_ref()).collect();
    let serves = |status: &Status| {
        let state = status.state.as_deref().unwrap_or_default();
        status.role.is_some() && matches!(state, "running" | "streaming")
    };
    let healthy = all.values().all(serves)
        && all.values().any(|status| status.role.as_deref() == Some("leader"))
        && identifiers.values().all(|identifier| identifier.is_some())
        && distinct.len() == 1;
    let in_order = std::iter::once(first).chain(others.iter().copied());
    let dynamic_config = in_order.filter_map(|host| all[host].dynamic_config.as_ref()).next();
    Ok(Output::empty()
        .with("leader", leaders.first())
        .with("first", first)
        .with("mismatch", distinct.len() > 1)
        .with("healthy", healthy)
        .with("paused", all.values().any(|status| status.paused))
        .with("others", &others)
        .with("identifiers", &identifiers)
        .with("dynamic_config", dynamic_config)
        .with("summary", all.iter().map(|(host, status)| line(host, status)).collect::<Vec<_>>()))
}

/// `patroni3: activating (auto-restart), doesn't answer, system identifier 771..., timeline 1`
fn line(host: &str, status: &Status) -> String {
    let api = match (&status.role, &status.state) {
        (Some(role), Some(state)) => format!("{role}, {state}"),
        _ => "its REST API doesn't answer".to_owned(),
    };
    let data = match (&status.system_identifier, status.timeline) {
        (Some(id), Some(timeline)) => format!("system identifier {id}, timeline {timeline}"),
        (Some(id), None) => format!("system identifier {id}"),
        _ => "no data directory".to_owned(),
    };
    format!("{host}: Patroni {}, {api}, {data}", status.unit)
}

#[async_trait]
impl Step for PatroniSurvey {
    async fn check(&self, _cx: &Context) -> Result<Check, StepError> {
        judge(&self.read()?).map(Check::Satisfied)
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn member(role: Option<&str>, identifier: &str) -> Status {
        Status {
            name: "x".into(),
            unit: "active (running)".into(),
            answers: role.is_some(),
            role: role.map(str::to_owned),
            state: role.map(|_| "running".to_owned()),
            holds_leader_key: false,
            paused: false,
            timeline: Some(1),
            system_identifier: Some(identifier.into()),
            dynamic_config: None,
        }
    }

    fn survey(members: &[(&str, Status)]) -> Result<Output, StepError> {
        judge(&members.iter().map(|(host, status)| ((*host).to_owned(), status.clone())).collect())
    }

    #[test]
    fn the_leader_comes_first_and_a_looping_member_shows_as_a_mismatch() {
        let members = [
            ("p1", member(Some("replica"), "7")),
            ("p2", member(Some("leader"), "7")),
            ("p3", member(None, "8")),
        ];
        let output = survey(&members).unwrap().0;
        assert_eq!((&output["leader"], &output["first"]), (&json!("p2"), &json!("p2")));
        assert_eq!(output["others"], json!(["p1", "p3"]));
        assert_eq!((&output["mismatch"], &output["healthy"]), (&json!(true), &json!(false)));
        assert!(output["summary"][2].as_str().unwrap().contains("doesn't answer, system identifier 8"));
    }

    #[test]
    fn where_no_rest_api_tells_the_leader_s_key_does() {
        let holder = || Status { holds_leader_key: true, ..member(None, "7") };
        let output = survey(&[("p1", member(None, "7")), ("p2", holder())]).unwrap().0;
        assert_eq!(output["leader"], "p2");
        let output = survey(&[("p1", member(Some("leader"), "7")), ("p2", holder())]).unwrap().0;
        assert_eq!(output["leader"], "p1");
    }

    #[test]
    fn without_a_leader_the_first_host_of_the_inventory_is_first() {
        let output = survey(&[("p1", member(None, "7")), ("p3", member(None, "7"))]).unwrap().0;
        assert_eq!((&output["leader"], &output["first"]), (&Value::Null, &json!("p1")));
        assert_eq!(output["mismatch"], false);
    }

    #[test]
    fn healthy_are_a_leader_and_replicas_that_all_run_under_one_identifier() {
        let healthy = |second: Status| {
            survey(&[("p1", member(Some("leader"), "7")), ("p2", second)]).unwrap().0["healthy"].clone()
        };
        assert_eq!(healthy(member(Some("replica"), "7")), true);
        assert_eq!(healthy(Status { state: Some("streaming".into()), ..member(Some("replica"), "7") }), true);
        assert_eq!(healthy(member(Some("replica"), "8")), false);
        assert_eq!(healthy(member(None, "7")), false);
        assert_eq!(healthy(Status { state: Some("starting".into()), ..member(Some("replica"), "7") }), false);
        assert_eq!(healthy(Status { system_identifier: None, ..member(Some("replica"), "7") }), false);
        let nobody_leads = survey(&[("p1", member(Some("replica"), "7"))]).unwrap().0;
        assert_eq!(nobody_leads["healthy"], false);
    }

    #[test]
    fn two_leaders_are_refused() {
        let error =
            survey(&[("p1", member(Some("leader"), "7")), ("p2", member(Some("leader"), "8"))]).unwrap_err();
        assert_eq!(error.message, "two members say that they lead: p1 and p2");
    }
}
