//! How large an expression may be. The template engine limits how deep brackets and blocks stand in each other, but
//! goes down one call for each operator of a chain (`a.b.c`, `1 + 1 + 1`, `not not a`) and for each `elif`: enough
//! of them would end the process.

/// The most operators of one expression, brackets included.
pub(super) const MAX_OPERATORS: usize = 500;
/// The most `elif` of one template.
pub(super) const MAX_BRANCHES: usize = 100;

/// Words that count as operators.
const WORDS: [&str; 7] = ["and", "or", "not", "in", "is", "if", "else"];

/// What of a text is too much, in words; none where it may be read. `bare`: all of it is one expression.
pub(super) fn excess(text: &str, bare: bool) -> Option<String> {
    // Each takes a byte at least.
    if text.len() <= MAX_BRANCHES.min(MAX_OPERATORS) {
        return None;
    }
    let mut counter = Counter { rest: text, operators: 0, branches: 0 };
    if bare {
        counter.expression(None);
    } else {
        counter.template();
    }
    if counter.operators > MAX_OPERATORS {
        return Some(format!("it has more than {MAX_OPERATORS} operators; set a part of it apart"));
    }
    (counter.branches > MAX_BRANCHES)
        .then(|| format!("it has more than {MAX_BRANCHES} `elif`; look the value up in a table"))
}

struct Counter<'t> {
    rest: &'t str,
    /// Of the expression under way, or of the one that had too many.
    operators: usize,
    branches: usize,
}

impl Counter<'_> {
    fn template(&mut self) {
        while self.operators <= MAX_OPERATORS
            && let Some(open) = self.rest.find('{')
        {
            let marker = self.rest.as_bytes().get(open + 1).copied();
            self.skip(open + if matches!(marker, Some(b'{' | b'%' | b'#')) { 2 } else { 1 });
            match marker {
                Some(b'{') => self.expression(Some("}}")),
                Some(b'%') => self.expression(Some("%}")),
                Some(b'#') => {
                    let end = self.rest.find("#}").map_or(self.rest.len(), |at| at + 2);
                    self.skip(end);
                }
                _ => {}
            }
        }
    }

    /// Counts up to the end of the expression, as the engine finds it: no bracket is open there.
    fn expression(&mut self, end: Option<&str>) {
        self.operators = 0;
        let mut open = 0_isize;
        while self.operators <= MAX_OPERATORS
            && let Some(first) = self.rest.chars().next()
        {
            if let Some(end) = end.filter(|end| open == 0 && self.rest.starts_with(end)) {
                self.skip(end.len());
                return;
            }
            let word = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
            match first {
                '"' | '\'' => {
                    self.text(first);
                    continue;
                }
                _ if word > 0 => {
                    self.word(word);
                    continue;
                }
                '(' | '[' | '{' => {
                    open += 1;
                    self.operators += 1;
                }
                ')' | ']' | '}' => open -= 1,
                ',' | ':' => {}
                c if c.is_whitespace() => {}
                _ => self.operators += 1,
            }
            self.skip(first.len_utf8());
        }
    }

    fn word(&mut self, length: usize) {
        let word = &self.rest[..length];
        self.operators += usize::from(WORDS.contains(&word));
        self.branches += usize::from(word == "elif");
        self.skip(length);
    }

    /// Passes over a text in quotes.
    fn text(&mut self, quote: char) {
        let mut escaped = false;
        let close = self.rest[1..].find(|c: char| {
            let closes = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        });
        self.skip(close.map_or(self.rest.len(), |at| at + 2));
    }

    fn skip(&mut self, length: usize) {
        self.rest = &self.rest[length..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::expr::Evaluator;

    #[test]
    fn what_would_go_too_deep_is_refused() {
        let chains = ["-", "not ", "1 + ", "a.", "1 if 1 else ", "a[0] == ", "a|upper ~ ", "(", "["];
        for chain in chains {
            let expression = format!("{}1", chain.repeat(100_000));
            assert!(excess(&expression, true).is_some(), "{chain}");
            assert!(excess(&format!("text {{{{ {expression} }}}}"), false).is_some(), "{chain}");
            let evaluator = Evaluator::new();
            assert!(evaluator.names(&format!("{{{{ {expression} }}}}")).is_err(), "{chain}");
            assert!(evaluator.expression(&expression, &().into()).is_err(), "{chain}");
        }
        let branches = format!("{{% if a %}}{}{{% endif %}}", "{% elif b %}".repeat(100_000));
        assert!(Evaluator::new().names(&branches).is_err());
    }

    #[test]
    fn what_is_large_and_flat_is_no_excess() {
        let list = format!("[{}]", "'a', ".repeat(100_000));
        assert_eq!(excess(&list, true), None);
        let text = "a.b.c - {{ x }} {# - - - #} {% if a.b %}-{% endif %}".repeat(10_000);
        assert_eq!(excess(&text, false), None);
        assert_eq!(excess(&format!("{{{{ '{}' }}}}", "- }} \\' {".repeat(1000)), false), None);
    }

    #[test]
    fn as_much_as_is_allowed_is_read_on_a_small_stack() {
        let most = |chain: &str, count: usize| format!("{}1", chain.repeat(count));
        let mut texts: Vec<String> =
            ["-", "not ", "1 + ", "a.b|", "x.", "1 == "].map(|chain| most(chain, MAX_OPERATORS / 2)).into();
        texts.push(most("-", MAX_OPERATORS));
        texts.push(most("1 if 1 else ", MAX_OPERATORS / 2));
        let branches = format!("{{% if 1 %}}{}{{% endif %}}", "{% elif 1 %}".repeat(MAX_BRANCHES));
        let read = move || {
            let evaluator = Evaluator::new();
            for text in texts {
                // Whether it is an expression at all is the engine's to say.
                let _ = evaluator.expression(&text, &().into());
                let _ = evaluator.expression_names(&text);
            }
            assert_eq!(evaluator.template(&branches, &().into()).unwrap(), "");
        };
        // What tokio's workers have.
        std::thread::Builder::new().stack_size(2 << 20).spawn(read).unwrap().join().unwrap();
    }
}
