//! Marked secrets, planted wherever a secret may come from, are found nowhere outside their source.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::Place;

/// From the environment: looks otherwise in JSON, in a URL and in base 64.
const ENV: &str = r#"planted-env-7"x\y&z"#;
/// From a file, of several lines.
const KEY: &str = "-----BEGIN PLANTED KEY-----\ncGxhbnRlZC1maWxlLWxpbmUtMQ\ncGxhbnRlZC1maWxlLWxpbmUtMg\n-----END PLANTED KEY-----";
/// A variable of a group: looks otherwise in a shell's quotes.
const GROUP: &str = "planted-group-it's-7";
/// A variable of one host.
const HOST: &str = "planted-host-token-7";
/// A field inside a variable.
const FIELD: &str = "planted-field-7";
/// Made on the host: flow never knows it.
const MADE: &str = "planted-made-7";

const WORKFLOW: &str = r#"
name = "planted"
summary = "Uses secrets in every way."

[params.password]
type = "secret"
[params.key]
type = "secret"
[params.url]
type = "string"
default = "postgres://app:{{ group_var('web', 'db_password') }}@db/app"

[steps.rendered]
uses = "template"
hosts = "web[0]"
with = { src = "conf.tmpl", path = "DIR/target/conf", mode = "0600" }

[steps.shown]
uses = "file"
hosts = "web[0]"
with = { path = "DIR/target/url", content = "{{ params.url }} {{ vars.users[0].password }}\n", mode = "0600" }

[steps.said]
uses = "command"
needs = ["rendered", "shown"]
hosts = "web[0]"

[steps.said.with]
repeatable = true
environment = { PASSWORD = "{{ params.password }}", TOKEN = "{{ vars.api_token }}" }
stdin = "{{ params.key }}"
script = """
cat; echo "out $PASSWORD $TOKEN"; echo "err $PASSWORD" >&2
echo {{ vars.users[0].password }} '{{ params.url | replace("'", "") }}'
"""

[steps.made]
uses = "command"
needs = ["said"]
hosts = "web[0]"

[steps.made.with]
repeatable = true
secret_output = true
script = "cat DIR/made; cat DIR/made >&2"

[steps.waited]
uses = "command"
needs = ["made"]
hosts = "web[0]"

[steps.waited.with]
repeatable = true
environment = { PASSWORD = "{{ params.password }}" }
stdin = "{{ params.key }}"
script = """
cat >/dev/null; touch DIR/begun; while ! test -e DIR/go; do sleep 0.02; done
"""

[steps.asked]
uses = "wait_for"
needs = ["waited"]
hosts = "web[1]"
with = { http = "http://127.0.0.1:1/?token={{ hostvars['web1'].api_token }}", timeout = 0 }

[steps.failed]
uses = "command"
needs = ["waited"]
hosts = "web[0]"

[steps.failed.with]
repeatable = true
environment = { PASSWORD = "{{ params.password }}", KEY = "{{ params.key }}" }
script = """
echo "no $KEY" >&2; echo "refused: $PASSWORD" >&2
test -e DIR/mended
"""

[outputs]
said = "{{ steps.said.hosts['web1'].stdout }} {{ params.url }}"
"#;

/// What a command writes is secret: also where it fails, and where it is taken back.
const WRITTEN: &str = r#"
name = "written"
summary = "Commands that write a secret."

[steps.made]
uses = "command"
hosts = "web[0]"

[steps.made.with]
repeatable = true
secret_output = true
script = "cat DIR/made; cat DIR/made >&2"
undo = "cat DIR/made; cat DIR/made >&2; test -e DIR/taken"

[steps.used]
uses = "file"
needs = ["made"]
hosts = "web[0]"
with = { path = "DIR/code", content = "{{ steps.made.code }}{{ steps.made.stdout | default('-') }}" }

[steps.failed]
uses = "command"
needs = ["used"]
hosts = "web[0]"
retries = 1
backoff = "1ms"

[steps.failed.with]
repeatable = true
secret_output = true
script = "cat DIR/made; cat DIR/made >&2; exit 1"

