//! What came of a rehearsal: a line for each step, then what did not hold and how to see it again.

use flow_steps::rehearsal::{Failure, Report, StepReport};

use super::{counted, indented, line, tasks};
use crate::args::Format;

/// So many lines of differences are shown of each failure; all of them in JSON.
const LINES: usize = 12;

/// Shows it on standard output.
pub fn show(report: &Report, format: Format) {
    if format == Format::Json {
        super::json(report);
        return;
    }
    steps(report);
    for failure in &report.failures {
        line("");
        show_failure(failure);
    }
    for unknown in &report.unknown {
        line("");
        let mark = console::style(if unknown.accepted { "accepted" } else { "unknown" }).yellow();
        line(&format!(
            "{mark} {}: after a crash or a lost answer a person must say what became of it",
            unknown.task
        ));
        line(&format!("    at: {}", unknown.points.join(", ")));
        line(&format!("    {}", unknown.why));
    }
    line("");
    again(report);
    taken_back(report);
    line(&verdict(report));
}

fn steps(report: &Report) {
    let width = report.steps.iter().map(|step| step.step.len()).max().unwrap_or(0).max(4);
    line(&format!("{:width$}  tasks  done twice  undo    cases", "step"));
    for step in &report.steps {
        let again = match step.again {
            "nothing" => "nothing",
            "each_time" => "as said",
            "changes" => "AGAIN",
            _ => "-",
        };
        let undo = match step.undo {
            "exact" => "exact",
            "leaves" => "leaves",
            "differs" => "FAILS",
            "kept" => "stays",
            "impossible" => "no",
            "past_pivot" => "past",
            _ => "-",
        };
        line(&format!("{:width$}  {:>5}  {again:10}  {undo:6}  {}", step.step, step.changed, cases(step)));
    }
    undo_notes(report);
}

/// What undo leaves, and why there is none, each once.
fn undo_notes(report: &Report) {
    let mut told: Vec<(String, Vec<&str>)> = Vec::new();
    for step in &report.steps {
        let text = match (step.undo, &step.undo_why) {
            ("leaves", Some(leaves)) => format!("undo leaves {leaves}"),
            ("impossible", Some(why)) => format!("no undo: {why}"),
            ("past_pivot", _) => "past the point of no return: never taken back".to_owned(),
            _ => continue,
        };
        match told.iter_mut().find(|(known, _)| *known == text) {
            Some((_, steps)) => steps.push(&step.step),
            None => told.push((text, vec![&step.step])),
        }
    }
    if !told.is_empty() {
        line("");
    }
    for (text, steps) in told {
        line(&format!("{}: {text}", steps.join(", ")));
    }
}

/// "24 held", "20 held, 2 unknown: after-intent, after-effect; FAILED: again".
fn cases(step: &StepReport) -> String {
    if step.changed == 0 {
        return "nothing to do".to_owned();
    }
    if step.cases == 0 {
        return "not asked for".to_owned();
    }
    let mut text = if step.held == step.cases {
        format!("{} held", step.cases)
    } else {
        format!("{} of {} held", step.held, step.cases)
    };
    if !step.unknown.is_empty() {
        text += &format!("; unknown: {}", step.unknown.join(", "));
    }
    if !step.failed.is_empty() {
        text += &format!("; FAILED: {}", step.failed.join(", "));
    }
    text
}

fn show_failure(failure: &Failure) {
    let mark = if failure.accepted {
        console::style("accepted").yellow()
    } else {
        console::style("failed").red().bold()
    };
    line(&format!("{mark} {}, {}", failure.task, failure.story));
    line(&format!("    {}", failure.what));
    for each in failure.differences.iter().take(LINES) {
        indented(each, 8);
    }
    if failure.differences.len() > LINES {
        line(&format!("        and {} more; --output json has all", failure.differences.len() - LINES));
    }
    if failure.point == "again" {
        line(
            "    hint: give the step a way to know that nothing is left to do (`creates`, `unless`, `check`), or say",
        );
        line("          `repeatable = true` where doing it twice does no harm");
    }
    line(&format!("    to see it again: --only {}/{}", failure.task, failure.point));
}

fn again(report: &Report) {
    if report.partial {
        return;
    }
    let again = &report.again;
    if !again.succeeded {
        line(&format!("run again as a whole: {}", again.ended));
    } else if again.effects.is_empty() {
        line("run again as a whole: nothing to do");
    } else {
        line(&format!("run again as a whole: it makes {}:", counted(again.effects.len(), "change")));
        for effect in again.effects.iter().take(LINES) {
            line(&format!("    {effect}"));
        }
        if again.effects.len() > LINES {
            line(&format!("    and {} more", again.effects.len() - LINES));
        }
    }
}

fn taken_back(report: &Report) {
    let Some(back) = &report.taken_back else { return };
    let from = match &back.before {
        Some(task) => format!("taken back as a whole, right before {task}, the point of no return"),
        None => "taken back as a whole".to_owned(),
    };
    let mut stays: Vec<&str> = back.kept.iter().map(String::as_str).collect();
    if !back.differences.is_empty() {
        stays.push("what undo leaves");
    }
    let how = match (back.held, back.undone) {
        (true, _) if stays.is_empty() => "the hosts are as before".to_owned(),
        (true, _) => format!("the hosts are as before, but for {}", stays.join(", ")),
        (false, true) => "DID NOT HOLD: the hosts are not as before".to_owned(),
        (false, false) => format!("DID NOT HOLD: {}", back.ended),
    };
    line(&format!("{from}: {how}"));
    if !back.held {
        for each in back.differences.iter().take(LINES) {
            indented(each, 4);
        }
        if back.differences.len() > LINES {
            line(&format!("    and {} more; --output json has all", back.differences.len() - LINES));
        }
    }
}

fn verdict(report: &Report) -> String {
    let of = format!(
        "{} of {} on {}",
        counted(report.cases, "case"),
        tasks(report.changed),
        counted(report.hosts, "simulated host")
    );
    let wrong = report.failures.iter().filter(|failure| !failure.accepted).count();
    let accepted = report.failures.iter().filter(|failure| failure.accepted).count()
        + report.unknown.iter().filter(|unknown| unknown.accepted).count();
    let but = if accepted > 0 { format!("; {accepted} accepted") } else { String::new() };
    match report.verdict {
        "held" => format!("{}: held: {of}{but}", report.workflow),
        "unknown" => {
            let open = report.unknown.iter().filter(|unknown| !unknown.accepted).count();
            format!(
                "{}: held, but the outcome of {} can stay unknown: {of}{but}",
                report.workflow,
                tasks(open)
            )
        }
        _ if wrong == 0 => format!("{}: DID NOT HOLD, taken back as a whole: {of}{but}", report.workflow),
        _ => format!("{}: DID NOT HOLD: {wrong} of {of}{but}", report.workflow),
    }
}
