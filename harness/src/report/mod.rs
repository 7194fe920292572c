//! The report: one value, which the renderers only read.
//!
//! Fields are only ever added under one schema number. Strings that a process chose (`argv`, `exe`, `cwd`, `name`,
//! `listening`, `test.id`) are written reversibly, see [`crate::text::reversible`]; what looks like a secret is replaced first,
//! see [`crate::redact`].

pub mod json;
pub mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::time::{Duration, SystemTime};

use headcount_sys::Pid;
use headcount_sys::wait::Change;
use serde::Serialize;

use crate::evidence::Process;
use crate::scope::{Conclusion, EndedBy, Left};
use crate::test_id::TestId;
use crate::tier::{MissingTier, Tier};
use crate::verdict::{Kind, Verdict};
use crate::{redact, text as words};

/// The schema of [`Report`].
pub const SCHEMA: &str = "headcount.report/1";

/// What is said of one run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// headcount's version.
    pub headcount: String,
    /// The kernel's release.
    pub kernel: String,
    /// The machine's name.
    pub host: Option<String>,
    /// The run.
    pub run_id: String,
    /// The command, redacted.
    pub command: Vec<String>,
    /// How the command ended.
    pub exit: Exit,
    /// The tiers in force, strongest first.
    pub tiers: Vec<Tier>,
    /// The tiers that were not, and why.
    pub missing_tiers: Vec<MissingTier>,
    /// The verdict.
    pub verdict: Verdict,
    /// Why it is inconclusive; and what else is to be said.
    pub reasons: Vec<String>,
    /// What was left, parents before children.
    pub leaks: Vec<Leak>,
    /// What was left and is meant to be, by the exceptions that were named.
    pub excepted: Vec<Excepted>,
    /// Counts and durations.
    pub stats: Stats,
}

/// A process that is meant to outlive the command.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Excepted {
    /// The exception's name.
    pub exception: &'static str,
    /// Its reason.
    pub reason: &'static str,
    /// The process's number.
    pub pid: Pid,
    /// Its short name.
    pub name: String,
    /// Its arguments, redacted.
    pub argv: Vec<String>,
}

/// How a command ended: by an exit status or by a signal; neither if it was not started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Exit {
    /// Its exit status.
    pub code: Option<i32>,
    /// The number of the signal that ended it.
    pub signal: Option<i32>,
}

impl From<Change> for Exit {
    fn from(change: Change) -> Self {
        match change {
            Change::Exited(code) => Self { code: Some(code), signal: None },
            Change::Killed(signal) => Self { code: None, signal: Some(signal.as_raw()) },
            Change::Stopped(_) | Change::Continued => Self::default(),
        }
    }
}

/// A process that was left behind.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Leak {
    /// In which way.
    pub kind: Kind,
    /// Its number.
    pub pid: Pid,
    /// Its parent's; 0 if that is in no pid namespace that can be seen.
    pub ppid: i32,
    /// When it started, RFC 3339 in UTC; `null` if that could not be read.
    pub start_time: Option<String>,
    /// What it was doing: `running`, `sleeping`, `disk sleep`, `stopped`, `traced`, `zombie`, `idle`, `unknown`.
    pub state: &'static str,
    /// What it had left of what it was born into: `session`, `process group`, `environment`, `cgroup`.
    pub escaped: Vec<&'static str>,
    /// Its short name, at most 15 bytes.
    pub name: String,
    /// Its program's path.
    pub exe: Option<String>,
    /// Its arguments, redacted.
    pub argv: Vec<String>,
    /// Its working folder.
    pub cwd: Option<String>,
    /// Its real user.
    pub uid: Option<u32>,
    /// That user's name.
    pub user: Option<String>,
    /// How long it had lived, in milliseconds.
    pub age_ms: u64,
    /// Processor time that it had used, in milliseconds.
    pub cpu_ms: u64,
    /// Its resident memory, in bytes.
    pub rss_bytes: u64,
    /// Where it listened: `tcp 127.0.0.1:8000`, `udp …`, `unix …`.
    pub listening: Vec<String>,
    /// The test that started it.
    pub test: Option<TestId>,
    /// Who started it: its parent first, then that one's, up to the command.
    pub spawned_by: Vec<Ancestor>,
    /// What ended it.
    pub ended_by: EndedBy,
    /// The tiers that showed it; none if only its parent did.
    pub seen_by: Vec<Tier>,
    /// What could not be read of it.
    pub evidence_missing: Vec<String>,
}

