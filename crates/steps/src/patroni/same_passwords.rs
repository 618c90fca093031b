//! `patroni.same_passwords`: a host's Patroni isn't given other passwords than it has.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Secret, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::host::HostContext;

/// Proves that these passwords are those which the host's configuration of Patroni has, or that it has none. Changes nothing.
///
/// For passwords that flow makes where nobody gives one: a second operator, who lacks their files, would make others, and nobody would notice
/// before they are needed. Where there is no configuration yet, or one that can't be read, nothing is known, and that is no error.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatroniSamePasswords {
    /// That of the REST API. By default it isn't looked at.
    #[serde(default)]
    pub restapi: Option<Secret>,
    /// That of the role for pg_rewind. By default it isn't looked at.
    #[serde(default)]
    pub rewind: Option<Secret>,
    /// What to do where one differs.
    pub hint: String,
    /// Patroni's configuration file. `/etc/patroni/config.yml` by default.
    #[serde(default = "super::config_file")]
    pub config_file: String,
}

/// Longer configurations are none, in bytes.
const LIMIT: u64 = 1 << 20;

impl StepType for PatroniSamePasswords {
    const NAME: &'static str = "patroni.same_passwords";
    const READ_ONLY: bool = true;
}

impl PatroniSamePasswords {
    /// Which of them the file has otherwise.
    fn differ(&self, file: &str) -> Vec<&'static str> {
        // Never the parser's own words: they may quote a line with a password.
        let file: Value = serde_saphyr::from_str(file).unwrap_or_default();
        let differs = |given: &Option<Secret>, path: &str| {
            let has = file.pointer(path).and_then(|value| match value {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            });
            given.as_ref().zip(has).is_some_and(|(given, has)| given.reveal() != has)
        };
        let mut found = Vec::new();
        if differs(&self.restapi, "/restapi/authentication/password") {
            found.push("restapi.authentication");
        }
        if differs(&self.rewind, "/postgresql/authentication/rewind/password") {
            found.push("postgresql.authentication.rewind");
        }
        found
    }
}

#[async_trait]
impl Step for PatroniSamePasswords {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let file = cx.host().await?.read(&self.config_file, LIMIT).await?.unwrap_or_default();
        let differ = self.differ(&String::from_utf8_lossy(&file));
        if differ.is_empty() {
            return Ok(Check::Satisfied(Output::empty()));
        }
        let why = format!("{} has another password in {}", self.config_file, differ.join(" and "));
        Err(StepError::permanent(why).with_hint(self.hint.clone()))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lab, satisfied};
    use serde_json::json;

    fn step(restapi: &str, rewind: Option<&str>) -> PatroniSamePasswords {
        serde_json::from_value(json!({ "restapi": restapi, "rewind": rewind, "hint": "copy it" })).unwrap()
    }

    const FILE: &str = "restapi: {authentication: {username: a, password: s3cret}}\n\
                        postgresql: {authentication: {rewind: {username: b, password: 123}}}\n";

    #[test]
    fn only_a_password_that_the_file_has_otherwise_differs() {
        assert!(step("s3cret", Some("123")).differ(FILE).is_empty());
        assert_eq!(step("another", None).differ(FILE), ["restapi.authentication"]);
        assert_eq!(step("s3cret", Some("x")).differ(FILE), ["postgresql.authentication.rewind"]);
        for none in ["", "scope: demo", "password: s3cret: [x"] {
            assert!(step("another", Some("x")).differ(none).is_empty(), "{none}");
        }
    }

    #[tokio::test]
    async fn another_password_is_refused_and_shown_nowhere() {
        let lab = Lab::bare().await;
        satisfied(step("another", None).check(&lab.on("patroni1")).await.unwrap());
        let file = json!({ "path": "/etc/patroni/config.yml", "content": FILE, "parents": true });
        lab.make("patroni1", "file", file).await;
        let error = step("another", None).check(&lab.on("patroni1")).await.unwrap_err();
        assert_eq!(error.message, "/etc/patroni/config.yml has another password in restapi.authentication");
        assert!(error.permanent && !format!("{error:?}").contains("s3cret"));
    }
}
