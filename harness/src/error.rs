//! The crate's one error.

use std::fmt;

/// The result of an operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// headcount itself could not do its work. A leak is a verdict, not an error.
#[derive(Debug)]
pub struct Error(Kind);

#[derive(Debug)]
enum Kind {
    System(headcount_sys::Error),
    Command { missing: bool, cause: headcount_sys::Error },
}

impl Error {
    pub(crate) fn not_found(cause: headcount_sys::Error) -> Self {
        Self(Kind::Command { missing: true, cause })
    }

    pub(crate) fn not_executable(cause: headcount_sys::Error) -> Self {
        Self(Kind::Command { missing: false, cause })
    }

    fn cause(&self) -> &headcount_sys::Error {
        match &self.0 {
            Kind::System(cause) | Kind::Command { cause, .. } => cause,
        }
    }

    /// Whether the command does not exist.
    #[must_use]
    pub fn is_command_not_found(&self) -> bool {
        matches!(self.0, Kind::Command { missing: true, .. })
    }

    /// Whether the command exists and cannot be executed.
    #[must_use]
    pub fn is_command_not_executable(&self) -> bool {
        matches!(self.0, Kind::Command { missing: false, .. })
    }

    /// Operation, subject and cause in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        self.cause().chain()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause().fmt(f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause().source()
    }
}

impl From<headcount_sys::Error> for Error {
    fn from(cause: headcount_sys::Error) -> Self {
        Self(Kind::System(cause))
    }
}
