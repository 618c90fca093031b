//! Step types and their arguments.

use super::Checker;
use super::schema::{Problem, Schema};
use crate::step::StepInfo;
use crate::workflow::documents::INCLUDE;
use crate::workflow::parse::{list, literal};
use crate::workflow::{Code, Span, StepDef, nearest};

impl<'c> Checker<'c> {
    /// Checks `uses` and `with` of all steps.
    pub(super) fn steps(&mut self) {
        let workflow = self.workflow;
        for step in workflow.steps.values() {
            if step.uses.value.is_empty() {
                continue; // Told when it was read.
            }
            if step.uses.value == INCLUDE {
                self.include(step);
            } else if let Some(info) = self.registry.get(&step.uses.value) {
                self.arguments(step, info);
            } else {
                self.unknown_type(&step.uses.value, &step.uses.span, &[INCLUDE]);
            }
        }
        for (name, limit) in &workflow.limits {
            if self.registry.get(name).is_none() {
                self.unknown_type(name, &limit.span, &[]);
            }
        }
    }

    /// Tells a step type that isn't there; `others` may be meant too.
    fn unknown_type(&mut self, name: &str, span: &Span, others: &[&str]) {
        if let Some(why) = self.registry.why_not(name) {
            let broken = self
                .at(Code::PLUGIN, span, format!("the step type `{name}` can't be had: {why}"))
                .help("mend the plugin, or take it away from the plugin path");
            self.push(broken);
            return;
        }
        let names = self.registry.names().chain(others.iter().copied());
        let help = match nearest(name, names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`flow steps` lists the step types".to_owned(),
        };
        let unknown =
            self.at(Code::UNKNOWN_STEP_TYPE, span, format!("there is no step type `{name}`")).help(help);
        self.push(unknown);
    }

    fn arguments(&mut self, step: &StepDef, info: &StepInfo) {
        if step.with.value.is_empty() && self.told(&step.with.span) {
            return;
        }
        let schema = Schema::new(info.schema.as_value());
        let problems = schema.check_arguments(&step.with.value);
        if problems.is_empty() {
            self.make(step, info);
            return;
        }
        for problem in problems {
            let diagnostic = match problem {
                Problem::Unknown { name, span, parent, known } => {
                    let owner = parent.unwrap_or_else(|| info.name.clone());
                    let unknown =
                        self.at(Code::UNKNOWN_ARGUMENT, &span, format!("`{owner}` has no argument `{name}`"));
                    unknown.help(match nearest(&name, known.iter().map(String::as_str)) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None if known.is_empty() => "it takes none".to_owned(),
                        None => format!("it has {}", list(&known)),
                    })
                }
                Problem::Missing { name, span, parent, description } => {
                    let owner = parent.unwrap_or_else(|| info.name.clone());
                    let place = span.unwrap_or_else(|| step.uses.span.clone());
                    let missing = self.at(
                        Code::MISSING_ARGUMENT,
                        &place,
                        format!("`{owner}` needs the argument `{name}`"),
                    );
                    match description {
                        Some(text) => missing.help(format!("{name}: {text}")),
                        None => missing.help(format!("add: with.{name} = ...")),
                    }
                }
                Problem::Wrong { span, message, label, help } => {
                    let mut wrong = self.at(Code::TYPE, &span, message).label(label);
                    wrong.help = help;
                    wrong
                }
            };
            self.push(diagnostic);
        }
    }

    /// Lets the step type itself speak, where all arguments are known.
    fn make(&mut self, step: &StepDef, info: &StepInfo) {
        if step.with.value.values().any(crate::workflow::Argument::is_dynamic) {
            return;
        }
        let arguments = step.with.value.iter().map(|(name, value)| (name.clone(), literal(value))).collect();
        if let Err(error) = info.make(serde_json::Value::Object(arguments)) {
            let span = if step.with.value.is_empty() { &step.uses.span } else { &step.with.span };
            let refused = self
                .at(Code::TYPE, span, format!("`{}` refuses its arguments: {error}", info.name))
                .help(format!("`flow steps {}` describes them", info.name));
            self.push(refused);
        }
    }
}
