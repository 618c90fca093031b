//! The data types of a document: what the TOML says, typed, with spans.

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use serde_json::Value;

use super::{Source, Span, Spanned};

/// A workflow as its author wrote it.
#[derive(Debug, Clone)]
pub struct Workflow {
    /// The text it was read from.
    pub source: Arc<Source>,
    /// `name`
    pub name: Spanned<String>,
    /// `summary`: one line for lists.
    pub summary: String,
    /// `description`: more lines, shown before a run; a template over params and the inventory.
    pub description: Option<Spanned<String>>,
    /// `whole`: only right as a whole; `--limit` and `--tags` are refused.
    pub whole: bool,
    /// `confirm`: the name that must be typed before destructive steps run; a template over params
    /// and the inventory. Required where a destructive step is reachable.
    pub confirm: Option<Spanned<String>>,
    /// `on_failure`: what becomes of what was done when a run fails.
    pub on_failure: Option<Spanned<OnFailure>>,
    /// `max_per_host`: so many tasks at work on one host at once.
    pub max_per_host: Option<u32>,
    /// `max_failures`: once so many tasks have failed, nothing new is started.
    pub max_failures: Option<u32>,
    /// `[limits]`: so many tasks of a step type at work at once, over all hosts.
    pub limits: IndexMap<String, Spanned<u32>>,
    /// `params_from`: the file of the workflow whose params are taken over.
    pub params_from: Option<Spanned<String>>,
    /// `[params.NAME]`, behind those that are taken over.
    pub params: IndexMap<String, Param>,
    /// `[steps.NAME]`
    pub steps: IndexMap<String, StepDef>,
    /// `[outputs]`: what a workflow used as a step leaves to later ones.
    pub outputs: IndexMap<String, Argument>,
}

/// `on_failure`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// `"stop"`: it stays, and the run can be resumed or taken back.
    Stop,
    /// `"unwind"`: it is taken back, unless a pivot was begun.
    Unwind,
}

/// What a param takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamKind {
    /// `type = "string"`
    String,
    /// `type = "integer"`: 64 bits.
    Integer,
    /// `type = "number"`
    Number,
    /// `type = "boolean"`
    Boolean,
    /// `type = "list"`: of strings.
    List,
    /// `type = "secret"`: masked everywhere; given as `env:NAME`, `file:PATH` or by the inventory.
    Secret,
}

impl ParamKind {
    /// The word in the document.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::List => "list",
            Self::Secret => "secret",
        }
    }
}

/// `[params.NAME]`
#[derive(Debug, Clone)]
pub struct Param {
    /// The text that declares it: another workflow's, where it is taken over.
    pub source: Arc<Source>,
    /// Where its name stands.
    pub span: Span,
    /// `type`
    pub kind: ParamKind,
    /// `help`
    pub help: String,
    /// `default`: a value, or an expression over the inventory and the params before it. None:
    /// the param is required.
    pub default: Option<Argument>,
    /// `generate`: the file at the operator's place that keeps a secret which is made where none is given.
    pub generate: Option<Argument>,
    /// `choices`: the only values it takes.
    pub choices: Vec<Spanned<Value>>,
}

/// `[steps.NAME]`
#[derive(Debug, Clone)]
pub struct StepDef {
    /// Its name.
    pub id: Spanned<String>,
    /// `uses`: a step type, or `workflow`.
    pub uses: Spanned<String>,
    /// `with`: its arguments. For `workflow`: `file`, `params` and `tags`.
    pub with: Spanned<IndexMap<String, Argument>>,
    /// `needs`: a barrier over all hosts of those steps.
    pub needs: Vec<Spanned<String>>,
    /// `needs_per_host`: a host waits only for its own part of those steps, not for the other hosts.
    pub needs_per_host: Vec<Spanned<String>>,
    /// `hosts`: none means at the operator's place (or the host of the workflow that includes it).
    pub hosts: Option<Spanned<Hosts>>,
    /// `foreach`: a list, or a template that gives one; one task for each item.
    pub foreach: Option<Argument>,
    /// `serial`: so many hosts at once. Real edges: when a batch fails, the rest does not start.
    pub serial: Option<Serial>,
    /// `max_failures`: once so many hosts have failed, the next batch of `serial` does not start; 1 by
    /// default.
    pub max_failures: Option<Serial>,
    /// `tags`
    pub tags: Vec<Spanned<String>>,
    /// `if`: an expression; false skips the task.
    pub condition: Option<Spanned<String>>,
    /// `guards`: steps upstream whose check must still be satisfied right before this one applies,
    /// in a first run and in a resumed one: on its own host, or on all hosts of such a step where
    /// this one doesn't work on each of them.
    pub guards: Vec<Spanned<String>>,
    /// `retries` and `backoff`.
    pub retry: Retry,
    /// `timeout` of one attempt's apply; none by default.
    pub timeout: Option<Duration>,
    /// `pivot`: the point of no return. Once it has begun, the run is only gone on with.
    pub pivot: bool,
    /// `keep`: what it does may stay where the run is taken back.
    pub keep: bool,
    /// `help`: what it is for, shown in lists and before a destructive step.
    pub help: Option<String>,
}

