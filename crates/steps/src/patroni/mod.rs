//! Patroni: its configuration, its members, the cluster that they are.
//!
//! Everything is asked of its REST API, of etcd and of the data directories, never of `patronictl`, whose
//! exit code can't be trusted.

mod agree;
mod ancestry;
mod archive;
mod archived;
mod canary;
mod closed;
mod cluster;
mod condition;
mod config;
mod copy;
mod data_in_the_way;
mod data_matches;
mod diagnosis;
mod dynamic;
mod dynamic_config;
mod evidence;
mod has_all_of;
mod history;
mod journal;
mod leaving;
mod member;
mod mounts;
mod node_can_join;
mod off;
mod pending_restart;
mod rest;
mod restarted;
mod roles;
mod same_passwords;
mod settings;
mod socket;
mod status;
mod survey;
mod unchanged;
mod verdict;

pub use agree::PatroniAgree;
pub use ancestry::PatroniAncestry;
pub use archived::PatroniArchived;
pub use canary::PatroniCanary;
pub use closed::PatroniClosed;
pub use cluster::PatroniCluster;
pub use condition::PatroniCondition;
pub use config::PatroniConfig;
pub use copy::PatroniCopy;
pub use data_in_the_way::PatroniDataInTheWay;
pub use data_matches::PatroniDataMatches;
pub use diagnosis::{Diagnosis, PatroniFindings, Problem, Remedy};
pub use dynamic_config::PatroniDynamicConfig;
pub use evidence::PatroniEvidence;
pub use has_all_of::PatroniHasAllOf;
pub use history::PatroniHistory;
pub use leaving::{PatroniMemberAbsent, PatroniMemberCanLeave};
pub use member::{MemberRole, PatroniMember};
pub use node_can_join::PatroniNodeCanJoin;
pub use off::{PatroniArchivingOff, PatroniArchivingOn, PatroniRemovalOff};
pub use pending_restart::PatroniPendingRestart;
pub use restarted::PatroniRestarted;
pub use roles::PatroniRoles;
pub use same_passwords::PatroniSamePasswords;
pub use status::PatroniStatus;
pub use survey::PatroniSurvey;
pub use unchanged::PatroniUnchanged;
pub use verdict::PatroniVerdict;

use flow_core::step::Registry;

/// Adds these step types.
pub fn register(registry: &mut Registry) {
    registry
        .add::<PatroniConfig>()
        .add::<PatroniAgree>()
        .add::<PatroniStatus>()
        .add::<PatroniSurvey>()
        .add::<PatroniEvidence>()
        .add::<PatroniCondition>()
        .add::<PatroniAncestry>()
        .add::<PatroniVerdict>()
        .add::<PatroniFindings>()
        .add::<PatroniUnchanged>()
        .add::<PatroniDataInTheWay>()
        .add::<PatroniDataMatches>()
        .add::<PatroniCopy>()
        .add::<PatroniHasAllOf>()
        .add::<PatroniHistory>()
        .add::<PatroniMember>()
        .add::<PatroniNodeCanJoin>()
        .add::<PatroniMemberCanLeave>()
        .add::<PatroniMemberAbsent>()
        .add::<PatroniCluster>()
        .add::<PatroniCanary>()
        .add::<PatroniDynamicConfig>()
        .add::<PatroniPendingRestart>()
        .add::<PatroniRestarted>()
        .add::<PatroniRemovalOff>()
        .add::<PatroniArchivingOff>()
        .add::<PatroniArchivingOn>()
        .add::<PatroniArchived>()
        .add::<PatroniClosed>()
        .add::<PatroniRoles>()
        .add::<PatroniSamePasswords>();
}

/// Debian's unit.
pub(crate) fn unit() -> String {
    "patroni.service".to_owned()
}

/// Where Debian's unit reads its configuration (`ConditionPathExists` of patroni.service).
pub(crate) fn config_file() -> String {
    "/etc/patroni/config.yml".to_owned()
}
