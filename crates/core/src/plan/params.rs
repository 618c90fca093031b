//! The root workflow's params: from `--set`, from defaults, typed; secrets read and fingerprinted.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use indexmap::IndexMap;
use minijinja::Value as Jinja;
use serde_json::Value;

use super::definition::PinnedParam;
use super::generated::{self, MadeSecret, NewSecrets};
use super::{Fingerprinter, Frame, Plan, SecretSource, scope};
use crate::inventory::{Inventory, holds_a_secret, secrets_of};
use crate::step::{Redactor, Secret};
use crate::workflow::expr::{Evaluator, ExprError};
use crate::workflow::{Argument, Bundle, Code, Diagnostic, Diagnostics, Param, ParamKind, Workflow, nearest};

/// Shorter secrets, in characters, are weak.
const SHORTEST: usize = 6;

/// What the user gave.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// `--set name=value`.
    pub set: BTreeMap<String, String>,
    /// Where secrets come from that neither the user nor a default gives.
    pub secrets: NewSecrets,
    /// Secrets that can be guessed are taken: they aren't masked, and the plan names them.
    pub allow_weak: bool,
}

impl Inputs {
    /// Of `--set name=value`.
    pub fn new(set: impl IntoIterator<Item = (String, String)>) -> Self {
        Self { set: set.into_iter().collect(), ..Self::default() }
    }
}

/// What values are made with.
struct Making<'a> {
    workflow: &'a Workflow,
    inventory: &'a Arc<Inventory>,
    evaluator: &'a Evaluator,
    print: &'a Fingerprinter,
    secrets: NewSecrets,
}

/// The params of the root workflow.
pub(super) struct Params {
    pub(super) values: IndexMap<String, Value>,
    pub(super) pinned: IndexMap<String, PinnedParam>,
    secrets: BTreeSet<String>,
    /// Passwords that were made just now.
    pub(super) made: Vec<MadeSecret>,
    /// Secrets that can be guessed, by the params' names.
    pub(super) weak: Vec<String>,
    /// Everything readable beside the params. What stands in it can't be masked.
    plain: String,
}

impl Params {
    fn new(pinned: IndexMap<String, PinnedParam>, plain: String) -> Self {
        let (values, secrets) = (IndexMap::new(), BTreeSet::new());
        Self { values, pinned, secrets, made: Vec::new(), weak: Vec::new(), plain }
    }

    /// From what the user gave and from defaults.
    pub(super) fn given(
        workflow: &Workflow,
        bundle: &Bundle,
        inventory: &Arc<Inventory>,
        inputs: &Inputs,
        evaluator: &Evaluator,
        print: &Fingerprinter,
    ) -> Result<Self, Diagnostics> {
        let mut params = Self::new(IndexMap::new(), plain_text(bundle, inventory));
        let mut wrong = Diagnostics::default();
        for name in inputs.set.keys().filter(|name| !workflow.params.contains_key(*name)) {
            wrong.push(unknown_param(workflow, name));
        }
        let making = Making { workflow, inventory, evaluator, print, secrets: inputs.secrets };
        for (name, param) in &workflow.params {
            let value = match inputs.set.get(name) {
                Some(text) => params.typed(workflow, name, param, text, print),
                None => params.defaulted(&making, name, param),
            };
            match value.and_then(|value| refuse_other_choices(name, param, value)) {
                Ok(value) => {
                    if !params.pinned.contains_key(name) {
                        params.pinned.insert(name.clone(), PinnedParam::Value(value.clone()));
                    }
                    params.values.insert(name.clone(), value);
                }
                Err(one) => wrong.push(one),
            }
        }
        if !inputs.allow_weak {
            params.weak.iter().for_each(|name| wrong.push(too_weak(name)));
        }
        wrong.into_result(params)
    }

