//! What an audit or a reaping found, as a value, as text and as JSON (`headcount.audit/1`). Pure: clock and machine are arguments.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use headcount_sys::Pid;
use serde::Serialize;

use super::{Audit, Host, Remnant};
use crate::report::Surroundings;
use crate::scope::EndedBy;
use crate::text::{command_line, printable};
use crate::{redact, text as words};

/// The schema of [`Report`].
pub const SCHEMA: &str = "headcount.audit/1";

/// The runs of a state folder.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// headcount's version.
    pub headcount: String,
    /// `audit`, or `reap`.
    pub action: &'static str,
    /// Where the runs are recorded.
    pub state_dir: String,
    /// The runs, by identity.
    pub runs: Vec<Run>,
    /// What could not be understood, looked at or removed.
    pub notes: Vec<String>,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// Its identity.
    pub run_id: String,
    /// Its command's program.
    pub program: String,
    /// The number of its host.
    pub host_pid: Pid,
    /// `alive`, `dead`, `earlier boot`, or `elsewhere` (in another pid namespace, where it cannot be looked for).
    pub host: &'static str,
    /// The tiers that were in force.
    pub tiers: Vec<String>,
    /// Whether its cgroup is still there; always `false` unless its host is dead.
    pub has_cgroup: bool,
    /// What is left of it; empty unless its host is dead.
    pub left: Vec<Left>,
}

/// A process that a dead run left. The fields are those of a leak in `headcount.report/1`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Left {
    /// Its number.
    pub pid: Pid,
    /// Its parent's; 0 if that cannot be seen.
    pub ppid: i32,
    /// What it was doing.
    pub state: &'static str,
    /// Its short name.
    pub name: String,
    /// Its program's path.
    pub exe: Option<String>,
    /// Its arguments, redacted.
    pub argv: Vec<String>,
    /// Its working folder.
    pub cwd: Option<String>,
    /// Its real user.
    pub uid: Option<u32>,
    /// How long it had lived, in milliseconds.
    pub age_ms: u64,
    /// Its resident memory, in bytes.
    pub rss_bytes: u64,
    /// Where it listened.
    pub listening: Vec<String>,
    /// The test that started it.
    pub test: Option<crate::test_id::TestId>,
    /// What ended it; `null` in an audit.
    pub ended_by: Option<EndedBy>,
}

impl Report {
    /// Makes the report.
    #[must_use]
    pub fn new(audit: &Audit, action: &'static str, state_dir: &str, surroundings: &Surroundings) -> Self {
        let runs = audit.runs.iter().map(|run| Run {
            run_id: run.record.run_id.to_string(),
            program: redact::text(&words::reversible(run.record.program.as_bytes())),
            host_pid: run.record.host.pid,
            host: host(&run.host),
            tiers: run.record.tiers.clone(),
            has_cgroup: run.has_cgroup,
            left: run.left.iter().map(|one| left(one, surroundings)).collect(),
        });
        Self {
            schema: SCHEMA.to_owned(),
            headcount: env!("CARGO_PKG_VERSION").to_owned(),
            action,
            state_dir: words::reversible(state_dir.as_bytes()),
            runs: runs.collect(),
            notes: audit.notes.clone(),
        }
    }

    /// How many processes are left; after a reaping, how many live on.
    #[must_use]
    pub fn living(&self) -> usize {
        let all = self.runs.iter().flat_map(|run| &run.left);
        all.filter(|one| matches!(one.ended_by, None | Some(EndedBy::Unkillable))).count()
    }

