//! The command gets exactly one signal for each that was sent, dies with its gate, and its end is the gate's.

use std::fs;

use headcount_sys::cgroup::Cgroup;
use headcount_sys::state::Record;
use headcount_sys::{Pid, PidFd, Signal};
use headcount_tests::context::{Need, TestContext, Who, ends};

use crate::context;

/// What count_signals.py says after so many rounds.
fn expected(times: u32) -> String {
    let names = [
        "SIGALRM",
        "SIGCONT",
        "SIGHUP",
        "SIGINT",
        "SIGIO",
        "SIGPROF",
        "SIGPWR",
        "SIGQUIT",
        "SIGRTMIN+0",
        "SIGRTMIN+30",
        "SIGRTMIN+5",
        "SIGTERM",
        "SIGURG",
        "SIGUSR1",
        "SIGUSR2",
        "SIGVTALRM",
        "SIGWINCH",
    ];
    let counts: Vec<String> = names.iter().map(|name| format!("{name}={times}")).collect();
    format!("end {}", counts.join(" "))
}

fn send(how: &str, rounds: u32, times: u32, gate: &[&str]) {
    if !TestContext::needs(&[Need::Program("python3")]) {
        return;
    }
    let context = context();
    for who in TestContext::users() {
        let mut command = context.command(*who, context.path("fixtures/send_signals.py"));
        command.args([how, &rounds.to_string()]);
        if !gate.is_empty() {
            command.arg(context.program()).args(gate);
        }
        command.arg(context.path("fixtures/count_signals.py"));
        let finished = context.finish(command);
        assert_eq!(finished.code, Some(0), "{who:?}: {finished:?}");
        // SIGRTMAX's name depends on how many the C library keeps for itself, so it is looked for by its count alone.
        assert_eq!(finished.stdout.trim(), expected(times), "{who:?} {how}: {finished:?}");
    }
}

#[test]
fn a_signal_to_the_gate_reaches_the_command_once() {
    send("direct", 20, 20, &["run", "--"]);
}

#[test]
fn a_signal_to_the_process_group_reaches_the_command_once() {
    send("group", 20, 20, &["run", "--"]);
}

#[test]
fn one_to_the_gate_and_one_to_the_group_are_two() {
    send("both", 10, 20, &["run", "--"]);
}

#[test]
fn without_a_gate_the_same_signals_arrive() {
    send("direct", 1, 1, &[]);
    send("group", 1, 1, &[]);
}

#[test]
fn a_gate_inside_a_gate_passes_on_one() {
    let context = context();
    let inner = context.text("headcount");
    send("direct", 3, 3, &["run", "--", &inner, "run", "--"]);
    send("group", 3, 3, &["run", "--", &inner, "run", "--"]);
}

#[test]
fn status_and_death_by_signal_are_the_commands() {
    let context = context();
    for who in TestContext::users() {
        for (script, code, signal) in [
            ("exit 0", Some(0), None),
            ("exit 7", Some(7), None),
            ("exit 255", Some(255), None),
            ("kill -TERM $$", None, Some(15)),
            ("kill -KILL $$", None, Some(9)),
            ("kill -INT $$", None, Some(2)),
            ("kill -40 $$", None, Some(40)),
        ] {
            let (finished, report) = context.report(*who, &[], &["sh", "-c", script]);
            assert_eq!((finished.code, finished.signal), (code, signal), "{who:?} {script}: {finished:?}");
            assert_eq!(report["exit"]["code"].as_i64(), code.map(i64::from), "{script}: {report}");
            assert_eq!(report["exit"]["signal"].as_i64(), signal.map(i64::from), "{script}: {report}");
            assert_eq!(report["verdict"], "clean", "{script}: {report}");
        }
    }
}

#[test]
fn a_leak_beside_a_failing_command_is_reported_and_its_status_kept() {
    let context = context();
    for who in TestContext::users() {
        let (finished, report) =
            context.report(*who, &["--grace", "100ms"], &["sh", "-c", "sleep 120 & exit 3"]);
        assert_eq!(finished.code, Some(3), "{finished:?}");
        assert_eq!(report["verdict"], "leaked", "{report}");
        let (finished, report) =
            context.report(*who, &["--grace", "100ms"], &["sh", "-c", "sleep 120 & kill -9 $$"]);
        assert_eq!(finished.signal, Some(9), "{finished:?}");
        assert_eq!(report["leaks"].as_array().map(Vec::len), Some(1), "{report}");
    }
}

