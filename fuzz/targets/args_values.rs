//! Any text as the value of an option: a duration, a report, tiers, an exit status.
#![no_main]

use std::cell::RefCell;
use std::ffi::OsString;
use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _};
use headcount::Tier;
use headcount_cli::args::{Action, Args, Format, ReportTo, Run};
use libfuzzer_sys::fuzz_target;

thread_local! {
    // Building the parser takes many times as long as parsing.
    static COMMAND: RefCell<clap::Command> = RefCell::new(Args::command());
}

fn run(option: &str, value: &str) -> Option<Run> {
    let words = ["headcount", "run", &format!("--{option}={value}"), "--", "true"].map(OsString::from);
    let mut matches = COMMAND.with_borrow_mut(|command| command.try_get_matches_from_mut(words)).ok()?;
    match Args::from_arg_matches_mut(&mut matches).unwrap().action {
        Action::Run(run) => Some(run),
        other => panic!("not a run: {other:?}"),
    }
}

fuzz_target!(|value: &str| {
    if let Ok(report) = value.parse::<ReportTo>() {
        let format = match report.format {
            Format::Text => "text",
            Format::Json => "json",
        };
        let file = report.file.as_ref().map(|file| format!("={}", file.to_str().unwrap()));
        assert_eq!(format!("{format}{}", file.unwrap_or_default()), value);
    }
    if let Ok(tier) = value.parse::<Tier>() {
        assert_eq!(tier.name(), value);
    }
    if let Some(given) = run("grace", value) {
        assert!(given.grace <= Duration::from_secs(1000 * 24 * 3600));
        let written = humantime::format_duration(given.grace).to_string();
        assert_eq!(run("grace", &written).unwrap().grace, given.grace);
    }
    if let Some(given) = run("tier", value) {
        assert!(given.tiers().is_subset(&Tier::ALL.into()));
        assert!(!given.tiers().contains(&Tier::Namespace) || value.contains("namespace"));
    }
    if let Some(given) = run("leak-exit-code", value) {
        assert_eq!(value.parse(), Ok(given.leak_exit_code));
        assert_ne!(given.leak_exit_code, 0);
    }
});
