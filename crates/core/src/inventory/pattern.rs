//! Ansible's host patterns: `all`, `a:b`, `a,b`, `web*`, `~web[0-9]+`, `:!x`, `:&x`, `group[0]`, `group[0:1]`.

mod glob;

use indexmap::IndexSet;

use super::Inventory;
use super::builder::ALL;
use crate::workflow::nearest;
use glob::Glob;

/// A pattern that can't be read, or names what isn't there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing in it.
    #[error("the pattern is empty")]
    Empty,
    /// Neither a host nor a group has that name.
    #[error("there is no host or group `{name}`")]
    Unknown {
        /// The name.
        name: String,
        /// The one that comes nearest.
        near: Option<String>,
    },
    /// A host and a group of other hosts share the name.
    #[error("`{0}` is both a host and a group")]
    Ambiguous(String),
    /// `group[5]` of a group that has fewer.
    #[error("`{pattern}` asks for more than is there: it has {count}")]
    Subscript {
        /// The pattern with its subscript.
        pattern: String,
        /// How many hosts there are.
        count: usize,
    },
    /// `~...` that is no regular expression.
    #[error("`{0}` is no regular expression that can be read")]
    Regex(String),
    /// `@...` names a file that can't be read.
    #[error("`{path}` can't be read: {why}")]
    File {
        /// The file.
        path: String,
        /// Why not.
        why: String,
    },
    /// Brackets that can't be read.
    #[error("`{0}` has a bracket without its counterpart")]
    Brackets(String),
}

impl PatternError {
    /// The next action.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Empty => Some("name a host or a group, or `all`".to_owned()),
            Self::Unknown { near, .. } => near.as_ref().map(|near| format!("did you mean `{near}`?")),
            Self::Ambiguous(_) => Some("rename one of them".to_owned()),
            Self::Subscript { .. } => Some("they are counted from 0; [-1] is the last".to_owned()),
            Self::Regex(_) => Some("there is no look-around here; a `:` or `,` ends a pattern".to_owned()),
            Self::File { .. } => Some("`@FILE` names a file with a pattern on each line".to_owned()),
            Self::Brackets(_) => None,
        }
    }
}

impl Inventory {
    /// The hosts that an Ansible pattern stands for, each once, in Ansible's order: that of the
    /// pattern's parts, and within a group that of [`Inventory::groups`]. May be empty.
    ///
    /// Unions first, then all `&`, then all `!`, wherever they stand. With only those, they work on
    /// `all`. A glob may match nothing; a plain name must be there, also one that is excluded.
    ///
    /// # Errors
    /// See [`PatternError`].
    pub fn select(&self, pattern: &str) -> Result<Vec<String>, PatternError> {
        let parts = split(pattern)?;
        let (mut union, mut keep, mut drop) = (Vec::new(), Vec::new(), Vec::new());
        for part in &parts {
            match part.split_at_checked(1) {
                Some(("&", rest)) => keep.push(rest.trim()),
                Some(("!", rest)) => drop.push(rest.trim()),
                _ => union.push(part.as_str()),
            }
        }
        if union.is_empty() {
            union.push(ALL);
        }
        let mut hosts = IndexSet::new();
        for part in union {
            hosts.extend(self.matching(part)?);
        }
        for part in keep {
            let kept: IndexSet<&str> = self.matching(part)?.into_iter().collect();
            hosts.retain(|host| kept.contains(host));
        }
        for part in drop {
            let dropped: IndexSet<&str> = self.matching(part)?.into_iter().collect();
            hosts.retain(|host| !dropped.contains(host));
        }
        Ok(hosts.into_iter().map(str::to_owned).collect())
    }

    /// The hosts of one part, without its `!` or `&`.
    fn matching(&self, part: &str) -> Result<Vec<&str>, PatternError> {
        if part.is_empty() {
            return Err(PatternError::Empty);
        }
        if let Some(regex) = part.strip_prefix('~') {
            // It need not match to the end, as in Ansible.
            let regex = regex::Regex::new(&format!(r"\A(?:{regex})"))
                .map_err(|_| PatternError::Regex(part.to_owned()))?;
            return Ok(self.named_like(|name| regex.is_match(name)));
        }
        let (name, subscript) = split_subscript(part);
        let hosts = self.named(name)?;
        match subscript {
            Some(subscript) => subscript
                .apply(&hosts)
                .ok_or_else(|| PatternError::Subscript { pattern: part.to_owned(), count: hosts.len() }),
            None => Ok(hosts),
        }
    }

