//! Two lines of Patroni's configuration file that are turned off for a while and put back, all others untouched: pure text.

use serde_json::Value;

/// Patroni removes the data directory of a member that can't be rewound, or that has to be (3.0.2 and 4.0.7, `rewind.py`).
pub(super) const OPTIONS: [&str; 2] =
    ["remove_data_directory_on_rewind_failure", "remove_data_directory_on_diverged_timelines"];

/// After a line that wasn't there.
const ADDED: &str = "  # flow: added while a recovery works; taken out at its end";
/// After a line that was there; what it said follows.
const WAS: &str = "  # flow: off while a recovery works; at its end again:";

/// The file with both options off, and those that were on, in it or by one of the dynamic configurations.
///
/// # Errors
/// It can't be written so; why, and what to do.
pub(super) fn turned_off(text: &str, dynamic: &[Value]) -> Result<(String, Vec<&'static str>), String> {
    let file = parse(text)?;
    let on: Vec<&'static str> = OPTIONS.into_iter().filter(|option| is_on(&file, dynamic, option)).collect();
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    for option in &on {
        turn_off(&mut lines, option).ok_or_else(|| by_hand(option))?;
    }
    let wanted = lines.concat();
    let after = parse(&wanted).map_err(|_| by_hand(on.first().unwrap_or(&OPTIONS[0])))?;
    match on.iter().find(|option| at(&after, option) != Some(&Value::Bool(false))) {
        Some(option) => Err(by_hand(option)),
        None => Ok((wanted, on)),
    }
}

/// The file without what [`turned_off`] wrote.
pub(super) fn as_before(text: &str) -> String {
    let line = |line: &str| {
        let end = if line.ends_with('\n') { "\n" } else { "" };
        let bare = line.trim_end_matches('\n');
        if bare.ends_with(ADDED) {
            return String::new();
        }
        match bare.split_once(WAS) {
            Some((now, was)) => match now.split_once(':') {
                Some((key, _)) => format!("{key}:{was}{end}"),
                None => line.to_owned(),
            },
            None => line.to_owned(),
        }
    };
    text.split_inclusive('\n').map(line).collect()
}

/// Whether [`turned_off`] wrote a line of this option.
pub(super) fn marked(text: &str, option: &str) -> bool {
    text.lines().any(|line| is_key(line, option) && (line.ends_with(ADDED) || line.contains(WAS)))
}

fn by_hand(option: &str) -> String {
    format!(
        "`{option}` is on, and the section `postgresql` isn't written so that it could be turned off there: Patroni could remove a data \
         directory meanwhile. Set it to false there by hand first"
    )
}

fn parse(text: &str) -> Result<Value, String> {
    // Never the parser's own words: they may quote a line with a password.
    serde_saphyr::from_str(text).map_err(|_| "it is no YAML".to_owned())
}

fn at<'v>(file: &'v Value, option: &str) -> Option<&'v Value> {
    file.pointer(&format!("/postgresql/{option}"))
}

/// The file goes before the dynamic configuration (`config.py`, `_build_effective_configuration`).
fn is_on(file: &Value, dynamic: &[Value], option: &str) -> bool {
    if let Some(own) = at(file, option) {
        return truthy(own);
    }
    let bootstrap = file.pointer("/bootstrap/dcs").into_iter();
    bootstrap.chain(dynamic).any(|dynamic| at(dynamic, option).is_some_and(truthy))
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

/// Writes it in the section; none: there is no such section of plain lines.
fn turn_off(lines: &mut Vec<String>, option: &str) -> Option<()> {
    let is_head = |line: &String| {
        line.strip_prefix("postgresql:")
            .is_some_and(|rest| rest.trim().is_empty() || rest.trim().starts_with('#'))
    };
    let head = lines.iter().position(is_head)?;
    let in_section = |line: &&String| line.trim().is_empty() || line.starts_with([' ', '\t', '#']);
    let length = lines[head + 1..].iter().take_while(in_section).count();
    let section = &mut lines[head + 1..=head + length];
    let plain = |line: &&String| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let first = section.iter().find(plain)?;
    let indent = first[..first.len() - first.trim_start().len()].to_owned();
    let own = |line: &&mut String| {
        line.starts_with(&indent)
            && is_key(&line[indent.len()..], option)
            && !line[indent.len()..].starts_with(' ')
    };
    if let Some(line) = section.iter_mut().find(own) {
        let end = if line.ends_with('\n') { "\n" } else { "" };
        let (key, was) = line.trim_end_matches('\n').split_once(':')?;
        *line = format!("{key}: false{WAS}{was}{end}");
    } else {
        lines.insert(head + 1, format!("{indent}{option}: false{ADDED}\n"));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const FILE: &str = "scope: demo\nbootstrap:\n  dcs:\n    postgresql:\n      use_pg_rewind: true\npostgresql:\n\n  # here\n  \
        listen: 0.0.0.0\n  authentication:\n    superuser: {password: x}\ntags: {}\n";

    fn on(option: &str) -> Vec<Value> {
        vec![json!({ "postgresql": { option: true } })]
    }

    #[test]
    fn where_neither_is_on_nothing_is_written() {
        assert_eq!(turned_off(FILE, &[]).unwrap(), (FILE.to_owned(), vec![]));
        let off = FILE.replace("  listen", &format!("  {}: false\n  listen", OPTIONS[0]));
        assert_eq!(turned_off(&off, &on(OPTIONS[0])).unwrap(), (off.clone(), vec![]), "the file goes first");
    }

    #[test]
    fn what_is_on_anywhere_is_off_and_then_as_before_to_the_byte() {
        let local = FILE.replace("  listen", &format!("  {}:   yes  # ours\n  listen", OPTIONS[1]));
        let bootstrap = FILE.replace("      use_pg", &format!("      {}: true\n      use_pg", OPTIONS[0]));
        let text = FILE.replace("  listen", &format!("  {}: \"off\"\n  listen", OPTIONS[1]));
        for (file, dynamic) in [
            (FILE.to_owned(), on(OPTIONS[0])),
            (local.clone(), on(OPTIONS[0])),
            (local, vec![]),
            (bootstrap, vec![]),
            (text, vec![]),
        ] {
            let (off, options) = turned_off(&file, &dynamic).unwrap();
            assert!(!options.is_empty() && off != file);
            assert!(options.iter().all(|option| marked(&off, option)), "{off}");
            assert_eq!(turned_off(&off, &dynamic).unwrap().0, off, "done again, it changes nothing");
            assert_eq!(as_before(&off), file);
        }
    }

    #[test]
    fn a_section_in_one_line_is_refused_with_what_to_do() {
        let why = turned_off("postgresql: {listen: x}\n", &on(OPTIONS[0])).unwrap_err();
        assert!(why.contains("by hand first"), "{why}");
    }
}
