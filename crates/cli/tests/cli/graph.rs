//! `flow graph`: drawings of plans and of runs.

use insta::assert_snapshot;

use crate::run::FAILS;
use crate::support::Place;

/// A chain of `steps` steps on each of `hosts` hosts, and a few edges across.
fn big(steps: usize) -> String {
    let mut text = "name = \"big\"\nsummary = \"Many.\"\n".to_owned();
    for n in 0..steps {
        let needs = match n {
            0 => String::new(),
            1..4 => format!("needs = [\"step-{}\"]\n", n - 1),
            _ => format!("needs = [\"step-{}\", \"step-{}\"]\n", n - 1 - n % 3, n - 4),
        };
        text += &format!("[steps.step-{n}]\nuses = \"command\"\nhosts = \"web\"\n{needs}");
        text += &format!("with = {{ script = \"true\", creates = \"DIR/{n}\" }}\n");
    }
    text
}

#[test]
fn an_svg_has_a_box_for_each_step_and_one_edge_for_a_barrier() {
    let place = Place::new();
    place.file("fill.toml", FAILS);
    let svg = place.flow("graph fill.toml --format svg").exits(0).out;
    // Without the style sheet, which is the same in each.
    let (before, rest) = svg.split_once("<style>").unwrap();
    let (_, after) = rest.split_once("</style>").unwrap();
    assert_snapshot!(format!("{before}{after}"), @r##"
    <svg xmlns="http://www.w3.org/2000/svg" class="fg" role="img" viewBox="0 0 254 292" width="254" height="292">
    <title>fill</title>

    <rect class="fg-ground" width="254" height="292"/>
    <g transform="translate(16 16)">
    <path class="fg-edge" d="M111.0 64.0L111.0 98.0"/>
    <path class="fg-tip" d="M107.0 91.0L111.0 98.0L115.0 91.0Z"/>
    <path class="fg-edge" d="M111.0 162.0L111.0 196.0"/>
    <path class="fg-tip" d="M107.0 189.0L111.0 196.0L115.0 189.0Z"/>
    <g class="fg-step" transform="translate(0.0 0.0)"><title>first (command)</title><rect class="fg-box" width="222.0" height="64.0" rx="7"/>
    <text class="fg-name" x="12" y="23.0">first</text>
    <g class="fg-chip" transform="translate(12.0 34.0)"><title>first@web1</title><rect width="62.0" height="20" rx="10"/><text class="fg-sign" x="9" y="14"></text><text x="13" y="14">web1</text></g>
    <g class="fg-chip" transform="translate(80.0 34.0)"><title>first@web2</title><rect width="62.0" height="20" rx="10"/><text class="fg-sign" x="9" y="14"></text><text x="13" y="14">web2</text></g>
    <g class="fg-chip" transform="translate(148.0 34.0)"><title>first@web3</title><rect width="62.0" height="20" rx="10"/><text class="fg-sign" x="9" y="14"></text><text x="13" y="14">web3</text></g>
    </g>
    <g class="fg-step" transform="translate(0.0 98.0)"><title>second (command)</title><rect class="fg-box" width="222.0" height="64.0" rx="7"/>
    <text class="fg-name" x="12" y="23.0">second</text>
    <g class="fg-chip" transform="translate(12.0 34.0)"><title>second@web1</title><rect width="62.0" height="20" rx="10"/><text class="fg-sign" x="9" y="14"></text><text x="13" y="14">web1</text></g>
    <g class="fg-chip" transform="translate(80.0 34.0)"><title>second@web2</title><rect width="62.0" height="20" rx="10"/><text class="fg-sign" x="9" y="14"></text><text x="13" y="14">web2</text></g>
    <g class="fg-chip" transform="translate(148.0 34.0)"><title>second@web3</title><rect width="62.0" height="20" rx="10"/><text class="fg-sign" x="9" y="14"></text><text x="13" y="14">web3</text></g>
    </g>
    <g class="fg-step" transform="translate(0.0 196.0)"><title>third (command)</title><rect class="fg-box" width="222.0" height="64.0" rx="7"/>
    <text class="fg-name" x="12" y="23.0">third</text>
    <g class="fg-chip" transform="translate(12.0 34.0)"><title>third@web1</title><rect width="62.0" height="20" rx="10"/><text class="fg-sign" x="9" y="14"></text><text x="13" y="14">web1</text></g>
    <g class="fg-chip" transform="translate(80.0 34.0)"><title>third@web2</title><rect width="62.0" height="20" rx="10"/><text class="fg-sign" x="9" y="14"></text><text x="13" y="14">web2</text></g>
    <g class="fg-chip" transform="translate(148.0 34.0)"><title>third@web3</title><rect width="62.0" height="20" rx="10"/><text class="fg-sign" x="9" y="14"></text><text x="13" y="14">web3</text></g>
    </g>
    </g>
    </svg>
    "##);
    assert_eq!(place.flow("graph fill.toml --format svg").out, svg, "the same each time");
}

#[test]
fn a_run_is_drawn_with_the_states_of_its_tasks_in_every_format() {
    let place = Place::new();
    place.file("fill.toml", FAILS);
    place.flow("run fill.toml").exits(1);
    let run = place.newest();
    // What is drawn is the run as it was, also where the workflow is gone.
    std::fs::remove_file(place.path("fill.toml")).unwrap();
    assert_snapshot!(place.flow("graph --run last").exits(0), @r##"
    $ flow graph --run last
    1| flowchart TD
    1|     n0["✓ first@web1"]:::changed
    1|     n1["✓ first@web2"]:::changed
    1|     n2["✓ first@web3"]:::changed
    1|     n3(( ))
    1|     n4["✓ second@web1"]:::changed
    1|     n5["✕ second@web2"]:::failed
    1|     n6["✓ second@web3"]:::changed
    1|     n7(( ))
    1|     n8["· third@web1"]:::waiting
    1|     n9["· third@web2"]:::waiting
    1|     n10["· third@web3"]:::waiting
    1|     n11(( ))
    1|     n0 --> n3
    1|     n1 --> n3
    1|     n2 --> n3
    1|     n3 --> n4
    1|     n3 --> n5
    1|     n3 --> n6
    1|     n4 --> n7
    1|     n5 --> n7
    1|     n6 --> n7
    1|     n7 --> n8
    1|     n7 --> n9
    1|     n7 --> n10
    1|     n8 --> n11
    1|     n9 --> n11
    1|     n10 --> n11
    1|     classDef failed fill:#f8d0cc,stroke:#b3261e,color:#1b1b1b
    1|     classDef changed fill:#cfe8d6,stroke:#1f6f3d,color:#1b1b1b
    1|     classDef waiting fill:#ffffff,stroke:#8a8a8a,color:#1b1b1b
    exit 0
    "##);
    let dot = place.flow(&format!("graph --run {} --format dot", &run[..6])).exits(0).out;
    assert!(dot.contains("label = \"✕ second@web2\", style = filled"), "{dot}");
    let svg = place.flow("graph --run last --format svg").exits(0).out;
    for drawn in [
        "<title>second@web2: failed</title>",
        "class=\"fg-chip fg-failed\"",
        "<title>first@web1: changed</title>",
        "<title>third@web3: waiting</title>",
        ">failed 1</text>",
    ] {
        assert!(svg.contains(drawn), "{drawn}:\n{svg}");
    }
    place.flow("graph --run none").exits(3).says("hint: `flow runs` lists the runs");
}

#[test]
fn a_plan_of_many_steps_is_drawn_one_box_for_each() {
    let place = Place::new();
    place.file("big.toml", &big(40));
    let svg = place.flow("graph big.toml --format svg").exits(0).out;
    assert_eq!(svg.matches("class=\"fg-box\"").count(), 40);
    assert_eq!(svg.matches("class=\"fg-chip\"").count(), 120);
    // An edge for each barrier that isn't needless, and not one for each pair of tasks.
    assert!(svg.matches("class=\"fg-edge\"").count() < 80);
}

#[test]
fn what_a_workflow_says_stays_text_in_every_drawing() {
    let place = Place::new();
    place.file(
        "odd.toml",
        r#"
name = "odd"
summary = "s"
[steps.odd]
help = '''<script>alert("x")</script> & 'more' ]]>'''
uses = "command"
with = { script = "true", creates = "DIR/odd" }
"#,
    );
    let svg = place.flow("graph odd.toml --format svg").exits(0).out;
    assert!(
        svg.contains("&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; &#39;more&#39; ]]&gt;"),
        "{svg}"
    );
}
