//! The codes of errors and their pages.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use insta::assert_snapshot;
use regex::Regex;

use crate::support::Place;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

/// Every page's code, file and text.
fn pages() -> Vec<(String, PathBuf, String)> {
    let mut pages: Vec<_> = fs::read_dir(docs().join("errors"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            (format!("flow::{}", path.file_stem().unwrap().to_str().unwrap()), path, text)
        })
        .collect();
    pages.sort();
    pages
}

#[test]
fn every_code_has_a_page_and_every_page_a_code() {
    let form = Regex::new(r#"(?:Code|Self)\("(flow::[a-z-]+)"\)"#).unwrap();
    let codes: BTreeSet<String> = [
        include_str!("../../../core/src/workflow/diagnostic.rs"),
        include_str!("../../../steps/src/host/codes.rs"),
        include_str!("../../src/codes.rs"),
    ]
    .into_iter()
    .flat_map(|source| form.captures_iter(source).map(|found| found[1].to_owned()).collect::<Vec<_>>())
    .collect();
    let paged: BTreeSet<String> = pages().into_iter().map(|(code, ..)| code).collect();
    assert_eq!(codes, paged);
    let table = fs::read_to_string(docs().join("workflow-language.md")).unwrap();
    for (code, path, text) in pages() {
        assert!(text.starts_with(&format!("# {code}\n\n")), "{code}: its title is another");
        let link = format!("[`{code}`](errors/{})", path.file_name().unwrap().to_str().unwrap());
        assert!(table.contains(&link), "docs/workflow-language.md lacks {link}");
    }
}

/// What stands in a block of a page, and where.
fn block<'p>(page: &'p str, language: &str) -> Option<&'p str> {
    let (_, rest) = page.split_once(&format!("```{language}\n"))?;
    rest.split_once("```").map(|(block, _)| block)
}

/// `UPDATE_EXPECT=1` writes what is shown into the pages.
#[test]
fn the_example_of_every_page_gives_what_it_shows() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let (mut run, mut wrong) = (0, Vec::new());
    for (code, path, page) in pages() {
        let Some(shown) = block(&page, "console") else {
            assert!(block(&page, "text").is_some_and(|text| text.contains(&code)), "{code}: no example");
            continue;
        };
        let place = Place::new();
        for (language, name) in [("toml", "example.toml"), ("ini", "inventory.ini")] {
            if let Some(text) = block(&page, language) {
                place.file(name, text);
            }
        }
        let mut now = String::new();
        for line in shown.lines().filter_map(|line| line.strip_prefix("$ flow ")) {
            let id = if line.contains("RUN") { place.newest() } else { String::new() };
            let ran = place.flow(&line.replace("RUN", &id));
            now.push_str(&format!("$ flow {line}\n{}", ran.seen()));
        }
        assert!(now.contains(&code), "{code}: its example gives another error:\n{now}");
        if update {
            fs::write(&path, page.replace(shown, &now)).unwrap();
        } else if shown != now {
            wrong.push(format!("{}:\n{now}", path.display()));
        }
        run += 1;
    }
    assert!(run > 20, "the pages are found");
    assert!(wrong.is_empty(), "{}\nUPDATE_EXPECT=1 writes what is shown now", wrong.join("\n\n"));
}

#[test]
fn explain_shows_a_page_lists_all_and_knows_the_nearest() {
    let place = Place::new();
    let page = fs::read_to_string(docs().join("errors/cycle.md")).unwrap();
    assert_eq!(place.flow("explain cycle").exits(0).out, page);
    assert_eq!(place.flow("explain flow::cycle").exits(0).out, page);
    let listed = place.flow("explain").exits(0).out;
    let cycle = listed.lines().find(|line| line.starts_with("cycle ")).unwrap();
    assert!(cycle.ends_with("  Steps that wait for each other, so that none of them can begin."), "{cycle}");
    assert_eq!(listed.lines().count(), pages().len());
    assert_snapshot!(place.flow("explain cicle").exits(3), @r"
    $ flow explain cicle
    2| error: no error has the code `cicle`
    2| hint: did you mean `cycle`?
    exit 3
    ");
    let all = place.flow("explain --output json").exits(0).document();
    assert_eq!(all.as_array().unwrap().len(), pages().len());
    assert_eq!(place.flow("explain cycle --output json").exits(0).document()["text"], page);
}

#[test]
fn every_error_carries_its_code_for_people_and_programs() {
    let place = Place::new();
    let ran = place.flow("show 7n3d --output json").exits(3).says("error[flow::no-run]: ");
    assert_eq!(ran.document()["errors"][0]["code"], "flow::no-run");
    let ran = place.flow("run nothing.toml --output json").exits(3);
    assert_eq!(ran.document()["errors"][0]["code"], "flow::file");
}
