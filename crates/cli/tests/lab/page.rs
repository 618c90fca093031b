//! docs/recovery.md, the page for 3 a.m.: every command that stands in it is run here, as it stands there, in a state that it is for.
//!
//! A command that is added to the page and run by no test fails [`every_command_of_the_page_is_run`].

use std::collections::BTreeSet;

use crate::harness::{Done, Lab, Operator, PROMOTERS, until};
use crate::repair::broken_with_rows;

const PAGE: &str = include_str!("../../../../docs/recovery.md");

/// Those of the way out where the evidence decides.
const DECIDED: [&str; 5] = [
    "flow diagnose",
    "flow plan system-id-recovery.toml",
    "flow run system-id-recovery.toml --confirm SCOPE",
    "flow resume",
    "flow run set-aside.toml",
];
/// Those where a person decides, and of what was set aside.
const BY_HAND: [&str; 8] = [
    "flow plan system-id-recovery.toml --set keep=HOST",
    "flow run system-id-recovery.toml --set keep=HOST --confirm SCOPE",
    "flow run put-back.toml --set host=HOST --set copy=PATH --confirm SCOPE",
    "flow undo",
    "flow plan system-id-recovery.toml --set mode=reset",
    "flow run system-id-recovery.toml --set mode=reset --confirm SCOPE",
    "flow run open.toml --confirm SCOPE",
    "flow run set-aside.toml --set remove=HOST:PATH --confirm SCOPE",
];

/// Where there is no room: run by the tests of `elsewhere`.
pub const ELSEWHERE: &str = "flow run system-id-recovery.toml --set set_aside_to=HOST:PATH --confirm SCOPE";

/// What mends other findings: run by the tests of `parameters` and `tls`.
pub const RESTART: &str = "flow run postgresql-parameters.toml --set allow_restart=true";
pub const DEPLOY: &str = "flow run deploy.toml";

/// The commands of the page: the lines of its blocks, and what stands between backticks.
fn commands() -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    for (index, part) in PAGE.split("```").enumerate() {
        if index % 2 == 1 {
            found.extend(part.lines().map(str::trim).filter(|line| !line.is_empty()));
        } else {
            let between = part.split('`').skip(1).step_by(2);
            found.extend(between.filter(|text| text.starts_with("flow ")));
        }
    }
    found
}

#[test]
fn short_every_command_of_the_page_is_run() {
    let run: BTreeSet<&str> =
        DECIDED.into_iter().chain(BY_HAND).chain([ELSEWHERE, RESTART, DEPLOY]).collect();
    assert_eq!(commands(), run, "left: what the page has; right: what these tests run");
}

/// A command of the page, with these in place of its words.
pub fn page(operator: &Operator, command: &str, words: &[(&str, &str)]) -> Done {
    assert!(commands().contains(command), "the page has no `{command}`");
    let filled = words.iter().fold(command.to_owned(), |text, (word, value)| text.replace(word, value));
    let arguments: Vec<&str> = filled.split(' ').skip(1).collect();
    operator.flow(&arguments)
}

fn copy_on(lab: &Lab, host: &str) -> String {
    lab.on(host, "ls -dt /var/lib/postgresql/*/main.set-aside-* | grep -v json | head -n 1")
}

#[test]
fn the_page_leads_out_where_the_evidence_decides() {
    let (lab, broken) = Lab::broken();
    let operator = Operator::new(&lab);
    let [diagnose, plan, run, resume, list] = DECIDED;
    page(&operator, diagnose, &[])
        .ended(2)
        .says(&["holds nothing", run.strip_suffix("SCOPE").unwrap_or(run)]);
    page(&operator, plan, &[]).ended(2).says(&[&broken]);
    // Cut short, and gone on with.
    let mut running =
        operator.start(&["run", "system-id-recovery.toml", "--confirm", "demo", "--output", "json"]);
    running.wait_event("task_intended", "set-aside");
    running.kill();
    page(&operator, resume, &[]).ended(0);
    lab.wait_healthy();
    page(&operator, run, &[("SCOPE", "demo")]).ended(0).says(&["nothing to do"]);
    page(&operator, diagnose, &[]).ended(0);
    page(&operator, list, &[])
        .ended(0)
        .says(&[&format!("{broken}:{}", copy_on(&lab, &broken)), "no user data"]);
}

