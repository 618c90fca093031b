//! Plugins that behave and plugins that don't, as steps on simulated hosts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use flow_core::step::{Change, Context, Outcome, Registry, Resolved, Step, StepError, StepSource, UndoError};
use serde_json::{Value, json};

use super::discover::Plugin;
use super::register;
use crate::testing::{Lab, done, operator_for, pending, refused, satisfied};

/// A task at the operator's place, of which nothing is alive in another test.
fn operator() -> Context {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    operator_for(&format!("step-{}", NEXT.fetch_add(1, Ordering::Relaxed)))
}

/// A folder on the plugin path.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(&format!("flow-step-{name}"));
        fs::write(&path, text.replace("DIR", &self.0.path().display().to_string())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// One of `fixtures/plugins`.
    fn example(name: &str) -> Self {
        let folder = Self::new();
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/plugins");
        let text = fs::read_to_string(fixture.join(format!("flow-step-{name}"))).unwrap();
        folder.write(name, &text);
        folder
    }

    /// Makes the file `made` beside it; what comes before its answer to one verb is told.
    fn that(verb: &str, does: &str) -> Self {
        let folder = Self::new();
        // What is to run out of time does so soon; the rest isn't hurried on a busy machine.
        let limit = |verbs: [&str; 2]| if verbs.contains(&verb) && HANGS.contains(&does) { 1 } else { 60 };
        let (look, change) = (limit(["check", "resolve"]), limit(["apply", "undo"]));
        folder.write("thing", &script(verb, does, look, change));
        folder
    }

    fn registry(&self) -> Registry {
        let mut registry = Registry::new();
        register(&mut registry, &[self.0.path().to_owned()]);
        registry
    }

    fn step(&self, uses: &str, with: Value) -> Box<dyn Step> {
        let registry = self.registry();
        let info = registry.get(uses).unwrap_or_else(|| panic!("{:?}", registry.why_not(uses)));
        info.make(with).unwrap_or_else(|error| panic!("{error}"))
    }

    fn thing(&self) -> Box<dyn Step> {
        self.step("thing", json!({}))
    }
}

/// These never answer.
const HANGS: [&str; 4] =
    ["sleep 100", "sleep 100 & exit 0", ": >DIR/made; sleep 100", ": >DIR/made; sleep 100 & exit 0"];

fn script(verb: &str, does: &str, look: u32, change: u32) -> String {
    format!(
        r#"#!/bin/sh
if [ -n "$FLOW_ATTEMPT" ] && [ "{verb}" = blind ]; then {does}; fi
IFS= read -r request
id=${{request#*'"id":'}}; id=${{id%%[,\}}]*}}
verb=${{request#*'"verb":"'}}; verb=${{verb%%'"'*}}
say() {{ printf '{{"id":%s,%s}}\n' "$id" "$1"; }}
if [ "$verb" = "{verb}" ]; then {does}; fi
case $verb in
describe) say '"answer":{{"flow":1,"steps":[{{"name":"thing","version":1,"doc":"A thing.","schema":{{}},"resolves":true,"undoable":true,"look_seconds":{look},"change_seconds":{change}}}]}}';;
check) if [ -e DIR/made ]; then say '"answer":{{"satisfied":{{}}}}'; else say '"answer":{{"pending":{{"summary":"make it"}}}}'; fi;;
apply) : >DIR/made; say '"answer":{{"done":{{"by":"apply"}}}}';;
resolve) if [ -e DIR/made ]; then say '"answer":{{"done":{{"by":"resolve"}}}}'; else say '"answer":"not_done"'; fi;;
undo) rm -f DIR/made; say '"answer":"undone"';;
esac
"#
    )
}

/// What a plugin may do wrong, the words it is told in, and whether it would do so again.
const WRONG: [(&str, &str, bool); 12] = [
    ("sleep 100", "it took longer than 1 s", false),
    ("sleep 100 & exit 0", "it took longer than 1 s", false),
    ("exit 3", "it ended without an answer (exit status: 3)", false),
    ("printf '{\"id\":'; exit 1", "it ended in the middle of a message (exit status: 1)", false),
    ("exec >&-; sleep 100", "it closed its output without an answer", false),
    ("echo hello; sleep 100", "it wrote what is no message: `hello`", true),
    ("id=$((id + 1)); say '\"answer\":{}'; sleep 100", "it answered request", true),
    ("say '\"answer\":{\"later\":1}'; exit 0", "it wrote what is no message: the answer to", true),
    ("say '\"answer\":1'; say '\"answer\":2'; exit 0", "it went on after its answer", true),
    ("head -c 5000000 /dev/zero; sleep 100", "it wrote a line of more than 4 MiB", true),
    (
        "x=$(head -c 100000 /dev/zero | tr '\\0' x); yes \"{\\\"id\\\":$id,\\\"progress\\\":\\\"$x\\\"}\"",
        "it wrote more than 64 MiB in one call",
        true,
    ),
    ("kill -9 $$", "it ended without an answer (signal: 9", false),
];

