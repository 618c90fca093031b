//! `network.interface`: under which name a host's system knows the network that it is reached by.

use std::net::IpAddr;

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::host::{Host, HostContext, quote};

/// Which network interface has an address.
///
/// Only looks. Output: `name` (`eth0`), `address`, `prefix_length` (24).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NetworkInterface {
    /// An IP address of the host. By default the one that it is reached by, which must then be no name.
    #[serde(default)]
    pub address: Option<IpAddr>,
}

impl StepType for NetworkInterface {
    const NAME: &'static str = "network.interface";
    const WAITS: bool = true;
}

impl NetworkInterface {
    fn wanted(&self, host: &dyn Host) -> Result<IpAddr, String> {
        let of_host = || host.address().parse().map_err(|_| format!("`{}` is no IP address", host.address()));
        self.address.map_or_else(of_host, Ok)
    }
}

/// The interface and the length of its prefix in a line of `ip -o addr show`.
fn read(line: &str, wanted: IpAddr) -> Option<(String, u8)> {
    let mut words = line.split_whitespace().skip(1);
    // Of a virtual pair `ip` writes the other end too: `host0@if7`.
    let name = words.next()?.split('@').next()?;
    let (address, length) = words.nth(1)?.split_once('/')?;
    (address.parse() == Ok(wanted)).then(|| Some((name.to_owned(), length.parse().ok()?)))?
}

#[async_trait]
impl Step for NetworkInterface {
    fn early(&self) -> bool {
        true
    }

    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let wanted = match self.wanted(&*host) {
            Ok(wanted) => wanted,
            Err(why) => return Ok(Check::Refused(format!("{why}: give `address`"))),
        };
        let script = format!("ip -o addr show to {}", quote(&wanted.to_string()));
        let reply = host.probe(&script).await?;
        let text = reply.text();
        Ok(match text.lines().find_map(|line| read(line, wanted)) {
            Some((name, prefix_length)) => Check::Satisfied(
                Output::empty()
                    .with("name", name)
                    .with("address", wanted.to_string())
                    .with("prefix_length", prefix_length),
            ),
            None if reply.success() => Check::Refused(format!("no interface has the address {wanted}")),
            None => Check::Refused(format!("`ip` can't tell who has {wanted}: {}", reply.error_text())),
        })
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Err(StepError::permanent("there is nothing to change"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lab, refused, satisfied};
    use serde_json::json;

    #[test]
    fn the_interface_is_the_one_with_that_very_address() {
        let line = |text: &str| read(text, "198.18.0.2".parse().unwrap());
        let pair = "2: host0@if6    inet 198.18.0.2/24 brd 198.18.0.255 scope global host0\\       valid_lft forever";
        assert_eq!(line(pair), Some(("host0".to_owned(), 24)));
        assert_eq!(line("2: eth0    inet 198.18.0.21/24 scope global eth0"), None);
        let six = read("3: ens3    inet6 2001:db8::5/64 scope global", "2001:db8:0::5".parse().unwrap());
        assert_eq!(six, Some(("ens3".to_owned(), 64)));
        assert_eq!(line(""), None);
        assert_eq!(line("2: eth0"), None);
    }

    #[tokio::test]
    async fn an_address_that_nobody_has_is_refused() {
        let lab = Lab::bare().await;
        let cx = lab.on("patroni1");
        let step = |with| serde_json::from_value::<NetworkInterface>(with).unwrap();
        let output = satisfied(step(json!({})).check(&cx).await.unwrap());
        assert_eq!((&output.0["name"], &output.0["address"]), (&json!("eth0"), &json!("198.18.0.11")));
        let why = refused(step(json!({ "address": "198.18.0.99" })).check(&cx).await.unwrap());
        assert_eq!(why, "no interface has the address 198.18.0.99");
    }
}
