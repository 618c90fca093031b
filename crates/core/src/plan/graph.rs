//! The DAG as text for people's tools: mermaid and dot.

use std::fmt::Write;

use petgraph::visit::EdgeRef;

use super::{Mode, Node, Plan};

/// The DAG as a mermaid flowchart. Destructive tasks are drawn as hexagons, choices of hosts as
/// diamonds.
pub fn to_mermaid(plan: &Plan) -> String {
    let mut text = String::from("flowchart TD\n");
    for index in plan.graph.node_indices() {
        let n = index.index();
        let _ = match &plan.graph[index] {
            Node::Task(task) if task.mode == Mode::Choose => writeln!(text, "    n{n}{{\"{}\"}}", task.name),
            Node::Task(task) if is_destructive(plan, index) => {
                writeln!(text, "    n{n}{{{{\"{}\"}}}}", task.name)
            }
            Node::Task(task) => writeln!(text, "    n{n}[\"{}\"]", task.name),
            Node::Join | Node::Gate(_) => writeln!(text, "    n{n}(( ))"),
        };
    }
    for edge in plan.graph.edge_references() {
        let _ = writeln!(text, "    n{} --> n{}", edge.source().index(), edge.target().index());
    }
    text
}

/// The DAG in Graphviz's language. Destructive tasks are drawn as octagons, choices of
/// hosts as diamonds.
pub fn to_dot(plan: &Plan) -> String {
    let mut text =
        format!("digraph \"{}\" {{\n    rankdir = TB;\n    node [shape = box];\n", plan.workflow.name.value);
    for index in plan.graph.node_indices() {
        let n = index.index();
        let _ = match &plan.graph[index] {
            Node::Task(task) if task.mode == Mode::Choose => {
                writeln!(text, "    n{n} [label = \"{}\", shape = diamond];", task.name)
            }
            Node::Task(task) if is_destructive(plan, index) => {
                writeln!(text, "    n{n} [label = \"{}\", shape = octagon];", task.name)
            }
            Node::Task(task) => writeln!(text, "    n{n} [label = \"{}\"];", task.name),
            Node::Join | Node::Gate(_) => writeln!(text, "    n{n} [label = \"\", shape = point];"),
        };
    }
    for edge in plan.graph.edge_references() {
        let _ = writeln!(text, "    n{} -> n{};", edge.source().index(), edge.target().index());
    }
    text.push_str("}\n");
    text
}

fn is_destructive(plan: &Plan, index: petgraph::graph::NodeIndex) -> bool {
    let Some(task) = plan.graph[index].task() else { return false };
    plan.registry.get(&plan.steps[task.step].def.uses.value).is_some_and(|info| info.destructive)
}
