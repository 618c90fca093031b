use flow_core::step::{Outcome, Resolved, Step, StepType};
use serde_json::json;

use crate::host::HostContext;
use crate::host::sim::{CannedReply, Fault, FaultKind, ScriptMatch};
use crate::system::{Diff, File, Template};
use crate::testing::{Lab, pending, satisfied};

const PATH: &str = "/etc/haproxy.cfg";
const NEW: &str = "/etc/.flow-new.haproxy.cfg";

fn file(with: serde_json::Value) -> File {
    serde_json::from_value(with).unwrap()
}

/// Refused unless it holds `listen`; a simulated `grep` has no words.
fn wants_listen(content: &str) -> File {
    file(json!({ "path": PATH, "content": content, "validate": ["grep", "-q", "listen", "%s"] }))
}

/// Answers the check of the new content so.
fn haproxy_says(lab: &Lab, code: i32, stderr: &str) -> File {
    let script = ScriptMatch::Trimmed(format!("haproxy -c -f {NEW}"));
    let reply = CannedReply { stderr: stderr.into(), only_looks: true, ..CannedReply::new(script, "") };
    lab.world.reply(reply.with_code(code)).unwrap();
    file(json!({ "path": PATH, "content": "broken\n", "validate": ["haproxy", "-c", "-f", "%s"] }))
}

async fn with_working_file(mode: &str) -> Lab {
    let lab = Lab::bare().await;
    let working = json!({ "path": PATH, "content": "listen a\n", "mode": mode, "group": "adm" });
    lab.world
        .edit_host("patroni1", |host| {
            host.users.insert("adm".into());
        })
        .unwrap();
    lab.make("patroni1", "file", working).await;
    lab
}

#[tokio::test]
async fn accepted_content_replaces_the_file_with_owner_and_mode_kept() {
    let lab = with_working_file("0640").await;
    let cx = lab.on("patroni1");
    let step = wants_listen("listen b\n");
    let (change, output) = lab.establish(&step, &cx).await;
    assert_eq!(lab.text("patroni1", PATH).as_deref(), Some("listen b\n"));
    let stat = cx.host().await.unwrap().stat(PATH).await.unwrap().unwrap();
    assert_eq!((stat.group.as_str(), stat.mode), ("adm", 0o640));
    assert_eq!(lab.text("patroni1", NEW), None);
    step.undo(&cx, &change, Some(&output)).await.unwrap();
    assert_eq!(lab.text("patroni1", PATH).as_deref(), Some("listen a\n"));
}

#[tokio::test]
async fn refused_content_leaves_the_old_file_and_nothing_else() {
    let lab = with_working_file("0640").await;
    let cx = lab.on("patroni1");
    let before = lab.world.state().unwrap().hosts["patroni1"].files.nodes().count();
    let inode = cx.host().await.unwrap().stat(PATH).await.unwrap().unwrap().inode;
    let step = wants_listen("broken\n");
    let change = pending(step.check(&cx).await.unwrap());
    let error = step.apply(&cx, &change).await.unwrap_err();
    assert_eq!(
        error.message,
        "/etc/haproxy.cfg is not written: `grep` refuses the new content: exit status 1"
    );
    assert_eq!(error.outcome, Outcome::Failed);
    assert_eq!(lab.text("patroni1", PATH).as_deref(), Some("listen a\n"));
    assert_eq!(cx.host().await.unwrap().stat(PATH).await.unwrap().unwrap().inode, inode);
    assert_eq!(lab.world.state().unwrap().hosts["patroni1"].files.nodes().count(), before);
}

#[tokio::test]
async fn a_new_file_that_is_refused_is_not_made_nor_is_its_directory() {
    let lab = Lab::bare().await;
    let cx = lab.on("patroni1");
    let step = file(json!({
        "path": "/etc/new/a.cfg", "content": "x\n", "parents": true, "validate": ["grep", "-q", "listen", "%s"],
    }));
    let change = pending(step.check(&cx).await.unwrap());
    step.apply(&cx, &change).await.unwrap_err();
    assert_eq!(cx.host().await.unwrap().stat("/etc/new").await.unwrap(), None);
}

#[tokio::test]
async fn a_refusal_carries_the_words_of_the_program() {
    let lab = with_working_file("0644").await;
    let cx = lab.on("patroni1");
    let long = "x".repeat(5000);
    let step = haproxy_says(&lab, 1, &format!("unknown keyword 'lisen'\n{long}\nFatal errors\n"));
    let change = pending(step.check(&cx).await.unwrap());
    let error = step.apply(&cx, &change).await.unwrap_err();
    assert!(error.message.ends_with("`haproxy` refuses the new content: exit status 1: Fatal errors"));
    let detail = error.detail.unwrap();
    assert!(detail.contains("unknown keyword 'lisen'"), "{detail}");
    assert!(detail.len() < 1000, "{}", detail.len());
}

