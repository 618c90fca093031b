//! Finding a member of etcd that can answer for the cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use flow_core::step::StepError;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::clients::{
    Etcd, EtcdEndpoint, EtcdError, EtcdStatus, LOOK_AGAIN, NoEtcd, SETTLES_WITHIN, TlsFiles,
};
use crate::host::{Host, HostError};
use crate::support::{address_and_port, within};

/// etcd's port for clients.
const PORT: u16 = 2379;

/// How long a member is waited for before the next one is asked too.
const ASK_NEXT_AFTER: Duration = Duration::from_millis(500);

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
    Ok(reach(host, endpoints, tls, None).await??)
}

/// As [`connect`]; the inner error says why etcd can't answer. With `patience`, no member is waited for longer than that.
///
/// # Errors
/// That the host by which it is asked can't be reached.
pub(crate) async fn reach(
    host: &dyn Host,
    endpoints: &[String],
    tls: Option<&TlsFiles>,
    patience: Option<Duration>,
) -> Result<Result<Box<dyn Etcd>, Nobody>, StepError> {
    let began = Instant::now();
    let settles_within = patience.unwrap_or(SETTLES_WITHIN);
    loop {
        let nobody = match ask(host, endpoints, tls, patience).await? {
            Ok(client) => return Ok(Ok(client)),
            Err(nobody) => nobody,
        };
        if nobody.kind != NoEtcd::NoQuorum || began.elapsed() >= settles_within {
            // The members are asked through this host: where it is cut off, that is what is wrong, not etcd.
            host.probe(":").await?;
            return Ok(Err(nobody));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Asks one member after another, the next one also where those before take their time: a dead one costs a moment.
async fn ask(
    host: &dyn Host,
    endpoints: &[String],
    tls: Option<&TlsFiles>,
    patience: Option<Duration>,
) -> Result<Result<Box<dyn Etcd>, Nobody>, StepError> {
    let mut next = endpoints.iter().enumerate();
    let mut asked = FuturesUnordered::new();
    let mut said = BTreeMap::new();
    loop {
        if let Some((place, text)) = next.next() {
            let endpoint = endpoint(text, tls).map_err(StepError::permanent)?;
            asked.push(async move { (place, one(host, &endpoint, patience).await) });
        }
        let answer = tokio::select! {
            answer = asked.next() => answer,
            () = tokio::time::sleep(ASK_NEXT_AFTER), if next.len() > 0 => continue,
        };
        let Some((place, answer)) = answer else { break };
        let (kind, why) = match answer {
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
        said.insert(place, (kind, format!("{}: {why}", endpoints[place])));
    }
    let kind = said.values().map(|(kind, _)| *kind).max().unwrap_or(NoEtcd::Silent);
    Ok(Err(Nobody { kind, said: said.into_values().map(|(_, why)| why).collect() }))
}

/// A member, and what it says of itself.
async fn one(
    host: &dyn Host,
    endpoint: &EtcdEndpoint,
    patience: Option<Duration>,
) -> Result<(Box<dyn Etcd>, EtcdStatus), EtcdError> {
    let client = host.etcd(endpoint).await?;
    let status = status(host, endpoint, &*client, patience).await?;
    Ok((client, status))
}

/// What a member says of itself, where it does so in time.
pub(crate) async fn status(
    host: &dyn Host,
    endpoint: &EtcdEndpoint,
    client: &dyn Etcd,
    patience: Option<Duration>,
) -> Result<EtcdStatus, EtcdError> {
    within(patience, client.status()).await.unwrap_or_else(|| {
        let EtcdEndpoint { address, port, .. } = endpoint;
        let seconds = patience.unwrap_or_default().as_secs_f32();
        let message = format!("etcd at {address}:{port}: no answer within {seconds:.1} s");
        Err(EtcdError::new(NoEtcd::Silent, HostError::Lost { host: host.name().to_owned(), message }))
    })
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
    use crate::host::sim::{Fault, FaultKind};
    use crate::testing::{HOSTS, Lab};

    #[tokio::test]
    async fn a_member_that_never_answers_holds_nobody_up_and_one_that_is_waited_for_is_named() {
        let lab = Lab::deployed().await;
        let host = lab.world.host("patroni1");
        let endpoints: Vec<String> = HOSTS.iter().map(|(_, address)| format!("{address}:2379")).collect();
        let hang = || lab.world.inject(Fault::at("patroni1", "etcd status", FaultKind::Hang)).unwrap();
        hang();
        connect(&*host, &endpoints, None).await.unwrap();
        hang();
        let patience = Some(Duration::from_millis(50));
        let nobody = reach(&*host, &endpoints[..1], None, patience).await.unwrap().err().unwrap();
        assert_eq!(nobody.kind, NoEtcd::Silent);
        assert!(nobody.said[0].contains("198.18.0.11:2379: no answer within"), "{:?}", nobody.said);
    }

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
