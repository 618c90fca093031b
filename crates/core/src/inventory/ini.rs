//! Ansible's INI inventories, line by line (Ansible 2.19, plugins/inventory/ini.py).

use indexmap::{IndexMap, IndexSet};

use super::builder::{ALL, Builder, UNGROUPED};
use super::raw::{File, Raw, Var};
use super::{literal, range, shlex};
use crate::workflow::{Diagnostics, Span, nearest};

/// Reads hosts, groups and variables into the builder.
pub(super) fn read(file: &File, builder: &mut Builder) -> Diagnostics {
    let mut reader = Reader {
        file,
        builder,
        diagnostics: Diagnostics::default(),
        declared: IndexMap::new(),
        children: Vec::new(),
    };
    reader.read();
    reader.diagnostics
}

enum Section {
    Hosts,
    Children,
    Vars,
    /// One that was refused; its lines are passed over.
    Refused,
}

struct Reader<'r> {
    file: &'r File,
    builder: &'r mut Builder,
    diagnostics: Diagnostics,
    /// Groups by where a section names them, and whether as more than the owner of variables.
    declared: IndexMap<String, (Span, bool)>,
    /// Parent and child, by where the child is named: settled once all groups are known.
    children: Vec<(String, String, Span)>,
}

impl Reader<'_> {
    fn read(&mut self) {
        let file = self.file;
        let text = &file.source.text;
        let mut group = UNGROUPED.to_owned();
        let mut section = Section::Hosts;
        let mut start = 0;
        for whole in text.split_inclusive('\n') {
            let line = whole.trim();
            let begin = start + (whole.len() - whole.trim_start().len());
            start += whole.len();
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            let begin = begin.min(text.len());
            if line.starts_with('[') && section_of(line).is_some() {
                (group, section) = self.section(line, begin);
                continue;
            }
            match section {
                Section::Hosts => self.host(&group, line, begin),
                Section::Children => self.child(&group, line, begin),
                Section::Vars => self.group_var(&group, line, begin),
                Section::Refused => {}
            }
        }
        self.settle();
    }

    fn section(&mut self, line: &str, begin: usize) -> (String, Section) {
        let inner = section_of(line).unwrap_or_default();
        let span = begin..begin + inner.len() + 2;
        let (name, kind) = inner.split_once(':').map_or((inner, None), |(name, kind)| (name, Some(kind)));
        let refused = (name.to_owned(), Section::Refused);
        if name.is_empty() || name.contains(char::is_whitespace) {
            self.refuse(
                span,
                format!("`{inner}` is not the name of a group"),
                "write [NAME], without spaces",
            );
            return refused;
        }
        let section = match kind {
            None | Some("hosts") => Section::Hosts,
            Some("children") => Section::Children,
            Some("vars") => Section::Vars,
            Some(kind) => {
                let message = format!("no section is of the kind `{kind}`");
                self.refuse(span, message, "[NAME], [NAME:children] or [NAME:vars]");
                return refused;
            }
        };
        let more = !matches!(section, Section::Vars);
        let built_in = name == ALL || name == UNGROUPED;
        self.declared.entry(name.to_owned()).or_insert((span, built_in)).1 |= more;
        self.builder.add_group(name);
        (name.to_owned(), section)
    }

    fn host(&mut self, group: &str, line: &str, begin: usize) {
        let words = match shlex::split(line) {
            Ok(words) => words,
            Err((what, at)) => {
                self.refuse(
                    begin + at..begin + line.len(),
                    what,
                    "close it, or write \\\" for the sign itself",
                );
                return;
            }
        };
        let Some(((pattern, place), variables)) = words.split_first() else { return };
        let shift = |place: &Span| begin + place.start..begin + place.end;
        let (hosts, port) = match range::expand(pattern) {
            Ok(expanded) => expanded,
            Err(what) => {
                self.refuse(shift(place), what, "a host line is: NAME variable=value ...");
                return;
            }
        };
        for host in &hosts {
            self.builder.add_host(group, host);
            if let Some(port) = port {
                let port = Var { raw: Raw::Plain(port.into()).into(), place: self.file.place(begin) };
                self.builder.set_host_var(host, "ansible_port", port);
            }
        }
        for (word, place) in variables {
            let Some((name, value)) = word.split_once('=').filter(|(name, _)| !name.is_empty()) else {
                let message = format!("`{word}` is not a variable");
                self.refuse(
                    shift(place),
                    message,
                    "after a host's name come variables: NAME=VALUE, in quotes where there are spaces",
                );
                continue;
            };
            let var = self.var(name, value, begin);
            hosts.iter().for_each(|host| self.builder.set_host_var(host, name, var.clone()));
        }
    }

    fn child(&mut self, group: &str, line: &str, begin: usize) {
        let name = line.split('#').next().unwrap_or_default().trim_end();
        let span = begin..begin + name.len();
        if name.contains(|c: char| c.is_whitespace() || c == ':' || c == ']') {
            self.refuse(span, format!("`{name}` is not the name of a group"), "one group a line");
            return;
        }
        self.children.push((group.to_owned(), name.to_owned(), span));
    }

    fn group_var(&mut self, group: &str, line: &str, begin: usize) {
        let span = begin..begin + line.len();
        let Some((name, value)) = line.split_once('=').filter(|(name, _)| !name.trim().is_empty()) else {
            self.refuse(span, format!("`{line}` is not a variable"), "write: NAME = VALUE");
            return;
        };
        if let Err(what) =
            self.builder.set_group_var(group, name.trim(), self.var(name.trim(), value.trim(), begin))
        {
            self.refuse(span, what, "such as: ansible_group_priority = 10");
        }
    }

    fn var(&self, name: &str, value: &str, at: usize) -> Var {
        let place = self.file.place(at);
        Var { raw: Raw::new(literal::read(value), &name.into(), &place).into(), place }
    }

    /// What can be told only when all lines are read: groups that are named but nowhere declared,
    /// and groups that contain each other.
    fn settle(&mut self) {
        let known: IndexSet<String> = self
            .builder
            .group_names()
            .filter(|name| self.declared.get(*name).is_none_or(|(_, more)| *more))
            .map(str::to_owned)
            .collect();
        for (parent, child, span) in std::mem::take(&mut self.children) {
            if !known.contains(&child) {
                let message = format!("there is no group `{child}`");
                self.unknown_group(span, message, &child, &known);
            } else if let Err(circle) = self.builder.add_child(&parent, &child, span.clone()) {
                let message = format!("groups contain each other: {}", circle.join(" > "));
                self.refuse(span, message, "take one of them out of the other's children");
            }
        }
        for (name, (span, more)) in std::mem::take(&mut self.declared) {
            if !more && !known.contains(&name) {
                let message = format!("variables for a group that isn't there: `{name}`");
                self.unknown_group(span, message, &name, &known);
            }
        }
    }

    fn unknown_group(&mut self, span: Span, message: String, name: &str, known: &IndexSet<String>) {
        let help = match nearest(name, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("add a section [{name}]"),
        };
        self.refuse(span, message, &help);
    }

    fn refuse(&mut self, span: Span, message: impl Into<String>, help: &str) {
        self.diagnostics.push(self.file.refuse(span, message).help(help));
    }
}

/// What stands between the brackets, where a line is a section's head.
fn section_of(line: &str) -> Option<&str> {
    let (inner, rest) = line.strip_prefix('[')?.split_once(']')?;
    let rest = rest.trim_start();
    (rest.is_empty() || rest.starts_with('#')).then_some(inner)
}
