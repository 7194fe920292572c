//! Signals as plain numbers, real-time ones included, and their reception by descriptor.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::poll::{self, Interest, Timeout};
use crate::{Error, Pid, Result};

/// A signal's number. nix's enum ends at 31 and cannot name the real-time signals, which people send as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(i32);

impl Signal {
    /// End, please.
    pub const TERM: Self = Self(libc::SIGTERM);
    /// End, now.
    pub const KILL: Self = Self(libc::SIGKILL);
    /// Go on.
    pub const CONT: Self = Self(libc::SIGCONT);
    /// Stop, without being asked.
    pub const STOP: Self = Self(libc::SIGSTOP);
    /// A child changed its state.
    pub const CHLD: Self = Self(libc::SIGCHLD);
    /// Interrupt, Ctrl-C.
    pub const INT: Self = Self(libc::SIGINT);

    /// The signal with this number, from 1 to the last real-time signal.
    #[must_use]
    pub fn new(number: i32) -> Option<Self> {
        (1..=libc::SIGRTMAX()).contains(&number).then_some(Self(number))
    }

    /// The number.
    #[must_use]
    pub fn as_raw(self) -> i32 {
        self.0
    }

    /// Whether this one asks a process to stop, and can be caught.
    #[must_use]
    pub fn is_stop_request(self) -> bool {
        matches!(self.0, libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU)
    }

    /// Whether it queues, where equal standard signals become one.
    #[must_use]
    pub fn is_real_time(self) -> bool {
        self.0 > 31
    }

    /// Whether this one asks a process to end: INT, TERM, HUP or QUIT.
    #[must_use]
    pub fn is_end_request(self) -> bool {
        matches!(self.0, libc::SIGINT | libc::SIGTERM | libc::SIGHUP | libc::SIGQUIT)
    }

    pub(crate) fn send(self, pidfd: BorrowedFd<'_>) -> std::io::Result<()> {
        // rustix's Signal has no safe constructor for real-time signals, so the call is made directly.
        // SAFETY: the descriptor is open for the call; a null siginfo asks for the one that kill(2) would send.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                pidfd.as_raw_fd(),
                self.0,
                std::ptr::null::<libc::siginfo_t>(),
                0,
            )
        };
        if sent == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match nix::sys::signal::Signal::try_from(self.0) {
            Ok(named) => f.write_str(named.as_str()),
            Err(_) if self.0 >= libc::SIGRTMIN() => write!(f, "SIGRTMIN+{}", self.0 - libc::SIGRTMIN()),
            Err(_) => write!(f, "signal {}", self.0),
        }
    }
}

/// SIGPIPE's disposition at the program's start, before Rust's runtime set it to ignored.
static SIGPIPE_AT_START: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);

/// Runs before `main`: the only moment at which the inherited disposition of SIGPIPE can still be read.
extern "C" fn read_sigpipe() {
    // SAFETY: all-zero bytes are a valid sigaction.
    let mut old: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null new action only asks; `old` is valid for the write.
    let asked = unsafe { libc::sigaction(libc::SIGPIPE, std::ptr::null(), &raw mut old) };
    if asked == 0 {
        SIGPIPE_AT_START.store(old.sa_sigaction, Ordering::Relaxed);
    }
}

#[used]
// SAFETY: the section holds pointers to functions of this type; the function needs no runtime: one system call, one store.
#[unsafe(link_section = ".init_array")]
static READ_SIGPIPE: extern "C" fn() = read_sigpipe;

/// The signal state with which the program was started, and which its command is to have as well.
#[derive(Clone, Debug)]
pub struct Inherited {
    mask: SigSet,
    sigpipe_ignored: bool,
    sigchld_ignored: bool,
}

impl Inherited {
    /// Gives the calling process this state. Async-signal-safe: made for the time between fork and exec.
    pub(crate) fn restore(&self) -> std::io::Result<()> {
        let action = |ignored| if ignored { SigHandler::SigIgn } else { SigHandler::SigDfl };
        set_disposition(libc::SIGPIPE, action(self.sigpipe_ignored))?;
        set_disposition(libc::SIGCHLD, action(self.sigchld_ignored))?;
        nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.mask), None)?;
        Ok(())
    }
}

fn set_disposition(number: i32, handler: SigHandler) -> std::io::Result<bool> {
    let signal = nix::sys::signal::Signal::try_from(number)?;
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: neither SIG_DFL nor SIG_IGN runs code of ours.
    let old = unsafe { nix::sys::signal::sigaction(signal, &action) }?;
    Ok(matches!(old.handler(), SigHandler::SigIgn))
}

/// A signal that reached this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Which.
    pub signal: Signal,
    /// Who sent it, if a process of this pid namespace did; `None` for the kernel (a terminal's Ctrl-C, a child's end).
    pub sender: Option<Pid>,
}

/// All signals that can be held back, read from descriptors instead of interrupting: SIGCHLD from one, all others from another.
#[derive(Debug)]
pub struct Receiver {
    children: SignalFd,
    others: SignalFd,
    inherited: Inherited,
}

