//! What the kernel says of one process, taken before anything is killed.
//!
//! **Guarantees:** everything in a [`Process`] belongs to one process: its pidfd is opened first, and still means a living
//! process when the last file was read. What could not be read is named in [`Process::missing`], never guessed.
//! **Cannot see:** a zombie's files, another user's descriptors and environment, and what `hidepid` hides.

use std::collections::BTreeMap;

use headcount_sys::proc::{self, Listener, Stat, State, Status};
use headcount_sys::{Error, Pid, PidFd};

use crate::Result;
use crate::provenance::Chain;
use crate::test_id::{self, TestId};
use crate::tier::Tier;

/// How much of a process is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// A thread of it runs, or could.
    Alive,
    /// Every thread of it is on its way out, or has SIGKILL pending: it is dying, not leaked.
    Dying,
    /// Dead, and not waited for: a zombie.
    Dead,
}

/// What is known of one process.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    /// Its number.
    pub pid: Pid,
    /// Its inode on pidfs, where the kernel has one.
    pub inode: Option<u64>,
    /// Its parent, if that is in this pid namespace.
    pub ppid: Option<Pid>,
    /// How much of it is left.
    pub life: Life,
    /// The main thread's state, or another's where the main thread has ended; `None` if `/proc` hides the process.
    pub state: Option<State>,
    /// How many threads it has.
    pub threads: u64,
    /// Its short name.
    pub name: Vec<u8>,
    /// Its start, in clock ticks since boot.
    pub start_ticks: u64,
    /// Its session.
    pub session: Option<i32>,
    /// Its process group.
    pub process_group: Option<i32>,
    /// Its real user.
    pub uid: Option<u32>,
    /// The program's path.
    pub exe: Option<Vec<u8>>,
    /// Its arguments, as they are now: a process can overwrite them.
    pub argv: Vec<Vec<u8>>,
    /// Its working folder.
    pub cwd: Option<Vec<u8>>,
    /// Processor time used, in clock ticks.
    pub cpu_ticks: u64,
    /// Resident memory, in pages.
    pub rss_pages: u64,
    /// Where it listens.
    pub listening: Vec<Vec<u8>>,
    /// The test that started it.
    pub test: Option<TestId>,
    /// Whether it is in the scope's cgroup; `None` where there is none, or that could not be read.
    pub in_cgroup: Option<bool>,
    /// Whether its environment has the run's token; `None` where that could not be read.
    pub has_token: Option<bool>,
    /// By which tiers it was seen.
    pub seen_by: Vec<Tier>,
    /// Who started it, where births were recorded.
    pub spawned_by: Option<Chain>,
    /// What could not be read.
    pub missing: Vec<&'static str>,
}

impl Process {
    /// A process of which only the number is known, because `/proc` hides it.
    fn hidden(pidfd: &PidFd) -> Result<Self> {
        Ok(Self {
            pid: pidfd.pid(),
            inode: pidfd.inode()?,
            ppid: None,
            life: Life::Alive,
            state: None,
            threads: 0,
            name: Vec::new(),
            start_ticks: 0,
            session: None,
            process_group: None,
            uid: None,
            exe: None,
            argv: Vec::new(),
            cwd: None,
            cpu_ticks: 0,
            rss_pages: 0,
            listening: Vec::new(),
            test: None,
            in_cgroup: None,
            has_token: None,
            seen_by: Vec::new(),
            spawned_by: None,
            missing: vec!["stat"],
        })
    }

    /// Whether `/proc` hides it, so that nothing about it could be checked.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        self.state.is_none()
    }
}

/// What evidence is compared with: how to recognise a process of the scope.
#[derive(Clone, Debug)]
pub struct Marks {
    /// The scope's path on the cgroup hierarchy.
    pub cgroup: Option<Vec<u8>>,
    /// The run, if its token is in the command's environment.
    pub token: Option<headcount_sys::state::RunId>,
}

impl Marks {
    /// Whether a path of `/proc/PID/cgroup` is the scope's, or below it.
    #[must_use]
    pub fn confines(&self, path: &[u8]) -> bool {
        self.cgroup.as_ref().is_some_and(|own| {
            path.strip_prefix(own.as_slice())
                .is_some_and(|rest| rest.is_empty() || rest.first() == Some(&b'/'))
        })
    }

    /// Whether an environment has the run's token.
    #[must_use]
    pub fn is_on(&self, environ: &[u8]) -> bool {
        self.token.as_ref().is_some_and(|run| {
            proc::variables(environ).any(|(name, value)| {
                name == headcount_sys::state::TOKEN_VARIABLE.as_bytes() && run.is_in(value)
            })
        })
    }
}

/// The most descriptors of one process that are looked at for listening sockets.
const DESCRIPTOR_LIMIT: usize = 4096;

/// Reads evidence, keeping what processes share.
#[derive(Debug, Default)]
pub struct Reader {
    listeners: BTreeMap<u64, Vec<Listener>>,
}

impl Reader {
    /// Reads what the kernel says of a process; `None` if it is gone.
    ///
    /// # Errors
    /// Where the kernel refuses what it refuses to nobody, such as for lack of memory.
    pub fn read(&mut self, pidfd: &PidFd, marks: &Marks) -> Result<Option<Process>> {
        let process = match self.read_living(pidfd, marks)? {
            Some(process) if process.life != Life::Dead && pidfd.has_exited()? => None,
            other => other,
        };
        if process.is_some() {
            return Ok(process);
        }
        // It ended while it was read. Unless the number is another's by now, it may remain as a zombie.
        let now = PidFd::open(pidfd.pid())?;
        match now {
            Some(now) if now.inode()? == pidfd.inode()? => {
                let process = self.read_living(pidfd, marks)?;
                Ok(process.filter(|process| process.life == Life::Dead))
            }
            _ => Ok(None),
        }
    }

