//! Ansible's templates as the engine here reads them. What is different is written otherwise:
//!
//! - `a.b.c | default(x)` and `a.b is defined` hold where `a` isn't there at all;
//! - `ansible.builtin.NAME` is NAME;
//! - a backslash in a text of `{{ }}` stands for itself;
//! - a text that is one `{{ expression }}` keeps the expression's type.

use std::ops::Range;

use minijinja::{Error, ErrorKind};

/// The function that looks up what may not be there.
pub(super) const AT: &str = "__at";

/// A template to be evaluated.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    Expression(String),
    Text(String),
}

/// Reads a text of an inventory.
///
/// # Errors
/// Blocks that aren't closed, and filters of collections.
pub(super) fn read(text: &str) -> Result<Source, Error> {
    // Jinja drops one line end at the end.
    let text = text.strip_suffix('\n').unwrap_or(text);
    let mut out = String::with_capacity(text.len() + 16);
    let mut whole = None;
    let (mut at, mut blocks, mut plain) = (0, 0, false);
    while let Some(open) = text[at..].find('{').map(|offset| at + offset) {
        let kind = text.as_bytes().get(open + 1).copied();
        let next = match kind {
            Some(b'{' | b'%') => {
                let expression = kind == Some(b'{');
                let block = Block::read(text, open + 2, if expression { "}}" } else { "%}" })?;
                plain |= open > at;
                blocks += 1;
                out.push_str(&text[at..open + 2]);
                let inner = block.rewritten(expression)?;
                out.push_str(&inner);
                out.push_str(&text[block.end..block.end + 2]);
                whole = expression.then_some(inner);
                let end = block.end + 2;
                if block.is_raw() { raw_end(text, end, &mut out)? } else { end }
            }
            Some(b'#') => {
                let close = text[open..].find("#}").ok_or_else(|| not_closed("{#"))?;
                plain |= open > at;
                out.push_str(&text[at..open]);
                open + close + 2
            }
            _ => {
                plain = true;
                out.push_str(&text[at..=open]);
                open + 1
            }
        };
        at = next;
    }
    plain |= at < text.len();
    out.push_str(&text[at..]);
    match whole {
        Some(inner) if blocks == 1 && !plain => {
            let inner = inner.strip_prefix(['-', '+']).unwrap_or(&inner);
            let inner = inner.strip_suffix(['-', '+']).unwrap_or(inner);
            Ok(Source::Expression(inner.trim().to_owned()))
        }
        _ => Ok(Source::Text(out)),
    }
}

fn not_closed(open: &str) -> Error {
    Error::new(ErrorKind::SyntaxError, format!("a `{open}` is not closed"))
}

/// Copies what `{% raw %}` protects; gives where `{% endraw %}` begins.
fn raw_end(text: &str, from: usize, out: &mut String) -> Result<usize, Error> {
    let rest = &text[from..];
    let end = rest
        .find("endraw")
        .and_then(|word| rest[..word].rfind("{%"))
        .ok_or_else(|| not_closed("{% raw %}"))?;
    out.push_str(&rest[..end]);
    Ok(from + end)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Name,
    /// With its quotes.
    Text,
    Number,
    Sign(char),
}

struct Token {
    kind: Kind,
    range: Range<usize>,
}

/// The inside of `{{ }}` or `{% %}`.
struct Block<'t> {
    text: &'t str,
    start: usize,
    end: usize,
    tokens: Vec<Token>,
}

