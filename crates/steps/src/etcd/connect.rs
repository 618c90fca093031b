//! Finding a member of etcd that can answer for the cluster.

use tokio::time::Instant;

use flow_core::step::StepError;

use crate::clients::{
    Etcd, EtcdEndpoint, EtcdError, EtcdStatus, LOOK_AGAIN, NoEtcd, SETTLES_WITHIN, TlsFiles,
};
use crate::host::{Host, HostError};
use crate::support::address_and_port;

/// etcd's port for clients.
const PORT: u16 = 2379;

/// `address:port` of a member.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn endpoint(text: &str, tls: Option<&TlsFiles>) -> Result<EtcdEndpoint, String> {
    let (address, port) = address_and_port(text, PORT)?;
    Ok(EtcdEndpoint { address, port, tls: tls.cloned() })
}

/// Why no member can answer for the cluster.
#[derive(Debug)]
pub(crate) struct Nobody {
    /// Of all members' answers the one that tells most.
    pub(crate) kind: NoEtcd,
    /// What became of each question: `address:port: why`.
    pub(crate) said: Vec<String>,
}

impl From<Nobody> for StepError {
    fn from(nobody: Nobody) -> Self {
        let hint = match nobody.kind {
            NoEtcd::Silent | NoEtcd::NoQuorum => {
                "`systemctl status etcd` on those hosts; two of three members must run"
            }
            NoEtcd::Refused => {
                "what it says is above: certificates and rights of the host's Patroni are used"
            }
            NoEtcd::NotEtcd3 => "flow speaks version 3 of etcd's API: see what answers there",
        };
        Self::failed("no etcd member can answer for the cluster")
            .with_detail(nobody.said.join("\n"))
            .with_hint(hint)
    }
}

/// A client of the first member that answers and knows a leader. Where one answers and knows none, as
/// during an election or right after a cable was plugged in again, the members are asked for some
/// seconds more.
///
/// # Errors
/// What each member said, where none does; that the host by which they are asked can't be reached.
pub(crate) async fn connect(
    host: &dyn Host,
    endpoints: &[String],
    tls: Option<&TlsFiles>,
) -> Result<Box<dyn Etcd>, StepError> {
    Ok(reach(host, endpoints, tls).await??)
}

/// As [`connect`]; the inner error says why etcd can't answer.
///
/// # Errors
/// That the host by which it is asked can't be reached.
pub(crate) async fn reach(
    host: &dyn Host,
    endpoints: &[String],
    tls: Option<&TlsFiles>,
) -> Result<Result<Box<dyn Etcd>, Nobody>, StepError> {
    let began = Instant::now();
    loop {
        let nobody = match ask(host, endpoints, tls).await? {
            Ok(client) => return Ok(Ok(client)),
            Err(nobody) => nobody,
        };
        if nobody.kind != NoEtcd::NoQuorum || began.elapsed() >= SETTLES_WITHIN {
            // The members are asked through this host: where it is cut off, that is what is wrong, not etcd.
            host.probe(":").await?;
            return Ok(Err(nobody));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

async fn ask(
    host: &dyn Host,
    endpoints: &[String],
    tls: Option<&TlsFiles>,
) -> Result<Result<Box<dyn Etcd>, Nobody>, StepError> {
    let mut nobody = Nobody { kind: NoEtcd::Silent, said: Vec::new() };
    for text in endpoints {
        let endpoint = endpoint(text, tls).map_err(StepError::permanent)?;
        let (kind, why) = match one(host, &endpoint).await {
            // It would answer no question about keys or members.
            Ok((_, status)) if status.learner => {
                (NoEtcd::Silent, "it is a learner, without a vote yet".to_owned())
            }
            Ok((client, status)) if status.leader != 0 => return Ok(Ok(client)),
            Ok(_) => (NoEtcd::NoQuorum, "it knows no leader (no quorum)".to_owned()),
            Err(EtcdError {
                kind,
                error: HostError::Failed { message, .. } | HostError::Lost { message, .. },
            }) => (kind, message),
            Err(EtcdError { error, .. }) => return Err(error.into()),
        };
        nobody.kind = nobody.kind.max(kind);
        nobody.said.push(format!("{text}: {why}"));
    }
    Ok(Err(nobody))
}

/// A member, and what it says of itself.
async fn one(host: &dyn Host, endpoint: &EtcdEndpoint) -> Result<(Box<dyn Etcd>, EtcdStatus), EtcdError> {
    let client = host.etcd(endpoint).await?;
    let status = client.status().await?;
    Ok((client, status))
}

/// `/service/demo/`: two levels at least, so that no typo reaches further than one cluster's keys.
///
/// # Errors
/// What is wrong with the text.
pub(super) fn validate_prefix(prefix: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("`{prefix}` is no prefix of a cluster: {why}"));
    if !prefix.starts_with('/') || !prefix.ends_with('/') {
        return wrong("it must begin and end with `/`, as in `/service/demo/`");
    }
    let levels: Vec<&str> = prefix.trim_matches('/').split('/').collect();
    if levels.iter().any(|level| level.trim().is_empty()) {
        return wrong("it has an empty level");
    }
    if levels.len() < 2 {
        return wrong("it must have two levels at least, as in `/service/demo/`");
    }
    Ok(())
}

/// An empty list of endpoints is refused, and files of TLS that can't be.
///
/// # Errors
/// What is wrong with them.
pub(super) fn validate_endpoints(endpoints: &[String], tls: Option<&TlsFiles>) -> Result<(), String> {
    if endpoints.is_empty() {
        return Err("`endpoints` is empty".to_owned());
    }
    tls.map_or(Ok(()), TlsFiles::validate)?;
    endpoints.iter().try_for_each(|text| endpoint(text, tls).map(|_| ()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_prefix_of_two_levels_between_slashes_will_do() {
        assert_eq!(validate_prefix("/service/demo/"), Ok(()));
        for wrong in [
            "",
            "/",
            "//",
            "/service/",
            "/service/demo",
            "service/demo/",
            "//demo/",
            "/service//",
            "/service/ /",
        ] {
            assert!(validate_prefix(wrong).is_err(), "{wrong}");
        }
    }
}
