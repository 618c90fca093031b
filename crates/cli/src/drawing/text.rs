//! The DAG in the languages of other programs: mermaid and Graphviz's dot.

use std::fmt::Write;

use flow_core::plan::Drawing;

use super::{Look, States};

/// The DAG as a mermaid flowchart. Destructive tasks are drawn as hexagons, choices of hosts
/// as diamonds.
pub fn mermaid(drawing: &Drawing, states: Option<&States>) -> String {
    let mut text = String::from("flowchart TD\n");
    let mut used = Vec::new();
    for (n, node) in drawing.nodes.iter().enumerate() {
        let Some(task) = node else {
            let _ = writeln!(text, "    n{n}(( ))");
            continue;
        };
        let look = look(states, task.name.as_str());
        let (sign, class) = match look {
            Some(look) => (format!("{} ", look.sign()), format!(":::{}", look.class())),
            None => Default::default(),
        };
        used.extend(look);
        let label = format!("{sign}{}", mermaid_text(task.name.as_str()));
        let _ = if task.choice {
            writeln!(text, "    n{n}{{\"{label}\"}}{class}")
        } else if task.destructive {
            writeln!(text, "    n{n}{{{{\"{label}\"}}}}{class}")
        } else {
            writeln!(text, "    n{n}[\"{label}\"]{class}")
        };
    }
    for (from, to) in &drawing.edges {
        let _ = writeln!(text, "    n{from} --> n{to}");
    }
    used.sort_unstable();
    used.dedup();
    for look in used {
        let (fill, line) = look.colours();
        let _ = writeln!(text, "    classDef {} fill:{fill},stroke:{line},color:#1b1b1b", look.class());
    }
    text
}

/// The DAG in Graphviz's language. Destructive tasks are drawn as octagons, choices of hosts as
/// diamonds.
pub fn dot(drawing: &Drawing, states: Option<&States>) -> String {
    let title = dot_text(&drawing.title);
    let mut text = format!("digraph \"{title}\" {{\n    rankdir = TB;\n    node [shape = box];\n");
    for (n, node) in drawing.nodes.iter().enumerate() {
        let Some(task) = node else {
            let _ = writeln!(text, "    n{n} [label = \"\", shape = point];");
            continue;
        };
        let shape = match (task.choice, task.destructive) {
            (true, _) => ", shape = diamond",
            (_, true) => ", shape = octagon",
            _ => "",
        };
        let name = dot_text(task.name.as_str());
        let _ = match look(states, task.name.as_str()) {
            None => writeln!(text, "    n{n} [label = \"{name}\"{shape}];"),
            Some(look) => {
                let (fill, line) = look.colours();
                let sign = look.sign();
                let colours = format!("style = filled, fillcolor = \"{fill}\", color = \"{line}\"");
                writeln!(text, "    n{n} [label = \"{sign} {name}\"{shape}, {colours}];")
            }
        };
    }
    for (from, to) in &drawing.edges {
        let _ = writeln!(text, "    n{from} -> n{to};");
    }
    text.push_str("}\n");
    text
}

fn look(states: Option<&States>, task: &str) -> Option<Look> {
    states.map(|states| Look::of(states.get(task).copied().unwrap_or_default()))
}

fn mermaid_text(text: &str) -> String {
    text.replace('#', "#35;").replace('"', "#quot;").replace(['\n', '\r'], " ")
}

fn dot_text(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ")
}
