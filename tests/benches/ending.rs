//! What ending a thousand processes costs, beside the bare `cgroup.kill` and a wait for the cgroup to be empty and for the dead; and whole commands
//! that leave a thousand processes, under the gate and under others' tools: paired figures of one run.
//! `cargo bench -p headcount-tests --bench ending`; `PAIRS=n`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use headcount::Tier;
use headcount::scope::{Children, Events, Options, Scope};
use headcount_sys::cgroup;
use headcount_sys::poll::{self, Interest, Timeout};
use headcount_sys::prctl;
use headcount_sys::signal::Receiver;
use headcount_sys::state;
use headcount_sys::wait::{self, Found, Which};
use headcount_tests::figures::{pairs, say};

const GATE: &str = env!("CARGO_BIN_EXE_headcount-under-test");

/// Leaves a thousand processes that end on SIGTERM.
const LEAVE: &str = "for (1 .. 1000) { my $pid = fork // die; if (!$pid) { alarm 600; select undef, undef, undef, 600; exit } } exit 0";

fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let receiver = Receiver::open().expect("signals");
    // Before anything is measured, so that both halves of a pair wait for the dead.
    prctl::set_child_subreaper(true).expect("a subreaper");
    let (mut ratio, mut evidence, mut ending) = (vec![], vec![], vec![]);
    for round in 0..pairs(20) {
        let (mut ours, mut bare) = (None, None);
        for turn in 0..2 {
            if (round + turn) % 2 == 0 {
                ours = Some(gated(&receiver));
            } else {
                bare = Some(killed());
            }
        }
        let ((took_evidence, took_ending), bare) = (ours.expect("ours"), bare.expect("bare"));
        ratio.push(took_ending.as_secs_f64() / bare.as_secs_f64());
        evidence.push(took_evidence.as_secs_f64() * 1e3);
        ending.push(took_ending.as_secs_f64() * 1e3);
    }
    say(
        "ending and confirming 1,000 processes, to bare cgroup.kill and wait",
        "×",
        &ratio,
        "goal: at most 1.3",
    );
    say("evidence on 1,000 processes, taken before", "ms", &evidence, "apart");
    say("ending and confirming 1,000 processes", "ms", &ending, "beside it");
    peers();
}

/// How long the evidence took, and the ending.
fn gated(receiver: &Receiver) -> (Duration, Duration) {
    let options = Options {
        tiers: BTreeSet::from([Tier::Cgroup, Tier::Subreaper, Tier::Token]),
        environment: state::Environment::this(),
        outer_token: None,
        exceptions: Vec::new(),
        program: "ending".to_owned(),
    };
    let mut scope = Scope::open(&options).expect("a scope");
    assert_eq!(
        scope.missing().iter().filter(|missing| missing.tier.detects()).count(),
        0,
        "{:?}",
        scope.missing()
    );
    let command = ["perl", "-e", LEAVE].map(OsString::from);
    assert!(scope.start(&command, receiver.inherited()).expect("it starts"));
    let mut listener = Listener(receiver);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !scope.reap().expect("reaped").iter().any(|change| change.is_end()) {
        listener.wait(&[], Children::Wake, deadline).expect("events");
    }
    let conclusion = scope.conclude(&mut listener, Duration::ZERO, None).expect("a conclusion");
    assert_eq!(conclusion.leaks.len(), 1_000);
    scope.close().expect("nothing is left");
    (conclusion.evidence, conclusion.ending)
}

