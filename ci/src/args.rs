//! The command line.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, Subcommand};
use headcount::Tier;
use headcount::exception::Exception;

use crate::exit::LEAKED;

/// Every process that you start is counted out, and counted back in.
#[derive(Debug, Parser)]
#[command(name = "headcount", version, max_term_width = 100)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Run a command; find, explain and end whatever it leaves behind.
    #[command(after_help = STATUS_HELP, override_usage = "headcount run [OPTIONS] -- CMD [ARGS]...")]
    Run(Run),

    /// Show the runs of this machine, whether their hosts live, and what those that died left. Touches nothing.
    #[command(after_help = AUDIT_HELP)]
    Audit(Cleanup),

    /// End and remove what runs left whose host died: processes, cgroups, folders. Nothing of a living host.
    #[command(after_help = REAP_HELP)]
    Reap(Cleanup),

    /// Show which tiers work on this machine, why others do not, and how to get them.
    #[command(
        after_help = "Exit status: 0 some tier can tell what is left; 24 none can; 125 headcount itself failed."
    )]
    Doctor(Cleanup),

    /// Does nothing: what the doctor runs.
    #[command(hide = true)]
    Nothing,
}

const AUDIT_HELP: &str = "\
Exit status: 0 nothing is left of dead runs; 23 processes are; 125 headcount itself failed.
The runs are those in this user's state folder: $HEADCOUNT_STATE_DIR, else $XDG_RUNTIME_DIR/headcount, else
/dev/shm/headcount-UID.";

const REAP_HELP: &str = "\
Exit status: 0 nothing is left of dead runs; 23 something could not be ended; 125 headcount itself failed.
Every `headcount run` does the same when it starts.";

const STATUS_HELP: &str = "\
Exit status:
  the command's own, and its death by a signal too; but where that is 0:
   23  something leaked (--leak-exit-code)
   24  inconclusive: not everything could be looked at
    2  the command line is wrong
  125  headcount itself failed, or a required tier is missing
  126  the command cannot be executed
  127  the command does not exist

Durations are written 500ms, 2s, 1m 30s.";

/// `headcount run`
#[derive(Debug, Clone, clap::Args)]
pub struct Run {
    /// Write a report: text or json, to a file or to stderr. Can be given more than once. Text goes to stderr anyway,
    /// unless it is given a file.
    #[arg(long, value_name = "FORMAT[=FILE]")]
    pub report: Vec<ReportTo>,

    /// How long what the command left may take to end by itself.
    #[arg(long, value_name = "DUR", default_value = "1s", value_parser = duration)]
    pub grace: Duration,

    /// End the command after this time: SIGTERM, and SIGKILL after the grace.
    #[arg(long, value_name = "DUR", value_parser = duration)]
    pub timeout: Option<Duration>,

    /// Whether a leak changes the exit status. What leaked is ended either way.
    #[arg(long, value_name = "WHAT", default_value = "fail")]
    pub on_leak: OnLeak,

    /// The exit status for a leak.
    #[arg(long, value_name = "N", default_value_t = LEAKED, value_parser = clap::value_parser!(u8).range(1..))]
    pub leak_exit_code: u8,

    /// Use only these tiers, of: namespace, cgroup, subreaper, token, events; or none, to see what happens without. Can be
    /// given more than once, or with commas. All but `namespace` are used unless this is given; `+namespace` adds it to them.
    #[arg(long, value_name = "T", value_delimiter = ',', value_parser = tiers)]
    pub tier: Vec<Tiers>,

    /// Fail, before the command is run, if one of these tiers is not in force.
    #[arg(long, value_name = "T", value_delimiter = ',')]
    pub require_tier: Vec<Tier>,

    /// Let these outlive the command, and only report them: bazel, gradle, kotlin, sccache (their servers and daemons), ssh
    /// (masters of shared connections). Can be given more than once, or with commas.
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = exception)]
    pub except: Vec<Exception>,

    /// The command and its arguments.
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// `headcount audit`, `headcount reap`, `headcount doctor`
#[derive(Debug, Clone, clap::Args)]
pub struct Cleanup {
    /// Write a report: text or json, to a file or to stderr. Can be given more than once. Text goes to stderr anyway,
    /// unless it is given a file.
    #[arg(long, value_name = "FORMAT[=FILE]")]
    pub report: Vec<ReportTo>,
}