impl<'t> Block<'t> {
    fn read(text: &'t str, start: usize, close: &str) -> Result<Self, Error> {
        let mut tokens = Vec::new();
        let (mut at, mut open) = (start, 0_usize);
        loop {
            let rest = &text[at..];
            if open == 0 && rest.starts_with(close) {
                return Ok(Self { text, start, end: at, tokens });
            }
            let Some(c) = rest.chars().next() else {
                return Err(not_closed(if close == "}}" { "{{" } else { "{%" }));
            };
            let word = |c: char| c.is_alphanumeric() || c == '_';
            let length = |good: &dyn Fn(char) -> bool| rest.find(|c: char| !good(c)).unwrap_or(rest.len());
            let (kind, length) = match c {
                c if c.is_whitespace() => {
                    at += c.len_utf8();
                    continue;
                }
                '\'' | '"' => (Kind::Text, quoted(rest, c).ok_or_else(|| not_closed("quote"))?),
                c if c.is_ascii_digit() => (Kind::Number, length(&word)),
                c if word(c) => (Kind::Name, length(&word)),
                c => {
                    match c {
                        '(' | '[' | '{' => open += 1,
                        ')' | ']' | '}' => open = open.saturating_sub(1),
                        _ => {}
                    }
                    (Kind::Sign(c), c.len_utf8())
                }
            };
            tokens.push(Token { kind, range: at..at + length });
            at += length;
        }
    }

    fn is_raw(&self) -> bool {
        let words: Vec<&str> =
            self.tokens.iter().filter(|t| t.kind == Kind::Name).map(|t| self.word(t)).collect();
        words == ["raw"]
    }

    fn word(&self, token: &Token) -> &'t str {
        &self.text[token.range.clone()]
    }

    fn is(&self, at: usize, word: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| self.word(token) == word)
    }

    fn rewritten(&self, expression: bool) -> Result<String, Error> {
        let mut out = String::new();
        let writer = Writer { block: self, backslashes: expression };
        let end = writer.tokens(0, self.tokens.len(), self.start, &mut out)?;
        out.push_str(&self.text[end..self.end]);
        Ok(out)
    }
}

struct Writer<'b, 't> {
    block: &'b Block<'t>,
    /// Backslashes in texts stand for themselves.
    backslashes: bool,
}

/// A step down a value: `.name`, or `[expression]` by its first and last token.
enum Down<'t> {
    Name(&'t str),
    Item(usize, usize),
}

impl Writer<'_, '_> {
    /// Writes tokens with what stands between them; `done` is how far the text is written. Gives how far it is then.
    fn tokens(&self, mut at: usize, end: usize, mut done: usize, out: &mut String) -> Result<usize, Error> {
        let block = self.block;
        while at < end {
            let token = &block.tokens[at];
            out.push_str(&block.text[done..token.range.start]);
            done = token.range.end;
            let after_bar =
                at > 0 && (block.is(at - 1, "|") || block.is(at - 1, "is") || block.is(at - 1, "not"));
            if token.kind == Kind::Name && after_bar && block.is(at + 1, ".") && !block.is(at - 1, "not") {
                at = self.collection(at, out)?;
                done = block.tokens[at - 1].range.end;
                continue;
            }
            let root =
                token.kind == Kind::Name && !(at > 0 && (block.is(at - 1, ".") || block.is(at - 1, "|")));
            if root && let Some((downs, next)) = self.chain(at + 1, end) {
                self.lookup(block.word(token), &downs, out)?;
                done = block.tokens[next - 1].range.end;
                at = next;
                continue;
            }
            if token.kind == Kind::Text && block.is(at + 1, "%") && at + 2 < end {
                at = self.percent(at, end, out)?;
                done = block.tokens[at - 1].range.end;
                continue;
            }
            self.word(token, out);
            at += 1;
        }
        Ok(done)
    }

    /// `'text' % value`, Python's; gives the token after it.
    fn percent(&self, at: usize, end: usize, out: &mut String) -> Result<usize, Error> {
        let block = self.block;
        let mut next = at + 3;
        let paren = block.is(at + 2, "(");
        if paren {
            next = self.closing(at + 2, end).ok_or_else(|| not_closed("("))? + 1;
        } else {
            while next < end {
                next = match block.word(&block.tokens[next]) {
                    "." => next + 2,
                    "[" | "(" => self.closing(next, end).ok_or_else(|| not_closed("["))? + 1,
                    _ => break,
                };
            }
            next = next.min(end);
        }
        out.push('(');
        self.word(&block.tokens[at], out);
        out.push_str(" | format(");
        let (from, to) = if paren { (at + 3, next - 1) } else { (at + 2, next) };
        let begin = block.tokens[from].range.start;
        self.tokens(from, to, begin, out)?;
        out.push_str("))");
        Ok(next)
    }

