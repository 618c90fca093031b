//! Ansible's filters of lists and tables: `union`, `combine`, `dict2items`, `flatten`.

use minijinja::value::{Kwargs, Rest, Value as Jinja, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind};

use super::python::{known, text};

pub(super) fn add(env: &mut Environment<'static>) {
    env.add_filter("union", |one: &Jinja, other: &Jinja| -> Result<Jinja, Error> {
        once(items(one)?.into_iter().chain(items(other)?))
    });
    env.add_filter("intersect", |one: &Jinja, other: &Jinja| kept(one, other, true));
    env.add_filter("difference", |one: &Jinja, other: &Jinja| kept(one, other, false));
    env.add_filter("symmetric_difference", |one: &Jinja, other: &Jinja| -> Result<Jinja, Error> {
        once(items(&kept(one, other, false)?)?.into_iter().chain(items(&kept(other, one, false)?)?))
    });
    env.add_filter(
        "flatten",
        |value: &Jinja, levels: Option<usize>, options: Kwargs| -> Result<Jinja, Error> {
            let levels = levels.or(options.get("levels")?);
            let skip_nulls = options.get::<Option<bool>>("skip_nulls")?.unwrap_or(true);
            options.assert_all_used()?;
            let mut out = Vec::new();
            flatten(value, levels.unwrap_or(usize::MAX).min(64), skip_nulls, &mut out)?;
            Ok(Jinja::from(out))
        },
    );
    env.add_filter("product", |one: &Jinja, other: &Jinja| -> Result<Jinja, Error> {
        let other = items(other)?;
        let pairs = items(one)?
            .into_iter()
            .flat_map(|one| other.iter().map(move |other| vec![one.clone(), other.clone()]));
        Ok(pairs.collect())
    });
    env.add_filter("combine", combine);
    env.add_filter("dict2items", |value: &Jinja, options: Kwargs| -> Result<Jinja, Error> {
        let (key, field) = names(&options)?;
        let item = |name: Jinja| {
            let of = value.get_item(&name)?;
            Ok(Jinja::from_pairs([(key.clone(), name), (field.clone(), of)]))
        };
        Ok(Jinja::from(fields(value)?.into_iter().map(item).collect::<Result<Vec<_>, Error>>()?))
    });
    env.add_filter("items2dict", |value: &Jinja, options: Kwargs| -> Result<Jinja, Error> {
        let (key, field) = names(&options)?;
        let pair = |item: Jinja| Ok((item.get_attr(&key)?, item.get_attr(&field)?));
        Ok(Jinja::from_pairs(items(value)?.into_iter().map(pair).collect::<Result<Vec<_>, Error>>()?))
    });
}

fn names(options: &Kwargs) -> Result<(String, String), Error> {
    let key = options.get::<Option<String>>("key_name")?.unwrap_or_else(|| "key".to_owned());
    let value = options.get::<Option<String>>("value_name")?.unwrap_or_else(|| "value".to_owned());
    options.assert_all_used()?;
    Ok((key, value))
}

fn items(value: &Jinja) -> Result<Vec<Jinja>, Error> {
    Ok(known(value)?.try_iter()?.collect())
}

fn fields(value: &Jinja) -> Result<Vec<Jinja>, Error> {
    if known(value)?.kind() == ValueKind::Map {
        return items(value);
    }
    Err(Error::new(ErrorKind::InvalidOperation, format!("a table is needed, this is {}", value.kind())))
}

pub(super) fn contains(all: &Jinja, item: &Jinja) -> Result<bool, Error> {
    if let (Some(text), Some(part)) = (all.as_str(), item.as_str()) {
        return Ok(text.contains(part));
    }
    Ok(known(all)?.try_iter()?.any(|other| other == *item))
}

/// Each once.
fn once(values: impl Iterator<Item = Jinja>) -> Result<Jinja, Error> {
    let mut out: Vec<Jinja> = Vec::new();
    for value in values {
        if !out.contains(&value) {
            out.push(value);
        }
    }
    Ok(Jinja::from(out))
}

fn kept(one: &Jinja, other: &Jinja, wanted: bool) -> Result<Jinja, Error> {
    let other = items(other)?;
    once(items(one)?.into_iter().filter(|item| other.contains(item) == wanted))
}

fn flatten(value: &Jinja, levels: usize, skip_nulls: bool, out: &mut Vec<Jinja>) -> Result<(), Error> {
    for item in known(value)?.try_iter()? {
        let list = matches!(item.kind(), ValueKind::Seq | ValueKind::Iterable);
        if list && levels > 0 {
            flatten(&item, levels - 1, skip_nulls, out)?;
        } else if !(skip_nulls
            && (item.is_none() || item.as_str().is_some_and(|text| text == "None" || text == "null")))
        {
            out.push(item);
        }
    }
    Ok(())
}

fn combine(value: &Jinja, others: Rest<ValueOrKwargs>) -> Result<Jinja, Error> {
    let mut others = others.into_values();
    let options = others.pop_if(|last| last.is_kwargs()).map(Kwargs::try_from).transpose()?;
    let mut recursive = false;
    if let Some(options) = options {
        recursive = options.get::<Option<bool>>("recursive")?.unwrap_or(false);
        if let Some(how) = options.get::<Option<String>>("list_merge")?.filter(|how| how != "replace") {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("list_merge='{how}' isn't known; replace is"),
            ));
        }
        options.assert_all_used()?;
    }
    let mut all = Vec::new();
    for other in std::iter::once(value.clone()).chain(others) {
        // A list of tables counts as these tables.
        if other.kind() == ValueKind::Map { all.push(other) } else { all.extend(items(&other)?) }
    }
    let mut merged = Jinja::from_pairs(Vec::<(Jinja, Jinja)>::new());
    for table in &all {
        merged = merge(&merged, table, recursive, 0)?;
    }
    Ok(merged)
}

fn merge(one: &Jinja, other: &Jinja, recursive: bool, depth: usize) -> Result<Jinja, Error> {
    if depth > 64 {
        return Err(Error::new(ErrorKind::InvalidOperation, "tables are nested too deep"));
    }
    let mut pairs: Vec<(Jinja, Jinja)> = Vec::new();
    for key in fields(one)? {
        pairs.push((key.clone(), one.get_item(&key)?));
    }
    for key in fields(other)? {
        let new = other.get_item(&key)?;
        match pairs.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) if recursive && old.kind() == ValueKind::Map && new.kind() == ValueKind::Map => {
                *old = merge(old, &new, true, depth + 1)?;
            }
            Some((_, old)) => *old = new,
            None => pairs.push((key, new)),
        }
    }
    Ok(Jinja::from_pairs(pairs.into_iter().map(|(key, value)| (text(&key), value))))
}
