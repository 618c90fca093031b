//! A layered layout: what is needed stands above what needs it. Layers by the longest way, their order
//! by barycentres, long edges led through the layers between. The same input gives the same layout.

use std::collections::BTreeSet;

/// A box with its size; `x` and `y` are its middle and its top once it is laid out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Box {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

/// Where everything is.
#[derive(Debug)]
pub struct Layout {
    pub boxes: Vec<Box>,
    /// For each edge the points from the foot of one box to the top of the other.
    pub edges: Vec<Vec<(f64, f64)>>,
    pub width: f64,
    pub height: f64,
}

/// Between boxes of a layer.
const GAP: f64 = 24.0;
/// Between layers.
const RISE: f64 = 34.0;
/// How often the order of the layers, and then the places in them, are looked over.
const SWEEPS: usize = 8;

struct Graph {
    /// Boxes first, then the points where long edges cross a layer.
    nodes: Vec<Box>,
    layer_of: Vec<usize>,
    layers: Vec<Vec<usize>>,
    above: Vec<Vec<usize>>,
    below: Vec<Vec<usize>>,
    /// The nodes that each edge goes through.
    chains: Vec<Vec<usize>>,
}

/// Lays out boxes of these sizes. Edges go from smaller to greater numbers.
pub fn layout(sizes: &[(f64, f64)], edges: &BTreeSet<(usize, usize)>) -> Layout {
    let mut graph = Graph::new(sizes, edges);
    for sweep in 0..SWEEPS {
        graph.order(sweep % 2 == 0);
    }
    graph.place_across();
    let height = graph.place_down();
    let left = graph.nodes.iter().map(|node| node.x - node.width / 2.0).fold(f64::INFINITY, f64::min);
    let left = if left.is_finite() { left } else { 0.0 };
    graph.nodes.iter_mut().for_each(|node| node.x -= left);
    let right = graph.nodes.iter().map(|node| node.x + node.width / 2.0).fold(0.0, f64::max);
    let edges = graph.chains.iter().map(|chain| graph.points(chain)).collect();
    Layout { boxes: graph.nodes[..sizes.len()].to_vec(), edges, width: right, height }
}

impl Graph {
    fn new(sizes: &[(f64, f64)], edges: &BTreeSet<(usize, usize)>) -> Self {
        let mut layer_of = vec![0; sizes.len()];
        for &(from, to) in edges {
            layer_of[to] = layer_of[to].max(layer_of[from] + 1);
        }
        let nodes = sizes.iter().map(|&(width, height)| Box { x: 0.0, y: 0.0, width, height }).collect();
        let mut graph = Self {
            nodes,
            layer_of,
            layers: Vec::new(),
            above: Vec::new(),
            below: Vec::new(),
            chains: Vec::new(),
        };
        for &(from, to) in edges {
            let between = graph.layer_of[from] + 1..graph.layer_of[to];
            let mut chain = vec![from];
            for layer in between {
                graph.nodes.push(Box { x: 0.0, y: 0.0, width: 2.0, height: 0.0 });
                graph.layer_of.push(layer);
                chain.push(graph.nodes.len() - 1);
            }
            chain.push(to);
            graph.chains.push(chain);
        }
        let count = graph.nodes.len();
        (graph.above, graph.below) = (vec![Vec::new(); count], vec![Vec::new(); count]);
        for pair in graph.chains.iter().flat_map(|chain| chain.windows(2)) {
            graph.below[pair[0]].push(pair[1]);
            graph.above[pair[1]].push(pair[0]);
        }
        let depth = graph.layer_of.iter().max().map_or(0, |deepest| deepest + 1);
        graph.layers = vec![Vec::new(); depth];
        for node in 0..count {
            graph.layers[graph.layer_of[node]].push(node);
        }
        graph
    }

    /// Puts the nodes of each layer in the order of the middle of their neighbours'.
    fn order(&mut self, down: bool) {
        let mut place = vec![0.0; self.nodes.len()];
        for layer in &self.layers {
            layer.iter().enumerate().for_each(|(n, node)| place[*node] = n as f64);
        }
        let depth = self.layers.len();
        let order: Vec<usize> = if down { (0..depth).collect() } else { (0..depth).rev().collect() };
        for index in order {
            let neighbours = if down { &self.above } else { &self.below };
            let mut keyed: Vec<(f64, usize)> = self.layers[index]
                .iter()
                .map(|node| {
                    (mean(neighbours[*node].iter().map(|n| place[*n])).unwrap_or(place[*node]), *node)
                })
                .collect();
            keyed.sort_by(|a, b| a.0.total_cmp(&b.0));
            self.layers[index] = keyed.into_iter().map(|(_, node)| node).collect();
            self.layers[index].iter().enumerate().for_each(|(n, node)| place[*node] = n as f64);
        }
    }

