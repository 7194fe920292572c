//! The corpus under each tier that claims it, as root and as nobody (rows N3, N4, S22, D4, D6).
//!
//! For each case the oracle first counts what the case leaves, which has to be what its head says. Then the case runs twice in one fresh
//! pid namespace: bare, which leaves *bystanders* of the same name and arguments, and under the gate. Its report has to count what
//! the oracle counted, and afterwards the oracle has to find the bystanders, and nothing else.
//!
//! What each cell came to is compared with the reviewed table, `tests/corpus/TABLE.md`: a number is how many were found and ended;
//! *blind* means that the tier cannot see the case: the verdict was clean, and the leak lived on, so the case is the control of the
//! tiers that do see it; *unsure*, that the verdict was inconclusive, and the leak lived on. Every other outcome fails, whatever
//! the table says. With a star, all were found and ended, but not counted exactly: they come and go, and only a cgroup freezes. With `HEADCOUNT_TABLE=FOLDER` the rows that were seen are written there, for review.

use std::fs;
use std::path::PathBuf;

use headcount_sys::cgroup::{self, Cgroup};
use headcount_tests::context::{Need, TestContext, Who};
use headcount_tests::oracle::{self, Count};
use serde_json::Value;

use crate::context;

/// Long enough for a tail to end, short enough for the table's hundreds of cells.
const GRACE: &str = "300ms";

/// The columns of the table: as whom, in which tiers.
const CELLS: &[(Who, &str)] = &[
    (Who::Root, "cgroup,subreaper,token"),
    (Who::Root, "cgroup"),
    (Who::Root, "subreaper"),
    (Who::Root, "token"),
    (Who::Root, "namespace"),
    (Who::Root, "none"),
    (Who::Nobody, "cgroup"),
    (Who::Nobody, "subreaper"),
    (Who::Nobody, "token"),
    (Who::Nobody, "subreaper,token"),
    (Who::Nobody, "namespace"),
    (Who::Nobody, "none"),
];

/// What stands in the table for a cell that was not to be run.
const NOT_RUN: &str = "-";

/// A case, and what its head says.
struct Case {
    file: &'static str,
    remains: Count,
    needs_root: bool,
    needs_cgroup: bool,
    programs: Vec<String>,
}

impl Case {
    fn read(context: &TestContext, file: &'static str) -> Self {
        let source =
            String::from_utf8_lossy(&fs::read(context.path(format!("corpus/{file}"))).expect("a case"))
                .into_owned();
        let needs: Vec<&str> = source
            .lines()
            .filter_map(|line| {
                line.trim_start_matches(['#', '/', ' ']).strip_prefix("Needs: ")?.strip_suffix('.')
            })
            .collect();
        Self {
            file,
            remains: declared(&source),
            needs_root: needs.contains(&"root"),
            needs_cgroup: needs.contains(&"cgroup"),
            programs: needs
                .iter()
                .filter_map(|need| need.strip_prefix("program "))
                .map(str::to_owned)
                .collect(),
        }
    }

    /// What is missing to run it; the language too.
    fn needs(&self) -> Vec<Need> {
        let language = match self.file.rsplit('.').next() {
            Some("c") => "cc",
            Some("js") => "node",
            Some("java") => "java",
            Some("pl") => "perl",
            _ => "python3",
        };
        let programs = self.programs.iter().map(String::as_str).chain([language, "unshare", "setpriv"]);
        programs.map(|name| Need::Program(name.to_owned().leak())).collect()
    }

    /// The words that run it, compiled if need be.
    fn words(&self, context: &TestContext) -> String {
        let path = context.text(format!("corpus/{}", self.file));
        match self.file.rsplit('.').next() {
            Some("c") => {
                let program = context.text(format!("{}.out", self.file));
                if !PathBuf::from(&program).exists() {
                    let who = *TestContext::users().first().expect("a user");
                    let mut compile = context.command(who, "cc");
                    compile.args(["-O1", "-o", &program, &path]);
                    let finished = context.finish(compile);
                    assert_eq!(finished.code, Some(0), "{finished:?}");
                }
                program
            }
            Some("js") => format!("node {path}"),
            Some("java") => format!("java {path}"),
            _ => path,
        }
    }
}