#[tokio::test]
async fn what_a_program_says_of_content_that_is_not_shown_is_dropped() {
    for (mode, diff) in [("0600", None), ("0644", Some(Diff::Shown(false)))] {
        let lab = with_working_file(mode).await;
        let cx = lab.on("patroni1");
        let step = File { diff, ..haproxy_says(&lab, 3, "password hidden\n") };
        let change = pending(step.check(&cx).await.unwrap());
        let error = step.apply(&cx, &change).await.unwrap_err();
        let told = serde_json::to_string(&error).unwrap();
        assert!(told.contains("exit status 3") && told.contains("diff = true"), "{told}");
        assert!(!told.contains("hidden"), "{told}");
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_said_to_be_missing() {
    let lab = with_working_file("0644").await;
    let cx = lab.on("patroni1");
    let step = haproxy_says(&lab, 127, "sh: 1: haproxy: not found\n");
    let change = pending(step.check(&cx).await.unwrap());
    let error = step.apply(&cx, &change).await.unwrap_err();
    assert!(error.message.contains("`haproxy`, or what it calls, is not on the host"), "{error}");
    assert_eq!(lab.text("patroni1", NEW), None);
}

#[tokio::test]
async fn nothing_is_run_in_a_check_nor_where_the_content_is_right_already() {
    let lab = with_working_file("0644").await;
    let cx = lab.on("patroni1");
    // Refuses whatever it is asked.
    let step = haproxy_says(&lab, 1, "");
    let effects = lab.effects().len();
    pending(step.check(&cx).await.unwrap());
    assert_eq!(lab.effects().len(), effects);
    let same = File { content: "listen a\n".into(), ..step };
    satisfied(same.check(&cx).await.unwrap());
    let other_mode = File { mode: Some("0600".into()), ..same };
    lab.establish(&other_mode, &cx).await;
}

#[tokio::test]
async fn whatever_a_kill_leaves_the_next_apply_ends_right() {
    for at in ["write-file /etc/.flow-new", "run grep", "replace"] {
        for kind in [FaultKind::LoseRequest, FaultKind::LoseAnswer] {
            let lab = with_working_file("0644").await;
            let cx = lab.on("patroni1");
            let step = wants_listen("listen b\n");
            let change = pending(step.check(&cx).await.unwrap());
            lab.world.inject(Fault::at("patroni1", at, kind.clone())).unwrap();
            let error = step.apply(&cx, &change).await.unwrap_err();
            assert_eq!(error.outcome, Outcome::Lost);
            match step.resolve(&cx, &change).await.unwrap() {
                Resolved::NotDone => {
                    assert_eq!(lab.text("patroni1", PATH).as_deref(), Some("listen a\n"), "{at}");
                    lab.establish(&step, &cx).await;
                }
                Resolved::Done(_) => assert_eq!((at, kind), ("replace", FaultKind::LoseAnswer)),
                other => panic!("{at}: {other:?}"),
            }
            assert_eq!(lab.text("patroni1", PATH).as_deref(), Some("listen b\n"), "{at}");
            assert_eq!(lab.text("patroni1", NEW), None, "{at}");
        }
    }
}

#[tokio::test]
async fn undo_takes_away_what_a_kill_left() {
    let lab = with_working_file("0644").await;
    let cx = lab.on("patroni1");
    let step = wants_listen("listen b\n");
    let change = pending(step.check(&cx).await.unwrap());
    lab.world.inject(Fault::at("patroni1", "run grep", FaultKind::LoseRequest)).unwrap();
    step.apply(&cx, &change).await.unwrap_err();
    assert_eq!(lab.text("patroni1", NEW).as_deref(), Some("listen b\n"));
    step.undo(&cx, &change, None).await.unwrap();
    assert_eq!(lab.text("patroni1", NEW), None);
    assert_eq!(lab.text("patroni1", PATH).as_deref(), Some("listen a\n"));
}

#[tokio::test]
async fn a_run_that_was_taken_over_validates_and_replaces_nothing() {
    let lab = with_working_file("0644").await;
    let cx = lab.on("patroni1");
    let step = wants_listen("listen b\n");
    let change = pending(step.check(&cx).await.unwrap());
    lab.take_over("patroni1").await;
    let effects = lab.effects().len();
    let error = step.apply(&cx, &change).await.unwrap_err();
    assert!(error.message.contains("no longer holds the host's lock"), "{error}");
    assert_eq!(lab.effects().len(), effects);
}

#[tokio::test]
async fn a_template_is_validated_as_it_was_rendered() {
    let lab = Lab::bare().await.with_file("t.conf", "listen {{ answer }}\n");
    let cx = lab.on("patroni1");
    let step = |text: &str| -> Template {
        let validate = json!(["grep", "-q", text, "%s"]);
        serde_json::from_value(json!({ "src": "t.conf", "path": PATH, "validate": validate })).unwrap()
    };
    let wrong = step("listen 43");
    let change = pending(wrong.check(&cx).await.unwrap());
    wrong.apply(&cx, &change).await.unwrap_err();
    assert_eq!(lab.text("patroni1", PATH), None);
    lab.establish(&step("listen 42"), &cx).await;
}

#[test]
fn a_command_that_cannot_look_at_the_new_content_is_refused() {
    let with = |words: &[&str]| file(json!({ "path": PATH, "content": "", "validate": words })).validate();
    assert_eq!(with(&[]), Ok(()));
    assert_eq!(with(&["promtool", "--config=%s"]), Ok(()));
    assert!(with(&["haproxy", "-c", "-f", PATH]).unwrap_err().contains("has no `%s`"));
    for program in ["", "A=1"] {
        assert!(with(&[program, "%s"]).is_err(), "{program}");
    }
}
