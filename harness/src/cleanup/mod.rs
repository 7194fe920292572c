//! What runs left whose host is dead: found ([`Audit`]), ended and removed ([`reap`]).
//!
//! A run is its record in the state folder; its host is the gate (or the pool's owner). A process is a dead run's if it is in the run's
//! cgroup, if that run is the innermost of its token, or if its parent is one.
//!
//! **Guarantees:** a process of a run whose host lives, or may live, is never touched, and neither is one of a run that the
//! folder does not know; nor is the caller or what it descends from. Only the processes that were recognised through an open pidfd are
//! signalled, and a host is recognised by its identity, not by its number. Linear in records and in processes: each host is looked
//! at once, and each process once.
//! **Cannot see:** without the run's cgroup, what cleared its environment and lost its parent; runs of other users and of other
//! state folders.

mod reap;
pub mod report;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use headcount_sys::cgroup::Cgroup;
use headcount_sys::proc::{self, Environment};
use headcount_sys::state::{Content, Entry, Record, RunFolder, RunId, StateDir, TOKEN_VARIABLE};
use headcount_sys::{Pid, PidFd, ProcessId, identity};

use crate::Result;
use crate::evidence::{Life, Marks, Process, Reader};
use crate::scope::EndedBy;

pub use reap::reap;

/// Whether the process lives whose end ends a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// It lives: the run is its business.
    Alive,
    /// It is gone, and what the run left is nobody's.
    Dead,
    /// It lived before the machine was started anew, and with it everything else of the run.
    EarlierBoot,
    /// It lived in another pid namespace (a container), and cannot be looked for from here.
    Elsewhere,
}

/// A run that the state folder knows.
#[derive(Debug)]
pub struct Run {
    /// What it says of itself.
    pub record: Record,
    /// Whether its host lives.
    pub host: Host,
    /// Whether its cgroup is there.
    pub has_cgroup: bool,
    /// What is left of it, if its host is dead; how many processes it has is not looked at otherwise.
    pub left: Vec<Remnant>,
    folder: RunFolder,
}

/// A process that a dead run left.
#[derive(Clone, Debug, PartialEq)]
pub struct Remnant {
    /// The evidence, as of the first look.
    pub process: Process,
    /// What ended it; `None` as long as nobody tried.
    pub ended_by: Option<EndedBy>,
}

/// What the state folder and the machine say.
#[derive(Debug, Default)]
pub struct Audit {
    /// Every run, sorted by identity.
    pub runs: Vec<Run>,
    /// Folders whose host died before it had started anything.
    drafts: Vec<RunFolder>,
    /// What could not be understood or looked at.
    pub notes: Vec<String>,
}

impl Audit {
    /// Looks at every run of the state folder, and at every process of the machine if a host is dead.
    ///
    /// # Errors
    /// Where the folder or `/proc` cannot be listed.
    pub fn take(state: &StateDir) -> Result<Self> {
        let mut audit = Self::default();
        for Entry { folder, content } in state.runs()? {
            match content {
                Content::Run(record) => {
                    let host = host(&record.host)?;
                    let has_cgroup = host == Host::Dead && cgroup_of(&record).is_some();
                    audit.runs.push(Run { record, host, has_cgroup, left: Vec::new(), folder });
                }
                Content::Draft(writer) if host(&writer)? == Host::Alive => {}
                Content::Draft(_) | Content::Over => audit.drafts.push(folder),
                Content::Damaged(reason) => audit.notes.push(format!(
                    "{} is no run's folder ({reason}); it is left alone: remove it if no headcount runs",
                    folder.path().display()
                )),
            }
        }
        if audit.dead().next().is_some() {
            audit.look()?;
        }
        Ok(audit)
    }

    /// The runs whose host is dead, in this boot of the machine.
    pub fn dead(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(|run| run.host == Host::Dead)
    }

    /// Whether there is anything that [`reap`] would end or remove.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.drafts.is_empty()
            && self.runs.iter().all(|run| matches!(run.host, Host::Alive | Host::Elsewhere))
    }

    /// Finds what the dead runs left that is not known yet. Returns whether something was found.
    fn look(&mut self) -> Result<bool> {
        let mut looking = Looking::new(self)?;
        for (place, run) in self.runs.iter().enumerate() {
            if run.host == Host::Dead
                && let Some(init) = &run.record.init
            {
                looking.init(place, init)?;
            }
            if run.host == Host::Dead
                && let Some(cgroup) = cgroup_of(&run.record)
            {
                looking.cgroup(place, &cgroup, &mut self.notes)?;
            }
        }
        looking.tokens()?;
        looking.descend()?;
        let found = looking.found;
        let has_found = !found.is_empty();
        for (place, process) in found {
            if let Some(run) = self.runs.get_mut(place) {
                run.left.push(Remnant { process, ended_by: None });
            }
        }
        for run in &mut self.runs {
            run.left.sort_by_key(|one| (one.process.start_ticks, one.process.pid));
        }
        Ok(has_found)
    }
}

