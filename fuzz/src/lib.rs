//! What flow reads that others wrote, a function for each: given any bytes it comes to an end, and panics only
//! where flow is wrong. An error is a fine answer.
//!
//! The fuzz targets call these, one each, and so do the ordinary tests, with the seeds and what they make of
//! them (`crates/steps/tests/fuzz`).

use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use flow_core::engine;
use flow_core::inventory::{self, Given, Host, Inventory, Sources, VaultPassword, VaultPasswords};
use flow_core::plan::{Filter, Inputs, Plan, Request, SavedPlan};
use flow_core::step::{Registry, Secret, StepError};
use flow_core::testing::MemoryStore;
use flow_core::workflow::expr::{self, Evaluator};
use flow_core::workflow::{Diagnostics, Documents, Files, check_values};
use flow_steps::certificates;
use flow_steps::host::doors;
use flow_steps::host::{Patience, SshEnvironment};
use flow_steps::plugin::wire::{
    self, ApplyAnswer, CheckAnswer, Description, Lines, ResolveAnswer, Says, UndoAnswer,
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// A target: its name, which is that of its seeds' folder too, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 14] = [
    ("workflow", workflow),
    ("inventory_ini", inventory_ini),
    ("inventory_yaml", inventory_yaml),
    ("group_vars", group_vars),
    ("vault", vault),
    ("host_pattern", host_pattern),
    ("expression", expression),
    ("plan_file", plan_file),
    ("run_file", run_file),
    ("shell", shell),
    ("plugin", plugin),
    ("ssh_config", ssh_config),
    ("known_hosts", known_hosts),
    ("certificate", certificate),
];

/// Every step type that is compiled in.
static REGISTRY: LazyLock<Arc<Registry>> = LazyLock::new(|| {
    let mut registry = Registry::new();
    flow_steps::register(&mut registry);
    Arc::new(registry)
});

/// A file with a workflow: read, checked, and expanded on three hosts.
pub fn workflow(data: &[u8]) {
    let text = String::from_utf8_lossy(data).into_owned();
    let (bundle, _) = match Documents::read(&OneFile(text), NAME, &REGISTRY) {
        Ok(read) => read,
        Err(wrong) => return points_at_text(&wrong),
    };
    let request =
        Request { bundle, inventory: hosts(), inputs: Inputs::default(), filter: Filter::default() };
    match Plan::new(request, &REGISTRY, [0; 32]) {
        Ok(plan) => shows(&plan),
        Err(wrong) => points_at_text(&wrong),
    }
}

/// An inventory in Ansible's INI form.
pub fn inventory_ini(data: &[u8]) {
    in_folder(&[("hosts.ini", data)], |folder| read_inventory(&folder.join("hosts.ini")));
}

/// An inventory in Ansible's YAML form.
pub fn inventory_yaml(data: &[u8]) {
    in_folder(&[("hosts.yml", data)], |folder| read_inventory(&folder.join("hosts.yml")));
}

/// A file of variables beside an inventory.
pub fn group_vars(data: &[u8]) {
    let hosts = b"[web]\nweb1 a=1\nweb2\n";
    in_folder(&[("hosts.ini", hosts), ("group_vars/web.yml", data)], |folder| {
        read_inventory(&folder.join("hosts.ini"));
    });
}

/// A file of variables that is a vault, with the password of the seeds.
pub fn vault(data: &[u8]) {
    let hosts = b"[web]\nweb1\n";
    in_folder(&[("hosts.ini", hosts), ("group_vars/web.yml", data)], |folder| {
        let given = Given { inventories: vec![folder.join("hosts.ini")], playbook_dir: None };
        if let Err(wrong) = inventory::read_all(&Sources { given, vault: &OnePassword }) {
            points_at_text(&wrong);
        }
    });
}

/// What `--limit` and `hosts` take: a pattern of hosts and groups. Whoever is chosen is in the inventory, once.
pub fn host_pattern(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let hosts = hosts();
    match hosts.select(&text) {
        Ok(chosen) => {
            let mut once = chosen.clone();
            once.sort();
            once.dedup();
            assert_eq!(once.len(), chosen.len(), "a host is chosen twice");
            assert!(chosen.iter().all(|name| hosts.host(name).is_some()), "a host that isn't there");
        }
        Err(wrong) => drop((wrong.to_string(), wrong.help())),
    }
}

/// A file with a certificate.
pub fn certificate(data: &[u8]) {
    let _ = certificates::readable(data);
}

