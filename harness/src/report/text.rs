//! The report for people: no interface, it may change at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use headcount_sys::Signal;

use super::{Leak, Report};
use crate::scope::EndedBy;
use crate::text::{command_line, printable};
use crate::verdict::{Kind, Verdict};

/// The most processes that are shown in full; the rest are counted by command line.
const SHOWN: usize = 20;
/// The most ancestors of a process that are shown.
const ANCESTORS: usize = 4;
/// The length at which a command line is cut, in characters.
const LINE: usize = 160;

const BAD: Style = AnsiColor::Red.on_default().bold();
const DOUBT: Style = AnsiColor::Yellow.on_default().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const STRONG: Style = Style::new().bold();
const FAINT: Style = Style::new().dimmed();

/// The report with ANSI colours; whoever writes it to something other than a terminal strips them. `exit` is the status that
/// headcount is going to end with.
#[must_use]
pub fn render(report: &Report, exit: &str) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write(&mut text, report, exit);
    text
}

fn write(text: &mut String, report: &Report, exit: &str) -> std::fmt::Result {
    let command = command_line(&report.command, LINE);
    match report.verdict {
        Verdict::Clean => {
            write!(text, "headcount: {GOOD}clean{GOOD:#}: `{command}` left nothing behind")?;
            if !report.excepted.is_empty() {
                let named = report.excepted.iter().map(|one| format!("{} {}", one.exception, one.pid));
                write!(text, " but what is excepted: {}", named.collect::<Vec<_>>().join(", "))?;
            }
            return writeln!(text, " {FAINT}({}){FAINT:#}", tiers(report));
        }
        Verdict::Inconclusive => {
            writeln!(
                text,
                "headcount: {DOUBT}inconclusive{DOUBT:#}: it cannot be said that `{command}` left nothing"
            )?;
            reasons(text, report)?;
        }
        Verdict::Leaked => {
            let outlived = counted(&report.leaks);
            writeln!(text, "headcount: {BAD}leaked{BAD:#}: {outlived} outlived `{command}`")?;
            writeln!(text)?;
            tree(text, report)?;
            for one in &report.excepted {
                writeln!(text, "{FAINT}excepted{FAINT:#} {} {}: {}", one.exception, one.pid, one.reason)?;
            }
            advice(text, report)?;
            reasons(text, report)?;
        }
    }
    writeln!(text, "{FAINT}{}{FAINT:#}", tiers(report))?;
    writeln!(text, "{FAINT}the command {}; headcount {exit}{FAINT:#}", ended(report))
}

fn counted(leaks: &[Leak]) -> String {
    let zombies = leaks.iter().filter(|leak| leak.kind == Kind::Zombie).count();
    let alive = leaks.len() - zombies;
    let plural =
        |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
    match (alive, zombies) {
        (alive, 0) => plural(alive, "process", "processes"),
        (0, zombies) => plural(zombies, "zombie", "zombies"),
        (alive, zombies) => {
            format!("{} and {}", plural(alive, "process", "processes"), plural(zombies, "zombie", "zombies"))
        }
    }
}

fn tree(text: &mut String, report: &Report) -> std::fmt::Result {
    let shown = report.leaks.get(..SHOWN).unwrap_or(&report.leaks);
    let mut depths: BTreeMap<i32, usize> = BTreeMap::new();
    for leak in shown {
        let depth = depths.get(&leak.ppid).map_or(0, |parent| parent + 1);
        depths.insert(leak.pid.as_raw(), depth);
        // A chain of processes a hundred deep must not walk off the screen.
        let indent = "  ".repeat(depth.min(12));
        process(text, leak, &indent)?;
    }
    let rest = report.leaks.get(SHOWN..).unwrap_or_default();
    if !rest.is_empty() {
        writeln!(text, "and {} more:", rest.len())?;
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for leak in rest {
            *kinds.entry(format!("{} {}", leak.kind.name(), title(leak))).or_default() += 1;
        }
        let mut kinds: Vec<(String, usize)> = kinds.into_iter().collect();
        kinds.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        for (kind, count) in kinds.iter().take(SHOWN) {
            writeln!(text, "  {count} × {kind}")?;
        }
        writeln!(text)?;
    }
    Ok(())
}

fn title(leak: &Leak) -> String {
    // A zombie has no arguments left, and some processes cleared theirs: `ps` shows the name in brackets then.
    if leak.argv.iter().all(String::is_empty) {
        format!("[{}]", printable(&leak.name))
    } else {
        // What set a title of its own has emptied the rest.
        let used = leak.argv.iter().rposition(|word| !word.is_empty()).map_or(0, |last| last + 1);
        command_line(leak.argv.get(..used).unwrap_or_default(), LINE)
    }
}

