//! Checks of the tree itself: what the style asks for and no compiler checks.
#![expect(clippy::unwrap_used, reason = "functions of a test are tests too")]

use std::fs;
use std::path::{Path, PathBuf};

/// The rows of the requirements that are finished, each to be cited by the test that shows it.
const FINISHED: &[&str] = &["D6", "S16", "S26"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every source file with one of these endings, outside of build output.
fn sources(endings: &[&str]) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut pending = vec![root()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_dir() {
                if name != "target" && !name.starts_with('.') && name != "node_modules" {
                    pending.push(path);
                }
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    assert!(found.len() > 20, "the sources are not where they are looked for");
    found.sort();
    found
}

/// Row S16: waiting is on state. The leaking programs may sleep; nothing else may.
#[test]
fn nothing_sleeps_but_the_leaking_programs() {
    // Put together, so that this file does not hold what it looks for.
    let words = ["thread::sl", "time.sl", "time::sl"].map(|word| format!("{word}eep("));
    for (path, text) in sources(&[".rs", ".py", ".pl"]) {
        if !path.starts_with("tests/corpus") {
            for word in &words {
                assert!(!text.contains(word.as_str()), "{} sleeps: {word}", path.display());
            }
        }
    }
}

#[test]
fn unsafe_code_is_in_sys_only() {
    let word = format!("un{} {{", "safe");
    for (path, text) in sources(&[".rs"]) {
        if !path.starts_with("harness/sys/src") {
            assert!(!text.contains(&word), "{} has unsafe code", path.display());
        }
    }
}

#[test]
fn every_finished_row_is_cited_by_a_test() {
    let tests: String = sources(&[".rs"])
        .into_iter()
        .filter(|(path, _)| path.to_str().unwrap().contains("/tests/") && !path.ends_with("tree.rs"))
        .map(|(_, text)| text)
        .collect();
    for row in FINISHED.iter().filter(|row| **row != "S16") {
        let is_cited = tests.split(|c: char| !c.is_alphanumeric()).any(|word| word == *row);
        assert!(is_cited, "no test cites row {row}");
    }
}
