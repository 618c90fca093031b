//! The DAG as SVG: a box for each step, a chip in it for each host.

use std::collections::BTreeMap;
use std::fmt::Write;

use flow_core::plan::Drawing;

use super::layout::{Box, layout};
use super::steps::{Step, Steps};
use super::{Look, States, escaped};

/// The style sheet of drawings: neutral colours for light and dark.
pub const STYLE: &str = include_str!("style.css");

/// About how wide a character is at a step's name and at a host's; texts are never measured.
const NAME_CHAR: f64 = 7.6;
const HOST_CHAR: f64 = 7.0;
/// Within a box.
const PADDING: f64 = 12.0;
const NAME_HEIGHT: f64 = 18.0;
const CHIP_HEIGHT: f64 = 20.0;
const CHIP_GAP: f64 = 6.0;
/// Chips go on in a new row beyond this.
const ROW: f64 = 520.0;
/// Around the drawing.
const MARGIN: f64 = 16.0;
const LEGEND: f64 = 36.0;
/// Names longer than this are cut; the whole name stands in the title, which browsers show.
const LONGEST: usize = 60;

/// A host within its step's box: left, row, width, text.
struct Chip<'s> {
    x: f64,
    row: usize,
    width: f64,
    task: &'s str,
    text: String,
}

/// The DAG as one SVG document, readable by itself or within HTML.
pub fn svg(drawing: &Drawing, states: Option<&States>) -> String {
    let Steps { steps, edges } = Steps::of(drawing);
    let chips: Vec<Vec<Chip<'_>>> = steps.iter().map(chips).collect();
    let sizes: Vec<(f64, f64)> = steps.iter().zip(&chips).map(|(step, chips)| size(step, chips)).collect();
    let layout = layout(&sizes, &edges);
    let legend = states.map(|states| legend(&steps, states));
    let legend_height = if legend.is_some() { LEGEND } else { 0.0 };
    let wide = legend.as_ref().map_or(0.0, |(_, width)| *width);
    let (width, height) =
        (layout.width.max(wide) + 2.0 * MARGIN, layout.height + legend_height + 2.0 * MARGIN);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"fg\" role=\"img\" viewBox=\"0 0 {width:.0} {height:.0}\" \
         width=\"{width:.0}\" height=\"{height:.0}\">\n<title>{}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"fg-ground\" width=\"{width:.0}\" height=\"{height:.0}\"/>\n\
         <g transform=\"translate({MARGIN} {MARGIN})\">\n",
        escaped(&drawing.title)
    );
    for points in &layout.edges {
        let _ = writeln!(out, "<path class=\"fg-edge\" d=\"{}\"/>", path(points));
        if let Some((x, y)) = points.last() {
            let _ = writeln!(
                out,
                "<path class=\"fg-tip\" d=\"M{:.1} {:.1}L{x:.1} {y:.1}L{:.1} {:.1}Z\"/>",
                x - 4.0,
                y - 7.0,
                x + 4.0,
                y - 7.0
            );
        }
    }
    for ((step, chips), place) in steps.iter().zip(&chips).zip(&layout.boxes) {
        draw(&mut out, step, chips, place, states);
    }
    if let Some((legend, _)) = legend {
        let y = layout.height + LEGEND - 6.0;
        let _ = writeln!(out, "<g transform=\"translate(0 {y:.1})\">{legend}</g>");
    }
    out.push_str("</g>\n</svg>\n");
    out
}

fn chips(step: &Step) -> Vec<Chip<'_>> {
    let (mut x, mut row) = (0.0, 0);
    let mut chips = Vec::new();
    for (task, host) in &step.tasks {
        let Some(host) = host else { continue };
        let text = cut(host);
        let width = text.chars().count() as f64 * HOST_CHAR + 34.0;
        if x > 0.0 && x + width > ROW {
            (x, row) = (0.0, row + 1);
        }
        chips.push(Chip { x, row, width, task, text });
        x += width + CHIP_GAP;
    }
    chips
}

