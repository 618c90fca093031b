//! `flow report`: one HTML file, read here as a browser reads it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::support::Place;

/// Outputs, errors and names as hostile as they come.
const HOSTILE: &str = r#"
name = "hostile"
summary = "<script>document.title = 'owned'</script> & \"quotes\""

[steps.say]
help = "</p><img src=x onerror=\"document.title = 'owned'\">"
uses = "command"
hosts = "web"
with = { script = "printf '\\033[31mred\\033[0m <script>document.title=1</script> \"q\" &amp; \\001'; touch DIR/say", creates = "DIR/say" }

[steps.break]
needs = ["say"]
uses = "command"
hosts = "web2"
with = { script = "echo '</pre><b id=made>no room</b>' >&2; exit 3", creates = "DIR/never" }

[steps.later]
needs = ["break"]
uses = "command"
with = { script = "true", creates = "DIR/later" }
"#;

/// The browser, or none where it isn't installed. In CI it must be there.
#[expect(clippy::print_stderr, reason = "whoever runs the tests must know what was not tested")]
fn browser() -> Option<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).map(|folder| folder.join("chromium")).find(|file| file.is_file());
    let Some(file) = found else {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "chromium is missing, and in CI nothing is skipped"
        );
        eprintln!("skipped: chromium is not installed, so the report was not looked at in a browser");
        return None;
    };
    let mut command = Command::new(file);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    command.args(["--no-first-run", "--disable-default-apps", "--host-resolver-rules=MAP * ~NOTFOUND"]);
    Some(command)
}

fn profile(place: &Place, name: &str) -> String {
    format!("--user-data-dir={}", place.path(name).display())
}

fn url(file: &Path) -> String {
    format!("file://{}", file.display())
}

/// A run that said hostile things and failed, and its report.
fn hostile(place: &Place) -> std::path::PathBuf {
    place.file("hostile.toml", HOSTILE);
    place.flow("run hostile.toml").exits(1);
    place.flow("report -o report.html").exits(0);
    place.path("report.html")
}

#[test]
fn a_report_tells_what_happened_and_what_to_do_next_and_loads_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let file = hostile(&place);
    let html = std::fs::read_to_string(&file).unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let run = place.newest();
    for told in
        ["What to do next", "break@web2", "exit status 3", &format!("flow resume {}", &run[..4]), "tester@"]
    {
        assert!(html.contains(told), "{told}:\n{html}");
    }
    assert!(html.contains("http-equiv=\"Content-Security-Policy\" content=\"default-src 'none';"));
    // The only addresses are names of XML's; nothing is fetched, nothing runs.
    let addresses = html.matches("http://").count() + html.matches("https://").count();
    assert_eq!(addresses, html.matches("xmlns=\"http://www.w3.org/2000/svg\"").count());
    for forbidden in
        ["<script", "<img", "<link", "<iframe", " src=\"", " href=", "@import", "\u{1b}", "\u{1}"]
    {
        assert!(!html.contains(forbidden), "{forbidden:?}");
    }
    // Without -o it is named after the run, and what can't be written is said.
    assert_eq!(place.flow("report").exits(0).out.trim(), format!("flow-{run}.html"));
    place.flow("report -o no/such/folder.html").exits(3).says("choose another place: -o FILE");
    assert!(place.flow("report -o -").exits(0).out.starts_with("<!doctype html>"));
}

