//! Who was a signal for: the gate alone, or its whole process group?
//!
//! The command stays in the gate's process group, where the terminal's Ctrl-C, `timeout` and `kill -- -PGID` reach both.
//! Such a signal must not be passed on a second time; one sent to the gate alone must be. `siginfo` does not tell them
//! apart. The witness is a second, otherwise idle process in the same group: what reached it too was for the group.
//!
//! Two equal signals that are sent before the first was taken are one, and the witness takes its signals at other moments than
//! the gate. So the gate asks before it takes its own, takes them, and asks again ([`Group`] has the rule).
//! **Guarantees:** a signal to the group is never passed on for being late on either side: the kernel reaches a group's
//! youngest members first, and the witness is younger than the gate, so it has whatever the gate has.
//! The witness ends with the gate, at its word or when the gate dies. Killing the group kills it too, so ending what a killed gate
//! leaves is the task of another process, the [`Guardian`], in a session of its own.
//! **Cannot tell:** a signal that was sent twice while the first still waited is one signal, as ever (real-time ones queue); and one
//! to the gate alone that comes in the look right after an equal one to the group, sent during a look, is taken for the group's.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::unistd::ForkResult;

use crate::{Error, Pid, PidFd, Result, Signal, wait};

/// The gate's question.
const WHAT_CAME: u8 = b'?';
/// The gate's leave.
const FAREWELL: u8 = b'.';
/// How long the witness may take for an answer, or to end. It only ever computes: this is for a machine in trouble.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// A running witness.
#[derive(Debug)]
pub struct Witness {
    socket: UnixStream,
    process: PidFd,
    /// Whether a question went unanswered: a late answer would pass for the next question's.
    is_lost: bool,
}