#[tokio::test]
async fn a_plugin_that_misbehaves_in_check_fails_by_name_and_reason() {
    for (does, told, always) in WRONG {
        let folder = Folder::that("check", does);
        let error = folder.thing().check(&operator()).await.unwrap_err();
        let begin = format!("the plugin {}: {told}", folder.path("flow-step-thing").display());
        assert!(error.message.starts_with(&begin), "{does}: {error}");
        assert_eq!(error.outcome, Outcome::Failed, "{does}");
        assert_eq!(error.permanent, always, "{does}");
    }
}

#[tokio::test]
async fn what_a_plugin_that_misbehaves_in_apply_did_is_lost_and_settled_by_resolve() {
    for (does, told, _) in WRONG {
        let folder = Folder::that("apply", does);
        let (step, cx) = (folder.thing(), operator());
        let change = pending(step.check(&cx).await.unwrap());
        let error = step.apply(&cx, &change).await.unwrap_err();
        assert!(error.message.contains(told) && error.outcome == Outcome::Lost, "{does}: {error}");
        assert!(!error.permanent, "{does}: nobody knows");
        assert_eq!(step.resolve(&cx, &change).await.unwrap(), Resolved::NotDone, "{does}");
        let step_of = Folder::that("apply", &format!(": >DIR/made; {does}"));
        let step = step_of.thing();
        step.apply(&cx, &change).await.unwrap_err();
        assert_eq!(done(step.resolve(&cx, &change).await.unwrap()).0["by"], "resolve", "{does}");
    }
}

#[tokio::test]
async fn a_plugin_that_misbehaves_in_resolve_or_undo_is_an_error_of_that_call() {
    for (does, told, _) in WRONG {
        let folder = Folder::that("resolve", does);
        let (step, cx) = (folder.thing(), operator());
        let error = step.resolve(&cx, &Change::default()).await.unwrap_err();
        assert!(error.message.contains(told), "{does}: {error}");
        let folder = Folder::that("undo", does);
        let UndoError::Failed(error) = folder.thing().undo(&cx, &Change::default(), None).await.unwrap_err()
        else {
            panic!("{does}: it can be taken back")
        };
        assert!(error.message.contains(told) && error.outcome == Outcome::Lost, "{does}: {error}");
    }
}

#[tokio::test]
async fn an_answer_given_without_reading_the_request_is_none() {
    let folder = Folder::that("blind", "echo '{\"id\":1,\"answer\":{\"done\":{}}}'; exit 0");
    let error = folder.thing().apply(&operator(), &Change::default()).await.unwrap_err();
    assert!(error.message.contains("it answered request 1; it was asked request"), "{error}");
    assert_eq!(error.outcome, Outcome::Lost);
}

#[test]
fn a_plugin_that_misbehaves_in_describe_is_left_out_with_the_reason() {
    for (does, told, _) in WRONG.iter().filter(|(does, ..)| !HANGS.contains(does)) {
        let folder = Folder::that("describe", does);
        let registry = folder.registry();
        assert!(registry.get("thing").is_none(), "{does}");
        let why = registry.why_not("thing").unwrap();
        assert!(why.contains(told), "{does}: {why}");
    }
}

