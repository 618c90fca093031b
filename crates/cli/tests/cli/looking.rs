//! Commands that only show something.

use std::process::Stdio;

use insta::assert_snapshot;

use crate::run::{FAILS, MAKE};
use crate::support::Place;

#[test]
fn the_help_names_every_command_and_exit_code() {
    let place = Place::new();
    assert_snapshot!(place.flow("--help").exits(0).out, @r#"
    Runs the procedures of PostgreSQL high-availability clusters: planned, checkpointed, resumable

    Usage: flow [OPTIONS] <COMMAND>

    Commands:
      run          Run a workflow, or apply a plan file
      resume       Go on with a run that was interrupted, failed or killed
      undo         Take a run back: undo what it did, in reverse order
      plan         Show what a run would do. Changes nothing; exit code 2 when there is something to do
      diagnose     Show what is wrong with a cluster. Changes nothing; exit code 2 when something is
      validate     Check a workflow without touching any host
      test         Run a workflow on simulated hosts, and disturb it at every point: does it hold?
      runs         List the runs, newest first, or remove old ones
      show         Show a run: every task's state, times, attempts and output
      report       Write a run down as one HTML file, for the postmortem
      inventory    Show the inventory as flow reads it, and where each value stands
      steps        List the step types, or show one with its arguments
      schema       Print the JSON Schema of workflows, by which editors complete and check
      workflows    List the shipped workflows
      export       Write a run with its definition and events to a file, to be looked at elsewhere
      import       Take in a run that `flow export` wrote
      graph        Draw a workflow's tasks and what needs what
      approve      Approve what a run waits for, or reject it
      resolve      Show what is known of a task of which nobody can tell what became of it, and say it
      locks        List the hosts' locks: whose each is, and whether anything of its run is alive
      unlock       Take a run's locks off its hosts, once nothing of it is alive there
      explain      Say what the code of an error means, and what to do
      eject        Write a shipped workflow out with its files, to be changed
      completions  Write what a shell completes
      man          Write the manual pages
      help         Print this message or the help of the given subcommand(s)

    Options:
          --store <URL>
              Where runs are kept: sqlite:PATH [default: $XDG_STATE_HOME/flow/runs.db]
              
              [env: FLOW_STORE=]

          --output <FORMAT>
              How results are written. `json` is stable; see docs/json.md

              Possible values:
              - text: For people
              - json: For programs
              
              [default: text]

          --plugins <DIR>
              A folder with plugins, looked into before those of FLOW_PLUGIN_PATH; may be given several
              times

      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Exit codes:
      0    done, taken back, or nothing to do
      1    a task failed; `flow resume` goes on, or `flow undo` where it is being taken back
      2    plan: there is something to do; diagnose: something is wrong
      3    refused before anything was changed
      4    what became of a task can't be told; a person must decide
      5    the store can't be used
      64   the command line is wrong
      130  stopped by Ctrl-C; the same goes on

    Data goes to standard output, everything else to standard error.
    `flow explain CODE` says more about an error.
    "#);
}

#[test]
fn the_documentation_lists_the_exit_codes_of_the_help() {
    let help = Place::new().flow("--help").exits(0).out;
    let docs = include_str!("../../../../docs/json.md");
    let codes =
        help.lines().skip_while(|line| *line != "Exit codes:").skip(1).take_while(|line| !line.is_empty());
    let mut count = 0;
    for line in codes {
        let (code, text) = line.trim().split_once("  ").unwrap();
        let row = format!("| {code} | {} |", text.trim());
        assert!(docs.contains(&row), "docs/json.md lacks: {row}");
        count += 1;
    }
    assert_eq!(
        docs.lines().filter(|line| line.starts_with("| ") && line[2..3].parse::<u8>().is_ok()).count(),
        count
    );
}

#[test]
fn runs_are_listed_newest_first() {
    let place = Place::new();
    assert_snapshot!(place.flow("runs").exits(0), @r#"
    $ flow runs
    1| no runs yet
    exit 0
    "#);
    place.file("make.toml", MAKE);
    place.file("fill.toml", FAILS);
    place.flow("run fill.toml").exits(1);
    place.flow("run make.toml").exits(0);
    assert_snapshot!(place.flow("runs").exits(0), @r#"
    $ flow runs
    1| RUN  WHEN  succeeded     make
    1| RUN  WHEN  failed        fill
    exit 0
    "#);
    assert_snapshot!(place.flow("runs -n 1").exits(0), @r#"
    $ flow runs -n 1
    1| RUN  WHEN  succeeded     make
    1| ... and 1 more: --count 2
    exit 0
    "#);
}

#[test]
fn show_tells_the_state_of_every_task() {
    let place = Place::new();
    place.file("fill.toml", &FAILS.replace("\"web\"", "\"web2\""));
    place.flow("run fill.toml").exits(1);
    let short = place.flow("show").exits(0);
    let long = place.flow("show -v").exits(0);
    assert_snapshot!(format!("{short}\n\n{long}"), @r#"
    $ flow show
    1| run RUN (RUN), fill: failed
    1|   WHEN  started by OWNER
    1|   WHEN  failed
    1|
    1| changed     first@web2 SECONDS  run: echo x >>DIR/first-web2
    1| failed      second@web2 SECONDS  exit status 7: it is full  [2 attempts]
    1| waiting     third@web2
    1|
    1| go on with: flow resume RUN
    1| can't be taken back: first: the step has no `undo`
    exit 0

    $ flow show -v
    1| run RUN (RUN), fill: failed
    1|   WHEN  started by OWNER
    1|   WHEN  failed
    1|
    1| changed     first@web2 SECONDS  run: echo x >>DIR/first-web2
    1|              code: 0
    1| failed      second@web2 SECONDS  exit status 7: it is full  [2 attempts]
    1|              no room
    1|              it is full
    1| waiting     third@web2
    1|
    1| go on with: flow resume RUN
    1| can't be taken back: first: the step has no `undo`
    exit 0
    "#);
}

#[test]
fn validate_says_what_it_has_checked() {
    let place = Place::new();
    place.file("make.toml", MAKE);
    assert_snapshot!(place.flow("validate make.toml").exits(0), @r#"
    $ flow validate make.toml
    1| make: 1 step, 3 tasks, no errors
    exit 0
    "#);
    std::fs::remove_file(place.path("inventory.ini")).unwrap();
    assert_snapshot!(place.flow("validate make.toml").exits(0), @r#"
    $ flow validate make.toml
    1| make: 1 step, no errors; give -i INVENTORY to check hosts and params too
    exit 0
    "#);
}

#[test]
fn the_graph_is_drawn_in_the_languages_of_other_programs() {
    let place = Place::new();
    place.file("fill.toml", &FAILS.replace("\"web\"", "\"web2\""));
    assert_snapshot!(place.flow("graph fill.toml").exits(0), @r#"
    $ flow graph fill.toml
    1| flowchart TD
    1|     n0["first@web2"]
    1|     n1["second@web2"]
    1|     n2["third@web2"]
    1|     n0 --> n1
    1|     n1 --> n2
    exit 0
    "#);
    assert_snapshot!(place.flow("graph fill.toml --format dot").exits(0), @r#"
    $ flow graph fill.toml --format dot
    1| digraph "fill" {
    1|     rankdir = TB;
    1|     node [shape = box];
    1|     n0 [label = "first@web2"];
    1|     n1 [label = "second@web2"];
    1|     n2 [label = "third@web2"];
    1|     n0 -> n1;
    1|     n1 -> n2;
    1| }
    exit 0
    "#);
}

#[test]
fn a_step_type_is_shown_with_its_arguments() {
    let place = Place::new();
    let list = place.flow("steps").exits(0).out;
    assert!(list.contains("Runs a shell script on the host."), "{list}");
    assert!(
        list.lines().any(|line| line.starts_with("etcd.prefix_absent") && line.ends_with("[destructive]"))
    );
    assert_snapshot!(place.flow("steps directory").exits(0), @r#"
    $ flow steps directory
    1| directory
    1|
    1|   A directory with this owner and mode. What is in it is not looked at.
    1|
    1|   Directories above it are made where they are missing (root, 0755). Undo removes what was made, if
    1|   nothing is in it, or sets owner and mode back. Output: `path`.
    1|
    1| Arguments:
    1|   path (string, required)
    1|       Absolute path.
    1|   owner (string)
    1|       Owner; of an existing directory it is kept, a new one is root's.
    1|   group (string)
    1|       Group; as with `owner`.
    1|   mode (string)
    1|       Permission bits, octal as text: `"0750"`. Kept, or `0755` for a new directory.
    1|
    1| What it does can be taken back.
    exit 0
    "#);
    assert_snapshot!(place.flow("steps comand").exits(3), @r#"
    $ flow steps comand
    2| error: there is no step type `comand`
    2| hint: did you mean `command`?
    exit 3
    "#);
}

#[test]
fn the_shipped_workflows_are_listed_and_each_is_valid() {
    let place = Place::new();
    let list = place.flow("workflows").exits(0).out;
    assert!(list.contains("deploy.toml") && list.contains("system-id-recovery.toml"), "{list}");
    let wide = list.lines().find(|line| line.chars().count() > 140);
    assert_eq!(wide, None);
    for workflow in place.flow("workflows --output json").document().as_array().unwrap() {
        std::fs::remove_file(place.path("inventory.ini")).unwrap_or_default();
        place.flow(&format!("validate {}", workflow["file"].as_str().unwrap())).exits(0);
    }
}

#[test]
fn a_reader_that_goes_away_is_no_fault() {
    let place = Place::new();
    for line in ["steps", "runs", "workflows", "--help"] {
        let mut command = place.command(line);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success() && said.is_empty(), "{line}: {:?} {said}", ended.status);
    }
}

#[test]
fn a_reader_that_goes_away_does_not_stop_a_run() {
    let place = Place::new();
    place.file("make.toml", MAKE);
    let mut command = place.command("run make.toml --output json");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
    assert!(place.has("made-web3"));
}
