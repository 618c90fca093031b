//! Quoting for a POSIX shell.

/// The text as one word of a POSIX shell, whatever it holds.
///
/// A NUL can't be part of a word in any shell and is left out; callers that take text from outside
/// refuse it before.
pub fn quote(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('\'');
    for c in text.chars() {
        match c {
            '\'' => quoted.push_str("'\\''"),
            '\0' => {}
            c => quoted.push(c),
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::quote;

    fn echoed_by_sh(shell: &[&str], words: &[String]) -> Vec<u8> {
        let script = words.iter().map(|w| format!("printf '%s\\0' {}\n", quote(w))).collect::<String>();
        let output = std::process::Command::new(shell[0]).args(&shell[1..]).arg("-c").arg(script).output();
        output.expect("sh runs").stdout
    }

    fn joined(words: &[String]) -> Vec<u8> {
        words.iter().flat_map(|w| [w.as_bytes(), b"\0"].concat()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_shell_reads_back_what_was_quoted(words in prop::collection::vec("[^\0]{0,40}", 1..30)) {
            prop_assert_eq!(echoed_by_sh(&["sh"], &words), joined(&words));
        }

        #[test]
        fn special_characters_stay_themselves(words in prop::collection::vec("[-'\"\\\\$`!#*?~ \n\t;&|<>(){}=^%]{0,20}", 1..30)) {
            prop_assert_eq!(echoed_by_sh(&["sh"], &words), joined(&words));
            prop_assert_eq!(echoed_by_sh(&["bash", "--posix"], &words), joined(&words));
        }
    }

    #[test]
    fn plain_words_stay_readable() {
        assert_eq!(quote("/var/lib/postgresql/15"), "/var/lib/postgresql/15");
        assert_eq!(quote(""), "''");
        assert_eq!(quote("it's"), "'it'\\''s'");
        assert_eq!(quote("~root"), "'~root'");
    }
}
