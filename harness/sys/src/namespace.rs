//! A pid namespace for one command: whatever is in it ends with its init, and its init with the gate.
//!
//! The gate forks the namespace's *init*, which only waits, and then forks the command into the namespace, as its own child as
//! ever: signals, job control and exit status need nothing special. Orphans go to init, which reaps them. The command gets a `/proc`
//! of its own, in a mount namespace of its own.
//!
//! **Guarantees:** when init ends, the kernel ends everything in the namespace and below, before init is gone; when the caller
//! ends, however it does, init ends. **Cannot do:** what talks to processes outside by number gets the wrong ones; set-uid programs
//! keep their user where the namespace needed a user namespace.
//!
//! Needs Linux 5.8 (setns by pidfd), and root or unprivileged user namespaces.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::witness::{close_all_but, read_byte};
use crate::{Error, Pid, PidFd, ProcessId, Result, Signal, wait};

/// How long init may take to start, or to end once it may.
const PATIENCE: Duration = Duration::from_secs(2);

/// A pid namespace, and its init.
#[derive(Debug)]
pub struct Namespace {
    socket: UnixStream,
    init: PidFd,
}

impl Namespace {
    /// Makes a namespace. Without the right to, the calling process moves into a user namespace of its own first, in which it
    /// keeps its user and group, and has the right. It must be single-threaded, with all signals blocked, and cannot go back.
    ///
    /// # Errors
    /// Where the machine forbids it; the message says at which step.
    pub fn open() -> Result<Self> {
        match Self::fork_init() {
            Err(error) if error.is_denied() => {
                enter_user_namespace()?;
                Self::fork_init()
            }
            other => other,
        }
    }

    fn fork_init() -> Result<Self> {
        let (ours, theirs) = UnixStream::pair().map_err(|e| Error::io("failed to open a socket pair", e))?;
        ours.set_read_timeout(Some(PATIENCE))
            .map_err(|e| Error::io("failed to prepare the namespace's init", e))?;
        let socket = theirs.as_raw_fd();
        let flags = libc::c_long::from(libc::CLONE_NEWPID | libc::CLONE_NEWNS);
        // As fork(2), in new namespaces, and without a signal at the child's end (see the guardian in `witness`). The other
        // arguments are zero, so their order, which differs between architectures, does not matter.
        // SAFETY: the process is single-threaded; the child gets a copy of the memory, and calls only `init`, which is
        // async-signal-safe.
        let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        let child = match i32::try_from(child) {
            Ok(0) => init(socket),
            Ok(child) if child > 0 => child,
            _ => return Err(Error::io("failed to make a pid namespace", io::Error::last_os_error())),
        };
        let init = Pid::new(child).map(PidFd::open).transpose()?.flatten();
        let init = init.ok_or_else(|| Error::new("the namespace's init ended at once"))?;
        drop(theirs);
        let mut namespace = Self { socket: ours, init };
        let mut answer = [0u8; 4];
        let read = namespace.socket.read_exact(&mut answer);
        let outcome = match (read, i32::from_ne_bytes(answer)) {
            (Ok(()), 0) => return Ok(namespace),
            (Ok(()), number) => Error::io(
                "failed to mount a /proc for the namespace (a container that masks parts of /proc forbids it)",
                io::Error::from_raw_os_error(number),
            ),
            (Err(error), _) => Error::io("the namespace's init does not answer", error),
        };
        namespace.end()?;
        let _ = namespace.dismiss();
        // A refusal here has nothing to do with the right to make a pid namespace.
        Err(Error::new(outcome.chain()))
    }

    /// Init's identity, for the run's record.
    ///
    /// # Errors
    /// If it is gone.
    pub fn init_id(&self) -> Result<ProcessId> {
        ProcessId::of(&self.init)
    }

    /// Init's process number, as seen from the caller.
    #[must_use]
    pub fn init(&self) -> Pid {
        self.init.pid()
    }

    /// For [`spawn`](crate::spawn): what the command enters.
    #[must_use]
    pub fn door(&self) -> BorrowedFd<'_> {
        self.init.as_fd()
    }

    /// Whether init is gone, and with it everything that was in the namespace.
    ///
    /// # Errors
    /// Where the descriptor cannot be polled.
    pub fn has_ended(&self) -> Result<bool> {
        self.init.has_exited()
    }

    /// What to wait on for that.
    #[must_use]
    pub fn watch(&self) -> crate::poll::Interest<'_> {
        crate::poll::Interest::readable(self.init.as_fd())
    }

    /// Ends everything in the namespace with SIGKILL. Not waited for: see [`has_ended`](Self::has_ended).
    ///
    /// # Errors
    /// None that matters: init is the caller's own child.
    pub fn end(&self) -> Result<()> {
        self.init.signal(Signal::KILL).map(|_| ())
    }

    /// Lets init go, and waits for it; whatever was still inside ends.
    ///
    /// # Errors
    /// If it does not end, because something inside cannot.
    pub fn dismiss(mut self) -> Result<()> {
        let _ = self.socket.write_all(b".");
        if wait::until_ended(&self.init, Instant::now() + PATIENCE)?.is_some() {
            return Ok(());
        }
        Err(Error::new("the namespace does not end: something in it cannot be killed"))
    }
}

/// Before the command is forked: what the calling process forks from now on is born in the namespace.
pub(crate) fn enter(door: BorrowedFd<'_>) -> Result<()> {
    setns(door, CloneFlags::CLONE_NEWPID).map_err(|e| Error::io("failed to enter the pid namespace", e))
}

/// In the forked command, before it executes: a `/proc` that fits the namespace. Async-signal-safe.
pub(crate) fn mount_proc() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount_over()?;
    Ok(())
}

/// Mounts a `/proc` where nobody else sees it.
fn mount_over() -> std::result::Result<(), Errno> {
    let none = None::<&'static [u8]>;
    mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some(c"proc"), c"/proc", Some(c"proc"), flags, none)
}

/// Init's life. Async-signal-safe. Every signal is blocked, and the kernel gives init none that it does not take.
fn init(socket: RawFd) -> ! {
    // Ignored, not only blocked: the kernel then reaps whatever comes to init.
    // SAFETY: an ignored signal has no handler that could be wrong.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let _ = nix::unistd::setsid();
    let _ = nix::sys::prctl::set_name(c"headcount-init");
    close_all_but(socket, socket);
    let answer = mount_over().map_or_else(|errno| errno as i32, |()| 0).to_ne_bytes();
    // SAFETY: the buffer is valid for its length.
    unsafe { libc::write(socket, answer.as_ptr().cast(), answer.len()) };
    // A byte is leave to go; the end of file is the gate's death. The namespace ends either way.
    let _ = read_byte(socket);
    // SAFETY: ends this process without running anything of the parent's.
    unsafe { libc::_exit(0) }
}

/// A user namespace in which this user and group are themselves, and nobody else is anybody.
fn enter_user_namespace() -> Result<()> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|e| {
        Error::io("failed to make a user namespace (forbidden by a sysctl, a container or AppArmor)", e)
    })?;
    let write = |file: &str, text: &str| {
        let path = Path::new("/proc/self").join(file);
        fs::write(&path, text).map_err(|e| Error::io(format!("failed to write {}", path.display()), e))
    };
    // Without this, an unprivileged user may not map a group.
    write("setgroups", "deny")?;
    write("uid_map", &format!("{uid} {uid} 1"))?;
    write("gid_map", &format!("{gid} {gid} 1"))
}
