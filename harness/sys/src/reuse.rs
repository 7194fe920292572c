//! Forced reuse of a process number: an innocent process with the number that another had.
//!
//! A number comes back by itself only after all others were given out, so code that acts on a wrong process works for weeks. Here
//! the kernel is asked for the number (`clone3` with `set_tid`).
//!
//! **Guarantees:** the bystander holds back every signal and tells how many came; if it was killed, that is told as well.
//! **Cannot do:** a number that is taken, a zombie's included. Needs Linux 5.5, and CAP_SYS_ADMIN or (5.9)
//! CAP_CHECKPOINT_RESTORE over the pid namespace: root, or a user namespace with a pid namespace of its own.

use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::witness::{Counts, PATIENCE, ask, serve};
use crate::{Error, Pid, PidFd, Result, Signal, wait};

/// A process that does nothing, with a number that was chosen.
#[derive(Debug)]
pub struct Bystander {
    socket: UnixStream,
    process: PidFd,
}

impl Bystander {
    /// Starts a bystander with this number; `None` if the number is taken. The caller must be single-threaded.
    ///
    /// # Errors
    /// Without the right to choose numbers; out of processes or descriptors.
    pub fn start(number: Pid) -> Result<Option<Self>> {
        let (ours, theirs) = UnixStream::pair().map_err(|e| Error::io("failed to open a socket pair", e))?;
        ours.set_read_timeout(Some(PATIENCE)).map_err(|e| Error::io("failed to prepare a bystander", e))?;
        let socket = theirs.as_raw_fd();
        let wanted = number.as_raw();
        // SAFETY: all-zero bytes are a valid `clone_args`: no flags, no new stack.
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        arguments.exit_signal = u64::try_from(libc::SIGCHLD).unwrap_or_default();
        arguments.set_tid = std::ptr::from_ref(&wanted).expose_provenance() as u64;
        arguments.set_tid_size = 1;
        // SAFETY: the arguments live until the call returns; the process is single-threaded; the child gets a copy of the
        // memory, and calls only `serve`, which is async-signal-safe.
        let child =
            unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
        if child == 0 {
            // What comes before this kills it, and is told as such.
            let _ = nix::sys::signal::SigSet::all().thread_block();
            serve(socket, c"headcount-by");
        }
        if child < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EEXIST) => Ok(None),
                _ => Err(Error::io(format!("failed to start a process with the number {number}"), error)),
            };
        }
        let process = PidFd::open(number)?;
        let process = process.ok_or_else(|| Error::new("the bystander ended at once"))?;
        Ok(Some(Self { socket: ours, process }))
    }

    /// Its number.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// How many signals were sent to it so far; `None` if it was killed, or does not answer.
    pub fn signals(&mut self) -> Option<u32> {
        let Ok(Counts(counts)) = ask(&mut self.socket) else { return None };
        Some(counts.iter().map(|count| u32::from(*count)).sum())
    }

    /// Ends it, and waits for it.
    ///
    /// # Errors
    /// If it does not end.
    pub fn dismiss(self) -> Result<()> {
        self.process.signal(Signal::KILL)?;
        wait::until_ended(&self.process, Instant::now() + Duration::from_secs(2))?
            .map(|_| ())
            .ok_or_else(|| Error::new("a bystander does not end"))
    }
}
