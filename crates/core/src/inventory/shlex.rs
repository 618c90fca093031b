//! Splits a line into words as Python's `shlex.split(line, comments=True)` does, which is what
//! Ansible reads host lines with.

/// A word, and where it begins and ends in its line: bytes.
pub(super) type Word = (String, std::ops::Range<usize>);

/// The words of a line.
///
/// # Errors
/// A quote that isn't closed, or a backslash at the end: what, and where it begins.
pub(super) fn split(line: &str) -> Result<Vec<Word>, (&'static str, usize)> {
    let mut words = Vec::new();
    let mut word: Option<(String, usize)> = None;
    let mut chars = line.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '#' => break,
            c if c.is_ascii_whitespace() => words.extend(word.take().map(|(text, start)| (text, start..at))),
            '\\' => {
                let (_, escaped) = chars.next().ok_or(("nothing follows the backslash", at))?;
                word.get_or_insert_with(|| (String::new(), at)).0.push(escaped);
            }
            '\'' | '"' => {
                let text = &mut word.get_or_insert_with(|| (String::new(), at)).0;
                quoted(&mut chars, c, text).ok_or(("this quote is not closed", at))?;
            }
            c => word.get_or_insert_with(|| (String::new(), at)).0.push(c),
        }
    }
    let end = line.len() - chars.as_str().len();
    let end = if line[..end].ends_with('#') { end - 1 } else { end };
    words.extend(word.map(|(text, start)| (text, start..end)));
    Ok(words)
}

/// Reads to the closing quote. In double quotes a backslash escapes itself and the quote.
fn quoted(chars: &mut std::str::CharIndices<'_>, quote: char, text: &mut String) -> Option<()> {
    loop {
        match chars.next()?.1 {
            c if c == quote => return Some(()),
            '\\' if quote == '"' => match chars.next()?.1 {
                c @ ('"' | '\\') => text.push(c),
                c => {
                    text.push('\\');
                    text.push(c);
                }
            },
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::split;

    fn words(line: &str) -> Vec<String> {
        split(line).unwrap().into_iter().map(|(word, _)| word).collect()
    }

    #[test]
    fn words_are_split_and_unquoted_as_python_does() {
        assert_eq!(words(r#"web1 a="b c" d='e "f"' g=\ h # rest"#), ["web1", "a=b c", "d=e \"f\"", "g= h"]);
        assert_eq!(words(r#"a="x\"y\n" b='x\n'"#), ["a=x\"y\\n", "b=x\\n"]);
        assert_eq!(words("a#b c"), ["a"]);
        assert_eq!(words("a='' ''"), ["a=", ""]);
        assert_eq!(words("   "), Vec::<String>::new());
    }

    #[test]
    fn each_word_tells_its_place() {
        let places: Vec<_> = split("web1  a='b c'").unwrap().into_iter().map(|(_, place)| place).collect();
        assert_eq!(places, [0..4, 6..13]);
    }

    #[test]
    fn an_open_quote_and_a_last_backslash_are_errors() {
        assert_eq!(split("a 'b"), Err(("this quote is not closed", 2)));
        assert_eq!(split("a \\"), Err(("nothing follows the backslash", 2)));
    }
}
