//! Plans that are kept in a file, and run as they were shown.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use insta::assert_snapshot;
use serde_json::Value;

use crate::run::MAKE;
use crate::support::{Place, Ran};

/// A place with `make.toml` planned into `make.plan`.
fn planned() -> Place {
    let place = Place::new();
    place.file("make.toml", MAKE);
    place.flow("plan make.toml --out make.plan").exits(2);
    place
}

fn plan_file(place: &Place, name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(place.path(name)).unwrap()).unwrap()
}

/// Runs it, and checks that it was refused before anything was changed or recorded.
#[track_caller]
fn refused(place: &Place, line: &str) -> Ran {
    let ran = place.flow(line).exits(3);
    assert!(place.runs().is_empty(), "a run was recorded");
    assert!(!place.has("made-web1"), "something was changed");
    ran
}

#[test]
fn a_plan_is_kept_and_run_as_it_was_shown_and_only_once() {
    let place = Place::new();
    place.file("make.toml", MAKE);
    let plan = place.flow("plan make.toml --out make.plan").exits(2);
    assert_eq!(fs::metadata(place.path("make.plan")).unwrap().permissions().mode() & 0o777, 0o600);
    // What is run is what was shown, whatever became of the workflow.
    place.file("make.toml", &MAKE.replace("touch", "rm -f"));
    let run = place.flow("run make.plan").exits(0);
    let shown = plan_file(&place, "make.plan")["plan"]["shown"]["run"].as_str().unwrap().to_owned();
    assert_eq!(place.newest(), shown, "the run has the id that was shown");
    let again = place.flow("run make.plan").exits(3);
    assert_snapshot!(format!("{plan}\n\n{run}\n\n{again}"), @r#"
    $ flow plan make.toml --out make.plan
    2| make: Makes a file for each host.
    2|
    2| make: 3 tasks to change; nothing was changed yet
    2| can't be taken back: make: the step has no `undo`
    2| kept in make.plan; this, and nothing else, is done by: flow run make.plan
    1| change   make@web1  run: touch DIR/made-web1
    1| change   make@web2  run: touch DIR/made-web2
    1| change   make@web3  run: touch DIR/made-web3
    exit 2

    $ flow run make.plan
    2| note: make.toml has changed since the plan was made; what is done is what was shown
    2| run RUN: make, 3 tasks
    2| changed  make@web1  run: touch DIR/made-web1
    2| changed  make@web2  run: touch DIR/made-web2
    2| changed  make@web3  run: touch DIR/made-web3
    1| make succeeded in SECONDS: 3 changed, 0 ok
    exit 0

    $ flow run make.plan
    2| error: this plan was run before, as run RUN; nothing was changed
    2| hint: `flow show RUN` shows it, `flow resume RUN` goes on with it; else make a new plan
    exit 3
    "#);
    assert!(place.has("made-web1") && place.has("made-web3"));
    assert_eq!(place.runs().len(), 1);
}

#[test]
fn where_the_world_has_moved_on_it_is_refused_task_by_task() {
    let place = planned();
    place.file("made-web2", "");
    assert_snapshot!(refused(&place, "run make.plan"), @r#"
    $ flow run make.plan
    2| error: since make.plan was made (WHEN) the world has moved on; nothing was changed
    2|     make@web2: shown: run: touch DIR/made-web2; now: as it should be
    2| hint: look at it anew: make a new plan with `flow plan WORKFLOW --out FILE`
    exit 3
    "#);
    let objects = place.flow("run make.plan --output json").exits(3).objects();
    let errors = objects[0]["errors"].as_array().unwrap();
    assert!(errors[1]["message"].as_str().unwrap().starts_with("make@web2: shown: run: touch"), "{errors:?}");
    // As it was shown again, it is run.
    fs::remove_file(place.path("made-web2")).unwrap();
    place.flow("run make.plan").exits(0);
}

#[test]
fn what_was_as_it_should_be_and_is_no_more_is_told() {
    let place = Place::new();
    place.file("make.toml", MAKE);
    place.file("made-web2", "");
    place.flow("plan make.toml --out make.plan").exits(2);
    fs::remove_file(place.path("made-web2")).unwrap();
    refused(&place, "run make.plan").says("make@web2: shown: as it should be; now: run: touch ");
}

#[test]
fn another_machine_under_the_name_is_refused() {
    let place = planned();
    let text = fs::read_to_string(place.path("make.plan")).unwrap();
    let machine = fs::read_to_string("/etc/machine-id").unwrap();
    let other = text.replace(machine.trim(), "00000000000000000000000000000000");
    assert_ne!(text, other, "the plan doesn't tell who the hosts are");
    fs::write(place.path("other.plan"), with_right_checksum(&other)).unwrap();
    refused(&place, "run other.plan").says("web1: another machine than the plan was made for");
}

/// As somebody could write it who means to: the checksum is no signature.
fn with_right_checksum(text: &str) -> String {
    use sha2::{Digest, Sha256};
    let mut file: Value = serde_json::from_str(text).unwrap();
    file.as_object_mut().unwrap().shift_remove("sha256");
    let sum = Sha256::digest(serde_json::to_string(&file).unwrap());
    file["sha256"] = sum.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
    file.to_string()
}

#[test]
fn a_plan_file_that_can_t_be_trusted_is_refused_with_the_reason() {
    let place = planned();
    let text = fs::read_to_string(place.path("make.plan")).unwrap();
    let write = |name: &str, text: &str| fs::write(place.path(name), text).unwrap();
    let with = |edit: &dyn Fn(&mut Value)| {
        let mut file: Value = serde_json::from_str(&text).unwrap();
        edit(&mut file);
        file.to_string()
    };
    write("short.plan", &text[..text.find("\"plan\"").unwrap()]);
    write("edited.plan", &text.replace("touch ", "touch -a "));
    write("newer.plan", &with(&|file| file["flow_plan"] = 9.into()));
    write("later.plan", &with_right_checksum(&with(&|file| file["flow"] = "99.0.0".into())));
    write(
        "other.plan",
        &with_right_checksum(&with(&|file| file["plan"]["step_types"]["command"] = 7.into())),
    );
    write("json.plan", "{ \"a\": 1 }");
    let told: Vec<String> = ["short", "edited", "newer", "later", "other", "json"]
        .map(|name| refused(&place, &format!("run {name}.plan")).to_string())
        .into();
    assert_snapshot!(told.join("\n\n"), @r#"
    $ flow run short.plan
    2| error: the plan file short.plan can't be used: it can't be read: EOF while parsing a value at line 6 column 2; nothing was changed
    2| hint: make a new plan: `flow plan WORKFLOW --out FILE`
    exit 3

    $ flow run edited.plan
    2| error: the plan file edited.plan can't be used: its checksum is wrong: it was damaged or edited; nothing was changed
    2| hint: make a new plan: `flow plan WORKFLOW --out FILE`
    exit 3

    $ flow run newer.plan
    2| error: the plan file newer.plan can't be used: it has format 9, this flow reads 1; nothing was changed
    2| hint: run it with the flow that made it
    exit 3

    $ flow run later.plan
    2| error: the plan file later.plan can't be used: it was made by flow 99.0.0, this is flow 0.1.0; nothing was changed
    2| hint: run it with the flow that made it, or make a new plan with this one
    exit 3

    $ flow run other.plan
    2| error: the plan file other.plan can't be used: it was made with version 7 of the step type `command`, this flow has 1; nothing was changed
    2| hint: make a new plan: `flow plan WORKFLOW --out FILE`
    exit 3

    $ flow run json.plan
    2| error: the plan file json.plan can't be used: it can't be read: it has no number `flow_plan`; nothing was changed
    2| hint: make a new plan: `flow plan WORKFLOW --out FILE`
    exit 3
    "#);
    // The same text in another layout is the same plan.
    write("compact.plan", &with(&|_| {}));
    place.flow("run compact.plan").exits(0);
}

#[test]
fn what_would_change_a_plan_is_refused_beside_it() {
    let place = planned();
    for given in ["--set a=b", "--limit web1", "--tags x"] {
        let name = given.split(' ').next().unwrap();
        refused(&place, &format!("run make.plan {given}"))
            .says(&format!("{name} can't be given beside a plan file"));
    }
}

#[test]
fn a_file_that_is_no_plan_is_not_overwritten_and_a_plan_that_can_t_be_run_is_not_kept() {
    let place = Place::new();
    place.file("make.toml", MAKE);
    let before = fs::read_to_string(place.path("make.toml")).unwrap();
    place.flow("plan make.toml --out make.toml").exits(3).says("make.toml is there and is no plan file");
    assert_eq!(fs::read_to_string(place.path("make.toml")).unwrap(), before);
    place.file(
        "bad.toml",
        &MAKE.replace("uses = \"command\"", "uses = \"directory\"").replace(
            "with = { script = \"touch DIR/made-{{ host.name }}\", creates = \"DIR/made-{{ host.name }}\" }",
            "with = { path = \"DIR/bad.toml\" }",
        ),
    );
    place.flow("plan bad.toml --out bad.plan").exits(1).says("bad.plan was not written");
    assert!(!place.has("bad.plan"));
    place
        .flow("plan make.toml --out no/such/folder.plan")
        .exits(3)
        .says("no/such/folder.plan can't be written");
}

#[test]
fn destructive_steps_of_a_plan_want_their_name_too() {
    let place = Place::new();
    place.file(
        "aside.toml",
        r#"
name = "aside"
summary = "Sets data directories aside."
confirm = "demo"
[steps.make]
uses = "command"
hosts = "web"
with = { script = "touch DIR/made-{{ host.name }}", creates = "DIR/made-{{ host.name }}" }
[steps.aside]
uses = "postgres.data_set_aside"
needs = ["make"]
hosts = "web"
with = { data_dir = "DIR/data-{{ host.name }}", bin_dir = "/usr/bin" }
"#,
    );
    place.flow("plan aside.toml --out aside.plan").exits(2);
    refused(&place, "run aside.plan").says("to go ahead: --confirm demo");
    refused(&place, "run aside.plan --confirm no").says("--confirm no is not the name");
    place.flow("run aside.plan --confirm demo").exits(0);
}

/// `second` was shown as it would change the file of before; `first` makes another one of it.
const SPOILED: &str = r#"
name = "spoiled"
summary = "The second step finds something else than was shown."
[steps.first]
uses = "command"
hosts = "web[0]"
with = { script = "echo other >DIR/conf; touch DIR/first", creates = "DIR/first" }
[steps.second]
uses = "file"
needs = ["first"]
hosts = "web[0]"
with = { path = "DIR/conf", content = "wanted\n" }
[steps.third]
uses = "command"
needs = ["second"]
hosts = "web[0]"
with = { script = "cp DIR/conf DIR/third", creates = "DIR/third" }
"#;

#[test]
fn a_task_whose_change_is_another_one_at_its_turn_fails_before_it_changes_anything() {
    let place = Place::new();
    place.file("spoiled.toml", SPOILED);
    place.file("conf", "old\n");
    place.flow("plan spoiled.toml --out spoiled.plan").exits(2);
    let run = place.flow("run spoiled.plan").exits(1);
    assert_snapshot!(run, @r#"
    $ flow run spoiled.plan
    2| run RUN: spoiled, 3 tasks
    2| changed  first@web1   run: echo other >DIR/conf; touch DIR/first
    2| failed   second@web1  not as planned: change DIR/conf: +1 -1 lines: the details are other ones now
    2|
    2| failed: second@web1: not as planned: change DIR/conf: +1 -1 lines: the details are other ones now
    2|     shown:
    2|     --- DIR/conf
    2|     +++ DIR/conf
    2|     @@ -1 +1 @@
    2|     -old
    2|     +wanted
    2|     now:
    2|     --- DIR/conf
    2|     +++ DIR/conf
    2|     @@ -1 +1 @@
    2|     -other
    2|     +wanted
    2| hint: this task changed nothing; where what is so now is right, `flow resume --as-found` goes on with it
    2|
    2| not started: third@web1
    2| go on with: flow resume RUN --as-found
    1| spoiled failed in SECONDS: 1 changed, 0 ok, 1 failed
    exit 1
    "#);
    assert_eq!(fs::read_to_string(place.path("conf")).unwrap(), "other\n");
    // It is held to the plan after a resume too, until the operator says otherwise.
    place.flow("resume").exits(1).says("not as planned");
    assert_eq!(fs::read_to_string(place.path("conf")).unwrap(), "other\n");
    place.flow("resume --as-found").exits(0);
    assert_eq!(fs::read_to_string(place.path("third")).unwrap(), "wanted\n");
}

const WAIT: &str = r#"
name = "wait"
summary = "Waits for something; what is missing is told in other words from look to look."
[steps.wait]
uses = "wait_for"
hosts = "web[0]"
with = { script = "test -e DIR/there || exit $(cat DIR/code)", timeout = 20 }
"#;

#[test]
fn what_always_moves_is_compared_by_its_rule() {
    let place = Place::new();
    place.file("wait.toml", WAIT);
    place.file("code", "3");
    place.flow("plan wait.toml --out wait.plan").exits(2);
    // What the wait still misses is told in other words now.
    place.file("code", "4");
    let running = place.start("run wait.plan");
    running.wait_to_say("run ");
    place.file("there", "");
    running.ended().exits(0);
}

#[test]
fn what_was_shown_as_known_later_is_done_as_it_is_found() {
    let place = Place::new();
    place.file(
        "later.toml",
        r#"
name = "later"
summary = "What the second step does is known once the first has run."
[steps.ask]
uses = "command"
hosts = "web[0]"
with = { script = "cat /proc/sys/kernel/random/uuid", repeatable = true }
[steps.keep]
uses = "file"
needs = ["ask"]
hosts = "web[0]"
with = { path = "DIR/kept-{{ run.id }}", content = "{{ steps.ask.stdout }} {{ run.started }}" }
"#,
    );
    let plan = place.flow("plan later.toml --out later.plan").exits(2);
    assert!(plan.out.contains("known after ask"), "{}", plan.out);
    place.flow("run later.plan").exits(0);
    assert!(place.has(&format!("kept-{}", place.newest())));
}

const SECRET: &str = "correct-horse-77";

#[test]
fn a_plan_with_a_secret_is_run_elsewhere_where_the_secret_is_the_same() {
    let place = Place::new();
    place.file(
        "secret.toml",
        r#"
name = "secret"
summary = "Writes a secret."
[params.password]
type = "secret"
[steps.keep]
uses = "file"
hosts = "web[0]"
with = { path = "DIR/kept", content = "{{ params.password }} {{ vars.db_password }}\n", mode = "0600" }
"#,
    );
    let hosts = fs::read_to_string(place.path("inventory.ini")).unwrap();
    place.file("inventory.ini", &format!("{hosts}[web:vars]\ndb_password=battery-staple-88\n"));
    let here = [("PW", SECRET)];
    place.flow_with("plan secret.toml --set password=env:PW --out secret.plan", &here).exits(2);
    let kept = fs::read_to_string(place.path("secret.plan")).unwrap();
    assert!(!kept.contains(SECRET) && !kept.contains("battery-staple-88"), "the plan file holds a secret");
    let other = place.flow_with("run secret.plan --store sqlite:elsewhere.db", &[("PW", "other-horse-77")]);
    other.exits(3).says("the secret `password` is another one than when the plan was made");
    // Another store has another key, and no key is in the file.
    place.flow_with("run secret.plan --store sqlite:elsewhere.db", &here).exits(0);
    assert_eq!(fs::read_to_string(place.path("kept")).unwrap(), format!("{SECRET} battery-staple-88\n"));
}