    fn named(&self, name: &str) -> Result<Vec<&str>, PatternError> {
        let host = self.hosts.get_key_value(name).map(|(host, _)| host.as_str());
        let group = self.groups.get(name).map(|hosts| hosts.iter().map(String::as_str).collect::<Vec<_>>());
        match (host, group) {
            (Some(host), Some(group)) if group != [host] => Err(PatternError::Ambiguous(name.to_owned())),
            (Some(host), _) => Ok(vec![host]),
            (None, Some(group)) => Ok(group),
            (None, None) if glob::is_glob(name) => {
                let glob = Glob::new(name);
                Ok(self.named_like(|name| glob.matches(name)))
            }
            (None, None) => {
                let names = self.groups.keys().chain(self.hosts.keys()).map(String::as_str);
                let near = nearest(name, names).map(str::to_owned);
                Err(PatternError::Unknown { name: name.to_owned(), near })
            }
        }
    }

    /// Hosts of all groups that match, then hosts that match themselves.
    fn named_like(&self, matches: impl Fn(&str) -> bool) -> Vec<&str> {
        let groups = self.groups.iter().filter(|(group, _)| matches(group));
        let in_groups = groups.flat_map(|(_, hosts)| hosts.iter());
        let alone = self.hosts.keys().filter(|host| matches(host));
        let matching: IndexSet<&str> = in_groups.chain(alone).map(String::as_str).collect();
        matching.into_iter().collect()
    }
}

/// A pattern with the lines of the files that it names as `@FILE` in their place, as `--limit` takes them.
///
/// # Errors
/// Files that can't be read, and brackets that can't be.
pub fn with_files(pattern: &str) -> Result<String, PatternError> {
    if !pattern.contains('@') {
        return Ok(pattern.to_owned());
    }
    let mut parts = Vec::new();
    for part in split(pattern)? {
        let Some(path) = part.strip_prefix('@') else {
            parts.push(part);
            continue;
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| PatternError::File { path: path.to_owned(), why: error.to_string() })?;
        parts.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
    }
    if parts.is_empty() { Err(PatternError::Empty) } else { Ok(parts.join(",")) }
}

/// The parts between `,`, or where there is none between `:`. Colons in brackets and those of an
/// IPv6 address don't count.
fn split(pattern: &str) -> Result<Vec<String>, PatternError> {
    let address = pattern.trim().trim_start_matches(['!', '&']);
    let separator = if pattern.contains(',') { ',' } else { ':' };
    if separator == ':' && address.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok(vec![pattern.trim().to_owned()]);
    }
    let mut parts = vec![String::new()];
    let mut inside = false;
    for c in pattern.chars() {
        match c {
            '[' if inside => return Err(PatternError::Brackets(pattern.to_owned())),
            ']' if !inside => return Err(PatternError::Brackets(pattern.to_owned())),
            '[' => inside = true,
            ']' => inside = false,
            _ => {}
        }
        match parts.last_mut() {
            Some(last) if c != separator || inside => last.push(c),
            _ => parts.push(String::new()),
        }
    }
    if inside {
        return Err(PatternError::Brackets(pattern.to_owned()));
    }
    let parts: Vec<String> =
        parts.iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect();
    if parts.is_empty() { Err(PatternError::Empty) } else { Ok(parts) }
}

enum Subscript {
    /// Counted from the end where negative.
    One(i64),
    /// Both ends belong to it; none is the last one.
    Range(usize, Option<usize>),
}

impl Subscript {
    /// None where it asks for a host that isn't there.
    fn apply<'h>(&self, hosts: &[&'h str]) -> Option<Vec<&'h str>> {
        match *self {
            Self::One(at) => {
                let at = if at < 0 { at + i64::try_from(hosts.len()).ok()? } else { at };
                hosts.get(usize::try_from(at).ok()?).map(|host| vec![*host])
            }
            Self::Range(from, to) => {
                let to = to.unwrap_or(usize::MAX).min(hosts.len().checked_sub(1)?);
                hosts.get(from..=to).filter(|some| !some.is_empty()).map(<[&str]>::to_vec)
            }
        }
    }
}

/// Splits `name[0]`, `name[-1]`, `name[0:1]` and `name[1:]`. Any other bracket belongs to a glob.
fn split_subscript(part: &str) -> (&str, Option<Subscript>) {
    let read = || {
        let (name, inner) = part.strip_suffix(']')?.rsplit_once('[')?;
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let subscript = match inner.split_once(':') {
            Some((from, to)) if !from.is_empty() && digits(from) && digits(to) => {
                let to = if to.is_empty() { None } else { Some(to.parse().ok()?) };
                Subscript::Range(from.parse().ok()?, to)
            }
            None if !inner.is_empty() && digits(inner.strip_prefix('-').unwrap_or(inner)) => {
                Subscript::One(inner.parse().ok()?)
            }
            _ => return None,
        };
        (!name.is_empty()).then_some((name, subscript))
    };
    match read() {
        Some((name, subscript)) => (name, Some(subscript)),
        None => (part, None),
    }
}

#[cfg(test)]
mod tests;
