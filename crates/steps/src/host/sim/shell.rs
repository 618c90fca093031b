//! The few forms of shell that simulated hosts understand: enough for guards and small commands.
//!
//! A script is understood wholly or not at all: simple commands joined by `&&`, `||`, `;` and line
//! ends, without variables, pipes or control structures.

use super::state::WorldState;
use super::{apt, patroni, units};
use crate::host::{Ownership, Reply};
use crate::postgres::Lsn;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Join {
    Always,
    IfSuccess,
    IfFailure,
}

type Script = Vec<(Join, Vec<String>)>;

/// What became of a script.
pub(super) struct Ran {
    pub(super) reply: Reply,
    /// A command of it may have changed something.
    pub(super) changed: bool,
}

/// Runs a script, where it is understood; otherwise nothing is changed.
pub(super) fn run(world: &mut WorldState, host: &str, script: &str) -> Option<Ran> {
    let mut trial = world.clone();
    let ran = interpret(&mut trial, host, script)?;
    if ran.changed {
        *world = trial;
    }
    Some(ran)
}

fn interpret(world: &mut WorldState, host: &str, script: &str) -> Option<Ran> {
    if let Some((dump, "tail -n 301")) = in_a_shell(script).as_deref().unwrap_or(script).rsplit_once(" | ") {
        return waldump(world, host, &parse(dump)?);
    }
    let mut ran = Ran { reply: Reply::default(), changed: false };
    if script.starts_with("find /proc/[0-9]*/") {
        // Nobody uses a file but the simulated services, on their own data.
        return Some(ran);
    }
    if script.starts_with("systemctl show") && script.ends_with("'*.mount'") {
        // No file system is mounted by a unit.
        return Some(ran);
    }
    let script = parse(script)?;
    if !script.iter().all(|(_, words)| understood(&words[0])) {
        return None;
    }
    for (join, words) in script {
        let success = ran.reply.code == 0;
        if (join == Join::IfSuccess && !success) || (join == Join::IfFailure && success) {
            continue;
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        if words[0] == "exit" {
            ran.reply.code = words.get(1).and_then(|code| code.parse().ok()).unwrap_or(ran.reply.code);
            break;
        }
        let (code, stdout, changed) = match command(world, host, &words)? {
            Ok((code, stdout, changed)) => (code, stdout, changed),
            Err((code, message)) => {
                ran.reply.stderr.extend_from_slice(format!("{message}\n").as_bytes());
                (code, String::new(), false)
            }
        };
        ran.reply.code = code;
        ran.reply.stdout.extend_from_slice(stdout.as_bytes());
        ran.changed |= changed;
    }
    Some(ran)
}

/// The packages that a script installs by `apt-get install`, whatever else it does.
pub(super) fn installs(script: &str) -> Vec<String> {
    let lines = script.lines().filter(|line| line.contains("apt-get") && line.contains(" install"));
    let words =
        lines.filter_map(|line| words_of_line(line.trim())).flat_map(|parts| parts.into_iter().map(|p| p.1));
    words.filter(|words| words.first().is_some_and(|word| word == "apt-get")).flat_map(packages).collect()
}

fn packages(words: Vec<String>) -> Vec<String> {
    let after = words.into_iter().skip(1).skip_while(|word| word != "install").skip(1);
    after.filter(|word| !word.starts_with('-') && !word.contains("::")).collect()
}

const COMMANDS: &[&str] = &[
    "true",
    "false",
    ":",
    "exit",
    "set",
    "export",
    "test",
    "[",
    "cat",
    "echo",
    "readlink",
    "hostname",
    "date",
    "journalctl",
    "pg_controldata",
    "mkdir",
    "touch",
    "rm",
    "mv",
    "apt-get",
    "sync",
    "timeout",
    "du",
    "df",
    "grep",
    "date",
    "ip",
    "ss",
    "haproxy",
    "keepalived",
];

fn understood(word: &str) -> bool {
    COMMANDS.contains(&word.rsplit('/').next().unwrap_or(word))
}

type Outcome = Result<(i32, String, bool), (i32, String)>;

/// One simple command; `None`: its arguments aren't understood.
fn command(world: &mut WorldState, host: &str, words: &[&str]) -> Option<Outcome> {
    let state = world.hosts.get_mut(host)?;
    let arguments = &words[1..];
    let said = |code: i32, text: String| Some(Ok((code, text, false)));
    let no_file = |path: &str| Some(Err((1, format!("{path}: No such file or directory"))));
    let done =
        |result: Result<bool, String>| Some(result.map(|it| (0, String::new(), it)).map_err(|e| (1, e)));
    match (words[0].rsplit('/').next()?, arguments) {
        ("true" | ":" | "set" | "export" | "sync", _) => said(0, String::new()),
        ("false", _) => said(1, String::new()),
        ("test", rest) => test(world, host, rest).map(|yes| Ok((i32::from(!yes), String::new(), false))),
        ("[", [rest @ .., "]"]) => {
            test(world, host, rest).map(|yes| Ok((i32::from(!yes), String::new(), false)))
        }
        ("cat", [path]) => match state.files.text(path) {
            Some(text) => said(0, text.to_owned()),
            None => no_file(path),
        },
        // Nothing here takes long.
        ("timeout", [limit, rest @ ..]) if limit.parse::<u32>().is_ok() && !rest.is_empty() => {
            command(world, host, rest)
        }
        ("du", [.., path]) => {
            let below = format!("{path}/");
            let inside = state.files.nodes().filter(|(name, _)| *name == *path || name.starts_with(&below));
            let sizes: Vec<u64> = inside.filter_map(|(name, _)| Some(state.files.stat(name)?.size)).collect();
            if sizes.is_empty() {
                return no_file(path);
            }
            said(0, format!("{}\t{path}\n", sizes.iter().sum::<u64>()))
        }
        // Every disk has the same room.
        ("df", ["-B1", "--output=avail", "--", _]) => said(0, format!("Avail\n{}\n", 100_u64 << 30)),
        ("df", ["-B1", "--output=used", "--", _]) => said(0, format!("Used\n{}\n", 1_u64 << 30)),
        ("echo", [text @ .., redirect @ (">" | ">>"), path]) => {
            let old = state.files.text(path).filter(|_| *redirect == ">>").unwrap_or_default();
            let new = format!("{old}{}\n", text.join(" "));
            done(state.files.write(path, new, &Ownership::default()).map(|()| true))
        }
        ("echo", text) if !text.contains(&">") => said(0, format!("{}\n", text.join(" "))),
        // Only what is the same as a text and as a pattern.
        ("grep", ["-q", text, path])
            if text.chars().all(|c| c.is_ascii_alphanumeric() || " -_=/".contains(c)) =>
        {
            match state.files.text(path) {
                Some(content) => said(i32::from(!content.contains(text)), String::new()),
                None => Some(Err((2, format!("grep: {path}: No such file or directory")))),
            }
        }
        ("readlink", [.., path]) => match state.files.stat(path).and_then(|stat| stat.target) {
            Some(target) => said(0, format!("{target}\n")),
            None => said(1, String::new()),
        },
        ("ip", ["-o", "addr", "show", "to", address]) => match state.address == **address {
            true => said(0, format!("2: eth0    inet {address}/24 scope global eth0\n")),
            false => said(0, String::new()),
        },
        // A configuration that is there will do.
        ("haproxy", ["-c", "-f", path]) | ("keepalived", ["-t", "-f", path]) => {
            said(i32::from(!state.files.exists(path)), String::new())
        }
        // Nobody listens but the simulated services.
        ("ss", ["-Hltnp"]) => said(0, String::new()),
        ("date", ["+%s.%N"]) => said(0, format!("{}.0\n", jiff::Timestamp::now().as_second())),
        ("hostname", []) => said(0, format!("{host}\n")),
        ("date", ["+%s"]) => said(0, format!("{}\n", jiff::Timestamp::now().as_second())),
        ("journalctl", rest) => {
            let unit = rest.iter().skip_while(|word| **word != "-u").nth(1)?;
            let lines = state.journal.get(&units::full_name(unit)).cloned().unwrap_or_default();
            said(0, lines.iter().map(|line| format!("{line}\n")).collect())
        }
        ("pg_controldata", [.., directory]) => match patroni::control(state, directory) {
            Some(control) => said(0, controldata(&control)),
            None => Some(Err((
                2,
                format!(
                    "pg_controldata: error: could not open file \"{directory}/global/pg_control\" for reading: No such file or directory"
                ),
            ))),
        },
        ("mkdir", ["-p", path]) => done(state.files.make_directory(path, &Ownership::default())),
        ("touch", [path]) if state.files.exists(path) => said(0, String::new()),
        ("touch", [path]) => done(state.files.write(path, "", &Ownership::default()).map(|()| true)),
        ("rm", ["-rf", "--one-file-system", "--", paths @ ..]) => {
            done(Ok(paths.iter().filter(|path| state.files.remove_tree(path)).count() > 0))
        }
        ("rm", ["-rf" | "-fr" | "-r", path]) => done(Ok(state.files.remove_tree(path))),
        ("rm", ["-f", path]) => done(state.files.remove_file(path)),
        ("mv", [.., from, to]) => done(state.files.rename(from, to).map(|()| true)),
        ("apt-get", rest) if rest.contains(&"install") => {
            let packages = packages(words.iter().map(|word| (*word).to_owned()).collect());
            Some(match apt::install(world, host, &packages) {
                Ok(()) => Ok((0, String::new(), true)),
                Err(message) => Err((100, message)),
            })
        }
        ("apt-get", rest) if rest.contains(&"update") => said(0, String::new()),
        _ => None,
    }
}

fn test(world: &WorldState, host: &str, words: &[&str]) -> Option<bool> {
    let files = &world.hosts.get(host)?.files;
    Some(match words {
        ["!", rest @ ..] => !test(world, host, rest)?,
        ["-e", path] => files.exists(path),
        ["-f" | "-r", path] => files.read(path).is_ok_and(|bytes| bytes.is_some()),
        ["-s", path] => files.read(path).is_ok_and(|bytes| bytes.is_some_and(|bytes| !bytes.is_empty())),
        ["-d", path] => files.is_directory(path),
        ["-L" | "-h", path] => files.stat(path).is_some_and(|stat| stat.target.is_some()),
        _ => return None,
    })
}

/// `SCRIPT` of `timeout SECONDS sh -c SCRIPT`.
fn in_a_shell(script: &str) -> Option<String> {
    let words = script.contains(" sh -c ").then(|| parse(script))??;
    match words.as_slice() {
        [(_, words)] if words.len() == 5 && words[0] == "timeout" => words.last().cloned(),
        _ => None,
    }
}

/// `pg_waldump -p DIR/pg_wal -t TIMELINE -s LSN`: one record, where the control file says that the WAL ends; with
/// `-n 1` one that begins at the LSN, unless that is beyond.
fn waldump(world: &WorldState, host: &str, script: &Script) -> Option<Ran> {
    let [(_, words)] = script.as_slice() else { return None };
    let program = words.iter().position(|word| word.ends_with("/pg_waldump"))?;
    let [_, folder, _, _, _, at, rest @ ..] = &words[program + 1..] else { return None };
    let control = patroni::control(world.hosts.get(host)?, folder.strip_suffix("/pg_wal")?);
    let at = at.parse::<Lsn>().ok().filter(|_| !rest.is_empty());
    let record = |control: patroni::Control| {
        let at = at.map_or(control.lsn, |at| at.0.min(control.lsn));
        let lsn = format!("{:X}/{:08X}", at >> 32, at & 0xffff_ffff);
        let of = control.system_identifier;
        format!(
            "rmgr: XLOG, lsn: {lsn}, desc: CHECKPOINT_SHUTDOWN of {of}\n\
             pg_waldump: error: error in WAL record at {lsn}: invalid record length\n"
        )
    };
    let stdout = control.map(record).unwrap_or_default().into_bytes();
    Some(Ran { reply: Reply { stdout, ..Reply::default() }, changed: false })
}

fn controldata(control: &patroni::Control) -> String {
    let lsn = format!("{:X}/{:X}", control.lsn >> 32, control.lsn & 0xffff_ffff);
    format!(
        "Database system identifier:           {}\nDatabase cluster state:               {}\n\
         Latest checkpoint location:           {lsn}\nLatest checkpoint's REDO location:    {lsn}\n\
         Latest checkpoint's TimeLineID:       {}\n",
        control.system_identifier, control.state, control.timeline
    )
}

/// A script as simple commands; `None`: there is more in it.
fn parse(script: &str) -> Option<Script> {
    let mut parsed = Script::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        parsed.extend(words_of_line(line)?);
    }
    (!parsed.is_empty()).then_some(parsed)
}

