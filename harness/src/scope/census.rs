//! The census: who is in the scope, by every tier in force and by parentage.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use headcount_sys::proc::Environment;
use headcount_sys::{Pid, PidFd, proc, wait};

use super::Scope;
use crate::Result;
use crate::evidence::{Marks, Process, Reader};
use crate::tier::Tier;

/// What a census found.
#[derive(Clone, Debug, Default)]
pub(super) struct Census {
    /// Processes of the scope.
    pub(super) processes: Vec<Process>,
    /// How many were listed and gone before they could be read.
    pub(super) vanished: usize,
    /// How many live where this pid namespace has no number for them.
    pub(super) foreign: usize,
}

impl Scope {
    /// Lists the scope's processes, strongest tier first, and reads the evidence on each as soon as it is listed: a process that
    /// re-forks without pause is another one a millisecond later.
    pub(super) fn census(&mut self) -> Result<Census> {
        // Under a low limit for open descriptors, those that are only waited for are the first to go.
        self.held.clear();
        let is_populated = self.is_populated()?;
        let mut taking = Taking::new(self);
        if is_populated && let Some(confinement) = &self.confinement {
            let members = confinement.cgroup.members()?;
            taking.census.foreign = members.foreign;
            for pid in members.pids {
                taking.visit(pid, Some(Tier::Cgroup))?;
            }
        }
        for pid in self.children_of_init()? {
            taking.visit(pid, Some(Tier::Namespace))?;
        }
        if self.has_only_own_children() {
            let by = if self.tiers.contains(&Tier::Subreaper) { Tier::Subreaper } else { Tier::Namespace };
            for pid in proc::children(Pid::this())? {
                taking.visit(pid, Some(by))?;
            }
        }
        if self.tiers.contains(&Tier::Token) {
            self.scan_for_token(&mut Seen::default(), |pidfd| taking.visit_open(&pidfd, Some(Tier::Token)))?;
        }
        // Zombies are in no cgroup's list and have no environment: they are found below their parents.
        while let Some(pid) = taking.below.pop_front() {
            taking.visit(pid, None)?;
        }
        Ok(taking.census)
    }
}

/// A census as it is taken.
struct Taking<'a> {
    scope: &'a Scope,
    marks: Marks,
    reader: Reader,
    census: Census,
    /// Where in the census each process is.
    known: BTreeMap<Pid, usize>,
    /// Children of those, yet to be looked at.
    below: VecDeque<Pid>,
}

impl<'a> Taking<'a> {
    fn new(scope: &'a Scope) -> Self {
        Self {
            scope,
            marks: scope.marks(),
            reader: Reader::default(),
            census: Census::default(),
            known: BTreeMap::new(),
            below: VecDeque::new(),
        }
    }

    fn visit(&mut self, pid: Pid, by: Option<Tier>) -> Result<()> {
        if self.is_known(pid, by) {
            return Ok(());
        }
        match PidFd::open(pid)? {
            Some(pidfd) => self.visit_open(&pidfd, by),
            None => {
                self.census.vanished += 1;
                Ok(())
            }
        }
    }

    fn visit_open(&mut self, pidfd: &PidFd, by: Option<Tier>) -> Result<()> {
        let pid = pidfd.pid();
        if self.is_known(pid, by) {
            return Ok(());
        }
        let process = self.reader.read(pidfd, &self.marks)?;
        match process {
            Some(mut process) if self.recognises(&process, by)? => {
                process.seen_by = by.into_iter().collect();
                let children = if process.threads == 1 {
                    proc::children_of_main_thread(pid)
                } else {
                    proc::children(pid)
                };
                self.known.insert(pid, self.census.processes.len());
                self.census.processes.push(process);
                self.below.extend(children.unwrap_or_default());
            }
            // Gone; or the number was another's before the pidfd was opened.
            Some(_) | None => self.census.vanished += 1,
        }
        Ok(())
    }

