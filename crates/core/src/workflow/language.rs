//! The language as types: what a key is for, what it takes. Nothing is read by these; they are what the
//! JSON Schema of workflows is made of, and what editors show. [`super::parse`] is what reads.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::Value;

/// A text with `{{ expression }}`, somewhere in it.
pub(super) const TEMPLATE: &str = r"\{\{|\{%|\{#";
/// One whole `{{ expression }}`, which keeps the expression's type.
pub(super) const WHOLE: &str = r"^\s*\{\{[\s\S]*\}\}\s*$";

/// A workflow: steps, which of them needs which, and where each runs.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename = "workflow")]
#[expect(dead_code, reason = "only their places in the schema count")]
pub(super) struct Document {
    /// The workflow's name: lower-case letters, digits and `-`.
    #[schemars(regex(pattern = r"^[a-z0-9-]+$"))]
    name: String,
    /// One line, for lists.
    #[schemars(regex(pattern = r"\S"))]
    summary: String,
    /// More lines, shown before a run. A template over params and the inventory.
    description: Option<String>,
    /// The workflow is only right as a whole: `--limit` and `--tags` are refused.
    whole: Option<bool>,
    /// The name that must be typed, or given as `--confirm NAME`, before destructive steps run. A template
    /// over params and the inventory. Required where a destructive step can be reached.
    #[schemars(regex(pattern = r"\S"))]
    confirm: Option<String>,
    /// What becomes of what was done when a run fails: `stop` leaves it, `unwind` takes it back.
    #[schemars(extend("enum" = ["stop", "unwind"]))]
    on_failure: Option<String>,
    /// Tasks at work on one host at once. 8 by default.
    max_per_host: Option<NonZeroU32>,
    /// Once so many tasks have failed, or can't be settled, nothing new is started. No limit by default.
    max_failures: Option<NonZeroU32>,
    /// How many tasks of a step type are at work at once, over all hosts.
    limits: Option<BTreeMap<String, NonZeroU32>>,
    /// The file of a workflow whose params this one has too, before its own. Steps that include that workflow give
    /// them on.
    params_from: Option<String>,
    /// What the user gives: `--set NAME=VALUE`. A name is lower-case letters, digits and `_`.
    #[schemars(extend("propertyNames" = { "pattern": "^[a-z_][a-z0-9_]*$" }))]
    params: Option<BTreeMap<String, ParamTable>>,
    /// What is done. A name is lower-case letters, digits, `_` and `-`, beginning with a letter.
    #[schemars(extend("propertyNames" = { "pattern": "^[a-z][a-z0-9_-]*$" }, "minProperties" = 1))]
    steps: BTreeMap<String, StepTable>,
    /// What the workflow leaves to later steps where it is used as a step; what a run tells at its end.
    /// Templates see the outputs of all steps.
    #[schemars(extend("propertyNames" = { "pattern": "^[a-z_][a-z0-9_]*$" }))]
    outputs: Option<BTreeMap<String, Value>>,
}

/// A param.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename = "param")]
#[expect(dead_code, reason = "only their places in the schema count")]
pub(super) struct ParamTable {
    /// What it takes.
    #[schemars(rename = "type")]
    kind: ParamType,
    /// What it is for.
    help: Option<String>,
    /// The value where none is given: of the param's type, or a template over the inventory and the params
    /// before it. Without one, the param must be given.
    default: Option<Value>,
    /// For a secret: where none is given, a password is made and kept in this file at the operator's place, which
    /// begins with `/` or `~/`.
    generate: Option<String>,
    /// The only values that it takes.
    #[schemars(length(min = 1))]
    choices: Option<Vec<Value>>,
}

/// The type of a param.
#[derive(JsonSchema)]
#[schemars(rename_all = "lowercase", inline)]
#[expect(dead_code, reason = "only their places in the schema count")]
pub(super) enum ParamType {
    /// Text.
    String,
    /// A whole number of 64 bits.
    Integer,
    /// A finite number.
    Number,
    /// `true` or `false`.
    Boolean,
    /// A list of texts; `a,b,c` on the command line.
    List,
    /// Text that is never shown or stored; given as `env:VARIABLE` or `file:PATH`.
    Secret,
}

