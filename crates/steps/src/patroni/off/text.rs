//! Lines of Patroni's configuration file that are turned off for a while and put back, all others untouched: pure text.

use serde_json::Value;

/// What is turned off together: options of one section, and the words by which they are put back.
pub(in crate::patroni) struct Off {
    /// Where the options stand, from the top.
    pub(super) section: &'static [&'static str],
    pub(super) options: [&'static str; 2],
    /// How "off" is written.
    pub(super) value: &'static str,
    /// Another option of the section, without which these do nothing.
    pub(super) needs: Option<&'static str>,
    /// Begins the comment after a line; the run follows.
    by: &'static str,
    /// Follows where the line wasn't there.
    added: &'static str,
    /// Follows where it was there, and what it said after it.
    was: &'static str,
    /// Before the further lines of one that went on.
    further: &'static str,
    /// What becomes of it where it can't be turned off.
    otherwise: &'static str,
}

/// Patroni removes the data directory of a member that can't be rewound, or that has to be (3.0.2 and 4.0.7, `rewind.py`).
pub(super) const REMOVAL: Off = Off {
    section: &["postgresql"],
    options: ["remove_data_directory_on_rewind_failure", "remove_data_directory_on_diverged_timelines"],
    value: "false",
    needs: None,
    by: "  # flow: ",
    added: "added while a recovery works; taken out at its end",
    was: "off while a recovery works; at its end again:",
    further: "# flow, of a recovery: ",
    otherwise: "Patroni could remove a data directory meanwhile",
};

/// What archives WAL. Without a command PostgreSQL keeps its WAL, and archives nothing.
pub(in crate::patroni) const ARCHIVING: Off = Off {
    section: &["postgresql", "parameters"],
    options: ["archive_command", "archive_library"],
    value: "''",
    needs: Some("archive_mode"),
    by: "  # flow: no archiving, by run ",
    added: "; open.toml takes this line out",
    was: "; open.toml makes it again:",
    further: "# flow, of archiving: ",
    otherwise: "the new cluster's WAL would come into the old one's archive",
};

impl Off {
    /// The file with the options off, and those that were on, in it or by one of the dynamic configurations.
    ///
    /// # Errors
    /// It can't be written so; why, and what to do.
    pub(in crate::patroni) fn turned_off(
        &self,
        text: &str,
        dynamic: &[Value],
        run: &str,
    ) -> Result<(String, Vec<&'static str>), String> {
        let file = parse(text)?;
        let needed = self.needs.is_none_or(|option| self.is_on(&file, dynamic, option));
        let on = |option: &&'static str| needed && self.is_on(&file, dynamic, option);
        let on: Vec<&'static str> = self.options.into_iter().filter(on).collect();
        let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
        for option in &on {
            self.turn_off(&mut lines, option, run).ok_or_else(|| self.by_hand(option))?;
        }
        let wanted = lines.concat();
        let after = parse(&wanted).map_err(|_| self.by_hand(on.first().unwrap_or(&self.options[0])))?;
        match on.iter().find(|option| self.at(&after, option).is_none_or(truthy)) {
            Some(option) => Err(self.by_hand(option)),
            None => Ok((wanted, on)),
        }
    }

    /// The file without what [`Off::turned_off`] wrote.
    pub(in crate::patroni) fn as_before(&self, text: &str) -> String {
        let line = |line: &str| {
            if let Some(rest) = line.strip_prefix(self.further) {
                return rest.to_owned();
            }
            let end = if line.ends_with('\n') { "\n" } else { "" };
            let bare = line.trim_end_matches('\n');
            match (self.mark(bare), bare.split_once(self.was)) {
                (Some(_), Some((now, was))) => match now.split_once(':') {
                    Some((key, _)) => format!("{key}:{was}{end}"),
                    None => line.to_owned(),
                },
                (Some(_), None) => String::new(),
                (None, _) => line.to_owned(),
            }
        };
        text.split_inclusive('\n').map(line).collect()
    }