    /// As JSON, one document.
    #[must_use]
    pub fn json(&self) -> String {
        // A value of strings and numbers is always JSON.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// For people, with ANSI colours.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let folder = printable(&self.state_dir);
        if self.runs.is_empty() {
            let folder = if folder.is_empty() { "there is no state folder yet" } else { &folder };
            writeln!(text, "headcount: no runs are recorded ({folder})")?;
        } else {
            writeln!(text, "headcount: runs recorded in {folder}")?;
        }
        let mut alike: BTreeMap<&str, usize> = BTreeMap::new();
        for run in &self.runs {
            // Runs that live, or of which nothing but a folder was left, are counted.
            if run.left.is_empty() {
                *alike.entry(run.host).or_default() += 1;
                if alike.get(run.host).is_some_and(|count| *count > SHOWN) {
                    continue;
                }
            }
            let style = match run.host {
                "dead" if !run.left.is_empty() => BAD,
                _ => STRONG,
            };
            write!(text, "{style}{:<12}{style:#} {}  {}", run.host, run.run_id, printable(&run.program))?;
            writeln!(text, "  {FAINT}host {}, tiers {}{FAINT:#}", run.host_pid, run.tiers.join(", "))?;
            for one in run.left.iter().take(SHOWN) {
                let line = if one.argv.iter().all(String::is_empty) {
                    format!("[{}]", printable(&one.name))
                } else {
                    command_line(&one.argv, 120)
                };
                let ended = match one.ended_by {
                    None => "lives",
                    Some(EndedBy::Term) => "ended by SIGTERM",
                    Some(EndedBy::Kill) => "ended by SIGKILL",
                    Some(EndedBy::Itself) => "ended by itself",
                    Some(EndedBy::Unkillable) => "could not be ended",
                };
                writeln!(text, "  {} {line}  {FAINT}{}, {ended}{FAINT:#}", one.pid, one.state)?;
            }
            if run.left.len() > SHOWN {
                writeln!(text, "  and {} more", run.left.len() - SHOWN)?;
            }
            if !run.left.is_empty() && !run.tiers.iter().any(|tier| tier == "cgroup") {
                writeln!(
                    text,
                    "  {FAINT}without a cgroup, what cleared its environment cannot be found any more{FAINT:#}"
                )?;
            }
        }
        for (host, count) in alike.iter().filter(|(_, count)| **count > SHOWN) {
            writeln!(text, "and {} more, {host}", count - SHOWN)?;
        }
        if self.action == "audit" && self.living() > 0 {
            writeln!(text, "{STRONG}headcount reap{STRONG:#} ends what dead runs left")?;
        }
        for note in &self.notes {
            writeln!(text, "  {DOUBT}note{DOUBT:#} {}", printable(note))?;
        }
        Ok(())
    }
}

/// The most runs of a kind, and processes of a run, that are shown.
const SHOWN: usize = 20;

const BAD: Style = AnsiColor::Red.on_default().bold();
const DOUBT: Style = AnsiColor::Yellow.on_default().bold();
const STRONG: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();

fn host(host: &Host) -> &'static str {
    match host {
        Host::Alive => "alive",
        Host::Dead => "dead",
        Host::EarlierBoot => "earlier boot",
        Host::Elsewhere => "elsewhere",
    }
}

fn left(one: &Remnant, surroundings: &Surroundings) -> Left {
    let process = &one.process;
    let shown = |bytes: &Vec<u8>| redact::text(&words::reversible(bytes));
    let argv: Vec<String> = process.argv.iter().map(|word| words::reversible(word)).collect();
    Left {
        pid: process.pid,
        ppid: process.ppid.map_or(0, Pid::as_raw),
        state: process.state.map_or("unknown", headcount_sys::proc::State::name),
        name: words::reversible(&process.name),
        exe: process.exe.as_ref().map(shown),
        argv: redact::arguments(&argv),
        cwd: process.cwd.as_ref().map(shown),
        uid: process.uid,
        age_ms: surroundings.milliseconds(surroundings.now_ticks.saturating_sub(process.start_ticks)),
        rss_bytes: process.rss_pages.saturating_mul(surroundings.page_size),
        listening: process.listening.iter().map(shown).collect(),
        test: process.test.clone(),
        ended_by: one.ended_by,
    }
}