    /// Moves nodes towards the middle of their neighbours, as far as the others leave room.
    fn place_across(&mut self) {
        for layer in &self.layers {
            let mut x = 0.0;
            for node in layer {
                x += self.nodes[*node].width / 2.0;
                self.nodes[*node].x = x;
                x += self.nodes[*node].width / 2.0 + GAP;
            }
            let middle = (x - GAP) / 2.0;
            layer.iter().for_each(|node| self.nodes[*node].x -= middle);
        }
        for sweep in 0..2 * SWEEPS {
            let depth = self.layers.len();
            for step in 0..depth {
                let index = if sweep % 2 == 0 { step } else { depth - 1 - step };
                let neighbours = if sweep % 2 == 0 { &self.above } else { &self.below };
                let wanted: Vec<f64> = self.layers[index]
                    .iter()
                    .map(|n| {
                        mean(neighbours[*n].iter().map(|m| self.nodes[*m].x)).unwrap_or(self.nodes[*n].x)
                    })
                    .collect();
                self.fit(index, &wanted);
            }
        }
    }

    /// Gives the nodes of a layer the places that they want, pushed apart where they would overlap; what
    /// was pushed to the right is moved back to the middle of what was wanted.
    fn fit(&mut self, index: usize, wanted: &[f64]) {
        let mut edge = f64::NEG_INFINITY;
        let mut pushed = 0.0;
        let layer = &self.layers[index];
        for (node, wanted) in layer.iter().zip(wanted) {
            let half = self.nodes[*node].width / 2.0;
            let x = wanted.max(edge + half);
            pushed += x - wanted;
            self.nodes[*node].x = x;
            edge = x + half + GAP;
        }
        let back = pushed / layer.len().max(1) as f64;
        layer.iter().for_each(|node| self.nodes[*node].x -= back);
    }

    fn place_down(&mut self) -> f64 {
        let mut y = 0.0;
        for layer in &self.layers {
            let tallest = layer.iter().map(|node| self.nodes[*node].height).fold(0.0, f64::max);
            for node in layer {
                self.nodes[*node].y = y;
                // A long edge goes straight down through its layer.
                if self.nodes[*node].height == 0.0 {
                    self.nodes[*node].height = tallest;
                }
            }
            y += tallest + RISE;
        }
        (y - RISE).max(0.0)
    }

    fn points(&self, chain: &[usize]) -> Vec<(f64, f64)> {
        let mut points = Vec::new();
        for (n, node) in chain.iter().map(|node| self.nodes[*node]).enumerate() {
            if n > 0 {
                points.push((node.x, node.y));
            }
            if n + 1 < chain.len() {
                points.push((node.x, node.y + node.height));
            }
        }
        points
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_apart(layout: &Layout) {
        for (n, a) in layout.boxes.iter().enumerate() {
            for b in &layout.boxes[n + 1..] {
                let across = (a.x - b.x).abs() >= (a.width + b.width) / 2.0;
                let down = a.y + a.height <= b.y || b.y + b.height <= a.y;
                assert!(across || down, "{a:?} and {b:?} overlap");
            }
            assert!(a.x - a.width / 2.0 >= -0.01 && a.x + a.width / 2.0 <= layout.width + 0.01);
            assert!(a.y >= 0.0 && a.y + a.height <= layout.height + 0.01);
        }
    }

    #[test]
    fn what_is_needed_stands_above_and_nothing_overlaps() {
        let edges = BTreeSet::from([(0, 1), (0, 2), (1, 3), (2, 3), (0, 4), (4, 5), (3, 5), (0, 5)]);
        let sizes: Vec<(f64, f64)> = (0..6).map(|n| (80.0 + 40.0 * f64::from(n), 40.0)).collect();
        let layout = layout(&sizes, &edges);
        assert_apart(&layout);
        for (from, to) in edges {
            assert!(layout.boxes[from].y + layout.boxes[from].height < layout.boxes[to].y);
        }
    }

    #[test]
    fn a_wide_plan_and_an_empty_one_are_laid_out_too() {
        let edges: BTreeSet<(usize, usize)> =
            (1..60).map(|n| (0, n)).chain((1..60).map(|n| (n, 60))).collect();
        assert_apart(&layout(&vec![(120.0, 50.0); 61], &edges));
        assert_eq!(layout(&[], &BTreeSet::new()).height, 0.0);
    }
}
