//! `etcd.member_absent` and `etcd.member_can_leave`: a member taken out of etcd's cluster, and whether it can be.

use async_trait::async_trait;
use flow_core::step::{Change, Check, Context, Output, Step, StepError, StepType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::connect::validate_endpoints;
use super::members::{Members, Who, by_another, label};
use crate::clients::{EtcdMember, TlsFiles};
use crate::host::{Host, HostContext};

/// A member isn't in etcd's cluster: it is removed through another one.
///
/// Only while every other member is healthy, and never the last one. A member that was removed ends by itself, and its
/// data directory can't join again. Output: `members` (the names of those that are left), `removed` (its id, hexadecimal, or null).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EtcdMemberAbsent {
    /// `address:port` of the members; the first that answers tells who they are.
    pub endpoints: Vec<String>,
    /// TLS to etcd, and by which files of the host: `"{{ steps.configuration.etcd_tls }}"` gives those of the host's
    /// Patroni. Plain by default.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// The member's name, as `etcdctl member list` shows it. `"{{ steps.etcd_settings.hosts[HOST].name }}"`.
    pub name: String,
    /// Its URLs for peers: `["http://198.18.0.13:2380"]`. Where they are given, they decide which member it is.
    #[serde(default)]
    pub peer_urls: Vec<String>,
}

/// Proves that a member can be taken out of etcd's cluster, before anything is stopped. Changes nothing.
///
/// Refused: the last member; while another one isn't healthy, whatever their number. One that isn't there is no
/// matter. Output: `present`, `works` (it is there, votes and is healthy), `members` (their names), `tolerates` (how many of
/// those that are left may then fail).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EtcdMemberCanLeave {
    /// `address:port` of the members; the first that answers tells who they are.
    pub endpoints: Vec<String>,
    /// TLS to etcd, and by which files of the host: `"{{ steps.configuration.etcd_tls }}"` gives those of the host's
    /// Patroni. Plain by default.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// The member's name, as `etcdctl member list` shows it.
    pub name: String,
    /// Its URLs for peers. Where they are given, they decide which member it is.
    #[serde(default)]
    pub peer_urls: Vec<String>,
}

/// Whom a change removes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Removal {
    id: u64,
    name: String,
}

/// What stands in the way, or whom to remove; none: it isn't there.
fn judge(members: &Members, who: Who<'_>) -> Result<Result<Option<Removal>, String>, StepError> {
    let Some(member) = who.find(&members.all)? else { return Ok(Ok(None)) };
    let name = label(member);
    if members.other_voters(member.id) == 0 && !member.learner {
        return Ok(Err(format!("{name} is the last member of etcd: with it goes all that is in etcd")));
    }
    if let Some(why) = members.in_the_way(Some(member.id)) {
        return Ok(Err(format!("{name} can't leave etcd now: {why}")));
    }
    Ok(Ok(Some(Removal { id: member.id, name })))
}

impl StepType for EtcdMemberAbsent {
    const NAME: &'static str = "etcd.member_absent";
    const DESTRUCTIVE: bool = true;
    const NOT_UNDOABLE: &'static str =
        "a member that was removed can't come back: it is added anew, without data";

    fn validate(&self) -> Result<(), String> {
        validate_endpoints(&self.endpoints, self.tls.as_ref())?;
        if self.name.is_empty() { Err("`name` is empty".to_owned()) } else { Ok(()) }
    }
}

impl StepType for EtcdMemberCanLeave {
    const NAME: &'static str = "etcd.member_can_leave";
    const READ_ONLY: bool = true;

    fn validate(&self) -> Result<(), String> {
        validate_endpoints(&self.endpoints, self.tls.as_ref())?;
        if self.name.is_empty() { Err("`name` is empty".to_owned()) } else { Ok(()) }
    }
}

fn names(members: &Members, without: Option<u64>) -> Vec<String> {
    members.all.iter().filter(|member| Some(member.id) != without).map(label).collect()
}

impl EtcdMemberAbsent {
    fn who(&self) -> Who<'_> {
        Who { name: &self.name, peer_urls: &self.peer_urls }
    }

    async fn look(&self, host: &dyn Host) -> Result<Members, StepError> {
        Members::look(host, &self.endpoints, self.tls.as_ref()).await
    }

    fn output(members: Vec<String>, removed: Option<u64>) -> Output {
        Output::empty().with("members", members).with("removed", removed.map(|id| format!("{id:x}")))
    }
}