#[test]
fn the_page_leads_out_where_a_person_decides_and_tells_what_becomes_of_the_copies() {
    let (lab, broken) = broken_with_rows();
    let operator = Operator::new(&lab);
    let leader = lab.key("/service/demo/leader");
    let [plan_keep, keep, put_back, undo, plan_reset, reset, open, remove] = BY_HAND;
    let kept = [("HOST", leader.as_str()), ("SCOPE", "demo")];
    page(&operator, plan_keep, &kept).ended(2).says(&["set-aside-"]);
    page(&operator, keep, &kept).ended(0).says(&["kept"]);
    lab.wait_healthy();

    // The copy belongs to another cluster: it is back, and Patroni isn't started on it.
    let copy = copy_on(&lab, &broken);
    let of_the_copy = [("HOST", broken.as_str()), ("PATH", copy.as_str()), ("SCOPE", "demo")];
    let followed = format!("--set keep={broken}");
    page(&operator, put_back, &of_the_copy).ended(0).says(&[
        "stopped and masked",
        "another cluster",
        &followed,
    ]);
    let unit = "systemctl is-enabled patroni.service; systemctl is-active patroni.service; pgrep -x postgres";
    assert_eq!(lab.try_on(&broken, &format!("{{ {unit}; }} || true")).unwrap(), "masked\ninactive");
    let members = operator.flow(&["diagnose"]).ended(2);
    members.says(&["keep=HOST"]);
    // `flow undo` as it stands asks; a test answers.
    page(&operator, undo, &[]).ended(3).says(&["in the order in which it is taken back"]);
    operator.flow(&["undo", "--yes"]).ended(0);
    lab.wait_healthy();
    assert_eq!(copy_on(&lab, &broken), copy);

    // Back once more, and made the cluster's: its rows are everywhere then.
    page(&operator, put_back, &of_the_copy).ended(0);
    page(&operator, keep, &[("HOST", broken.as_str()), ("SCOPE", "demo")]).ended(0).says(&["kept"]);
    assert_eq!(lab.wait_healthy().leader(), broken);
    for host in PROMOTERS {
        until("the copy's rows on each member", || {
            match lab.try_on(host, "cd / && runuser -u postgres -- psql -XqAtc 'select count(*) from theirs'")
            {
                Ok(count) if count == "7" => Ok(()),
                other => Err(format!("{host}: {other:?}")),
            }
        });
    }

    // A healthy cluster isn't emptied: the reset is for one that isn't.
    page(&operator, plan_reset, &[]).ended(1).says(&["the cluster is healthy"]);
    lab.break_system_id(&lab.wait_healthy().replicas()[0].clone());
    page(&operator, plan_reset, &[]).ended(2).says(&["set-aside-"]);
    page(&operator, reset, &[("SCOPE", "demo")]).ended(0).says(&["THE CLUSTER COMES BACK EMPTY"]);
    lab.wait_healthy();
    page(&operator, DECIDED[0], &[])
        .ended(2)
        .says(&["HAProxy on lb1, lb2 is closed", open.strip_suffix("SCOPE").unwrap()]);
    page(&operator, open, &[("SCOPE", "demo")])
        .ended(0)
        .says(&["HAProxy runs; it was closed", "no user data"]);
    operator.diagnosed_healthy();
    let copy = copy_on(&lab, &broken);
    page(&operator, remove, &[("HOST", broken.as_str()), ("PATH", copy.as_str()), ("SCOPE", "demo")])
        .ended(0)
        .says(&["MiB"]);
    assert_eq!(lab.try_on(&broken, &format!("test ! -e {copy}")), Ok(String::new()));
}
