//! What several step types need to know before a change of etcd's members: who they are, and whether each of the
//! others is healthy now. Counting members is not enough: two of three that are there may be one that works.

use futures_util::future::try_join_all;

use flow_core::step::StepError;

use super::connect::{connect, endpoint};
use crate::clients::{Etcd, EtcdMember, TlsFiles};
use crate::host::Host;
use crate::support::answered;

/// How a member is recognised: by a URL for its peers, else by its name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Who<'a> {
    pub(super) name: &'a str,
    pub(super) peer_urls: &'a [String],
}

impl Who<'_> {
    fn is(self, member: &EtcdMember) -> bool {
        member.peer_urls.iter().any(|url| self.peer_urls.contains(url))
    }

    /// The member that this is, if there is one.
    ///
    /// # Errors
    /// Its name is another member's.
    pub(super) fn find(self, members: &[EtcdMember]) -> Result<Option<&EtcdMember>, StepError> {
        let by_url = members.iter().find(|member| self.is(member));
        let by_name = members.iter().find(|member| !self.name.is_empty() && member.name == self.name);
        match (by_url, by_name) {
            (None, Some(other)) if !self.peer_urls.is_empty() => Err(StepError::permanent(format!(
                "etcd has a member {} at {}, and it is none of {}",
                self.name,
                other.peer_urls.join(", "),
                self.peer_urls.join(", ")
            ))
            .with_hint("two hosts have one name in etcd: see /etc/default/etcd on them")),
            (by_url, by_name) => Ok(by_url.or(by_name)),
        }
    }
}

/// The members as etcd lists them, and what is wrong with those that don't work.
pub(super) struct Members {
    pub(super) all: Vec<EtcdMember>,
    /// Member id to what is wrong.
    troubles: Vec<(u64, String)>,
}

impl Members {
    /// Asks one member for the list, and then each of them for its health.
    pub(super) async fn look(
        host: &dyn Host,
        endpoints: &[String],
        tls: Option<&TlsFiles>,
    ) -> Result<Self, StepError> {
        let all = connect(host, endpoints, tls).await?.members().await?;
        let troubles = try_join_all(all.iter().map(|member| trouble(host, member, tls))).await?;
        let troubles = all.iter().zip(troubles).filter_map(|(member, why)| Some((member.id, why?))).collect();
        Ok(Self { all, troubles })
    }

    /// Why the members can't be changed now, other than by `except`; none where all others are healthy and vote.
    pub(super) fn in_the_way(&self, except: Option<u64>) -> Option<String> {
        let others = || self.all.iter().filter(|member| Some(member.id) != except);
        if let Some(learner) = others().find(|member| member.learner) {
            return Some(format!(
                "{} is a learner of etcd still, and only one change of the members is made at a time",
                label(learner)
            ));
        }
        let ill: Vec<String> = others().filter_map(|member| self.trouble(member)).collect();
        (!ill.is_empty()).then(|| {
            let (works, of) = (others().count() - ill.len(), others().count());
            format!(
                "etcd's members are changed only while all others are healthy, and {works} of {of} are: {}",
                ill.join("; ")
            )
        })
    }

    /// What is wrong with a member, with its name.
    pub(super) fn trouble(&self, member: &EtcdMember) -> Option<String> {
        let (_, why) = self.troubles.iter().find(|(id, _)| *id == member.id)?;
        Some(format!("{}: {why}", label(member)))
    }

    /// Those who vote, other than `id`.
    pub(super) fn other_voters(&self, id: u64) -> usize {
        self.all.iter().filter(|member| member.id != id && !member.learner).count()
    }
}

/// A member's name; before its first start, its address for peers.
pub(super) fn label(member: &EtcdMember) -> String {
    if member.name.is_empty() { member.peer_urls.join(", ") } else { member.name.clone() }
}

/// A client of another member than this one, one that works.
///
/// # Errors
/// None does.
pub(super) async fn by_another(
    host: &dyn Host,
    members: &[EtcdMember],
    id: u64,
    tls: Option<&TlsFiles>,
) -> Result<Box<dyn Etcd>, StepError> {
    let others = members.iter().filter(|member| member.id != id && !member.learner);
    let endpoints: Vec<String> = others.filter_map(|member| member.client_urls.first().cloned()).collect();
    connect(host, &endpoints, tls).await
}

/// Asks a member whether it works: it knows a leader, has no alarm, and a read through it reaches a majority.
async fn trouble(
    host: &dyn Host,
    member: &EtcdMember,
    tls: Option<&TlsFiles>,
) -> Result<Option<String>, StepError> {
    let Some(url) = member.client_urls.first() else {
        return Ok(Some("it was added, and never started".to_owned()));
    };
    let endpoint = endpoint(url, tls).map_err(StepError::permanent)?;
    let client = match answered(host.etcd(&endpoint).await)? {
        Ok(client) => client,
        Err(why) => return Ok(Some(why)),
    };
    let status = match answered(client.status().await)? {
        Ok(status) => status,
        Err(why) => return Ok(Some(why)),
    };
    if status.leader == 0 {
        return Ok(Some("it knows no leader".to_owned()));
    }
    if status.member != member.id {
        return Ok(Some(format!("at {url} another member answers ({:x})", status.member)));
    }
    if !status.errors.is_empty() {
        return Ok(Some(status.errors.join(", ")));
    }
    // A learner answers no such question.
    let read =
        if member.learner { Ok(Ok(Vec::new())) } else { answered(client.keys("/flow/no-such-key").await) };
    Ok(read?.err())
}
