//! Templates in values, evaluated as Ansible 2.19 does: each text by itself, when it is asked for, with the
//! variables of its host. What is read from a secret makes a secret.

mod filters;
mod functions;
mod objects;
mod python;
mod regexes;
mod sets;
mod source;
mod tests_of_values;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indexmap::IndexMap;
use minijinja::value::{Serde, Value as Jinja, ValueKind};
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior};
use serde_json::{Map, Value};

use super::builder::{ALL, Merged};
use super::raw::{Raw, Template, Vars};
use super::{Host, Inventory, SecretTexts};
use crate::workflow::expr::{BUDGET, ExprError, bounded};
use objects::{HostValue, ListValue, Root, TableValue};
use source::Source;

/// Variables that lead to each other further than this are refused.
const MAX_DEPTH: usize = 48;

/// The inventory with every host's variables evaluated. `playbook_dir` is for the variable of that name.
pub(super) fn evaluate(merged: &Merged, playbook_dir: Option<&Path>) -> Inventory {
    let mut secrets = SecretTexts::default();
    let mut world = None;
    let mut hosts = IndexMap::with_capacity(merged.hosts.len());
    for (index, (name, merged_host)) in merged.hosts.iter().enumerate() {
        let mut host = Host { name: name.clone(), ..Host::default() };
        for (variable, var) in &merged_host.vars {
            if let Raw::Plain(value) = &*var.raw {
                host.vars.insert(variable.clone(), value.clone());
                continue;
            }
            let world = world.get_or_insert_with(|| World::new(merged, playbook_dir));
            let mut settled = Settled { secrets: &mut secrets, secret: false };
            match settled.raw(world, index, &var.raw) {
                Ok(value) => {
                    if settled.secret {
                        host.secret.insert(variable.clone());
                    }
                    host.vars.insert(variable.clone(), value);
                }
                Err(why) => {
                    host.faults.insert(variable.clone(), why);
                }
            }
        }
        hosts.insert(name.clone(), Arc::new(host));
    }
    if let Some(world) = &world {
        // What is known holds on to the world that holds it.
        world.track.lock().known.clear();
    }
    Inventory { hosts, groups: merged.members.clone(), secrets, ..Inventory::default() }
}

/// All that templates can see.
struct World {
    env: Environment<'static>,
    hosts: IndexMap<String, Seen>,
    groups: Jinja,
    playbook_dir: PathBuf,
    track: Track,
}

/// A host as templates see it.
struct Seen {
    vars: Vars,
    group_names: Vec<String>,
    file: PathBuf,
}

/// What became of a template.
#[derive(Clone)]
enum Outcome {
    /// A value, and whether anything secret was read for it.
    Value(Jinja, bool),
    /// It refers to what isn't there, which `default` may mend.
    Undefined(String),
    /// It can't be evaluated.
    Fault(String),
}

/// Host and template, by its address: all templates live as long as the world.
type Key = (usize, usize);

/// What is at work, and what is known.
#[derive(Default)]
struct Progress {
    stack: Vec<Frame>,
    known: HashMap<Key, Outcome>,
}

/// A template at work.
struct Frame {
    key: Key,
    variable: Arc<str>,
    secret: bool,
    /// The last that it asked for and wasn't there.
    missing: Option<Missing>,
    /// Why the last variable that it read can't be evaluated.
    inner: Option<String>,
    /// How many values it has put into its text, and the last one.
    emitted: (usize, Option<Jinja>),
}

/// What isn't there.
enum Missing {
    Name(String),
    /// A variable that refers to what isn't there: the whole message.
    Because(String),
}

/// Notes what a template reads.
#[derive(Clone, Default)]
struct Track(Arc<Mutex<Progress>>);

impl Track {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The template at work has read a secret.
    fn secret(&self) {
        if let Some(frame) = self.lock().stack.last_mut() {
            frame.secret = true;
        }
    }

    fn missing(&self, name: impl Into<String>) {
        if let Some(frame) = self.lock().stack.last_mut() {
            frame.missing = Some(Missing::Name(name.into()));
        }
    }

    fn emitted(&self, value: &Jinja) {
        if let Some(frame) = self.lock().stack.last_mut() {
            frame.emitted = (frame.emitted.0 + 1, Some(value.clone()));
        }
    }

