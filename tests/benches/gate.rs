//! What the gate costs, as paired figures of one run: with and without, in turn, so that a machine whose speed drifts slows
//! both. The median, and a 95 % confidence interval for it from order statistics (no assumption on the distribution).
//!
//! `cargo bench -p headcount-tests`; `PAIRS=n` for more or fewer pairs.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const GATE: &str = env!("CARGO_BIN_EXE_headcount-under-test");

fn main() {
    // `cargo test --benches` runs this too, and asks for no measurement.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let pairs = |default: usize| {
        std::env::var("PAIRS")
            .ok()
            .and_then(|text| text.parse().ok())
            .filter(|pairs| *pairs > 0)
            .unwrap_or(default)
    };
    let start = pair(&["true"], pairs(300));
    let more: Vec<f64> =
        start.iter().map(|(bare, gated)| (gated.as_secs_f64() - bare.as_secs_f64()) * 1e3).collect();
    say("the gate around `true`, over bare", "ms", &more, "goal: at most 5 ms");
    let forks = ["sh", "-c", "i=0; while [ $i -lt 1000 ]; do /bin/true; i=$((i+1)); done"];
    let work = pair(&forks, pairs(40));
    let ratio: Vec<f64> = work.iter().map(|(bare, gated)| gated.as_secs_f64() / bare.as_secs_f64()).collect();
    say("1,000 fork+exec under the gate, to bare", "×", &ratio, "goal: the interval reaches down to 1.02");
}

/// Runs a command bare and under the gate, the order of the two changing from pair to pair.
fn pair(command: &[&str], pairs: usize) -> Vec<(Duration, Duration)> {
    let gated: Vec<&str> = [GATE, "run", "--"].into_iter().chain(command.iter().copied()).collect();
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

fn say(what: &str, unit: &str, values: &[f64], goal: &str) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len();
    let half_width = (0.98 * (count as f64).sqrt()).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
    let half_width = half_width as usize;
    let at = |place: usize| sorted.get(place.min(count - 1)).copied().unwrap_or(f64::NAN);
    let (low, high) = (at((count / 2).saturating_sub(half_width)), at(count / 2 + half_width));
    let median = at(count / 2);
    let line = format!(
        "{what}: median {median:.3} {unit}, 95 % interval {low:.3} to {high:.3} ({count} pairs; {goal})"
    );
    writeln!(std::io::stdout(), "{line}").expect("stdout");
}
