//! Variables as templates see them: looked up, and evaluated, when they are asked for.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectExt, ObjectRepr, Value as Jinja};

use super::World;
use crate::inventory::raw::Raw;

/// The names at the top: a host's variables, and what Ansible adds.
pub(super) struct Root {
    pub(super) world: Arc<World>,
    pub(super) host: usize,
}

impl Object for Root {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        let name = key.as_str()?;
        let found = special(&self.world, self.host, name).or_else(|| variable(&self.world, self.host, name));
        if found.is_none() && !self.world.env.globals().any(|(known, _)| known == name) {
            self.world.track.missing(name);
        }
        found
    }
}

fn variable(world: &Arc<World>, host: usize, name: &str) -> Option<Jinja> {
    let (_, seen) = world.hosts.get_index(host)?;
    let var = seen.vars.get(name)?;
    Some(world.value(host, &var.raw))
}

/// What Ansible adds to a host's variables, and no variable may take the name of.
fn special(world: &Arc<World>, host: usize, name: &str) -> Option<Jinja> {
    let (host_name, seen) = world.hosts.get_index(host)?;
    Some(match name {
        "inventory_hostname" => Jinja::from(host_name.as_str()),
        "inventory_hostname_short" => Jinja::from(host_name.split('.').next().unwrap_or(host_name)),
        "group_names" => Jinja::from(seen.group_names.clone()),
        "groups" => world.groups.clone(),
        "hostvars" => Jinja::from_object(HostVars(Arc::clone(world))),
        "vars" => Jinja::from_object(HostValue { world: Arc::clone(world), host }),
        "inventory_file" => Jinja::from(absolute(&seen.file)),
        "inventory_dir" => Jinja::from(absolute(seen.file.parent()?)),
        "playbook_dir" => Jinja::from(absolute(&world.playbook_dir)),
        _ => return None,
    })
}

fn absolute(path: &Path) -> String {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string()
}

/// `hostvars`.
pub(super) struct HostVars(Arc<World>);

impl Object for HostVars {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        let host = self.0.hosts.get_index_of(key.as_str()?)?;
        Some(Jinja::from_object(HostValue { world: Arc::clone(&self.0), host }))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.mapped_enumerator(|this| Box::new(this.0.hosts.keys().map(|name| Jinja::from(name.as_str()))))
    }
}

/// `hostvars[HOST]`, and `vars`.
pub(super) struct HostValue {
    world: Arc<World>,
    host: usize,
}

impl Object for HostValue {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        let name = key.as_str()?;
        let found = special(&self.world, self.host, name).or_else(|| variable(&self.world, self.host, name));
        if found.is_none() {
            let host = self.world.hosts.get_index(self.host).map_or("", |(host, _)| host);
            self.world.track.missing(format!("hostvars['{host}'].{name}"));
        }
        found
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let names = self.world.hosts.get_index(self.host).into_iter().flat_map(|(_, seen)| seen.vars.keys());
        Enumerator::Values(names.map(|name| Jinja::from(name.as_str())).collect())
    }
}

/// A table with templates or secrets in it.
pub(super) struct TableValue {
    pub(super) world: Arc<World>,
    pub(super) host: usize,
    pub(super) raw: Arc<Raw>,
}

impl Object for TableValue {
    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        let Raw::Table(fields) = &*self.raw else { return None };
        Some(self.world.value(self.host, fields.get(key.as_str()?)?))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let Raw::Table(fields) = &*self.raw else { return Enumerator::Empty };
        Enumerator::Values(fields.keys().map(|name| Jinja::from(name.as_str())).collect())
    }
}

/// A list with templates or secrets in it.
pub(super) struct ListValue {
    pub(super) world: Arc<World>,
    pub(super) host: usize,
    pub(super) raw: Arc<Raw>,
}

impl Object for ListValue {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Jinja) -> Option<Jinja> {
        let Raw::List(items) = &*self.raw else { return None };
        Some(self.world.value(self.host, items.get(key.as_usize()?)?))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let Raw::List(items) = &*self.raw else { return Enumerator::Empty };
        Enumerator::Seq(items.len())
    }
}

macro_rules! debug_as_name {
    ($($type:ident),*) => {
        $(impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // Values may be secret, so an error message gets a name only.
                f.write_str(stringify!($type))
            }
        })*
    };
}
debug_as_name!(Root, HostVars, HostValue, TableValue, ListValue);