    fn word(&self, token: &Token, out: &mut String) {
        let word = self.block.word(token);
        if token.kind == Kind::Text && self.backslashes && word.contains('\\') {
            let quote = word.chars().next();
            let mut chars = word.chars();
            while let Some(c) = chars.next() {
                out.push(c);
                if c == '\\' {
                    out.push('\\');
                    match chars.next() {
                        Some('\\') => out.push_str("\\\\"),
                        Some(next) if Some(next) == quote => out.extend(['\\', next]),
                        next => out.extend(next),
                    }
                }
            }
        } else {
            out.push_str(word);
        }
    }

    /// The name of a filter or test with its collection; gives the token after it.
    fn collection(&self, at: usize, out: &mut String) -> Result<usize, Error> {
        let block = self.block;
        let mut end = at + 1;
        while block.is(end, ".") && block.tokens.get(end + 1).is_some_and(|token| token.kind == Kind::Name) {
            end += 2;
        }
        let name: String = block.tokens[at..end].iter().map(|token| block.word(token)).collect();
        let plain = name.strip_prefix("ansible.builtin.").filter(|rest| !rest.contains('.'));
        let Some(plain) = plain else {
            return Err(Error::new(
                ErrorKind::UnknownFilter,
                format!("the filter or test `{name}` is unknown"),
            ));
        };
        out.push_str(plain);
        Ok(end)
    }

    /// What leads down from a name, where `default` or `is defined` follows; and the token after it.
    fn chain(&self, mut at: usize, end: usize) -> Option<(Vec<Down<'_>>, usize)> {
        let block = self.block;
        let mut downs = Vec::new();
        while at < end {
            if block.is(at, ".") {
                let name = block
                    .tokens
                    .get(at + 1)
                    .filter(|token| matches!(token.kind, Kind::Name | Kind::Number))?;
                downs.push(Down::Name(block.word(name)));
                at += 2;
            } else if block.is(at, "[") {
                let close = self.closing(at, end)?;
                downs.push(Down::Item(at + 1, close));
                at = close + 1;
            } else {
                break;
            }
        }
        let filter = block.is(at, "|") && (block.is(at + 1, "default") || block.is(at + 1, "d"));
        let test = at + if block.is(at + 1, "not") { 2 } else { 1 };
        let test = block.is(at, "is") && (block.is(test, "defined") || block.is(test, "undefined"));
        (!downs.is_empty() && (filter || test)).then_some((downs, at))
    }

    /// The bracket that closes one. None for a slice.
    fn closing(&self, open: usize, end: usize) -> Option<usize> {
        let mut depth = 0_usize;
        for at in open..end {
            match self.block.tokens[at].kind {
                Kind::Sign('(' | '[' | '{') => depth += 1,
                Kind::Sign(')' | ']' | '}') => {
                    depth = depth.checked_sub(1)?;
                    if depth == 0 {
                        return Some(at);
                    }
                }
                Kind::Sign(':') if depth == 1 => return None,
                _ => {}
            }
        }
        None
    }

