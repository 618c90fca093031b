//! Ansible's YAML inventories: groups with `hosts`, `children` and `vars` (Ansible 2.19,
//! plugins/inventory/yaml.py).

use super::builder::Builder;
use super::range;
use super::raw::{File, Raw, Var, Vars};
use super::tree::{self, Mark, Node, NodeKind};
use super::vault::Vaults;
use crate::workflow::{Code, Diagnostic, Diagnostics, Span, nearest};

const SECTIONS: [&str; 3] = ["hosts", "children", "vars"];

/// Reads hosts, groups and variables into the builder.
pub(super) fn read(file: &File, builder: &mut Builder, vaults: &Vaults<'_>) -> Diagnostics {
    let mut reader = Reader { file, builder, diagnostics: Diagnostics::default() };
    match tree::read(file, vaults) {
        Ok(Some(Node { kind: NodeKind::Table(groups), .. })) => reader.top(&groups),
        Ok(Some(other)) => {
            let message = format!("an inventory is a table of groups, this is {}", other.describe());
            reader.refuse(other.span.start..other.span.start, message, EXAMPLE);
        }
        Ok(None) => {
            let empty = Diagnostic::general(Code::INVENTORY, format!("`{}` is empty", file.source.name))
                .help(EXAMPLE);
            reader.diagnostics.push(empty);
        }
        Err(error) => reader.diagnostics.push(error),
    }
    reader.diagnostics
}

const EXAMPLE: &str = "such as: promoters: {hosts: {patroni1: {ansible_host: 198.51.100.11}}}";

type Fields = [(String, Span, Node)];

struct Reader<'r> {
    file: &'r File,
    builder: &'r mut Builder,
    diagnostics: Diagnostics,
}

impl Reader<'_> {
    fn top(&mut self, groups: &Fields) {
        if let Some((_, span, _)) = groups.iter().find(|(name, ..)| name == "plugin") {
            self.refuse(
                span.clone(),
                "this configures an inventory plugin, and plugins are not run".to_owned(),
                "save what it prints: ansible-inventory -i FILE --list --yaml --output hosts.yml",
            );
            return;
        }
        for (name, _, group) in groups {
            self.group(name, group);
        }
    }

    fn group(&mut self, name: &str, node: &Node) {
        self.builder.add_group(name);
        let NodeKind::Table(sections) = &node.kind else {
            if !node.is_null() {
                let message = format!("the group `{name}` is a table, this is {}", node.describe());
                self.refuse(node.span.clone(), message, "it has `hosts`, `children` and `vars`");
            }
            return;
        };
        for (section, place, content) in sections {
            match section.as_str() {
                "hosts" => self.hosts(name, content),
                "children" => self.children(name, content),
                "vars" => self.vars(name, content),
                _ => {
                    let help = match nearest(section, SECTIONS) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => {
                            "a group has `hosts`, `children` and `vars`; groups in it go below `children`"
                                .to_owned()
                        }
                    };
                    self.refuse(place.clone(), format!("a group has no `{section}`"), &help);
                }
            }
        }
    }

    /// The entries of a section. A single name stands for itself, as in Ansible.
    fn entries(&mut self, section: &str, content: &Node) -> Vec<(String, Span, Node)> {
        match &content.kind {
            NodeKind::Table(fields) => fields.clone(),
            NodeKind::Scalar(serde_json::Value::String(name)) => {
                let empty = Node {
                    span: content.span.clone(),
                    kind: NodeKind::Scalar(serde_json::Value::Null),
                    mark: Mark::None,
                };
                vec![(name.clone(), content.span.clone(), empty)]
            }
            _ if content.is_null() => Vec::new(),
            _ => {
                let message = format!("`{section}` is a table, this is {}", content.describe());
                self.refuse(
                    content.span.clone(),
                    message,
                    "write each name with a colon after it, such as `web1:`",
                );
                Vec::new()
            }
        }
    }

    fn hosts(&mut self, group: &str, content: &Node) {
        for (pattern, span, vars) in self.entries("hosts", content) {
            let (hosts, port) = match range::expand(&pattern) {
                Ok(expanded) => expanded,
                Err(what) => {
                    self.refuse(span, what, "a host's name, or a range such as web[1:3]");
                    continue;
                }
            };
            let vars = match &vars.kind {
                NodeKind::Table(fields) => tree::to_vars(fields, self.file),
                _ if vars.is_null() => Vars::new(),
                _ => {
                    let message = format!("a host's variables are a table, this is {}", vars.describe());
                    self.refuse(vars.span.clone(), message, "write NAME: VALUE, each on its own line");
                    continue;
                }
            };
            for host in &hosts {
                self.builder.add_host(group, host);
                if let Some(port) = port {
                    let port =
                        Var { raw: Raw::Plain(port.into()).into(), place: self.file.place(span.start) };
                    self.builder.set_host_var(host, "ansible_port", port);
                }
                vars.iter().for_each(|(name, var)| self.builder.set_host_var(host, name, var.clone()));
            }
        }
    }

    fn children(&mut self, parent: &str, content: &Node) {
        for (name, span, group) in self.entries("children", content) {
            self.group(&name, &group);
            if let Err(circle) = self.builder.add_child(parent, &name, span.clone()) {
                let message = format!("groups contain each other: {}", circle.join(" > "));
                self.refuse(span, message, "take one of them out of the other's children");
            }
        }
    }

    fn vars(&mut self, group: &str, content: &Node) {
        for (name, span, value) in self.entries("vars", content) {
            if let Err(what) = self.builder.set_group_var(group, &name, value.to_var(self.file, &name, &span))
            {
                self.refuse(span, what, "such as: ansible_group_priority: 10");
            }
        }
    }

    fn refuse(&mut self, span: Span, message: String, help: &str) {
        self.diagnostics.push(self.file.refuse(span, message).help(help));
    }
}
