//! What the operator wants beyond what the evidence decides.

use indexmap::IndexMap;

use super::evidence::Node;
use super::judge::{Nodes, judge, keys};
use super::keep::keep;
use super::surgery::Surgery;
use super::{Judgement, Verdict};

/// What the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish<'a> {
    /// Whatever the evidence decides.
    None,
    /// The data of this host is kept where the evidence doesn't decide; `again`: also where it would by now.
    Keep { host: &'a str, again: bool },
    /// Everything is set aside, and this host begins anew.
    Reset { first: &'a str },
}

/// As [`judge`], with what the operator wants. Two clusters in one scope, and another store, stay what they are.
pub(crate) fn judge_for(nodes: &IndexMap<String, Node>, wish: Wish<'_>) -> Judgement {
    let judged = judge(nodes);
    let nodes: Nodes<'_> = nodes.iter().map(|(host, node)| (host.as_str(), node)).collect();
    match wish {
        Wish::None => judged,
        Wish::Reset { first } => Judgement { surgery: Surgery::reset(&nodes, first), ..judged },
        Wish::Keep { host, again } => {
            let open = match judged.verdict {
                Verdict::Undecided => true,
                Verdict::Disposable { .. }
                | Verdict::KeyWrong { .. }
                | Verdict::NoMismatch { .. }
                | Verdict::Kept { .. } => again,
                Verdict::Healthy { .. }
                | Verdict::KeyGoneLeaderAlive { .. }
                | Verdict::TwoClusters
                | Verdict::NotSupported => false,
            };
            if !open {
                return judged;
            }
            match keep(&nodes, keys(&nodes).0, host) {
                Ok((surgery, reasons)) => Judgement {
                    verdict: Verdict::Kept { keeper: host.to_owned() },
                    surgery,
                    reasons,
                    ..judged
                },
                Err(reasons) => {
                    let verdict = Verdict::Undecided;
                    Judgement { verdict, surgery: Surgery::default(), reasons, ..judged }
                }
            }
        }
    }
}