    /// The run by which a line is off; empty where it doesn't say.
    fn mark<'l>(&self, line: &'l str) -> Option<&'l str> {
        let (_, comment) = line.split_once(self.by)?;
        comment.strip_suffix(self.added).or_else(|| Some(comment.split_once(self.was)?.0))
    }

    /// Whether [`Off::turned_off`] wrote a line of this option.
    pub(super) fn marked(&self, text: &str, option: &str) -> bool {
        text.lines().any(|line| is_key(line, option) && self.mark(line).is_some())
    }

    /// The run that has turned something off.
    pub(in crate::patroni) fn run<'t>(&self, text: &'t str) -> Option<&'t str> {
        text.lines().find_map(|line| self.mark(line))
    }

    fn by_hand(&self, option: &str) -> String {
        format!(
            "`{option}` is on, and the section `{}` isn't written so that it could be turned off there: {}. Set it to {} there by \
             hand first",
            self.section.join("."),
            self.otherwise,
            self.value
        )
    }

    fn at<'v>(&self, file: &'v Value, option: &str) -> Option<&'v Value> {
        file.pointer(&format!("/{}/{option}", self.section.join("/")))
    }

    /// What an option says: the file goes before the dynamic configuration (`config.py`, `_build_effective_configuration`).
    pub(in crate::patroni) fn said<'v>(
        &self,
        file: &'v Value,
        dynamic: &'v [Value],
        option: &str,
    ) -> Vec<&'v Value> {
        if let Some(own) = self.at(file, option) {
            return vec![own];
        }
        let bootstrap = file.pointer("/bootstrap/dcs").into_iter();
        bootstrap.chain(dynamic).filter_map(|dynamic| self.at(dynamic, option)).collect()
    }

    fn is_on(&self, file: &Value, dynamic: &[Value], option: &str) -> bool {
        let on = |value: &Value| match value {
            // PostgreSQL's words, of a setting; Patroni's own options are as Python has them.
            Value::String(text) if self.needs == Some(option) => {
                !matches!(text.to_lowercase().as_str(), "" | "off" | "false" | "no" | "0")
            }
            value => truthy(value),
        };
        self.said(file, dynamic, option).into_iter().any(on)
    }

    /// Writes it in the section; none: there is no such section of plain lines.
    fn turn_off(&self, lines: &mut Vec<String>, option: &str, run: &str) -> Option<()> {
        let (mut begin, mut end, mut indent) = (0, lines.len(), String::new());
        for (depth, name) in self.section.iter().enumerate() {
            let Some(head) = (begin..end).find(|at| is_head(&lines[*at], &indent, name)) else {
                if depth == 0 || lines[begin..end].iter().any(|line| is_key(line, name)) {
                    return None;
                }
                // Of a section inside another one only the head is missing: nothing of it is set on this host.
                let mark = format!("{}{run}{}\n", self.by, self.added);
                lines.insert(begin, format!("{indent}  {option}: {}{mark}", self.value));
                lines.insert(begin, format!("{indent}{name}:{mark}"));
                return Some(());
            };
            let outer = indent.clone();
            let inside = |line: &&String| is_blank(line) || width(line) > outer.len();
            begin = head + 1;
            end = begin + lines[begin..end].iter().take_while(inside).count();
            let first = lines[begin..end].iter().find(|line| !is_blank(line))?;
            indent = first[..width(first)].to_owned();
        }
        let own = |line: &String| width(line) == indent.len() && is_key(line, option);
        let Some(at) = (begin..end).find(|at| own(&lines[*at])) else {
            lines.insert(begin, format!("{indent}{option}: {}{}{run}{}\n", self.value, self.by, self.added));
            return Some(());
        };
        let goes_on = |line: &&String| line.trim().is_empty() || width(line) > indent.len();
        let further: Vec<&String> = lines[at + 1..end].iter().take_while(goes_on).collect();
        let further = further.iter().rposition(|line| !line.trim().is_empty()).map_or(0, |last| last + 1);
        for line in &mut lines[at + 1..=at + further] {
            line.insert_str(0, self.further);
        }
        let line = &mut lines[at];
        let end = if line.ends_with('\n') { "\n" } else { "" };
        let (key, was) = line.trim_end_matches('\n').split_once(':')?;
        *line = format!("{key}: {}{}{run}{}{was}{end}", self.value, self.by, self.was);
        Some(())
    }
}

pub(in crate::patroni) fn parse(text: &str) -> Result<Value, String> {
    // Never the parser's own words: they may quote a line with a password.
    serde_saphyr::from_str(text).map_err(|_| "it is no YAML".to_owned())
}

/// As Python has it: any text that isn't empty is true, also `"off"`.
fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(yes) => *yes,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

fn is_key(line: &str, option: &str) -> bool {
    line.trim_start().strip_prefix(option).is_some_and(|rest| rest.trim_start().starts_with(':'))
}

/// The line of a section's name, with nothing behind it.
fn is_head(line: &str, indent: &str, name: &str) -> bool {
    let rest = line.strip_prefix(indent).and_then(|rest| rest.strip_prefix(name));
    let rest = rest.and_then(|rest| rest.strip_prefix(':')).map(str::trim);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('#'))
}

/// It says nothing: empty, or a comment.
fn is_blank(line: &str) -> bool {
    let bare = line.trim();
    bare.is_empty() || bare.starts_with('#')
}

