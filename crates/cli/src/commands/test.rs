//! `flow test`: a workflow on simulated hosts, disturbed at every point. Contacts no host.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use flow_core::plan::{Filter, Inputs, NewSecrets};
use flow_core::step::Registry;
use flow_steps::host::sim::Release;
use flow_steps::rehearsal::{self, Options, ParamValue, RehearsalError, Stage, Subject, TestFile};
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::{Format, Global, WorkflowArgs};
use crate::exit::{Error, Exit};
use crate::{context, files, screen};

const AFTER_HELP: &str = "\
Without an inventory, three hosts are made up for every group that the workflow names. Hosts are
simulated; none is contacted. What the simulation doesn't know is told in NAME.test.toml beside the
workflow: docs/testing-workflows.md.

Exit codes:
  0    every case came to the end of an undisturbed run
  1    something did not hold; it is told how to see it again
  3    the workflow can't be tested so: it is wrong, or the simulation lacks an answer
  4    all held, but after a crash or a lost answer a person must say what became of a task";

/// What `flow test` takes.
#[derive(Args, Clone)]
#[command(after_help = AFTER_HELP)]
pub struct TestArgs {
    #[command(flatten)]
    pub workflow: WorkflowArgs,

    /// What the simulated hosts run [default: bookworm].
    #[arg(long, value_enum, value_name = "RELEASE")]
    pub release: Option<ReleaseArg>,

    /// Begin with a healthy cluster, made by deploy.toml, instead of bare hosts.
    #[arg(long, conflicts_with = "after")]
    pub deployed: bool,

    /// Begin with what this workflow leaves; may be given more than once.
    #[arg(long, value_name = "WORKFLOW")]
    pub after: Vec<String>,

    /// Only the cases of this task or step, or one case: TASK/POINT, as a report names it.
    #[arg(long, value_name = "TASK[/POINT]")]
    pub only: Option<String>,

    /// So many cases at once [default: the number of processors].
    #[arg(long, value_name = "COUNT")]
    pub jobs: Option<usize>,

    /// How long one run may take before it counts as stuck, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub patience: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReleaseArg {
    /// Debian 12.
    Bookworm,
    /// Debian 13.
    Trixie,
}

impl From<ReleaseArg> for Release {
    fn from(release: ReleaseArg) -> Self {
        match release {
            ReleaseArg::Bookworm => Self::Bookworm,
            ReleaseArg::Trixie => Self::Trixie,
        }
    }
}

pub async fn test(global: &Global, args: TestArgs) -> Result<Exit, Error> {
    let format = global.output;
    // The rehearsal blocks, and has runtimes of its own.
    let done = tokio::task::spawn_blocking(move || rehearse(&args, format)).await;
    let report = done.map_err(|e| Error::refused(format!("the test broke: {e}"), "please report this"))??;
    screen::rehearsal::show(&report, format);
    Ok(match report.verdict {
        "held" => Exit::Success,
        "unknown" => Exit::Undecided,
        _ => Exit::Failed,
    })
}

fn rehearse(args: &TestArgs, format: Format) -> Result<rehearsal::Report, Error> {
    // flow's own step types only: a plugin is a program, and would be run for real.
    let mut registry = Registry::new();
    flow_steps::register(&mut registry);
    let name = &args.workflow.workflow;
    let file = read_test_file(name)?;
    let release = args.release.map(Release::from).or(file.release).unwrap_or_default();
    let mut inputs = inputs(&file);
    inputs.set.extend(args.workflow.set.iter().cloned());
    let subject = Subject {
        bundle: files::load(name, &registry)?,
        inputs,
        filter: Filter {
            limit: context::limit(args.workflow.limit.as_deref())?,
            tags: args.workflow.tags.iter().cloned().collect(),
        },
    };
    let asked = args.deployed || !args.after.is_empty();
    let before = match args.deployed {
        true => vec![("deploy.toml".to_owned(), BTreeMap::new())],
        false if asked => args.after.iter().map(|name| (name.clone(), BTreeMap::new())).collect(),
        false => {
            let parts = file.after.iter().map(rehearsal::Before::parts);
            parts.map(|(named, params)| (beside(name, named), params)).collect::<Vec<_>>()
        }
    };
    let after = before.into_iter().map(|(name, params)| earlier(&name, params, &registry));
    let after = after.collect::<Result<Vec<_>, Error>>()?;
    let inventory = match context::inventory(&args.workflow.inventory, Some(name))? {
        Some(inventory) => inventory,
        None => {
            let bundles = after.iter().chain([&subject]).map(|subject| &subject.bundle);
            rehearsal::invent(bundles, release, &file.groups, &file.vars)
        }
    };
    if format == Format::Text {
        let names: Vec<&str> = inventory.hosts.keys().map(String::as_str).collect();
        let from = if inventory.sources.is_empty() { "made up" } else { "of the inventory" };
        screen::tell(&format!("simulated hosts, {from}: {}; none is contacted", names.join(", ")));
    }
    let stage = Stage {
        release,
        inventory,
        after,
        accidents: if asked { Vec::new() } else { file.accidents(release) },
        commands: file.commands()?,
        queries: file.queries()?,
    };
    let mut options = Options {
        patience: Duration::from_secs(args.patience.max(1)),
        only: args.only.clone(),
        accept: file.accept,
        ..Options::default()
    };
    options.jobs = args.jobs.unwrap_or(options.jobs).max(1);
    // Drawn on a terminal only.
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos} of {len} cases, {elapsed}") {
        bar.set_style(style);
    }
    let progress = |done: usize, of: usize| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    };
    let report = rehearsal::rehearse(registry, &stage, &subject, &options, &progress);
    bar.finish_and_clear();
    Ok(report?)
}

/// The workflow's test file; an empty one where it has none.
fn read_test_file(workflow: &str) -> Result<TestFile, Error> {
    let found = files::test_file(workflow).map_err(|e| {
        Error::refused(format!("the test file can't be read: {e}"), "it is UTF-8, beside the workflow")
    })?;
    Ok(match found {
        Some((name, text)) => TestFile::parse(&name, &text)?,
        None => TestFile::default(),
    })
}

/// A workflow that a test file names: one beside it, else a shipped one.
fn beside(workflow: &str, named: &str) -> String {
    let folder = Path::new(workflow).parent().map(Path::to_owned).unwrap_or_default();
    let path: PathBuf = folder.join(named);
    if path.is_file() { path.display().to_string() } else { named.to_owned() }
}

/// What a test file gives; what it doesn't give is made of names.
fn inputs(file: &TestFile) -> Inputs {
    let set = file.params.iter().map(|(name, value)| (name.clone(), value.as_set())).collect();
    Inputs { set, secrets: NewSecrets::OfNames, allow_weak: true }
}

/// A workflow that is run before, with these params before those of its own test file.
fn earlier(name: &str, params: BTreeMap<String, ParamValue>, registry: &Registry) -> Result<Subject, Error> {
    let mut file = read_test_file(name)?;
    file.params.extend(params);
    Ok(Subject { bundle: files::load(name, registry)?, inputs: inputs(&file), filter: Filter::default() })
}

impl From<RehearsalError> for Error {
    fn from(error: RehearsalError) -> Self {
        match error {
            RehearsalError::Refused(diagnostics) => Self::Diagnostics(diagnostics),
            error => {
                Self::Detailed { message: error.to_string(), detail: error.detail(), hint: error.hint() }
            }
        }
    }
}
