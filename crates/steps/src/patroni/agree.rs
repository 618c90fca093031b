//! `patroni.agree`: several hosts' configurations describe one cluster.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::settings::Settings;
use crate::clients::TlsFiles;

/// Proves that the configurations of several hosts describe members of one cluster. Asks no host.
///
/// Scope, namespace, etcd's endpoints and whether TLS is spoken must be the same, names different. Otherwise they are shown side by side.
/// Output: `scope`, `namespace`, `prefix`, `endpoints`, `rest` (of all, in order), `members` (host to name).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniAgree {
    /// Host to what `patroni.config` gave there: `"{{ steps.configuration.hosts }}"`.
    #[schemars(with = "IndexMap<String, serde_json::Map<String, Value>>")]
    pub configurations: IndexMap<String, Value>,
    /// The scope that is meant; another one is refused.
    #[serde(default)]
    pub scope: Option<String>,
    /// How many members there must be. Any number by default.
    #[serde(default)]
    pub members: Option<usize>,
}

impl StepType for PatroniAgree {
    const NAME: &'static str = "patroni.agree";
    const READ_ONLY: bool = true;
}

type BySettings = IndexMap<String, Settings>;

impl PatroniAgree {
    fn read(&self) -> Result<BySettings, StepError> {
        let one = |(host, value): (&String, &Value)| {
            let settings: Settings = serde_json::from_value(value.clone()).map_err(|error| {
                StepError::permanent(format!(
                    "`configurations` of {host} is no output of patroni.config: {error}"
                ))
            })?;
            Ok((host.clone(), settings))
        };
        self.configurations.iter().map(one).collect()
    }

    fn judge(&self, all: &BySettings) -> Result<Output, StepError> {
        let Some(first) = all.values().next() else {
            return Err(StepError::permanent("no configuration was read: the list of hosts is empty"));
        };
        if let Some(wanted) = self.members
            && wanted != all.len()
        {
            return Err(StepError::permanent(format!(
                "{} configurations were read, not {wanted}",
                all.len()
            )));
        }
        differ("scope", all, |settings| settings.scope.clone())?;
        differ("namespace", all, |settings| settings.namespace.clone())?;
        differ("etcd3.hosts", all, |settings| settings.endpoints.join(", "))?;
        let speaks = |tls: &Option<TlsFiles>| if tls.is_some() { "TLS" } else { "plain" }.to_owned();
        differ("etcd3.protocol", all, |settings| speaks(&settings.etcd_tls))?;
        differ("restapi.certfile", all, |settings| speaks(&settings.rest_tls))?;
        unique_names(all)?;
        if let Some((host, what)) = all.iter().find_map(|(host, s)| Some((host, s.unsupported.first()?))) {
            return Err(StepError::permanent(format!("{host}: {what}, which this version of flow can't do")));
        }
        if let Some(wanted) = self.scope.as_deref().filter(|wanted| *wanted != first.scope) {
            return Err(StepError::permanent(format!(
                "these hosts are of scope {}, not {wanted}",
                first.scope
            ))
            .with_hint("is it the right inventory?"));
        }
        let members: IndexMap<_, _> = all.iter().map(|(host, s)| (host.clone(), json!(s.name))).collect();
        let rest: Vec<_> = all.values().map(|settings| settings.rest.clone()).collect();
        Ok(Output::empty()
            .with("scope", &first.scope)
            .with("namespace", &first.namespace)
            .with("prefix", &first.prefix)
            .with("endpoints", &first.endpoints)
            .with("rest", rest)
            .with("members", members))
    }
}

fn differ(what: &str, all: &BySettings, of: impl Fn(&Settings) -> String) -> Result<(), StepError> {
    let mut values: Vec<String> = all.values().map(&of).collect();
    values.dedup();
    if values.len() <= 1 {
        return Ok(());
    }
    Err(StepError::permanent(format!("the hosts' Patroni configurations differ in `{what}`"))
        .with_detail(side_by_side(all, of))
        .with_hint("nothing was changed; make them one cluster's, or name the right hosts"))
}

fn unique_names(all: &BySettings) -> Result<(), StepError> {
    let mut names: Vec<&str> = all.values().map(|settings| settings.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => Err(StepError::permanent(format!("two hosts have the member name {}", pair[0]))
            .with_detail(side_by_side(all, |settings| settings.name.clone()))),
    }
}

/// A line for each host.
fn side_by_side(all: &BySettings, of: impl Fn(&Settings) -> String) -> String {
    let width = all.keys().map(String::len).max().unwrap_or_default();
    let lines: Vec<String> = all.iter().map(|(host, s)| format!("{host:width$}  {}", of(s))).collect();
    lines.join("\n")
}

#[async_trait]
impl Step for PatroniAgree {
    fn early(&self) -> bool {
        true
    }

    async fn check(&self, _cx: &Context) -> Result<Check, StepError> {
        self.judge(&self.read()?).map(Check::Satisfied)
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::operator;

    fn configurations(change: impl Fn(&str, &mut Value)) -> PatroniAgree {
        let one = |number: usize| {
            let host = format!("patroni{number}");
            let mut value = json!({
                "scope": "demo", "namespace": "/service/", "prefix": "/service/demo/", "name": host,
                "endpoints": ["198.18.0.11:2379"], "rest": format!("198.18.0.1{number}:8008"),
                "postgres": format!("198.18.0.1{number}:5432"), "data_dir": "/d/main", "bin_dir": "/b",
            });
            change(&host, &mut value);
            (host, value)
        };
        PatroniAgree { configurations: (1..=3).map(one).collect(), scope: Some("demo".into()), members: None }
    }

    #[tokio::test]
    async fn configurations_of_one_cluster_agree() {
        let check = configurations(|_, _| ()).check(&operator()).await.unwrap();
        let Check::Satisfied(output) = check else { panic!("{check:?}") };
        assert_eq!(output.0["prefix"], "/service/demo/");
        assert_eq!(output.0["rest"], json!(["198.18.0.11:8008", "198.18.0.12:8008", "198.18.0.13:8008"]));
        assert_eq!(output.0["members"]["patroni2"], "patroni2");
    }

    #[tokio::test]
    async fn what_differs_is_shown_side_by_side() {
        let agree = configurations(|host, value| {
            if host == "patroni3" {
                value["scope"] = json!("other");
            }
        });
        let error = agree.check(&operator()).await.unwrap_err();
        assert_eq!(error.message, "the hosts' Patroni configurations differ in `scope`");
        assert_eq!(error.detail.as_deref(), Some("patroni1  demo\npatroni2  demo\npatroni3  other"));
    }

    #[tokio::test]
    async fn the_same_name_twice_another_scope_and_tls_are_refused() {
        let twice = configurations(|_, value| value["name"] = json!("same"));
        assert!(twice.check(&operator()).await.unwrap_err().message.contains("member name same"));
        let other = PatroniAgree { scope: Some("prod".into()), ..configurations(|_, _| ()) };
        assert!(other.check(&operator()).await.unwrap_err().message.contains("scope demo, not prod"));
        let tls = configurations(|_, value| value["unsupported"] = json!(["its REST API speaks TLS"]));
        assert!(tls.check(&operator()).await.unwrap_err().message.contains("TLS"));
    }
}