fn check(file: &'static str) {
    let context = context();
    let case = Case::read(&context, file);
    let is_root = TestContext::needs(&[Need::Root, Need::Cgroup]);
    let mut seen: Vec<String> = vec![NOT_RUN.to_owned(); CELLS.len()];
    if TestContext::needs(&case.needs()) {
        for who in TestContext::users() {
            if case.needs_root && (*who != Who::Root || !is_root) || case.needs_cgroup && !is_root {
                continue;
            }
            bare(&context, *who, &case);
            for (cell, (_, tiers)) in CELLS.iter().enumerate().filter(|(_, (cell, _))| cell == who) {
                if is_root || !tiers.contains("cgroup") {
                    if let Some(place) = seen.get_mut(cell) {
                        *place = leak(&context, *who, tiers, &case);
                    }
                    clean(&context, *who, tiers, &case);
                }
            }
        }
    }
    compare(file, &seen, is_root);
}

/// The reviewed table, beside the cases.
fn table() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus/TABLE.md"))
}

/// Compares a row with the reviewed one. Without root, a cell that could not be run is passed over; with root, it has to be one that
/// nobody can run.
fn compare(file: &str, seen: &[String], is_root: bool) {
    let row = |cells: &[String]| format!("| `{file}` | {} |", cells.join(" | "));
    let text = fs::read_to_string(table()).unwrap_or_default();
    let start = format!("| `{file}` |");
    let reviewed = text.lines().find(|line| line.starts_with(&start)).unwrap_or_default();
    if let Some(folder) = std::env::var_os("HEADCOUNT_TABLE") {
        fs::write(PathBuf::from(folder).join(file), row(seen) + "\n").expect("a row");
        return;
    }
    let cells: Vec<&str> = reviewed.split('|').skip(2).map(str::trim).collect();
    for (place, cell) in seen.iter().enumerate() {
        let wanted = cells.get(place).copied().unwrap_or("no such cell");
        let may_skip = cell == NOT_RUN && !is_root;
        assert!(
            may_skip || cell == wanted,
            "{file}, {:?}: the table says {wanted}, seen was {cell}\nreviewed {reviewed}\nseen     {}",
            CELLS.get(place),
            row(seen)
        );
    }
}

/// The oracle counts what the head says.
fn bare(context: &TestContext, who: Who, case: &Case) {
    let words = case.words(context);
    let (count, finished, _) = run(context, who, "", case, "leak", &format!("{words} leak"), "1.0");
    assert_eq!(count.exit, Some(0), "{} leak, bare: {finished:?}", case.file);
    assert!(
        case.remains.alive.0 > 0
            && within(count.alive, case.remains.alive)
            && within(count.zombies, case.remains.zombies),
        "{} says that it leaves {:?}, and the oracle counts {count:?}",
        case.file,
        case.remains
    );
}

/// What the head of a case says that it leaves, as the oracle counted it over many runs: a span for the one that re-forks
/// itself, of which a single count can miss an end.
fn declared(source: &str) -> Count {
    let line = source
        .lines()
        .find_map(|line| line.trim_start_matches(['#', '/', ' ']).strip_prefix("Remains after leak: "))
        .expect("what remains");
    let words: Vec<&str> = line.split_whitespace().collect();
    assert!(matches!(words.as_slice(), [_, "alive,", _, "zombie." | "zombies."]), "{line}");
    let span = |place: usize| {
        let (least, most) = words[place].split_once('-').unwrap_or((words[place], words[place]));
        (least.parse().expect("a number"), most.parse().expect("a number"))
    };
    Count { exit: Some(0), alive: span(0), zombies: span(2) }
}