/// A step.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, rename = "step", extend("dependencies" = {
    "needs_per_host": ["hosts"],
    "max_failures": ["serial"],
    "backoff": ["retries"],
    "serial": { "anyOf": [{ "required": ["hosts"] }, { "required": ["foreach"] }] },
}))]
#[expect(dead_code, reason = "only their places in the schema count")]
pub(super) struct StepTable {
    /// A step type (`flow steps` lists them), or `workflow`.
    uses: String,
    /// The step type's arguments: `flow steps TYPE`.
    #[schemars(extend("type" = "object"))]
    with: Option<Value>,
    /// Steps that must have ended well on all their hosts, or have been skipped, before this one starts.
    needs: Option<Vec<String>>,
    /// Steps of which a host waits for its own part only. Only with `hosts`.
    needs_per_host: Option<Vec<String>>,
    /// Where it runs: an Ansible pattern. Without it, at the operator's place, or on the host of the step
    /// that includes the workflow.
    hosts: Option<Hosts>,
    /// One task for each item: a list of texts, numbers, booleans or tables with a `name`, or a template
    /// that gives one. Expressions see `item` and `item_index`.
    foreach: Option<Items>,
    /// So many hosts at once; when a batch fails, the rest does not start.
    serial: Option<Share>,
    /// Once so many hosts have failed, the next batch of `serial` does not start. 1 by default.
    max_failures: Option<Share>,
    /// For `--tags`. A step with the tag `always` runs with any.
    #[schemars(inner(regex(pattern = r"^[A-Za-z0-9_-]+$")))]
    tags: Option<Vec<String>>,
    /// An expression, without braces, that gives true or false; false skips the step.
    #[schemars(rename = "if", regex(pattern = r"\S"))]
    condition: Option<String>,
    /// Steps upstream that are looked at again right before this one changes anything, also when a run is
    /// resumed.
    guards: Option<Vec<String>>,
    /// The point of no return: once it has begun, the run is only gone on with.
    pivot: Option<bool>,
    /// What it does may stay where the run is taken back.
    keep: Option<bool>,
    /// Further attempts after a failure that another attempt may cure. 0 by default.
    #[schemars(range(min = 0, max = 1000))]
    retries: Option<u32>,
    /// The wait before the first retry, such as `500ms`; doubles with each, up to a minute. `1s` by default.
    #[schemars(regex(pattern = r"\d"))]
    backoff: Option<String>,
    /// The time of one attempt to change something, such as `1m 30s`; what became of it is then found out.
    #[schemars(regex(pattern = r"\d"))]
    timeout: Option<String>,
    /// What it is for.
    help: Option<String>,
}

/// The workflow that a step includes.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only their places in the schema count")]
pub(super) struct Include {
    /// Its file, a path below the folder of the workflow that is run. Written out, not a template.
    file: String,
    /// What it is given for its params.
    params: Option<BTreeMap<String, Value>>,
    /// Only its steps with one of these tags run, as with `--tags`: what they need must be so already.
    #[schemars(length(min = 1), inner(regex(pattern = r"^[A-Za-z0-9_-]+$")))]
    tags: Option<Vec<String>>,
}

/// Hosts that are known before a run, or chosen in it.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[expect(dead_code, reason = "only their places in the schema count")]
enum Hosts {
    /// An Ansible pattern, such as `promoters`, `a:!b`, `web*`. May be a template over params.
    Pattern(String),
    /// Chosen once what the step needs has ended.
    Chosen(Chosen),
}

/// Hosts and their order from outputs, within a set that is known before the run.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, inline)]
#[expect(dead_code, reason = "only their places in the schema count")]
struct Chosen {
    /// A template over outputs that gives the hosts in the order of work: a list of names, or one.
    #[schemars(regex(pattern = r"\{\{|\{%|\{#"))]
    from: String,
    /// The whole set: an Ansible pattern.
    #[schemars(regex(pattern = r"\S"))]
    within: String,
}

/// A count, or a share such as `30%`.
struct Share;

impl JsonSchema for Share {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "share".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 1 },
            { "type": "string", "pattern": "^([1-9][0-9]?|100)%$" },
        ] })
    }
}

/// A list, or a template that gives one.
struct Items;

impl JsonSchema for Items {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "items".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let item = serde_json::json!({ "type": ["string", "number", "boolean", "object"], "minLength": 1, "required": ["name"] });
        json_schema!({ "anyOf": [
            { "type": "array", "items": item, "maxItems": super::MAX_ITEMS },
            { "type": "string", "pattern": WHOLE },
        ] })
    }
}
