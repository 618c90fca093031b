//! Ansible's filters and tests with regular expressions, Python's.

use minijinja::value::{Kwargs, Rest, Value as Jinja, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind};
use regex::{Captures, Regex, RegexBuilder};

use super::python::string;

pub(super) fn add(env: &mut Environment<'static>) {
    env.add_filter("regex_replace", replace);
    env.add_filter("regex_search", search);
    env.add_filter("regex_findall", find_all);
    env.add_filter("regex_escape", |value: &Jinja| -> Result<String, Error> {
        Ok(regex::escape(&string(value)?))
    });
    env.add_test("match", |value: &Jinja, pattern: &str, options: Kwargs| {
        test(value, &format!(r"\A(?:{pattern})"), &options)
    });
    env.add_test("search", |value: &Jinja, pattern: &str, options: Kwargs| test(value, pattern, &options));
    env.add_test("regex", |value: &Jinja, pattern: &str, options: Kwargs| test(value, pattern, &options));
}

fn wrong(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// Python's pattern. What only Python has is an error.
fn compile(pattern: &str, options: &Kwargs) -> Result<Regex, Error> {
    let on = |name: &str| -> Result<bool, Error> { Ok(options.get::<Option<bool>>(name)?.unwrap_or(false)) };
    let (case, lines) = (on("ignorecase")?, on("multiline")?);
    options.assert_all_used()?;
    build(pattern, case, lines)
}

fn build(pattern: &str, case: bool, lines: bool) -> Result<Regex, Error> {
    let mut own = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(at) = rest.find('\\') {
        own.push_str(&rest[..at]);
        let end = at + 1 + rest[at + 1..].chars().next().map_or(0, char::len_utf8);
        own.push_str(if &rest[at..end] == r"\Z" { r"\z" } else { &rest[at..end] });
        rest = &rest[end..];
    }
    own.push_str(rest);
    RegexBuilder::new(&own).case_insensitive(case).multi_line(lines).size_limit(1 << 20).build().map_err(
        |_| wrong(format!("the regular expression `{pattern}` can't be read (there is no look-around here)")),
    )
}

fn test(value: &Jinja, pattern: &str, options: &Kwargs) -> Result<bool, Error> {
    Ok(compile(pattern, options)?.is_match(&string(value)?))
}

fn replace(value: &Jinja, pattern: &str, more: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let mut more = more.into_values();
    let options = more.pop_if(|last| last.is_kwargs()).map(Kwargs::try_from).transpose()?;
    let options = options.unwrap_or_else(|| Kwargs::from_iter(Vec::<(String, Jinja)>::new()));
    let mut given = more.into_iter();
    let by = match given.next() {
        Some(by) => string(&by)?,
        None => options.get::<Option<String>>("replacement")?.unwrap_or_default(),
    };
    let mut on = |name: &str| -> Result<bool, Error> {
        Ok(given.next().or(options.get(name)?).is_some_and(|value| value.is_true()))
    };
    let (case, lines) = (on("ignorecase")?, on("multiline")?);
    let count = options.get::<Option<usize>>("count")?.unwrap_or(0);
    options.assert_all_used()?;
    let regex = build(pattern, case, lines)?;
    let text = string(value)?;
    let mut out = String::new();
    let (mut at, mut written, mut replaced) = (0, 0, 0);
    // Python replaces an empty match next to one that isn't.
    while let Some(found) = regex.captures_at(&text, at) {
        let Some(whole) = found.get(0) else { break };
        out.push_str(&text[written..whole.start()]);
        expand(&by, &found, &mut out)?;
        written = whole.end();
        replaced += 1;
        let next = text[whole.end()..].chars().next().map_or(1, char::len_utf8);
        at = whole.end() + if whole.is_empty() { next } else { 0 };
        if at > text.len() || replaced == count {
            break;
        }
    }
    out.push_str(&text[written..]);
    Ok(out)
}

/// Writes Python's replacement: `\1`, `\g<1>`, `\g<name>`, `\\`, `\n`.
fn expand(by: &str, found: &Captures<'_>, out: &mut String) -> Result<(), Error> {
    let group = |name: &str| -> Result<String, Error> {
        let group = match name.parse::<usize>() {
            Ok(number) if number < found.len() => found.get(number),
            Ok(_) => return Err(wrong(format!("the regular expression has no group {name}"))),
            Err(_) => found.name(name),
        };
        Ok(group.map_or_else(String::new, |group| group.as_str().to_owned()))
    };
    let mut rest = by;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let Some(c) = rest.chars().next() else {
            return Err(wrong("the replacement ends in a backslash".to_owned()));
        };
        rest = &rest[c.len_utf8()..];
        match c {
            'g' if rest.starts_with('<') => {
                let (name, after) =
                    rest[1..].split_once('>').ok_or_else(|| wrong("`\\g<` is not closed".to_owned()))?;
                out.push_str(&group(name)?);
                rest = after;
            }
            c if c.is_ascii_digit() => {
                let more = rest.chars().next().filter(char::is_ascii_digit).filter(|_| c != '0');
                let name: String = std::iter::once(c).chain(more).collect();
                rest = &rest[more.map_or(0, char::len_utf8)..];
                out.push_str(&group(&name)?);
            }
            'n' => out.push('\n'),
            't' => out.push('\t'),
            '\\' => out.push('\\'),
            c => out.extend(['\\', c]),
        }
    }
    out.push_str(rest);
    Ok(())
}

/// The match, or its groups where some are named: `\\1`, `\\g<name>`. None where nothing matches.
fn search(value: &Jinja, pattern: &str, groups: Rest<ValueOrKwargs>) -> Result<Jinja, Error> {
    let mut groups = groups.into_values();
    let options = groups.pop_if(|last| last.is_kwargs()).map(Kwargs::try_from).transpose()?;
    let regex = match &options {
        Some(options) => compile(pattern, options)?,
        None => build(pattern, false, false)?,
    };
    let text = string(value)?;
    let Some(found) = regex.captures(&text) else { return Ok(Jinja::from(())) };
    if groups.is_empty() {
        return Ok(Jinja::from(&found[0]));
    }
    let mut out = Vec::new();
    for name in groups {
        let mut one = String::new();
        expand(name.as_str().unwrap_or_default(), &found, &mut one)?;
        out.push(Jinja::from(one));
    }
    Ok(Jinja::from(out))
}

#[expect(clippy::needless_pass_by_value, reason = "the engine's calling convention")]
fn find_all(value: &Jinja, pattern: &str, options: Kwargs) -> Result<Jinja, Error> {
    let regex = compile(pattern, &options)?;
    let text = string(value)?;
    let group = |found: &Captures<'_>, at: usize| found.get(at).map_or("", |group| group.as_str()).to_owned();
    let one = |found: Captures<'_>| match found.len() {
        1 | 2 => Jinja::from(group(&found, found.len() - 1)),
        many => Jinja::from((1..many).map(|at| group(&found, at)).collect::<Vec<_>>()),
    };
    Ok(Jinja::from(regex.captures_iter(&text).map(one).collect::<Vec<_>>()))
}
