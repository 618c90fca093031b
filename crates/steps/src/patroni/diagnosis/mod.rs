//! What is wrong with a cluster, in plain words, with what mends it: the verdict, and all else that was seen.
//!
//! A pure function from what was seen to findings, the gravest first; a file for each subject. The verdict is about whose data is
//! the right one and may lead to surgery; the other findings only tell. Neither changes the other.

mod clients;
mod cluster;
mod etcd;
mod leader;
mod members;
mod sight;
mod step;
mod storage;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use flow_core::step::StepError;
use serde::{Deserialize, Serialize};

use super::verdict::{Verdict, judge};
use sight::Sight;
pub use step::PatroniFindings;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// Nothing is wrong.
    pub healthy: bool,
    /// `healthy`, `disposable`, `undecided` ...: what `patroni.verdict` says.
    pub verdict: String,
    /// Why it says so.
    pub reasons: Vec<String>,
    /// What is wrong, the gravest first.
    pub problems: Vec<Problem>,
    /// What was seen: lines for etcd, for each host, and for each balancer.
    pub evidence: Vec<String>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Its kind, such as `no-leader`; stable.
    pub kind: Cow<'static, str>,
    /// What is wrong, a sentence.
    pub what: String,
    /// `proven`, or `seen`: true at the moment of the look, and perhaps passing.
    pub sure: Cow<'static, str>,
    /// What it is told from.
    pub because: Vec<String>,
    /// What mends it, where flow knows.
    pub remedy: Option<Remedy>,
}

/// What mends a problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remedy {
    /// What to do, a sentence.
    pub what: String,
    /// The command, where one does it.
    pub command: Option<String>,
    /// What it touches.
    pub touches: String,
}

/// Says what is wrong, by what was seen.
fn diagnose(looks: &PatroniFindings) -> Result<Diagnosis, StepError> {
    let mut sight = Sight::of(looks)?;
    let judgement = judge(&sight.nodes);
    let first = cluster::problems(&sight, &judgement);
    let diverged = cluster::diverged(&sight, &judgement);
    let nobody_leads = sight.leaders().is_empty();
    sight.start_nothing = first.as_ref().is_some_and(|first| first.kind != "key-gone")
        || nobody_leads && !judgement.apart.is_empty();
    sight.apart = judgement.apart.keys().cloned().collect();
    sight.first = match &judgement.verdict {
        Verdict::NoMismatch { keeper } if nobody_leads => Some(keeper.clone()),
        _ => None,
    };
    let mut problems: Vec<Problem> = first.into_iter().chain(diverged).collect();
    problems.extend(cluster::disagree(&sight));
    problems.extend(etcd::problems(&sight));
    problems.extend(leader::problems(&sight, &judgement));
    problems.extend(members::problems(&sight));
    problems.extend(storage::problems(&sight));
    problems.extend(clients::problems(&sight));
    problems.extend(sight.unseen());
    Ok(Diagnosis {
        healthy: problems.is_empty() && matches!(judgement.verdict, Verdict::Healthy { .. }),
        verdict: judgement.verdict.name().to_owned(),
        reasons: judgement.reasons,
        problems,
        evidence: judgement.evidence.into_iter().chain(sight.lines()).collect(),
    })
}

fn problem(kind: &'static str, sure: &'static str, what: impl Into<String>) -> Problem {
    Problem { kind: kind.into(), what: what.into(), sure: sure.into(), because: Vec::new(), remedy: None }
}

fn proven(kind: &'static str, what: impl Into<String>) -> Problem {
    problem(kind, "proven", what)
}

fn seen(kind: &'static str, what: impl Into<String>) -> Problem {
    problem(kind, "seen", what)
}

impl Problem {
    fn because<T: Into<String>>(self, because: impl IntoIterator<Item = T>) -> Self {
        Self { because: because.into_iter().map(Into::into).collect(), ..self }
    }

    fn mended(self, what: impl Into<String>, command: Option<String>, touches: impl Into<String>) -> Self {
        Self { remedy: Some(Remedy { what: what.into(), command, touches: touches.into() }), ..self }
    }
}