fn words_of_line(line: &str) -> Option<Script> {
    let mut commands = vec![(Join::Always, Vec::new())];
    let mut word: Option<String> = None;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        let twice = characters.peek() == Some(&character);
        match character {
            '\'' => {
                let quoted: String = characters.by_ref().take_while(|c| *c != '\'').collect();
                word.get_or_insert_default().push_str(&quoted);
            }
            '"' => {
                let quoted: String = characters.by_ref().take_while(|c| *c != '"').collect();
                if quoted.contains(['$', '`', '\\']) {
                    return None;
                }
                word.get_or_insert_default().push_str(&quoted);
            }
            '\\' => word.get_or_insert_default().push(characters.next()?),
            ' ' | '\t' => finish(&mut commands, &mut word),
            ';' | '&' | '|' => {
                let join = match character {
                    '&' if twice => Join::IfSuccess,
                    '|' if twice => Join::IfFailure,
                    ';' if !twice => Join::Always,
                    _ => return None,
                };
                if join != Join::Always {
                    characters.next();
                }
                finish(&mut commands, &mut word);
                commands.push((join, Vec::new()));
            }
            '>' if word.is_none() => {
                let sign = if twice { ">>" } else { ">" };
                if twice {
                    characters.next();
                }
                word = Some(sign.to_owned());
                finish(&mut commands, &mut word);
            }
            '>' if word.as_deref() == Some("2") => {
                word = None;
                let rest: String = characters.by_ref().take_while(|c| *c != ' ').collect();
                if !matches!(rest.as_str(), "/dev/null" | "&1") {
                    return None;
                }
            }
            '$' | '`' | '(' | ')' | '{' | '}' | '*' | '?' | '<' | '>' | '~' | '#' => return None,
            other => word.get_or_insert_default().push(other),
        }
    }
    finish(&mut commands, &mut word);
    for (_, words) in &mut commands {
        // Assignments before a command are for its environment; nothing here reads one.
        while words.first().is_some_and(|word| word.contains('=') && !word.starts_with(['-', '='])) {
            words.remove(0);
        }
        if let [.., redirect, target] = words.as_slice()
            && redirect == ">"
            && target == "/dev/null"
        {
            words.truncate(words.len() - 2);
        }
    }
    commands.retain(|(_, words)| !words.is_empty());
    Some(commands)
}

fn finish(commands: &mut Script, word: &mut Option<String>) {
    if let (Some(word), Some((_, words))) = (word.take(), commands.last_mut()) {
        words.push(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<String>> {
        parse(line).unwrap().into_iter().map(|(_, words)| words).collect()
    }

    #[test]
    fn quotes_and_joins_are_understood_and_anything_more_is_not() {
        assert_eq!(
            words("test -e '/a b' && echo \"x y\" 2>/dev/null"),
            [vec!["test", "-e", "/a b"], vec!["echo", "x y"]]
        );
        assert_eq!(words("A=1 B='2 3' apt-get update"), [["apt-get", "update"]]);
        for more in ["echo $HOME", "a | b", "(a)", "a &", "ls *", "echo \"$x\"", "cat <x"] {
            assert_eq!(parse(more), None, "{more}");
        }
    }

    #[test]
    fn packages_are_found_in_a_script_that_is_not_understood() {
        let script = "if true; then\n  DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends -- patroni 'etcd-server=3'\nfi";
        assert_eq!(installs(script), ["patroni", "etcd-server=3"]);
    }
}