#[test]
fn in_a_browser_every_task_is_shown_and_hostile_text_stays_text() {
    let place = Place::new();
    let file = hostile(&place);
    let Some(mut command) = browser() else { return };
    let dumped = command.args([&profile(&place, "p1"), "--dump-dom", &url(&file)]).output().unwrap();
    let dom = String::from_utf8_lossy(&dumped.stdout);
    assert!(dom.contains("<title>hostile: failed"), "no script has changed it:\n{dom}");
    let rows: BTreeSet<&str> = dom
        .split("<tr class=\"task\">")
        .skip(1)
        .filter_map(|row| row.split_once("<code>")?.1.split_once("</code>").map(|(name, _)| name))
        .collect();
    assert_eq!(rows, BTreeSet::from(["say@web1", "say@web2", "say@web3", "break@web2", "later"]));
    // What the browser read has none of the elements that the outputs tried to make.
    for element in ["<script", "<img", "<b id="] {
        assert!(!dom.contains(element), "{element}");
    }
    for text in ["red &lt;script&gt;document.title=1&lt;/script&gt;", "&lt;/pre&gt;&lt;b id=made&gt;no room"]
    {
        assert!(dom.contains(text), "{text}:\n{dom}");
    }
}

#[test]
fn in_a_browser_a_report_has_a_picture_also_where_it_is_dark() {
    let place = Place::new();
    let file = hostile(&place);
    for (name, dark) in [("light", false), ("dark", true)] {
        let Some(mut command) = browser() else { return };
        let shot = place.path(&format!("{name}.png"));
        command.args([
            &profile(&place, name),
            "--window-size=1200,1600",
            &format!("--screenshot={}", shot.display()),
        ]);
        if dark {
            command.arg("--force-dark-mode");
        }
        let done = command.arg(url(&file)).output().unwrap();
        let picture = std::fs::read(&shot).unwrap_or_else(|e| panic!("{e}: {done:?}"));
        let side = |at: usize| u32::from_be_bytes(picture[at..at + 4].try_into().unwrap());
        assert_eq!((side(16), side(20)), (1200, 1600));
        // An empty page of that size has less than a tenth of this.
        assert!(picture.len() > 60_000, "{} bytes", picture.len());
    }
}

/// Gives something, and a secret that it was given.
const GIVES: &str = r#"
name = "gives"
summary = "Has outputs."
[params.password]
type = "secret"
[steps.say]
uses = "command"
hosts = "web"
with = { script = "echo said by {{ host.name }}", repeatable = true }
[outputs]
said = "{{ steps.say.hosts['web2'].stdout }}"
hosts = "{{ steps.say.hosts | list }}"
hidden = "{{ params.password }} {{ hostvars['web1'].api_token }}"
unset = "{{ steps.say.hosts['web9'].stdout }}"
"#;

#[test]
fn a_report_shows_what_the_workflow_gives_without_reading_a_secret() {
    let place = Place::new();
    place.file("gives.toml", GIVES);
    let hosts = std::fs::read_to_string(place.path("inventory.ini")).unwrap();
    place.file(
        "inventory.ini",
        &hosts.replacen("connection=local", "connection=local api_token=token-7-7", 1),
    );
    let given = [("PW", "correct-horse-battery")];
    let ran = place.flow_with("run gives.toml --set password=env:PW", &given).exits(0);
    assert!(ran.out.contains("said by web2"), "{}", ran.out);
    // Neither the variable nor the inventory is needed any more.
    std::fs::remove_file(place.path("inventory.ini")).unwrap();
    place.flow("report -o report.html").exits(0);
    let html = std::fs::read_to_string(place.path("report.html")).unwrap();
    let outputs = html.split_once("<section id=\"outputs\">").unwrap().1.split_once("</section>").unwrap().0;
    for part in
        ["<dt>said</dt><dd><pre>said by web2</pre>", "web3", "<dt>hidden</dt><dd><pre>•••••• ••••••</pre>"]
    {
        assert!(outputs.contains(part), "{part}:\n{outputs}");
    }
    assert!(!outputs.contains("unset") && !html.contains("$flow_secret"), "{outputs}");
    // A run that has failed gives nothing.
    place.file("gives.toml", &GIVES.replace("echo said", "exit 1; echo said"));
    place.file("inventory.ini", &hosts);
    place.flow_with("run gives.toml --set password=env:PW", &given).exits(1);
    place.flow("report -o failed.html").exits(0);
    assert!(!std::fs::read_to_string(place.path("failed.html")).unwrap().contains("id=\"outputs\""));
}
