//! Events: any, those that a run would write, and those full of awkward values.

use flow_core::run::{Event, Identity, NodeId, Outcome, Record, RunState, RunStatus, Settler, TaskState};
use flow_core::step::{Change, Outcome as Certainty, Output, StepError};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Map, Value};

use crate::shape::{MOST, name, tasks};

/// Any event, about tasks that are there and one that isn't, with attempts and epochs around the right ones.
pub(crate) fn any_event() -> impl Strategy<Value = Event> {
    let of_task = (0..=MOST, 0..4u32, 0..20u8).prop_map(|(node, attempt, kind)| {
        let (task, error, output) = (name(node), StepError::failed("x"), Output::empty());
        let (by, when) = ("x".to_owned(), Timestamp::UNIX_EPOCH);
        match kind {
            17 => Event::TaskAsked { task, attempt, message: "x".into() },
            18 => Event::TaskApproved { task, attempt, by, when },
            19 => Event::TaskRejected { task, attempt, by, when, reason: None },
            0 => Event::TaskSkipped { task, why: "x".into() },
            1 => Event::TaskSatisfied { task, output },
            2 => Event::TaskIntended { task, attempt, change: Change::default() },
            3 => Event::TaskDone { task, attempt, output, by: None },
            4 => Event::TaskFailed { task, attempt, error, retry_in_ms: None },
            5 => Event::TaskFailed { task, attempt, error, retry_in_ms: Some(1) },
            6 => Event::TaskUnknown { task, attempt, error },
            7 => Event::TaskNotDone { task, attempt, by: Settler::Step },
            8 => Event::TaskDone { task, attempt, output, by: Some(Settler::Operator("x".into())) },
            9 | 10 => Event::UndoIntended { task, attempt },
            11 => Event::UndoFailed { task, attempt, error, retry_in_ms: None },
            12 => Event::UndoFailed { task, attempt, error, retry_in_ms: Some(1) },
            13 => Event::UndoUnknown { task, attempt, error },
            14 => Event::UndoNotDone { task, attempt, by: Settler::Step },
            15 => Event::TaskKept { task, why: "x".into() },
            _ => Event::TaskUndone { task, attempt, by: None },
        }
    });
    let of_run = (0..4u64, outcome(), 0..6u8).prop_map(|(epoch, outcome, kind)| {
        let (owner, host) = ("x".to_owned(), "h".to_owned());
        match kind {
            0 => Event::RunStarted { owner, epoch },
            1 => Event::RunResumed { owner, epoch },
            2 => Event::HostMet { host, identity: identity(epoch % 2) },
            3 => Event::RunInterrupted { at_once: epoch == 0 },
            4 => Event::UndoStarted { owner, epoch },
            _ => Event::ended(outcome),
        }
    });
    prop_oneof![10 => of_task, 1 => of_run]
}

fn identity(n: u64) -> Identity {
    Identity { machine_id: format!("m{n}"), key_fingerprint: String::new() }
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop::sample::select(vec![
        Outcome::Succeeded,
        Outcome::Failed,
        Outcome::Interrupted,
        Outcome::Undecided,
        Outcome::Refused,
        Outcome::Undone,
    ])
}

/// An event that the engine might write next; none where the run has ended for good.
pub(crate) fn legal(state: &RunState, choice: usize) -> Option<Event> {
    match state.status() {
        RunStatus::New => return Some(Event::RunStarted { owner: "x".into(), epoch: 1 }),
        RunStatus::Ended(Outcome::Succeeded | Outcome::Undone) => return None,
        RunStatus::Ended(_) if state.turned_back() => return None,
        RunStatus::Ended(_) => return Some(resumed(state)),
        RunStatus::Open if state.undoing() => return None,
        RunStatus::Open => {}
    }
    // Now and then something that is about no task: a crash and its resume, a host, Ctrl-C.
    match choice % 40 {
        0 => return Some(resumed(state)),
        1 => return Some(Event::HostMet { host: format!("h{}", choice % 3), identity: identity(0) }),
        2 => return Some(Event::RunInterrupted { at_once: false }),
        _ => {}
    }
    let open: Vec<NodeId> = tasks(state.shape()).filter(|node| can_go_on(state, *node)).collect();
    let Some(&node) = open.get(choice % open.len().max(1)) else {
        let outcome = if state.all_passed() { Outcome::Succeeded } else { Outcome::Failed };
        return Some(Event::ended(outcome));
    };
    Some(legal_of_task(state, node, choice / 8))
}

/// The next event where all goes well from now on; none where the run has ended for good.
pub(crate) fn good(state: &RunState) -> Option<Event> {
    match state.status() {
        RunStatus::New => return Some(Event::RunStarted { owner: "x".into(), epoch: 1 }),
        RunStatus::Ended(Outcome::Succeeded | Outcome::Undone) => return None,
        RunStatus::Ended(_) => return Some(resumed(state)),
        RunStatus::Open => {}
    }
    let open = tasks(state.shape()).find(|node| can_go_on(state, *node));
    Some(match open {
        Some(node) => legal_of_task(state, node, 5),
        None if state.all_passed() => Event::ended(Outcome::Succeeded),
        None => resumed(state),
    })
}

fn can_go_on(state: &RunState, node: NodeId) -> bool {
    matches!(state.task(node), TaskState::Ready | TaskState::Intended | TaskState::Unknown | TaskState::Asked)
}

fn resumed(state: &RunState) -> Event {
    Event::RunResumed { owner: "x".into(), epoch: state.epoch() + 1 }
}

