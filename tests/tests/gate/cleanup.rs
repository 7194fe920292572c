//! What killed gates left is found, ended and removed, and nothing else is (rows S8, S9, S13, S25, N7).

use std::fs;
use std::path::Path;

use headcount_sys::state::{Record, RunId, SCHEMA};
use headcount_sys::{Pid, PidFd, ProcessId, Signal};
use headcount_tests::Finished;
use headcount_tests::context::{Need, TestContext, Who, ends, say};
use serde_json::Value;

use crate::context;

/// Two daemons, the second with a cleared environment. Both end by themselves after 100 s, and have a mark among their arguments.
/// The shell goes on once both have let go of its pipe, which is when they are what they are.
const DAEMONS: &str = "\
    : $(setsid perl -e 'close STDOUT; alarm 100; select undef, undef, undef, 99' \"$0\" </dev/null 2>/dev/null & \
    env -i setsid perl -e 'close STDOUT; alarm 100; select undef, undef, undef, 99' \"$0\" </dev/null 2>/dev/null &); \
    ";

fn cleanup(context: &TestContext, who: Who, action: &str) -> (Finished, Value) {
    let folder = context.folder_of(who, &format!("cleanup-{who:?}"));
    let file = folder.join("report.json");
    let finished = context.finish(context.gate(who, &[action, &format!("--report=json={}", file.display())]));
    let report = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    (finished, report)
}

fn processes(report: &Value) -> Vec<&Value> {
    report["runs"].as_array().unwrap().iter().flat_map(|run| run["left"].as_array().unwrap()).collect()
}

/// How many of the daemons with this mark live, by a reader that shares no code with headcount.
fn living(context: &TestContext, mark: &str) -> u64 {
    let who = *TestContext::users().first().unwrap();
    let mut command = context.command(who, context.path("fixtures/kill_at_syscall.py"));
    command.args(["-1", mark]);
    context.finish(command).stdout.trim().parse().unwrap()
}

fn runs_left(context: &TestContext, who: Who) -> usize {
    fs::read_dir(context.state(who).join("runs")).map_or(0, Iterator::count)
}

/// A gate that its own command kills once two daemons are there.
fn killed_gate(context: &TestContext, who: Who, mark: &str, tiers: &str) {
    let script = format!("{DAEMONS} kill -KILL $PPID; exec sleep 100");
    let mut gate = context.gate(who, &["run", "--tier", tiers, "--", "sh", "-c", &script, mark]);
    gate.stdin(std::process::Stdio::null());
    let finished = context.finish(gate);
    assert_eq!(finished.signal, Some(9), "{finished:?}");
}

#[test]
fn an_audit_shows_and_a_reaping_ends_what_a_killed_gate_left() {
    if !TestContext::needs(&[Need::Program("perl"), Need::Program("python3")]) {
        return;
    }
    let context = context();
    for who in TestContext::users() {
        let mark = format!("mark-{who:?}-{}", std::process::id());
        killed_gate(&context, *who, &mark, "subreaper,token");
        // The one with the token; without a cgroup, nothing tells whose the other is.
        let (finished, audit) = cleanup(&context, *who, "audit");
        assert_eq!(finished.code, Some(23), "{finished:?}");
        let left = processes(&audit);
        let marked = left
            .iter()
            .filter(|one| one["argv"].as_array().unwrap().iter().any(|word| *word == mark.as_str()));
        assert_eq!(marked.count(), 1, "{audit:#}");
        assert!(finished.stderr.contains("what cleared its environment cannot be found"), "{finished:?}");
        // The control: an audit touches nothing.
        assert_eq!(living(&context, &mark), 2);
        let (finished, reaped) = cleanup(&context, *who, "reap");
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert!(processes(&reaped).iter().all(|one| one["ended_by"] != "unkillable"), "{reaped:#}");
        assert_eq!(living(&context, &mark), 1, "{reaped:#}");
        assert_eq!(runs_left(&context, *who), 0);
        end_marked(&mark);
    }
}

/// What a test has to end itself, by pidfd.
fn end_marked(mark: &str) {
    for pid in headcount_sys::proc::processes().unwrap() {
        let pidfd = PidFd::open(pid).unwrap();
        let argv = headcount_sys::proc::cmdline(pid).unwrap_or_default();
        if let Some(pidfd) = pidfd
            && argv.first().is_some_and(|word| word == b"perl")
            && argv.iter().any(|word| word == mark.as_bytes())
        {
            pidfd.signal(Signal::KILL).unwrap();
            assert!(ends(&pidfd));
        }
    }
}