    /// From what a run pinned; secrets are read again and must be the same.
    pub(super) fn again(
        workflow: &Workflow,
        bundle: &Bundle,
        inventory: &Arc<Inventory>,
        pinned: &IndexMap<String, PinnedParam>,
        evaluator: &Evaluator,
        print: &Fingerprinter,
    ) -> Result<Self, Diagnostics> {
        let mut params = Self::new(pinned.clone(), plain_text(bundle, inventory));
        let mut wrong = Diagnostics::default();
        for (name, pinned) in pinned {
            let value = match pinned {
                PinnedParam::Value(value) => Ok(value.clone()),
                PinnedParam::Secret { source, fingerprint } => {
                    params.secret_again(workflow, name, source, inventory, evaluator).and_then(|secret| {
                        if print.of(secret.reveal()) == *fingerprint {
                            params.know(workflow, name, secret.reveal());
                            return Ok(Value::from(secret.reveal()));
                        }
                        Err(Diagnostic::general(
                            Code::PARAM,
                            format!("the secret `{name}` is another one than when {}", print.since()),
                        )
                        .help(print.or_else()))
                    })
                }
            };
            match value {
                Ok(value) => {
                    params.values.insert(name.clone(), value);
                }
                Err(one) => wrong.push(one),
            }
        }
        wrong.into_result(params)
    }

    /// From what a run pinned; a secret is its mask.
    pub(super) fn without_secrets(pinned: &IndexMap<String, PinnedParam>) -> Self {
        let value = |pinned: &PinnedParam| match pinned {
            PinnedParam::Value(value) => value.clone(),
            PinnedParam::Secret { .. } => Value::from(crate::step::MASK),
        };
        let values = pinned.iter().map(|(name, pinned)| (name.clone(), value(pinned))).collect();
        Self { values, ..Self::new(pinned.clone(), String::new()) }
    }

    fn secret_again(
        &self,
        workflow: &Workflow,
        name: &str,
        source: &SecretSource,
        inventory: &Arc<Inventory>,
        evaluator: &Evaluator,
    ) -> Result<Secret, Diagnostic> {
        let unreadable =
            |message: String| Diagnostic::general(Code::PARAM, format!("the secret `{name}`: {message}"));
        if let Some(secret) = source.read().map_err(unreadable)? {
            return Ok(secret);
        }
        let default = workflow.params.get(name).and_then(|param| param.default.as_ref());
        let default = default.ok_or_else(|| unreadable("its default is gone".to_owned()))?;
        let context = static_context(inventory, &self.values);
        let value =
            default.render(&mut |text| evaluator.text(text, &context)).map_err(|e| unreadable(e.message))?;
        Ok(Secret::new(value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
    }

    fn typed(
        &mut self,
        workflow: &Workflow,
        name: &str,
        param: &Param,
        text: &str,
        print: &Fingerprinter,
    ) -> Result<Value, Diagnostic> {
        let wrong = |message: String| Diagnostic::general(Code::PARAM, format!("--set {name}: {message}"));
        let not = |what: &str| wrong(format!("`{text}` is not {what}"));
        match param.kind {
            ParamKind::String => Ok(Value::from(text)),
            ParamKind::Integer => text.parse::<i64>().map(Value::from).map_err(|_| not("an integer")),
            ParamKind::Number => {
                let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
                number.map(Value::from).ok_or_else(|| not("a number"))
            }
            ParamKind::Boolean => match text {
                "true" | "yes" => Ok(Value::from(true)),
                "false" | "no" => Ok(Value::from(false)),
                _ => Err(not("true or false")),
            },
            ParamKind::List => {
                Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Value::from).collect())
            }
            ParamKind::Secret => {
                let source = SecretSource::parse(text).ok_or_else(|| {
                    wrong("a secret is not given on the command line, where others can read it".to_owned())
                        .help(format!("--set {name}=env:VARIABLE or --set {name}=file:PATH"))
                })?;
                let secret = source.read().map_err(wrong)?.unwrap_or_else(|| Secret::new(""));
                self.keep_secret(workflow, name, source, secret.reveal(), print)
            }
        }
    }