    /// A part of an expression, where nothing better is known.
    fn missing_part(&self, part: &str) {
        if let Some(frame) = self.lock().stack.last_mut()
            && frame.missing.is_none()
            && part.len() <= 80
        {
            frame.missing = Some(Missing::Name(part.trim().to_owned()));
        }
    }

    fn missing_because(&self, why: String) {
        if let Some(frame) = self.lock().stack.last_mut() {
            frame.missing = Some(Missing::Because(why));
        }
    }
}

impl World {
    fn new(merged: &Merged, playbook_dir: Option<&Path>) -> Arc<Self> {
        let track = Track::default();
        let mut env = environment(&track);
        filters::add(&mut env);
        sets::add(&mut env);
        regexes::add(&mut env);
        tests_of_values::add(&mut env);
        functions::add(&mut env, &track);
        let mut groups_of: HashMap<&str, Vec<String>> = HashMap::new();
        for (group, hosts) in merged.members.iter().filter(|(name, _)| *name != ALL) {
            hosts.iter().for_each(|host| groups_of.entry(host).or_default().push(group.clone()));
        }
        let mut seen = |(name, host): (&String, &super::builder::MergedHost)| {
            let mut group_names = groups_of.remove(name.as_str()).unwrap_or_default();
            group_names.sort();
            (name.clone(), Seen { vars: host.vars.clone(), group_names, file: host.file.clone() })
        };
        Arc::new(Self {
            env,
            hosts: merged.hosts.iter().map(&mut seen).collect(),
            groups: to_jinja(merged.members.clone()),
            playbook_dir: playbook_dir.unwrap_or(Path::new(".")).to_owned(),
            track,
        })
    }

    /// A value as a template of a host sees it.
    fn value(self: &Arc<Self>, host: usize, raw: &Arc<Raw>) -> Jinja {
        match &**raw {
            Raw::Plain(value) => to_jinja(value.clone()),
            Raw::Secret(value) => {
                self.track.secret();
                to_jinja(value.clone())
            }
            Raw::List(_) => {
                Jinja::from_object(ListValue { world: Arc::clone(self), host, raw: Arc::clone(raw) })
            }
            Raw::Table(_) => {
                Jinja::from_object(TableValue { world: Arc::clone(self), host, raw: Arc::clone(raw) })
            }
            Raw::Template(template) => match self.template(host, template) {
                Outcome::Value(value, _) => value,
                Outcome::Undefined(why) => {
                    self.track.missing_because(why);
                    Jinja::UNDEFINED
                }
                Outcome::Fault(why) => Jinja::from(Error::new(ErrorKind::InvalidOperation, why)),
            },
        }
    }

    /// Evaluates a template of a host, once.
    fn template(self: &Arc<Self>, host: usize, template: &Template) -> Outcome {
        let key = (host, std::ptr::from_ref(template).addr());
        if let Some(outcome) = self.begin(key, template) {
            return outcome;
        }
        let result = self.render(host, template);
        let mut progress = self.track.lock();
        let frame = progress.stack.pop();
        let secret = frame.as_ref().is_some_and(|frame| frame.secret);
        let outcome = match result {
            Ok(value) if value.is_undefined() => {
                Outcome::Undefined(Self::undefined(frame.as_ref(), template))
            }
            Ok(value) => Outcome::Value(value, secret),
            Err(error) if error.kind() == ErrorKind::UndefinedError => {
                Outcome::Undefined(Self::undefined(frame.as_ref(), template))
            }
            Err(error) => Outcome::Fault(Self::fault(frame, template, &error)),
        };
        if let Some(outer) = progress.stack.last_mut() {
            note(outer, &outcome);
        }
        progress.known.insert(key, outcome.clone());
        outcome
    }