/// How long a bare `cgroup.kill` takes, until the cgroup is empty.
#[expect(clippy::disallowed_methods, reason = "a bare start is what is measured against")]
fn killed() -> Duration {
    let cgroup = cgroup::own()
        .expect("a cgroup")
        .create(&format!("headcount-bench-{}", std::process::id()))
        .expect("a new one");
    let join = cgroup.path().join("cgroup.procs").display().to_string();
    let script = format!("open my $procs, q(>), q({join}) or die; syswrite $procs, 0; close $procs; {LEAVE}");
    let status = Command::new("perl").args(["-e", &script]).stdin(Stdio::null()).status().expect("it starts");
    assert!(status.success());
    let mut watch = cgroup.watch().expect("a watch");
    assert!(watch.read().expect("its events").populated);
    let begun = Instant::now();
    cgroup.kill().expect("killed");
    while watch.read().expect("its events").populated {
        poll::wait(&[Interest::changed(watch.as_fd())], Timeout::At(begun + Duration::from_secs(60)))
            .expect("a change");
    }
    // This process became a subreaper with the first scope, so the dead come to it, as they do in the other half of the pair.
    while !matches!(wait::take(Which::Any, false).expect("children"), Found::NoChildren) {}
    let took = begun.elapsed();
    cgroup.remove().expect("an empty cgroup");
    took
}

struct Listener<'a>(&'a Receiver);

impl Events for Listener<'_> {
    fn wait(
        &mut self,
        interests: &[Interest<'_>],
        children: Children,
        deadline: Instant,
    ) -> headcount::Result<()> {
        let mut all = self.0.interests(children == Children::Wake);
        all.extend_from_slice(interests);
        poll::wait(&all, Timeout::At(deadline))?;
        self.0.forget_children()?;
        Ok(())
    }

    fn is_hurried(&self) -> bool {
        false
    }
}

/// The same command under other tools, each as its manual says. What they do differs: only the gate says what was left.
fn peers() {
    let gate = [GATE, "run", "--grace", "0s", "--on-leak", "report", "--report", "text=/dev/null", "--"];
    let tools: &[(&str, &[&str])] = &[
        (
            "bwrap --unshare-pid --die-with-parent",
            &[
                "bwrap",
                "--die-with-parent",
                "--bind",
                "/",
                "/",
                "--dev",
                "/dev",
                "--proc",
                "/proc",
                "--unshare-pid",
                "--",
            ],
        ),
        ("unshare -pf --kill-child", &["unshare", "-pf", "--kill-child", "--mount-proc"]),
        // tini only waits for its child; in a pid namespace of its own, its end is everybody's.
        ("tini -s in unshare -pf", &["unshare", "-pf", "--kill-child", "--mount-proc", "tini", "-s", "--"]),
        // Follows every process, and waits for all: what is left ends itself at once here, or it would wait for ever.
        ("strace -f", &["strace", "-f", "-o", "/dev/null"]),
    ];
    for (name, tool) in tools {
        let is_there = std::env::var_os("PATH")
            .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(tool[0]).is_file()));
        if !is_there {
            say(&format!("{name}: not run, it is not installed"), "", &[f64::NAN], "");
            continue;
        }
        let mut ratios = Vec::new();
        for round in 0..pairs(10) {
            let (mut ours, mut theirs) = (Duration::ZERO, Duration::ZERO);
            for turn in 0..2 {
                let is_ours = (round + turn) % 2 == 0;
                let took = whole(if is_ours { &gate } else { tool });
                if is_ours { ours = took } else { theirs = took }
            }
            ratios.push(ours.as_secs_f64() / theirs.as_secs_f64());
        }
        say(&format!("a whole command that leaves 1,000 processes, to {name}"), "×", &ratios, "beside it");
    }
}

#[expect(clippy::disallowed_methods, reason = "a bare start is what is measured")]
fn whole(tool: &[&str]) -> Duration {
    let script = if tool.iter().any(|word| word.contains("strace")) {
        LEAVE.replace("select undef, undef, undef, 600;", "")
    } else {
        LEAVE.to_owned()
    };
    let mut command = Command::new(tool.first().expect("a tool"));
    command.args(tool.get(1..).expect("its arguments")).args(["perl", "-e", &script]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let status = command.status().expect("it starts");
    let took = begun.elapsed();
    assert!(status.success(), "{tool:?}: {status}");
    took
}
