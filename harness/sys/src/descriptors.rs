//! Descriptors that this process was given, and that belong to its command.
//!
//! A supervisor that holds copies of its command's pipes hides their end: a reader waits for an end of file that does
//! not come. So the gate notes what it inherited, and lets go of it once the command has it.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};

use crate::{Error, Result};

/// The descriptors above stderr that were open when the process began.
#[derive(Debug)]
pub struct Inherited(Vec<RawFd>);

impl Inherited {
    /// Notes what is open. To be called before the process opens anything of its own.
    ///
    /// # Errors
    /// Where `/proc/self/fd` cannot be read.
    pub fn note() -> Result<Self> {
        let path = "/proc/self/fd";
        let list = fs::read_dir(path).map_err(|e| Error::io(format!("failed to list {path}"), e))?;
        let mut open: Vec<RawFd> =
            list.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect();
        // The listing's own descriptor is among them; it is closed by now, and its number may be taken again.
        open.retain(|fd| *fd > 2 && fs::read_link(format!("{path}/{fd}")).is_ok());
        Ok(Self(open))
    }

    /// Nothing, for a process that has let go already.
    #[must_use]
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// Closes them, and puts `/dev/null` in place of stdin and stdout. stderr stays: reports go there.
    ///
    /// # Errors
    /// Where `/dev/null` cannot be opened.
    pub fn release(self) -> Result<()> {
        for fd in self.0 {
            // SAFETY: the descriptor was open before this process opened any, and nothing here took ownership of it.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        let null: File = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map_err(|e| Error::io("failed to open /dev/null", e))?;
        nix::unistd::dup2_stdin(&null).map_err(|e| Error::io("failed to release stdin", e))?;
        nix::unistd::dup2_stdout(&null).map_err(|e| Error::io("failed to release stdout", e))
    }
}
