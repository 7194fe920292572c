//! Starting a command that is contained before its first instruction.
//!
//! **Guarantees:** the command joins its cgroup before it executes; it dies with the calling process (parent-death
//! signal, with the parent checked again after arming, without which a parent that dies in between goes unnoticed); it
//! has the signal mask and dispositions that the caller was started with.
//! **Cannot do:** the parent-death signal is the direct child's only, and a set-uid program clears it.

use std::ffi::{CStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::signal::Inherited;
use crate::{Error, Pid, PidFd, Result, namespace};

/// A command and what it is to be started with.
#[derive(Debug)]
pub struct Contained<'a> {
    /// The program and its arguments.
    pub command: &'a [OsString],
    /// A variable to add to the environment.
    pub variable: Option<(&'a CStr, &'a CStr)>,
    /// The `cgroup.procs` to join through.
    pub door: Option<BorrowedFd<'a>>,
    /// The pid namespace to be born in, see [`Namespace::door`](crate::namespace::Namespace::door).
    pub namespace: Option<BorrowedFd<'a>>,
    /// The signal state to give it.
    pub signals: &'a Inherited,
}

/// Why a command was not started.
#[derive(Debug)]
pub enum Failure {
    /// There is no such program.
    NotFound(Error),
    /// There is, and it cannot be executed.
    NotExecutable(Error),
    /// It could not join its cgroup.
    Confinement(Error),
    /// Anything else.
    System(Error),
}

/// Written by the child for the step that failed, with the error number.
const CONFINEMENT: u8 = 1;
const OTHER: u8 = 2;

/// Starts a command. The calling thread must be the process's only one, and live as long as it: the parent-death signal
/// is the thread's.
///
/// # Errors
/// See [`Failure`].
pub fn start(contained: &Contained<'_>) -> std::result::Result<PidFd, Failure> {
    let Some((program, arguments)) = contained.command.split_first() else {
        return Err(Failure::NotFound(Error::new("no command to run")));
    };
    let (told, tell) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
        .map_err(|e| Failure::System(Error::io("failed to open a pipe", e)))?;
    #[expect(clippy::disallowed_methods, reason = "this is the place that puts commands into their scope")]
    let mut command = Command::new(program);
    command.args(arguments);
    // Set here and inherited, because the standard library would sort the environment that it builds, and drop what it
    // does not understand: entries without `=`, and all but the last of equal names.
    if let Some((name, value)) = contained.variable {
        // SAFETY: the process is single-threaded, so nobody reads the environment meanwhile; both strings end in NUL.
        unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 1) };
    }
    let is_namespaced = contained.namespace.is_some();
    if let Some(door) = contained.namespace {
        namespace::enter(door).map_err(Failure::System)?;
    }
    // From inside a pid namespace, a parent outside of it has no number.
    let parent = if is_namespaced { 0 } else { Pid::this().as_raw() };
    let door = contained.door.map(|door| door.as_raw_fd());
    let signals = contained.signals.clone();
    let tell_raw = tell.as_raw_fd();
    let prepare = move || {
        confine(door).map_err(|e| report(tell_raw, CONFINEMENT, e))?;
        die_with(parent).map_err(|e| report(tell_raw, OTHER, e))?;
        if is_namespaced {
            namespace::mount_proc().map_err(|e| report(tell_raw, OTHER, e))?;
        }
        signals.restore().map_err(|e| report(tell_raw, OTHER, e))
    };
    // SAFETY: `prepare` makes only async-signal-safe calls (write, prctl, getppid, unshare, mount, sigaction, sigprocmask) and allocates
    // nothing; the descriptors that it uses stay open until spawn has returned.
    unsafe { command.pre_exec(prepare) };
    match command.spawn() {
        Ok(child) => opened(&child).map_err(Failure::System),
        Err(error) => {
            drop(tell);
            Err(failure(program, &mut File::from(told), error))
        }
    }
}

fn opened(child: &std::process::Child) -> Result<PidFd> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::new);
    let pid = pid.ok_or_else(|| Error::new("the command has no pid"))?;
    // Until it is waited for, which only the caller can do, its number cannot be another's.
    PidFd::open(pid)?
        .ok_or_else(|| Error::new(format!("the command, process {pid}, was waited for by someone else")))
}

fn confine(door: Option<i32>) -> io::Result<()> {
    let Some(door) = door else { return Ok(()) };
    // SAFETY: the caller keeps the descriptor open until the child has executed.
    let door = unsafe { BorrowedFd::borrow_raw(door) };
    nix::unistd::write(door.as_fd(), b"0")?;
    Ok(())
}

fn die_with(parent: i32) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    // A namespaced command whose parent died before the signal was armed ends with the namespace.
    if nix::unistd::getppid().as_raw() == parent {
        return Ok(());
    }
    // The parent died before the signal was armed: it will not come.
    // SAFETY: ends this process, which has not executed the command yet, without running anything of the parent's.
    unsafe { libc::_exit(libc::SIGKILL) }
}

/// Tells the parent which step failed; without allocation, as this runs between fork and exec.
fn report(tell: i32, step: u8, error: io::Error) -> io::Error {
    let number = error.raw_os_error().unwrap_or(0).to_ne_bytes();
    let [a, b, c, d] = number;
    // SAFETY: the parent keeps the descriptor open until spawn has returned.
    let tell = unsafe { BorrowedFd::borrow_raw(tell) };
    let _ = nix::unistd::write(tell, &[step, a, b, c, d]);
    error
}

fn failure(program: &OsString, told: &mut File, error: io::Error) -> Failure {
    let mut message = [0u8; 5];
    let step = told.read_exact(&mut message).ok().and_then(|()| message.first().copied());
    let shown = program.display();
    match step {
        Some(CONFINEMENT) => {
            Failure::Confinement(Error::io("failed to put the command into its cgroup", error))
        }
        Some(_) => Failure::System(Error::io(format!("failed to prepare the start of `{shown}`"), error)),
        None if error.kind() == io::ErrorKind::NotFound => {
            Failure::NotFound(Error::io(format!("failed to run `{shown}`"), error))
        }
        // Out of processes, memory or descriptors is our trouble, not the program's.
        None if matches!(
            error.raw_os_error(),
            Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE)
        ) =>
        {
            Failure::System(Error::io(format!("failed to start `{shown}`"), error))
        }
        None => Failure::NotExecutable(Error::io(format!("failed to run `{shown}`"), error)),
    }
}