impl Receiver {
    /// Blocks every signal of the calling thread and opens the descriptor. For single-threaded programs: another
    /// thread that does not block them would get them.
    ///
    /// Signals that report an error of the process itself (SEGV and the like) kill it as ever: the kernel delivers them
    /// in spite of the mask. SIGCHLD, which a parent may have set to ignored, is set to its default, without which
    /// there would be nothing to wait for.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn open() -> Result<Self> {
        let failed = |what: &str| format!("failed to {what}");
        // Asked for by address, so that the linker keeps the function that reads it.
        std::hint::black_box(&READ_SIGPIPE);
        let sigpipe_ignored = SIGPIPE_AT_START.load(Ordering::Relaxed) == libc::SIG_IGN;
        let sigchld_ignored = set_disposition(libc::SIGCHLD, SigHandler::SigDfl)
            .map_err(|e| Error::io(failed("set SIGCHLD to its default"), e))?;
        let mut mask = SigSet::empty();
        nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut mask))
            .map_err(|e| Error::io(failed("block signals"), e))?;
        let mut children = SigSet::empty();
        children.add(nix::sys::signal::Signal::SIGCHLD);
        let mut others = SigSet::all();
        others.remove(nix::sys::signal::Signal::SIGCHLD);
        let open = |set: &SigSet| {
            SignalFd::with_flags(set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
                .map_err(|e| Error::io(failed("open a signalfd"), e))
        };
        let inherited = Inherited { mask, sigpipe_ignored, sigchld_ignored };
        Ok(Self { children: open(&children)?, others: open(&others)?, inherited })
    }

    /// The state that the process had before [`open`](Self::open).
    #[must_use]
    pub fn inherited(&self) -> &Inherited {
        &self.inherited
    }

    /// What to wait on: another signal came; and, if asked for, a child changed.
    #[must_use]
    pub fn interests(&self, children: bool) -> Vec<Interest<'_>> {
        let children = children.then(|| Interest::readable(self.children.as_fd()));
        [Interest::readable(self.others.as_fd())].into_iter().chain(children).collect()
    }

    /// Forgets that children changed: the caller is about to wait for them.
    ///
    /// # Errors
    /// Where the descriptor cannot be read.
    pub fn forget_children(&self) -> Result<()> {
        while self.children.read_signal().map_err(|e| Error::io("failed to read a signal", e))?.is_some() {}
        Ok(())
    }

    /// Whether a signal other than SIGCHLD is waiting. Takes none.
    ///
    /// # Errors
    /// Where the descriptor cannot be polled.
    pub fn is_waiting(&self) -> Result<bool> {
        Ok(poll::wait(&[Interest::readable(self.others.as_fd())], Timeout::Now)?.any())
    }

    /// The next signal other than SIGCHLD that is waiting, without blocking.
    ///
    /// # Errors
    /// Where the descriptor cannot be read.
    pub fn next(&self) -> Result<Option<Received>> {
        let info = self.others.read_signal().map_err(|e| Error::io("failed to read a signal", e))?;
        Ok(info.and_then(|info| {
            let signal = Signal::new(i32::try_from(info.ssi_signo).ok()?)?;
            let by_process = info.ssi_code == libc::SI_USER
                || info.ssi_code == libc::SI_QUEUE
                || info.ssi_code == libc::SI_TKILL;
            let sender = by_process.then(|| Pid::new(i32::try_from(info.ssi_pid).ok()?)).flatten();
            Some(Received { signal, sender })
        }))
    }
}

/// Stops the calling process as Ctrl-Z would, although it blocks that signal; returns when it was continued. In an orphaned
/// process group, where no shell could continue it, the kernel does not stop it, and this returns at once.
///
/// # Errors
/// Where the kernel refuses.
pub fn stop_this_process() -> Result<()> {
    let failed = |e| Error::io("failed to stop", e);
    let mut stop = SigSet::empty();
    stop.add(nix::sys::signal::Signal::SIGTSTP);
    nix::sys::signal::raise(nix::sys::signal::Signal::SIGTSTP).map_err(failed)?;
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&stop), None).map_err(failed)?;
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_BLOCK, Some(&stop), None).map_err(failed)
}

/// Whether the calling process is in the foreground of its terminal, so that a shell is likely to watch it.
#[must_use]
pub fn is_in_foreground() -> bool {
    let Ok(terminal) = std::fs::File::open("/dev/tty") else { return false };
    nix::unistd::tcgetpgrp(&terminal).is_ok_and(|group| group == nix::unistd::getpgrp())
}

/// Ends the calling process by the given signal, with its default action. Returns only if that is not possible: as init
/// of a pid namespace, or for a signal whose default action is not to end.
pub fn die_of(signal: Signal) {
    // libc, because nix's enum has no real-time signals. Every call below takes any number, and refuses a bad one.
    // SAFETY: SIG_DFL runs no code of ours. (The signal may have been ignored when this program began.)
    unsafe { libc::signal(signal.as_raw(), libc::SIG_DFL) };
    // SAFETY: no pointers are passed.
    unsafe { libc::raise(signal.as_raw()) };
    // SAFETY: all-zero bytes are a valid, empty set.
    let mut only: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is valid for the write.
    unsafe { libc::sigaddset(&raw mut only, signal.as_raw()) };
    // Only this one is let through: another one that waits must not decide how this process ends.
    // SAFETY: the set is valid for the read; the old mask is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, &raw const only, std::ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_the_names_that_people_know() {
        assert_eq!(Signal::TERM.to_string(), "SIGTERM");
        assert_eq!(Signal::new(libc::SIGRTMIN() + 3).unwrap().to_string(), "SIGRTMIN+3");
        assert!(Signal::new(0).is_none());
        assert!(Signal::new(65).is_none());
    }
}