    fn defaulted(&mut self, making: &Making<'_>, name: &str, param: &Param) -> Result<Value, Diagnostic> {
        let Making { workflow, inventory, evaluator, print, .. } = *making;
        let at = |span: std::ops::Range<usize>, message: String| {
            Diagnostic::at(Code::PARAM, &param.source, span, message)
        };
        let Some(default) = &param.default else {
            if let Some(kept) = &param.generate {
                return self.generated(making, name, param, kept);
            }
            let how = match param.kind {
                ParamKind::Secret => "env:VARIABLE".to_owned(),
                _ if param.choices.is_empty() => "VALUE".to_owned(),
                _ => choices(param).join("|"),
            };
            return Err(at(param.span.clone(), format!("the param `{name}` must be given"))
                .label(if param.help.is_empty() { "no default".to_owned() } else { param.help.clone() })
                .help(format!("--set {name}={how}")));
        };
        let context = static_context(inventory, &self.values);
        let value = default.render(&mut |text| evaluator.text(text, &context)).map_err(|e| {
            at(default.span.clone(), format!("the default of `{name}` can't be evaluated: {}", e.message))
                .help(format!("set what it refers to in the inventory, or give --set {name}=..."))
        })?;
        if param.kind == ParamKind::Secret {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            if let Some(kept) = param.generate.as_ref().filter(|_| text.is_empty()) {
                return self.generated(making, name, param, kept);
            }
            return self.keep_secret(workflow, name, SecretSource::Default, &text, print);
        }
        if self.holds_known_secret(&value, inventory) {
            let Some(text) = value.as_str() else {
                return Err(at(default.span.clone(), format!("the default of `{name}` holds a secret"))
                    .help("only a param of the type `secret` or `string` may: what others are is stored"));
            };
            let text = text.to_owned();
            return self.keep_secret(workflow, name, SecretSource::Default, &text, print);
        }
        let right = match param.kind {
            ParamKind::String if value.is_number() => return Ok(Value::from(value.to_string())),
            ParamKind::String | ParamKind::Secret => value.is_string(),
            ParamKind::Integer => value.is_i64() || value.is_u64(),
            ParamKind::Number => value.is_number(),
            ParamKind::Boolean => value.is_boolean(),
            ParamKind::List => value.is_array(),
        };
        if right {
            return Ok(value);
        }
        Err(at(
            default.span.clone(),
            format!("the default of `{name}` is {value}, not a {}", param.kind.as_str()),
        ))
    }

    /// The password that is kept in a file, made where there is none.
    fn generated(
        &mut self,
        making: &Making<'_>,
        name: &str,
        param: &Param,
        kept: &Argument,
    ) -> Result<Value, Diagnostic> {
        let Making { workflow, inventory, evaluator, print, secrets } = *making;
        let wrong = |message: String| {
            Diagnostic::at(
                Code::PARAM,
                &param.source,
                kept.span.clone(),
                format!("the secret `{name}`: {message}"),
            )
            .help(format!("--set {name}=env:VARIABLE or --set {name}=file:PATH gives one of your own"))
        };
        let source = match secrets {
            NewSecrets::OfNames => SecretSource::OfName(name.to_owned()),
            NewSecrets::Kept => {
                let context = static_context(inventory, &self.values);
                let text = kept.render(&mut |text| evaluator.text(text, &context)).map_err(|error| {
                    wrong(format!("where it is kept can't be evaluated: {}", error.message))
                })?;
                let path = generated::operator_path(text.as_str().unwrap_or_default()).map_err(wrong)?;
                if generated::keep(&path).map_err(wrong)? {
                    self.made.push(MadeSecret { param: name.to_owned(), path: path.clone() });
                }
                SecretSource::File(path)
            }
        };
        let secret = source.read().map_err(wrong)?.unwrap_or_else(|| Secret::new(""));
        self.keep_secret(workflow, name, source, secret.reveal(), print)
    }

    /// Whether a value is made of a secret: of a param before it, or of the inventory.
    fn holds_known_secret(&self, value: &Value, inventory: &Inventory) -> bool {
        let text = value.to_string();
        // A value out of a vault is secret however short it is.
        if value.as_str().is_some_and(|text| inventory.secrets.iter().any(|secret| secret == text)) {
            return true;
        }
        let variables = secrets_of(inventory);
        self.secrets.iter().chain(&variables).any(|secret| {
            secret.chars().count() >= SHORTEST && Redactor::new([secret.as_str()]).text(&text) != text
        })
    }

    fn keep_secret(
        &mut self,
        workflow: &Workflow,
        name: &str,
        source: SecretSource,
        text: &str,
        print: &Fingerprinter,
    ) -> Result<Value, Diagnostic> {
        if text.is_empty() {
            return Err(Diagnostic::general(Code::PARAM, format!("the secret `{name}` is empty")));
        }
        self.know(workflow, name, text);
        let fingerprint = print.of(text);
        self.pinned.insert(name.to_owned(), PinnedParam::Secret { source, fingerprint });
        Ok(Value::from(text))
    }