impl Witness {
    /// Starts the witness, with all signals blocked as they are in the caller, who must be single-threaded.
    ///
    /// # Errors
    /// Out of processes or descriptors.
    pub fn start() -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().map_err(|e| Error::io("failed to open a socket pair", e))?;
        ours.set_read_timeout(Some(PATIENCE)).map_err(|e| Error::io("failed to prepare the witness", e))?;
        let socket = theirs.as_raw_fd();
        // SAFETY: the process is single-threaded; the child calls only `serve`, which is async-signal-safe.
        match unsafe { nix::unistd::fork() }.map_err(|e| Error::io("failed to fork the witness", e))? {
            ForkResult::Child => serve(socket, c"headcount-wit"),
            ForkResult::Parent { child } => {
                let process = Pid::new(child.as_raw()).map(PidFd::open).transpose()?.flatten();
                let process = process.ok_or_else(|| Error::new("the witness ended at once"))?;
                Ok(Self { socket: ours, process, is_lost: false })
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
    fn ask(&mut self) -> Result<Counts> {
        if self.is_lost {
            return Err(Error::new("the witness did not answer before"));
        }
        let counts = ask(&mut self.socket);
        self.is_lost = counts.is_err();
        counts.map_err(|e| Error::io("failed to ask the witness", e))
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

/// Asks a process that [`serve`]s for the signals since the last question.
pub(crate) fn ask(socket: &mut UnixStream) -> io::Result<Counts> {
    let mut counts = Counts::default();
    socket.write_all(&[WHAT_CAME])?;
    socket.read_exact(&mut counts.0)?;
    Ok(counts)
}

/// How often each signal came, from 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts(pub(crate) [u8; 64]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; 64])
    }
}

/// What the group got, as far as the gate's current look is concerned.
#[derive(Clone, Copy, Debug, Default)]
pub struct Group {
    known: Counts,
}

impl Group {
    /// One look: asks the witness, takes what came to the gate, asks again. Returns what was for the gate alone, and all
    /// that came. A witness that does not answer saw nothing: a signal twice is better than none.
    ///
    /// A standard signal that the group got covers every equal one of the same look, since several may have become one
    /// with the witness alone; real-time signals queue, and are counted. What only the second answer has was sent during the
    /// look: it is with the gate by the next one, and covers that one too.
    ///
    /// # Errors
    /// As `take` does.
    pub fn look<E>(
        &mut self,
        witness: &mut Witness,
        take: impl FnOnce() -> std::result::Result<Vec<Signal>, E>,
    ) -> std::result::Result<(Vec<Signal>, Vec<Signal>), E> {
        self.known.add(&witness.ask().unwrap_or_default());
        let all = take()?;
        let late = witness.ask().unwrap_or_default();
        self.known.add(&late);
        let alone = all.iter().copied().filter(|signal| !self.covers(*signal)).collect();
        self.known = self.known.real_time().with_standard_of(&late);
        Ok((alone, all))
    }

    fn covers(&mut self, signal: Signal) -> bool {
        if signal.is_real_time() { self.known.take(signal) } else { self.known.has(signal) }
    }
}

/// Where the standard signals end and the real-time signals begin, in [`Counts`].
const STANDARD: usize = 31;

impl Counts {
    fn real_time(mut self) -> Self {
        self.0.iter_mut().take(STANDARD).for_each(|count| *count = 0);
        self
    }

    fn with_standard_of(mut self, other: &Self) -> Self {
        for (count, theirs) in self.0.iter_mut().zip(other.0).take(STANDARD) {
            *count = theirs;
        }
        self
    }

    fn has(&self, signal: Signal) -> bool {
        { *self }.take(signal)
    }

    /// Adds another answer.
    fn add(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_add(more);
        }
    }

    /// Takes one signal away; whether it was there.
    fn take(&mut self, signal: Signal) -> bool {
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

/// The life of a process that counts signals and is asked for them. Async-signal-safe: it runs after a fork, without exec.
pub(crate) fn serve(socket: RawFd, name: &CStr) -> ! {
    let _ = nix::sys::prctl::set_name(name);
    close_all_but(socket, socket);
    while read_byte(socket) == Some(WHAT_CAME) {
        let Counts(answer) = drain();
        // SAFETY: the buffer is valid for its length.
        unsafe { libc::write(socket, answer.as_ptr().cast(), answer.len()) };
    }
    // SAFETY: ends this process without running anything of the parent's.
    unsafe { libc::_exit(0) }
}

/// A process in a session of its own that outlives the gate by a moment: if the gate dies without a word, however it was killed,
/// it ends what lives in the scope's cgroup, frozen or not.
///
/// It is a child of the gate that a plain wait does not see (a *clone child*, clone(2)): the gate waits until it has no other
/// children. It holds back every signal.
#[derive(Debug)]
pub struct Guardian {
    socket: UnixStream,
    process: PidFd,
}

impl Guardian {
    /// Starts a guardian that writes `1` to `kill_switch` if the caller dies. `None` before Linux 5.14, where there is no
    /// such switch. The caller must be single-threaded, and have all signals blocked.
    ///
    /// # Errors
    /// Out of processes or descriptors.
    pub fn start(kill_switch: Option<File>) -> Result<Option<Self>> {
        let Some(switch) = kill_switch else { return Ok(None) };
        let (ours, theirs) = UnixStream::pair().map_err(|e| Error::io("failed to open a socket pair", e))?;
        let (socket, switch) = (theirs.as_raw_fd(), switch.as_raw_fd());
        // As fork(2), but that the child's end sends no signal (0), which keeps it out of plain waits. Every other argument is
        // zero, so their order, which differs between architectures, does not matter.
        // SAFETY: the process is single-threaded; the child gets a copy of the memory, and calls only `stand_guard`, which
        // is async-signal-safe.
        let child = unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) };
        match i32::try_from(child) {
            Ok(0) => stand_guard(socket, switch),
            Ok(child) if child > 0 => {
                let process = Pid::new(child).map(PidFd::open).transpose()?.flatten();
                let process = process.ok_or_else(|| Error::new("the guardian ended at once"))?;
                Ok(Some(Self { socket: ours, process }))
            }
            _ => Err(Error::io("failed to fork the guardian", io::Error::last_os_error())),
        }
    }

    /// Its process number, so that a census passes over it.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// Lets the guardian go: there is nothing left to guard. Returns when it has ended.
    ///
    /// # Errors
    /// If it does not end.
    pub fn dismiss(mut self) -> Result<()> {
        let _ = self.socket.write_all(&[FAREWELL]);
        if wait::until_ended(&self.process, Instant::now() + PATIENCE)?.is_some() {
            return Ok(());
        }
        Err(Error::new("the guardian does not end"))
    }
}

/// The guardian's life. Async-signal-safe.
fn stand_guard(socket: RawFd, switch: RawFd) -> ! {
    let _ = nix::unistd::setsid();
    let _ = nix::sys::prctl::set_name(c"headcount-guard");
    close_all_but(socket, switch);
    if read_byte(socket).is_none() {
        // The gate is gone without a word. What it contained goes with it.
        // SAFETY: the buffer is valid for one byte.
        unsafe { libc::write(switch, b"1".as_ptr().cast(), 1) };
    }
    // SAFETY: ends this process without running anything of the parent's.
    unsafe { libc::_exit(0) }
}

/// Blocks for a byte; `None` at the end of file.
pub(crate) fn read_byte(socket: RawFd) -> Option<u8> {
    loop {
        let mut byte = [0u8; 1];
        // SAFETY: the buffer is valid for one byte.
        let count = unsafe { libc::read(socket, byte.as_mut_ptr().cast(), 1) };
        match (count, byte) {
            (1, [byte]) => return Some(byte),
            (-1, _) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => return None,
        }
    }
}

/// Closes every descriptor but two: the command's pipes, above all, must not be held open here.
pub(crate) fn close_all_but(one: RawFd, other: RawFd) {
    let (low, high) = if one < other { (one, other) } else { (other, one) };
    close_range(0, low - 1);
    close_range(low + 1, high - 1);
    close_range(high + 1, RawFd::MAX);
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
