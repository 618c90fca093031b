//! Tasks gathered to steps: what is drawn is one box for each step, with its hosts in it. Barriers,
//! and the edges from all hosts to all hosts that they stand for, become one edge between two boxes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use flow_core::plan::Drawing;

/// A step with its tasks.
#[derive(Debug, Default)]
pub struct Step {
    pub name: String,
    pub uses: String,
    pub help: Option<String>,
    pub destructive: bool,
    /// The task's name, and its host where it has one.
    pub tasks: Vec<(String, Option<String>)>,
}

/// The steps in the order of the plan, and what comes before what: no more than is needed.
#[derive(Debug)]
pub struct Steps {
    pub steps: Vec<Step>,
    pub edges: BTreeSet<(usize, usize)>,
}

/// Beyond so many steps, edges that others make needless are drawn too.
const MOST_REDUCED: usize = 1000;

impl Steps {
    pub fn of(drawing: &Drawing) -> Self {
        let mut steps: Vec<Step> = Vec::new();
        let mut by_name: HashMap<String, usize> = HashMap::new();
        let mut of_node = vec![None; drawing.nodes.len()];
        for (n, node) in drawing.nodes.iter().enumerate() {
            let Some(task) = node else { continue };
            let index = *by_name.entry(task.name.step().to_owned()).or_insert_with(|| {
                let (uses, help) = (task.uses.clone(), task.help.clone());
                let name = task.name.step().to_owned();
                steps.push(Step { name, uses, help, destructive: task.destructive, tasks: Vec::new() });
                steps.len() - 1
            });
            of_node[n] = Some(index);
            steps[index].tasks.push((task.name.to_string(), task.name.host().map(str::to_owned)));
        }
        let edges = edges(drawing, &of_node);
        let edges = if steps.len() <= MOST_REDUCED { reduced(steps.len(), &edges) } else { edges };
        Self { steps, edges }
    }
}

/// From step to step, through barriers. Edges within a step, and from a later one back to an earlier
/// one, as where a workflow goes from host to host, are left out.
fn edges(drawing: &Drawing, of_node: &[Option<usize>]) -> BTreeSet<(usize, usize)> {
    // The steps right before each barrier; nodes stand after what they need, so one pass is enough.
    let mut before: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); drawing.nodes.len()];
    let mut edges = BTreeSet::new();
    for &(from, to) in &drawing.edges {
        let sources = match of_node[from] {
            Some(step) => BTreeSet::from([step]),
            None => before[from].clone(),
        };
        match of_node[to] {
            Some(step) => edges.extend(sources.into_iter().filter(|s| *s < step).map(|s| (s, step))),
            None => before[to].extend(sources),
        }
    }
    edges
}

/// Without the edges that longer ways make needless.
fn reduced(count: usize, edges: &BTreeSet<(usize, usize)>) -> BTreeSet<(usize, usize)> {
    let mut after: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for &(from, to) in edges {
        after.entry(from).or_default().insert(to);
    }
    // All that comes after a step, from the last step to the first.
    let mut reach: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); count];
    let mut kept = BTreeSet::new();
    for from in (0..count).rev() {
        let mut seen = BTreeSet::new();
        for &to in after.get(&from).into_iter().flatten() {
            if !seen.contains(&to) {
                kept.insert((from, to));
            }
            seen.insert(to);
            seen.extend(&reach[to]);
        }
        reach[from] = seen;
    }
    kept
}
