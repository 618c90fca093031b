//! Step types that break the contract, each in its own way: the rehearsal must tell.

use std::collections::BTreeMap;

use async_trait::async_trait;
use flow_core::plan::{Filter, Inputs};
use flow_core::step::{
    Change, Check, Context, Output, Registry, Resolved, Step, StepError, StepType, UndoError,
};
use flow_core::workflow::Bundle;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Options, Report, Stage, Subject, invent, rehearse};
use crate::host::sim::Release;
use crate::host::{Content, HostChange, HostContext, Ownership};

fn write(path: &str, text: &str) -> HostChange {
    HostChange::WriteFile {
        path: path.to_owned(),
        content: Content(text.as_bytes().to_vec()),
        ownership: Ownership::default(),
    }
}

/// Says after a crash that nothing was done, without a look.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Guesses {}

#[async_trait]
impl Step for Guesses {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        Ok(match cx.host().await?.stat("/root/a").await? {
            Some(_) if cx.attempt().epoch == 1 => Check::Satisfied(Output::empty()),
            _ => Check::Pending(Change::new("write /root/a")),
        })
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        cx.host().await?.change(cx.attempt(), &write("/root/a", "a")).await?;
        Ok(Output::empty())
    }

    fn verifiable(&self) -> bool {
        false
    }

    async fn resolve(&self, _cx: &Context, _change: &Change) -> Result<Resolved, StepError> {
        Ok(Resolved::NotDone)
    }
}

impl StepType for Guesses {
    const NAME: &'static str = "guesses";
}

/// Makes two changes, and takes the first for both.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Half {}

#[async_trait]
impl Step for Half {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        Ok(match cx.host().await?.stat("/root/first").await? {
            Some(_) => Check::Satisfied(Output::empty()),
            None => Check::Pending(Change::new("write two files")),
        })
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let host = cx.host().await?;
        host.change(cx.attempt(), &write("/root/first", "1")).await?;
        host.change(cx.attempt(), &write("/root/second", "2")).await?;
        Ok(Output::empty())
    }
}

impl StepType for Half {
    const NAME: &'static str = "half";
}

fn remove(path: &str) -> HostChange {
    HostChange::RemoveFile { path: path.to_owned() }
}

/// Writes two files, and takes one of them away again; says that `LEAVES` stays.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Leaks<const SAYS: bool> {}

#[async_trait]
impl<const SAYS: bool> Step for Leaks<SAYS> {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        let host = cx.host().await?;
        let (first, second) = (host.stat("/root/first").await?, host.stat("/root/second").await?);
        Ok(match first.and(second) {
            Some(_) => Check::Satisfied(Output::empty()),
            None => Check::Pending(Change::new("write two files")),
        })
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        let host = cx.host().await?;
        for (path, text) in [("/root/first", "1"), ("/root/second", "2")] {
            if host.stat(path).await?.is_none() {
                host.change(cx.attempt(), &write(path, text)).await?;
            }
        }
        Ok(Output::empty())
    }

    async fn undo(&self, cx: &Context, _: &Change, _: Option<&Output>) -> Result<(), UndoError> {
        Ok(cx.host().await?.change(cx.attempt(), &remove("/root/first")).await.map_err(StepError::from)?)
    }
}

impl StepType for Leaks<false> {
    const NAME: &'static str = "leaks";
    const UNDOABLE: bool = true;
}

impl StepType for Leaks<true> {
    const NAME: &'static str = "leaves";
    const UNDOABLE: bool = true;
    const UNDO_LEAVES: Option<&'static str> = Some("the second file");
}

/// Its undo can't be called again from where it was cut short.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct UndoesOnce {}

#[async_trait]
impl Step for UndoesOnce {
    async fn check(&self, cx: &Context) -> Result<Check, StepError> {
        Ok(match cx.host().await?.stat("/root/a").await? {
            Some(_) => Check::Satisfied(Output::empty()),
            None => Check::Pending(Change::new("write /root/a")),
        })
    }

    async fn apply(&self, cx: &Context, _change: &Change) -> Result<Output, StepError> {
        cx.host().await?.change(cx.attempt(), &write("/root/a", "a")).await?;
        Ok(Output::empty())
    }