    /// What is known of a template already, or that it leads to itself; else it is at work from now on.
    fn begin(&self, key: Key, template: &Template) -> Option<Outcome> {
        let mut progress = self.track.lock();
        if let Some(outcome) = progress.known.get(&key).cloned() {
            if let Some(outer) = progress.stack.last_mut() {
                note(outer, &outcome);
            }
            return Some(outcome);
        }
        let at = progress.stack.iter().position(|frame| frame.key == key);
        let why = if let Some(at) = at {
            let names: Vec<&str> = progress.stack[at..].iter().map(|frame| &*frame.variable).collect();
            format!("it needs itself: {} > {} ({})", names.join(" > "), template.variable, template.place)
        } else if progress.stack.len() >= MAX_DEPTH {
            format!("variables lead to each other more than {MAX_DEPTH} deep ({})", template.place)
        } else {
            let variable = Arc::clone(&template.variable);
            progress.stack.push(Frame {
                key,
                variable,
                secret: template.secret,
                missing: None,
                inner: None,
                emitted: (0, None),
            });
            return None;
        };
        let outcome = Outcome::Fault(why);
        if let Some(outer) = progress.stack.last_mut() {
            note(outer, &outcome);
        }
        Some(outcome)
    }

    fn render(self: &Arc<Self>, host: usize, template: &Template) -> Result<Jinja, Error> {
        let scope = Jinja::from_object(Root { world: Arc::clone(self), host });
        let value = match source::read(&template.text)? {
            Source::Expression(text) => {
                bounded(&text, true).map_err(too_much)?;
                self.env.compile_expression(&text)?.eval(scope).inspect_err(|error| {
                    let place = error.range().filter(|_| error.kind() == ErrorKind::UndefinedError);
                    if let Some(part) = place.and_then(|range| text.get(range)) {
                        self.track.missing_part(part);
                    }
                })?
            }
            Source::Text(text) => {
                bounded(&text, false).map_err(too_much)?;
                let text = self.env.render_str(&text, scope)?;
                self.settled(text)
            }
        };
        // The line ends at the end of a text stay there.
        let ends = |text: &str| text.len() - text.trim_end_matches('\n').len();
        let lost = value.as_str().map_or(0, |text| ends(&template.text).saturating_sub(ends(text)));
        Ok(if lost > 0 { Jinja::from(python::text(&value) + &"\n".repeat(lost)) } else { value })
    }

    /// What a template with blocks gives: nothing where it wrote nothing, and where one value is all that it wrote, this.
    fn settled(&self, text: String) -> Jinja {
        let progress = self.track.lock();
        match progress.stack.last().map(|frame| &frame.emitted) {
            Some((0, _)) if text.is_empty() => Jinja::from(()),
            Some((1, Some(value))) if value.is_none() && text.is_empty() => Jinja::from(()),
            Some((1, Some(value))) if value.kind() != ValueKind::Undefined && python::text(value) == text => {
                value.clone()
            }
            _ => Jinja::from(text),
        }
    }

    /// What isn't there, and where it was asked for.
    fn undefined(frame: Option<&Frame>, template: &Template) -> String {
        if let Some(inner) = frame.and_then(|frame| frame.inner.as_ref()) {
            return inner.clone();
        }
        let place = &template.place;
        let named = match frame.and_then(|frame| frame.missing.as_ref()) {
            Some(Missing::Because(why)) => return why.clone(),
            Some(Missing::Name(name)) => Some(name.clone()),
            None => None,
        };
        let named = named.filter(|_| !template.secret);
        let Some(name) = named else { return format!("it refers to what is not defined ({place})") };
        if name.starts_with("ansible_") {
            return format!(
                "`{name}` is not defined ({place}); flow gathers no facts, set it in the inventory"
            );
        }
        format!("`{name}` is not defined ({place})")
    }

    /// Why a template can't be evaluated, and where the innermost one stands.
    fn fault(frame: Option<Frame>, template: &Template, error: &Error) -> String {
        let Some(frame) = frame else { return format!("{} ({})", error.kind(), template.place) };
        if let Some(inner) = frame.inner {
            return inner;
        }
        // A detail may quote a value.
        let why = match (frame.secret, error.kind(), error.detail()) {
            (
                _,
                ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction,
                Some(detail),
            ) => {
                format!("{detail}; what flow has is in docs/inventory.md")
            }
            (false, kind @ ErrorKind::SyntaxError, Some(detail)) => format!("{kind}: {detail}"),
            (false, _, Some(detail)) => detail.to_owned(),
            (_, kind, _) => kind.to_string(),
        };
        format!("{why} ({})", template.place)
    }
}