/// Whether a host lives. An identity that is not exact (before Linux 6.9) can only err on the side of *alive*.
fn host(id: &ProcessId) -> Result<Host> {
    Ok(if id.boot_id != identity::boot_id()? {
        Host::EarlierBoot
    } else if id.pid_namespace != identity::pid_namespace()? {
        Host::Elsewhere
    } else if id.find()?.is_some() {
        Host::Alive
    } else {
        Host::Dead
    })
}

/// A run's cgroup, if it is there, and has the name that only this run gives: a damaged record must not aim at another.
fn cgroup_of(record: &Record) -> Option<Cgroup> {
    let path = record.cgroup.as_ref()?;
    let is_own = path.file_name().is_some_and(|name| name == cgroup_name(&record.run_id).as_str());
    (is_own && path.is_dir()).then(|| Cgroup::at(path.clone()))
}

fn cgroup_name(run: &RunId) -> String {
    format!("headcount-{run}")
}

/// The runs in whose cgroups a path of `/proc/PID/cgroup` is, outermost first.
fn runs_in_path(path: &[u8]) -> impl Iterator<Item = RunId> {
    path.split(|byte| *byte == b'/').filter_map(|part| RunId::parse(part.strip_prefix(b"headcount-")?))
}

/// One look for what dead runs left.
struct Looking {
    dead: BTreeMap<RunId, usize>,
    alive: BTreeSet<RunId>,
    /// Hosts that live, and this process with what it descends from.
    spared: BTreeSet<Pid>,
    /// The identities that are known already.
    known: BTreeSet<(Pid, Option<u64>)>,
    /// Which run each process belongs to that was found.
    owner: BTreeMap<Pid, usize>,
    found: Vec<(usize, Process)>,
    below: VecDeque<(usize, Pid)>,
    /// What is older than every dead run's host is none of theirs.
    since_ticks: u64,
    reader: Reader,
}

impl Looking {
    fn new(audit: &Audit) -> Result<Self> {
        let mut looking = Self {
            dead: BTreeMap::new(),
            alive: BTreeSet::new(),
            spared: own_line()?,
            known: BTreeSet::new(),
            owner: BTreeMap::new(),
            found: Vec::new(),
            below: VecDeque::new(),
            since_ticks: u64::MAX,
            reader: Reader::default(),
        };
        for (place, run) in audit.runs.iter().enumerate() {
            match run.host {
                Host::Dead => {
                    looking.dead.insert(run.record.run_id.clone(), place);
                    looking.since_ticks = looking.since_ticks.min(run.record.host.start_ticks);
                }
                Host::Alive => {
                    looking.alive.insert(run.record.run_id.clone());
                    looking.spared.insert(run.record.host.pid);
                }
                Host::EarlierBoot | Host::Elsewhere => {}
            }
            looking.known.extend(run.left.iter().map(|one| (one.process.pid, one.process.inode)));
        }
        Ok(looking)
    }

    /// The init of a run's pid namespace, found by its identity. Everything in the namespace is below it, and ends with it.
    fn init(&mut self, place: usize, init: &ProcessId) -> Result<()> {
        if init.is_exact()
            && let Some(pidfd) = init.find()?
        {
            self.take(place, &pidfd)?;
        }
        Ok(())
    }

    fn cgroup(&mut self, place: usize, cgroup: &Cgroup, notes: &mut Vec<String>) -> Result<()> {
        match cgroup.members() {
            Ok(members) => {
                for pid in members.pids {
                    self.visit(pid, Some(place))?;
                }
            }
            // Another reaper was quicker.
            Err(error) if error.is_gone() => {}
            Err(error) => {
                let note = error.chain();
                if !notes.contains(&note) {
                    notes.push(note);
                }
            }
        }
        Ok(())
    }

    fn tokens(&mut self) -> Result<()> {
        for pid in proc::processes()? {
            self.visit(pid, None)?;
        }
        Ok(())
    }

    fn descend(&mut self) -> Result<()> {
        while let Some((place, pid)) = self.below.pop_front() {
            self.visit(pid, Some(place))?;
        }
        Ok(())
    }

