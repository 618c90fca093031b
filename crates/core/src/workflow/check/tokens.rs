//! Where names stand in an expression or template. The template engine tells which names are used,
//! but not where; this finds them, and what it doesn't tell at all: filters and tests.

use std::ops::Range;

/// A word of an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Name,
    /// A quoted text; the range is without the quotes.
    Text,
    Number,
    Sign(char),
}

/// A word and where it stands: bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) range: Range<usize>,
}

/// The words of all expressions of a text: of the whole text where it is `bare`, else of what
/// stands in `{{ }}` and `{% %}`.
pub(super) fn tokens(text: &str, bare: bool) -> Vec<Token> {
    let mut tokens = Vec::new();
    if bare {
        scan(text, 0, None, &mut tokens);
        return tokens;
    }
    let mut at = 0;
    while let Some(open) = text.get(at..).and_then(|rest| rest.find('{')).map(|offset| at + offset) {
        let rest = &text[open..];
        at = if rest.starts_with("{{") {
            scan(text, open + 2, Some("}}"), &mut tokens)
        } else if rest.starts_with("{%") {
            scan(text, open + 2, Some("%}"), &mut tokens)
        } else if rest.starts_with("{#") {
            rest.find("#}").map_or(text.len(), |close| open + close + 2)
        } else {
            open + 1
        };
    }
    tokens
}

/// Reads words up to `end`, and returns where that ends.
fn scan(text: &str, start: usize, end: Option<&str>, tokens: &mut Vec<Token>) -> usize {
    // A word before it belongs to another expression.
    tokens.push(Token { kind: Kind::Sign('{'), range: start..start });
    let mut at = start;
    while let Some(c) = text[at..].chars().next() {
        if let Some(end) = end
            && text[at..].starts_with(end)
        {
            return at + end.len();
        }
        let length =
            |good: &dyn Fn(char) -> bool| text[at..].find(|c: char| !good(c)).unwrap_or(text.len() - at);
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let (kind, range, next) = match c {
            c if c.is_whitespace() => {
                at += c.len_utf8();
                continue;
            }
            '\'' | '"' => {
                let close = closing(&text[at + 1..], c);
                (Kind::Text, at + 1..at + 1 + close, (at + close + 2).min(text.len()))
            }
            c if c.is_ascii_digit() => {
                let length = length(&word);
                (Kind::Number, at..at + length, at + length)
            }
            c if word(c) => {
                let length = length(&word);
                (Kind::Name, at..at + length, at + length)
            }
            c => (Kind::Sign(c), at..at + c.len_utf8(), at + c.len_utf8()),
        };
        tokens.push(Token { kind, range });
        at = next;
    }
    at
}

/// How long a quoted text is.
fn closing(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at,
            _ => {}
        }
    }
    text.len()
}

/// Expressions of a text, as words.
pub(super) struct Words<'t> {
    pub(super) text: &'t str,
    pub(super) tokens: Vec<Token>,
}

impl<'t> Words<'t> {
    pub(super) fn new(text: &'t str, bare: bool) -> Self {
        Self { text, tokens: tokens(text, bare) }
    }

