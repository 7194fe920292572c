//! The crate's one error: what was done, to what, and the system's reason.

use std::fmt;
use std::io;

/// The result of an operation on the system.
pub type Result<T> = std::result::Result<T, Error>;

/// An operation that the system refused, or a file that was not what it should be.
///
/// The message names operation and subject; the cause is the [source](std::error::Error::source).
#[derive(Debug)]
pub struct Error {
    message: String,
    cause: Option<io::Error>,
}

impl Error {
    /// An error without a system cause: something was there, and was wrong.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), cause: None }
    }

    /// An operation that failed for the given reason.
    pub(crate) fn io(message: impl Into<String>, cause: impl Into<io::Error>) -> Self {
        Self { message: message.into(), cause: Some(cause.into()) }
    }

    /// The system's error number, if the system refused.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        self.cause.as_ref().and_then(io::Error::raw_os_error)
    }

    /// Whether the subject is not there (any more): a process that ended, a cgroup that was removed. Normal in the
    /// middle of a scan.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self.errno(), Some(libc::ENOENT | libc::ESRCH | libc::ENODEV))
    }

    /// Whether privileges were missing, or the file system is read-only.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self.errno(), Some(libc::EACCES | libc::EPERM | libc::EROFS))
    }

    /// The message and its cause in one line, for reports.
    #[must_use]
    pub fn chain(&self) -> String {
        match &self.cause {
            Some(cause) => format!("{}: {}", self.message, plain(cause)),
            None => self.message.clone(),
        }
    }
}

/// The system's own words for an error number, without Rust's `(os error N)`.
fn plain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_lowercase(),
        None => error.to_string(),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as _)
    }
}
