//! `headcount doctor`: what this machine allows, tier by tier, and how to get more.
//!
//! **Guarantees:** each tier is tried as a run uses it: a scope is opened with that tier alone, and a program is run in it. What
//! it takes elsewhere is text, with its source where it is not the kernel's own documentation.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use headcount::report::Surroundings;
use headcount::scope::{Children, Events, Options, Scope};
use headcount::text::printable;
use headcount::{Tier, Verdict};
use headcount_sys::poll::{self, Interest, Timeout};
use headcount_sys::signal::Receiver;
use headcount_sys::state;
use serde::Serialize;

use crate::args::{Cleanup, Format};
use crate::exit::{self, Status};
use crate::output::{self, Reports};

/// The schema of [`Report`].
pub const SCHEMA: &str = "headcount.doctor/1";

/// What the machine allows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// headcount's version.
    pub headcount: &'static str,
    /// The kernel's release.
    pub kernel: String,
    /// The user.
    pub uid: u32,
    /// Whether processes have inodes on pidfs (Linux 6.9), by which a recycled number is told from the process that had it.
    pub has_pidfs: bool,
    /// The tiers, strongest first.
    pub tiers: Vec<Finding>,
}

/// What was found of one tier.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Which.
    pub tier: Tier,
    /// Whether it works here.
    pub works: bool,
    /// Why not.
    pub reason: Option<String>,
    /// The oldest kernel that it works on.
    pub minimum_kernel: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// How to get it, by place.
    pub how: Vec<How>,
}

/// How to get a tier in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct How {
    /// Where.
    pub place: &'static str,
    /// What to do.
    pub what: &'static str,
}

const fn how(place: &'static str, what: &'static str) -> How {
    How { place, what }
}

/// A cgroup that root gives to a user, and the shell in it. `headcount` makes its own below.
const GIVEN: &str = "g=/sys/fs/cgroup/gate; sudo mkdir $g && sudo chown $USER $g $g/cgroup.procs && \
                     echo $$ | sudo tee $g/cgroup.procs";

const CGROUP: &[How] = &[
    how(
        "systemd",
        "systemd-run --user --scope -p Delegate=yes headcount run -- CMD; in a service: Delegate=yes",
    ),
    how("any machine with sudo", GIVEN),
    // moby/moby#48828
    how("Docker", "docker run --security-opt writable-cgroups=true (Docker 28 or later), else --privileged"),
    // containers/podman#9536
    how("Podman", "podman run --security-opt unmask=/sys/fs/cgroup, or --systemd=always"),
    how("GitHub-hosted", "before the tests, in the same step, the command for machines with sudo"),
    how(
        "GitLab",
        "shell executor: as for machines with sudo; docker executor: security_opt or privileged in [runners.docker]",
    ),
    how(
        "Jenkins",
        "Delegate=yes in the [Service] section of the agent's systemd unit; docker agents: args as for Docker",
    ),
];

const NAMESPACE: &[How] = &[
    how(
        "systemd",
        "nothing is needed as root; others: sysctl kernel.unprivileged_userns_clone=1 (Debian), \
                    kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), user.max_user_namespaces > 0",
    ),
    how(
        "Docker",
        "docker run --cap-add SYS_ADMIN --security-opt systempaths=unconfined --security-opt seccomp=unconfined \
                   --security-opt apparmor=unconfined, or --privileged",
    ),
    how("Podman", "podman run --cap-add SYS_ADMIN --security-opt unmask=ALL"),
    how(
        "GitHub-hosted",
        "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0, or sudo headcount run -- CMD",
    ),
    how("GitLab", "docker executor: privileged = true in [runners.docker]; shell executor: as for systemd"),
    how("Jenkins", "as on the machine that the agent runs on, or as for Docker"),
];

const SUBREAPER: &[How] = &[how(
    "everywhere",
    "start headcount from a process that keeps no children of its own under it (not by `exec` from a shell with jobs)",
)];

const TOKEN: &[How] = &[how("everywhere", "nothing is needed")];

const EVENTS: &[How] = &[
    how("systemd", "Linux 6.6 or later, or root; CONFIG_PROC_EVENTS, which distributions set"),
    how("Docker", "docker run --network=host --pid=host --userns=host --cap-add NET_ADMIN"),
    how(
        "Podman",
        "rootful: podman run --network=host --pid=host --cap-add NET_ADMIN; rootless: not possible",
    ),
    how("GitHub-hosted", "works outside of `container:` jobs"),
    how("GitLab", "works with the shell executor"),
    how("Jenkins", "works with agents that are no containers"),
];

fn facts(tier: Tier) -> (&'static str, &'static str, &'static [How]) {
    match tier {
        Tier::Namespace => (
            "5.8",
            "ends everything, also when headcount is killed; on request, since numbers change",
            NAMESPACE,
        ),
        Tier::Cgroup => {
            ("5.4 (ends the tree at once from 5.14)", "sees and ends whatever was started", CGROUP)
        }
        Tier::Subreaper => ("5.4", "sees and ends what lost its parent", SUBREAPER),
        Tier::Token => ("5.4", "sees what left the tree, and what dead runs left", TOKEN),
        Tier::Events => ("6.6 (older: root)", "says who started what, also when they are gone", EVENTS),
    }
}

/// Looks, writes the reports, and returns how headcount is to end: 0 if some tier can tell who is left, else 24.
#[must_use]
pub fn run(options: &Cleanup) -> Status {
    match perform(options) {
        Ok(true) => Status::Code(0),
        Ok(false) => Status::Code(exit::INCONCLUSIVE),
        Err(message) => {
            output::error(&message);
            Status::Code(exit::FAILED)
        }
    }
}