fn process(text: &mut String, leak: &Leak, indent: &str) -> std::fmt::Result {
    writeln!(
        text,
        "{indent}{BAD}{}{BAD:#} {STRONG}{}{STRONG:#}  {}",
        leak.kind.name(),
        leak.pid,
        title(leak)
    )?;
    let mut row = |name: &str, value: &str| writeln!(text, "{indent}  {FAINT}{name:<8}{FAINT:#} {value}");
    if leak.kind == Kind::Zombie {
        row("dead", "and never waited for by its parent")?;
        return Ok(());
    }
    let user = match (&leak.uid, &leak.user) {
        (Some(uid), Some(name)) => format!(", uid {uid} ({})", printable(name)),
        (Some(uid), None) => format!(", uid {uid}"),
        (None, _) => String::new(),
    };
    let (age, cpu) = (span(leak.age_ms), span(leak.cpu_ms));
    row("age", &format!("{age}, cpu {cpu}, memory {}, {}{user}", size(leak.rss_bytes), leak.state))?;
    if let Some(cwd) = &leak.cwd {
        row("folder", &printable(cwd))?;
    }
    // A straggler stands below who started it.
    let ancestors = if leak.kind == Kind::Straggler { &[] } else { leak.spawned_by.as_slice() };
    for (place, ancestor) in ancestors.iter().take(ANCESTORS).enumerate() {
        let line = match ancestor.argv.as_slice() {
            [] => "(arguments not known)".to_owned(),
            argv => command_line(argv, LINE),
        };
        let gone = if ancestor.alive { "" } else { ", gone" };
        row(if place == 0 { "started" } else { "" }, &format!("by {}{gone}: {line}", ancestor.pid))?;
    }
    if ancestors.len() > ANCESTORS {
        row("", &format!("by {} more, up to the command", ancestors.len() - ANCESTORS))?;
    }
    for address in &leak.listening {
        row("listens", &printable(address))?;
    }
    if let Some(test) = &leak.test {
        row("test", &format!("{} {}", test.runner, printable(&test.id)))?;
    }
    if !leak.escaped.is_empty() {
        row("escaped", &leak.escaped.join(", "))?;
    }
    let unread: Vec<&str> =
        leak.evidence_missing.iter().map(String::as_str).filter(|name| *name != "spawned_by").collect();
    if !unread.is_empty() {
        row("unread", &unread.join(", "))?;
    }
    let ended = match leak.ended_by {
        EndedBy::Term => "by SIGTERM",
        EndedBy::Kill => "by SIGKILL, after it had not taken SIGTERM",
        EndedBy::Itself => "by itself, before it was signalled",
        EndedBy::Unkillable => "not: it lives on",
    };
    row("ended", ended)
}

/// What to do, from what the evidence says.
fn advice(text: &mut String, report: &Report) -> std::fmt::Result {
    let alive: Vec<&Leak> = report.leaks.iter().filter(|leak| leak.kind != Kind::Zombie).collect();
    let tests: BTreeSet<String> =
        alive.iter().filter_map(|leak| leak.test.as_ref()).map(|test| printable(&test.id)).collect();
    let escaped = |what: &str| alive.iter().any(|leak| leak.escaped.contains(&what));
    writeln!(text)?;
    writeln!(text, "{STRONG}what to do{STRONG:#}")?;
    match tests.len() {
        0 if alive.is_empty() => {}
        0 => writeln!(text, "  end what was started, and wait for it, before the command exits")?,
        _ => {
            writeln!(text, "  end what these tests started, and wait for it, in their teardown:")?;
            for test in tests.iter().take(SHOWN) {
                writeln!(text, "    {test}")?;
            }
            if tests.len() > SHOWN {
                writeln!(text, "    and {} more", tests.len() - SHOWN)?;
            }
        }
    }
    if escaped("session") || escaped("process group") {
        writeln!(
            text,
            "  killing the process group does not reach what left it: keep the pid, or ask the program to stop"
        )?;
    }
    if alive.iter().any(|leak| leak.ended_by == EndedBy::Kill) {
        writeln!(
            text,
            "  some did not end on SIGTERM: a teardown that only terminates will not do for them"
        )?;
    }
    if report.leaks.iter().any(|leak| leak.kind == Kind::Zombie) {
        writeln!(text, "  a parent has to wait for its children: wait(), or SIGCHLD set to SIG_IGN")?;
    }
    if alive.iter().any(|leak| leak.ended_by == EndedBy::Unkillable) {
        writeln!(text, "  what lives on has to be ended by its own user, or as root: see its uid and state")?;
    }
    writeln!(text)
}

fn reasons(text: &mut String, report: &Report) -> std::fmt::Result {
    for reason in &report.reasons {
        writeln!(text, "  {DOUBT}because{DOUBT:#} {}", printable(reason))?;
    }
    Ok(())
}

fn tiers(report: &Report) -> String {
    let names: Vec<&str> = report.tiers.iter().map(|tier| tier.name()).collect();
    let mut line = match names.as_slice() {
        [] => "no tiers in force".to_owned(),
        [one] => format!("tier {one}"),
        many => format!("tiers {}", many.join(", ")),
    };
    for missing in &report.missing_tiers {
        let _ = write!(line, "; without {}: {}", missing.tier, printable(&missing.reason));
    }
    line
}

fn ended(report: &Report) -> String {
    match (report.exit.code, report.exit.signal) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(number)) => match Signal::new(number) {
            Some(signal) => format!("died of {signal}"),
            None => format!("died of signal {number}"),
        },
        (None, None) => "was not started".to_owned(),
    }
}

fn span(milliseconds: u64) -> String {
    // Whole seconds are enough beyond a minute.
    let rounded = if milliseconds >= 60_000 { milliseconds / 1000 * 1000 } else { milliseconds };
    humantime::format_duration(Duration::from_millis(rounded)).to_string()
}

fn size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    let tenths = bytes.saturating_mul(10) / MIB;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}