/// What a template learns from one that it read.
fn note(outer: &mut Frame, outcome: &Outcome) {
    match outcome {
        Outcome::Value(_, secret) => outer.secret |= secret,
        Outcome::Undefined(_) => {}
        Outcome::Fault(why) => outer.inner = Some(why.clone()),
    }
}

/// Turns values into JSON, and notes the secret texts.
struct Settled<'s> {
    secrets: &'s mut SecretTexts,
    secret: bool,
}

impl Settled<'_> {
    fn raw(&mut self, world: &Arc<World>, host: usize, raw: &Raw) -> Result<Value, String> {
        match raw {
            Raw::Plain(value) => Ok(value.clone()),
            Raw::Secret(value) => {
                self.note(value);
                Ok(value.clone())
            }
            Raw::Template(template) => match world.template(host, template) {
                Outcome::Value(value, secret) => {
                    let json = self.jinja(&value).map_err(|why| format!("{why} ({})", template.place))?;
                    if secret {
                        self.note(&json);
                    }
                    Ok(json)
                }
                Outcome::Undefined(why) | Outcome::Fault(why) => Err(why),
            },
            Raw::List(items) => items.iter().map(|item| self.raw(world, host, item)).collect(),
            Raw::Table(fields) => {
                let fields =
                    fields.iter().map(|(name, field)| Ok((name.clone(), self.raw(world, host, field)?)));
                fields.collect::<Result<Map<_, _>, String>>().map(Value::Object)
            }
        }
    }

    fn jinja(&mut self, value: &Jinja) -> Result<Value, String> {
        if let Some(list) = value.downcast_object_ref::<ListValue>() {
            return self.raw(&list.world, list.host, &list.raw);
        }
        if let Some(table) = value.downcast_object_ref::<TableValue>() {
            return self.raw(&table.world, table.host, &table.raw);
        }
        if value.downcast_object_ref::<HostValue>().is_some() {
            return Err("all variables of a host are no value; name one".to_owned());
        }
        match value.kind() {
            ValueKind::Undefined => Err("a part of it is not defined".to_owned()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = value.try_iter().map_err(|error| error.kind().to_string())?;
                items.map(|item| self.jinja(&item)).collect()
            }
            ValueKind::Map => {
                let keys = value.try_iter().map_err(|error| error.kind().to_string())?;
                let field = |key: Jinja| {
                    let field = value.get_item(&key).map_err(|error| error.kind().to_string())?;
                    Ok((python::text(&key), self.jinja(&field)?))
                };
                keys.map(field).collect::<Result<Map<_, _>, String>>().map(Value::Object)
            }
            ValueKind::Invalid | ValueKind::Plain | ValueKind::Bytes => {
                Err("what it gives is no value".to_owned())
            }
            _ => serde_json::to_value(value).map_err(|_| "what it gives is no value".to_owned()),
        }
    }

    /// The value is secret, each of its texts.
    fn note(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.secrets.insert(text.as_str()),
            Value::Number(number) => self.secrets.insert(number.to_string()),
            Value::Array(items) => items.iter().for_each(|item| self.note(item)),
            Value::Object(fields) => fields.values().for_each(|field| self.note(field)),
            Value::Null | Value::Bool(_) => {}
        }
        self.secret = true;
    }
}

fn to_jinja(value: impl serde::Serialize) -> Jinja {
    Jinja::from(Serde(value))
}

fn too_much(error: ExprError) -> Error {
    Error::new(ErrorKind::SyntaxError, error.message)
}

/// The engine, set as Ansible sets Jinja.
fn environment(track: &Track) -> Environment<'static> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_debug(true);
    env.set_recursion_limit(100);
    env.set_fuel(Some(BUDGET));
    let syntax = minijinja::syntax::SyntaxConfig::builder().trim_blocks(true).build();
    env.set_syntax(syntax.expect("the default delimiters don't clash"));
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_unknown_method_callback(functions::method);
    let track = track.clone();
    env.set_formatter(move |out, _, value| {
        track.emitted(value);
        let text = if value.is_none() { String::new() } else { python::text(value) };
        out.write_str(&text).map_err(|_| Error::from(ErrorKind::WriteFailure))
    });
    env
}

#[cfg(test)]
mod tests;