/// An expression, and a template with expressions: read and evaluated.
pub fn expression(data: &[u8]) {
    static EVALUATOR: LazyLock<Evaluator> = LazyLock::new(Evaluator::new);
    static SCOPE: LazyLock<minijinja::Value> = LazyLock::new(|| {
        minijinja::Value::from(minijinja::value::Serde(json!({
            "params": { "name": "demo", "count": 3, "ratio": 0.5, "list": ["a", "b", "c"], "on": true },
            "vars": { "users": [{ "name": "app", "age": 7 }, { "name": "é", "age": null }], "text": "a-b c\n" },
            "host": { "name": "web1" },
        })))
    });
    let text = String::from_utf8_lossy(data);
    let _ = EVALUATOR.names(&text);
    let _ = EVALUATOR.expression_names(&text);
    let _ = EVALUATOR.template(&text, &SCOPE);
    let _ = EVALUATOR.expression(&text, &SCOPE).and_then(|value| expr::as_condition(&value));
    let _ = EVALUATOR.text(&format!("{{{{ {text} }}}}"), &SCOPE);
}

/// A saved plan, as it is and with its checksum put right.
pub fn plan_file(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let read = |text: &str| {
        if let Ok(saved) = SavedPlan::read(text, &REGISTRY) {
            outlined(saved.definition);
        }
    };
    read(&text);
    if let Some(mended) = mended_plan(&text) {
        read(&mended);
    }
}

/// A run's file, as it is and with its numbers and its checksum put right.
pub fn run_file(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let read = |text: &str| {
        // The store takes nothing in: all that is looked at was looked at before.
        let _ = engine::import(&mut MemoryStore::new(), text, &REGISTRY);
    };
    read(&text);
    if let Some(mended) = mended_run(&text) {
        read(&mended);
    }
}

/// What a shell on a host answers: after a byte that says how large the pieces are in which it comes its standard
/// output, then after `--stderr--` its standard error. However it comes in pieces, it is the same.
pub fn shell(data: &[u8]) {
    const STDERR: &[u8] = b"--stderr--";
    let (&piece, rest) = data.split_first().unwrap_or((&0, &[]));
    let cut = rest.windows(STDERR.len()).position(|part| part == STDERR);
    let (out, err) = match cut {
        Some(at) => (&rest[..at], &rest[at + STDERR.len()..]),
        None => (rest, &[][..]),
    };
    let whole = doors::frames(NONCE, out, err, usize::MAX);
    let in_pieces = doors::frames(NONCE, out, err, usize::from(piece) + 1);
    assert_eq!(whole, in_pieces, "what a command answered depends on how it came");
}

/// What a plugin writes: lines that are messages, answers to each verb, descriptions with their schemas.
pub fn plugin(data: &[u8]) {
    let mut lines = Lines::default();
    for piece in data.chunks(1 + usize::from(data.first().copied().unwrap_or_default())) {
        lines.push(piece);
        while let Ok(Some(line)) = lines.next_line() {
            let Ok(message) = wire::read(&line) else { continue };
            match message.says {
                Says::Answer(answer) => answered(&answer),
                Says::Error(failure) => drop(StepError::from(failure)),
                Says::Call(call) => drop((call.changes(), format!("{call:?}"))),
                Says::Progress(_) => {}
            }
        }
    }
}

/// `~/.ssh/config`, and after a first line that begins with `-` the options of a command line.
pub fn ssh_config(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut vars = Map::from_iter([("ansible_host".to_owned(), "db1.example.org".into())]);
    if let Some(options) = text.lines().next().filter(|line| line.starts_with('-')) {
        vars.insert("ansible_ssh_common_args".to_owned(), options.into());
    }
    let host = Host { name: "db1".to_owned(), vars, ..Host::default() };
    in_folder(&[(".ssh/config", data)], |home| {
        let environment = SshEnvironment {
            home: home.to_owned(),
            user: "tester".to_owned(),
            config_files: vec![home.join(".ssh/config")],
            agent: None,
            patience: Patience::default(),
        };
        let _ = doors::ssh_settings(&environment, &host);
    });
}

/// A file of known host keys.
pub fn known_hosts(data: &[u8]) {
    in_folder(&[("known_hosts", data)], |folder| {
        for (host, port) in [("db1", 22), ("db1.example.org", 2222)] {
            let _ = doors::known_host(&folder.join("known_hosts"), host, port);
        }
    });
}

/// What a marker of a shell's output begins with.
const NONCE: &str = "0123456789abcdef0123456789abcdef";
/// The name of the one file of a bundle.
const NAME: &str = "fuzz.toml";

struct OnePassword;