/// How a gate is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Killed {
    Alone,
    /// As CI runners and `timeout -k` do it.
    WithItsGroup,
}

/// A gate killed with SIGKILL takes its command along; with the cgroup tier also a daemon with a cleared environment. The
/// control is the same daemon without that tier: it survives.
#[test]
fn a_killed_gate_takes_its_command_along() {
    for how in [Killed::Alone, Killed::WithItsGroup] {
        killed(how);
    }
}

fn killed(how: Killed) {
    let context = context();
    for who in TestContext::users() {
        let mut tiers = vec!["subreaper,token", "none"];
        if *who == Who::Root && TestContext::needs(&[Need::Cgroup]) {
            tiers.push("cgroup");
        }
        for tier in tiers {
            let folder = context.folder_of(*who, &format!("killed-{who:?}-{tier}"));
            let told = folder.join("told");
            // The daemon tells its pid and the shell's once it is in its own session; the shell waits for an end of its stdin.
            let daemon = "echo $1 $$ > $0.new; /bin/mv $0.new $0; exec /bin/sleep 600";
            let script = format!(
                "env -i /usr/bin/setsid /bin/sh -c '{daemon}' {} $$ </dev/null >/dev/null 2>&1 & read line",
                told.display()
            );
            let mut command = context.gate(*who, &["run", "--tier", tier, "--", "sh", "-c", &script]);
            command.stdin(std::process::Stdio::piped());
            // A group of its own, of which the gate is the leader.
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
            let mut gate = context.start(command);
            let stdin = gate.stdin();
            let told = wait_for_line(&told);
            let mut pids = told.split_whitespace().map(|pid| Pid::new(pid.parse().unwrap()).unwrap());
            let shell = PidFd::open(pids.next().unwrap()).unwrap().unwrap();
            let daemon =
                PidFd::open(pids.next().unwrap_or_else(|| panic!("no daemon: {told}"))).unwrap().unwrap();
            match how {
                Killed::Alone => drop(gate.process().signal(Signal::KILL).expect("it can be killed")),
                Killed::WithItsGroup => {
                    let mut kill = context.command(*who, "bash");
                    kill.args(["-c", &format!("kill -KILL -- -{}", gate.process().pid())]);
                    assert_eq!(context.finish(kill).code, Some(0));
                }
            }
            let finished = gate.finish();
            assert_eq!(finished.signal, Some(9));
            assert!(ends(&shell), "{who:?} {tier}: the command must die with its gate");
            if tier == "cgroup" {
                assert!(ends(&daemon), "{who:?} {tier}: the daemon must die with its gate");
            } else {
                assert!(
                    !daemon.has_exited().unwrap(),
                    "{who:?} {tier}: the control must leave the daemon alive"
                );
                daemon.signal(Signal::KILL).unwrap();
                assert!(ends(&daemon));
            }
            drop(stdin);
            forget(&context, *who);
        }
    }
}

/// Removes what the killed gates of a user left for whoever comes after them.
fn forget(context: &TestContext, who: Who) {
    for run in fs::read_dir(context.state(who).join("runs")).expect("the runs").flatten() {
        let record: Record =
            serde_json::from_slice(&fs::read(run.path().join("run.json")).expect("a record"))
                .expect("a record");
        if let Some(cgroup) = record.cgroup {
            Cgroup::at(cgroup).remove().expect("an empty cgroup");
        }
        fs::remove_dir_all(run.path()).expect("a run folder");
    }
}

