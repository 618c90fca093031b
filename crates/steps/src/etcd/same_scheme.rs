//! `etcd.same_scheme`: a cluster that is there stays with TLS or without it.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::host::{FileKind, Host, HostContext};
use crate::system::content::validate_path;

/// Longer files are no environment files, in bytes.
const LIMIT: u64 = 1 << 20;

/// Proves that a new configuration wouldn't turn an etcd member with data to TLS or away from it.
///
/// Members and clients of one cluster must speak alike: one that is turned alone finds nobody. What a member with
/// data is configured with now is read from its environment file; a member without data may become either. Changes
/// nothing. Output: `data` (whether it has some), `tls` (as it is configured now, or null).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EtcdSameScheme {
    /// Whether it will serve with TLS.
    pub tls: bool,
    /// The environment file of etcd's unit.
    #[serde(default = "env_file")]
    pub env_file: String,
    /// Its data directory.
    pub data_dir: String,
}

fn env_file() -> String {
    "/etc/default/etcd".to_owned()
}

impl StepType for EtcdSameScheme {
    const NAME: &'static str = "etcd.same_scheme";
    const READ_ONLY: bool = true;

    fn validate(&self) -> Result<(), String> {
        validate_path(&self.env_file)?;
        validate_path(&self.data_dir)
    }
}

/// Whether an environment file says TLS for clients; none where it doesn't say.
fn serves_tls(text: &str) -> Option<bool> {
    let urls = text.lines().rev().find_map(|line| line.trim().strip_prefix("ETCD_LISTEN_CLIENT_URLS="))?;
    Some(urls.contains("https://"))
}

impl EtcdSameScheme {
    async fn look(&self, host: &dyn Host) -> Result<(bool, Option<bool>), StepError> {
        let member = format!("{}/member", self.data_dir.trim_end_matches('/'));
        let data = host.stat(&member).await?.is_some_and(|stat| stat.kind == FileKind::Directory);
        let text = host.read(&self.env_file, LIMIT).await?.unwrap_or_default();
        Ok((data, serves_tls(&String::from_utf8_lossy(&text))))
    }
}

#[async_trait]
impl Step for EtcdSameScheme {
    fn early(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let (data, tls) = self.look(&*cx.host().await?).await?;
        if data && tls.is_some_and(|tls| tls != self.tls) {
            let (is, other) = if self.tls { ("without TLS", "to TLS") } else { ("with TLS", "away from it") };
            return Err(StepError::permanent(format!(
                "etcd here has data and serves {is} ({}): a running cluster isn't turned {other}",
                self.env_file
            ))
            .with_hint(format!("leave it as it is: etcd_tls={}; nothing was changed", !self.tls)));
        }
        Ok(Check::Satisfied(Output::empty().with("data", data).with("tls", tls)))
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{Content, HostChange, Ownership};
    use crate::testing::{Lab, satisfied};
    use serde_json::json;

    #[test]
    fn the_last_line_counts_and_a_comment_does_not() {
        assert_eq!(serves_tls("# ETCD_LISTEN_CLIENT_URLS=https://x\n"), None);
        assert_eq!(serves_tls("ETCD_LISTEN_CLIENT_URLS=\"http://x:2379\"\n"), Some(false));
        assert_eq!(
            serves_tls("ETCD_LISTEN_CLIENT_URLS=http://x\nETCD_LISTEN_CLIENT_URLS=https://x\n"),
            Some(true)
        );
    }

    #[tokio::test]
    async fn a_member_with_data_stays_as_it_is_and_one_without_may_become_either() {
        let step = |tls: bool| -> EtcdSameScheme {
            serde_json::from_value(json!({ "tls": tls, "data_dir": "/var/lib/etcd/default" })).unwrap()
        };
        let lab = Lab::bare().await;
        let cx = lab.on("patroni1");
        satisfied(step(true).check(&cx).await.unwrap());
        let host = cx.host().await.unwrap();
        let write = |path: &str, text: &str| HostChange::WriteFile {
            path: path.into(),
            content: Content(text.as_bytes().to_vec()),
            ownership: Ownership::default(),
        };
        for change in [
            write("/etc/default/etcd", "ETCD_LISTEN_CLIENT_URLS=http://198.18.0.11:2379\n"),
            HostChange::MakeDirectory {
                path: "/var/lib/etcd/default/member".into(),
                ownership: Ownership::default(),
            },
        ] {
            host.change(cx.attempt(), &change).await.unwrap();
        }
        let error = step(true).check(&cx).await.unwrap_err();
        assert!(error.message.contains("serves without TLS (/etc/default/etcd)"), "{}", error.message);
        satisfied(step(false).check(&cx).await.unwrap());
    }
}
