//! The corpus under each tier that claims it, as root and as nobody (rows N3, N4, S22, D4, D6).
//!
//! For each case the oracle first counts what the case leaves, which has to be what its head says. Then the case runs twice in one fresh pid namespace: bare, which
//! leaves *bystanders* of the same name and arguments, and under the gate. Its report has to count what the oracle counted, and
//! afterwards the oracle has to find the bystanders, and nothing else.
//!
//! The controls: with no tier at all, and with only a tier whose blind spot the case is, the same run must leave the leak
//! alive; otherwise the case would show nothing about the detector.

use std::fs;

use headcount_tests::context::{Need, TestContext, Who};
use headcount_tests::oracle::{self, Count};
use serde_json::Value;

use crate::context;

/// Long enough for a tail to end, short enough for the table's hundreds of cells.
const GRACE: &str = "300ms";

/// How a cell's gate is confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the cgroup of the tests.
    Here,
    /// In a cgroup that root gave to the user (what systemd calls delegation).
    Delegated,
}

/// The columns of the table.
const CELLS: &[(Who, &str, Place)] = &[
    (Who::Root, "cgroup,subreaper,token", Place::Here),
    (Who::Root, "cgroup", Place::Here),
    (Who::Root, "subreaper", Place::Here),
    (Who::Root, "token", Place::Here),
    (Who::Root, "none", Place::Here),
    (Who::Nobody, "cgroup", Place::Delegated),
    (Who::Nobody, "subreaper", Place::Here),
    (Who::Nobody, "token", Place::Here),
    (Who::Nobody, "subreaper,token", Place::Here),
    (Who::Nobody, "none", Place::Here),
];

/// The cases that a tier, alone, cannot see: its written blind spots.
fn is_blind(tiers: &str, case: &str) -> bool {
    match tiers {
        "none" => true,
        "token" => matches!(case, "cleared_environment.py" | "rewritten_argv.pl"),
        _ => false,
    }
}

fn check(case: &str) {
    if !TestContext::needs(&[Need::Program("unshare"), Need::Program("python3"), Need::Program("perl")]) {
        return;
    }
    let is_root = TestContext::needs(&[Need::Root, Need::Cgroup]);
    let context = context();
    for who in TestContext::users() {
        let program = context.text(format!("corpus/{case}"));
        let expected = declared(&fs::read_to_string(&program).expect("a case"));
        let (bare, finished) = oracle::count(&context, *who, "1.0", &[program, "leak".into()]);
        assert_eq!(bare.exit, Some(0), "{case} leak, bare: {finished:?}");
        assert!(
            expected.alive.0 > 0
                && within(bare.alive, expected.alive)
                && within(bare.zombies, expected.zombies),
            "{case} says that it leaves {expected:?}, and the oracle counts {bare:?}"
        );
        for (_, tiers, place) in CELLS.iter().filter(|(cell, ..)| cell == who) {
            if is_root || (*place == Place::Here && !tiers.contains("cgroup")) {
                leak(&context, *who, tiers, *place, case, &expected);
                clean(&context, *who, tiers, *place, case);
            }
        }
    }
}

/// What the head of a case says that it leaves, as the oracle counted it over many runs: a span for the one that re-forks
/// itself, of which a single count can miss an end.
fn declared(source: &str) -> Count {
    let line =
        source.lines().find_map(|line| line.strip_prefix("# Remains after leak: ")).expect("what remains");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert!(matches!(words.as_slice(), [_, "alive,", _, "zombie." | "zombies."]), "{line}");
    let span = |place: usize| {
        let (least, most) = words[place].split_once('-').unwrap_or((words[place], words[place]));
        (least.parse().expect("a number"), most.parse().expect("a number"))
    };
    Count { exit: Some(0), alive: span(0), zombies: span(2) }
}

fn leak(context: &TestContext, who: Who, tiers: &str, place: Place, case: &str, expected: &Count) {
    let cell = format!("{case} leak, {who:?}, {tiers}, {place:?}");
    // The bare run comes first: what it leaves are bystanders.
    let (count, finished, report) =
        run(context, who, tiers, place, case, "leak", "\"$CASE\" leak || exit 99;");
    let doubled = |(least, most): (u64, u64)| (least * 2, most * 2);
    if is_blind(tiers, case) {
        let status = if tiers == "none" { (24, "inconclusive") } else { (0, "clean") };
        assert_eq!(
            (count.exit, report["verdict"].as_str()),
            (Some(status.0), Some(status.1)),
            "{cell}: {finished:?}"
        );
        assert!(
            within(count.alive, doubled(expected.alive)),
            "{cell}: without the detector the leak must survive: {count:?}, bare {expected:?}"
        );
        return;
    }
    assert_eq!(count.exit, Some(23), "{cell}: {report:#}\n{finished:?}");
    assert_eq!(report["verdict"], "leaked", "{cell}");
    let leaks = report["leaks"].as_array().expect("leaks");
    let zombies = leaks.iter().filter(|leak| leak["kind"] == "zombie").count() as u64;
    let alive = leaks.len() as u64 - zombies;
    assert!(
        within((alive, alive), expected.alive) && within((zombies, zombies), expected.zombies),
        "{cell}: {alive} alive and {zombies} dead, but the oracle counts {expected:?}: {report:#}"
    );
    let ended_by = match case {
        // It takes SIGTERM once it is continued.
        "stopped.py" => Some("term"),
        "term_ignored.py" => Some("kill"),
        _ => None,
    };
    assert!(
        leaks.iter().all(|leak| match ended_by {
            Some(by) => leak["ended_by"] == by,
            None => leak["ended_by"] != "unkillable",
        }),
        "{cell}: {report:#}"
    );
    assert!(
        within(count.alive, expected.alive) && within(count.zombies, expected.zombies),
        "{cell}: the bystanders, and nothing else, should live: {count:?}, bystanders {expected:?}: {report:#}"
    );
}