    /// Keeps a secret to be masked. One that is short, or a word that stands in the workflow or in a plain variable, would
    /// be masked there too, and what is recorded would make no sense any more: it is weak.
    fn know(&mut self, workflow: &Workflow, name: &str, text: &str) {
        let secret = workflow.params.get(name).is_some_and(|param| param.kind == ParamKind::Secret);
        if secret && (text.chars().count() < SHORTEST || self.plain.contains(text)) {
            self.weak.push(name.to_owned());
        } else {
            self.secrets.insert(text.to_owned());
        }
    }

    /// Fingerprints the secrets of a plan anew, under another key.
    pub(super) fn pin_again(plan: &mut Plan, print: &Fingerprinter) {
        let mut secrets = Vec::new();
        for (name, pinned) in &mut plan.definition.params {
            if let (PinnedParam::Secret { fingerprint, .. }, Some(secret)) =
                (pinned, plan.params.get(name).and_then(Value::as_str))
            {
                *fingerprint = print.of(secret);
                secrets.push(secret);
            }
        }
        let known = Redactor::new(secrets);
        plan.definition.inventory = super::definition::mask_inventory(&plan.inventory, &known, print);
    }

    /// Masks the secret params.
    pub(super) fn redactor_of_params(&self) -> Redactor {
        Redactor::new(self.secrets.iter().map(String::as_str))
    }

    /// Masks the secret params and the inventory's secrets, as far as these can be told from plain
    /// words.
    pub(super) fn redactor(&self, inventory: &Inventory, bundle: &Bundle) -> Redactor {
        let plain = plain_text(bundle, inventory);
        let variables = secrets_of(inventory);
        let maskable = variables
            .iter()
            .filter(|text| text.chars().count() >= SHORTEST && !plain.contains(text.as_str()));
        Redactor::new(self.secrets.iter().chain(maskable).map(String::as_str))
    }
}

/// Everything readable: the documents, names of hosts and groups, variables that are no secrets.
fn plain_text(bundle: &Bundle, inventory: &Inventory) -> String {
    let mut plain: String =
        bundle.files.values().map(|file| file.text.as_str()).collect::<Vec<_>>().join("\n");
    // Masked there, an event could not be read again.
    plain.push('\n');
    plain.push_str(crate::run::WORDS);
    let names = inventory.groups.keys().chain(inventory.hosts.keys());
    for name in names {
        plain.push('\n');
        plain.push_str(name);
    }
    let vars = inventory
        .hosts
        .values()
        .flat_map(|host| host.vars.iter().map(move |(name, value)| (host, name, value)));
    for (host, name, value) in vars {
        plain.push('\n');
        plain.push_str(name);
        if !host.secret.contains(name) && !holds_a_secret(name, value) {
            plain.push('\n');
            plain.push_str(&value.to_string());
        }
    }
    plain
}

fn too_weak(name: &str) -> Diagnostic {
    Diagnostic::general(Code::PARAM, format!("the secret `{name}` is too easy to guess")).help(
        "take at least 6 characters, and no word that stands in the workflow or the inventory: \
         `openssl rand -hex 16` makes one; where it does no harm, --allow-weak-passwords takes it",
    )
}

fn unknown_param(workflow: &Workflow, name: &str) -> Diagnostic {
    let known: Vec<&str> = workflow.params.keys().map(String::as_str).collect();
    let wrong = Diagnostic::general(Code::PARAM, format!("`{}` has no param `{name}`", workflow.name.value));
    match nearest(name, known.iter().copied()) {
        Some(near) => wrong.help(format!("did you mean `{near}`?")),
        None if known.is_empty() => wrong.help("it has no params"),
        None => wrong.help(format!("its params are: {}", known.join(", "))),
    }
}

fn refuse_other_choices(name: &str, param: &Param, value: Value) -> Result<Value, Diagnostic> {
    if param.choices.is_empty() || param.choices.iter().any(|choice| choice.value == value) {
        return Ok(value);
    }
    Err(Diagnostic::at(Code::PARAM, &param.source, param.span.clone(), format!("`{name}` can't be {value}"))
        .label(if param.help.is_empty() { name.to_owned() } else { param.help.clone() })
        .help(format!("one of: {}", choices(param).join(", "))))
}

