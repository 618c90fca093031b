use std::collections::BTreeMap;
use std::io;

use async_trait::async_trait;
use proptest::prelude::*;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::step::{Change, Check, Context, Output, Registry, Step, StepError, StepType};
use crate::workflow::{Bundle, Diagnostics, Documents, Files};

/// How a thing is chosen.
#[derive(Deserialize, JsonSchema)]
#[serde(tag = "by", rename_all = "lowercase")]
#[expect(dead_code, reason = "only its schema counts")]
enum Choice {
    /// By its name.
    Name {
        /// The name.
        name: String,
    },
    /// By its place.
    Place {
        /// Counted from 0.
        place: u8,
    },
}

/// A step with one argument of each sort.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema counts")]
struct Sorts {
    /// Text.
    text: String,
    /// A small number.
    small: Option<u8>,
    /// A share.
    share: Option<f64>,
    /// Names.
    names: Option<Vec<String>>,
    /// Anything by name.
    labels: Option<BTreeMap<String, i64>>,
    /// Which one.
    which: Option<Choice>,
    /// A template.
    template: Option<String>,
}

#[async_trait]
impl Step for Sorts {
    async fn check(&self, _: &Context) -> Result<Check, StepError> {
        Ok(Check::Satisfied(Output::empty()))
    }

    async fn apply(&self, _: &Context, _: &Change) -> Result<Output, StepError> {
        Ok(Output::empty())
    }
}

impl StepType for Sorts {
    const NAME: &'static str = "sorts";
    const FILES: &'static [&'static str] = &["template"];
}

fn registry() -> Registry {
    let mut registry = Registry::new();
    registry.add::<Sorts>();
    registry
}

struct Memory(BTreeMap<String, String>);

