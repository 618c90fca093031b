//! `etcd.prefix_saved`: all keys below a prefix, kept as a run's output.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::connect::{connect, validate_endpoints, validate_prefix};
use crate::clients::TlsFiles;
use crate::host::HostContext;

/// Reads all keys below a prefix, so that the run keeps them. Changes nothing.
///
/// Output: `keys` (name without the prefix to value), `count`, and `config`: Patroni's dynamic
/// configuration as an object, or null where there is none.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EtcdPrefixSaved {
    /// `address:port` of the members; the first that answers is asked.
    pub endpoints: Vec<String>,
    /// TLS to etcd, and by which files of the host: `"{{ steps.configuration.etcd_tls }}"` gives those of the host's
    /// Patroni. Plain by default.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// Begins and ends with `/` and has two levels at least: `/service/demo/`.
    pub prefix: String,
}

impl StepType for EtcdPrefixSaved {
    const NAME: &'static str = "etcd.prefix_saved";
    const READ_ONLY: bool = true;

    fn validate(&self) -> Result<(), String> {
        validate_endpoints(&self.endpoints, self.tls.as_ref())?;
        validate_prefix(&self.prefix)
    }
}

#[async_trait]
impl Step for EtcdPrefixSaved {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let client = connect(&*cx.host().await?, &self.endpoints, self.tls.as_ref()).await?;
        let found = client.keys(&self.prefix).await?;
        let keys: Map<String, Value> = found
            .into_iter()
            .map(|key| (key.key.strip_prefix(&self.prefix).unwrap_or(&key.key).to_owned(), key.value.into()))
            .collect();
        let config: Option<Value> =
            keys.get("config").and_then(Value::as_str).and_then(|text| serde_json::from_str(text).ok());
        let output = Output::empty().with("count", keys.len()).with("config", config).with("keys", keys);
        Ok(Check::Satisfied(output))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}