fn clean(context: &TestContext, who: Who, tiers: &str, place: Place, case: &str) {
    let cell = format!("{case} clean, {who:?}, {tiers}, {place:?}");
    let (count, finished, report) = run(context, who, tiers, place, case, "clean", "");
    let status = if tiers == "none" { (24, "inconclusive") } else { (0, "clean") };
    assert_eq!(
        (count.exit, report["verdict"].as_str()),
        (Some(status.0), Some(status.1)),
        "{cell}: {report:#}\n{finished:?}"
    );
    assert_eq!(report["leaks"].as_array().map(Vec::len), Some(0), "{cell}");
    assert_eq!((count.alive, count.zombies), ((0, 0), (0, 0)), "{cell}");
}

fn within(inner: (u64, u64), outer: (u64, u64)) -> bool {
    outer.0 <= inner.0 && inner.1 <= outer.1
}

fn run(
    context: &TestContext,
    who: Who,
    tiers: &str,
    place: Place,
    case: &str,
    mode: &str,
    before: &str,
) -> (Count, headcount_tests::Finished, Value) {
    let folder = context.folder_of(who, &format!("reports-{who:?}"));
    let file = folder.join(format!("{case}-{mode}-{}-{place:?}.json", tiers.replace(',', "-")));
    let grace = if mode == "clean" { "5s" } else { GRACE };
    let delegated = (place == Place::Delegated).then(|| Delegated::new(case));
    let join = delegated.as_ref().map_or(String::new(), |cgroup| cgroup.join.clone());
    let script = format!(
        "{before} exec \"$GATE\" run --grace {grace} --tier {tiers} --require-tier {tiers} --report json=\"$REPORT\" -- \
         \"$CASE\" {mode}"
    );
    let script = script.replace("--require-tier none", "");
    let environment = [
        format!("CASE={}", context.text(format!("corpus/{case}"))),
        format!("GATE={}", context.program().display()),
        format!("REPORT={}", file.display()),
    ];
    let mut line = vec!["env".to_owned()];
    line.extend(environment);
    line.extend(["sh".to_owned(), "-c".to_owned(), script]);
    let (count, finished) = oracle::count_in(context, who, "1.0", &join, &line);
    let text = fs::read_to_string(&file).unwrap_or_default();
    let report = serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("no report of {case} {mode} under {tiers} ({error}): {count:?} {finished:?}")
    });
    (count, finished, report)
}

/// A cgroup that belongs to nobody, removed on drop. Its maker has to move the gate in: owning a cgroup is not enough to move
/// into it from outside.
struct Delegated {
    cgroup: headcount_sys::cgroup::Cgroup,
    join: String,
}

impl Delegated {
    fn new(case: &str) -> Self {
        let own = headcount_sys::cgroup::own().expect("a cgroup");
        let name = format!("headcount-test-{}-{}", std::process::id(), case.replace('.', "-"));
        let cgroup = own.create(&name).expect("a new cgroup");
        for file in ["", "cgroup.procs"] {
            std::os::unix::fs::chown(cgroup.path().join(file), Some(65534), Some(65534))
                .expect("another owner");
        }
        let join = cgroup.path().join("cgroup.procs").display().to_string();
        Self { cgroup, join }
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        drop(self.cgroup.remove());
    }
}

macro_rules! cases {
    ($($name:ident: $file:literal)*) => {
        $(#[test] fn $name() { check($file); })*

        #[test]
        fn every_file_of_the_corpus_has_a_test() {
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/corpus");
            let mut files: Vec<String> = fs::read_dir(folder).unwrap().flatten()
                .map(|entry| entry.file_name().into_string().unwrap())
                .filter(|name| name != "README.md" && !name.starts_with("__"))
                .collect();
            files.sort();
            let mut tested = [$($file),*];
            tested.sort_unstable();
            assert_eq!(files, tested);
        }
    };
}

cases! {
    a_background_child: "background_child.sh"
    a_new_session: "setsid.py"
    a_double_fork_with_closed_stdio: "double_fork_closed_stdio.py"
    a_cleared_environment: "cleared_environment.py"
    an_ignored_term: "term_ignored.py"
    a_stopped_process: "stopped.py"
    a_rewritten_argv: "rewritten_argv.pl"
    a_main_thread_that_is_gone: "main_thread_gone.py"
    an_intermediate_subreaper: "intermediate_subreaper.py"
    a_reforker: "reforker.pl"
    a_zombie_under_a_leaked_parent: "zombie_under_leaked_parent.py"
    hundreds_at_once: "hundreds.py"
    a_listening_server: "listening_server.py"
    a_process_group: "process_group.py"
    grandchildren_of_a_posix_spawn: "posix_spawn_grandchildren.py"
    a_process_that_knows_its_test: "test_environment.py"
    secrets_in_arguments: "secret_argv.py"
    one_of_twenty_in_a_short_tail: "shallow_tail.py"
}
