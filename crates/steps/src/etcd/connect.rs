//! Finding a member of etcd that can answer for the cluster.

use tokio::time::Instant;

use flow_core::step::StepError;

use crate::clients::{Etcd, EtcdEndpoint, LOOK_AGAIN, SETTLES_WITHIN, TlsFiles};
use crate::host::Host;
use crate::support::{address_and_port, answered};

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
    let began = Instant::now();
    loop {
        let said = match ask(host, endpoints, tls).await? {
            Asked::Leads(client) => return Ok(client),
            Asked::Leaderless(_) if began.elapsed() < SETTLES_WITHIN => {
                tokio::time::sleep(LOOK_AGAIN).await;
                continue;
            }
            Asked::Leaderless(said) | Asked::Silent(said) => said,
        };
        // The members are asked through this host: where it is cut off, that is what is wrong, not etcd.
        host.probe(":").await?;
        return Err(StepError::failed("no etcd member can answer for the cluster")
            .with_detail(said.join("\n"))
            .with_hint("`systemctl status etcd` on those hosts; two of three members must run"));
    }
}

/// What the members answered.
enum Asked {
    /// One that knows a leader.
    Leads(Box<dyn Etcd>),
    /// One answers, none knows a leader. What each said.
    Leaderless(Vec<String>),
    /// None answers. What became of each question.
    Silent(Vec<String>),
}

async fn ask(host: &dyn Host, endpoints: &[String], tls: Option<&TlsFiles>) -> Result<Asked, StepError> {
    let (mut said, mut alive) = (Vec::new(), false);
    for text in endpoints {
        let endpoint = endpoint(text, tls).map_err(StepError::permanent)?;
        let client = match answered(host.etcd(&endpoint).await)? {
            Ok(client) => client,
            Err(why) => {
                said.push(format!("{text}: {why}"));
                continue;
            }
        };
        match answered(client.status().await)? {
            Ok(status) if status.leader != 0 => return Ok(Asked::Leads(client)),
            Ok(_) => {
                alive = true;
                said.push(format!("{text}: it knows no leader (no quorum)"));
            }
            Err(why) => said.push(format!("{text}: {why}")),
        }
    }
    Ok(if alive { Asked::Leaderless(said) } else { Asked::Silent(said) })
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
