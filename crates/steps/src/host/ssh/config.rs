//! Reads `ssh_config` files, as far as they say how a host is reached. Knows no inventory.
//!
//! OpenSSH's rules (ssh_config(5)): the first value found is the one used, `IdentityFile` adds up,
//! options that are not known here are passed over. `Match` is understood with `all`, `host`,
//! `originalhost` and `user`; a `Match` with anything else never matches.

use std::path::{Path, PathBuf};

/// Files that include each other deeper than this are refused, as OpenSSH does.
const MAX_DEPTH: u8 = 16;
/// The most files that are read for one host. Files that include each other could be read without end: as many
/// as there are ways through them.
const MAX_FILES: usize = 1000;

/// What the files (or a command line's `-o`) say of one host. Paths and tokens are as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Values {
    pub(crate) hostname: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) identity_files: Vec<String>,
    pub(crate) identities_only: Option<bool>,
    pub(crate) identity_agent: Option<String>,
    pub(crate) proxy_jump: Option<String>,
    pub(crate) proxy_command: Option<String>,
    pub(crate) user_known_hosts: Option<Vec<String>>,
    pub(crate) global_known_hosts: Option<Vec<String>>,
    pub(crate) host_key_alias: Option<String>,
    pub(crate) strict_host_keys: Option<String>,
    /// Seconds.
    pub(crate) alive_interval: Option<u64>,
    pub(crate) alive_count: Option<usize>,
    /// Seconds.
    pub(crate) connect_timeout: Option<u64>,
}

impl Values {
    /// Takes an option in, unless an earlier one has said it.
    ///
    /// # Errors
    /// A value that isn't what the option takes.
    pub(crate) fn set(&mut self, keyword: &str, arguments: &[String]) -> Result<(), String> {
        let Some(first) = arguments.first() else {
            return Err(format!("{keyword} has no value"));
        };
        let bad = || format!("{keyword} can't be {first:?}");
        match keyword.to_ascii_lowercase().as_str() {
            "hostname" => keep(&mut self.hostname, first.clone()),
            "user" => keep(&mut self.user, first.clone()),
            "port" => keep(&mut self.port, first.parse().map_err(|_| bad())?),
            "identityfile" if !self.identity_files.contains(first) => self.identity_files.push(first.clone()),
            "identitiesonly" => keep(&mut self.identities_only, first.eq_ignore_ascii_case("yes")),
            "identityagent" => keep(&mut self.identity_agent, first.clone()),
            "proxyjump" if self.proxy_command.is_none() => keep(&mut self.proxy_jump, first.clone()),
            "proxycommand" if self.proxy_jump.is_none() => keep(&mut self.proxy_command, arguments.join(" ")),
            "userknownhostsfile" => keep(&mut self.user_known_hosts, arguments.to_vec()),
            "globalknownhostsfile" => keep(&mut self.global_known_hosts, arguments.to_vec()),
            "hostkeyalias" => keep(&mut self.host_key_alias, first.clone()),
            "stricthostkeychecking" => keep(&mut self.strict_host_keys, first.to_ascii_lowercase()),
            "serveraliveinterval" => keep(&mut self.alive_interval, seconds(first).ok_or_else(bad)?),
            "serveralivecountmax" => keep(&mut self.alive_count, first.parse().map_err(|_| bad())?),
            "connecttimeout" => keep(&mut self.connect_timeout, seconds(first).ok_or_else(bad)?),
            _ => {}
        }
        Ok(())
    }
}

fn keep<T>(slot: &mut Option<T>, value: T) {
    slot.get_or_insert(value);
}

/// OpenSSH's time format: a number of seconds, or numbers with a unit.
fn seconds(text: &str) -> Option<u64> {
    let (mut total, mut number) = (0_u64, None::<u64>);
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(digit.into())?);
            continue;
        }
        let unit = match c.to_ascii_lowercase() {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86400,
            'w' => 604_800,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    total.checked_add(number.unwrap_or(0))
}

/// Reads the files in order and adds what they say of a host to what is said already.
///
/// # Errors
/// A file that is there and can't be read, or an option's value that can't be; with file and line.
pub(crate) fn read(files: &[PathBuf], home: &Path, alias: &str, values: &mut Values) -> Result<(), String> {
    let mut reader = Reader { home, alias, values, files: 0 };
    for file in files {
        if file.exists() {
            reader.file(file, true, 0)?;
        }
    }
    Ok(())
}

