//! Host names that stand for many: `node[1:3]`, `node[01:10:2]-[a:c]`.

/// The most hosts that one name may stand for.
const MAX_HOSTS: usize = 65_536;

/// Letters in the order of Ansible's ranges.
const LETTERS: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// All the names that a name with ranges stands for, and the port after it.
///
/// # Errors
/// What is wrong with a range, as a fragment.
pub(super) fn expand(text: &str) -> Result<(Vec<String>, Option<u16>), String> {
    let (text, port) = split_port(text)?;
    let mut names = vec![String::new()];
    let mut rest = text;
    while let Some(open) = rest.find('[') {
        let (head, after) = (&rest[..open], &rest[open + 1..]);
        let close = after.find(']').ok_or("a `[` without its `]`")?;
        let parts = range(&after[..close])?;
        if names.len() * parts.len() > MAX_HOSTS {
            return Err(format!("that is more than {MAX_HOSTS} hosts"));
        }
        names = names
            .iter()
            .flat_map(|name| parts.iter().map(move |part| format!("{name}{head}{part}")))
            .collect();
        rest = &after[close + 1..];
    }
    if rest.contains(']') {
        return Err("a `]` without its `[`".to_owned());
    }
    names.iter_mut().for_each(|name| name.push_str(rest));
    Ok((names, port))
}

/// Splits `host:22` and `[::1]:22`. A bare IPv6 address has no port.
fn split_port(text: &str) -> Result<(&str, Option<u16>), String> {
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Ok((text, None));
    }
    let Some((host, port)) = text.rsplit_once(':') else { return Ok((text, None)) };
    if port.contains(']') {
        return Ok((text, None)); // The colon of a range.
    }
    let host = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
        _ => host,
    };
    let port = port.parse().map_err(|_| format!("`{port}` is not a port"))?;
    Ok((host, Some(port)))
}

fn range(text: &str) -> Result<Vec<String>, String> {
    let bounds: Vec<&str> = text.split(':').collect();
    let (begin, end, step) = match bounds[..] {
        [begin, end] => (begin, end, "1"),
        [begin, end, step] => (begin, end, step),
        _ => return Err(format!("`[{text}]` is not a range; write [1:3], [01:10:2] or [a:c]")),
    };
    let begin = if begin.is_empty() { "0" } else { begin };
    if end.is_empty() {
        return Err(format!("`[{text}]` has no end"));
    }
    let step: usize =
        step.parse().ok().filter(|step| *step > 0).ok_or_else(|| format!("`{step}` is not a step"))?;
    let parts: Vec<String> = match (letter(begin), letter(end)) {
        (Some(first), Some(last)) => {
            LETTERS.get(first..=last).unwrap_or_default().chars().step_by(step).map(String::from).collect()
        }
        _ => numbers(text, begin, end, step)?,
    };
    if parts.is_empty() {
        return Err(format!("`[{text}]` ends before it begins"));
    }
    Ok(parts)
}

fn letter(text: &str) -> Option<usize> {
    if text.len() == 1 { LETTERS.find(text) } else { None }
}

fn numbers(text: &str, begin: &str, end: &str, step: usize) -> Result<Vec<String>, String> {
    let number = |bound: &str| {
        bound.parse::<u32>().map_err(|_| format!("`{bound}` in `[{text}]` is neither a number nor a letter"))
    };
    let (first, last) = (number(begin)?, number(end)?);
    let width = if begin.len() > 1 && begin.starts_with('0') { begin.len() } else { 0 };
    if width > 0 && width != end.len() {
        return Err(format!("the bounds of `[{text}]` have different lengths"));
    }
    if last.saturating_sub(first) as usize / step >= MAX_HOSTS {
        return Err(format!("`[{text}]` is more than {MAX_HOSTS} hosts"));
    }
    Ok((first..=last).step_by(step).map(|n| format!("{n:0width$}")).collect())
}

#[cfg(test)]
mod tests {
    use super::expand;

    fn names(text: &str) -> Vec<String> {
        expand(text).unwrap().0
    }

    #[test]
    fn ranges_expand_as_ansible_expands_them() {
        assert_eq!(names("node[1:3]"), ["node1", "node2", "node3"]);
        assert_eq!(names("node[08:10].lan"), ["node08.lan", "node09.lan", "node10.lan"]);
        assert_eq!(names("db-[a:c]"), ["db-a", "db-b", "db-c"]);
        assert_eq!(names("r[1:2]n[1:5:2]"), ["r1n1", "r1n3", "r1n5", "r2n1", "r2n3", "r2n5"]);
        assert_eq!(names("n[:2]"), ["n0", "n1", "n2"]);
    }

    #[test]
    fn a_port_is_split_off() {
        assert_eq!(expand("web[1:2]:2222").unwrap(), (vec!["web1".into(), "web2".into()], Some(2222)));
        assert_eq!(expand("[fe80::1]:22").unwrap(), (vec!["fe80::1".into()], Some(22)));
        assert_eq!(expand("fe80::1").unwrap(), (vec!["fe80::1".into()], None));
    }

    #[test]
    fn what_is_no_range_is_an_error() {
        for text in
            ["a[1]", "a[1:", "a1:3]", "a[3:1]", "a[1:]", "a[01:100]", "a[1:x]", "a[1:9:0]", "a:", "a:b"]
        {
            assert!(expand(text).is_err(), "{text}");
        }
        assert!(expand("a[0:999999999]").is_err());
        assert!(expand("a[0:999][0:999]").is_err());
    }
}