fn legal_of_task(state: &RunState, node: NodeId, kind: usize) -> Event {
    let (task, attempt) = (name(node), state.attempt(node));
    let (error, output) = (StepError::failed("x"), Output::empty());
    if state.task(node) == TaskState::Asked {
        let (by, when) = ("x".to_owned(), Timestamp::UNIX_EPOCH);
        return match kind % 6 {
            0 => Event::TaskRejected { task, attempt, by, when, reason: Some("x".into()) },
            1 => Event::TaskFailed { task, attempt, error, retry_in_ms: None },
            _ => Event::TaskApproved { task, attempt, by, when },
        };
    }
    if let Some(choice) = state.shape().choice(node)
        && state.task(node) == TaskState::Ready
    {
        let mut hosts: Vec<String> = choice.parts.iter().map(|part| part.host.clone()).collect();
        let count = hosts.len();
        hosts.rotate_left(kind % count.max(1));
        hosts.truncate(kind / 4 % (count + 1));
        return match kind % 4 {
            0 => Event::TaskFailed { task, attempt: attempt + 1, error, retry_in_ms: None },
            _ => Event::HostsChosen { task, hosts },
        };
    }
    if state.task(node) == TaskState::Ready {
        return match kind % 7 {
            6 => Event::TaskAsked { task, attempt: attempt + 1, message: "x".into() },
            0 => Event::TaskSkipped { task, why: "x".into() },
            1 => Event::TaskSatisfied { task, output },
            2 => Event::TaskFailed { task, attempt: attempt + 1, error, retry_in_ms: None },
            3 => Event::TaskFailed { task, attempt: attempt + 1, error, retry_in_ms: Some(1) },
            _ => Event::TaskIntended { task, attempt: attempt + 1, change: Change::default() },
        };
    }
    match kind % 6 {
        0 => Event::TaskFailed { task, attempt, error, retry_in_ms: Some(1) },
        1 => Event::TaskFailed { task, attempt, error, retry_in_ms: None },
        2 => Event::TaskUnknown { task, attempt, error },
        3 => Event::TaskNotDone { task, attempt, by: Settler::Step },
        _ => Event::TaskDone { task, attempt, output, by: None },
    }
}

/// Events with texts and values of every kind in every place that has one.
pub(crate) fn awkward_record() -> impl Strategy<Value = Record> {
    // From -9999 to 9999, to the nanosecond: what a clock may say, and more.
    let at = (-300_000_000_000i64..250_000_000_000, 0..1_000_000_000i32)
        .prop_map(|(seconds, nanos)| Timestamp::new(seconds, nanos).unwrap());
    (1..u64::MAX, at, awkward_event()).prop_map(|(seq, at, event)| Record { seq, at, event })
}

fn awkward_event() -> impl Strategy<Value = Event> {
    let texts = (any::<String>(), any::<String>(), any::<String>());
    let numbers = (any::<u32>(), any::<u64>(), prop::option::of(any::<u64>()));
    (texts, numbers, error(), change(), output(), outcome(), 0..20u8).prop_map(
        |((a, b, c), (attempt, epoch, retry_in_ms), error, change, output, outcome, kind)| {
            let task = flow_core::run::TaskName::from_text(&a);
            match kind {
                0 => Event::RunStarted { owner: a, epoch },
                1 => Event::RunResumed { owner: a, epoch },
                2 => Event::HostMet { host: a, identity: Identity { machine_id: b, key_fingerprint: c } },
                3 => Event::TaskSkipped { task, why: b },
                4 => Event::TaskSatisfied { task, output },
                5 => Event::TaskIntended { task, attempt, change },
                6 => Event::TaskDone { task, attempt, output, by: Some(Settler::Operator(b)) },
                7 => Event::TaskDone { task, attempt, output, by: retry_in_ms.map(|_| Settler::Step) },
                8 => Event::TaskFailed { task, attempt, error, retry_in_ms },
                9 => Event::TaskUnknown { task, attempt, error },
                10 => Event::TaskNotDone { task, attempt, by: Settler::Operator(b) },
                11 => Event::UndoIntended { task, attempt },
                12 => Event::UndoFailed { task, attempt, error, retry_in_ms },
                13 => Event::TaskUndone { task, attempt, by: Some(Settler::Operator(b)) },
                16 => Event::UndoUnknown { task, attempt, error },
                17 => Event::UndoNotDone { task, attempt, by: Settler::Operator(b) },
                18 => Event::TaskKept { task, why: b },
                19 => Event::UndoStarted { owner: a, epoch },
                14 => Event::RunInterrupted { at_once: attempt % 2 == 0 },
                15 => Event::RunEnded { outcome, error: Some(error) },
                _ => Event::ended(outcome),
            }
        },
    )
}

fn error() -> impl Strategy<Value = StepError> {
    let text = || prop::option::of(any::<String>());
    (any::<String>(), text(), text(), any::<bool>(), any::<bool>()).prop_map(
        |(message, detail, hint, lost, permanent)| {
            let outcome = if lost { Certainty::Lost } else { Certainty::Failed };
            StepError { message, detail, hint, outcome, permanent, code: None }
        },
    )
}

fn change() -> impl Strategy<Value = Change> {
    (any::<String>(), prop::option::of(any::<String>()), value()).prop_map(|(summary, diff, data)| Change {
        summary,
        diff,
        data,
    })
}

fn output() -> impl Strategy<Value = Output> {
    prop::collection::vec((any::<String>(), value()), 0..4).prop_map(|fields| Output(Map::from_iter(fields)))
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|fields| Value::Object(Map::from_iter(fields))),
        ]
    })
}
