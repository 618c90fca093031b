//! What is said before a run: what the workflow is for, and what it would destroy.

use std::collections::BTreeMap;

use flow_core::plan::Plan;
use flow_core::step::Undoability;

use super::tell;

/// What the workflow is for.
pub fn described(plan: &Plan) {
    tell(&format!(
        "{}: {}",
        console::style(&plan.workflow.name.value).for_stderr().bold(),
        plan.workflow.summary
    ));
    if let Some(text) = plan.description() {
        for line in text.trim().lines() {
            tell(&format!("  {line}"));
        }
    }
}

/// What the workflow is for, and its destructive steps with their hosts.
pub fn destructive(plan: &Plan) {
    described(plan);
    let mut steps: Vec<(&str, &str, Vec<&str>)> = Vec::new();
    let tasks = plan.tasks();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for task in
        tasks.iter().filter(|task| task.destructive && !task.must_hold && !plan.is_ruled_out(task.name))
    {
        let step = task.name.step();
        let at = *seen.entry(step).or_insert_with(|| {
            steps.push((step, task.help.unwrap_or(task.uses), Vec::new()));
            steps.len() - 1
        });
        steps[at].2.extend(task.host);
    }
    tell(&format!("\n{}", console::style("Destructive steps:").for_stderr().yellow().bold()));
    for (step, help, hosts) in steps {
        let on = if hosts.is_empty() { String::new() } else { format!(" on {}", hosts.join(", ")) };
        tell(&format!("  {}{on}", console::style(step).for_stderr().bold()));
        for line in help.trim().lines() {
            tell(&format!("    {line}"));
        }
    }
    tell("");
    not_to_be_taken_back(plan);
}

/// How many tasks can't be taken back, and of which steps they are.
fn not_to_be_taken_back(plan: &Plan) {
    let tasks = plan.tasks();
    let mut steps: Vec<&str> = Vec::new();
    let mut count = 0;
    for task in tasks.iter().filter(|task| !task.must_hold && !plan.is_ruled_out(task.name)) {
        if task.pivot || matches!(task.undo, Undoability::Impossible(_)) {
            count += 1;
            let step = task.name.step();
            if !steps.contains(&step) {
                steps.push(step);
            }
        }
    }
    if count > 0 {
        let of = super::tasks(tasks.len());
        tell(&format!("Can't be taken back: {count} of {of}: {}\n", steps.join(", ")));
    }
}

/// Says that a plugin has changed since the run was started.
pub fn plugins_moved_on(plan: &Plan) {
    for (step_type, now) in plan.moved_plugins() {
        tell(&format!(
            "{} the plugin of `{step_type}`, {}, has changed since the run began; the run goes on with it as it is now",
            console::style("note:").for_stderr().cyan(),
            now.path.display()
        ));
    }
}

/// Says that a file has changed since, and what is done all the same.
pub fn file_moved_on(plan: &Plan, since: &str, all_the_same: &str) {
    for file in plan.definition.bundle.files.values() {
        let Ok(now) = std::fs::read_to_string(&file.display) else { continue };
        if now != file.text {
            tell(&format!(
                "{} {} has changed since {since}; {all_the_same}",
                console::style("note:").for_stderr().cyan(),
                file.display
            ));
        }
    }
}
