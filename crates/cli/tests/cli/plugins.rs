//! Step types of plugins, as the user of a workflow meets them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use insta::assert_snapshot;

use crate::support::{Place, Ran};

/// A place with a folder of plugins.
struct Plugins(Place);

impl Plugins {
    fn new() -> Self {
        let place = Place::new();
        fs::create_dir(place.path("plugins")).unwrap();
        Self(place)
    }

    /// With both of `fixtures/plugins`.
    fn examples() -> Self {
        let plugins = Self::new();
        plugins.write("line", include_str!("../../../../fixtures/plugins/flow-step-line"));
        plugins.write("json", include_str!("../../../../fixtures/plugins/flow-step-json"));
        plugins
    }

    fn write(&self, name: &str, text: &str) {
        let name = format!("plugins/flow-step-{name}");
        let path = self.0.file(&name, text);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn flow(&self, line: &str) -> Ran {
        self.flow_with(line, &[])
    }

    fn flow_with(&self, line: &str, environment: &[(&str, &str)]) -> Ran {
        let path = self.0.path("plugins").display().to_string();
        let environment = [environment, &[("FLOW_PLUGIN_PATH", path.as_str())]].concat();
        self.0.flow_with(line, &environment)
    }
}

/// What was said, as one line: where it is broken depends on the folder's name.
fn unwrapped(ran: &Ran) -> String {
    ran.err.replace("  │ ", " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

const CONFIGURE: &str = r#"
name = "configure"
summary = "A line and a value."
[params.note]
type = "secret"
help = "Stands beside the value."
[steps.line]
uses = "line.present"
hosts = "web1"
with = { path = "DIR/app.conf", line = "port = 1" }
[steps.value]
uses = "json.value"
needs = ["line"]
hosts = "web1"
with = { path = "DIR/app.json", key = "db.port", value = 5432, note = "{{ params.note }}" }
"#;

#[test]
fn the_examples_in_shell_and_python_are_planned_run_and_found_done() {
    let plugins = Plugins::examples();
    let place = &plugins.0;
    place.file("configure.toml", CONFIGURE);
    place.file("app.conf", "name = x\n");
    place.file("app.json", "{\"db\": {\"host\": \"here\"}}\n");
    let secret = [("NOTE", "correct-horse-battery")];
    let run = |line: &str| plugins.flow_with(&format!("{line} configure.toml --set note=env:NOTE"), &secret);
    let (plan, first, second) = (run("plan").exits(2), run("run").exits(0), run("run").exits(0));
    assert_snapshot!(format!("{plan}\n\n{first}\n\n{second}"), @r"
    $ flow plan configure.toml --set note=env:NOTE
    2| configure: A line and a value.
    2|
    2| configure: 2 tasks to change; nothing was changed yet
    1| change   line@web1   add to DIR/app.conf: port = 1
    1| change   value@web1  db.port: null -> 5432
    exit 2

    $ flow run configure.toml --set note=env:NOTE
    2| run RUN: configure, 2 tasks
    2| changed  line@web1   add to DIR/app.conf: port = 1
    2| waiting  value@web1  writing DIR/app.json
    2| changed  value@web1  db.port: null -> 5432
    1| configure succeeded in SECONDS: 2 changed, 0 ok
    exit 0

    $ flow run configure.toml --set note=env:NOTE
    2| run RUN: configure, 2 tasks
    2| ok       line@web1
    2| ok       value@web1
    1| configure: nothing to do: all 2 tasks are as they should be (SECONDS)
    exit 0
    ");
    assert_eq!(fs::read_to_string(place.path("app.conf")).unwrap(), "name = x\nport = 1\n");
    let document: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(place.path("app.json")).unwrap()).unwrap();
    assert_eq!(
        document["db"],
        serde_json::json!({ "host": "here", "port": 5432, "port_note": "correct-horse-battery" })
    );
    let stored = String::from_utf8_lossy(&place.store_bytes()).into_owned();
    assert!(!stored.contains("correct-horse-battery"), "the secret is in the store");
}

#[test]
fn steps_lists_the_types_of_plugins_with_their_files_and_what_is_left_out() {
    let plugins = Plugins::examples();
    plugins.write("bad", "#!/bin/sh\necho hello\n");
    let listed = plugins.flow("steps").exits(0);
    let lines = |text: &str| {
        let ours = text.lines().filter(|line| line.contains("plugins/flow-step-"));
        ours.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join("\n")
    };
    let folder = plugins.0.path("").display().to_string();
    let told = format!("{}\n{}", lines(&listed.out), lines(&listed.err)).replace(&folder, "DIR/");
    assert_snapshot!(told, @r"
    json.value A value stands in a JSON file. (DIR/plugins/flow-step-json)
    line.present A line is in a file. (DIR/plugins/flow-step-line)
    note: the plugin DIR/plugins/flow-step-bad is left out: it wrote what is no message: `hello` (expected value at line 1 column 1)
    ");
    let one = plugins.flow("steps line.present").exits(0).to_string();
    let digest = one.lines().find_map(|line| line.split_once("SHA-256 ")).unwrap().1.to_owned();
    assert_snapshot!(one.replace(&digest, "DIGEST"), @r"
    $ flow steps line.present
    1| line.present
    1|
    1|   A line is in a file.
    1|
    1|   It is added at the end where it is missing; undo takes it out again.
    1|
    1| Arguments:
    1|   path (string, required)
    1|       Absolute path of a file that is there.
    1|   line (string, required)
    1|       The line, without quotes and backslashes.
    1|
    1| What it does can be taken back.
    1|
    1| From the plugin DIR/plugins/flow-step-line, version 1
    1|   SHA-256 DIGEST
    exit 0
    ");
    let json = plugins.flow("steps line.present --output json").exits(0).document();
    assert_eq!(json["plugin"]["sha256"], digest.as_str());
}

#[test]
fn a_workflow_that_needs_a_broken_plugin_is_refused_at_its_place() {
    let plugins = Plugins::examples();
    plugins.write("line", "#!/bin/sh\necho broken >&2; exit 4\n");
    plugins.0.file("configure.toml", CONFIGURE);
    let ran = plugins.flow("validate configure.toml").exits(3);
    let told = unwrapped(&ran);
    for part in [
        "flow::plugin",
        "`line.present` can't be had: the plugin",
        "(exit status: 4); it said: broken",
        "[configure.toml:8:8]",
    ] {
        assert!(told.contains(part), "{part} is missing:\n{}", ran.err);
    }
    // What needs none is not hindered by it.
    plugins.0.file("make.toml", crate::run::MAKE);
    plugins.flow("validate make.toml").exits(0);
}

#[test]
fn arguments_of_a_plugin_are_checked_before_a_run() {
    let plugins = Plugins::examples();
    plugins.0.file("configure.toml", &CONFIGURE.replace("line = \"port = 1\"", "lines = 5"));
    let ran = plugins.flow("validate configure.toml").exits(3);
    ran.says("`line.present` has no argument `lines`").says("did you mean `line`?");
}

/// Does what it is to do; what comes before its answer to `apply` is told.
fn thing(version: u32, apply: &str) -> String {
    format!(
        r#"#!/bin/sh
IFS= read -r request
id=${{request#*'"id":'}}; id=${{id%%[,\}}]*}}
verb=${{request#*'"verb":"'}}; verb=${{verb%%'"'*}}
say() {{ printf '{{"id":%s,"answer":%s}}\n' "$id" "$1"; exit 0; }}
[ "$verb" = apply ] && {{ {apply}; say '{{"done":{{}}}}'; }}
[ "$verb" = describe ] && say '{{"flow":1,"steps":[{{"name":"thing","version":{version},"doc":"A thing.","schema":{{}},"change_seconds":2}}]}}'
[ -e DIR/made ] && say '{{"satisfied":{{}}}}'
say '{{"pending":{{"summary":"make it"}}}}'
"#
    )
}

const THING: &str = r#"
name = "thing"
summary = "One of a plugin, and one beside it."
[steps.thing]
uses = "thing"
[steps.beside]
uses = "command"
hosts = "web1"
with = { script = "touch DIR/beside", creates = "DIR/beside" }
"#;

#[test]
fn a_plugin_that_hangs_fails_its_own_task_only() {
    let plugins = Plugins::new();
    plugins.write("thing", &thing(1, "sleep 1000"));
    plugins.0.file("thing.toml", THING);
    let ran = plugins.flow("run thing.toml").exits(1);
    ran.says("plugins/flow-step-thing: it took longer than 2 s");
    assert!(plugins.0.has("beside"));
}

#[test]
fn what_a_plugin_did_before_it_died_is_found_out() {
    let plugins = Plugins::new();
    plugins.write("thing", &thing(1, "echo x >>DIR/made; printf '{'; exit 9"));
    plugins.0.file("thing.toml", THING);
    plugins.flow("run thing.toml").exits(0);
    assert_eq!(fs::read_to_string(plugins.0.path("made")).unwrap(), "x\n");
}

#[test]
fn a_resume_tells_that_a_plugin_has_changed_and_refuses_another_version() {
    let plugins = Plugins::new();
    plugins.write("thing", &thing(1, "exit 1"));
    plugins.0.file("thing.toml", THING);
    plugins.flow("run thing.toml").exits(1);
    plugins.write("thing", &thing(2, ": >DIR/made"));
    let refused = plugins.flow("resume").exits(3);
    let words = refused.to_string();
    assert!(
        words.contains("flow::plugin") && words.contains("version 1 of the step type `thing`"),
        "{words}"
    );
    assert!(!plugins.0.has("made"));
    plugins.write("thing", &thing(1, ": >DIR/made"));
    let resumed = plugins.flow("resume").exits(0);
    resumed.says("flow-step-thing, has changed since the run began");
    assert!(plugins.0.has("made"));
}

#[test]
fn a_plan_file_holds_for_the_plugin_that_it_was_made_with_only() {
    let plugins = Plugins::new();
    plugins.write("thing", &thing(1, ": >DIR/made"));
    plugins.0.file("thing.toml", THING);
    plugins.flow("plan thing.toml --out thing.plan").exits(2);
    plugins.write("thing", &format!("{}\n", thing(1, ": >DIR/made")));
    let refused = plugins.flow("run thing.plan").exits(3);
    refused.says("error[flow::plugin]: the plugin of `thing`").says("is another than when the plan was made");
    assert!(!plugins.0.has("made"));
    plugins.write("thing", &thing(1, ": >DIR/made"));
    plugins.flow("run thing.plan").exits(0);
}

/// The same, made of a file beside it.
fn made_of(files: &str, apply: &str) -> String {
    thing(1, apply).replace(r#""steps":"#, &format!(r#""files":{files},"steps":"#))
}

#[test]
fn what_a_plugin_is_made_of_is_pinned_and_a_resume_refuses_another_content_by_name() {
    let plugins = Plugins::new();
    let place = &plugins.0;
    fs::create_dir(place.path("plugins/lib")).unwrap();
    place.file("plugins/lib/words", "exit 1");
    place.file("plugins/more", "");
    plugins.write("thing", &made_of(r#"["lib/words","more"]"#, ". DIR/plugins/lib/words"));
    place.file("thing.toml", THING);
    let described = plugins.flow("steps thing").exits(0);
    assert!(described.out.contains("  lib/words\n"), "{}", described.out);
    plugins.flow("run thing.toml").exits(1);

    place.file("plugins/lib/words", ": >DIR/made");
    let refused = unwrapped(&plugins.flow("resume").exits(3));
    for part in [
        "flow::plugin",
        "`lib/words`, which the plugin of `thing` is made of, has changed since the run began",
    ] {
        assert!(refused.contains(part), "{refused}");
    }
    plugins.write("thing", &made_of(r#"["more"]"#, ": >DIR/made"));
    let refused = unwrapped(&plugins.flow("resume").exits(3));
    assert!(refused.contains("the plugin of `thing` is no longer made of `lib/words`"), "{refused}");
    fs::remove_file(place.path("plugins/more")).unwrap();
    let refused = unwrapped(&plugins.flow("resume").exits(3));
    assert!(refused.contains("`more`, which it is made of: it can't be read"), "{refused}");
    assert!(!place.has("made"));

    place.file("plugins/lib/words", "exit 1");
    place.file("plugins/more", "");
    plugins.write("thing", &made_of(r#"["lib/words","more","lib/new"]"#, ": >DIR/made"));
    place.file("plugins/lib/new", "");
    plugins.flow("resume").exits(0).says("has changed since the run began; the run goes on with it");
    assert!(place.has("made"));
}

#[test]
fn a_saved_plan_is_refused_with_another_file_of_a_plugin() {
    let plugins = Plugins::new();
    plugins.0.file("plugins/words", "1");
    plugins.write("thing", &made_of(r#"["words"]"#, ": >DIR/made"));
    plugins.0.file("thing.toml", THING);
    plugins.flow("plan thing.toml --out thing.plan").exits(2);
    plugins.0.file("plugins/words", "2");
    let refused = unwrapped(&plugins.flow("run thing.plan").exits(3));
    assert!(refused.contains("has changed since the plan was made"), "{refused}");
    assert!(!plugins.0.has("made"));
}

#[test]
fn files_that_a_plugin_is_made_of_lie_below_its_folder_and_nobody_else_may_write_them() {
    let plugins = Plugins::new();
    plugins.0.file("thing.toml", THING);
    plugins.0.file("outside", "");
    plugins.0.file("plugins/open", "");
    fs::set_permissions(plugins.0.path("plugins/open"), fs::Permissions::from_mode(0o666)).unwrap();
    for (files, why) in [
        (r#"["../outside"]"#, "`../outside`, which it is made of, is no path below its folder"),
        (r#"["/etc/passwd"]"#, "`/etc/passwd`, which it is made of, is no path below its folder"),
        (r#"[""]"#, "``, which it is made of, is no path below its folder"),
        (r#"["missing"]"#, "`missing`, which it is made of: it can't be read"),
        (r#"["open"]"#, "can be written by anyone"),
    ] {
        plugins.write("thing", &made_of(files, ": >DIR/made"));
        let ran = plugins.flow("steps").exits(0);
        assert!(ran.err.contains(why), "{files}: {}", ran.err);
    }
}

#[test]
fn folders_of_plugins_can_be_named_on_the_command_line() {
    let place = Place::new();
    for (folder, word) in [("first", "one"), ("second", "two")] {
        fs::create_dir(place.path(folder)).unwrap();
        let path =
            place.file(&format!("{folder}/flow-step-thing"), &thing(1, &format!("echo {word} >DIR/made")));
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::create_dir(place.path("path")).unwrap();
    place.file("thing.toml", THING);
    let path = place.path("path").display().to_string();
    let flow = |line: &str| place.flow_with(line, &[("FLOW_PLUGIN_PATH", path.as_str())]);
    flow("validate thing.toml").exits(3);
    // The first folder counts; a relative one is that of here.
    flow("run thing.toml --plugins first --plugins second").exits(0);
    assert_eq!(fs::read_to_string(place.path("made")).unwrap(), "one\n");
    flow("show").exits(0);
    let ran = flow("run thing.toml --plugins none").exits(3);
    ran.says("there is no folder none");
}

#[test]
fn the_next_command_names_the_folders_of_plugins_too() {
    let plugins = Plugins::new();
    plugins.write("thing", &thing(1, "exit 1"));
    plugins.0.file("thing.toml", THING);
    let ran = plugins.0.flow("run thing.toml --plugins plugins").exits(1);
    assert!(format!("{}{}", ran.err, ran.out).contains(" --plugins plugins"), "{}{}", ran.err, ran.out);
}