impl Files for Memory {
    fn read(&self, path: &str) -> io::Result<String> {
        self.0.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn display(&self, path: &str) -> String {
        format!("memory:{path}")
    }
}

fn memory(files: &[(&str, &str)]) -> Memory {
    let head = |name: &str, text: &str| format!("name = \"{name}\"\nsummary = \"s\"\n{text}");
    Memory(
        files
            .iter()
            .map(|(path, text)| {
                let name = path.trim_end_matches(".toml").replace('/', "-");
                let text = if path.ends_with(".toml") { head(&name, text) } else { (*text).to_owned() };
                ((*path).to_owned(), text)
            })
            .collect(),
    )
}

fn read(files: &[(&str, &str)]) -> Result<(Bundle, Documents), Diagnostics> {
    Documents::read(&memory(files), "root.toml", &registry())
}

fn messages(files: &[(&str, &str)]) -> Vec<String> {
    read(files).unwrap_err().0.into_iter().map(|one| one.message).collect()
}

#[test]
fn a_bundle_holds_what_is_included_at_any_depth_and_the_files_of_steps() {
    let (bundle, documents) = read(&[
        ("root.toml", "[steps.a]\nuses = \"workflow\"\nwith.file = \"parts/one.toml\"\n"),
        ("parts/one.toml", "[steps.b]\nuses = \"workflow\"\nwith.file = \"two.toml\"\n"),
        ("two.toml", "[steps.c]\nuses = \"sorts\"\nwith = { text = \"t\", template = \"t.j2\" }\n"),
        ("t.j2", "{{ params.x }}"),
        ("unused.toml", ""),
    ])
    .unwrap();
    assert_eq!(bundle.files.keys().collect::<Vec<_>>(), ["parts/one.toml", "root.toml", "t.j2", "two.toml"]);
    assert_eq!(bundle.files["t.j2"].display, "memory:t.j2");
    assert_eq!(documents.files.len(), 3);
    let step = &documents.root.steps["a"];
    assert_eq!(documents.included(step).unwrap().name.value, "parts-one");
    assert_eq!(
        Bundle::load(
            &memory(&[("root.toml", "[steps.c]\nuses = \"sorts\"\nwith.text = \"t\"\n")]),
            "root.toml",
            &registry()
        )
        .unwrap()
        .files
        .len(),
        1
    );
}

#[test]
fn a_missing_file_hides_no_other_error() {
    let found = messages(&[(
        "root.toml",
        "[steps.a]\nuses = \"workflow\"\nwith.file = \"gone.toml\"\n[steps.b]\nuses = \"nothing\"\n",
    )]);
    assert_eq!(
        found,
        ["`memory:gone.toml` can't be read: there is no such file", "there is no step type `nothing`"]
    );
}

#[test]
fn arguments_that_fit_the_schema_are_taken() {
    for with in [
        "{ text = \"t\" }",
        "{ text = \"{{ params.x }}\", small = 255, share = 1, names = [\"a\", \"{{ params.x }}\"] }",
        "{ text = \"t\", small = \"{{ params.x }}\", labels = { a = 1, \"b c\" = \"{{ params.x }}\" } }",
        "{ text = \"t\", which = { by = \"name\", name = \"n\" } }",
        "{ text = \"t\", which = { by = \"place\", place = 3 } }",
        "{ text = \"t\", which = \"{{ params.x }}\" }",
    ] {
        let text = format!("[params.x]\ntype = \"string\"\n[steps.a]\nuses = \"sorts\"\nwith = {with}\n");
        read(&[("root.toml", &text)]).unwrap_or_else(|errors| panic!("{with}: {errors}"));
    }
}

#[test]
fn arguments_that_do_not_fit_are_told_by_the_branch_they_come_nearest_to() {
    for (with, message) in [
        ("{ text = \"t\", small = 256 }", "`small` must be from 0 to 255"),
        ("{ text = \"t\", names = [\"a\", 1] }", "`names` must be a string"),
        ("{ text = \"t\", labels = { a = \"x\" } }", "`a` must be an integer"),
        ("{ text = \"t\", which = { by = \"place\", place = \"x\" } }", "`place` must be an integer"),
        ("{ text = \"t\", which = 3 }", "`which` must be a table"),
        ("{ text = \"t\", share = \"much\" }", "`share` must be a number"),
        ("{ text = [] }", "`text` must be a string"),
    ] {
        let text = format!("[steps.a]\nuses = \"sorts\"\nwith = {with}\n");
        assert_eq!(messages(&[("root.toml", &text)]), [message], "{with}");
    }
}

/// One step after another, the last with this text.
fn with_text(text: &str) -> String {
    format!(
        "[params.p]\ntype = \"string\"\n[steps.first-one]\nuses = \"sorts\"\nwith.text = \"t\"\n\
         [steps.last]\nuses = \"sorts\"\nneeds = [\"first-one\"]\nwith.text = '''{text}'''\n"
    )
}

#[test]
fn names_that_are_there_are_taken() {
    for text in [
        "{{ params.p }} {{ params['p'] }}",
        "{{ steps.first_one.out }} {{ steps['first-one'].out }} {{ steps.first_one.hosts | length - 1 }}",
        "{{ host.name }}{{ host.address }}{{ vars.any.thing }}{{ hostvars['a'].b }}{{ run.id }}{{ run.started }}",
        "{% for x in groups.promoters %}{{ loop.index }}{{ x }}{{ hostvars[x].y }}{% endfor %}",
        "{% set steps = 1 %}{{ steps }}",
        "{{ group_var('promoters', 'version') | default('15') }}",
        "{{ range(3) | list }} {{ 'no.such' }} {# steps.no #}",
        "no template: steps.no params.no $(date) ${HOME}",
        "{{ params.p is defined and params.p is not none }}",
        "{{ groups.a | map('upper') | select('in', groups.b) | join(',') }}",
    ] {
        read(&[("root.toml", &with_text(text))]).unwrap_or_else(|errors| panic!("{text}: {errors}"));
    }
}

#[test]
fn an_error_in_an_expression_points_into_the_string() {
    let root = with_text("line one\n  {{ params.no }}");
    let errors = read(&[("root.toml", &root)]).unwrap_err();
    let [error] = errors.0.as_slice() else { panic!("{errors}") };
    let source = error.source.as_ref().unwrap();
    assert_eq!(&source.text[error.labels[0].0.clone()], "params.no");

    // Where escapes make the TOML another text than its value, the whole string is shown.
    let root = root.replace("'''", "\"").replace("line one\n  ", "line\\none ");
    let errors = read(&[("root.toml", &root)]).unwrap_err();
    let span = errors.0[0].labels[0].0.clone();
    assert_eq!(&errors.0[0].source.as_ref().unwrap().text[span], "\"line\\none {{ params.no }}\"");
}

#[test]
fn long_chains_and_wide_circles_are_checked_soon() {
    let step = |n: usize, needs: String| {
        format!("[steps.s{n}]\nuses = \"sorts\"\nneeds = [{needs}]\nwith.text = \"t\"\n")
    };
    let chain: String =
        (0..2000).map(|n| step(n, if n == 0 { String::new() } else { format!("\"s{}\"", n - 1) })).collect();
    read(&[("root.toml", &chain)]).unwrap();
    let circle: String = (0..300).map(|n| step(n, format!("\"s{}\"", (n + 1) % 300))).collect();
    let errors = read(&[("root.toml", &circle)]).unwrap_err();
    assert_eq!(errors.0.len(), 1);
    assert_eq!(errors.0[0].labels.len(), 300);
}

proptest! {
    #[test]
    fn any_text_in_an_argument_is_taken_or_told_within_the_document(text in "[a-z.{}%#|()\\[\\]' =$ä-]{0,60}") {
        prop_assume!(!text.contains("'''") && !text.ends_with('\''));
        if let Err(errors) = read(&[("root.toml", &with_text(&text))]) {
            for error in errors.0 {
                let source = error.source.unwrap();
                for (span, _) in error.labels {
                    prop_assert!(source.text.get(span).is_some());
                }
            }
        }
    }
}
