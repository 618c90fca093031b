//! `flow inventory`: the inventory as flow reads it, so that people see that it is theirs.

use clap::Args;
use console::style;
use flow_core::inventory::{Host, Loaded, Masked};
use serde_json::{Map, Value, json};

use crate::args::{Format, Global, InventoryArg};
use crate::exit::{Error, Exit};
use crate::{context, screen};

#[derive(Args, Clone)]
pub struct InventoryArgs {
    /// A host, or several by an Ansible pattern: shows all variables and where each value stands.
    pub host: Option<String>,

    /// Only these hosts, an Ansible pattern.
    #[arg(long, value_name = "PATTERN")]
    pub limit: Option<String>,

    #[command(flatten)]
    pub inventory: InventoryArg,
}

pub fn inventory(global: &Global, args: &InventoryArgs) -> Result<Exit, Error> {
    let loaded = context::loaded(&args.inventory, None)?
        .ok_or_else(|| Error::refused("there is no inventory here", "give it: -i INVENTORY"))?;
    let mut names = context::select(&loaded.inventory, args.host.as_deref().unwrap_or("all"))?;
    if let Some(limit) = &args.limit {
        let kept = context::select(&loaded.inventory, limit)?;
        names.retain(|name| kept.contains(name));
    }
    let view = View { masked: Masked::new(&loaded.inventory), loaded: &loaded };
    match (global.output, &args.host) {
        (Format::Json, _) => screen::json(&view.json(&names)),
        (Format::Text, None) => view.overview(&names),
        (Format::Text, Some(_)) => view.hosts(&names),
    }
    Ok(Exit::Success)
}

struct View<'v> {
    loaded: &'v Loaded,
    masked: Masked,
}

impl View<'_> {
    fn host(&self, name: &str) -> Option<&Host> {
        self.loaded.inventory.host(name).map(AsRef::as_ref)
    }

    fn groups_of(&self, host: &str) -> Vec<&str> {
        let groups = self.loaded.inventory.groups.iter();
        let of = groups.filter(|(name, hosts)| *name != "all" && hosts.iter().any(|own| own == host));
        of.map(|(name, _)| name.as_str()).collect()
    }

    /// Groups with their hosts, then each host.
    fn overview(&self, names: &[String]) {
        let width = |names: &mut dyn Iterator<Item = &str>| names.map(str::len).max().unwrap_or(0);
        let groups = &self.loaded.inventory.groups;
        let shown: Vec<(&str, Vec<&str>)> = groups
            .iter()
            .filter(|(name, _)| *name != "all")
            .map(|(name, hosts)| {
                let hosts = hosts.iter().filter(|host| names.contains(host)).map(String::as_str);
                (name.as_str(), hosts.collect())
            })
            .filter(|(name, hosts): &(&str, Vec<&str>)| *name != "ungrouped" || !hosts.is_empty())
            .collect();
        let column = width(&mut shown.iter().map(|(name, _)| *name));
        screen::line(&format!("{}", style("groups").bold()));
        for (name, hosts) in &shown {
            let hosts = if hosts.is_empty() { "-".to_owned() } else { hosts.join(", ") };
            screen::line(&format!("  {name:column$}  {hosts}"));
        }
        let column = width(&mut names.iter().map(String::as_str));
        let address =
            |host: &Host| Some(host.address()).filter(|address| *address != host.name).unwrap_or_default();
        let addresses: Vec<String> = names.iter().filter_map(|name| self.host(name)).map(address).collect();
        let second = width(&mut addresses.iter().map(|address| address.as_str()));
        screen::line(&format!("\n{}", style("hosts").bold()));
        for (host, address) in names.iter().filter_map(|name| self.host(name)).zip(&addresses) {
            let faulty = match host.faults.len() {
                0 => String::new(),
                count => format!(", {count} that can't be evaluated"),
            };
            let variables = screen::counted(host.vars.len() + host.faults.len(), "variable");
            let gap = if second > 0 { "  " } else { "" };
            screen::line(&format!("  {:column$}{gap}{address:second$}  {variables}{faulty}", host.name));
        }
        let read: Vec<String> =
            self.loaded.inventory.sources.iter().map(|path| path.display().to_string()).collect();
        screen::tell(&format!("read: {}", read.join(", ")));
        screen::tell("flow inventory HOST shows a host's variables");
    }

    /// Every variable with where its value stands.
    fn hosts(&self, names: &[String]) {
        for (i, host) in names.iter().filter_map(|name| self.host(name)).enumerate() {
            if i > 0 {
                screen::line("");
            }
            let groups = self.groups_of(&host.name).join(", ");
            screen::line(&format!("{}  {}  in {groups}", style(&host.name).bold(), host.address()));
            let vars = self.masked.vars(host);
            let mut all: Vec<&str> = vars.keys().chain(host.faults.keys()).map(String::as_str).collect();
            all.sort_unstable();
            let column = all.iter().map(|name| name.len()).max().unwrap_or(0).min(40);
            for name in all {
                let place = self.loaded.place(&host.name, name).map(ToString::to_string).unwrap_or_default();
                let value = match (vars.get(name), host.faults.get(name)) {
                    (Some(value), _) => value.to_string(),
                    (None, fault) => {
                        format!("can't be evaluated: {}", fault.map(String::as_str).unwrap_or_default())
                    }
                };
                screen::line(&format!("  {name:column$}  {value}  {}", style(place).dim()));
            }
        }
    }

    /// The shape of `ansible-inventory --list`, and what flow knows besides under `_meta`.
    fn json(&self, names: &[String]) -> Value {
        let (mut vars, mut faults, mut sources) = (Map::new(), Map::new(), Map::new());
        for host in names.iter().filter_map(|name| self.host(name)) {
            vars.insert(host.name.clone(), self.masked.vars(host).into());
            if !host.faults.is_empty() {
                faults.insert(host.name.clone(), json!(host.faults));
            }
            let all = host.vars.keys().chain(host.faults.keys());
            let places = all.filter_map(|name| {
                Some((name.clone(), Value::from(self.loaded.place(&host.name, name)?.to_string())))
            });
            sources.insert(host.name.clone(), places.collect::<Map<_, _>>().into());
        }
        let mut out = Map::new();
        out.insert("_meta".to_owned(), json!({ "hostvars": vars, "faults": faults, "sources": sources }));
        for (name, group) in self.loaded.groups() {
            let mut fields = Map::new();
            let hosts: Vec<&String> = group.hosts.iter().filter(|host| names.contains(host)).collect();
            if !hosts.is_empty() {
                fields.insert("hosts".to_owned(), json!(hosts));
            }
            if !group.children.is_empty() {
                fields.insert("children".to_owned(), json!(group.children));
            }
            out.insert(name.clone(), fields.into());
        }
        out.into()
    }
}
