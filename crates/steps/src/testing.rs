//! What the tests of step types share: a simulated world, and contexts of tasks in it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use flow_core::inventory;
use flow_core::run::{RunId, TaskName};
use flow_core::step::{
    Attempt, Check, Context, ContextParts, Renderer, Resolved, Resources, Step, StepError,
};
use flow_core::step::{Change, Output};
use serde_json::json;

use crate::host::sim::{Release, SimWorld};
use crate::host::{Host, Hosts, LockClaim};

/// Simulated hosts, and the way of a task to them.
pub(crate) struct Lab {
    pub(crate) world: SimWorld,
    files: BTreeMap<String, String>,
    _directory: tempfile::TempDir,
}

pub(crate) const HOSTS: [(&str, &str); 3] =
    [("patroni1", "198.18.0.11"), ("patroni2", "198.18.0.12"), ("patroni3", "198.18.0.13")];
/// The data directory on bookworm.
pub(crate) const DATA: &str = "/var/lib/postgresql/15/main";
pub(crate) const BIN: &str = "/usr/lib/postgresql/15/bin";

const PATRONI: &str = "scope: demo\nnamespace: /service/\nname: HOST\nrestapi:\n  listen: ADDRESS:8008\n  \
    connect_address: ADDRESS:8008\netcd3:\n  hosts: [198.18.0.11:2379, 198.18.0.12:2379, 198.18.0.13:2379]\n\
    bootstrap:\n  dcs:\n    ttl: 30\n    loop_wait: 10\npostgresql:\n  listen: ADDRESS:5432\n  \
    connect_address: ADDRESS:5432\n  data_dir: /var/lib/postgresql/VERSION/main\n  \
    bin_dir: /usr/lib/postgresql/VERSION/bin\n";

/// The run of all tests.
pub(crate) const RUN: &str = "0123456789ab";

impl Lab {
    /// Three bare hosts, locked by the run.
    pub(crate) async fn bare() -> Self {
        Self::of(Release::Bookworm).await
    }

    pub(crate) async fn of(release: Release) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path: PathBuf = directory.path().join("world.json");
        let world = SimWorld::create(path, release, ["patroni1", "patroni2", "patroni3"]).unwrap();
        let lab = Self { world, files: BTreeMap::new(), _directory: directory };
        for host in ["patroni1", "patroni2", "patroni3"] {
            let claim = LockClaim {
                run: RUN.into(),
                workflow: "test".into(),
                owner: "test".into(),
                epoch: 1,
                since: started(),
            };
            lab.world.host(host).lock(&claim).await.unwrap();
        }
        lab
    }

    /// A healthy cluster of three, made by this library's own steps.
    pub(crate) async fn deployed() -> Self {
        Self::deployed_on(Release::Bookworm).await
    }

    pub(crate) async fn deployed_on(release: Release) -> Self {
        let lab = Self::of(release).await;
        let version = if release == Release::Bookworm { 15 } else { 17 };
        let peers = [
            "patroni1=http://198.18.0.11:2380",
            "patroni2=http://198.18.0.12:2380",
            "patroni3=http://198.18.0.13:2380",
        ];
        for (host, address) in HOSTS {
            lab.make(host, "file", json!({
                "path": "/etc/postgresql-common/createcluster.conf", "parents": true, "content": "create_main_cluster = false\n",
            })).await;
            lab.make(
                host,
                "package",
                json!({
                    "names": ["postgresql-common", format!("postgresql-{version}"), "etcd-server", "patroni"],
                    "mask": ["etcd.service", "patroni.service"],
                }),
            )
            .await;
            // The packages make it only where they make a cluster of their own.
            lab.make(host, "directory", json!({
                "path": format!("/var/lib/postgresql/{version}"), "owner": "postgres", "group": "postgres",
            })).await;
            let etcd = format!("ETCD_NAME={host}\nETCD_INITIAL_CLUSTER={}\n", peers.join(","));
            lab.make(host, "file", json!({ "path": "/etc/default/etcd", "content": etcd })).await;
            let patroni = PATRONI
                .replace("HOST", host)
                .replace("ADDRESS", address)
                .replace("VERSION", &version.to_string());
            lab.make(host, "file", json!({
                "path": "/etc/patroni/config.yml", "content": patroni, "mode": "0600", "owner": "postgres",
            })).await;
        }
        for unit in ["etcd.service", "patroni.service"] {
            for (host, _) in HOSTS {
                let running = json!({ "unit": unit, "state": "running", "enabled": true, "masked": false });
                lab.make(host, "systemd.unit", running).await;
            }
        }
        lab
    }

    /// Another process takes the run over on a host.
    pub(crate) async fn take_over(&self, host: &str) {
        let holder = self.world.host(host).lock_holder().await.unwrap().unwrap();
        let claim = LockClaim { epoch: holder.epoch + 1, ..holder };
        self.world.host(host).lock(&claim).await.unwrap();
    }

    /// Carries out one step.
    pub(crate) async fn make(&self, host: &str, uses: &str, with: serde_json::Value) {
        let mut registry = flow_core::step::Registry::new();
        crate::register(&mut registry);
        let step = registry.get(uses).unwrap().make(with).unwrap();
        self.establish(&*step, &self.on(host)).await;
    }

    /// Gives a member a data directory of another cluster, as fixtures/lab/break-system-id does.
    pub(crate) async fn break_system_id(&self, host: &str) {
        self.world
            .edit_host(host, |host| {
                let path = format!("{DATA}/global/pg_control");
                let text = host.files.text(&path).unwrap().to_owned();
                let mut control: serde_json::Value = serde_json::from_str(&text).unwrap();
                control["system_identifier"] = json!("7799999999999999999");
                host.files.write(&path, control.to_string(), &Default::default()).unwrap();
            })
            .unwrap();
    }

    /// Adds a file of the workflow's folder.
    pub(crate) fn with_file(mut self, name: &str, text: &str) -> Self {
        self.files.insert(name.to_owned(), text.to_owned());
        self
    }

    /// The context of a task on a host.
    pub(crate) fn on(&self, host: &str) -> Context {
        self.context(host, false)
    }

    /// The same while only a plan is made.
    pub(crate) fn planning(&self, host: &str) -> Context {
        self.context(host, true)
    }

    fn context(&self, host: &str, planning: bool) -> Context {
        let world = self.world.clone();
        let mut resources = Resources::default();
        resources.insert(Hosts::with_factory(Arc::new(move |entry| Ok(world.host(&entry.name)))));
        let serde_json::Value::Object(vars) = json!({ "answer": "42" }) else { unreachable!() };
        let host = Arc::new(inventory::Host { name: host.to_owned(), vars, ..inventory::Host::default() });
        context("step", Some(host), resources, Files(self.files.clone()), planning)
    }

    /// Check says pending, apply does it, check says satisfied.
    pub(crate) async fn establish(&self, step: &dyn Step, cx: &Context) -> (Change, Output) {
        let change = pending(step.check(cx).await.unwrap());
        let output = step.apply(cx, &change).await.unwrap();
        satisfied(step.check(cx).await.unwrap());
        (change, output)
    }

    /// How many changes the hosts have seen.
    pub(crate) fn effects(&self) -> Vec<String> {
        self.world.effects().unwrap().into_iter().map(|effect| effect.text).collect()
    }

    /// A file's text.
    pub(crate) fn text(&self, host: &str, path: &str) -> Option<String> {
        self.world.state().unwrap().hosts[host].files.text(path).map(str::to_owned)
    }
}