/// With the guardian killed before the gate, the cgroup is left as it is.
#[test]
fn a_cgroup_that_nobody_guards_is_emptied_and_removed() {
    if !TestContext::needs(&[Need::Program("perl"), Need::Root, Need::Cgroup]) {
        return;
    }
    let context = context();
    let mark = format!("unguarded-{}", std::process::id());
    let kill_both = "for pid in $(cat /proc/$PPID/task/$PPID/children); do \
                     read -r name </proc/$pid/comm; [ \"$name\" != headcount-guard ] || kill -KILL $pid; done;";
    let script = format!("{DAEMONS} {kill_both} kill -KILL $PPID; exec sleep 100");
    let gate = context.gate(Who::Root, &["run", "--tier", "cgroup", "--", "sh", "-c", &script, &mark]);
    assert_eq!(context.finish(gate).signal, Some(9));
    let (_, audit) = cleanup(&context, Who::Root, "audit");
    assert_eq!(audit["runs"][0]["has_cgroup"], true, "{audit:#}");
    assert_eq!(living(&context, &mark), 2, "the control: both outlive their gate");
    let folder = fs::read_dir(context.state(Who::Root).join("runs")).unwrap().next().unwrap().unwrap().path();
    let record = Record::parse(&fs::read(folder.join("run.json")).unwrap()).unwrap();
    assert!(record.cgroup.as_ref().unwrap().exists());
    let (finished, reaped) = cleanup(&context, Who::Root, "reap");
    assert_eq!((finished.code, living(&context, &mark)), (Some(0), 0), "{reaped:#}");
    assert!(!record.cgroup.unwrap().exists() && runs_left(&context, Who::Root) == 0);
}

/// A living run, and one inside of a dead one, keep what is theirs; so does a stranger that looks the same.
#[test]
fn what_lives_is_never_touched() {
    if !TestContext::needs(&[Need::Program("perl")]) {
        return;
    }
    let context = context();
    for who in TestContext::users() {
        let mark = format!("alive-{who:?}-{}", std::process::id());
        let fifo = context.folder_of(*who, &format!("fifos-{who:?}")).join("hold");
        assert_eq!(
            context.finish(command_of(&context, *who, &["mkfifo", fifo.to_str().unwrap()])).code,
            Some(0)
        );
        // A living run with two daemons, which it holds until the pipe is closed.
        let script = format!("{DAEMONS} exec >&-; read -r line <\"$1\"");
        let gate = context.program();
        let inner = [gate.to_str().unwrap(), "run", "--grace", "0s", "--tier", "subreaper,token", "--"];
        let body = ["sh", "-c", script.as_str(), mark.as_str(), fifo.to_str().unwrap()];
        let line: Vec<&str> = inner.into_iter().chain(body).collect();
        let alone = context.start(command_of(&context, *who, &line));
        // One more inside of a run whose gate is killed: `setsid`, or it would die as that gate's command.
        let quoted = line
            .iter()
            .map(|word| format!("'{}'", word.replace('\'', "'\\''")))
            .collect::<Vec<_>>()
            .join(" ");
        let outer = format!("{DAEMONS} : $(setsid {quoted} &); kill -KILL $PPID; exec sleep 100");
        let dead = ["run", "--tier", "subreaper,token", "--", "sh", "-c", &outer, &mark];
        let killed = context.finish(context.gate(*who, &dead));
        assert_eq!(killed.signal, Some(9), "{killed:?}");
        await_marked(&context, &mark, 6);
        let (finished, reaped) = cleanup(&context, *who, "reap");
        assert_eq!(finished.code, Some(0), "{reaped:#}");
        // The dead run's daemon with the token is gone. Its other one, which nothing finds, and the living runs' four are not.
        assert_eq!(living(&context, &mark), 5, "{reaped:#}");
        assert_eq!(runs_left(&context, *who), 2, "{reaped:#}");
        for _ in 0..2 {
            fs::write(&fifo, "go\n").unwrap();
        }
        assert_eq!(alone.finish().code, Some(23));
        await_marked(&context, &mark, 1);
        end_marked(&mark);
    }
}

fn command_of(context: &TestContext, who: Who, line: &[&str]) -> std::process::Command {
    let mut command = context.command(who, line.first().unwrap());
    command.args(line.get(1..).unwrap());
    command
}

/// Until as many have the mark: processes come and go with the machine's own speed.
fn await_marked(context: &TestContext, mark: &str, count: u64) {
    let begun = std::time::Instant::now();
    loop {
        let now = living(context, mark);
        if now == count {
            return;
        }
        assert!(begun.elapsed().as_secs() < 60, "{now} processes have the mark, and not {count}");
    }
}

