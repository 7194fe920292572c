//! Waiting for children, with the raw status.
//!
//! nix's `waitid` fails on a child that died of a real-time signal (its enum ends at 31) after having consumed the status,
//! and rustix's does not say whose status it was; so the system call is made here.

use std::time::Instant;

use crate::{Error, Pid, Result, Signal};

/// How a process ended, or that it stopped or went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It returned this exit status.
    Exited(i32),
    /// This signal ended it.
    Killed(Signal),
    /// This signal stopped it.
    Stopped(Signal),
    /// It was continued.
    Continued,
}

impl Change {
    /// Whether the process has ended.
    #[must_use]
    pub fn is_end(self) -> bool {
        matches!(self, Self::Exited(_) | Self::Killed(_))
    }
}

/// What one call found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// This child changed in this way; an ended one is now waited for.
    Child(Pid, Change),
    /// There are children, none has changed.
    Nothing,
    /// There is no such child.
    NoChildren,
}

/// Which children are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Any child whose end sends SIGCHLD, as that of every adopted one does (the kernel sets it so). Only for a process whose
    /// children are all accounted for: this steals everybody's statuses.
    Any,
    /// This child.
    One(Pid),
}

/// Takes one change of state without blocking. `with_stops` asks for stopped and continued children too.
///
/// # Errors
/// Where the kernel refuses.
pub fn take(which: Which, with_stops: bool) -> Result<Found> {
    let (kind, id) = match which {
        Which::Any => (libc::P_ALL, 0),
        Which::One(pid) => (libc::P_PID, pid.as_raw().unsigned_abs()),
    };
    let mut options = libc::WEXITED | libc::WNOHANG;
    if which != Which::Any {
        options |= libc::__WALL;
    }
    if with_stops {
        options |= libc::WSTOPPED | libc::WCONTINUED;
    }
    // SAFETY: all-zero bytes are a valid siginfo, and mean "nothing" when the call leaves them so.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is valid for the write.
    let waited = unsafe { libc::waitid(kind, id, &raw mut info, options) };
    if waited != 0 {
        let error = std::io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ECHILD) => Ok(Found::NoChildren),
            Some(libc::EINTR) => Ok(Found::Nothing),
            _ => Err(Error::io("failed to wait for children", error)),
        };
    }
    // SAFETY: waitid succeeded, so the child fields are the ones in force (or zero).
    let pid = unsafe { info.si_pid() };
    let Some(pid) = Pid::new(pid) else { return Ok(Found::Nothing) };
    // SAFETY: as above.
    let status = unsafe { info.si_status() };
    let signal =
        || Signal::new(status).ok_or_else(|| Error::new(format!("child {pid} reports signal {status}")));
    let change = match info.si_code {
        libc::CLD_EXITED => Change::Exited(status),
        libc::CLD_KILLED | libc::CLD_DUMPED => Change::Killed(signal()?),
        libc::CLD_STOPPED | libc::CLD_TRAPPED => Change::Stopped(signal()?),
        libc::CLD_CONTINUED => Change::Continued,
        other => return Err(Error::new(format!("child {pid} reports the unknown code {other}"))),
    };
    Ok(Found::Child(pid, change))
}

/// Whether a process is a child of the caller that was not waited for. Takes nothing: its number cannot become another's
/// until the caller waits for it.
///
/// # Errors
/// Where the kernel refuses.
pub fn is_child(pid: Pid) -> Result<bool> {
    // SAFETY: all-zero bytes are a valid siginfo.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: `info` is valid for the write.
    let waited = unsafe { libc::waitid(libc::P_PID, pid.as_raw().unsigned_abs(), &raw mut info, options) };
    if waited == 0 {
        return Ok(true);
    }
    let error = std::io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ECHILD) => Ok(false),
        Some(libc::EINTR) => Ok(true),
        _ => Err(Error::io(format!("failed to ask for child {pid}"), error)),
    }
}

/// Blocks until one child has ended, and waits for it; `None` at the deadline.
///
/// # Errors
/// Where the kernel refuses, or it is no child of the caller.
pub fn until_ended(child: &crate::PidFd, deadline: Instant) -> Result<Option<Change>> {
    use std::os::fd::AsFd as _;
    loop {
        match take(Which::One(child.pid()), false)? {
            Found::Child(_, change) => return Ok(Some(change)),
            Found::NoChildren => return Err(Error::new(format!("process {} is no child", child.pid()))),
            Found::Nothing if Instant::now() >= deadline => return Ok(None),
            Found::Nothing => {}
        }
        crate::poll::wait(
            &[crate::poll::Interest::readable(child.as_fd())],
            crate::poll::Timeout::At(deadline),
        )?;
    }
}