/// One step of the way by which a process was started.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ancestor {
    /// Its number.
    pub pid: Pid,
    /// Its arguments, redacted.
    pub argv: Vec<String>,
    /// Whether they could be read.
    pub argv_known: bool,
    /// Whether it lived when the evidence was taken.
    pub alive: bool,
}

/// Counts and durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// How many processes were started; `null` where nothing counts them.
    pub forks: Option<u64>,
    /// How long the tree took to empty, or was given, in milliseconds.
    pub settle_ms: u64,
    /// How long the evidence took, in milliseconds.
    pub evidence_ms: u64,
    /// How long the ending took, in milliseconds.
    pub ending_ms: u64,
    /// Orphaned zombies that came to the gate and were waited for.
    pub adopted_zombies: u64,
}

/// What a report needs to know of the machine and the moment.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The kernel's release.
    pub kernel: String,
    /// The machine's name.
    pub host: Option<String>,
    /// Users' names by number, as far as they are needed.
    pub users: BTreeMap<u32, String>,
    /// The time.
    pub now: SystemTime,
    /// The same moment in clock ticks since boot.
    pub now_ticks: u64,
    /// Clock ticks per second, never zero.
    pub ticks_per_second: u64,
    /// The size of a memory page, in bytes.
    pub page_size: u64,
    /// The gate's session, in which the command was started.
    pub session: i32,
    /// The gate's process group.
    pub process_group: i32,
}

impl Surroundings {
    /// Asks the machine.
    ///
    /// # Errors
    /// Where its clock cannot be read.
    pub fn read(session: i32, process_group: i32) -> crate::Result<Self> {
        let (now_ticks, ticks_per_second) = headcount_sys::proc::ticks_now()?;
        Ok(Self {
            kernel: sysinfo::System::kernel_version().unwrap_or_default(),
            host: sysinfo::System::host_name().ok(),
            users: BTreeMap::new(),
            now: SystemTime::now(),
            now_ticks,
            ticks_per_second,
            page_size: headcount_sys::proc::page_size(),
            session,
            process_group,
        })
    }

    /// Looks up the names of these processes' users.
    #[must_use]
    pub fn with_users_of(mut self, leaks: &[Left]) -> Self {
        if !leaks.is_empty() {
            let wanted: Vec<u32> = leaks.iter().filter_map(|left| left.process.uid).collect();
            // Without a user database (a minimal container), the numbers stand alone.
            if let Ok(users) = sysinfo::Users::new_with_refreshed_list() {
                let named = users.iter().map(|user| (**user.id(), user.name().to_owned()));
                self.users = named.filter(|(uid, _)| wanted.contains(uid)).collect();
            }
        }
        self
    }

    pub(crate) fn milliseconds(&self, ticks: u64) -> u64 {
        ticks.saturating_mul(1000) / self.ticks_per_second.max(1)
    }
}

/// What a report is made of, besides its surroundings.
#[derive(Clone, Debug)]
pub struct Findings<'a> {
    /// The run.
    pub run_id: &'a str,
    /// The command as given.
    pub command: &'a [OsString],
    /// How it ended.
    pub exit: Exit,
    /// The tiers in force.
    pub tiers: Vec<Tier>,
    /// The tiers that were not.
    pub missing_tiers: Vec<MissingTier>,
    /// What came of it.
    pub conclusion: &'a Conclusion,
    /// Orphaned zombies that came to the gate.
    pub adopted_zombies: u64,
    /// How many processes were started, where that is known.
    pub forks: Option<u64>,
}