    /// Looks at one process, which was listed as the run's at `place`, or just listed.
    fn visit(&mut self, pid: Pid, place: Option<usize>) -> Result<()> {
        if self.spared.contains(&pid) || self.owner.contains_key(&pid) {
            return Ok(());
        }
        if place.is_none() {
            // Most of a machine's processes are older, and need no closer look; nor do those that name no dead run.
            match proc::stat(pid) {
                Ok(stat) if stat.start_ticks < self.since_ticks || stat.is_kernel_thread() => return Ok(()),
                Ok(_) => {}
                Err(error) if error.is_gone() || error.is_denied() => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            if self.by_token(pid)?.is_none() {
                return Ok(());
            }
        }
        let Some(pidfd) = PidFd::open(pid)? else { return Ok(()) };
        // From here on it is one process, whoever the number meant before.
        let Some(place) = self.owner_of(pid, place)? else { return Ok(()) };
        self.take(place, &pidfd)
    }

    /// Takes in a process that is the run's.
    fn take(&mut self, place: usize, pidfd: &PidFd) -> Result<()> {
        let pid = pidfd.pid();
        let marks = Marks { cgroup: None, token: None };
        let Some(process) = self.reader.read(pidfd, &marks)? else { return Ok(()) };
        if process.life == Life::Dead || pidfd.has_exited()? {
            return Ok(());
        }
        self.owner.insert(pid, place);
        self.below.extend(proc::children(pid).unwrap_or_default().into_iter().map(|child| (place, child)));
        if self.known.insert((pid, process.inode)) {
            self.found.push((place, process));
        }
        Ok(())
    }

    /// Which dead run a process belongs to; `None` if it is a living or an unknown one's.
    fn owner_of(&self, pid: Pid, listed: Option<usize>) -> Result<Option<usize>> {
        // Runs nest. The innermost that is known decides, and a living one always.
        let cgroup = proc::cgroup(pid).unwrap_or_default();
        let around: Vec<RunId> = runs_in_path(&cgroup).collect();
        let confined =
            around.iter().rev().find(|run| self.alive.contains(run) || self.dead.contains_key(run));
        if confined.is_some_and(|run| self.alive.contains(run)) {
            return Ok(None);
        }
        let token = token(pid)?;
        if let Some(run) = &token
            && self.alive.contains(run)
        {
            return Ok(None);
        }
        let confined = confined.and_then(|run| self.dead.get(run).copied());
        let named = token.and_then(|run| self.dead.get(&run).copied());
        // A child of one that is the run's, now that the number is held.
        let parent = proc::stat(pid).ok().and_then(|stat| Pid::new(stat.ppid));
        let inherited =
            parent.and_then(|parent| self.owner.get(&parent).copied()).filter(|_| listed.is_some());
        Ok(confined.or(named).or(inherited))
    }

    fn by_token(&self, pid: Pid) -> Result<Option<usize>> {
        Ok(token(pid)?.and_then(|run| self.dead.get(&run).copied()))
    }
}

/// The run that a process belongs to by its environment.
fn token(pid: Pid) -> Result<Option<RunId>> {
    let Environment::Known(environ) = proc::environment(pid)? else { return Ok(None) };
    let token = proc::variables(&environ).find(|(name, _)| *name == TOKEN_VARIABLE.as_bytes());
    Ok(token.and_then(|(_, value)| RunId::innermost(value)))
}

/// This process and what it descends from: whoever cleans up does not end itself, nor the shell that it was called from.
fn own_line() -> Result<BTreeSet<Pid>> {
    let mut line = BTreeSet::new();
    let mut next = Some(Pid::this());
    while let Some(pid) = next {
        // A parent that ended meanwhile may have given its number to a descendant.
        if !line.insert(pid) {
            break;
        }
        next = match proc::stat(pid) {
            Ok(stat) => Pid::new(stat.ppid),
            Err(error) if error.is_gone() || error.is_denied() => None,
            Err(error) => return Err(error.into()),
        };
    }
    Ok(line)
}

/// Whether a cgroup has one of these processes in it or below it.
fn holds(cgroup: &Path, pids: &BTreeSet<Pid>) -> bool {
    Cgroup::at(cgroup.to_owned())
        .members()
        .is_ok_and(|members| members.pids.iter().any(|pid| pids.contains(pid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_a_runs_by_its_whole_name() {
        let run = RunId::parse("a".repeat(32).as_bytes()).unwrap();
        let name = cgroup_name(&run);
        let runs = |path: &str| runs_in_path(path.as_bytes()).collect::<Vec<_>>();
        assert_eq!(runs(&format!("/x/{name}")), std::slice::from_ref(&run));
        assert_eq!(runs(&format!("/{name}/made/{name}/below")), [run.clone(), run]);
        assert_eq!(runs(&format!("/x/{name}b")), []);
        assert_eq!(runs("/"), []);
    }

    #[test]
    fn whoever_cleans_up_spares_itself_and_its_ancestors() {
        let line = own_line().unwrap();
        let parent = proc::stat(Pid::this()).unwrap().ppid;
        assert!(line.contains(&Pid::this()));
        assert!(Pid::new(parent).is_none_or(|parent| line.contains(&parent)));
    }
}
