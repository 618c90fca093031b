//! A secret is read from where the user says, and shown nowhere.

use insta::assert_snapshot;

use crate::support::{Place, Ran};

const SECRET: &str = "correct-horse-77";

const WORKFLOW: &str = r#"
name = "secret"
summary = "Uses a secret."
[params.password]
type = "secret"
help = "The password."
[steps.use]
uses = "command"
hosts = "web[0]"

[steps.use.with]
script = "printf %s \"$PASSWORD\" >DIR/seen; echo \"it is $PASSWORD\"; echo \"no $PASSWORD\" >&2; exit ${FAIL:-0}"
environment = { PASSWORD = "{{ params.password }}" }
check = "test -e DIR/ok"
"#;

fn place() -> Place {
    let place = Place::new();
    place.file("secret.toml", WORKFLOW);
    place
}

/// Nothing that was printed holds the secret.
fn hides(ran: Ran) -> Ran {
    assert!(!ran.out.contains(SECRET) && !ran.err.contains(SECRET), "{}{}", ran.out, ran.err);
    ran
}

fn stores_nothing_of_it(place: &Place) {
    let bytes = place.store_bytes();
    assert!(bytes.len() > 1000, "the store was not read");
    assert!(!bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()), "the store holds the secret");
}

#[test]
fn a_secret_on_the_command_line_is_refused() {
    let place = place();
    let refused = place.flow(&format!("run secret.toml --set password={SECRET}")).exits(3);
    assert!(!refused.err.contains(SECRET));
    assert!(
        refused.err.contains("--set password=env:VARIABLE or --set password=file:PATH"),
        "{}",
        refused.err
    );
    place.flow("run secret.toml --set password=env:UNSET").exits(3).says("UNSET is not set");
    place.flow("run secret.toml --set password=file:missing").exits(3).says("missing can't be read");
}

#[test]
fn a_password_that_anyone_can_guess_is_taken_only_where_that_is_said_and_told() {
    let place = place();
    let weak = [("PW", "password")];
    let refused = place.flow_with("run secret.toml --set password=env:PW", &weak).exits(3);
    refused
        .says("the secret `password` is too easy to guess")
        .says("openssl rand -hex 16")
        .says("--allow-weak-passwords");
    let allowed = "secret.toml --set password=env:PW --allow-weak-passwords";
    for verb in ["plan", "run"] {
        let ran = place.flow_with(&format!("{verb} {allowed}"), &weak);
        let told = ran.err.matches("warning: anyone can guess `password`").count();
        assert_eq!(told, 1, "{}{}", ran.out, ran.err);
    }
    // A resume takes what the run was started with.
    let resumed = place.flow_with("resume", &weak);
    assert!(!resumed.err.contains("too easy to guess"), "{}{}", resumed.out, resumed.err);
}

#[test]
fn a_secret_from_the_environment_reaches_the_host_and_is_shown_nowhere() {
    let place = place();
    let secret = [("PW", SECRET)];
    // It fails after it was used, with the secret in all it says.
    hides(place.flow_with("run secret.toml --set password=env:PW", &secret).exits(1));
    assert_eq!(std::fs::read_to_string(place.path("seen")).unwrap(), SECRET);
    stores_nothing_of_it(&place);
    place.file("ok", "");
    hides(place.flow_with("resume --output json", &secret).exits(0));
    for line in ["show -v", "show --output json", "runs"] {
        hides(place.flow(line).exits(0));
    }
    hides(place.flow_with("plan secret.toml --output json --set password=env:PW", &secret).exits(0));
    stores_nothing_of_it(&place);
}

#[test]
fn a_secret_from_a_file_is_hidden_in_what_a_command_answers() {
    let place = place();
    place.file("pw", &format!("{SECRET}\n"));
    place.file("secret.toml", &WORKFLOW.replace("check = \"test -e DIR/ok\"", "repeatable = true"));
    hides(place.flow("run secret.toml --set password=file:pw").exits(0));
    assert_eq!(std::fs::read_to_string(place.path("seen")).unwrap(), SECRET);
    let shown = hides(place.flow("show -v").exits(0));
    assert!(shown.out.contains("stdout: it is ••••••"), "{}", shown.out);
    stores_nothing_of_it(&place);
}

#[test]
fn another_secret_than_the_run_began_with_is_refused() {
    let place = place();
    place.flow_with("run secret.toml --set password=env:PW", &[("PW", SECRET)]).exits(1);
    let refused = place.flow_with("resume", &[("PW", "another-horse-78")]).exits(3);
    assert_snapshot!(refused, @r#"
    $ flow resume
    2| flow::param
    2|
    2|   × the secret `password` is another one than when the run began
    2|   help: set it back to what it was, or start a new run
    exit 3
    "#);
    place.flow("resume").exits(3).says("PW is not set");
}
