//! The run's time as a picture: a lane for each host, a bar for each task, idle time cut short.

use std::collections::BTreeMap;
use std::fmt::Write;

use flow_core::run::Event;
use jiff::Timestamp;

use super::Report;
use crate::drawing::{Look, escaped};
use crate::screen;

const WIDTH: f64 = 1000.0;
const LABEL: f64 = 130.0;
const LANE: f64 = 18.0;
/// No bar is narrower.
const LEAST: f64 = 3.0;
/// Idle time of more than this part of the busy time is cut to a break of `BREAK`.
const IDLE: f64 = 0.06;
const BREAK: f64 = 28.0;

struct Bar<'r> {
    task: &'r str,
    look: Look,
    word: &'static str,
    from: f64,
    to: f64,
}

/// Where a time is in the picture: the busy stretches, with the breaks between them.
struct Scale {
    /// From, to, in seconds since the run began, and the place where it begins.
    stretches: Vec<(f64, f64, f64)>,
    per_second: f64,
}

impl Scale {
    fn new(bars: &[Bar<'_>], end: f64) -> Self {
        let mut spans: Vec<(f64, f64)> = bars.iter().map(|bar| (bar.from, bar.to)).collect();
        spans.push((0.0, 0.0));
        spans.push((end, end));
        spans.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut busy: Vec<(f64, f64)> = Vec::new();
        for (from, to) in spans {
            match busy.last_mut() {
                Some(last) if from <= last.1 => last.1 = last.1.max(to),
                _ => busy.push((from, to)),
            }
        }
        let total: f64 = busy.iter().map(|(from, to)| to - from).sum();
        let longest = (total * IDLE).max(0.5);
        let mut stretches: Vec<(f64, f64)> = Vec::new();
        for (from, to) in busy {
            match stretches.last_mut() {
                Some(last) if from - last.1 <= longest => last.1 = to,
                _ => stretches.push((from, to)),
            }
        }
        let shown: f64 = stretches.iter().map(|(from, to)| to - from).sum();
        let room = WIDTH - LABEL - LEAST - BREAK * (stretches.len() - 1) as f64;
        let per_second = room.max(100.0) / shown.max(0.001);
        let mut x = LABEL;
        let place = |(from, to): (f64, f64)| {
            let at = x;
            x += (to - from) * per_second + BREAK;
            (from, to, at)
        };
        Self { stretches: stretches.into_iter().map(place).collect(), per_second }
    }

    fn x(&self, second: f64) -> f64 {
        let stretch = self.stretches.iter().rev().find(|(from, ..)| *from <= second + 1e-6);
        let Some(&(from, to, at)) = stretch.or(self.stretches.first()) else { return LABEL };
        at + (second.clamp(from, to) - from) * self.per_second
    }
}

/// The picture; nothing where no task was begun.
pub fn timeline(report: &Report<'_>) -> String {
    let (_, end) = report.span();
    let all = bars(report);
    let mut lanes: BTreeMap<&str, Vec<&Bar<'_>>> = BTreeMap::new();
    for bar in &all {
        let host = bar.task.rsplit_once('@').map_or("here", |(_, host)| host);
        lanes.entry(host).or_default().push(bar);
    }
    if all.is_empty() {
        return String::new();
    }
    let end = seconds(report, end);
    let scale = Scale::new(&all, end);
    let (mut body, mut y) = (String::new(), 6.0);
    for (host, bars) in lanes {
        let rows = draw_lane(&mut body, &scale, bars, y);
        let height = rows as f64 * LANE;
        let _ = writeln!(
            body,
            "<text class=\"tl-host\" x=\"0\" y=\"{:.1}\">{}</text>\
             <path class=\"tl-rule\" d=\"M0 {:.1}H{WIDTH}\"/>",
            y + 13.0,
            escaped(&shortened(host)),
            y + height + 4.0
        );
        y += height + 9.0;
    }
    let breaks = breaks(&scale, y);
    let axis = axis(&scale, y, end);
    format!(
        "<svg class=\"fg timeline\" role=\"img\" viewBox=\"0 0 {WIDTH} {:.0}\"><title>When each task ran, by host</title>\n\
         {breaks}{body}{axis}</svg>",
        y + 22.0
    )
}

fn seconds(report: &Report<'_>, at: Timestamp) -> f64 {
    at.duration_since(report.row.started).as_secs_f64().max(0.0)
}

/// A bar for each attempt from its intent to its end, and one without length for what was found.
fn bars<'r>(report: &Report<'r>) -> Vec<Bar<'r>> {
    let (_, last) = report.span();
    let mut begun: BTreeMap<&str, f64> = BTreeMap::new();
    let mut bars = Vec::new();
    for record in report.records {
        let Some(task) = record.event.task().map(|task| task.as_str()) else { continue };
        let to = seconds(report, record.at);
        let word = match &record.event {
            Event::TaskIntended { .. } | Event::UndoIntended { .. } => {
                begun.insert(task, to);
                continue;
            }
            Event::TaskSkipped { .. } => "skipped",
            Event::TaskDone { .. } => "changed",
            Event::TaskFailed { .. } => "failed",
            Event::TaskUnknown { .. } => "unknown",
            Event::TaskNotDone { .. } => "not done",
            Event::TaskUndone { .. } => "undone",
            Event::UndoFailed { .. } | Event::UndoNotDone { .. } => "not undone",
            Event::UndoUnknown { .. } => "undo unknown",
            Event::TaskKept { .. } => "kept",
            _ => "ok",
        };
        let from = begun.remove(task).unwrap_or(to);
        bars.push(Bar { task, look: Look::of(word), word, from, to });
    }
    let to = seconds(report, last);
    bars.extend(begun.into_iter().map(|(task, from)| Bar {
        task,
        look: Look::Working,
        word: "begun",
        from,
        to,
    }));
    bars.sort_by(|a, b| a.from.total_cmp(&b.from));
    bars
}