[outputs]
code = "{{ steps.made.hosts['web1'].code }}"
"#;

const TEMPLATE: &str = "password = {{ params.password }}\nkey = {{ params.key }}\ngroup = {{ vars.db_password }}\n\
    host = {{ vars.api_token }}\nfield = {{ vars.users[0].password }}\n";

fn place() -> Place {
    let place = Place::new();
    for folder in ["group_vars", "target", "tmp"] {
        fs::create_dir(place.path(folder)).unwrap();
    }
    place.file("planted.toml", WORKFLOW);
    place.file("written.toml", WRITTEN);
    place.file("conf.tmpl", TEMPLATE);
    place.file("key", &format!("{KEY}\n"));
    place.file("made", &format!("{MADE}\n"));
    let vars = format!("db_password: \"{GROUP}\"\nusers:\n  - name: app\n    password: {FIELD}\n");
    place.file("group_vars/web.yml", &vars);
    let hosts = fs::read_to_string(place.path("inventory.ini")).unwrap();
    let hosts = hosts.replacen("connection=local", &format!("connection=local api_token={HOST}"), 1);
    place.file("inventory.ini", &hosts);
    place
}

/// Every secret in every form in which it could show.
fn forms() -> Vec<(String, Vec<u8>)> {
    let mut forms = Vec::new();
    for secret in [ENV, KEY, GROUP, HOST, FIELD, MADE] {
        let json = serde_json::to_string(secret).unwrap();
        let url: String = secret
            .bytes()
            .map(|byte| {
                if byte.is_ascii_alphanumeric() || byte == b'-' {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            })
            .collect();
        let coded = base64(secret);
        let mut all: BTreeSet<String> = [secret.to_owned(), json[1..json.len() - 1].to_owned(), url].into();
        all.insert(secret.replace('\'', r"'\''"));
        // The last characters depend on what follows.
        all.insert(coded[..coded.trim_end_matches('=').len() - 2].to_owned());
        all.extend(secret.lines().filter(|line| line.len() > 10).map(str::to_owned));
        forms.extend(all.into_iter().map(|form| (format!("{secret:?} as {form:?}"), form.into_bytes())));
    }
    forms
}

fn base64(text: &str) -> String {
    let mut child =
        Command::new("base64").arg("-w0").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

fn found_in(bytes: &[u8]) -> Option<String> {
    let holds = |form: &[u8]| bytes.windows(form.len()).any(|part| part == form);
    forms().into_iter().find(|(_, form)| holds(form)).map(|(name, _)| name)
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files(&entry.path(), found);
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
}

/// Everything that lies in the place, but for the sources and what was to be made: the store, the plan file, what
/// was printed, what lies on the hosts.
#[track_caller]
fn nothing_shows(place: &Place) {
    let mut all = Vec::new();
    files(&place.path(""), &mut all);
    let sources = ["key", "made", "group_vars/web.yml", "inventory.ini", "target/conf", "target/url"];
    let sources = sources.map(|name| place.path(name));
    assert!(all.len() > 8, "{all:?}");
    for path in all.iter().filter(|path| !sources.contains(path)) {
        let shows = found_in(&fs::read(path).unwrap());
        assert_eq!(
            shows,
            None,
            "{} shows a secret:\n{}",
            path.display(),
            String::from_utf8_lossy(&fs::read(path).unwrap())
        );
    }
    let mut left = Vec::new();
    files(&place.path("tmp"), &mut left);
    assert_eq!(left, [] as [PathBuf; 0], "files were left in the temporary folder");
}

/// Tells the watcher to stop, also where the test fails.
struct Ended<'s>(&'s AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The command lines of all processes, again and again, until it is told to stop.
fn watch_command_lines(stop: &AtomicBool) -> (usize, Option<String>) {
    let (mut seen, mut shown) = (0, None);
    while !stop.load(Ordering::SeqCst) {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
            seen += 1;
            if shown.is_none() && line.windows(7).any(|part| part == b"planted") {
                shown = found_in(&line).map(|what| format!("{what}: {}", String::from_utf8_lossy(&line)));
            }
        }
    }
    (seen, shown)
}

#[test]
fn planted_secrets_are_found_nowhere_outside_their_source() {
    let place = place();
    let tmp = place.path("tmp").display().to_string();
    let environment = [("PW", ENV), ("TMPDIR", tmp.as_str())];
    let given = "planted.toml --set password=env:PW --set key=file:key";
    // It must be able to find something at all.
    assert!(found_in(format!("x {} y", base64(KEY)).as_bytes()).is_some());
    for line in ["validate", "graph"] {
        place.flow_with(&format!("{line} {given}"), &environment).exits(0);
    }
    place.flow_with(&format!("plan {given}"), &environment).exits(2);
    place.flow_with(&format!("plan {given} --output json"), &environment).exits(2);
    place.flow_with(&format!("plan {given} --out planted.plan"), &environment).exits(2);
    nothing_shows(&place);

    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| watch_command_lines(&stop));
        let ended = Ended(&stop);
        let running = place.start_with("run planted.plan", &environment);
        place.wait_for("begun");
        // Its store as it is while it runs, the log of what isn't in the database yet included.
        assert_eq!(found_in(&place.store_bytes()), None);
        std::thread::sleep(std::time::Duration::from_millis(200));
        place.file("go", "");
        running.ended().exits(1).says("failed@web1: exit status 1: refused: ••••••");
        drop(ended);
        let (seen, shown) = watch.join().unwrap();
        assert!(seen > 100, "no command line was seen");
        assert_eq!(shown, None, "a command line shows a secret");
    });
    nothing_shows(&place);

    let export = format!("export {} --out planted.flow", place.newest());
    for line in ["show -v", "show --output json", "runs", "runs --output json", export.as_str()] {
        place.flow_with(line, &environment).exits(0);
    }
    place.flow_with("resume --output json", &environment).exits(1);
    place.file("mended", "");
    place.flow_with("resume", &environment).exits(1);
    let asked = "http = \"http://127.0.0.1:1/?token={{ hostvars['web1'].api_token }}\"";
    place.file("planted.toml", &WORKFLOW.replace(asked, "script = \"true\""));
    place.flow_with(&format!("run {given}"), &environment).exits(0);
    let shown = place.flow_with("show -v", &environment).exits(0);
    assert!(shown.out.contains("out •••••• ••••••"), "{}", shown.out);
    // What was to be made holds them: they did reach the host.
    let made = fs::read_to_string(place.path("target/conf")).unwrap();
    for secret in [ENV, KEY, GROUP, HOST, FIELD] {
        assert!(made.contains(secret), "{made}");
    }
    nothing_shows(&place);
}