impl VaultPasswords for OnePassword {
    fn passwords(&self, _: &str) -> Result<Vec<VaultPassword>, (String, String)> {
        let password = Secret::new("a password of tests");
        Ok(vec![VaultPassword { id: None, password, source: "the tests".to_owned() }])
    }
}

struct OneFile(String);

impl Files for OneFile {
    fn read(&self, path: &str) -> std::io::Result<String> {
        if path == NAME { Ok(self.0.clone()) } else { Err(std::io::ErrorKind::NotFound.into()) }
    }

    fn display(&self, path: &str) -> String {
        path.to_owned()
    }
}

fn hosts() -> Inventory {
    static HOSTS: LazyLock<Inventory> = LazyLock::new(|| {
        let names = ["web1", "web2", "web3"].map(str::to_owned);
        let host = |name: &String| (name.clone(), Arc::new(Host { name: name.clone(), ..Host::default() }));
        Inventory {
            hosts: names.iter().map(host).collect(),
            groups: [("all".to_owned(), names.to_vec()), ("web".to_owned(), names.to_vec())].into(),
            ..Inventory::default()
        }
    });
    HOSTS.clone()
}

/// A folder with these files, for as long as they are read.
fn in_folder(files: &[(&str, &[u8])], read: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    for (name, bytes) in files {
        let path = folder.path().join(name);
        let parent = path.parent().expect("it is in the folder");
        fs::create_dir_all(parent).and_then(|()| fs::write(&path, bytes)).expect("it can be written");
    }
    read(folder.path());
}

fn read_inventory(path: &Path) {
    match inventory::load(path) {
        Ok(inventory) => inventory.hosts.values().for_each(|host| drop(host.address())),
        Err(wrong) => points_at_text(&wrong),
    }
}

/// Whoever shows an error shows the place that it names.
fn points_at_text(wrong: &Diagnostics) {
    assert!(!wrong.0.is_empty(), "an error that says nothing");
    for one in &wrong.0 {
        let text = one.source.as_ref().map_or("", |source| source.text.as_str());
        for (span, _) in &one.labels {
            assert!(text.get(span.clone()).is_some(), "`{one}` points at {span:?} of {} bytes", text.len());
        }
    }
}

fn outlined(definition: flow_core::plan::Definition) {
    match Plan::without_secrets(definition, &REGISTRY) {
        Ok(plan) => shows(&plan),
        Err(wrong) => points_at_text(&wrong),
    }
}

/// What is shown of a plan before anything is done.
fn shows(plan: &Plan) {
    let _ = (plan.tasks().len(), plan.hosts().len(), plan.description());
    if let Err(wrong) = plan.confirmation() {
        points_at_text(&wrong);
    }
}

fn answered(answer: &Value) {
    let _ = wire::answer::<CheckAnswer>("check", answer.clone());
    let _ = wire::answer::<ApplyAnswer>("apply", answer.clone());
    let _ = wire::answer::<ResolveAnswer>("resolve", answer.clone());
    let _ = wire::answer::<UndoAnswer>("undo", answer.clone());
    let Ok(description) = wire::answer::<Description>("describe", answer.clone()) else { return };
    for step in description.steps {
        // Some arguments for its schema: the description itself has fields of every kind.
        let properties = step.schema.get("properties").and_then(Value::as_object);
        let fields =
            properties.into_iter().flatten().map(|(name, _)| (name.clone(), answer.clone())).take(20);
        let _ = check_values(&Value::Object(step.schema.clone()), &fields.collect());
    }
}

/// A plan file with the checksum that it should have.
fn mended_plan(text: &str) -> Option<String> {
    let mut file: Value = serde_json::from_str(text).ok()?;
    let form = json!({
        "flow_plan": file.get("flow_plan")?, "flow": file.get("flow")?, "salt": file.get("salt")?, "plan": file.get("plan")?,
    });
    *file.get_mut("sha256")? = sum(&form.to_string()).into();
    Some(file.to_string())
}

/// A run's file with the numbers and the checksum that it should have.
fn mended_run(text: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let (first, rest) = lines.split_first()?;
    let (_, events) = rest.split_last()?;
    let mut head: Value = serde_json::from_str(first).ok()?;
    *head.get_mut("events")? = events.len().into();
    let mut mended = format!("{head}\n");
    for (at, line) in events.iter().enumerate() {
        let mut event: Value = serde_json::from_str(line).ok()?;
        *event.get_mut("seq")? = (at + 1).into();
        mended.push_str(&format!("{event}\n"));
    }
    let tail = json!({ "sha256": sum(&mended) });
    Some(format!("{mended}{tail}\n"))
}

fn sum(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
