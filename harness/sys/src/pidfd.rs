//! Process descriptors: the only way in which headcount signals a process.
//!
//! **Guarantees:** a [`PidFd`] means one process for ever; a signal through it reaches that process or nobody.
//! **Cannot tell:** when the process is a zombie that nobody waits for, it *has exited* here; that it was never
//! waited for is read from `/proc`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use nix::sys::statfs::{FsType, fstatfs};

use crate::{Error, Pid, Result, Signal, poll};

/// `PID_FS_MAGIC` of `linux/magic.h`; before Linux 6.9 a pidfd is an anonymous inode, shared by all.
const PID_FS_MAGIC: FsType = FsType(0x5049_4446);

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The kernel took it.
    Sent,
    /// The process was dead and waited for.
    Gone,
    /// The caller may not signal that process (another user's).
    Denied,
}

/// A descriptor of one process.
#[derive(Debug)]
pub struct PidFd {
    fd: OwnedFd,
    pid: Pid,
}

impl PidFd {
    /// Opens the process that has this number now; `None` if there is none.
    ///
    /// What the caller believes of that process has to be checked *after* this call: until then the number may have
    /// changed hands.
    ///
    /// # Errors
    /// Out of descriptors, or a kernel older than 5.3.
    pub fn open(pid: Pid) -> Result<Option<Self>> {
        // rustix, because nix 0.31 has no pidfd_open.
        let Some(raw) = rustix::process::Pid::from_raw(pid.as_raw()) else { return Ok(None) };
        match rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty()) {
            Ok(fd) => Ok(Some(Self { fd, pid })),
            // ENOENT and EINVAL: a thread that is no leader, or a leader just gone (Linux 6.9 and later, before).
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) => Ok(None),
            Err(error) => Err(Error::io(format!("failed to open a pidfd of process {pid}"), error)),
        }
    }

    /// The number under which the process was opened.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The process's inode on pidfs, unique per process; `None` before Linux 6.9.
    ///
    /// # Errors
    /// Where the descriptor cannot be inspected.
    pub fn inode(&self) -> Result<Option<u64>> {
        /// The same for every pidfd of a kernel, and so asked once: a census of thousands has as many calls less.
        static IS_PIDFS: OnceLock<bool> = OnceLock::new();
        let failed = |e| Error::io(format!("failed to inspect the pidfd of process {}", self.pid), e);
        let is_pidfs = match IS_PIDFS.get() {
            Some(known) => *known,
            None => {
                let statfs = fstatfs(&self.fd).map_err(failed)?;
                *IS_PIDFS.get_or_init(|| statfs.filesystem_type() == PID_FS_MAGIC)
            }
        };
        if !is_pidfs {
            return Ok(None);
        }
        let stat = nix::sys::stat::fstat(&self.fd).map_err(failed)?;
        Ok(Some(stat.st_ino))
    }

    /// Sends a signal to this process, whoever has its number by now.
    ///
    /// # Errors
    /// A signal number that does not exist; all else is told by [`Delivery`].
    pub fn signal(&self, signal: Signal) -> Result<Delivery> {
        match signal.send(self.fd.as_fd()) {
            Ok(()) => Ok(Delivery::Sent),
            Err(error) => match error.raw_os_error() {
                Some(libc::ESRCH) => Ok(Delivery::Gone),
                Some(libc::EPERM) => Ok(Delivery::Denied),
                _ => Err(Error::io(format!("failed to send {signal} to process {}", self.pid), error)),
            },
        }
    }

    /// Whether every thread of the process has exited (it may still be a zombie).
    ///
    /// # Errors
    /// Where the descriptor cannot be polled.
    pub fn has_exited(&self) -> Result<bool> {
        Ok(poll::wait(&[poll::Interest::readable(self.fd.as_fd())], poll::Timeout::Now)?.is_ready(0))
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