#[test]
fn a_description_that_is_wrong_says_what_is_wrong_with_it() {
    let answer = |text: &str| format!("say '\"answer\":{text}'; exit 0");
    let one = |text: &str| answer(&format!("{{\"flow\":1,\"steps\":[{text}]}}"));
    for (does, told) in [
        (answer(r#"{"flow":2,"steps":[]}"#), "it speaks version 2 of the protocol; this flow speaks 1"),
        (answer(r#"{"steps":[]}"#), "missing field `flow`"),
        (one(r#"{"name":"thing","version":1,"doc":"x"}"#), "missing field `schema`"),
        (
            one(r#"{"name":"command","version":1,"doc":"x","schema":{}}"#),
            "must be named `thing` or `thing.SOMETHING`",
        ),
        (one(r#"{"name":"things","version":1,"doc":"x","schema":{}}"#), "must be named"),
        (one(r#"{"name":"thing.","version":1,"doc":"x","schema":{}}"#), "must be named"),
        (one(r#"{"name":"thing","version":0,"doc":"x","schema":{}}"#), "has version 0"),
        (one(r#"{"name":"thing","version":1,"doc":" ","schema":{}}"#), "empty `doc`"),
        (
            one(r#"{"name":"thing","version":1,"doc":"x","schema":{"type":"string"}}"#),
            "must have the type `object`",
        ),
        (one(r#"{"name":"thing","version":1,"doc":"x","schema":{},"look_seconds":0}"#), "from 1 to 604800"),
        (
            one(r#"{"name":"thing","version":1,"doc":"x","schema":{},"read_only":true,"undoable":true}"#),
            "only looks",
        ),
        (
            "say '\"call\":{\"do\":\"probe\",\"script\":\"true\"}'; read -r x".into(),
            "asked for a host (`probe`)",
        ),
        ("say '\"error\":{\"message\":\"no licence\"}'; exit 0".into(), "no licence"),
        ("echo 'Traceback' >&2; exit 1".into(), "(exit status: 1); it said: Traceback"),
    ] {
        let why = Folder::that("describe", &does).registry().why_not("thing").unwrap();
        assert!(why.contains(told), "{does}: {why}");
    }
}

#[test]
fn describe_has_a_time_limit_of_its_own() {
    let folder = Folder::that("describe", "sleep 100");
    let limit = std::time::Duration::from_millis(200);
    let plugin = Plugin { name: "thing".into(), path: folder.path("flow-step-thing"), limit };
    assert_eq!(plugin.load().map(drop).unwrap_err(), "it took longer than 0.2 s");
}

#[test]
fn a_file_that_is_no_plugin_or_that_others_can_write_is_not_run() {
    let folder = Folder::that("never", ":");
    let path = folder.path("flow-step-thing");
    let why_not = |mode| {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        folder.registry().why_not("thing").unwrap_or_default()
    };
    assert!(why_not(0o644).contains("it is no executable file"), "{}", why_not(0o644));
    assert!(why_not(0o757).contains("can be written by anyone"), "{}", why_not(0o757));
    assert_eq!(why_not(0o755), "");
    fs::set_permissions(folder.0.path(), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(why_not(0o755).contains("can be written by anyone"));
    let folder = Folder::new();
    folder.write("thing.py", "");
    let problems: Vec<String> = folder.registry().problems().map(|(_, why)| why.to_owned()).collect();
    assert!(problems[0].contains("its name must be flow-step-NAME"), "{problems:?}");
}

#[test]
fn plugins_are_found_on_the_path_and_never_below_the_current_folder() {
    let path = |variables: &[(&str, &str)]| {
        let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into());
        let found = super::plugin_path(find);
        found.iter().map(|path| path.display().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        path(&[("HOME", "/root")]),
        ["/root/.local/share/flow/plugins", "/usr/local/lib/flow/plugins"]
    );
    assert_eq!(path(&[("XDG_DATA_HOME", "/d")])[0], "/d/flow/plugins");
    assert_eq!(path(&[("HOME", "/root"), ("FLOW_PLUGIN_PATH", "/a::.:b:/c")]), ["/a", "/c"]);
    assert!(path(&[("FLOW_PLUGIN_PATH", "")]).is_empty());
}

#[test]
fn the_earlier_folder_counts() {
    let (first, second) = (Folder::that("never", ":"), Folder::that("describe", "exit 1"));
    let mut registry = Registry::new();
    register(&mut registry, &[first.0.path().to_owned(), second.0.path().to_owned()]);
    assert!(registry.get("thing").is_some());
    assert_eq!(registry.problems().count(), 0);
}

#[tokio::test]
async fn a_file_that_changes_while_flow_runs_is_not_run() {
    let folder = Folder::that("never", ":");
    let step = folder.thing();
    // The same content again: nothing has changed.
    let text = fs::read_to_string(folder.path("flow-step-thing")).unwrap();
    folder.write("thing", &text);
    pending(step.check(&operator()).await.unwrap());
    folder.write("thing", &format!("{text}\n"));
    let error = step.check(&operator()).await.unwrap_err();
    assert!(error.message.ends_with("its file has changed since this process read it"), "{error}");
    assert!(error.permanent);
}

#[tokio::test]
async fn a_plugin_sees_little_of_the_environment_and_its_attempt_only_where_it_may_change_something() {
    let folder = Folder::that("check", "env >DIR/check");
    folder.thing().check(&operator()).await.unwrap();
    let folder_of_apply = Folder::that("apply", "env >DIR/apply");
    folder_of_apply.thing().apply(&operator(), &Change::default()).await.unwrap();
    let names = |path: PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let names = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name.to_owned());
        // What the shell itself sets.
        let own = ["PWD", "OLDPWD", "SHLVL", "_"];
        names.filter(|name| !own.contains(&name.as_str())).collect::<Vec<_>>()
    };
    let allowed = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "FLOW_PROTOCOL"];
    let seen = names(folder.path("check"));
    assert!(seen.iter().all(|name| allowed.contains(&name.as_str())), "{seen:?}");
    assert!(names(folder_of_apply.path("apply")).contains(&"FLOW_ATTEMPT".to_owned()));
}

#[tokio::test]
async fn what_is_still_alive_of_an_attempt_is_waited_for() {
    // It leaves its process group, as what is to outlive flow does.
    let folder = Folder::that(
        "apply",
        "setsid sh -c ': >DIR/up; while [ -e DIR/alive ]; do sleep 0.05; done' >&- 2>&- &
         while [ ! -e DIR/up ]; do sleep 0.02; done; exit 1",
    );
    let (step, cx) = (folder.thing(), operator());
    fs::write(folder.path("alive"), "").unwrap();
    step.apply(&cx, &Change::default()).await.unwrap_err();
    assert_eq!(step.resolve(&cx, &Change::default()).await.unwrap(), Resolved::Running);
    fs::remove_file(folder.path("alive")).unwrap();
    loop {
        match step.resolve(&cx, &Change::default()).await.unwrap() {
            Resolved::Running => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            other => break assert_eq!(other, Resolved::NotDone),
        }
    }
}

#[tokio::test]
async fn a_plugin_is_ended_with_its_children_where_nobody_waits_for_it_any_more() {
    let folder = Folder::that("apply", "sh -c 'echo $$ >DIR/child; exec sleep 100' & wait");
    let (step, cx) = (folder.thing(), operator());
    {
        let change = Change::default();
        let mut work = step.apply(&cx, &change);
        while fs::read_to_string(folder.path("child")).unwrap_or_default().trim().is_empty() {
            let _ = tokio::time::timeout(std::time::Duration::from_millis(20), &mut work).await;
        }
    }
    let child = fs::read_to_string(folder.path("child")).unwrap();
    let gone = || {
        // Killed and not taken off by its parent yet is gone, too.
        let state = fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        state.is_empty() || state.contains(") Z ")
    };
    while !gone() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_a_plugin_says_of_its_own_failure_is_told_as_it_says_it() {
    let says = r#"say '"error":{"message":"no room","detail":"0 of 4 free","hint":"make room","permanent":true}'; exit 1"#;
    let error = Folder::that("apply", says).thing().apply(&operator(), &Change::default()).await.unwrap_err();
    let wanted = StepError::permanent("no room").with_detail("0 of 4 free").with_hint("make room");
    assert_eq!(error, wanted);
    let lost = r#"say '"error":{"message":"no answer","lost":true}'"#;
    let error = Folder::that("apply", lost).thing().apply(&operator(), &Change::default()).await.unwrap_err();
    assert_eq!(error.outcome, Outcome::Lost);
}

#[tokio::test]
async fn a_plugin_may_change_the_host_in_apply_and_undo_only() {
    let lab = Lab::bare().await;
    let folder = Folder::that("check", r#"say '"call":{"do":"remove","path":"/etc/hosts"}'; read -r reply"#);
    let error = folder.thing().check(&lab.on("patroni1")).await.unwrap_err();
    assert!(error.message.ends_with("it asked to change the host (`remove`) during `check`"), "{error}");
    assert!(lab.effects().is_empty());
}

#[tokio::test]
async fn a_plugin_of_a_run_that_lost_the_host_is_not_started() {
    let lab = Lab::bare().await;
    let folder = Folder::that("never", ":");
    let step = folder.thing();
    let cx = lab.on("patroni1");
    lab.take_over("patroni1").await;
    let error = step.apply(&cx, &Change::default()).await.unwrap_err();
    assert!(error.message.contains("no longer holds the host's lock"), "{error}");
    assert!(!folder.path("made").exists());
}

#[tokio::test]
async fn calls_are_carried_out_on_the_task_s_host_and_answered_in_order() {
    let lab = Lab::bare().await;
    let calls = r#"
        say '"call":{"do":"write","path":"/root/a","content":"one\n","mode":"0640"}'; read -r first
        say '"call":{"do":"rename","from":"/root/a","to":"/root/b"}'
        say '"call":{"do":"stat","path":"/root/a"}'; read -r second; read -r third
        say '"call":{"do":"read","path":"/root/b"}'; read -r fourth
        say '"call":{"do":"run","script":"cat /no/such"}'; read -r fifth
        say '"call":{"do":"write","path":"/no/such/a","content":""}'; read -r sixth
        printf '%s\n' "$first" "$second" "$third" "$fourth" "$fifth" "$sixth" >DIR/replies"#;
    let folder = Folder::that("apply", calls);
    folder.thing().apply(&lab.on("patroni1"), &Change::default()).await.unwrap();
    let replies = fs::read_to_string(folder.path("replies")).unwrap();
    let replies: Vec<&str> = replies.lines().collect();
    assert_eq!(&replies[..3], [r#"{"result":null}"#; 3]);
    assert_eq!(replies[3], r#"{"result":{"text":"one\n"}}"#);
    assert!(replies[4].starts_with(r#"{"result":{"code":1,"stdout":"","stderr":"#), "{}", replies[4]);
    assert!(replies[5].starts_with(r#"{"error":""#), "{}", replies[5]);
    assert_eq!(lab.text("patroni1", "/root/b").as_deref(), Some("one\n"));
}

#[tokio::test]
async fn a_call_needs_a_host() {
    let folder = Folder::that("check", r#"say '"call":{"do":"probe","script":"true"}'; read -r reply"#);
    let error = folder.thing().check(&operator()).await.unwrap_err();
    assert_eq!(error.message, "this step works on a host, and the task has none");
}

#[test]
fn arguments_are_held_against_the_schema() {
    let folder = Folder::example("json");
    let registry = folder.registry();
    let make = |with: Value| registry.get("json.value").unwrap().make(with).map(drop);
    make(json!({ "path": "/x", "key": "a", "value": [1], "note": null })).unwrap();
    for (with, told) in [
        (json!({ "path": "/x", "key": "a" }), "the argument `value` is missing"),
        (json!({ "path": 1, "key": "a", "value": 1 }), "`path` must be a string"),
        (json!({ "path": "/x", "key": "a", "value": 1, "k": 1 }), "there is no argument `k`"),
        (json!([1]), "they are no table"),
    ] {
        assert_eq!(make(with).unwrap_err().to_string(), told);
    }
}

#[tokio::test]
async fn the_python_example_sets_a_value_and_takes_it_back() {
    let lab = Lab::bare().await;
    let cx = lab.on("patroni1");
    let before = "{\n  \"port\": 1,\n  \"more\": {}\n}\n";
    lab.make("patroni1", "file", json!({ "path": "/etc/x.json", "content": before })).await;
    let folder = Folder::example("json");
    let with = json!({ "path": "/etc/x.json", "key": "more.port", "value": 5432, "note": "hunter2" });
    let step = folder.step("json.value", with);
    let (change, output) = lab.establish(&*step, &cx).await;
    assert_eq!(change.summary, "more.port: null -> 5432");
    assert_eq!(output.0["before"], Value::Null);
    let text = lab.text("patroni1", "/etc/x.json").unwrap();
    assert!(text.contains("\"port_note\": \"hunter2\""), "{text}");
    done(step.resolve(&cx, &change).await.unwrap());
    step.undo(&cx, &change, Some(&output)).await.unwrap();
    assert_eq!(lab.text("patroni1", "/etc/x.json").as_deref(), Some(before));
    assert_eq!(step.resolve(&cx, &change).await.unwrap(), Resolved::NotDone);
    let missing = folder.step("json.value", json!({ "path": "/none", "key": "a", "value": 1 }));
    assert_eq!(missing.check(&cx).await.unwrap_err().message, "there is no file /none");
}

#[tokio::test]
async fn the_shell_example_refuses_what_it_can_t_read() {
    let lab = Lab::bare().await;
    let folder = Folder::example("line");
    let step = folder.step("line.present", json!({ "path": "/etc/x", "line": "it's" }));
    assert!(refused(step.check(&lab.on("patroni1")).await.unwrap()).contains("quotes"));
}

#[tokio::test]
async fn a_plugin_that_behaves_does_and_undoes() {
    let folder = Folder::that("never", ":");
    let (step, cx) = (folder.thing(), operator());
    let change = pending(step.check(&cx).await.unwrap());
    assert_eq!(step.apply(&cx, &change).await.unwrap().0["by"], "apply");
    satisfied(step.check(&cx).await.unwrap());
    step.undo(&cx, &change, None).await.unwrap();
    pending(step.check(&cx).await.unwrap());
}
