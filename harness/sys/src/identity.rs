//! Who a process is.
//!
//! A pid alone is reused within seconds on a busy machine; pid and start time are reused too, because start times
//! tick every 10 ms (981 of 1,000 forced reuses had the same start time on Linux 6.18). An identity is therefore boot id +
//! pid namespace + pid + the pidfd's inode on pidfs, which is unique per process since Linux 6.9 and needs no
//! privileges.
//!
//! **Guarantees:** [`ProcessId::find`] returns a descriptor of the very process that was recorded, or nothing.
//! **Cannot tell:** on kernels before 6.9 there is no inode; start times are compared instead, and
//! [`ProcessId::is_exact`] says that nothing may be signalled on that alone.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use crate::proc;
use crate::{Error, PidFd, Result};

/// A process number. Only a name for the moment: see [`ProcessId`] for an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "i32", into = "i32")]
pub struct Pid(i32);

impl TryFrom<i32> for Pid {
    type Error = String;

    /// A record that names no process is damaged.
    fn try_from(number: i32) -> std::result::Result<Self, String> {
        Self::new(number).ok_or_else(|| format!("{number} is no process's number"))
    }
}

impl From<Pid> for i32 {
    fn from(pid: Pid) -> Self {
        pid.0
    }
}

impl Pid {
    /// The pid with this number; `None` for zero and negative numbers, which the kernel uses for groups and for
    /// processes outside of the reader's namespace.
    #[must_use]
    pub fn new(number: i32) -> Option<Self> {
        (number > 0).then_some(Self(number))
    }

    /// The calling process.
    #[must_use]
    pub fn this() -> Self {
        Self(nix::unistd::getpid().as_raw())
    }

    /// The number.
    #[must_use]
    pub fn as_raw(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A process's identity, comparable across processes and over time, within and beyond one boot of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// Inode of the pid namespace in which `pid` is meant.
    pub pid_namespace: u64,
    /// The process number.
    pub pid: Pid,
    /// Inode of the process's pidfd on pidfs; `None` before Linux 6.9.
    pub inode: Option<u64>,
    /// Start time in clock ticks since boot (field 22 of `/proc/PID/stat`).
    pub start_ticks: u64,
}

impl ProcessId {
    /// The identity of the process behind `pidfd`.
    ///
    /// # Errors
    /// Where `/proc` cannot be read, or the process is gone ([`Error::is_gone`]).
    pub fn of(pidfd: &PidFd) -> Result<Self> {
        let stat = proc::stat(pidfd.pid())?;
        if pidfd.has_exited()? {
            // The number may have been someone else's by the time that its files were read.
            return Err(Error::io(format!("failed to identify process {}", pidfd.pid()), gone()));
        }
        Ok(Self {
            boot_id: boot_id()?,
            pid_namespace: pid_namespace()?,
            pid: pidfd.pid(),
            inode: pidfd.inode()?,
            start_ticks: stat.start_ticks,
        })
    }

    /// The identity of the calling process.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn this() -> Result<Self> {
        let own = PidFd::open(Pid::this())?;
        own.map_or_else(|| Err(Error::io("failed to identify this process", gone())), |own| Self::of(&own))
    }

    /// The process that was recorded, if it still lives, by a descriptor that cannot come to mean another.
    ///
    /// # Errors
    /// Where the kernel or `/proc` refuses; a process that is gone is `Ok(None)`.
    pub fn find(&self) -> Result<Option<PidFd>> {
        if self.boot_id != boot_id()? || self.pid_namespace != pid_namespace()? {
            return Ok(None);
        }
        let Some(pidfd) = PidFd::open(self.pid)? else { return Ok(None) };
        match Self::of(&pidfd) {
            Ok(now) if now.inode == self.inode && now.start_ticks == self.start_ticks => Ok(Some(pidfd)),
            Ok(_) => Ok(None),
            Err(error) if error.is_gone() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether this identity is exact, so that a process found by it may be signalled.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.inode.is_some()
    }
}

fn gone() -> std::io::Error {
    std::io::Error::from_raw_os_error(libc::ESRCH)
}

/// This boot's random identity.
///
/// # Errors
/// Where `/proc/sys/kernel/random/boot_id` cannot be read.
pub fn boot_id() -> Result<String> {
    static ID: OnceLock<String> = OnceLock::new();
    if let Some(known) = ID.get() {
        return Ok(known.clone());
    }
    let path = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(path).map_err(|e| Error::io(format!("failed to read {path}"), e))?;
    Ok(ID.get_or_init(|| text.trim().to_owned()).clone())
}

/// The inode of the calling process's pid namespace.
///
/// # Errors
/// Where `/proc/self/ns/pid` cannot be read.
pub fn pid_namespace() -> Result<u64> {
    // A process never changes its own pid namespace; setns(2) and unshare(2) change only its children's.
    static INODE: OnceLock<u64> = OnceLock::new();
    if let Some(known) = INODE.get() {
        return Ok(*known);
    }
    let path = "/proc/self/ns/pid";
    let meta = fs::metadata(path).map_err(|e| Error::io(format!("failed to read {path}"), e))?;
    Ok(*INODE.get_or_init(|| meta.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_identity_is_found_again() {
        let own = ProcessId::this().unwrap();
        assert_eq!(own.find().unwrap().map(|found| found.pid()), Some(Pid::this()));
    }

    #[test]
    fn another_inode_boot_or_namespace_is_another_process() {
        let own = ProcessId::this().unwrap();
        for other in [
            ProcessId {
                inode: own.inode.map(|inode| inode + 1),
                start_ticks: own.start_ticks + 1,
                ..own.clone()
            },
            ProcessId { boot_id: "another".into(), ..own.clone() },
            ProcessId { pid_namespace: own.pid_namespace + 1, ..own.clone() },
        ] {
            assert!(other.find().unwrap().is_none(), "{other:?} must not be found");
        }
    }

    #[test]
    fn pids_of_groups_and_foreign_namespaces_are_refused() {
        assert!(Pid::new(0).is_none());
        assert!(Pid::new(-7).is_none());
        assert_eq!(Pid::new(7).map(Pid::as_raw), Some(7));
        // Found by the fuzzer: a record could name them.
        assert!(serde_json::from_str::<Pid>("0").is_err());
        assert!(serde_json::from_str::<Pid>("-7").is_err());
        assert_eq!(serde_json::from_str::<Pid>("7").ok(), Pid::new(7));
    }
}