struct Reader<'a> {
    home: &'a Path,
    alias: &'a str,
    values: &'a mut Values,
    /// How many were read.
    files: usize,
}

impl Reader<'_> {
    fn file(&mut self, path: &Path, outer: bool, depth: u8) -> Result<(), String> {
        self.files += 1;
        if self.files > MAX_FILES {
            let path = path.display();
            return Err(format!("{path}: more than {MAX_FILES} files include each other"));
        }
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut active = outer;
        for (number, line) in text.lines().enumerate() {
            let at = |message: String| format!("{} line {}: {message}", path.display(), number + 1);
            let Some((keyword, arguments)) = split_option(line).map_err(at)? else { continue };
            match keyword.to_ascii_lowercase().as_str() {
                "host" => active = outer && matches_any(&arguments, self.alias),
                "match" => active = outer && self.match_block(&arguments),
                "include" if depth >= MAX_DEPTH => {
                    return Err(at("too many files include each other".into()));
                }
                "include" if active => {
                    for pattern in &arguments {
                        for file in self.included(path, pattern) {
                            self.file(&file, true, depth + 1)?;
                        }
                    }
                }
                _ if active => self.values.set(&keyword, &arguments).map_err(at)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn match_block(&self, arguments: &[String]) -> bool {
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let (negated, criterion) = match word.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, word.as_str()),
            };
            let criterion = criterion.to_ascii_lowercase();
            if criterion == "all" {
                continue;
            }
            let Some(patterns) = words.next() else { return false };
            let patterns: Vec<String> = patterns.split(',').map(str::to_owned).collect();
            let subject = match criterion.as_str() {
                "host" => self.values.hostname.as_deref().unwrap_or(self.alias),
                "originalhost" => self.alias,
                "user" => self.values.user.as_deref().unwrap_or_default(),
                _ => return false,
            };
            if matches_any(&patterns, subject) == negated {
                return false;
            }
        }
        true
    }

    /// The files that an `Include` names, in order; relative ones lie beside the including file's place.
    fn included(&self, from: &Path, pattern: &str) -> Vec<PathBuf> {
        let pattern = match pattern.strip_prefix("~/") {
            Some(rest) => self.home.join(rest),
            None => from.parent().unwrap_or(Path::new("/")).join(pattern),
        };
        let name = pattern.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.contains(['*', '?']) {
            // Not a device or a pipe, which might have no end.
            return if pattern.is_file() { vec![pattern] } else { Vec::new() };
        }
        let directory = pattern.parent().unwrap_or(Path::new("/"));
        let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut files: Vec<PathBuf> =
            names.filter(|n| !n.starts_with('.') && glob(&name, n)).map(|n| directory.join(n)).collect();
        files.sort();
        files
    }
}

/// One line as keyword and arguments; `None` for an empty one or a comment.
pub(crate) fn split_option(line: &str) -> Result<Option<(String, Vec<String>)>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
    let (keyword, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest);
    let mut words = split_words(rest)?;
    if let Some(comment) = words.iter().position(|word| word.starts_with('#')) {
        words.truncate(comment);
    }
    Ok(Some((keyword.to_owned(), words)))
}

/// Words as a shell or ssh_config splits them: blanks, quotes, backslash.
///
/// # Errors
/// A quote that isn't closed.
pub(crate) fn split_words(text: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some('"') | None, '\\') => word.get_or_insert_default().extend(chars.next()),
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(format!("a quote isn't closed in {text:?}"));
    }
    words.extend(word);
    Ok(words)
}

/// True if a pattern matches and none with `!` does.
pub(crate) fn matches_any(patterns: &[String], subject: &str) -> bool {
    let mut matched = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(pattern) if glob(pattern, subject) => return false,
            Some(_) => {}
            None => matched |= glob(pattern, subject),
        }
    }
    matched
}