/// What a cell came to. Anything but finding and ending all, or seeing nothing and touching nothing, is a failure.
fn leak(context: &TestContext, who: Who, tiers: &str, case: &Case) -> String {
    let cell = format!("{} leak, {who:?}, {tiers}", case.file);
    let expected = &case.remains;
    let words = case.words(context);
    // The bare run comes first: what it leaves are bystanders. In a shell of its own, or what it makes its sibling would be a child of
    // the gate.
    let script = format!(
        "({words} leak; exit $?) || exit 99; exec {}",
        gate(context, tiers, GRACE, &format!("{words} leak"))
    );
    let (count, finished, report) = run(context, who, tiers, case, "leak", &script, "0.1");
    let report = report.unwrap_or_else(|| panic!("{cell}: no report: {count:?} {finished:?}"));
    let doubled = |(least, most): (u64, u64)| (least * 2, most * 2);
    let verdict = report["verdict"].as_str().unwrap_or_default();
    if matches!((count.exit, verdict), (Some(0), "clean") | (Some(24), "inconclusive")) {
        assert!(
            within(count.alive, doubled(expected.alive)),
            "{cell}: without the detector the leak must survive: {count:?}, bare {expected:?}: {report:#}"
        );
        return if verdict == "clean" { "blind" } else { "unsure" }.to_owned();
    }
    assert_eq!((count.exit, verdict), (Some(23), "leaked"), "{cell}: {report:#}\n{finished:?}");
    let leaks = report["leaks"].as_array().expect("leaks");
    let zombies = leaks.iter().filter(|leak| leak["kind"] == "zombie").count() as u64;
    let alive = leaks.len() as u64 - zombies;
    // What forks and exits without pause can only be counted where it can be frozen.
    let is_exact = expected.alive.0 == expected.alive.1 || tiers.contains("cgroup");
    let alive_span = if is_exact { expected.alive } else { (1, expected.alive.1) };
    assert!(
        within((alive, alive), alive_span) && within((zombies, zombies), expected.zombies),
        "{cell}: {alive} alive and {zombies} dead, but the oracle counts {expected:?}: {report:#}"
    );
    let ended_by = match case.file {
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
    let span =
        |(least, most): (u64, u64)| if least == most { least.to_string() } else { format!("{least}-{most}") };
    if expected.zombies == (0, 0) {
        span(expected.alive) + if is_exact { "" } else { "*" }
    } else {
        format!("{} + {} dead", span(expected.alive), span(expected.zombies))
    }
}

fn clean(context: &TestContext, who: Who, tiers: &str, case: &Case) {
    let cell = format!("{} clean, {who:?}, {tiers}", case.file);
    let words = case.words(context);
    let script = format!("exec {}", gate(context, tiers, "5s", &format!("{words} clean")));
    let (count, finished, report) = run(context, who, tiers, case, "clean", &script, "1.0");
    let report = report.unwrap_or_else(|| panic!("{cell}: no report: {count:?} {finished:?}"));
    let status = if tiers == "none" { (24, "inconclusive") } else { (0, "clean") };
    assert_eq!(
        (count.exit, report["verdict"].as_str()),
        (Some(status.0), Some(status.1)),
        "{cell}: {report:#}\n{finished:?}"
    );
    assert_eq!(report["leaks"].as_array().map(Vec::len), Some(0), "{cell}");
    assert_eq!((count.alive, count.zombies), ((0, 0), (0, 0)), "{cell}");
}

/// The words that run a command under the gate.
fn gate(context: &TestContext, tiers: &str, grace: &str, command: &str) -> String {
    let program = context.program();
    let required = if tiers == "none" { String::new() } else { format!("--require-tier {tiers}") };
    format!(
        "{} run --grace {grace} --tier {tiers} {required} --report json=\"$REPORT\" -- {command}",
        program.display()
    )
}

fn within(inner: (u64, u64), outer: (u64, u64)) -> bool {
    outer.0 <= inner.0 && inner.1 <= outer.1
}

/// Runs a script under the oracle; in a cgroup of its own where the case or the tier is about cgroups.
fn run(
    context: &TestContext,
    who: Who,
    tiers: &str,
    case: &Case,
    mode: &str,
    script: &str,
    grace: &str,
) -> (Count, headcount_tests::Finished, Option<Value>) {
    let file = context.folder_of(who, &format!("reports-{who:?}")).join("report.json");
    drop(fs::remove_file(&file));
    let has_own = case.needs_cgroup || (who == Who::Nobody && tiers.contains("cgroup"));
    let delegated = has_own.then(|| Delegated::new(who, &format!("{}-{mode}", case.file)));
    let join = delegated.as_ref().map_or(String::new(), |cgroup| cgroup.join.clone());
    // Short, as it holds Unix sockets.
    let folder = context.folder_of(who, if who == Who::Root { "r" } else { "n" });
    let line = [
        "env",
        &format!("TMPDIR={}", folder.display()),
        &format!("REPORT={}", file.display()),
        "sh",
        "-c",
        script,
    ];
    let (count, finished) = oracle::count_in(context, who, grace, &join, &line.map(str::to_owned));
    let report = fs::read_to_string(&file).ok().and_then(|text| serde_json::from_str(&text).ok());
    (count, finished, report)
}

/// A cgroup that belongs to a user, removed on drop with what was made below it. Its maker has to move the gate in: owning a cgroup is
/// not enough to move into it from outside.
struct Delegated {
    cgroup: Cgroup,
    join: String,
}

impl Delegated {
    fn new(who: Who, case: &str) -> Self {
        let own = cgroup::own().expect("a cgroup");
        let name = format!("headcount-test-{}-{}", std::process::id(), case.replace('.', "-"));
        let cgroup = own.create(&name).expect("a new cgroup");
        if who == Who::Nobody {
            for file in ["", "cgroup.procs"] {
                std::os::unix::fs::chown(cgroup.path().join(file), Some(65534), Some(65534))
                    .expect("another owner");
            }
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
                .filter(|name| !name.ends_with(".md") && !name.starts_with("__"))
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
    a_chain_a_hundred_deep: "chain.c"
    a_cleared_environment: "cleared_environment.py"
    a_sibling_of_its_creator: "clone_parent.c"
    a_classical_daemon: "daemon_pidfile.c"
    a_deleted_executable: "deleted_executable.c"
    a_double_fork_with_closed_stdio: "double_fork_closed_stdio.py"
    a_fork_when_told_to_end: "fork_on_term.pl"
    a_real_gpg_agent: "gpg_agent.py"
    hundreds_at_once: "hundreds.py"
    an_inherited_listener: "inherited_listener.pl"
    an_intermediate_subreaper: "intermediate_subreaper.py"
    a_jvm_in_the_background: "java_background_jvm.java"
    a_child_of_a_jvm: "java_process_builder.java"
    a_listening_server: "listening_server.py"
    a_main_thread_that_is_gone: "main_thread_gone.py"
    pythons_multiprocessing: "multiprocessing_spawn.py"
    cgroups_below_the_gates_own: "nested_cgroups.py"
    another_network_namespace: "network_namespace.sh"
    a_cluster_worker_of_node: "node_cluster_worker.js"
    a_detached_child_of_node: "node_detached.js"
    a_fork_of_node: "node_fork.js"
    a_nohup: "nohup.sh"
    another_uid: "other_uid.py"
    grandchildren_of_a_posix_spawn: "posix_spawn_grandchildren.py"
    a_process_group: "process_group.py"
    a_real_redis: "redis_server.py"
    a_reforker: "reforker.pl"
    births_while_it_is_ended: "reforking_family.c"
    a_rewritten_argv: "rewritten_argv.pl"
    a_move_to_another_cgroup: "root_cgroup.sh"
    a_move_with_a_cleared_environment: "root_cgroup_cleared_environment.pl"
    a_daemon_that_was_moved: "root_cgroup_daemon.py"
    secrets_in_arguments: "secret_argv.py"
    an_exec_without_pause: "self_exec.c"
    a_new_session: "setsid.py"
    a_set_uid_program: "setuid_program.c"
    one_of_twenty_in_a_short_tail: "shallow_tail.py"
    every_signal_ignored: "signals_ignored.c"
    a_real_ssh_agent: "ssh_agent.py"
    a_stopped_process: "stopped.py"
    a_stopped_job: "stopped_job.pl"
    a_strange_name: "strange_name.c"
    an_ignored_term: "term_ignored.py"
    a_process_that_knows_its_test: "test_environment.py"
    a_real_tmux: "tmux.py"
    a_traced_and_stopped_process: "traced.c"
    a_user_and_pid_namespace: "user_pid_namespace.c"
    a_vfork_parent: "vfork_parent.c"
    a_zombie_under_a_leaked_parent: "zombie_under_leaked_parent.py"
}
