//! Who was a signal for: the gate alone, or its whole process group?
//!
//! The command stays in the gate's process group, where the terminal's Ctrl-C, `timeout` and `kill -- -PGID` reach both.
//! Such a signal must not be passed on a second time; one sent to the gate alone must be. `siginfo` does not tell them
//! apart. The witness is a second, otherwise idle process in the same group: what reached it too was for the group.
//!
//! **Guarantees:** the answer holds for every signal that had reached the gate before it asked, and after another
//! [`barrier`] every signal in the answer has reached the gate. The kernel signals a group's members under `tasklist_lock`,
//! held for reading; `setpgid` takes it for writing, so once it returns, a group signal that reached one member has
//! reached all.
//! The witness ends with the gate: at its word, or when the gate dies. In that case it first ends what lives in the
//! scope's cgroup, so that a gate killed with SIGKILL leaves nothing behind where the cgroup tier is in force.
//! **Cannot tell:** a signal that was sent twice while the first still waited is one signal, as ever (real-time ones queue).

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::{Error, Pid, PidFd, Result, Signal, wait};

/// The gate's question.
const WHAT_CAME: u8 = b'?';
/// The gate's leave.
const FAREWELL: u8 = b'.';
/// How long the witness may take for an answer, or to end. It only ever computes: this is for a machine in trouble.
const PATIENCE: Duration = Duration::from_secs(2);

/// A running witness.
#[derive(Debug)]
pub struct Witness {
    socket: UnixStream,
    process: PidFd,
}

impl Witness {
    /// Starts the witness, with all signals blocked as they are in the caller, who must be single-threaded. If the caller
    /// dies, the witness writes `1` to `kill_switch`.
    ///
    /// # Errors
    /// Out of processes or descriptors.
    pub fn start(kill_switch: Option<&File>) -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().map_err(|e| Error::io("failed to open a socket pair", e))?;
        ours.set_read_timeout(Some(PATIENCE)).map_err(|e| Error::io("failed to prepare the witness", e))?;
        let socket = theirs.as_raw_fd();
        let switch = kill_switch.map(|file| file.as_raw_fd());
        // SAFETY: the process is single-threaded; the child calls only `serve`, which is async-signal-safe.
        match unsafe { nix::unistd::fork() }.map_err(|e| Error::io("failed to fork the witness", e))? {
            nix::unistd::ForkResult::Child => serve(socket, switch),
            nix::unistd::ForkResult::Parent { child } => {
                let process = Pid::new(child.as_raw()).map(PidFd::open).transpose()?.flatten();
                let process = process.ok_or_else(|| Error::new("the witness ended at once"))?;
                Ok(Self { socket: ours, process })
            }
        }
    }

    /// Its process number, so that a census passes over it.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// The signals that reached the group since the last question.
    ///
    /// # Errors
    /// If somebody ended the witness.
    pub fn ask(&mut self) -> Result<Counts> {
        let failed = |e| Error::io("failed to ask the witness", e);
        barrier();
        self.socket.write_all(&[WHAT_CAME]).map_err(failed)?;
        let mut counts = Counts::default();
        self.socket.read_exact(&mut counts.0).map_err(failed)?;
        Ok(counts)
    }

    /// Lets the witness go, and waits for it.
    ///
    /// # Errors
    /// If it does not end; it is killed then.
    pub fn dismiss(mut self) -> Result<()> {
        let _ = self.socket.write_all(&[FAREWELL]);
        // Somebody may have ended it, and the gate waited for it, before.
        if !wait::is_child(self.process.pid())?
            || wait::until_ended(&self.process, Instant::now() + PATIENCE)?.is_some()
        {
            return Ok(());
        }
        self.process.signal(Signal::KILL)?;
        wait::until_ended(&self.process, Instant::now() + PATIENCE)?
            .map(|_| ())
            .ok_or_else(|| Error::new("the witness does not end"))
    }
}