    /// Whether a process needs no look: it is none of the command's, or has been seen (by one more tier now).
    fn is_known(&mut self, pid: Pid, by: Option<Tier>) -> bool {
        if pid == Pid::this() || self.scope.bystanders.contains(&pid) {
            return true;
        }
        let place = self.known.get(&pid).copied();
        if let (Some(process), Some(by)) = (place.and_then(|place| self.census.processes.get_mut(place)), by)
        {
            process.seen_by.push(by);
        }
        place.is_some()
    }

    /// Whether a process whose evidence was read is the scope's, not just one that now has a listed number.
    fn recognises(&self, process: &Process, by: Option<Tier>) -> Result<bool> {
        if process.is_hidden() {
            // Nothing can be read of it. Its number holds still while it is a child of ours.
            return Ok(by == Some(Tier::Cgroup) || wait::is_child(process.pid)?);
        }
        let is_below = process.ppid.is_some_and(|ppid| {
            self.known.contains_key(&ppid)
                || self.scope.namespace.as_ref().is_some_and(|namespace| namespace.init() == ppid)
                || (self.scope.has_only_own_children() && ppid == Pid::this())
        });
        let is_command = self.scope.command.as_ref().is_some_and(|command| command.pid() == process.pid);
        Ok(is_below || is_command || process.in_cgroup == Some(true) || process.has_token == Some(true))
    }
}

/// What is kept from one scan to the next.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Numbers that were dead: what was dead before the listing has started nothing since.
    dead: BTreeSet<Pid>,
    /// Processes of the last scan whose environment could not be read.
    pub(super) unreadable: Vec<Pid>,
}

/// Whether a scan saw everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// Nothing died under it: whoever was born after the listing has an ancestor that was on it, and was found.
    Complete,
    /// A process was listed, and dead when it was looked at. It may have started another after the listing.
    Disturbed,
}

impl Scope {
    /// Looks at every process of the machine for the run's token, and hands over each that lives and has it, by a descriptor
    /// that was opened before its environment was read.
    ///
    /// The youngest come first: a process that re-forks without pause has its newest number for a moment only.
    pub(super) fn scan_for_token(
        &self,
        seen: &mut Seen,
        mut found: impl FnMut(PidFd) -> Result<()>,
    ) -> Result<Scan> {
        let (marks, this) = (self.marks(), Pid::this());
        let mut pids = proc::processes()?;
        pids.sort_unstable_by(|a, b| b.cmp(a));
        let mut scan = Scan::Complete;
        seen.unreadable.clear();
        for pid in pids {
            if pid == this || self.bystanders.contains(&pid) {
                continue;
            }
            // What is older than the run cannot have its token; most of a machine's processes are, kernel threads above all.
            match proc::stat(pid) {
                Ok(stat) if stat.start_ticks < self.began_ticks => continue,
                Ok(stat) if Pid::new(stat.ppid).is_some_and(|parent| self.is_excepted(parent)) => continue,
                Ok(_) => {}
                Err(error) if error.is_gone() => {
                    if seen.dead.insert(pid) {
                        scan = Scan::Disturbed;
                    }
                    continue;
                }
                // Hidden from this user; its environment would be as well.
                Err(error) if error.is_denied() => continue,
                Err(error) => return Err(error.into()),
            }
            match proc::environment(pid)? {
                Environment::Known(environ) if marks.is_on(&environ) => {
                    let pidfd = PidFd::open(pid)?;
                    // The number may have become another's before the descriptor was opened.
                    match pidfd {
                        Some(pidfd) if self.has_token(pid, &marks)? && !pidfd.has_exited()? => found(pidfd)?,
                        _ => scan = Scan::Disturbed,
                    }
                }
                Environment::Gone => {
                    if seen.dead.insert(pid) {
                        scan = Scan::Disturbed;
                    }
                }
                Environment::NotYet => scan = Scan::Disturbed,
                Environment::Refused => seen.unreadable.push(pid),
                Environment::Known(_) | Environment::Empty => {}
            }
        }
        Ok(scan)
    }

    pub(super) fn has_token(&self, pid: Pid, marks: &Marks) -> Result<bool> {
        Ok(matches!(proc::environment(pid)?, Environment::Known(environ) if marks.is_on(&environ)))
    }
}
