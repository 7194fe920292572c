//! Blocking on several descriptors at once, up to a deadline.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};

use crate::{Error, Result};

/// How long to block.
#[derive(Clone, Copy, Debug)]
pub enum Timeout {
    /// Not at all.
    Now,
    /// Until this moment.
    At(Instant),
    /// Until something happens.
    Never,
}

/// A descriptor, and what to wait for on it.
#[derive(Clone, Copy, Debug)]
pub struct Interest<'fd> {
    fd: BorrowedFd<'fd>,
    flags: PollFlags,
}

impl<'fd> Interest<'fd> {
    /// Data to read, an end of file, or (on a pidfd) the process's end.
    #[must_use]
    pub fn readable(fd: BorrowedFd<'fd>) -> Self {
        Self { fd, flags: PollFlags::POLLIN }
    }

    /// Room to write.
    #[must_use]
    pub fn writable(fd: BorrowedFd<'fd>) -> Self {
        Self { fd, flags: PollFlags::POLLOUT }
    }

    /// A change of a kernfs file such as `cgroup.events` since it was last read.
    #[must_use]
    pub fn changed(fd: BorrowedFd<'fd>) -> Self {
        Self { fd, flags: PollFlags::POLLPRI }
    }
}

/// Which descriptors were ready, by their place in the call.
#[derive(Debug)]
pub struct Ready(Vec<bool>);

impl Ready {
    /// Whether the descriptor at this place was ready (or in error, which reading it will tell).
    #[must_use]
    pub fn is_ready(&self, place: usize) -> bool {
        self.0.get(place).copied().unwrap_or(false)
    }

    /// Whether any was.
    #[must_use]
    pub fn any(&self) -> bool {
        self.0.contains(&true)
    }
}

/// Blocks until one of the descriptors is ready, the timeout is over, or a signal handler ran (nothing is ready then).
///
/// # Errors
/// Where the kernel refuses the set.
pub fn wait(interests: &[Interest<'_>], timeout: Timeout) -> Result<Ready> {
    let mut fds: Vec<PollFd<'_>> = interests.iter().map(|one| PollFd::new(one.fd, one.flags)).collect();
    let timeout = match timeout {
        Timeout::Now => PollTimeout::ZERO,
        Timeout::Never => PollTimeout::NONE,
        Timeout::At(moment) => milliseconds(moment.saturating_duration_since(Instant::now())),
    };
    match nix::poll::poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(Error::io("failed to wait for events", error)),
    }
    Ok(Ready(fds.iter().map(|fd| fd.any().unwrap_or(false)).collect()))
}

/// Rounded up, so that a deadline has passed when the call returns for it.
fn milliseconds(rest: Duration) -> PollTimeout {
    let whole = rest.as_nanos().div_ceil(1_000_000);
    PollTimeout::try_from(i32::try_from(whole).unwrap_or(i32::MAX)).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_never_rounded_down() {
        assert_eq!(milliseconds(Duration::from_nanos(1)), PollTimeout::from(1u8));
        assert_eq!(milliseconds(Duration::ZERO), PollTimeout::ZERO);
        assert_eq!(milliseconds(Duration::from_micros(2_500)), PollTimeout::from(3u8));
    }
}