impl Report {
    /// Makes the report. Pure: clock and machine are arguments.
    #[must_use]
    pub fn new(findings: &Findings<'_>, surroundings: &Surroundings) -> Self {
        let conclusion = findings.conclusion;
        let by_pid: BTreeMap<Pid, &Left> =
            conclusion.leaks.iter().map(|left| (left.process.pid, left)).collect();
        let ordered = in_tree_order(&conclusion.leaks);
        let command: Vec<String> =
            findings.command.iter().map(|word| words::reversible(word.as_encoded_bytes())).collect();
        Self {
            schema: SCHEMA.to_owned(),
            headcount: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: surroundings.kernel.clone(),
            host: surroundings.host.clone(),
            run_id: findings.run_id.to_owned(),
            command: redact::arguments(&command),
            exit: findings.exit,
            tiers: findings.tiers.clone(),
            missing_tiers: findings.missing_tiers.clone(),
            verdict: conclusion.verdict,
            reasons: conclusion.reasons.clone(),
            leaks: ordered
                .into_iter()
                .map(|left| leak(left, &by_pid, conclusion.taken_ticks, surroundings))
                .collect(),
            excepted: conclusion
                .excepted
                .iter()
                .map(|(by, process)| Excepted {
                    exception: by.name,
                    reason: by.reason,
                    pid: process.pid,
                    name: words::reversible(&process.name),
                    argv: argv(process),
                })
                .collect(),
            stats: Stats {
                forks: findings.forks,
                settle_ms: milliseconds(conclusion.settle),
                evidence_ms: milliseconds(conclusion.evidence),
                ending_ms: milliseconds(conclusion.ending),
                adopted_zombies: findings.adopted_zombies,
            },
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Parents before children, each level by start and number.
fn in_tree_order(leaks: &[Left]) -> Vec<&Left> {
    let mut children: BTreeMap<Pid, Vec<&Left>> = BTreeMap::new();
    let mut pending: Vec<&Left> = Vec::new();
    let left_pids: BTreeSet<Pid> = leaks.iter().map(|left| left.process.pid).collect();
    for left in leaks {
        match left.process.ppid {
            Some(ppid) if left_pids.contains(&ppid) && ppid != left.process.pid => {
                children.entry(ppid).or_default().push(left);
            }
            _ => pending.push(left),
        }
    }
    let by_age = |left: &&Left| std::cmp::Reverse((left.process.start_ticks, left.process.pid));
    pending.sort_by_key(by_age);
    let mut ordered = Vec::with_capacity(leaks.len());
    while let Some(left) = pending.pop() {
        ordered.push(left);
        let mut below = children.remove(&left.process.pid).unwrap_or_default();
        below.sort_by_key(by_age);
        pending.extend(below);
    }
    // Parents that are each other's: numbers changed hands between two looks. They are told of all the same.
    ordered.extend(children.into_values().flatten());
    ordered
}

fn leak(left: &Left, by_pid: &BTreeMap<Pid, &Left>, taken_ticks: u64, surroundings: &Surroundings) -> Leak {
    let process = &left.process;
    let shown = |bytes: &Vec<u8>| redact::text(&words::reversible(bytes));
    let age_ms = surroundings.milliseconds(taken_ticks.saturating_sub(process.start_ticks));
    let since_start = surroundings.milliseconds(surroundings.now_ticks.saturating_sub(process.start_ticks));
    let start = surroundings.now.checked_sub(Duration::from_millis(since_start));
    let start = start.filter(|_| !process.is_hidden());
    let (spawned_by, is_complete) = match &process.spawned_by {
        Some(chain) => (recorded(chain), chain.is_complete),
        // Without a record of births, a parent that is gone is not known.
        None => (ancestors(process, by_pid), false),
    };
    let mut missing: Vec<String> = process.missing.iter().map(|name| (*name).to_owned()).collect();
    if !is_complete {
        missing.push("spawned_by".to_owned());
    }
    Leak {
        kind: left.kind,
        pid: process.pid,
        ppid: process.ppid.map_or(0, Pid::as_raw),
        start_time: start.map(|start| humantime::format_rfc3339_millis(start).to_string()),
        state: process.state.map_or("unknown", headcount_sys::proc::State::name),
        escaped: escaped(process, surroundings),
        name: words::reversible(&process.name),
        exe: process.exe.as_ref().map(shown),
        argv: argv(process),
        cwd: process.cwd.as_ref().map(shown),
        uid: process.uid,
        user: process.uid.and_then(|uid| surroundings.users.get(&uid).cloned()),
        age_ms: if process.is_hidden() { 0 } else { age_ms },
        cpu_ms: surroundings.milliseconds(process.cpu_ticks),
        rss_bytes: process.rss_pages.saturating_mul(surroundings.page_size),
        listening: process.listening.iter().map(shown).collect(),
        test: process.test.clone(),
        spawned_by,
        ended_by: left.ended_by,
        seen_by: process.seen_by.clone(),
        evidence_missing: missing,
    }
}

fn argv(process: &Process) -> Vec<String> {
    shown_argv(&process.argv)
}

fn shown_argv(argv: &[Vec<u8>]) -> Vec<String> {
    redact::arguments(&argv.iter().map(|argument| words::reversible(argument)).collect::<Vec<_>>())
}

fn escaped(process: &Process, surroundings: &Surroundings) -> Vec<&'static str> {
    let mut escaped = Vec::new();
    if process.session.is_some_and(|session| session != surroundings.session) {
        escaped.push("session");
    } else if process.process_group.is_some_and(|group| group != surroundings.process_group) {
        escaped.push("process group");
    }
    if process.has_token == Some(false) {
        escaped.push("environment");
    }
    if process.in_cgroup == Some(false) {
        escaped.push("cgroup");
    }
    escaped
}

/// What the record of births says.
fn recorded(chain: &crate::provenance::Chain) -> Vec<Ancestor> {
    let link = |link: &crate::provenance::Link| Ancestor {
        pid: link.pid,
        argv: link.argv.as_ref().map_or_else(Vec::new, |argv| shown_argv(argv)),
        argv_known: link.argv.is_some(),
        alive: link.is_alive,
    };
    chain.links.iter().map(link).collect()
}

/// The leaked parents of a process. Those that are gone are not known here.
fn ancestors(process: &Process, by_pid: &BTreeMap<Pid, &Left>) -> Vec<Ancestor> {
    let mut found: Vec<Ancestor> = Vec::new();
    let mut next = process.ppid;
    // A chain is never longer than there are processes; the bound is for evidence that contradicts itself.
    while let Some(parent) = next.and_then(|pid| by_pid.get(&pid))
        && found.len() < by_pid.len()
    {
        let parent = &parent.process;
        found.push(Ancestor {
            pid: parent.pid,
            argv: argv(parent),
            argv_known: !parent.argv.is_empty(),
            alive: parent.life != crate::evidence::Life::Dead,
        });
        next = parent.ppid;
    }
    found
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::evidence::Life;
    use crate::provenance::{Chain, Link};
    use crate::verdict::tests::process;

    fn surroundings() -> Surroundings {
        Surroundings {
            kernel: "6.18.0".to_owned(),
            host: Some("builder".to_owned()),
            users: BTreeMap::from([(0, "root".to_owned())]),
            now: UNIX_EPOCH + Duration::from_secs(1_795_000_000),
            now_ticks: 300,
            ticks_per_second: 100,
            page_size: 4096,
            session: 1,
            process_group: 1,
        }
    }

    fn report(verdict: Verdict, leaks: Vec<Left>, reasons: &[&str]) -> Report {
        let conclusion = Conclusion {
            verdict,
            reasons: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
            leaks,
            excepted: Vec::new(),
            taken_ticks: 300,
            settle: Duration::from_millis(1000),
            evidence: Duration::from_millis(12),
            ending: Duration::from_millis(34),
        };
        let missing = MissingTier { tier: Tier::Cgroup, reason: "permission denied".to_owned() };
        let findings = Findings {
            run_id: "00112233445566778899aabbccddeeff",
            command: &["pytest".into(), "-q".into(), "--token=hunter2".into()],
            exit: Exit { code: Some(0), signal: None },
            tiers: vec![Tier::Subreaper, Tier::Token],
            missing_tiers: vec![missing],
            conclusion: &conclusion,
            adopted_zombies: 2,
            forks: Some(17),
        };
        Report::new(&findings, &surroundings())
    }

    fn leaked() -> Report {
        let mut server = process(40, 1, Life::Alive);
        server.argv = ["python3", "-m", "http.server", "--password", "hunter2"]
            .map(|word| word.as_bytes().to_vec())
            .into();
        server.session = Some(40);
        server.listening = vec![b"tcp 127.0.0.1:8000".to_vec()];
        server.test =
            Some(TestId { runner: "pytest".into(), id: "tests/test_api.py::test_serves (call)".into() });
        server.seen_by = vec![Tier::Subreaper];
        let link = |pid, argv: Option<&[&str]>| Link {
            pid: Pid::new(pid).unwrap(),
            argv: argv.map(|argv| argv.iter().map(|word| word.as_bytes().to_vec()).collect()),
            is_alive: false,
        };
        server.spawned_by = Some(Chain {
            links: vec![link(39, None), link(38, Some(&["pytest", "-q", "--token=hunter2"]))],
            is_complete: true,
        });
        let mut below = process(41, 40, Life::Alive);
        below.argv = vec![b"sleep".to_vec(), b"\x1b[31m\xff".to_vec()];
        below.cwd = Some(b"/srv/a\\b\xfe".to_vec());
        below.has_token = Some(false);
        let mut dead = process(42, 40, Life::Dead);
        dead.argv = Vec::new();
        // Found in another order than they are told in.
        let left = |kind, process, ended_by| Left { kind, process, ended_by };
        report(
            Verdict::Leaked,
            vec![
                left(Kind::Zombie, dead, EndedBy::Itself),
                left(Kind::Straggler, below, EndedBy::Kill),
                left(Kind::Orphan, server, EndedBy::Term),
            ],
            &[],
        )
    }

    /// One redactor for all snapshots: colours become tags, and the version is the workspace's.
    fn redacted(text: &str) -> String {
        let text = text.replace("\u{1b}[0m", "⟧").replace(env!("CARGO_PKG_VERSION"), "[version]");
        let mut shown = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find("\u{1b}[") {
            shown.push_str(&rest[..at]);
            shown.push('⟦');
            let after = &rest[at..];
            rest = after.find('m').map_or("", |end| &after[end + 1..]);
        }
        shown + rest
    }

    #[test]
    fn a_leak_is_told_to_people() {
        insta::assert_snapshot!(redacted(&text::render(&leaked(), "exits with 23")));
    }

    #[test]
    fn a_leak_is_told_to_machines() {
        insta::assert_snapshot!(redacted(&json::render(&leaked())));
    }

    #[test]
    fn clean_is_one_line() {
        insta::assert_snapshot!(redacted(&text::render(
            &report(Verdict::Clean, vec![], &[]),
            "exits with 0"
        )));
    }

    #[test]
    fn inconclusive_says_why() {
        let reasons = ["the scope's cgroup vanished during the run"];
        insta::assert_snapshot!(redacted(&text::render(
            &report(Verdict::Inconclusive, vec![], &reasons),
            "exits with 24"
        )));
    }

    #[test]
    fn hundreds_are_counted_by_command_line() {
        let many = (100..400).map(|pid| Left {
            kind: Kind::Orphan,
            process: process(pid, 1, Life::Alive),
            ended_by: EndedBy::Term,
        });
        let text = redacted(&text::render(&report(Verdict::Leaked, many.collect(), &[]), "exits with 23"));
        assert!(text.contains("300 processes"), "{text}");
        assert!(text.contains("and 280 more:\n  280 × orphan sleep 60"), "{text}");
        assert!(text.lines().count() < 120, "{} lines", text.lines().count());
    }

    #[test]
    fn a_chain_of_parents_that_bites_its_tail_ends() {
        let loops = [(10, 11), (11, 10)].map(|(pid, ppid)| Left {
            kind: Kind::Straggler,
            process: process(pid, ppid, Life::Alive),
            ended_by: EndedBy::Term,
        });
        let report = report(Verdict::Leaked, loops.into(), &[]);
        assert_eq!(report.leaks.len(), 2, "both are told of: {report:?}");
        assert!(report.leaks.iter().all(|leak| leak.spawned_by.len() <= 2));
    }
}