    async fn undo(&self, cx: &Context, _: &Change, _: Option<&Output>) -> Result<(), UndoError> {
        let host = cx.host().await?;
        if host.stat("/root/a").await.map_err(StepError::from)?.is_none() {
            return Err(StepError::permanent("it is gone already").into());
        }
        Ok(host.change(cx.attempt(), &remove("/root/a")).await.map_err(StepError::from)?)
    }
}

impl StepType for UndoesOnce {
    const NAME: &'static str = "undoes-once";
    const UNDOABLE: bool = true;
}

fn report(uses: &str) -> Report {
    let mut registry = Registry::new();
    registry.add::<Guesses>().add::<Half>();
    registry.add::<Leaks<false>>().add::<Leaks<true>>().add::<UndoesOnce>();
    let text =
        format!("name = \"bad\"\nsummary = \"Bad.\"\n[steps.it]\nuses = \"{uses}\"\nhosts = \"web[0]\"\n");
    let subject = Subject {
        bundle: Bundle::single("bad.toml", &text),
        inputs: Inputs::default(),
        filter: Filter::default(),
    };
    let stage = Stage {
        release: Release::Bookworm,
        inventory: invent([&subject.bundle], Release::Bookworm, &BTreeMap::new(), &BTreeMap::new()),
        after: Vec::new(),
        accidents: Vec::new(),
        commands: Vec::new(),
        queries: Vec::new(),
    };
    rehearse(registry, &stage, &subject, &Options::default(), &|_, _| ()).unwrap()
}

fn failed(report: &Report) -> Vec<(&str, &[String])> {
    report.failures.iter().map(|it| (it.point.as_str(), it.differences.as_slice())).collect()
}

#[test]
fn a_step_that_guesses_after_a_crash_is_seen_to_do_it_twice() {
    let report = report("guesses");
    let failed = failed(&report);
    let (_, differences) = failed.iter().find(|(point, _)| *point == "after-effect").unwrap();
    assert_eq!(*differences, ["done twice instead of once: db1 change write-file /root/a"]);
    assert!(failed.iter().any(|(point, _)| *point == "again"), "{failed:?}");
    assert!(!failed.iter().any(|(point, _)| *point == "after-intent"), "{failed:?}");
}

#[test]
fn a_step_that_takes_its_first_change_for_all_of_them_is_seen_to_leave_the_rest() {
    let report = report("half");
    let failed = failed(&report);
    let (_, differences) = failed.iter().find(|(point, _)| *point == "within-1").unwrap();
    assert!(differences.iter().any(|line| line.starts_with("- db1 /root/second")), "{differences:?}");
    let points: Vec<&str> = failed.iter().map(|(point, _)| *point).collect();
    assert_eq!(points, ["within-1", "answer-lost-1", "fails-2", "request-lost-2"]);
}

#[test]
fn a_step_that_leaves_something_when_it_is_taken_back_is_seen_to() {
    let report = report("leaks");
    let failed = failed(&report);
    let (_, differences) = failed.iter().find(|(point, _)| *point == "undone").unwrap();
    assert!(matches!(differences, [line] if line.starts_with("+ db1 /root/second")), "{differences:?}");
    assert_eq!(failed.len(), 1, "{failed:?}");
    let whole = report.taken_back.as_ref().unwrap();
    assert!(!whole.held && whole.differences.len() == 1, "{whole:?}");
    assert_eq!((report.steps[0].undo, report.verdict), ("differs", "failed"));
}

#[test]
fn what_a_step_type_says_that_its_undo_leaves_is_told_and_not_held_against_it() {
    let report = report("leaves");
    assert_eq!(failed(&report), []);
    let step = &report.steps[0];
    assert_eq!((step.undo, step.undo_why.as_deref()), ("leaves", Some("the second file")));
    let whole = report.taken_back.as_ref().unwrap();
    assert!(whole.held && whole.differences.len() == 1, "{whole:?}");
}

#[test]
fn an_undo_that_cannot_be_called_again_is_seen_to_come_to_no_end() {
    let report = report("undoes-once");
    let points: Vec<&str> = report.failures.iter().map(|it| it.point.as_str()).collect();
    assert_eq!(points, ["undo-after-effect", "undo-answer-lost-1"]);
    assert!(report.failures[0].what.contains("it is gone already"), "{}", report.failures[0].what);
    assert_eq!(report.steps[0].undo, "exact");
}