/// `hosts`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hosts {
    /// An Ansible pattern: `promoters`, `a:!b`, `web*`. May be a template over params.
    Pattern(String),
    /// `{ from, within }`: chosen while the run goes on, within a set that is known before.
    Chosen {
        /// A template over outputs that gives the hosts in the order of work.
        from: Spanned<String>,
        /// The pattern of the set.
        within: Spanned<String>,
    },
}

/// `serial`, and a step's `max_failures`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serial {
    /// So many hosts; items, where a step with `foreach` has no `hosts`.
    Count(u32),
    /// So many percent of the step's hosts, at least one.
    Percent(u8),
}

impl Serial {
    /// How many hosts of so many: a share is rounded down, and at least one.
    pub fn batch(self, all: usize) -> usize {
        let size = match self {
            Self::Count(count) => count as usize,
            Self::Percent(percent) => all.saturating_mul(usize::from(percent)) / 100,
        };
        size.max(1)
    }
}

/// `retries` and `backoff`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Further attempts after the first; 0 by default.
    pub retries: u32,
    /// The wait before the first retry; doubles with each, up to a minute. 1 s by default.
    pub backoff: Duration,
}

/// The longest wait between two attempts.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

impl Retry {
    /// The wait after the attempt of that number, counted from 1.
    pub fn wait(self, attempt: u32) -> Duration {
        let factor = 1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        self.backoff.saturating_mul(factor).min(LONGEST_BACKOFF)
    }
}

impl StepDef {
    /// Every step that it waits for in some way.
    pub fn all_needs(&self) -> impl Iterator<Item = &Spanned<String>> {
        self.needs.iter().chain(&self.needs_per_host)
    }

    /// The tags that choose among the steps of the workflow that it includes; empty: all of them.
    pub fn included_tags(&self) -> Vec<&str> {
        let mut tags = Vec::new();
        if self.uses.value == super::documents::INCLUDE
            && let Some(list) = self.with.value.get("tags")
        {
            list.texts(&mut |tag, _| tags.push(tag));
        }
        tags
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { retries: 0, backoff: Duration::from_secs(1) }
    }
}

/// A value of the document with the place of each part.
#[derive(Debug, Clone)]
pub struct Argument {
    /// Where the value stands.
    pub span: Span,
    /// Where its key stands, for a table's field.
    pub key: Option<Span>,
    /// The value.
    pub kind: ArgumentKind,
}

/// What a value of the document is.
#[derive(Debug, Clone)]
pub enum ArgumentKind {
    /// A text; a template where it holds `{{` or `{%`.
    Text(String),
    /// A boolean or number.
    Plain(Value),
    /// A list.
    List(Vec<Argument>),
    /// A table.
    Table(IndexMap<String, Argument>),
}

impl Argument {
    /// True where any part is a template, so that its value is known only later.
    pub fn is_dynamic(&self) -> bool {
        match &self.kind {
            ArgumentKind::Text(text) => super::expr::is_template(text),
            ArgumentKind::Plain(_) => false,
            ArgumentKind::List(items) => items.iter().any(Self::is_dynamic),
            ArgumentKind::Table(fields) => fields.values().any(Self::is_dynamic),
        }
    }

    /// The value, each template in it replaced by what `render` makes of its text.
    pub fn render<E>(&self, render: &mut impl FnMut(&str) -> Result<Value, E>) -> Result<Value, E> {
        Ok(match &self.kind {
            ArgumentKind::Text(text) if super::expr::is_template(text) => render(text)?,
            ArgumentKind::Text(text) => Value::from(text.as_str()),
            ArgumentKind::Plain(value) => value.clone(),
            ArgumentKind::List(items) => {
                Value::Array(items.iter().map(|item| item.render(render)).collect::<Result<_, _>>()?)
            }
            ArgumentKind::Table(fields) => {
                let fields = fields
                    .iter()
                    .map(|(name, field)| Ok((name.clone(), field.render(render)?)))
                    .collect::<Result<_, E>>()?;
                Value::Object(fields)
            }
        })
    }

    /// Calls `visit` with every text in it and where it stands.
    pub fn texts<'a>(&'a self, visit: &mut impl FnMut(&'a str, &'a Span)) {
        match &self.kind {
            ArgumentKind::Text(text) => visit(text, &self.span),
            ArgumentKind::Plain(_) => {}
            ArgumentKind::List(items) => items.iter().for_each(|item| item.texts(visit)),
            ArgumentKind::Table(fields) => fields.values().for_each(|field| field.texts(visit)),
        }
    }
}