#[test]
fn a_run_reaps_before_it_starts() {
    if !TestContext::needs(&[Need::Program("perl")]) {
        return;
    }
    let context = context();
    for who in TestContext::users() {
        let mark = format!("before-{who:?}-{}", std::process::id());
        killed_gate(&context, *who, &mark, "subreaper,token");
        let (finished, report) = context.report(*who, &[], &["true"]);
        assert_eq!((finished.code, &report["verdict"]), (Some(0), &"clean".into()), "{finished:?}");
        assert!(finished.stderr.contains("which was killed, had left"), "{finished:?}");
        assert_eq!((living(&context, &mark), runs_left(&context, *who)), (1, 0));
        end_marked(&mark);
    }
}

fn record(host: ProcessId) -> Record {
    Record {
        schema: SCHEMA.into(),
        run_id: RunId::random().unwrap(),
        host,
        cgroup: None,
        program: "make".into(),
        tiers: vec!["token".into()],
        init: None,
    }
}

fn write(context: &TestContext, who: Who, name: &str, content: &[u8]) {
    let runs = context.state(who).join("runs");
    for folder in [runs.clone(), runs.join(name)] {
        if !folder.exists() {
            fs::create_dir(&folder).unwrap();
            context.give(&folder, who);
        }
    }
    fs::write(runs.join(name).join("run.json"), content).unwrap();
}

/// The identity of a process that has ended.
fn dead_host() -> ProcessId {
    let own = ProcessId::this().unwrap();
    ProcessId { inode: own.inode.map(|inode| inode + 1_000_000), start_ticks: 1, ..own }
}

