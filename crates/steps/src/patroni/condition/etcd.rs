//! How etcd's members are, as one host sees them.

use futures_util::future::join_all;

use super::seen::{Etcd, Member, MemberSays};
use crate::clients::{Etcd as Client, EtcdEndpoint, EtcdError, EtcdMember, NoEtcd};
use crate::host::Host;
use crate::patroni::settings::Settings;
use crate::support::address_and_port;

pub(super) async fn look(host: &dyn Host, settings: &Settings) -> Etcd {
    let asked = join_all(settings.endpoints.iter().map(|text| ask(host, settings, text))).await;
    let mut seen = Etcd::default();
    let mut able = None;
    for (endpoint, (says, client)) in settings.endpoints.iter().zip(asked) {
        if matches!(says, MemberSays::Answers { leader: 1.., learner: false, .. }) {
            able = able.or(client);
        }
        seen.members.push(Member { endpoint: endpoint.clone(), name: None, says });
    }
    if let Some(client) = able {
        let (alarms, listed) = tokio::join!(client.alarms(), client.members());
        seen.alarms = alarms.ok();
        let listed = listed.unwrap_or_default();
        for member in &mut seen.members {
            member.name = name(&member.endpoint, &listed);
        }
        let unstarted = listed.iter().filter(|member| member.name.is_empty());
        seen.unstarted = unstarted.map(|member| member.peer_urls.join(" ")).collect();
    }
    seen
}

async fn ask(host: &dyn Host, settings: &Settings, text: &str) -> (MemberSays, Option<Box<dyn Client>>) {
    let silent = |kind, why: String| (MemberSays::Silent(kind, why), None);
    let (address, port) = match address_and_port(text, 2379) {
        Ok(place) => place,
        Err(why) => return silent(NoEtcd::Silent, why),
    };
    let endpoint = EtcdEndpoint { address, port, tls: settings.etcd_tls.clone() };
    let status = async {
        let client = host.etcd(&endpoint).await?;
        let status = client.status().await?;
        Ok((client, status))
    };
    let status: Result<_, EtcdError> = status.await;
    match status {
        Err(error) => silent(error.kind, error.to_string()),
        Ok((client, status)) => {
            let says = MemberSays::Answers {
                id: status.member,
                version: status.version,
                leader: status.leader,
                learner: status.learner,
            };
            (says, Some(client))
        }
    }
}

/// What the member at an endpoint is called.
fn name(endpoint: &str, listed: &[EtcdMember]) -> Option<String> {
    let place = address_and_port(endpoint, 2379).ok()?;
    let is_at = |url: &String| address_and_port(url, 2379).is_ok_and(|at| at == place);
    let found = listed.iter().find(|member| member.client_urls.iter().any(is_at))?;
    Some(found.name.clone()).filter(|name| !name.is_empty())
}