/// Bars that overlap go into rows of their own. Gives how many rows there are.
fn draw_lane(body: &mut String, scale: &Scale, bars: Vec<&Bar<'_>>, top: f64) -> usize {
    let mut ends: Vec<f64> = Vec::new();
    for bar in bars {
        let x = scale.x(bar.from);
        let width = (scale.x(bar.to) - x).max(LEAST);
        let row = match ends.iter().position(|end| *end <= x) {
            Some(row) => row,
            None => {
                ends.push(0.0);
                ends.len() - 1
            }
        };
        ends[row] = x + width + 0.5;
        let y = top + row as f64 * LANE;
        let took = screen::duration(bar.to - bar.from);
        let _ = writeln!(
            body,
            "<g class=\"fg-chip fg-{}\"><title>{}: {}, {took}</title><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{:.1}\" rx=\"2\"/></g>",
            bar.look.class(),
            escaped(bar.task),
            bar.word,
            LANE - 4.0
        );
        if width > 16.0 {
            let room = ((width - 8.0) / 6.2) as usize;
            let step = bar.task.rsplit_once('@').map_or(bar.task, |(step, _)| step);
            let label: String = format!("{} {step}", bar.look.sign()).chars().take(room).collect();
            let _ = writeln!(
                body,
                "<text class=\"tl-bar\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x + 4.0,
                y + 11.0,
                escaped(&label)
            );
        }
    }
    ends.len()
}

fn breaks(scale: &Scale, bottom: f64) -> String {
    let mut text = String::new();
    for pair in scale.stretches.windows(2) {
        let idle = screen::duration(pair[1].0 - pair[0].1);
        let _ = writeln!(
            text,
            "<g class=\"tl-break\"><title>nothing was done for {idle}</title><rect x=\"{:.1}\" y=\"0\" width=\"{:.1}\" height=\"{bottom:.1}\"/></g>",
            pair[1].2 - BREAK + 6.0,
            BREAK - 10.0
        );
    }
    text
}

fn axis(scale: &Scale, y: f64, end: f64) -> String {
    let mut text = String::new();
    for &(from, _, x) in &scale.stretches {
        let _ = writeln!(
            text,
            "<text class=\"tl-axis\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
            y + 12.0,
            screen::duration(from)
        );
    }
    let _ = writeln!(
        text,
        "<text class=\"tl-axis\" x=\"{WIDTH}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
        y + 12.0,
        screen::duration(end)
    );
    text
}

fn shortened(host: &str) -> String {
    if host.chars().count() <= 18 { host.to_owned() } else { host.chars().take(17).chain(['…']).collect() }
}