#[async_trait]
impl Step for EtcdMemberAbsent {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let members = self.look(&*cx.host().await?).await?;
        Ok(match judge(&members, self.who())? {
            Err(why) => Check::Refused(why),
            Ok(None) => Check::Satisfied(Self::output(names(&members, None), None)),
            Ok(Some(removal)) => {
                let left = names(&members, Some(removal.id)).join(", ");
                let summary = format!("remove {} ({:x}) from etcd; left: {left}", removal.name, removal.id);
                Check::Pending(Change::new(summary).with_data(removal))
            }
        })
    }

    async fn apply(&self, cx: &Context, change: &Change) -> Result<Output, StepError> {
        let removal: Removal = change.data()?;
        let host = cx.host().await?;
        // Looked at once more: a minute may have passed since the check.
        let members = self.look(&*host).await?;
        match judge(&members, self.who())? {
            Err(why) => return Err(StepError::permanent(why)),
            Ok(Some(now)) if now.id == removal.id => {}
            Ok(_) => return Err(StepError::permanent("etcd's members were changed meanwhile".to_owned())),
        }
        let client = by_another(&*host, &members.all, removal.id, self.tls.as_ref()).await?;
        // etcd knows no host's lock, so it is proven by itself.
        host.fence(cx.attempt()).await?;
        client.member_remove(removal.id).await?;
        Ok(Self::output(names(&members, Some(removal.id)), Some(removal.id)))
    }
}

#[async_trait]
impl Step for EtcdMemberCanLeave {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let members = Members::look(&*host, &self.endpoints, self.tls.as_ref()).await?;
        let who = Who { name: &self.name, peer_urls: &self.peer_urls };
        Ok(match judge(&members, who)? {
            Err(why) => Check::Refused(why),
            Ok(removal) => {
                let id = removal.map(|removal| removal.id);
                let works = |member: &EtcdMember| !member.learner && members.trouble(member).is_none();
                let works = members.all.iter().any(|member| Some(member.id) == id && works(member));
                let voters = members.other_voters(id.unwrap_or_default());
                let output = Output::empty()
                    .with("present", id.is_some())
                    .with("works", works)
                    .with("members", names(&members, None))
                    .with("tolerates", voters.saturating_sub(1) / 2);
                Check::Satisfied(output)
            }
        })
    }

    async fn apply(&self, _cx: &Context, _change: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Lab, pending, refused, satisfied};

    fn absent(name: &str) -> EtcdMemberAbsent {
        EtcdMemberAbsent {
            endpoints: vec!["198.18.0.11:2379".into(), "198.18.0.12:2379".into()],
            tls: None,
            name: name.into(),
            peer_urls: Vec::new(),
        }
    }

    #[tokio::test]
    async fn a_member_is_removed_through_another_and_the_others_serve_on() {
        let lab = Lab::deployed().await;
        let (change, output) = lab.establish(&absent("patroni3"), &lab.on("patroni1")).await;
        assert!(change.summary.ends_with("left: patroni1, patroni2"), "{}", change.summary);
        assert_eq!(output.0["members"], serde_json::json!(["patroni1", "patroni2"]));
        let again = absent("patroni3").apply(&lab.on("patroni1"), &change).await.unwrap_err();
        assert_eq!(again.message, "etcd's members were changed meanwhile");
        let unit = lab.on("patroni3").host().await.unwrap().unit("etcd.service").await.unwrap();
        assert_eq!(unit.active, "inactive", "a member that was removed ends");
    }

    #[tokio::test]
    async fn one_other_that_is_ill_keeps_all_as_they_are() {
        let lab = Lab::deployed().await;
        lab.world.kill("patroni2").unwrap();
        let why = refused(absent("patroni3").check(&lab.on("patroni1")).await.unwrap());
        assert!(why.contains("1 of 2 are: patroni2: "), "{why}");
        // The one that is ill may go itself.
        pending(absent("patroni2").check(&lab.on("patroni1")).await.unwrap());
    }

    #[tokio::test]
    async fn the_last_member_stays() {
        let lab = Lab::deployed().await;
        for name in ["patroni3", "patroni2"] {
            lab.establish(&absent(name), &lab.on("patroni1")).await;
        }
        let why = refused(absent("patroni1").check(&lab.on("patroni1")).await.unwrap());
        assert!(why.contains("last member of etcd"), "{why}");
        let lab = Lab::deployed().await;
        let other =
            EtcdMemberAbsent { peer_urls: vec!["http://198.18.0.99:2380".into()], ..absent("patroni3") };
        let error = other.check(&lab.on("patroni1")).await.unwrap_err();
        assert!(error.message.contains("none of http://198.18.0.99:2380"), "{}", error.message);
        let gone = EtcdMemberAbsent { peer_urls: other.peer_urls, ..absent("patroni9") };
        satisfied(gone.check(&lab.on("patroni1")).await.unwrap());
    }
}
