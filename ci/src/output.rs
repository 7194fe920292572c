//! Where reports go.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

use anstream::AutoStream;
use headcount::report::{Report, json, text};

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
                    let opened = OpenOptions::new().write(true).create(true).truncate(true).open(path);
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
        let mut outcome = Ok(());
        for (format, file) in self.0 {
            let content = match format {
                Format::Text => text::render(report, exit),
                Format::Json => json::render(report),
            };
            match file {
                // If stderr is gone, there is nobody to tell.
                None => drop(stderr().write_all(content.as_bytes())),
                Some((path, file)) => {
                    let written = match format {
                        Format::Text => AutoStream::never(file).write_all(content.as_bytes()),
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

/// Says what went wrong with headcount itself.
pub fn error(message: &str) {
    let message = headcount::text::printable(message);
    // If stderr is gone, there is nobody to tell.
    drop(writeln!(stderr(), "headcount: error: {message}"));
}

/// Colours on a terminal only, and as `NO_COLOR` and the like say.
fn stderr() -> AutoStream<io::Stderr> {
    AutoStream::auto(io::stderr())
}

/// The system's words without Rust's `(os error N)`.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}