/// The values that a param takes, as they are typed.
fn choices(param: &Param) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    param.choices.iter().map(|choice| text(&choice.value)).collect()
}

/// What defaults, `hosts` and `confirm` see: params and the inventory.
fn static_context(inventory: &Arc<Inventory>, params: &IndexMap<String, Value>) -> Jinja {
    Jinja::from(static_names(inventory, params))
}

pub(super) fn static_names(
    inventory: &Arc<Inventory>,
    params: &IndexMap<String, Value>,
) -> BTreeMap<&'static str, Jinja> {
    let mut context = BTreeMap::from([("params", scope::to_jinja(params))]);
    for name in ["groups", "hostvars", "addresses", "group_var"] {
        if let Some(value) = scope::inventory_name(inventory, name) {
            context.insert(name, value);
        }
    }
    context
}

/// A frame's params as far as they are known before a run. One that needs an output is left out.
fn static_params(
    evaluator: &Evaluator,
    inventory: &Arc<Inventory>,
    root: &Params,
    frames: &[Frame],
    frame: usize,
) -> IndexMap<String, Value> {
    let Some(caller) = &frames[frame].caller else { return root.values.clone() };
    let outer = static_params(evaluator, inventory, root, frames, caller.frame);
    let mut outer = static_names(inventory, &outer);
    if let Some(item) = &caller.item {
        outer.insert("item", scope::to_jinja(&item.value));
        outer.insert("item_index", Jinja::from(item.index));
    }
    let outer = Jinja::from(outer);
    let mut values = IndexMap::new();
    for (name, param) in &frames[frame].workflow.params {
        let value = match (caller.params.get(name), &param.default) {
            (Some(given), _) => given.render(&mut |text| evaluator.text(text, &outer)),
            (None, Some(default)) => {
                let inner = static_context(inventory, &values);
                default.render(&mut |text| evaluator.text(text, &inner))
            }
            (None, None) => continue,
        };
        if let Ok(value) = value {
            values.insert(name.clone(), value);
        }
    }
    values
}

/// The pattern of a step's `hosts`.
pub(super) fn host_pattern(
    evaluator: &Evaluator,
    inventory: &Arc<Inventory>,
    root: &Params,
    frames: &[Frame],
    frame: usize,
    text: &str,
) -> Result<String, ExprError> {
    if !crate::workflow::expr::is_template(text) {
        return Ok(text.to_owned());
    }
    let params = static_params(evaluator, inventory, root, frames, frame);
    let value = evaluator.text(text, &static_context(inventory, &params))?;
    Ok(match value {
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
        Value::String(pattern) => pattern,
        other => other.to_string(),
    })
}

/// The list that a step goes through.
pub(super) fn foreach_list(
    evaluator: &Evaluator,
    inventory: &Arc<Inventory>,
    root: &Params,
    frames: &[Frame],
    frame: usize,
    list: &Argument,
) -> Result<Value, ExprError> {
    if !list.is_dynamic() {
        return list.render(&mut |text| Ok(Value::from(text)));
    }
    let params = static_params(evaluator, inventory, root, frames, frame);
    let context = static_context(inventory, &params);
    list.render(&mut |text| evaluator.text(text, &context))
}

/// The root workflow's `description`, its templates rendered.
pub(super) fn description(plan: &Plan) -> Option<String> {
    let text = plan.workflow.description.as_ref()?.value.as_str();
    let context = static_context(&plan.inventory, &plan.params);
    let rendered = plan.evaluator.template(text, &context).unwrap_or_else(|_| text.to_owned());
    Some(plan.redactor.text(&rendered).into_owned())
}

/// The root workflow's `confirm`.
pub(super) fn confirmation(plan: &Plan) -> Result<Option<String>, Diagnostics> {
    if !plan.tasks().iter().any(|task| task.destructive && !task.must_hold) {
        return Ok(None);
    }
    let Some(confirm) = &plan.workflow.confirm else { return Ok(Some(plan.workflow.name.value.clone())) };
    let context = static_context(&plan.inventory, &plan.params);
    let value = plan.evaluator.text(&confirm.value, &context).map_err(|e| {
        Diagnostic::at(Code::EXPRESSION, &plan.workflow.source, confirm.span.clone(), e.message)
    })?;
    Ok(Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
}
