//! What is compared: the hosts' state, and how often each change was made.

use crate::system::CANDIDATE;
use std::collections::BTreeMap;

use crate::host::sim::WorldState;

/// How a run left the hosts.
pub(super) struct End {
    outline: BTreeMap<String, usize>,
    any_leader: BTreeMap<String, usize>,
    effects: BTreeMap<String, usize>,
}

impl End {
    pub(super) fn of(state: &WorldState) -> Self {
        Self {
            outline: lines(&state.outline()),
            any_leader: lines(&state.outline_without_roles()),
            effects: state.effect_counts().into_iter().filter(|(text, _)| !is_of_candidate(text)).collect(),
        }
    }

    /// The same without the effects of a task that may be run again.
    pub(super) fn without(mut self, effects: &[String]) -> Self {
        self.effects.retain(|text, _| !effects.contains(text));
        self
    }

    /// The lines by which `other` differs from this one: `-` is missing there, `+` is more.
    pub(super) fn differences(&self, other: &Self) -> Vec<String> {
        let mut lines = differences(&self.outline, &other.outline);
        // Who leads is left to chance where Patroni starts on several hosts.
        if differences(&self.any_leader, &other.any_leader).is_empty() {
            lines.clear();
        }
        lines.extend(self.effects_that_differ(other));
        lines
    }

    fn effects_that_differ(&self, other: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        let texts =
            self.effects.keys().chain(other.effects.keys().filter(|text| !self.effects.contains_key(*text)));
        for text in texts {
            let count = |end: &Self| end.effects.get(text).copied().unwrap_or(0);
            if count(self) != count(other) {
                lines.push(format!("done {} instead of {}: {text}", times(count(other)), times(count(self))));
            }
        }
        lines
    }
}

/// New content that a program is asked about is written and removed as often as it is asked: what counts is
/// that it takes the file's place once.
fn is_of_candidate(effect: &str) -> bool {
    let by_itself = ["change write-file", "change remove-file"].iter().any(|verb| effect.contains(verb));
    by_itself && effect.rsplit('/').next().is_some_and(|name| name.starts_with(CANDIDATE))
}

fn times(count: usize) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        count => format!("{count} times"),
    }
}

/// The lines by which a state differs from an earlier one, without who leads.
pub(super) fn state_differences(before: &WorldState, after: &WorldState) -> Vec<String> {
    differences(&lines(&before.outline_without_roles()), &lines(&after.outline_without_roles()))
}

fn lines(text: &str) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    for line in text.lines() {
        *lines.entry(line.to_owned()).or_default() += 1;
    }
    lines
}

fn differences(before: &BTreeMap<String, usize>, after: &BTreeMap<String, usize>) -> Vec<String> {
    let only =
        |mark: char, these: &BTreeMap<String, usize>, those: &BTreeMap<String, usize>| -> Vec<String> {
            let gone = these.iter().filter(|(line, count)| those.get(*line) != Some(*count));
            gone.map(|(line, _)| format!("{mark} {}", short(line))).collect()
        };
    let mut lines = only('-', before, after);
    lines.extend(only('+', after, before));
    lines.sort_by(|a, b| a[2..].cmp(&b[2..]).then(b.cmp(a)));
    lines
}

/// A line of a screen's length; a long one without its middle.
fn short(line: &str) -> String {
    const LONGEST: usize = 160;
    let length = line.chars().count();
    if length <= LONGEST {
        return line.to_owned();
    }
    let start: String = line.chars().take(LONGEST / 2).collect();
    let end: String = line.chars().skip(length - LONGEST / 2).collect();
    format!("{start} [...] {end}")
}