pub(crate) fn pending(check: Check) -> Change {
    match check {
        Check::Pending(change) => change,
        other => panic!("not pending: {other:?}"),
    }
}

pub(crate) fn satisfied(check: Check) -> Output {
    match check {
        Check::Satisfied(output) => output,
        other => panic!("not satisfied: {other:?}"),
    }
}

pub(crate) fn refused(check: Check) -> String {
    match check {
        Check::Refused(why) => why,
        other => panic!("not refused: {other:?}"),
    }
}

pub(crate) fn done(resolved: Resolved) -> Output {
    match resolved {
        Resolved::Done(output) => output,
        other => panic!("not done: {other:?}"),
    }
}

/// The context of a task on a host that is no simulated one. It is to be locked by [`RUN`], epoch 1.
pub(crate) fn on_real(host: Arc<dyn Host>) -> Context {
    let entry = inventory::Host { name: host.name().to_owned(), ..inventory::Host::default() };
    let mut resources = Resources::default();
    resources.insert(Hosts::with_factory(Arc::new(move |_| Ok(host.clone()))));
    context("step", Some(Arc::new(entry)), resources, Files::default(), false)
}

/// The context of a task at the operator's place.
pub(crate) fn operator() -> Context {
    operator_for("step")
}

/// The same in a rehearsal.
pub(crate) fn operator_rehearsing() -> Context {
    let mut resources = Resources::default();
    resources.insert(crate::rehearsal::Rehearsed);
    context("step", None, resources, Files::default(), false)
}

/// The same for a task of that name.
pub(crate) fn operator_for(task: &str) -> Context {
    context(task, None, Resources::default(), Files::default(), false)
}

fn context(
    task: &str,
    host: Option<Arc<inventory::Host>>,
    resources: Resources,
    files: Files,
    planning: bool,
) -> Context {
    Context::new(ContextParts {
        attempt: Attempt {
            run: RunId::from_text(RUN),
            task: TaskName::new(task, host.as_deref().map(|host| host.name.as_str())),
            number: 1,
            epoch: 1,
        },
        host,
        resources: Arc::new(resources),
        progress: Arc::new(()),
        renderer: Arc::new(files),
        run_started: started(),
        planning,
    })
}

fn started() -> jiff::Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

/// Renders `{{ answer }}` and nothing else.
#[derive(Default)]
struct Files(BTreeMap<String, String>);

impl Renderer for Files {
    fn render(&self, text: &str) -> Result<String, StepError> {
        Ok(text.replace("{{ answer }}", "42"))
    }

    fn file(&self, name: &str) -> Result<String, StepError> {
        self.0.get(name).cloned().ok_or_else(|| StepError::permanent("no such file"))
    }
}
