//! How etcd's members are, as one host sees them.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::seen::{Etcd, Member, MemberSays};
use crate::clients::{Etcd as Client, EtcdEndpoint, EtcdError, EtcdMember, EtcdStatus, LOOK_AGAIN, NoEtcd};
use crate::etcd::status;
use crate::host::Host;
use crate::patroni::settings::Settings;
use crate::support::{address_and_port, within};

/// How long a member may know no leader: an election takes one to two seconds by etcd's defaults.
const ELECTED_WITHIN: Duration = Duration::from_secs(2);

/// A member's endpoint as it is written, and a client of it, or why there is none.
pub(super) type Asked = (String, Result<(EtcdEndpoint, Box<dyn Client>), (NoEtcd, String)>);

/// Whom the host's Patroni names. What is read on the host to speak to them is read here.
pub(super) async fn members(host: &dyn Host, settings: &Settings) -> Vec<Asked> {
    let ask = |text: &String| {
        let text = text.clone();
        async move {
            let client = client(host, settings, &text).await;
            (text, client)
        }
    };
    join_all(settings.endpoints.iter().map(ask)).await
}

async fn client(
    host: &dyn Host,
    settings: &Settings,
    text: &str,
) -> Result<(EtcdEndpoint, Box<dyn Client>), (NoEtcd, String)> {
    let (address, port) = address_and_port(text, 2379).map_err(|why| (NoEtcd::Silent, why))?;
    let endpoint = EtcdEndpoint { address, port, tls: settings.etcd_tls.clone() };
    match host.etcd(&endpoint).await.map_err(EtcdError::from) {
        Ok(client) => Ok((endpoint, client)),
        Err(error) => Err((error.kind, error.to_string())),
    }
}

/// What they say. With `patience`, nothing is waited for longer than that.
pub(super) async fn look(host: &dyn Host, members: Vec<Asked>, patience: Option<Duration>) -> Etcd {
    let ask = |(endpoint, client): Asked| async move {
        let (says, client) = ask(host, client, patience).await;
        (Member { endpoint, name: None, says }, client)
    };
    let mut seen = Etcd::default();
    let mut able = None;
    for (member, client) in join_all(members.into_iter().map(ask)).await {
        if matches!(member.says, MemberSays::Answers { leader: 1.., learner: false, .. }) {
            able = able.or(client);
        }
        seen.members.push(member);
    }
    if let Some(client) = able {
        let (alarms, listed) =
            tokio::join!(within(patience, client.alarms()), within(patience, client.members()));
        seen.alarms = alarms.and_then(Result::ok);
        let listed = listed.and_then(Result::ok).unwrap_or_default();
        for member in &mut seen.members {
            member.name = name(&member.endpoint, &listed);
        }
        let unstarted = listed.iter().filter(|member| member.name.is_empty());
        seen.unstarted = unstarted.map(|member| member.peer_urls.join(" ")).collect();
    }
    seen
}

async fn ask(
    host: &dyn Host,
    client: Result<(EtcdEndpoint, Box<dyn Client>), (NoEtcd, String)>,
    patience: Option<Duration>,
) -> (MemberSays, Option<Box<dyn Client>>) {
    let (endpoint, client) = match client {
        Ok(made) => made,
        Err((kind, why)) => return (MemberSays::Silent(kind, why), None),
    };
    let began = Instant::now();
    let mut said = status(host, &endpoint, &*client, patience).await;
    // As long as an election may take.
    while said.as_ref().is_ok_and(|said| said.leader == 0 && !said.learner)
        && began.elapsed() < ELECTED_WITHIN
    {
        tokio::time::sleep(LOOK_AGAIN).await;
        said = status(host, &endpoint, &*client, patience).await;
    }
    match said {
        Ok(EtcdStatus { member: id, version, leader, learner, .. }) => {
            (MemberSays::Answers { id, version, leader, learner }, Some(client))
        }
        Err(error) => (MemberSays::Silent(error.kind, error.to_string()), None),
    }
}

/// What the member at an endpoint is called.
fn name(endpoint: &str, listed: &[EtcdMember]) -> Option<String> {
    let place = address_and_port(endpoint, 2379).ok()?;
    let is_at = |url: &String| address_and_port(url, 2379).is_ok_and(|at| at == place);
    let found = listed.iter().find(|member| member.client_urls.iter().any(is_at))?;
    Some(found.name.clone()).filter(|name| !name.is_empty())
}
