//! From what was seen of a cluster to what is wrong with it: a pure function, without a host or a clock.
//!
//! It holds to four rules. What isn't known counts for nothing. The number of members that say so decides nothing: two that were
//! initialised anew may have elected a leader against the third, which has the data. The highest timeline isn't the newest
//! data. And no member is called the right one, or another one worthless, while somebody may have a row that it lacks.

mod ancestry;
mod apart;
mod drift;
mod evidence;
mod judge;
mod keep;
#[cfg(test)]
mod keep_tests;
#[cfg(test)]
mod matrix;
mod step;
mod surgery;
#[cfg(test)]
pub(super) mod tests;
mod wish;
mod words;

pub(in crate::patroni) use ancestry::meeting;
pub(super) use ancestry::{Kinship, kinship};
pub(super) use apart::Apart;
pub(super) use drift::drift;
pub(crate) use evidence::{
    Cluster, Configuration, Data, Key, Keys, Node, PatroniUnit, Record, Store, Written,
};
pub(crate) use judge::judge;
pub(in crate::patroni) use judge::{disagreements, streaming};
pub use step::PatroniVerdict;
pub(crate) use surgery::Surgery;
pub(crate) use wish::{Wish, judge_for};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is wrong, if anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// One leads, all others stream from it, and the key says the same.
    Healthy { leader: String },
    /// The `initialize` key is gone and the leader lives: Patroni writes it back by itself.
    KeyGoneLeaderAlive { leader: String, identifier: String },
    /// The key is wrong or gone, nobody leads, and `keeper` has all that any member has. `revision` is the key's, 0 where
    /// there is none.
    KeyWrong { identifier: String, keeper: String, revision: i64 },
    /// `members` belong to another cluster and hold nothing; the leader lives and has all that the others have.
    Disposable { leader: String, members: Vec<String> },
    /// The evidence doesn't decide, and the operator says that the data of `keeper` is kept.
    Kept { keeper: String },
    /// The system identifiers are not what is wrong. `keeper` leads, or is to be started first: it has all that any member has.
    NoMismatch { keeper: String },
    /// It can't be told whose data is the right one.
    Undecided,
    /// Members that aren't in the inventory share the scope.
    TwoClusters,
    /// The cluster's state is kept where flow doesn't look.
    NotSupported,
}

impl Verdict {
    /// The word for it, as in `patroni.verdict`'s output.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Healthy { .. } => "healthy",
            Self::KeyGoneLeaderAlive { .. } => "key-gone-leader-alive",
            Self::KeyWrong { .. } => "key-wrong",
            Self::Disposable { .. } => "disposable",
            Self::Kept { .. } => "kept",
            Self::NoMismatch { .. } => "no-mismatch",
            Self::Undecided => "undecided",
            Self::TwoClusters => "two-clusters",
            Self::NotSupported => "not-supported",
        }
    }
}

/// A verdict and what it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Judgement {
    /// What is wrong.
    #[serde(flatten)]
    pub(crate) verdict: Verdict,
    /// What is done about it; nothing where nothing is.
    #[serde(default)]
    pub(crate) surgery: Surgery,
    /// Hosts whose data isn't proven to be in the leader's, or, where nobody leads, in one member's: to start or to clone
    /// one of them could cost rows.
    #[serde(default)]
    pub(crate) apart: BTreeMap<String, Apart>,
    /// Why, in plain words.
    pub(crate) reasons: Vec<String>,
    /// What was seen: a line for the keys, and one for each host, by its name.
    pub(crate) evidence: Vec<String>,
}
