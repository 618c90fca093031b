//! `etcd.settings`: how a host's etcd is configured.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::host::{Host, HostContext};

/// Longer files are none, in bytes.
const LIMIT: u64 = 1 << 20;
/// Where Debian's unit has its data.
const DATA_DIR: &str = "/var/lib/etcd/default";

/// Reads how a host's etcd is configured, from the variables that Debian's unit gives it. Changes nothing.
///
/// Output: `name`, `data_dir`, `peer_urls` (those that it tells its peers), `client_urls` (those that it tells clients),
/// `configured` (there is such a file).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EtcdSettings {
    /// The file of its variables. `/etc/default/etcd` by default.
    #[serde(default = "file")]
    pub file: String,
}

/// Where Debian's unit reads its variables.
pub(super) fn file() -> String {
    "/etc/default/etcd".to_owned()
}

/// A host's variables of etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) name: String,
    pub(super) data_dir: String,
    pub(super) peer_urls: Vec<String>,
    pub(super) client_urls: Vec<String>,
    /// Name and URL of those that the cluster begins with.
    pub(super) initial_cluster: Vec<(String, String)>,
}

impl Settings {
    /// Reads them. None: there is no such file.
    ///
    /// # Errors
    /// The host can't be reached.
    pub(super) async fn of(host: &dyn Host, file: &str) -> Result<Option<Self>, StepError> {
        let Some(bytes) = host.read(file, LIMIT).await? else { return Ok(None) };
        Ok(Some(Self::parse(&String::from_utf8_lossy(&bytes), host.name())))
    }

    fn parse(text: &str, host: &str) -> Self {
        let value = |name: &str| {
            let given = text.lines().rev().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
            given
                .map(|value| value.trim().trim_matches(['"', '\'']).to_owned())
                .filter(|value| !value.is_empty())
        };
        let list = |name: &str| -> Vec<String> {
            let text = value(name).unwrap_or_default();
            text.split(',').map(|url| url.trim().to_owned()).filter(|url| !url.is_empty()).collect()
        };
        let pairs = list("ETCD_INITIAL_CLUSTER");
        let initial_cluster: Vec<(String, String)> = pairs
            .iter()
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, url)| (name.to_owned(), url.to_owned()))
            .collect();
        let name = value("ETCD_NAME").unwrap_or_else(|| host.to_owned());
        let mut peer_urls = list("ETCD_INITIAL_ADVERTISE_PEER_URLS");
        if peer_urls.is_empty() {
            peer_urls
                .extend(initial_cluster.iter().filter(|(of, _)| *of == name).map(|(_, url)| url.clone()));
        }
        Self {
            data_dir: value("ETCD_DATA_DIR").unwrap_or_else(|| DATA_DIR.to_owned()),
            client_urls: list("ETCD_ADVERTISE_CLIENT_URLS"),
            name,
            peer_urls,
            initial_cluster,
        }
    }
}

impl StepType for EtcdSettings {
    const NAME: &'static str = "etcd.settings";
    const READ_ONLY: bool = true;
}

#[async_trait]
impl Step for EtcdSettings {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let found = Settings::of(&*host, &self.file).await?;
        let configured = found.is_some();
        let settings = found.unwrap_or_else(|| Settings::parse("", host.name()));
        let output = Output::empty()
            .with("name", settings.name)
            .with("data_dir", settings.data_dir)
            .with("peer_urls", settings.peer_urls)
            .with("client_urls", settings.client_urls)
            .with("configured", configured);
        Ok(Check::Satisfied(output))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_as_the_unit_reads_them() {
        let settings = Settings::parse(
            "# etcd\nETCD_NAME=\"db1\"\nETCD_INITIAL_CLUSTER=db1=http://10.0.0.1:2380,db2=http://10.0.0.2:2380\n\
             ETCD_ADVERTISE_CLIENT_URLS=http://10.0.0.1:2379\n#ETCD_DATA_DIR=/x\n",
            "h",
        );
        assert_eq!((settings.name.as_str(), settings.data_dir.as_str()), ("db1", DATA_DIR));
        assert_eq!(settings.peer_urls, ["http://10.0.0.1:2380"]);
        assert_eq!(settings.client_urls, ["http://10.0.0.1:2379"]);
        assert_eq!(Settings::parse("", "h").name, "h");
    }
}