/// Returns once every signal that reached one member of the group has reached all of them.
pub fn barrier() {
    // Changes nothing: the process is in that group. A session's leader is refused, after the lock was taken.
    let _ = nix::unistd::setpgid(nix::unistd::Pid::from_raw(0), nix::unistd::getpgrp());
}

/// How often each signal came, from 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts([u8; 64]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl Counts {
    /// Adds another answer.
    pub fn add(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_add(more);
        }
    }

    /// Takes one signal away; whether it was there.
    pub fn take(&mut self, signal: Signal) -> bool {
        let place = usize::try_from(signal.as_raw() - 1).ok();
        match place.and_then(|place| self.0.get_mut(place)) {
            Some(count) if *count > 0 => {
                *count -= 1;
                true
            }
            _ => false,
        }
    }

    fn note(&mut self, number: i32) {
        if let Some(count) = usize::try_from(number - 1).ok().and_then(|place| self.0.get_mut(place)) {
            *count = count.saturating_add(1);
        }
    }
}

/// The witness's life. Async-signal-safe: it runs after a fork, without exec.
fn serve(socket: RawFd, kill_switch: Option<RawFd>) -> ! {
    let _ = nix::sys::prctl::set_name(c"headcount-wit");
    // Every other descriptor, the command's pipes above all, must not be held open here.
    let mut kept = [socket, kill_switch.unwrap_or(socket)];
    kept.sort_unstable();
    let [low, high] = kept;
    close_range(0, low - 1);
    close_range(low + 1, high - 1);
    close_range(high + 1, RawFd::MAX);
    loop {
        let mut question = [0u8; 1];
        // SAFETY: the buffer is valid for one byte.
        let count = unsafe { libc::read(socket, question.as_mut_ptr().cast(), 1) };
        match (count, question) {
            (1, [WHAT_CAME]) => {
                let Counts(answer) = drain();
                // SAFETY: the buffer is valid for its length.
                unsafe { libc::write(socket, answer.as_ptr().cast(), answer.len()) };
            }
            (1, _) => break,
            (-1, _) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => {
                // The gate is gone without a word. What it contained goes with it.
                if let Some(switch) = kill_switch {
                    // SAFETY: the buffer is valid for one byte.
                    unsafe { libc::write(switch, b"1".as_ptr().cast(), 1) };
                }
                break;
            }
        }
    }
    // SAFETY: ends this process without running anything of the parent's.
    unsafe { libc::_exit(0) }
}

/// Closes the descriptors from `first` to `last`, both included; none where `last` is lower.
fn close_range(first: RawFd, last: RawFd) {
    if first <= last {
        // SAFETY: nothing in this process uses these descriptors any more. Before Linux 5.9 the call fails, and they stay
        // open until the gate ends, which is then a reader's wait for the end of file, not an error.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
    }
}

/// Takes all signals that wait, without blocking.
fn drain() -> Counts {
    // SAFETY: all-zero bytes are a valid set.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is valid for the write.
    unsafe { libc::sigfillset(&raw mut all) };
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let mut came = Counts::default();
    // Bounded: real-time signals queue up, and whoever sends them without pause must not keep the gate waiting.
    for _ in 0..4096 {
        // SAFETY: set and timeout are valid for the read; no siginfo is asked for.
        let signal = unsafe { libc::sigtimedwait(&raw const all, std::ptr::null_mut(), &raw const at_once) };
        if signal <= 0 {
            break;
        }
        came.note(signal);
    }
    came
}

impl AsFd for Witness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_taken_one_by_one() {
        let mut counts = Counts::default();
        counts.note(64);
        let mut more = Counts::default();
        more.note(64);
        more.note(65);
        counts.add(&more);
        let last = Signal::new(64).unwrap();
        assert_eq!([counts.take(last), counts.take(last), counts.take(last)], [true, true, false]);
        assert!(!counts.take(Signal::TERM));
    }
}
