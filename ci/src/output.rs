//! Where reports go.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anstream::adapter::strip_str;
use anstream::{AutoStream, ColorChoice};
use headcount::report::{Report, json, text};

use headcount_sys::poll::{self, Interest, Timeout};

use crate::args::{Format, ReportTo};

/// The opened destinations of a run's reports.
#[derive(Debug)]
pub struct Reports(Vec<(Format, Option<(PathBuf, File)>)>);

impl Reports {
    /// Opens every file before the command is run: a report that could not be written is known at once, and not after an
    /// hour of tests. A file that stays empty says that headcount was killed.
    ///
    /// # Errors
    /// A file that cannot be written, with its name.
    pub fn open(wanted: &[ReportTo]) -> Result<Self, String> {
        let mut reports = Vec::new();
        if !wanted.iter().any(|report| report.format == Format::Text) {
            reports.push((Format::Text, None));
        }
        for report in wanted {
            let file = match &report.file {
                None => None,
                Some(path) => {
                    let opened = match path.to_str() {
                        // Opened anew, a file would be cut, and written from its beginning over what the command writes.
                        Some("/dev/stdout") => io::stdout().as_fd().try_clone_to_owned().map(File::from),
                        Some("/dev/stderr") => io::stderr().as_fd().try_clone_to_owned().map(File::from),
                        _ => OpenOptions::new().write(true).create(true).truncate(true).open(path),
                    };
                    let file = opened.map_err(|error| {
                        format!("failed to open report file {}: {}", path.display(), plain(&error))
                    })?;
                    Some((path.clone(), file))
                }
            };
            reports.push((report.format, file));
        }
        Ok(Self(reports))
    }

    /// Leaves out stderr.
    #[must_use]
    pub fn only_files(self) -> Self {
        Self(self.0.into_iter().filter(|(_, file)| file.is_some()).collect())
    }

    /// Writes all of them. `exit` is what headcount is about to do, for people.
    ///
    /// # Errors
    /// The first file that could not be written; the others are.
    pub fn write(self, report: &Report, exit: &str) -> Result<(), String> {
        self.write_as(|format| match format {
            Format::Text => text::render(report, exit),
            Format::Json => json::render(report),
        })
    }

    /// Writes all of them, with the content for each format.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_as(self, render: impl Fn(Format) -> String) -> Result<(), String> {
        let mut outcome = Ok(());
        for (format, file) in self.0 {
            let content = render(format);
            match file {
                None => say(&content, format == Format::Text),
                Some((path, file)) => {
                    let written = match format {
                        Format::Text => { file }.write_all(strip_str(&content).to_string().as_bytes()),
                        Format::Json => { file }.write_all(content.as_bytes()),
                    };
                    if let Err(error) = written
                        && outcome.is_ok()
                    {
                        outcome =
                            Err(format!("failed to write report file {}: {}", path.display(), plain(&error)));
                    }
                }
            }
        }
        outcome
    }
}

/// Says, on stderr, what people should know and nothing went wrong with.
pub fn remark(message: &str) {
    say(&format!("headcount: {}\n", headcount::text::printable(message)), false);
}

/// Says what went wrong with headcount itself.
pub fn error(message: &str) {
    let message = headcount::text::printable(message);
    say(&format!("headcount: error: {message}\n"), false);
}

/// How long a full pipe on stderr is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Writes to stderr, in one piece, so that several gates do not tear each other's lines. Colours stay on a terminal only, and as
/// `NO_COLOR` and the like say. If stderr is gone, there is nobody to tell.
fn say(content: &str, is_coloured: bool) {
    let plain = is_coloured && AutoStream::choice(&io::stderr()) == ColorChoice::Never;
    let content = if plain { strip_str(content).to_string() } else { content.to_owned() };
    let mut rest = content.as_bytes();
    let deadline = Instant::now() + PATIENCE;
    while !rest.is_empty() {
        match io::stderr().write(rest) {
            Ok(0) => return,
            Ok(written) => rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The command has set the pipe that it shares with the gate to not block, and filled it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                let stderr = io::stderr();
                let room = [Interest::writable(stderr.as_fd())];
                if poll::wait(&room, Timeout::At(deadline)).is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

/// The system's words without Rust's `(os error N)`.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}