    fn lookup(&self, root: &str, downs: &[Down<'_>], out: &mut String) -> Result<(), Error> {
        out.push_str(AT);
        out.push('(');
        out.push_str(root);
        let mut downs = downs;
        // What a loop knows of itself is no field that could be looked up.
        if let ("loop", [Down::Name(name), rest @ ..]) = (root, downs) {
            out.push('.');
            out.push_str(name);
            downs = rest;
        }
        for down in downs {
            match *down {
                Down::Name(name) if name.bytes().all(|byte| byte.is_ascii_digit()) => {
                    out.push_str(&format!(", {name}"));
                }
                Down::Name(name) => out.push_str(&format!(", '{name}'")),
                Down::Item(from, to) => {
                    out.push_str(", (");
                    let begin = self.block.tokens.get(from).map_or(self.block.end, |token| token.range.start);
                    self.tokens(from, to, begin, out)?;
                    out.push(')');
                }
            }
        }
        out.push(')');
        Ok(())
    }
}

/// How long a quoted text is, with its quotes.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Source, read};

    fn text(text: &str) -> String {
        match read(text).unwrap() {
            Source::Expression(text) => format!("= {text}"),
            Source::Text(text) => text,
        }
    }

    #[test]
    fn one_whole_expression_is_told_from_text() {
        assert_eq!(text("{{ a }}"), "= a");
        assert_eq!(text("{{- a -}}\n"), "= a");
        assert_eq!(text("{{ {'a': {'b': 1}} }}"), "= {'a': {'b': 1}}");
        assert_eq!(text("{{ '}}' }}"), "= '}}'");
        assert_eq!(text("{# why #}{{ a }}"), "= a");
        assert_eq!(text("{{ a }}{{ b }}"), "{{ a }}{{ b }}");
        assert_eq!(text(" {{ a }}"), " {{ a }}");
        assert_eq!(text("{% if a %}b{% endif %}"), "{% if a %}b{% endif %}");
        assert_eq!(text("a { b"), "a { b");
    }

    #[test]
    fn a_default_holds_where_nothing_on_the_way_is_there() {
        assert_eq!(text("{{ a.b['c'][d.e] | default(f.g) }}"), "= __at(a, 'b', ('c'), (d.e)) | default(f.g)");
        assert_eq!(text("{{ hostvars[h].x is not defined }}"), "= __at(hostvars, (h), 'x') is not defined");
        assert_eq!(text("{{ a | default(1) }}"), "= a | default(1)");
        assert_eq!(text("{{ a.split(',')[0] | default(1) }}"), "= a.split(',')[0] | default(1)");
        assert_eq!(text("{{ a[0:1] | default(1) }}"), "= a[0:1] | default(1)");
        assert_eq!(text("{{ loop.previtem.a | default(1) }}"), "= __at(loop.previtem, 'a') | default(1)");
    }

    #[test]
    fn texts_are_formatted_as_python_does() {
        assert_eq!(text("{{ '%02d' % a.b[0] + 'c' }}"), "= ('%02d' | format(a.b[0])) + 'c'");
        assert_eq!(text("{{ '%s:%s' % (a, b) }}"), "= ('%s:%s' | format(a, b))");
        assert_eq!(text("{{ 7 % 3 }}"), "= 7 % 3");
        assert!(read("{{ '%s' % (a }}").is_err());
    }

    #[test]
    fn backslashes_in_expressions_stand_for_themselves_and_builtin_names_are_short() {
        assert_eq!(text(r"{{ a | regex_replace('^(.*)$', '\1') }}"), r"= a | regex_replace('^(.*)$', '\\1')");
        assert_eq!(text(r"{{ 'it\'s \\' }}"), r"= 'it\\\'s \\\\'");
        assert_eq!(text("{{ a | ansible.builtin.b64encode }}"), "= a | b64encode");
        assert!(read("{{ a | community.general.json_query('x') }}").is_err());
    }

    #[test]
    fn what_is_raw_stays_as_it_is() {
        assert_eq!(
            text("{% raw %}{{ a.b | default('\\1') }}{% endraw %}"),
            "{% raw %}{{ a.b | default('\\1') }}{% endraw %}"
        );
    }

    #[test]
    fn what_is_not_closed_is_an_error() {
        for text in ["{{ a", "{% if", "{# a", "{{ 'a }}", "{{ (a }}", "{% raw %}{{"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
