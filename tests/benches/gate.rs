//! What the gate costs, as paired figures of one run: with and without, in turn, so that a machine whose speed drifts slows
//! both. The median, and a 95 % confidence interval for it from order statistics (no assumption on the distribution).
//!
//! `cargo bench -p headcount-tests`; `PAIRS=n` for more or fewer pairs.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use headcount_tests::figures::{pairs, say};

const GATE: &str = env!("CARGO_BIN_EXE_headcount-under-test");

fn main() {
    // `cargo test --benches` runs this too, and asks for no measurement.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let start = pair(&["true"], pairs(300));
    let more: Vec<f64> =
        start.iter().map(|(bare, gated)| (gated.as_secs_f64() - bare.as_secs_f64()) * 1e3).collect();
    say("the gate around `true`, over bare", "ms", &more, "goal: at most 5 ms");
    let forks = ["sh", "-c", "i=0; while [ $i -lt 3000 ]; do /bin/true; i=$((i+1)); done"];
    for (what, tiers) in [
        ("3,000 fork+exec under the gate with provenance, to bare", "cgroup,subreaper,token,events"),
        ("3,000 fork+exec under the gate without provenance, to bare", "cgroup,subreaper,token"),
    ] {
        let gated = [GATE, "run", "--tier", tiers, "--"];
        let work = pair_with(&gated, &forks, pairs(40));
        let ratio: Vec<f64> =
            work.iter().map(|(bare, gated)| gated.as_secs_f64() / bare.as_secs_f64()).collect();
        say(what, "×", &ratio, "goal: at most 1.05");
    }
}

/// Runs a command bare and under the gate, the order of the two changing from pair to pair.
fn pair(command: &[&str], pairs: usize) -> Vec<(Duration, Duration)> {
    pair_with(&[GATE, "run", "--"], command, pairs)
}

fn pair_with(gate: &[&str], command: &[&str], pairs: usize) -> Vec<(Duration, Duration)> {
    let gated: Vec<&str> = gate.iter().chain(command).copied().collect();
    for warm_up in [command, &gated] {
        once(warm_up);
    }
    (0..pairs)
        .map(|place| {
            if place % 2 == 0 {
                let bare = once(command);
                (bare, once(&gated))
            } else {
                let gated = once(&gated);
                (once(command), gated)
            }
        })
        .collect()
}

#[expect(clippy::disallowed_methods, reason = "a bare start is what is measured")]
fn once(line: &[&str]) -> Duration {
    let (program, arguments) = line.split_first().expect("a command");
    let mut command = Command::new(program);
    command.args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let begun = Instant::now();
    let status = command.status().expect("it starts");
    let took = begun.elapsed();
    assert!(status.success(), "{line:?}: {status}");
    took
}