/// `*` and `?`; case is ignored, as in host names.
pub(crate) fn glob(pattern: &str, subject: &str) -> bool {
    fn matches(pattern: &[u8], subject: &[u8]) -> bool {
        // Where the last `*` stood, and what of the subject it has not taken yet.
        let (mut p, mut s, mut star) = (0, 0, None);
        while s < subject.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p, s));
                    p += 1;
                }
                Some(&c) if c == b'?' || c.eq_ignore_ascii_case(&subject[s]) => {
                    p += 1;
                    s += 1;
                }
                _ => match star {
                    Some((at, taken)) => {
                        star = Some((at, taken + 1));
                        p = at + 1;
                        s = taken + 1;
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|&c| c == b'*')
    }
    matches(pattern.as_bytes(), subject.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(files: &[(&str, &str)], alias: &str) -> Values {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join(".ssh/conf.d")).unwrap();
        for (name, text) in files {
            std::fs::write(home.path().join(".ssh").join(name), text).unwrap();
        }
        let mut values = Values::default();
        read(&[home.path().join(".ssh/config")], home.path(), alias, &mut values).unwrap();
        values
    }

    #[test]
    fn the_first_value_wins_and_identity_files_add_up() {
        let text = "IdentityFile ~/.ssh/a\nHost db*\n  Port 2222\n  User admin\nHost *\n Port=22\n User nobody\n IdentityFile \"~/.ssh/b\"\n";
        let db = values(&[("config", text)], "db1");
        assert_eq!((db.port, db.user.as_deref()), (Some(2222), Some("admin")));
        assert_eq!(db.identity_files, ["~/.ssh/a", "~/.ssh/b"]);
        assert_eq!(values(&[("config", text)], "web").port, Some(22));
    }

    #[test]
    fn a_negated_pattern_excludes() {
        let text = "Host *.example.org !bad.example.org\n User u\n";
        assert_eq!(values(&[("config", text)], "a.example.org").user.as_deref(), Some("u"));
        assert_eq!(values(&[("config", text)], "bad.example.org").user, None);
    }

    #[test]
    fn includes_are_read_in_their_block_and_by_name_pattern() {
        let files = [
            ("config", "Host in\n Include conf.d/*.conf\nHost *\n Port 9\n"),
            ("conf.d/1.conf", "User one\nHost other\n Port 1\n"),
            ("conf.d/2.conf", "User two\nProxyJump jump\n"),
            ("conf.d/3.txt", "HostName no\n"),
        ];
        let got = values(&files, "in");
        assert_eq!(got.user.as_deref(), Some("one"));
        assert_eq!(got.proxy_jump.as_deref(), Some("jump"));
        assert_eq!((got.port, got.hostname), (Some(9), None));
        assert_eq!(values(&files, "out").user, None);
    }

    #[test]
    fn match_blocks_hold_where_they_are_understood() {
        let text =
            "Match originalhost a user root\n Port 1\nMatch exec \"true\"\n Port 2\nMatch all\n Port 3\n";
        let mut root = Values { user: Some("root".into()), ..Values::default() };
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("config");
        std::fs::write(&file, text).unwrap();
        read(&[file], home.path(), "a", &mut root).unwrap();
        assert_eq!(root.port, Some(1));
        assert_eq!(values(&[("config", text)], "a").port, Some(3));
    }

    #[test]
    fn times_may_have_units_and_comments_may_follow() {
        let got = values(&[("config", "ConnectTimeout 1m30s # slow\nServerAliveInterval 7\n")], "x");
        assert_eq!((got.connect_timeout, got.alive_interval), (Some(90), Some(7)));
    }

    #[test]
    fn a_time_that_no_number_holds_is_refused() {
        for text in ["18446744073709551615s1", "18446744073709551616", "30500568904943w1w"] {
            assert_eq!(seconds(text), None, "{text}");
        }
        assert_eq!(seconds("18446744073709551615"), Some(u64::MAX));
    }

    #[test]
    fn files_that_include_each_other_in_many_ways_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("config");
        std::fs::write(&file, "Include config\n".repeat(3)).unwrap();
        let error = read(&[file], home.path(), "x", &mut Values::default()).unwrap_err();
        assert!(error.contains("include each other"), "{error}");
    }

    #[test]
    fn a_bad_value_names_file_and_line() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("config");
        std::fs::write(&file, "\nPort ssh\n").unwrap();
        let error = read(&[file], home.path(), "x", &mut Values::default()).unwrap_err();
        assert!(error.ends_with("config line 2: Port can't be \"ssh\""), "{error}");
    }

    #[test]
    fn globs_match_as_a_whole() {
        for (pattern, subject, want) in [
            ("*", "", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcdf", false),
            ("?", "", false),
            ("10.0.0.?", "10.0.0.7", true),
            ("DB*", "db1", true),
        ] {
            assert_eq!(glob(pattern, subject), want, "{pattern} {subject}");
        }
    }
}
