//! The one language of values and conditions: minijinja, strict about what is undefined.
//!
//! A text that is one whole `{{ expression }}` keeps the expression's type; any other template
//! renders to a string. `if` holds a bare expression.

use std::collections::HashSet;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior, Value as Jinja};
use serde_json::Value;

/// An expression that can't be read or evaluated.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ExprError {
    /// What is wrong, as a fragment.
    pub message: String,
    /// Where in the text, where that is known: byte offsets.
    pub range: Option<std::ops::Range<usize>>,
}

impl From<minijinja::Error> for ExprError {
    fn from(error: minijinja::Error) -> Self {
        let message = match error.detail() {
            Some(detail) => detail.to_owned(),
            None => error.kind().to_string(),
        };
        Self { message, range: error.range() }
    }
}

/// True where a text has anything to be evaluated.
pub fn is_template(text: &str) -> bool {
    text.contains("{{") || text.contains("{%") || text.contains("{#")
}

/// The expression inside, where the text is one whole `{{ expression }}`.
pub fn whole_expression(text: &str) -> Option<&str> {
    let inner = text.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    let inner = inner.strip_prefix('-').unwrap_or(inner);
    let inner = inner.strip_suffix('-').unwrap_or(inner);
    (!inner.contains("{{") && !inner.contains("}}")).then(|| inner.trim())
}

/// Evaluates expressions. Cheap to share, costly to make: make one.
pub struct Evaluator(Environment<'static>);

impl Default for Evaluator {
    fn default() -> Self {
        Self::new()
    }
}

impl Evaluator {
    /// An evaluator with flow's filters.
    pub fn new() -> Self {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .keep_trailing_newline(true)
            .build()
            .expect("the default delimiters don't clash");
        env.set_syntax(syntax);
        env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        env.set_debug(true);
        env.set_recursion_limit(200);
        Self(env)
    }

    /// Adds a function.
    pub fn add_function<F, R, A>(&mut self, name: &'static str, function: F)
    where
        F: minijinja::functions::Function<R, A>,
        R: minijinja::value::FunctionResult,
        A: for<'a> minijinja::value::FunctionArgs<'a>,
    {
        self.0.add_function(name, function);
    }

    /// The value of a bare expression.
    pub fn expression(&self, text: &str, scope: &Jinja) -> Result<Value, ExprError> {
        let value = self.0.compile_expression(text)?.eval(scope.clone())?;
        to_json(&value)
    }

    /// The value of a text of a document: typed for a whole expression, else a string.
    pub fn text(&self, text: &str, scope: &Jinja) -> Result<Value, ExprError> {
        match whole_expression(text) {
            Some(expression) => self.expression(expression, scope),
            None => Ok(Value::from(self.template(text, scope)?)),
        }
    }

    /// A rendered template.
    pub fn template(&self, text: &str, scope: &Jinja) -> Result<String, ExprError> {
        Ok(self.0.render_str(text, scope.clone())?)
    }

    /// The dotted names that a text of a document refers to: `params.scope`, `steps.a.b`.
    pub fn names(&self, text: &str) -> Result<HashSet<String>, ExprError> {
        match whole_expression(text) {
            Some(expression) => self.expression_names(expression),
            None => Ok(self.0.template_from_str(text)?.undeclared_variables(true)),
        }
    }

    /// The dotted names that a bare expression refers to.
    pub fn expression_names(&self, text: &str) -> Result<HashSet<String>, ExprError> {
        Ok(self.0.compile_expression(text)?.undeclared_variables(true))
    }

    /// Whether a filter of that name is there.
    pub fn has_filter(&self, name: &str) -> bool {
        self.knows(&format!("1|{name}"), minijinja::ErrorKind::UnknownFilter)
    }

    /// Whether a test of that name is there.
    pub fn has_test(&self, name: &str) -> bool {
        self.knows(&format!("1 is {name}"), minijinja::ErrorKind::UnknownTest)
    }

    /// The engine lists neither filters nor tests; it tells when it meets one that it doesn't know.
    fn knows(&self, probe: &str, unknown: minijinja::ErrorKind) -> bool {
        let result = self.0.compile_expression(probe).and_then(|expression| expression.eval(()));
        result.err().is_none_or(|error| error.kind() != unknown)
    }

    /// Whether a function of that name is there.
    pub fn has_global(&self, name: &str) -> bool {
        self.0.globals().any(|(known, _)| known == name)
    }
}

/// Whether a condition's value counts as true. Only booleans do: `if = "no"` is an error.
pub fn as_condition(value: &Value) -> Result<bool, ExprError> {
    value.as_bool().ok_or_else(|| ExprError {
        message: format!("a condition must be true or false, this is {value}"),
        range: None,
    })
}

fn to_json(value: &Jinja) -> Result<Value, ExprError> {
    if value.is_undefined() {
        return Err(ExprError { message: "the value is undefined".to_owned(), range: None });
    }
    serde_json::to_value(value).map_err(|e| ExprError { message: e.to_string(), range: None })
}