#[test]
fn only_records_of_dead_hosts_go() {
    let context = context();
    for who in TestContext::users() {
        let alive = record(ProcessId::this().unwrap());
        let dead = record(dead_host());
        let earlier = record(ProcessId { boot_id: "another".into(), ..dead_host() });
        let elsewhere = record(ProcessId { pid_namespace: 7, ..dead_host() });
        for one in [&alive, &dead, &earlier, &elsewhere] {
            write(&context, *who, one.run_id.as_str(), &serde_json::to_vec(one).unwrap());
        }
        write(&context, *who, &"e".repeat(32), b"{\"schema\":");
        // A record that aims at a cgroup which is not its own is a dead run's, and the cgroup nobody's business.
        let aiming = Record { cgroup: Some("/sys/fs/cgroup".into()), ..record(dead_host()) };
        write(&context, *who, aiming.run_id.as_str(), &serde_json::to_vec(&aiming).unwrap());
        let id = dead_host();
        let draft = format!("new.{}.{}.{}.1.{}", "d".repeat(32), id.pid_namespace, id.pid, id.inode.unwrap());
        write(&context, *who, &draft, b"");
        let (finished, audit) = cleanup(&context, *who, "audit");
        assert_eq!(finished.code, Some(0), "{finished:?}");
        let host = |one: &Record| {
            let runs = audit["runs"].as_array().unwrap();
            runs.iter().find(|run| run["run_id"] == one.run_id.as_str()).unwrap()["host"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        assert_eq!(
            [&alive, &dead, &earlier, &elsewhere].map(host),
            ["alive", "dead", "earlier boot", "elsewhere"]
        );
        assert_eq!(audit["notes"].as_array().unwrap().len(), 1, "{audit:#}");
        let (finished, _) = cleanup(&context, *who, "reap");
        assert_eq!(finished.code, Some(0), "{finished:?}");
        let mut left: Vec<String> = fs::read_dir(context.state(*who).join("runs"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let mut expected = [alive.run_id.to_string(), elsewhere.run_id.to_string(), "e".repeat(32)];
        expected.sort();
        assert_eq!(left, expected);
    }
}

#[test]
fn without_a_state_folder_there_is_nothing_to_do_and_none_is_made() {
    let context = context();
    for who in TestContext::users() {
        for action in ["audit", "reap"] {
            let folder = context.folder_of(*who, &format!("empty-{who:?}")).join("state");
            let mut command = context.gate(*who, &[action]);
            command.env("HEADCOUNT_STATE_DIR", &folder);
            let finished = context.finish(command);
            assert_eq!((finished.code, folder.exists()), (Some(0), false), "{finished:?}");
            assert!(finished.stderr.contains("there is no state folder yet"), "{finished:?}");
        }
    }
}

/// A strike at one of the gate's system calls, and what was alive then.
struct Strike {
    call: i64,
    living: u64,
}

/// Kills a gate at system calls spread over its life; after each, reaping has to leave nothing of what the tiers can know.
/// Returns the strikes, and at how many something had outlived the gate.
fn kill_all_over_its_life(
    context: &TestContext,
    who: Who,
    tiers: &str,
    count: u64,
    unfindable: u64,
) -> (Vec<Strike>, usize) {
    let mark = format!("struck-{who:?}-{}-{}", tiers.replace(',', "-"), std::process::id());
    let strike = |at: u64| {
        let gate = context.program();
        let script = format!("{DAEMONS} exit 0");
        let mut command = context.command(who, context.path("fixtures/kill_at_syscall.py"));
        command.args([
            &at.to_string(),
            &mark,
            "--",
            gate.to_str().unwrap(),
            "run",
            "--grace",
            "0s",
            "--tier",
            tiers,
        ]);
        command.args(["--", "sh", "-c", &script, &mark]);
        let finished = context.finish(command);
        let answer: Value =
            serde_json::from_str(finished.stdout.trim()).unwrap_or_else(|_| panic!("{finished:?}"));
        answer
    };
    let calls = strike(0)["calls"].as_u64().unwrap();
    assert!(calls > 200, "{calls}");
    let (mut strikes, mut outlived) = (Vec::new(), 0);
    for step in 0..count {
        let at = 1 + step * (calls - 1) / count;
        let struck = strike(at);
        if struck["struck"] == false {
            // A run of its own: it had fewer calls this time.
            continue;
        }
        strikes.push(Strike {
            call: struck["call"].as_i64().unwrap(),
            living: struck["living"].as_u64().unwrap(),
        });
        outlived += usize::from(living(context, &mark) > 0);
        let (finished, reaped) = cleanup(context, who, "reap");
        assert_eq!(finished.code, Some(0), "struck at call {at}: {reaped:#}");
        let left = living(context, &mark);
        assert!(left <= unfindable, "struck at call {at} of {calls}: {left} live on: {reaped:#}");
        assert_eq!(runs_left(context, who), 0, "struck at call {at}: {reaped:#}");
        end_marked(&mark);
    }
    (strikes, outlived)
}

/// `STRIKES` for more; `ci/campaign.sh` does 200 of each.
fn strikes() -> u64 {
    std::env::var("STRIKES").ok().and_then(|text| text.parse().ok()).unwrap_or(12)
}

fn check_strikes(who: Who, tiers: &str, unfindable: u64) {
    if !TestContext::needs(&[Need::Program("perl"), Need::Program("python3")]) {
        return;
    }
    if !TestContext::users().contains(&who) {
        return;
    }
    let context = context();
    let (strikes, outlived) = kill_all_over_its_life(&context, who, tiers, strikes(), unfindable);
    let with_some = strikes.iter().filter(|strike| strike.living > 0).count();
    let mut kinds: Vec<i64> = strikes.iter().map(|strike| strike.call).collect();
    kinds.sort_unstable();
    kinds.dedup();
    say(&format!(
        "{who:?}, {tiers}: killed at {} moments ({} kinds of system call); daemons lived at {with_some}, outlived the gate at \
         {outlived}; after reap none that the tier can know of is left",
        strikes.len(),
        kinds.len()
    ));
    assert!(with_some > 0, "a campaign that strikes where nothing lives shows nothing");
}

#[test]
fn a_gate_killed_anywhere_leaves_nothing_to_reap_with_a_cgroup() {
    if TestContext::needs(&[Need::Root, Need::Cgroup]) {
        check_strikes(Who::Root, "cgroup,subreaper,token", 0);
    }
}

#[test]
fn a_gate_killed_anywhere_leaves_only_what_the_token_cannot_show() {
    check_strikes(Who::Nobody, "subreaper,token", 1);
}

#[test]
fn a_gate_killed_anywhere_leaves_nothing_in_its_namespace() {
    check_strikes(Who::Nobody, "namespace", 0);
    check_strikes(Who::Root, "namespace", 0);
}

#[test]
fn the_folder_is_as_documented() {
    let context = context();
    let who = *TestContext::users().first().unwrap();
    let finished = context
        .finish(context.gate(who, &["run", "--", "sh", "-c", "cat $HEADCOUNT_STATE_DIR/runs/*/run.json"]));
    let record = Record::parse(finished.stdout.as_bytes()).unwrap();
    assert_eq!(record.program, "sh");
    assert!(record.tiers.contains(&"token".to_owned()), "{record:?}");
    assert!(Pid::this() != record.host.pid && Path::new("/proc").exists());
}