    fn word(&self, at: usize) -> Option<&'t str> {
        self.tokens.get(at).map(|token| &self.text[token.range.clone()])
    }

    fn is(&self, at: usize, kind: Kind) -> bool {
        self.tokens.get(at).is_some_and(|token| token.kind == kind)
    }

    fn name(&self, at: usize) -> Option<&'t str> {
        if self.is(at, Kind::Name) { self.word(at) } else { None }
    }

    /// Where names begin that stand for themselves: not after a dot or a pipe, not a key.
    fn roots(&self) -> impl Iterator<Item = usize> {
        (0..self.tokens.len()).filter(|&at| {
            let after = |sign| at > 0 && self.is(at - 1, Kind::Sign(sign));
            self.is(at, Kind::Name) && !after('.') && !after('|')
        })
    }

    /// Where `root`, or `root.field`, stands first.
    pub(super) fn find(&self, root: &str, field: Option<&str>) -> Option<Range<usize>> {
        self.roots().filter(|&at| self.word(at) == Some(root)).find_map(|at| {
            let start = self.tokens[at].range.start;
            match field {
                None => Some(self.tokens[at].range.clone()),
                Some(field) => (self.is(at + 1, Kind::Sign('.')) && self.name(at + 2) == Some(field))
                    .then(|| start..self.tokens[at + 2].range.end),
            }
        })
    }

    /// Whether `name` is called there.
    pub(super) fn is_call(&self, name: &str) -> bool {
        self.roots().any(|at| self.word(at) == Some(name) && self.is(at + 1, Kind::Sign('(')))
    }

    /// The names in `root['name']`, and where.
    pub(super) fn subscripts(&self, root: &str) -> Vec<(&'t str, Range<usize>)> {
        self.roots()
            .filter(|&at| self.word(at) == Some(root))
            .filter(|&at| {
                self.is(at + 1, Kind::Sign('['))
                    && self.is(at + 2, Kind::Text)
                    && self.is(at + 3, Kind::Sign(']'))
            })
            .filter_map(|at| {
                let range = self.tokens[at].range.start..self.tokens[at + 3].range.end;
                self.word(at + 2).map(|name| (name, range))
            })
            .collect()
    }

    /// Where outputs of steps are named: the step, the field or `hosts` after it, and where.
    pub(super) fn outputs(&self) -> Vec<(&'t str, Option<&'t str>, Range<usize>)> {
        let steps = self.roots().filter(|&at| self.word(at) == Some("steps"));
        let found = steps.filter_map(|at| {
            let (name, next) = self.member(at + 1)?;
            let (field, end) = match self.member(next) {
                Some((field, next)) => (Some(field), next),
                None => (None, next),
            };
            Some((name, field, self.tokens[at].range.start..self.tokens[end - 1].range.end))
        });
        found.collect()
    }

    /// The member that `.name` or `['name']` at a word names, and the word after it.
    fn member(&self, at: usize) -> Option<(&'t str, usize)> {
        if self.is(at, Kind::Sign('.')) {
            return Some((self.name(at + 1)?, at + 2));
        }
        let quoted =
            self.is(at, Kind::Sign('[')) && self.is(at + 1, Kind::Text) && self.is(at + 2, Kind::Sign(']'));
        if quoted { Some((self.word(at + 1)?, at + 3)) } else { None }
    }

    /// What is written as `root.a-b`, where that is meant as one name: a subtraction to the engine.
    pub(super) fn dashed(&self, root: &str) -> Vec<(&'t str, Range<usize>)> {
        let mut found = Vec::new();
        for at in self.roots().filter(|&at| self.word(at) == Some(root) && self.is(at + 1, Kind::Sign('.'))) {
            let mut last = at + 2;
            while self.is(last, Kind::Name) && self.touches(last) && self.is(last + 1, Kind::Sign('-')) {
                let next = last + 2;
                let word = self.is(next, Kind::Name) || self.is(next, Kind::Number);
                if !word || !self.touches(last + 1) {
                    break;
                }
                last = next;
            }
            if last > at + 2 {
                let (start, name) = (self.tokens[at].range.start, self.tokens[at + 2].range.start);
                let end = self.tokens[last].range.end;
                found.push((&self.text[name..end], start..end));
            }
        }
        found
    }

    /// Whether nothing stands between a word and the next.
    fn touches(&self, at: usize) -> bool {
        match (self.tokens.get(at), self.tokens.get(at + 1)) {
            (Some(this), Some(next)) => this.range.end == next.range.start,
            _ => false,
        }
    }

    /// The names of filters, and where.
    pub(super) fn filters(&self) -> Vec<(&'t str, Range<usize>)> {
        (1..self.tokens.len())
            .filter(|&at| self.is(at - 1, Kind::Sign('|')))
            .filter_map(|at| Some((self.name(at)?, self.tokens[at].range.clone())))
            .collect()
    }

    /// The names of tests (`x is defined`), and where.
    pub(super) fn tests(&self) -> Vec<(&'t str, Range<usize>)> {
        (0..self.tokens.len())
            .filter(|&at| self.name(at) == Some("is"))
            .filter(|&at| at > 0 && !self.is(at - 1, Kind::Sign('.')) && !self.is(at - 1, Kind::Sign('|')))
            .filter_map(|at| {
                let at = if self.name(at + 1) == Some("not") { at + 2 } else { at + 1 };
                Some((self.name(at)?, self.tokens[at].range.clone()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Words;

    #[test]
    fn names_are_found_only_in_expressions() {
        let words = Words::new("params.x {# params.x #} {{ a.params.x }} {{ 'params.x' ~ params.x }}", false);
        assert_eq!(words.find("params", Some("x")), Some(57..65));
        assert_eq!(words.find("params", Some("y")), None);
        assert_eq!(words.find("a", None), Some(27..28));
    }

    #[test]
    fn subscripts_dashes_filters_and_tests_are_found() {
        let words = Words::new("steps['a-b'].x | upper if steps.stop-it.y is not defined else n - 1", true);
        assert_eq!(words.subscripts("steps"), [("a-b", 0..12)]);
        assert_eq!(words.dashed("steps"), [("stop-it", 26..39)]);
        assert_eq!(words.filters(), [("upper", 17..22)]);
        assert_eq!(words.tests(), [("defined", 49..56)]);
        assert!(Words::new("steps.n - 1", true).dashed("steps").is_empty());
    }

    #[test]
    fn outputs_are_found_with_the_field_after_them() {
        let words =
            Words::new("steps.a.hosts['n'].x ~ steps['b-c']['y'] ~ steps.d | list ~ x.steps.e.f", true);
        assert_eq!(
            words.outputs(),
            [("a", Some("hosts"), 0..13), ("b-c", Some("y"), 23..40), ("d", None, 43..50)]
        );
    }

    proptest! {
        #[test]
        fn any_text_has_words_or_none(text in "[a-z.\\-'\"{}%#\\[\\]| ä]{0,60}", bare: bool) {
            let words = Words::new(&text, bare);
            for token in &words.tokens {
                prop_assert!(text.get(token.range.clone()).is_some());
            }
            words.dashed("a");
            words.subscripts("a");
            words.tests();
            words.outputs();
        }
    }
}
