//! The examples in `docs/workflow-language.md` are right, with the step types that flow has.

use flow_core::step::Registry;
use flow_core::workflow::{Bundle, BundledFile, Documents};

const DOCUMENT: &str = include_str!("../../../docs/workflow-language.md");

/// The TOML examples, in their order.
fn examples() -> Vec<&'static str> {
    let blocks = DOCUMENT.split("```toml\n").skip(1);
    blocks.map(|block| block.split("```").next().unwrap_or_default()).collect()
}

#[test]
fn the_examples_are_workflows() {
    let mut registry = Registry::new();
    flow_steps::register(&mut registry);
    let examples = examples();
    let (whole, parts) = examples.split_first().expect("there are examples");
    let load = |bundle: &Bundle| Documents::load(bundle, &registry).map(drop);
    load(&Bundle::single("example.toml", whole)).unwrap_or_else(|errors| panic!("{errors}"));

    // The others are parts of it: keys of the top table, then tables. Two include another file.
    let tables = |part: &str| part.find("\n[").map_or(part.len(), |at| at + 1);
    let start = |part: &str| if part.starts_with('[') { 0 } else { tables(part) };
    let tops: String = parts.iter().map(|part| &part[..start(part)]).collect();
    let rest: String = parts.iter().map(|part| &part[start(part)..]).collect();
    let before_outputs = whole.split("[outputs]").next().unwrap_or_default();
    let mut bundle = Bundle::single("example.toml", &format!("{tops}{before_outputs}{rest}"));
    let one = "name = \"restart-one\"\nsummary = \"s\"\n[params.scope]\ntype = \"string\"\n\
               [steps.restart]\nuses = \"command\"\nwith = { script = \"true\" }\n";
    let one = BundledFile { display: "restart-one.toml".to_owned(), text: one.to_owned() };
    bundle.files.insert("restart-one.toml".to_owned(), one);
    let deploy = "name = \"deploy\"\nsummary = \"s\"\n[params.stats_port]\ntype = \"integer\"\n\
                  [steps.haproxy]\nuses = \"command\"\ntags = [\"haproxy\"]\nwith = { script = \"true\" }\n";
    let deploy = BundledFile { display: "deploy.toml".to_owned(), text: deploy.to_owned() };
    bundle.files.insert("deploy.toml".to_owned(), deploy);
    load(&bundle).unwrap_or_else(|errors| panic!("{errors}"));
}
