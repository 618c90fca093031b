//! Ansible's tests: `is match('...')`, `is version('15', '>=')`.

use std::cmp::Ordering;

use minijinja::value::{Kwargs, Value as Jinja};
use minijinja::{Environment, Error, ErrorKind};

use super::python::{known, string};
use super::sets::contains;

pub(super) fn add(env: &mut Environment<'static>) {
    env.add_test("truthy", |value: &Jinja| -> Result<bool, Error> { Ok(known(value)?.is_true()) });
    env.add_test("falsy", |value: &Jinja| -> Result<bool, Error> { Ok(!known(value)?.is_true()) });
    env.add_test("contains", |value: &Jinja, item: &Jinja| contains(value, item));
    env.add_test("subset", |value: &Jinja, of: &Jinja| all_in(value, of));
    env.add_test("superset", |value: &Jinja, of: &Jinja| all_in(of, value));
    env.add_test("all", |value: &Jinja| -> Result<bool, Error> {
        Ok(known(value)?.try_iter()?.all(|item| item.is_true()))
    });
    env.add_test("any", |value: &Jinja| -> Result<bool, Error> {
        Ok(known(value)?.try_iter()?.any(|item| item.is_true()))
    });
    env.add_test("version", version);
    env.add_test("version_compare", version);
}

fn all_in(some: &Jinja, all: &Jinja) -> Result<bool, Error> {
    for item in known(some)?.try_iter()? {
        if !contains(all, &item)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Versions as Python's `LooseVersion` compares them: numbers as numbers, the rest as text.
#[expect(clippy::needless_pass_by_value, reason = "the engine's calling convention")]
fn version(value: &Jinja, other: &Jinja, operator: Option<&str>, options: Kwargs) -> Result<bool, Error> {
    let kind = options.get::<Option<String>>("version_type")?.filter(|kind| kind != "loose");
    if options.get::<Option<bool>>("strict")?.unwrap_or(false) || kind.is_some() {
        return Err(Error::new(ErrorKind::InvalidOperation, "versions are compared loosely only"));
    }
    options.assert_all_used()?;
    let order = parts(&string(value)?).cmp(&parts(&string(other)?));
    Ok(match operator.unwrap_or("==") {
        "==" | "=" | "eq" => order == Ordering::Equal,
        "!=" | "<>" | "ne" => order != Ordering::Equal,
        "<" | "lt" => order == Ordering::Less,
        "<=" | "le" => order != Ordering::Greater,
        ">" | "gt" => order == Ordering::Greater,
        ">=" | "ge" => order != Ordering::Less,
        other => {
            return Err(Error::new(ErrorKind::InvalidOperation, format!("`{other}` compares no versions")));
        }
    })
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Text(String),
}

fn parts(version: &str) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut rest = version;
    while let Some(c) = rest.chars().next() {
        let digits = c.is_ascii_digit();
        let same = |c: char| c.is_ascii_digit() == digits && c != '.';
        let end = rest.find(|c: char| !same(c)).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        match part.parse() {
            Ok(number) => parts.push(Part::Number(number)),
            Err(_) if part.is_empty() => {}
            Err(_) => parts.push(Part::Text(part.to_owned())),
        }
        rest = after.strip_prefix('.').unwrap_or(after);
    }
    parts
}