/// A gate that is killed after its command ended, while it waits for what is left: the guardian is still there.
#[test]
fn a_gate_killed_during_the_grace_takes_the_rest_along() {
    if !TestContext::needs(&[Need::Root, Need::Cgroup]) {
        return;
    }
    let context = context();
    let folder = context.folder_of(Who::Root, "grace");
    let told = folder.join("told");
    let daemon = "echo $$ > $0.new; /bin/mv $0.new $0; exec /bin/sleep 600";
    let script = format!(
        "env -i /usr/bin/setsid /bin/sh -c '{daemon}' {} </dev/null >/dev/null 2>&1 &",
        told.display()
    );
    let gate = context.start(context.gate(Who::Root, &["run", "--grace", "10m", "--", "sh", "-c", &script]));
    let line = wait_for_line(&told);
    let daemon = PidFd::open(Pid::new(line.trim().parse().expect("a pid")).expect("a pid")).expect("a pidfd");
    let daemon = daemon.expect("the daemon lives");
    // The witness is dismissed once the command has ended; then the gate has no children but the adopted daemon and its guardian.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let children = || headcount_sys::proc::children(gate.process().pid()).expect("the gate's children");
    let is_waiting = |children: Vec<Pid>| children.len() == 2 && children.contains(&daemon.pid());
    while !is_waiting(children()) {
        assert!(std::time::Instant::now() < deadline, "the gate waits for {:?}", children());
        std::thread::yield_now();
    }
    gate.process().signal(Signal::KILL).expect("it can be killed");
    assert_eq!(gate.finish().signal, Some(9));
    assert!(ends(&daemon), "what was left must end with the gate");
    forget(&context, Who::Root);
}

/// A command that went to a group of its own gets what the gate's group gets; without a gate it would be that group's leader.
#[test]
fn a_command_in_a_group_of_its_own_is_reached_too() {
    let context = context();
    for who in TestContext::users() {
        // `timeout` signals its child, and then its group; the gate is in that group, and setsid's program is not.
        let mut command = context.command(*who, "timeout");
        command.args(["--signal=TERM", "--kill-after=60", "0.3"]).arg(context.program());
        command.args(["run", "--", "setsid", "--wait", "sleep", "119"]);
        let finished = context.finish(command);
        assert_eq!(finished.code, Some(124), "{who:?}: {finished:?}");
        let mut command = context.command(*who, "timeout");
        command.args(["--signal=TERM", "--kill-after=60", "0.3"]).arg(context.program());
        command.args([
            "run",
            "--",
            "python3",
            "-c",
            "import os; os.setsid(); os.execvp('sleep', ['sleep', '119'])",
        ]);
        let finished = context.finish(command);
        assert_eq!(finished.code, Some(124), "{who:?}: {finished:?}");
    }
}

/// Blocks until a file has a whole line.
fn wait_for_line(path: &std::path::Path) -> String {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    loop {
        match fs::read_to_string(path) {
            Ok(text) if text.ends_with('\n') => return text,
            _ => {}
        }
        assert!(std::time::Instant::now() < deadline, "{} has no line", path.display());
        std::thread::yield_now();
    }
}

#[test]
fn ignored_signals_and_the_mask_reach_the_command_as_they_were() {
    let context = context();
    // SIGPIPE is the one that Rust's runtime ignores before main; SIGCHLD is the one that the gate must not inherit. What else
    // is ignored here is the business of whoever started the tests, so the same is asked without a gate.
    let script = "import os, signal, sys\nfor name in ['SIGPIPE', 'SIGCHLD', 'SIGUSR1']:\n    \
        signal.signal(signal.Signals[name], signal.SIG_IGN if name == sys.argv[1] else signal.SIG_DFL)\n\
        os.execvp(sys.argv[2], sys.argv[2:])";
    for (ignored, bit) in [("SIGPIPE", 1u64 << 12), ("SIGCHLD", 1 << 16), ("SIGUSR1", 1 << 9), ("none", 0)] {
        let masks = |gate: &[&str]| {
            let mut command = context.command(TestContext::users()[0], "python3");
            command.args(["-c", script, ignored]).args(gate);
            command.args(["grep", "-E", "Sig(Ign|Blk)", "/proc/self/status"]);
            let finished = context.finish(command);
            assert_eq!(finished.code, Some(0), "{finished:?}");
            finished.stdout
        };
        let bare = masks(&[]);
        assert_eq!(masks(&[&context.text("headcount"), "run", "--"]), bare, "{ignored}");
        let shown = u64::from_str_radix(bare.trim().rsplit('\t').next().unwrap(), 16).unwrap();
        assert_eq!(shown & bit, bit, "{ignored}: the test has to set what it asks for: {bare}");
    }
}