fn width(line: &str) -> usize {
    line.len() - line.trim_start_matches([' ', '\t']).len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const FILE: &str = "scope: demo\nbootstrap:\n  dcs:\n    postgresql:\n      use_pg_rewind: true\npostgresql:\n\n  # here\n  \
        listen: 0.0.0.0\n  authentication:\n    superuser: {password: x}\ntags: {}\n";
    const RUN: &str = "0123456789ab";

    fn on(option: &str) -> Vec<Value> {
        vec![json!({ "postgresql": { option: true } })]
    }

    fn turned_off(text: &str, dynamic: &[Value]) -> Result<(String, Vec<&'static str>), String> {
        REMOVAL.turned_off(text, dynamic, "")
    }

    #[test]
    fn where_neither_is_on_nothing_is_written() {
        let options = REMOVAL.options;
        assert_eq!(turned_off(FILE, &[]).unwrap(), (FILE.to_owned(), vec![]));
        let off = FILE.replace("  listen", &format!("  {}: false\n  listen", options[0]));
        assert_eq!(turned_off(&off, &on(options[0])).unwrap(), (off.clone(), vec![]), "the file goes first");
    }

    #[test]
    fn what_is_on_anywhere_is_off_and_then_as_before_to_the_byte() {
        let options = REMOVAL.options;
        let local = FILE.replace("  listen", &format!("  {}:   yes  # ours\n  listen", options[1]));
        let bootstrap = FILE.replace("      use_pg", &format!("      {}: true\n      use_pg", options[0]));
        let text = FILE.replace("  listen", &format!("  {}: \"off\"\n  listen", options[1]));
        for (file, dynamic) in [
            (FILE.to_owned(), on(options[0])),
            (local.clone(), on(options[0])),
            (local, vec![]),
            (bootstrap, vec![]),
            (text, vec![]),
        ] {
            let (off, options) = turned_off(&file, &dynamic).unwrap();
            assert!(!options.is_empty() && off != file);
            assert!(options.iter().all(|option| REMOVAL.marked(&off, option)), "{off}");
            assert_eq!(turned_off(&off, &dynamic).unwrap().0, off, "done again, it changes nothing");
            assert_eq!(REMOVAL.as_before(&off), file);
        }
    }

    #[test]
    fn a_section_in_one_line_is_refused_with_what_to_do() {
        let why = turned_off("postgresql: {listen: x}\n", &on(REMOVAL.options[0])).unwrap_err();
        assert!(why.contains("by hand first"), "{why}");
        let file =
            FILE.replace("  listen", "  parameters: {archive_mode: on, archive_command: cp}\n  listen");
        assert!(ARCHIVING.turned_off(&file, &[], RUN).unwrap_err().contains("`postgresql.parameters`"));
    }

    #[test]
    fn archiving_is_off_wherever_it_was_on_until_it_is_as_before_to_the_byte() {
        let of = |command: Value| json!({ "postgresql": { "parameters": { "archive_mode": "on", "archive_command": command } } });
        let section = |lines: &str| FILE.replace("  listen", &format!("  parameters:\n{lines}  listen"));
        let several = "    archive_mode: \"on\"\n    archive_command: >-\n      test ! -e /a/%f\n\n      && cp %p /a/%f\n\n    ssl: on\n";
        let in_bootstrap = "      parameters:\n        archive_mode: always\n        archive_library: basic_archive\n      use_pg";
        for (file, dynamic) in [
            (FILE.to_owned(), vec![of(json!("cp %p /a/%f"))]),
            (section("    ssl: on\n"), vec![of(json!("cp %p /a/%f"))]),
            (section("    archive_mode: yes\n    archive_command: 'cp %p \"/a: b/%f\"'  # ours\n"), vec![]),
            (section(several), vec![]),
            (FILE.replace("      use_pg", in_bootstrap), vec![]),
        ] {
            let (off, options) = ARCHIVING.turned_off(&file, &dynamic, RUN).unwrap();
            assert_eq!(options.len(), 1, "{off}");
            assert_eq!(parse(&off).unwrap()["postgresql"]["parameters"][options[0]], "", "{off}");
            assert_eq!(ARCHIVING.run(&off), Some(RUN));
            assert_eq!(
                ARCHIVING.turned_off(&off, &dynamic, "another").unwrap().0,
                off,
                "done again, it changes nothing"
            );
            assert_eq!(REMOVAL.as_before(&off), off, "what another has turned off stays");
            assert_eq!(ARCHIVING.as_before(&off), file);
        }
        let (off, both) = ARCHIVING
            .turned_off(
                FILE,
                &[of(json!("x")), json!({ "postgresql": { "parameters": { "archive_library": "y" } } })],
                RUN,
            )
            .unwrap();
        assert_eq!((both.len(), ARCHIVING.as_before(&off)), (2, FILE.to_owned()));
    }

    #[test]
    fn where_nothing_is_archived_nothing_is_written() {
        let command = |mode: Value| {
            vec![json!({ "postgresql": { "parameters": { "archive_mode": mode, "archive_command": "cp" } } })]
        };
        for dynamic in [command(Value::Null), command(json!("off")), command(json!(false)), vec![]] {
            assert_eq!(ARCHIVING.turned_off(FILE, &dynamic, RUN).unwrap(), (FILE.to_owned(), vec![]));
        }
    }
}
