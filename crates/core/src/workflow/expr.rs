//! The one language of values and conditions: minijinja, strict about what is undefined.
//!
//! A text that is one whole `{{ expression }}` keeps the expression's type; any other template
//! renders to a string. `if` holds a bare expression.
//!
//! Whatever stands in a text, reading and evaluating it comes to an end: it has a size, and a budget.

mod size;

use std::collections::HashSet;
use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Kwargs;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value as Jinja};
use serde_json::Value;

/// What evaluating one text may cost, in instructions of the template engine or the like: some tenths of a second.
pub(crate) const BUDGET: u64 = 1_000_000;

/// The largest list or table that an expression may give, as JSON, in bytes. Parts that are the same count each time.
const LARGEST: usize = 4 << 20;

/// An expression that can't be read or evaluated.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ExprError {
    /// What is wrong, as a fragment.
    pub message: String,
    /// Where in the text, where that is known: byte offsets.
    pub range: Option<std::ops::Range<usize>>,
}

impl From<Error> for ExprError {
    fn from(error: Error) -> Self {
        let message = match error.detail() {
            _ if error.kind() == ErrorKind::OutOfFuel => "it takes too long to evaluate".to_owned(),
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
        env.set_fuel(Some(BUDGET));
        env.add_function("range", range);
        env.add_filter("tojson", tojson);
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
        bounded(text, true)?;
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
        bounded(text, false)?;
        Ok(self.0.render_str(text, scope.clone())?)
    }

    /// The dotted names that a text of a document refers to: `params.scope`, `steps.a.b`.
    pub fn names(&self, text: &str) -> Result<HashSet<String>, ExprError> {
        match whole_expression(text) {
            Some(expression) => self.expression_names(expression),
            None => {
                bounded(text, false)?;
                Ok(self.0.template_from_str(text)?.undeclared_variables(true))
            }
        }
    }

    /// The dotted names that a bare expression refers to.
    pub fn expression_names(&self, text: &str) -> Result<HashSet<String>, ExprError> {
        bounded(text, true)?;
        Ok(self.0.compile_expression(text)?.undeclared_variables(true))
    }

    /// Whether a filter of that name is there.
    pub fn has_filter(&self, name: &str) -> bool {
        self.knows(&format!("1|{name}"), ErrorKind::UnknownFilter)
    }

    /// Whether a test of that name is there.
    pub fn has_test(&self, name: &str) -> bool {
        self.knows(&format!("1 is {name}"), ErrorKind::UnknownTest)
    }

    /// The engine lists neither filters nor tests; it tells when it meets one that it doesn't know.
    fn knows(&self, probe: &str, unknown: ErrorKind) -> bool {
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

/// Refuses what would take the engine too deep. `bare`: the text is one expression.
pub(crate) fn bounded(text: &str, bare: bool) -> Result<(), ExprError> {
    match size::excess(text, bare) {
        Some(message) => Err(ExprError { message, range: None }),
        None => Ok(()),
    }
}

/// The engine's own, for bounds of any size.
fn range(lower: i64, upper: Option<i64>, step: Option<i64>) -> Result<Jinja, Error> {
    const MOST: u64 = 100_000;
    let wrong = |what: &'static str| Err(Error::new(ErrorKind::InvalidOperation, what));
    let (lower, upper) = upper.map_or((0, lower), |upper| (lower, upper));
    let step = step.unwrap_or(1);
    if step == 0 {
        return wrong("the step of `range` is 0");
    }
    let distance = if (step > 0) == (lower < upper) { lower.abs_diff(upper) } else { 0 };
    let count = distance.div_ceil(step.unsigned_abs());
    if count > MOST {
        return wrong("`range` has more than 100000 items");
    }
    // The last item is nearer than `upper`: where a product is out of bounds, the sum is back in them.
    Ok((0..count as i64).map(|at| lower.wrapping_add(at.wrapping_mul(step))).collect())
}

/// The engine's own, within bounds: it counts what it made only afterwards.
fn tojson(value: &Jinja, indent: Option<Jinja>, args: Kwargs) -> Result<Jinja, Error> {
    const WIDEST: usize = 16;
    let indent = match indent {
        None => args.get("indent")?,
        given => given,
    };
    let wide = indent.as_ref().and_then(Jinja::as_usize).is_some_and(|width| width > WIDEST);
    if wide || is_too_large(value) {
        let what = if wide { "`indent` is more than 16" } else { "it is too large for JSON" };
        return Err(Error::new(ErrorKind::InvalidOperation, what));
    }
    minijinja::filters::tojson(value, indent, args)
}

fn to_json(value: &Jinja) -> Result<Value, ExprError> {
    let wrong = |message: String| Err(ExprError { message, range: None });
    if value.is_undefined() {
        return wrong("the value is undefined".to_owned());
    }
    if is_too_large(value) {
        return wrong(format!("the value has more than {} MiB", LARGEST >> 20));
    }
    serde_json::to_value(value).or_else(|e| wrong(e.to_string()))
}

/// Whether a value would be out of bounds once it is written out.
fn is_too_large(value: &Jinja) -> bool {
    struct Room(usize);
    impl io::Write for Room {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    // Whatever else can't be written is told where it is.
    value.as_object().is_some() && serde_json::to_writer(Room(LARGEST), value).is_err_and(|e| e.is_io())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluated(text: &str) -> Result<Value, String> {
        Evaluator::new().expression(text, &().into()).map_err(|error| error.message)
    }

    #[test]
    fn what_would_go_on_for_ever_is_ended() {
        let nested =
            "{% for a in range(100000) %}{% for b in range(100000) %}{{ b }}{% endfor %}{% endfor %}";
        let error = Evaluator::new().template(nested, &().into()).unwrap_err();
        assert_eq!(error.message, "it takes too long to evaluate");
        for text in [
            "('a' * 1000000000)|length",
            "[1]|tojson(indent=1000000000)",
            "[[[[0] * 999] * 999] * 999]",
            "[[[[0] * 1000] * 1000] * 1000]|tojson",
        ] {
            assert!(evaluated(text).is_err(), "{text}");
        }
        assert_eq!(evaluated("[1]|tojson(indent=2)").unwrap(), "[\n  1\n]");
    }

    #[test]
    fn ranges_are_those_of_python_with_any_bounds() {
        let list = |text: &str| evaluated(&format!("range({text})|list")).map(|value| value.to_string());
        for (range, items) in [
            ("3", "[0,1,2]"),
            ("1, 3", "[1,2]"),
            ("0, 10, 4", "[0,4,8]"),
            ("3, 0, -1", "[3,2,1]"),
            ("5, 0, -2", "[5,3,1]"),
            ("3, 1", "[]"),
            ("0, 3, -1", "[]"),
            ("9223372036854775806, 9223372036854775807", "[9223372036854775806]"),
            ("-9223372036854775807, 9223372036854775807, 9223372036854775807", "[-9223372036854775807,0]"),
        ] {
            assert_eq!(list(range).as_deref(), Ok(items), "{range}");
        }
        for range in ["100001", "0, 1, 0", "9223372036854775807, -9223372036854775807, -1"] {
            assert!(list(range).is_err(), "{range}");
        }
    }
}
