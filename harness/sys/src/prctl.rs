//! Attributes of the calling process.

use std::ffi::CStr;

use crate::{Error, Result};

/// Makes the calling process the one to which orphaned descendants come back (`PR_SET_CHILD_SUBREAPER`, Linux 3.4).
///
/// # Errors
/// Where the kernel refuses.
pub fn set_child_subreaper(on: bool) -> Result<()> {
    nix::sys::prctl::set_child_subreaper(on).map_err(|e| Error::io("failed to become a subreaper", e))
}

/// Names the calling process, as `ps` and `top` show it.
///
/// # Errors
/// Where the kernel refuses.
pub fn set_name(name: &CStr) -> Result<()> {
    nix::sys::prctl::set_name(name).map_err(|e| Error::io("failed to name this process", e))
}

/// Keeps the calling process from writing a core file when it ends itself by the signal that its command died of.
///
/// # Errors
/// Where the kernel refuses.
pub fn forbid_core_dump() -> Result<()> {
    nix::sys::prctl::set_dumpable(false).map_err(|e| Error::io("failed to forbid a core dump", e))
}

/// The calling process's real user.
#[must_use]
pub fn real_uid() -> u32 {
    nix::unistd::getuid().as_raw()
}

/// Whether a process is in the calling process's group.
#[must_use]
pub fn shares_group(pid: crate::Pid) -> bool {
    nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(pid.as_raw())))
        .is_ok_and(|group| group == nix::unistd::getpgrp())
}

/// The calling process's session and process group.
#[must_use]
pub fn session_and_group() -> (i32, i32) {
    let session = nix::unistd::getsid(None).map_or(0, nix::unistd::Pid::as_raw);
    (session, nix::unistd::getpgrp().as_raw())
}
