//! Users who are not root: sudo without and with a password.

use crate::harness::{Done, Lab, Operator};

const WORKFLOW: &str = r#"
name = "who"
summary = "Tells who works on the hosts."

[steps.who]
uses = "command"
hosts = "promoters"
with = { script = "id -un > /root/who && stat -c %U /root/who", creates = "/root/who" }
"#;

/// An operator who logs in as `user`; further variables as lines.
pub fn logged_in_as(lab: &Lab, user: &str, variables: &str) -> Operator {
    let text = std::fs::read_to_string(lab.file("inventory.ini")).unwrap();
    let login = format!("ansible_user={user}\nansible_become=true\n{variables}");
    Operator::with_inventory(lab, &text.replace("ansible_user=root", &login))
}

fn run(operator: &Operator) -> Done {
    let workflow = operator.write("who.toml", WORKFLOW);
    operator.flow(&["run", &workflow])
}

#[test]
fn a_user_with_sudo_and_no_password_works_as_root() {
    let lab = Lab::deployed();
    run(&logged_in_as(&lab, "ops", "")).ended(0);
    assert!(lab.on_all("cat /root/who").values().all(|who| who == "root"));
}

#[test]
fn a_user_with_a_sudo_password_works_as_root_and_the_password_is_kept_nowhere() {
    let lab = Lab::deployed();
    let password = std::fs::read_to_string(lab.file("dba_password")).unwrap().trim().to_owned();
    let operator = logged_in_as(&lab, "dba", &format!("ansible_become_password={password}"));
    let done = run(&operator).ended(0);
    assert!(lab.on_all("cat /root/who").values().all(|who| who == "root"));
    assert_kept_nowhere(&operator, &done, &password);
}

#[test]
fn a_wrong_sudo_password_is_named_but_not_told() {
    let lab = Lab::deployed();
    let operator = logged_in_as(&lab, "dba", "ansible_become_password=not-the-password-7");
    let done =
        run(&operator).ended(1).says(&["sudo refused the password", "ansible_become_password", "patroni1"]);
    lab.on_all("test ! -e /root/who");
    assert_kept_nowhere(&operator, &done, "not-the-password-7");
}

#[test]
fn a_missing_sudo_password_is_asked_for_by_name() {
    let lab = Lab::deployed();
    run(&logged_in_as(&lab, "dba", "")).ended(1).says(&["sudo wants a password", "ansible_become_password"]);
}

fn assert_kept_nowhere(operator: &Operator, done: &Done, secret: &str) {
    assert!(!done.text().contains(secret), "in the output");
    crate::secrets::assert_not_in_store(operator, secret);
    let show = operator.flow(&["show", "--verbose"]).ended(0);
    assert!(!show.text().contains(secret), "in what `flow show` tells");
}