#[test]
fn what_is_seen_live_at_a_terminal_shows_no_planted_secret() {
    let place = place();
    let environment = [("PW", ENV), ("TMPDIR", "/tmp"), ("TERM", "xterm")];
    let given = "planted.toml --set password=env:PW --set key=file:key";
    let running = place.start_on_a_terminal_with(&format!("run {given}"), &environment);
    running.wait_to_write("waited@web1");
    place.file("go", "");
    let ran = running.ended().exits(1);
    // It was live: lines were drawn over.
    assert!(ran.out.contains("\u{1b}["), "{}", ran.out);
    assert!(ran.out.contains("refused: ••••••"), "{}", ran.out);
    nothing_shows(&place);
}

#[test]
fn what_a_command_writes_of_a_secret_that_flow_does_not_know_is_found_nowhere() {
    let place = place();
    let ran = place.flow("run written.toml").exits(1);
    ran.says("failed@web1: exit status 1\n").says("what it wrote is secret and was dropped");
    assert_eq!(fs::read_to_string(place.path("code")).unwrap(), "0-");
    for line in ["show -v", "show --output json", "report --out report.html", "resume --output json"] {
        place.flow(line);
    }
    place.start_on_a_terminal("resume").ended().exits(1);
    place.flow("undo --yes --keep-impossible").exits(1);
    place.file("taken", "");
    place.flow("undo --yes --keep-impossible").exits(0);
    nothing_shows(&place);
}