    fn read_living(&mut self, pidfd: &PidFd, marks: &Marks) -> Result<Option<Process>> {
        let pid = pidfd.pid();
        let stat = match proc::stat(pid) {
            Ok(stat) => stat,
            Err(error) if error.is_gone() || error.is_denied() => {
                return if pidfd.has_exited()? { Ok(None) } else { Process::hidden(pidfd).map(Some) };
            }
            Err(error) => return Err(error.into()),
        };
        let status = proc::status(pid).ok();
        let (life, state, thread) = life(pid, &stat, status.as_ref());
        let mut process = Process {
            ppid: Pid::new(stat.ppid),
            life,
            state: Some(state),
            threads: stat.threads,
            name: stat.name,
            start_ticks: stat.start_ticks,
            session: Some(stat.session),
            process_group: Some(stat.process_group),
            cpu_ticks: stat.cpu_ticks,
            rss_pages: proc::resident_pages(pid).unwrap_or(0),
            missing: Vec::new(),
            ..Process::hidden(pidfd)?
        };
        process.uid = status.map(|status| status.uid);
        if life != Life::Dead {
            self.read_files(&mut process, thread, marks);
        }
        Ok(Some(process))
    }

    /// The files that only a living process has.
    fn read_files(&mut self, process: &mut Process, thread: Pid, marks: &Marks) {
        // Every thread has a folder in `/proc` under its own number.
        let pid = thread;
        let missing = &mut process.missing;
        let mut note = |name: &'static str, error: &Error| {
            // A process that vanished is told by its pidfd; here it counts that something was refused.
            if !error.is_gone() {
                missing.push(name);
            }
        };
        match proc::cmdline(pid) {
            Ok(argv) => process.argv = argv,
            Err(error) => note("argv", &error),
        }
        match proc::link(pid, "exe") {
            Ok(exe) => process.exe = Some(exe),
            Err(error) => note("exe", &error),
        }
        match proc::link(pid, "cwd") {
            Ok(cwd) => process.cwd = Some(cwd),
            Err(error) => note("cwd", &error),
        }
        match proc::environ(pid) {
            Ok(environ) => {
                process.test = test_id::find(proc::variables(&environ));
                process.has_token = marks.token.is_some().then(|| marks.is_on(&environ));
            }
            Err(error) => note("environ", &error),
        }
        if marks.cgroup.is_some() {
            match proc::cgroup(pid) {
                Ok(path) => process.in_cgroup = Some(marks.confines(&path)),
                Err(error) => note("cgroup", &error),
            }
        }
        match self.listening(pid) {
            Ok((listening, cut)) => {
                process.listening = listening;
                if cut {
                    missing.push("listening");
                }
            }
            Err(error) => note("listening", &error),
        }
    }

    fn listening(&mut self, pid: Pid) -> headcount_sys::Result<(Vec<Vec<u8>>, bool)> {
        let (sockets, cut) = proc::sockets(pid, DESCRIPTOR_LIMIT)?;
        if sockets.is_empty() {
            return Ok((Vec::new(), cut));
        }
        let namespace = proc::net_namespace(pid)?;
        let listeners = match self.listeners.entry(namespace) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => new.insert(proc::listeners(pid)?),
        };
        let mut found: Vec<Vec<u8>> = listeners
            .iter()
            .filter(|listener| sockets.contains(&listener.inode))
            .map(|listener| listener.address.clone())
            .collect();
        found.sort();
        found.dedup();
        Ok((found, cut))
    }
}

/// How much of a process is left, what it is doing, and the thread through which its files can be read. One whose main thread
/// has ended looks like a zombie while its other threads live, so the threads are asked then.
fn life(pid: Pid, stat: &Stat, status: Option<&Status>) -> (Life, State, Pid) {
    if !stat.state.is_dead() && !stat.is_exiting() {
        let dying = status.is_some_and(|status| status.is_being_killed() || status.core_dumping);
        return (if dying { Life::Dying } else { Life::Alive }, stat.state, pid);
    }
    let mut life = if stat.state.is_dead() { Life::Dead } else { Life::Dying };
    for thread in proc::threads(pid).unwrap_or_default() {
        let Ok((stat, status)) = proc::thread(pid, thread) else { continue };
        if stat.state.is_dead() {
            continue;
        }
        if !stat.is_exiting() && !status.is_being_killed() {
            return (Life::Alive, stat.state, thread);
        }
        life = Life::Dying;
    }
    (life, stat.state, pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_with_a_longer_name_is_another() {
        let marks = Marks { cgroup: Some(b"/a/headcount-1".to_vec()), token: None };
        assert!(marks.confines(b"/a/headcount-1"));
        assert!(marks.confines(b"/a/headcount-1/made/below"));
        assert!(!marks.confines(b"/a/headcount-12"));
        assert!(!marks.confines(b"/a"));
    }

    #[test]
    fn own_evidence_is_what_the_system_says() {
        let pidfd = PidFd::open(Pid::this()).unwrap().unwrap();
        let marks = Marks { cgroup: None, token: None };
        let own = Reader::default().read(&pidfd, &marks).unwrap().unwrap();
        assert_eq!(own.life, Life::Alive);
        assert_eq!(own.cwd, Some(std::env::current_dir().unwrap().into_os_string().into_encoded_bytes()));
        assert_eq!(own.argv.len(), std::env::args_os().count());
        assert!(own.missing.is_empty(), "{:?}", own.missing);
    }
}
