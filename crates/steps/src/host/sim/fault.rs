//! Faults: what a call is told to do instead of answering. Kept in the world's state, each used up
//! when it fires. Knows nothing of what calls do.

use serde::{Deserialize, Serialize};

/// Which call a fault waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// The n-th call from now on the fault's host (any host where it names none); 1 is the next one.
    Nth(u32),
    /// The first call whose text contains this one.
    ///
    /// The text is the verb and its arguments, and of changes the attempt's name:
    /// `change rename /a -> /b by flow-RUN-...`, `run true by ...`, `probe test -e /x`, `stat /etc`,
    /// `read`, `list`, `unit`, `processes`, `packages`, `facts`, `lock`, `attempt`, `fence`,
    /// `http GET /patroni`, `etcd keys /service/demo/`, `etcd delete-prefix ...`, `sql select 1`.
    Containing(String),
    /// The n-th call from now on that changes something; 1 is the next one.
    Effect(u32),
}

/// What happens at that call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// Nothing is done; the caller gets `Failed` with this message.
    Fail(String),
    /// It is done; the caller gets `Lost`.
    LoseAnswer,
    /// Nothing is done; the caller gets `Lost`.
    LoseRequest,
    /// Nothing is done, and no answer ever comes.
    Hang,
    /// Nothing is done; the caller gets `Unreachable`.
    Unreachable,
    /// It is done, and the calling process aborts before it hears of it.
    Crash,
    /// Nothing is done, and the calling process aborts.
    CrashBefore,
}

/// One fault that waits for its call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The host that is called; `None`: any.
    pub host: Option<String>,
    /// The call.
    pub call: Call,
    /// What happens then.
    pub kind: FaultKind,
}

impl Fault {
    /// A fault at the first call on `host` whose text contains `text`.
    pub fn at(host: &str, text: &str, kind: FaultKind) -> Self {
        Self { host: Some(host.to_owned()), call: Call::Containing(text.to_owned()), kind }
    }

    /// A fault at the n-th call on `host` from now on.
    pub fn nth(host: &str, n: u32, kind: FaultKind) -> Self {
        Self { host: Some(host.to_owned()), call: Call::Nth(n), kind }
    }
}

/// What the faults say to one call.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The fault that fires, taken from the list.
    pub(super) fires: Option<FaultKind>,
    /// The list was changed: a fault was used up, or a count went down.
    pub(super) changed: bool,
}

/// Finds the first fault that this call fires and takes it; every counting one counts the call.
pub(super) fn take(faults: &mut Vec<Fault>, host: &str, text: &str) -> Verdict {
    let mut verdict = Verdict { fires: None, changed: false };
    let mut fired = None;
    for (index, fault) in faults.iter_mut().enumerate() {
        if fault.host.as_deref().is_some_and(|name| name != host) {
            continue;
        }
        let due = match &mut fault.call {
            Call::Nth(n) => {
                *n = n.saturating_sub(1);
                verdict.changed = true;
                *n == 0
            }
            Call::Containing(part) => text.contains(part.as_str()),
            // Known only once the call was carried out: see `world`.
            Call::Effect(_) => false,
        };
        if due && fired.is_none() {
            fired = Some(index);
        }
    }
    if let Some(index) = fired {
        verdict.fires = Some(faults.remove(index).kind);
        verdict.changed = true;
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_fires_once_at_its_call_and_on_its_host_only() {
        let mut faults = vec![Fault::at("a", "rename", FaultKind::Hang)];
        assert_eq!(take(&mut faults, "b", "change rename x"), Verdict { fires: None, changed: false });
        assert_eq!(take(&mut faults, "a", "stat /x").fires, None);
        assert_eq!(take(&mut faults, "a", "change rename x").fires, Some(FaultKind::Hang));
        assert_eq!(take(&mut faults, "a", "change rename x").fires, None);
    }

    #[test]
    fn the_nth_call_is_counted_from_the_placing() {
        let mut faults = vec![Fault::nth("a", 3, FaultKind::Crash)];
        assert_eq!(take(&mut faults, "a", "1").fires, None);
        assert_eq!(take(&mut faults, "b", "-").fires, None);
        assert_eq!(take(&mut faults, "a", "2").fires, None);
        assert_eq!(take(&mut faults, "a", "3").fires, Some(FaultKind::Crash));
        assert!(faults.is_empty());
    }
}
