//! A text's lines with the values of what is called a password masked: for files that hold secrets which flow doesn't know.

/// What stands in place of a secret.
const MASK: &str = "••••••";
/// What a secret's name has in it, in lower case.
const NAMES: [&str; 5] = ["password", "passwd", "passphrase", "secret", "token"];

/// Each line as it may be shown. What follows a name and `:` or `=` is masked to the end of the line, and where nothing or a
/// block of YAML follows, the lines below that stand further to the right; so is what stands before the `@` of an address.
pub(super) fn masked(text: &str) -> Vec<String> {
    let mut block: Option<usize> = None;
    let mut lines = Vec::new();
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        if block.is_some_and(|at| indent > at || line.trim().is_empty()) {
            lines.push(format!("{}{MASK}", &line[..indent]));
            continue;
        }
        block = None;
        lines.push(match value(line) {
            Some(at) => {
                let (name, value) = line.split_at(at);
                let value = value.trim();
                if value.is_empty() || value.starts_with(['|', '>']) {
                    block = Some(indent);
                }
                if value.is_empty() { line.to_owned() } else { format!("{name} {MASK}") }
            }
            None => without_user(line),
        });
    }
    lines
}

/// Where the value of a secret begins in a line.
fn value(line: &str) -> Option<usize> {
    // As many bytes as the line has, so that places are the same.
    let lower = line.to_ascii_lowercase();
    let name = NAMES.iter().filter_map(|name| Some(lower.find(name)? + name.len())).min()?;
    lower[name..].find([':', '=']).map(|at| name + at + 1)
}

/// `scheme://USER:PASSWORD@host`
fn without_user(line: &str) -> String {
    let Some((scheme, rest)) = line.split_once("://") else { return line.to_owned() };
    match rest.split_once('@') {
        Some((user, host)) if user.contains(':') && !user.contains([' ', '/']) => {
            format!("{scheme}://{MASK}@{host}")
        }
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_called_a_password_is_masked_in_every_notation() {
        let text = "scope: demo\n  password: \"s3cret\"\n  auth: {username: a, Password: s3cret}\n# old password = s3cret\n\
                    conninfo: host=a password=s3cret port=1\nurl: http://u:s3cret@etcd:2379\nsecret_key: s3cret";
        let lines = masked(text);
        assert!(!lines.join("\n").contains("s3cret"), "{lines:#?}");
        assert_eq!(
            lines[..3],
            ["scope: demo", "  password: ••••••", "  auth: {username: a, Password: ••••••"]
        );
        assert_eq!(lines[5], "url: http://••••••@etcd:2379");
    }

    #[test]
    fn a_password_on_lines_of_its_own_is_masked_up_to_the_next_key() {
        let lines =
            masked("a:\n  password: >-\n    s3cret\n\n    more\n  b: 1\n  password:\n    s3cret\nc: 2");
        assert!(!lines.join("\n").contains("s3cret") && !lines.join("\n").contains("more"), "{lines:#?}");
        assert_eq!((lines[5].as_str(), lines[8].as_str()), ("  b: 1", "c: 2"));
    }

    #[test]
    fn what_is_none_stays() {
        for line in
            ["  # Who changes something needs the password.", "hosts: http://a@b", "pgpass: /var/lib/x", ""]
        {
            assert_eq!(masked(line).first().map_or("", String::as_str), line);
        }
    }
}