fn size(step: &Step, chips: &[Chip<'_>]) -> (f64, f64) {
    // With room for the sign of a task without a host, or for the mark of a destructive step.
    let name = cut(&step.name).chars().count() as f64 * NAME_CHAR + 22.0;
    let across = chips.iter().map(|chip| chip.x + chip.width).fold(name, f64::max);
    let rows = chips.last().map_or(0, |chip| chip.row + 1) as f64;
    let below = if rows > 0.0 { 6.0 + rows * (CHIP_HEIGHT + CHIP_GAP) - CHIP_GAP } else { 0.0 };
    (across + 2.0 * PADDING, NAME_HEIGHT + below + 2.0 * PADDING - 4.0)
}

fn draw(out: &mut String, step: &Step, chips: &[Chip<'_>], place: &Box, states: Option<&States>) {
    let (left, top) = (place.x - place.width / 2.0, place.y);
    let look = |task: &str| states.map(|states| Look::of(states.get(task).copied().unwrap_or_default()));
    let whole = if chips.is_empty() { step.tasks.first().and_then(|(task, _)| look(task)) } else { None };
    let class = whole.map_or(String::new(), |look| format!(" fg-{}", look.class()));
    let destructive = if step.destructive { " fg-destructive" } else { "" };
    let help = step.help.as_deref().unwrap_or_default();
    let title = format!("{} ({}) {help}", step.name, step.uses);
    let _ = writeln!(
        out,
        "<g class=\"fg-step{destructive}{class}\" transform=\"translate({left:.1} {top:.1})\"><title>{}</title>\
         <rect class=\"fg-box\" width=\"{:.1}\" height=\"{:.1}\" rx=\"7\"/>",
        escaped(title.trim()),
        place.width,
        place.height
    );
    let sign = match (whole, step.destructive) {
        (Some(look), _) => format!("{} ", look.sign()),
        (None, true) => "▲ ".to_owned(),
        (None, false) => String::new(),
    };
    let baseline = PADDING + 11.0;
    let _ = writeln!(
        out,
        "<text class=\"fg-name\" x=\"{PADDING}\" y=\"{baseline:.1}\">{sign}{}</text>",
        escaped(&cut(&step.name))
    );
    for chip in chips {
        let look = look(chip.task);
        let class = look.map_or(String::new(), |look| format!(" fg-{}", look.class()));
        let sign = look.map_or("", Look::sign);
        let (x, y) =
            (PADDING + chip.x, PADDING + NAME_HEIGHT + 4.0 + chip.row as f64 * (CHIP_HEIGHT + CHIP_GAP));
        let word =
            states.and_then(|states| states.get(chip.task)).map_or(String::new(), |w| format!(": {w}"));
        let _ = writeln!(
            out,
            "<g class=\"fg-chip{class}\" transform=\"translate({x:.1} {y:.1})\"><title>{}{word}</title>\
             <rect width=\"{:.1}\" height=\"{CHIP_HEIGHT}\" rx=\"10\"/>\
             <text class=\"fg-sign\" x=\"9\" y=\"14\">{sign}</text><text x=\"{}\" y=\"14\">{}</text></g>",
            escaped(chip.task),
            chip.width,
            if look.is_some() { 21 } else { 13 },
            escaped(&chip.text)
        );
    }
    out.push_str("</g>\n");
}

/// The states that occur, with their counts, and how wide that is.
fn legend(steps: &[Step], states: &States) -> (String, f64) {
    let mut counts: BTreeMap<(Look, &str), usize> = BTreeMap::new();
    for (task, _) in steps.iter().flat_map(|step| &step.tasks) {
        let word = states.get(task).copied().unwrap_or("waiting");
        *counts.entry((Look::of(word), word)).or_default() += 1;
    }
    let (mut text, mut x) = (String::new(), 0.0);
    for ((look, word), count) in counts {
        let label = format!("{word} {count}");
        let width = label.chars().count() as f64 * HOST_CHAR + 30.0;
        let _ = write!(
            text,
            "<g class=\"fg-chip fg-{}\" transform=\"translate({x:.1} -14)\"><rect width=\"{width:.1}\" height=\"20\" rx=\"10\"/>\
             <text class=\"fg-sign\" x=\"9\" y=\"14\">{}</text><text x=\"21\" y=\"14\">{label}</text></g>",
            look.class(),
            look.sign()
        );
        x += width + 8.0;
    }
    (text, x)
}

/// A smooth line through the points; straight down through layers.
fn path(points: &[(f64, f64)]) -> String {
    let mut text = String::new();
    for (n, &(x, y)) in points.iter().enumerate() {
        let _ = match n.checked_sub(1).map(|n| points[n]) {
            None => write!(text, "M{x:.1} {y:.1}"),
            Some((x0, _)) if (x - x0).abs() < 0.05 => write!(text, "L{x:.1} {y:.1}"),
            Some((x0, y0)) => {
                let middle = (y0 + y) / 2.0;
                write!(text, "C{x0:.1} {middle:.1} {x:.1} {middle:.1} {x:.1} {y:.1}")
            }
        };
    }
    text
}

/// A name that isn't too long to draw.
fn cut(text: &str) -> String {
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    text.chars().take(LONGEST - 1).chain(['…']).collect()
}
