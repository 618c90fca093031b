//! Functions of templates: lookups, and what this program adds.

use minijinja::value::{Kwargs, Rest, Value as Jinja, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State};

use super::python::known;
use super::{Track, source};
use crate::inventory::secrets::names_a_secret;

pub(super) fn add(env: &mut Environment<'static>, track: &Track) {
    env.add_function(source::AT, at);
    for name in ["lookup", "query", "q"] {
        let (track, list) = (track.clone(), name != "lookup");
        env.add_function(name, move |state: &mut State, plugin: &str, terms: Rest<ValueOrKwargs>| {
            lookup(state, &track, plugin, terms.into_values(), list)
        });
    }
    env.add_function("dict", dict);
    env.add_function("undef", || -> Jinja { Jinja::UNDEFINED });
}

/// Python's: of a table or of pairs, and of names.
#[expect(clippy::needless_pass_by_value, reason = "the engine's calling convention")]
fn dict(of: Option<Jinja>, options: Kwargs) -> Result<Jinja, Error> {
    let mut pairs = Vec::new();
    if let Some(of) = of {
        let of = known(&of)?;
        for item in of.try_iter()? {
            let table = of.kind() == ValueKind::Map;
            let value = if table { of.get_item(&item)? } else { item.get_item_by_index(1)? };
            pairs.push((if table { item } else { item.get_item_by_index(0)? }, value));
        }
    }
    for name in options.args() {
        pairs.push((Jinja::from(name), options.get(name)?));
    }
    Ok(Jinja::from_pairs(pairs))
}

/// Python's methods; of lists one that the engine's companion lacks.
pub(super) fn method(state: &mut State, value: &Jinja, name: &str, args: &[Jinja]) -> Result<Jinja, Error> {
    if let ("index", ValueKind::Seq, [wanted]) = (name, value.kind(), args) {
        let at = value.try_iter()?.position(|item| item == *wanted);
        return at
            .map(Jinja::from)
            .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "it is not in the list"));
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

/// What is at the end of a way down; undefined where any part of it isn't there.
#[expect(clippy::needless_pass_by_value, reason = "the engine's calling convention")]
fn at(value: Jinja, keys: Rest<Jinja>) -> Jinja {
    let mut value = value;
    for key in keys.iter() {
        if value.is_undefined() || value.kind() == ValueKind::Invalid {
            return value;
        }
        value = value.get_item(key).unwrap_or(Jinja::UNDEFINED);
    }
    value
}

fn lookup(
    state: &mut State,
    track: &Track,
    plugin: &str,
    mut terms: Vec<Jinja>,
    list: bool,
) -> Result<Jinja, Error> {
    let refuse = |message: String| Error::new(ErrorKind::UnknownFunction, message);
    let plugin = plugin.strip_prefix("ansible.builtin.").unwrap_or(plugin);
    let options = terms.pop_if(|last| last.is_kwargs()).map(Kwargs::try_from).transpose()?;
    let default: Option<Jinja> = match &options {
        Some(options) => options.get("default")?,
        None => None,
    };
    let wanted: bool = match &options {
        Some(options) => options.get::<Option<bool>>("wantlist")?.unwrap_or(false),
        None => false,
    };
    if let Some(options) = &options {
        options.assert_all_used()?;
    }
    let mut found = Vec::new();
    for term in &terms {
        let name =
            term.as_str().ok_or_else(|| refuse(format!("the lookup `{plugin}` of what is no text")))?;
        found.push(match plugin {
            "env" => {
                if names_a_secret(name) {
                    track.secret();
                }
                let unset = || default.clone().unwrap_or_else(|| Jinja::from(""));
                std::env::var(name).map_or_else(|_| unset(), Jinja::from)
            }
            "vars" => match (state.lookup(name), &default) {
                (Some(value), _) if !value.is_undefined() => value,
                (_, Some(default)) => default.clone(),
                _ => {
                    track.missing(name);
                    return Err(ErrorKind::UndefinedError.into());
                }
            },
            _ => return Err(refuse(format!("the lookup `{plugin}` is unknown"))),
        });
    }
    match <[Jinja; 1]>::try_from(found) {
        Ok([one]) if !list && !wanted => Ok(one),
        Ok(one) => Ok(Jinja::from(one.to_vec())),
        Err(many) if list || wanted => Ok(Jinja::from(many)),
        Err(many) => Ok(Jinja::from(many.iter().map(super::python::text).collect::<Vec<_>>().join(","))),
    }
}
