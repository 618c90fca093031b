//! What is wrong in a document: where, what, and what would be right.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{LabeledSpan, SourceCode};

/// A place in a source: byte offsets.
pub type Span = Range<usize>;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub span: Span,
}

impl<T> Spanned<T> {
    /// A value that stands at `span`.
    pub fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }
}

/// A text with a name, such as a file's.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// For messages: the path as the user gave it, or `shipped:deploy.toml`.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// The kinds of errors. Stable: they stand in documentation and scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(pub &'static str);

impl Code {
    /// Not TOML.
    pub const SYNTAX: Self = Self("flow::syntax");
    /// A key that the language doesn't have, or one that is there twice.
    pub const UNKNOWN_KEY: Self = Self("flow::unknown-key");
    /// A key that must be there isn't.
    pub const MISSING_KEY: Self = Self("flow::missing-key");
    /// A value of the wrong type or outside its range.
    pub const TYPE: Self = Self("flow::type");
    /// No such step type.
    pub const UNKNOWN_STEP_TYPE: Self = Self("flow::unknown-step-type");
    /// No such argument of the step type.
    pub const UNKNOWN_ARGUMENT: Self = Self("flow::unknown-argument");
    /// An argument that the step type needs isn't there.
    pub const MISSING_ARGUMENT: Self = Self("flow::missing-argument");
    /// No such param, or one that is needed wasn't given.
    pub const PARAM: Self = Self("flow::param");
    /// `needs` or `guards` names no step, or one twice.
    pub const NEEDS: Self = Self("flow::needs");
    /// Steps that need each other in a circle.
    pub const CYCLE: Self = Self("flow::cycle");
    /// Two steps of one name, or a name that isn't one.
    pub const ID: Self = Self("flow::id");
    /// An expression that can't be read, or names what isn't there.
    pub const EXPRESSION: Self = Self("flow::expression");
    /// An output of a step that isn't upstream.
    pub const NOT_UPSTREAM: Self = Self("flow::not-upstream");
    /// What is said of taking back makes no sense, or a step stands in the way of an unwinding run.
    pub const UNDO: Self = Self("flow::undo");
    /// A host or group that the inventory doesn't have, or a set with no host.
    pub const HOSTS: Self = Self("flow::hosts");
    /// A workflow that includes itself, or a file that can't be read.
    pub const FILE: Self = Self("flow::file");
    /// A file of the inventory that can't be understood.
    pub const INVENTORY: Self = Self("flow::inventory");
    /// An executable on the plugin path that can't tell its step types, or isn't the one that it was.
    pub const PLUGIN: Self = Self("flow::plugin");
    /// A filter or tag that the workflow refuses or doesn't know.
    pub const FILTER: Self = Self("flow::filter");
    /// Another machine than when the run began answers under a host's name.
    pub const OTHER_MACHINE: Self = Self("flow::other-machine");
}

/// One thing that is wrong.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    /// Its kind.
    pub code: Code,
    /// What is wrong, in one line.
    pub message: String,
    /// Where; the first label is the main one. Empty: about the whole source.
    pub labels: Vec<(Span, String)>,
    /// What would be right, or the next action.
    pub help: Option<String>,
    /// The text that the labels point into.
    pub source: Option<Arc<Source>>,
}

impl Diagnostic {
    /// Something wrong at one place.
    pub fn at(code: Code, source: &Arc<Source>, span: Span, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            labels: vec![(span, String::new())],
            help: None,
            source: Some(Arc::clone(source)),
        }
    }

    /// Something wrong that no text shows, such as a param that wasn't given.
    pub fn general(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), labels: Vec::new(), help: None, source: None }
    }

    /// The words at the main place.
    #[must_use]
    pub fn label(mut self, text: impl Into<String>) -> Self {
        if let Some(first) = self.labels.first_mut() {
            first.1 = text.into();
        }
        self
    }

    /// One more place.
    #[must_use]
    pub fn also(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push((span, text.into()));
        self
    }

    /// What would be right.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// "did you mean", where a name comes near.
    #[must_use]
    pub fn nearest<'a>(self, wrong: &str, right: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(wrong, right) {
            Some(name) => self.help(format!("did you mean `{name}`?")),
            None => self,
        }
    }
}

/// The name that is nearest to a wrong one, if any is near.
pub fn nearest<'a>(wrong: &str, right: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    right
        .into_iter()
        .map(|name| (strsim::jaro_winkler(wrong, name), name))
        // Letters in another order make near what isn't meant: then at least the first one is right.
        .filter(|(score, name)| *score > if name.chars().next() == wrong.chars().next() { 0.8 } else { 0.84 })
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Diagnostic {}

impl miette::Diagnostic for Diagnostic {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.code.0))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let labels = self.labels.iter().enumerate().map(|(i, (span, text))| {
            let text = (!text.is_empty()).then(|| text.clone());
            if i == 0 {
                LabeledSpan::new_primary_with_span(text, span.clone())
            } else {
                LabeledSpan::new_with_span(text, span.clone())
            }
        });
        Some(Box::new(labels))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.source.as_deref().map(|source| source as &dyn SourceCode)
    }
}

impl SourceCode for Source {
    fn read_span<'a>(
        &'a self,
        span: &miette::SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn miette::SpanContents<'a> + 'a>, miette::MietteError> {
        let inner = self.text.read_span(span, before, after)?;
        Ok(Box::new(miette::MietteSpanContents::new_named(
            self.name.clone(),
            inner.data(),
            *inner.span(),
            inner.line(),
            inner.column(),
            inner.line_count(),
        )))
    }
}

/// All that is wrong, at once. Never empty where it is an error.
#[derive(Debug, Clone, Default)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Adds one.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.0.push(diagnostic);
    }

    /// `Ok` where nothing is wrong.
    pub fn into_result<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(one: Diagnostic) -> Self {
        Self(vec![one])
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, one) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{one}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}