fn perform(options: &Cleanup) -> Result<bool, String> {
    let reports = Reports::open(&options.report)?;
    let receiver = Receiver::open().map_err(|e| e.chain())?;
    let surroundings = Surroundings::read(0, 0).map_err(|e| e.chain())?;
    let own = headcount_sys::ProcessId::this().map_err(|e| e.chain())?;
    // The namespace comes last: without privileges it takes this process into a user namespace for good.
    let mut tiers: Vec<Finding> =
        Tier::ALL.iter().rev().map(|tier| finding(*tier, attempt(*tier, &receiver))).collect();
    tiers.reverse();
    let report = Report {
        schema: SCHEMA,
        headcount: env!("CARGO_PKG_VERSION"),
        kernel: surroundings.kernel,
        uid: headcount_sys::prctl::real_uid(),
        has_pidfs: own.is_exact(),
        tiers,
    };
    reports.write_as(|format| match format {
        Format::Text => report.text(),
        // A value of strings is always JSON.
        Format::Json => serde_json::to_string_pretty(&report).unwrap_or_default() + "\n",
    })?;
    Ok(report.tiers.iter().any(|finding| finding.works && finding.tier.detects()))
}

fn finding(tier: Tier, outcome: Result<(), String>) -> Finding {
    let (minimum_kernel, purpose, how) = facts(tier);
    let how = if outcome.is_ok() { Vec::new() } else { how.to_vec() };
    Finding { tier, works: outcome.is_ok(), reason: outcome.err(), minimum_kernel, purpose, how }
}

/// Uses a tier as a run would: opens a scope, runs a program in it, and waits until it says that nothing is left.
fn attempt(tier: Tier, receiver: &Receiver) -> Result<(), String> {
    let program: Vec<OsString> = vec!["/proc/self/exe".into(), "nothing".into()];
    let options = Options {
        tiers: BTreeSet::from([tier]),
        environment: state::Environment::this(),
        outer_token: None,
        exceptions: Vec::new(),
        program: "headcount doctor".to_owned(),
    };
    let mut scope = Scope::open(&options).map_err(|e| e.chain())?;
    let missing = |scope: &Scope| {
        scope.missing().iter().find(|missing| missing.tier == tier).map(|missing| missing.reason.clone())
    };
    if let Some(reason) = missing(&scope) {
        return Err(reason);
    }
    if !scope.start(&program, receiver.inherited()).map_err(|e| e.chain())? {
        return Err(missing(&scope).unwrap_or_default());
    }
    let deadline = Instant::now() + PATIENCE;
    let mut listener = Listener(receiver);
    while !scope.reap().map_err(|e| e.chain())?.iter().any(|change| change.is_end()) {
        if Instant::now() >= deadline {
            return Err("a program that does nothing did not end".to_owned());
        }
        listener.wait(&[], Children::Wake, deadline).map_err(|e| e.chain())?;
    }
    let conclusion = scope.conclude(&mut listener, PATIENCE, None).map_err(|e| e.chain())?;
    scope.close().map_err(|e| e.chain())?;
    if tier.detects() && conclusion.verdict != Verdict::Clean {
        return Err(format!(
            "a program that leaves nothing was {}: {}",
            conclusion.verdict.name(),
            conclusion.reasons.join("; ")
        ));
    }
    Ok(())
}

/// A program that does nothing ends at once; this is for a machine in trouble.
const PATIENCE: Duration = Duration::from_secs(5);

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

const BAD: Style = AnsiColor::Red.on_default().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const STRONG: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();

impl Report {
    /// For people, with ANSI colours.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "headcount {} on Linux {}, uid {}", self.headcount, self.kernel, self.uid)?;
        if !self.has_pidfs {
            writeln!(
                text,
                "before Linux 6.9, a process cannot be told with certainty from one that got its number later: what dead runs \
                 left is only ended where it still has their mark"
            )?;
        }
        for finding in &self.tiers {
            let (style, word) = if finding.works { (GOOD, "works") } else { (BAD, "does not work here") };
            writeln!(text)?;
            writeln!(
                text,
                "{STRONG}{}{STRONG:#}: {style}{word}{style:#}; {}",
                finding.tier, finding.purpose
            )?;
            writeln!(text, "  {FAINT}needs Linux {}{FAINT:#}", finding.minimum_kernel)?;
            if let Some(reason) = &finding.reason {
                writeln!(text, "  because {}", printable(reason))?;
            }
            for how in &finding.how {
                writeln!(text, "  {FAINT}{}:{FAINT:#} {}", how.place, how.what)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_that_does_not_work_says_why_and_how_to_get_it_in_each_place() {
        let report = Report {
            schema: SCHEMA,
            headcount: "0.0.0",
            kernel: "6.1.0".to_owned(),
            uid: 1000,
            has_pidfs: false,
            tiers: vec![
                finding(Tier::Cgroup, Err("permission denied".to_owned())),
                finding(Tier::Token, Ok(())),
            ],
        };
        let text = report.text();
        assert!(text.contains("permission denied") && text.contains("before Linux 6.9"), "{text}");
        for place in ["systemd", "Docker", "Podman", "GitHub-hosted", "GitLab", "Jenkins"] {
            for tier in [Tier::Cgroup, Tier::Namespace, Tier::Events] {
                assert!(facts(tier).2.iter().any(|how| how.place == place), "{tier} in {place}");
            }
            assert!(text.contains(place), "{text}");
        }
        assert!(report.tiers.last().is_some_and(|finding| finding.how.is_empty()));
    }
}