impl Run {
    /// The tiers to use.
    #[must_use]
    pub fn tiers(&self) -> BTreeSet<Tier> {
        if self.tier.is_empty() {
            by_default().collect()
        } else {
            self.tier.iter().flat_map(|choice| choice.0.iter().copied()).collect()
        }
    }
}

/// The tiers that one word of `--tier` stands for: a name; `+name`, which is that tier and all that are used by default; or
/// `none`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tiers(BTreeSet<Tier>);

fn exception(text: &str) -> Result<Exception, String> {
    Exception::named(text).ok_or_else(|| {
        let names: Vec<&str> = Exception::ALL.iter().map(|one| one.name).collect();
        format!("unknown exception `{text}`; there are {}", names.join(", "))
    })
}

fn by_default() -> impl Iterator<Item = Tier> {
    Tier::ALL.into_iter().filter(|tier| !tier.is_opt_in())
}

fn tiers(text: &str) -> Result<Tiers, String> {
    Ok(Tiers(match text.strip_prefix('+') {
        Some(more) => by_default().chain([more.parse()?]).collect(),
        None if text == "none" => BTreeSet::new(),
        None => [text.parse()?].into(),
    }))
}

/// What a leak does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OnLeak {
    /// The exit status tells of it.
    Fail,
    /// Only the report does.
    Report,
}

/// A report's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// A report to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportTo {
    /// Its form.
    pub format: Format,
    /// Its file; stderr without.
    pub file: Option<PathBuf>,
}

impl FromStr for ReportTo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (format, file) = match text.split_once('=') {
            Some((_, "")) => return Err("no file after `=`".to_owned()),
            Some((format, file)) => (format, Some(PathBuf::from(file))),
            None => (text, None),
        };
        let format = match format {
            "text" => Format::Text,
            "json" => Format::Json,
            other => return Err(format!("unknown format `{other}`; there are text and json")),
        };
        Ok(Self { format, file })
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed =
        humantime::parse_duration(text).map_err(|error| format!("{error} (for example 500ms, 2s, 1m)"))?;
    // Far beyond any use, and far below what a clock can count.
    if parsed > Duration::from_secs(1000 * 24 * 3600) {
        Err("more than 1000 days".to_owned())
    } else {
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Run, String> {
        match Args::try_parse_from(line.split(' ')) {
            Ok(Args { action: Action::Run(run) }) => Ok(run),
            Ok(_) => Err("not a run".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_commands_own_options_are_its_own() {
        let run = parse("headcount run --grace 2s -- pytest --grace 9s -q").unwrap();
        assert_eq!(run.grace, Duration::from_secs(2));
        assert_eq!(run.command, ["pytest", "--grace", "9s", "-q"]);
        assert_eq!(parse("headcount run pytest -q").unwrap().command, ["pytest", "-q"]);
    }

    #[test]
    fn mistakes_are_named() {
        for (line, part) in [
            ("headcount run --no-such -- true", "--no-such"),
            ("headcount run --grace 5 -- true", "for example 500ms"),
            ("headcount run --timeout 300000000000y -- true", "more than 1000 days"),
            ("headcount run --report xml -- true", "there are text and json"),
            ("headcount run --report json= -- true", "no file"),
            ("headcount run --tier cgroups -- true", "there are namespace"),
            ("headcount run --except make -- true", "there are bazel, gradle, kotlin, sccache, ssh"),
            ("headcount run --leak-exit-code 0 -- true", "1..=255"),
            ("headcount run --", "CMD"),
        ] {
            let message = parse(line).unwrap_err();
            assert!(message.contains(part), "{line}: {message}");
        }
    }

    #[test]
    fn tiers_are_listed_with_commas_or_again() {
        let run = parse("headcount run --tier token,cgroup --tier subreaper,events -- true").unwrap();
        assert_eq!(run.tiers(), parse("headcount run -- true").unwrap().tiers());
        assert!(!run.tiers().contains(&Tier::Namespace));
        assert_eq!(parse("headcount run --tier +namespace -- true").unwrap().tiers(), Tier::ALL.into());
        assert_eq!(parse("headcount run --tier token -- true").unwrap().tiers(), [Tier::Token].into());
        assert!(parse("headcount run --tier none -- true").unwrap().tiers().is_empty());
    }
}
