//! Functions of templates: lookups, and what this program adds.

use minijinja::value::{Kwargs, Rest, Value as Jinja, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State};

use super::{Track, source};

pub(super) fn add(env: &mut Environment<'static>, track: &Track) {
    env.add_function(source::AT, at);
    for name in ["lookup", "query", "q"] {
        let (track, list) = (track.clone(), name != "lookup");
        env.add_function(name, move |state: &mut State, plugin: &str, terms: Rest<ValueOrKwargs>| {
            lookup(state, &track, plugin, terms.into_values(), list)
        });
    }
    env.add_function("undef", || -> Jinja { Jinja::UNDEFINED });
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
                // What stands in the environment is as good as secret.
                track.secret();
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
            _ => return Err(refuse(format!("the lookup `{plugin}`"))),
        });
    }
    match <[Jinja; 1]>::try_from(found) {
        Ok([one]) if !list && !wanted => Ok(one),
        Ok(one) => Ok(Jinja::from(one.to_vec())),
        Err(many) if list || wanted => Ok(Jinja::from(many)),
        Err(many) => Ok(Jinja::from(many.iter().map(super::python::text).collect::<Vec<_>>().join(","))),
    }
}
