//! The census: who is in the scope, by every tier in force and by parentage.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use headcount_sys::{Pid, PidFd, proc, wait};

use super::Scope;
use crate::Result;
use crate::evidence::{Process, Reader};
use crate::tier::Tier;

/// What a census found.
#[derive(Clone, Debug, Default)]
pub(super) struct Census {
    /// Processes of the scope, parents before children.
    pub(super) processes: Vec<Process>,
    /// How many were listed and gone before they could be read.
    pub(super) vanished: usize,
    /// How many live where this pid namespace has no number for them.
    pub(super) foreign: usize,
}

impl Scope {
    /// Lists the scope's processes and reads the evidence on each.
    pub(super) fn census(&mut self) -> Result<Census> {
        let mut listed = self.listed()?;
        let marks = self.marks();
        let mut reader = Reader::default();
        let mut census = Census { foreign: listed.foreign, ..Census::default() };
        let mut known: BTreeSet<Pid> = BTreeSet::new();
        while let Some(pid) = listed.queue.pop_front() {
            let Some(pidfd) = PidFd::open(pid)? else {
                census.vanished += 1;
                continue;
            };
            let Some(mut process) = reader.read(&pidfd, &marks)? else {
                census.vanished += 1;
                continue;
            };
            let by = listed.by.get(&pid).cloned().unwrap_or_default();
            if !self.recognises(&process, &by, &known)? {
                // The number was another's before the pidfd was opened.
                census.vanished += 1;
                continue;
            }
            process.seen_by = by.into_iter().collect();
            known.insert(pid);
            census.processes.push(process);
            // Zombies are in no cgroup's list and have no environment: they are found below their parents.
            for child in proc::children(pid).unwrap_or_default() {
                if listed.seen.insert(child) && !self.bystanders.contains(&child) {
                    listed.queue.push_back(child);
                }
            }
        }
        Ok(census)
    }

    /// Whether a process whose evidence was read is the scope's, not just one that now has a listed number.
    fn recognises(&self, process: &Process, by: &BTreeSet<Tier>, known: &BTreeSet<Pid>) -> Result<bool> {
        if process.pid == Pid::this() || self.bystanders.contains(&process.pid) {
            return Ok(false);
        }
        if process.is_hidden() {
            // Nothing can be read of it. Its number holds still while it is a child of ours.
            return Ok(by.contains(&Tier::Cgroup) || wait::is_child(process.pid)?);
        }
        let by_parent = process.ppid.is_some_and(|ppid| {
            known.contains(&ppid) || (self.tiers.contains(&Tier::Subreaper) && ppid == Pid::this())
        });
        let is_command = self.command.as_ref().is_some_and(|command| command.pid() == process.pid);
        Ok(by_parent || is_command || process.in_cgroup == Some(true) || process.has_token == Some(true))
    }

    /// The numbers that the tiers show, strongest tier first.
    fn listed(&mut self) -> Result<Listed> {
        let mut listed = Listed::default();
        if self.is_populated()?
            && let Some(confinement) = &self.confinement
        {
            let members = confinement.cgroup.members()?;
            listed.foreign = members.foreign;
            for pid in members.pids {
                listed.add(pid, Tier::Cgroup);
            }
        }
        if self.tiers.contains(&Tier::Subreaper) {
            for pid in proc::children(Pid::this())? {
                if !self.bystanders.contains(&pid) {
                    listed.add(pid, Tier::Subreaper);
                }
            }
        }
        if self.tiers.contains(&Tier::Token) {
            for pid in self.list_by_token()? {
                listed.add(pid, Tier::Token);
            }
        }
        Ok(listed)
    }
}

/// Numbers yet to be looked at.
#[derive(Debug, Default)]
struct Listed {
    queue: VecDeque<Pid>,
    seen: BTreeSet<Pid>,
    by: BTreeMap<Pid, BTreeSet<Tier>>,
    foreign: usize,
}

impl Listed {
    fn add(&mut self, pid: Pid, tier: Tier) {
        self.by.entry(pid).or_default().insert(tier);
        if self.seen.insert(pid) {
            self.queue.push_back(pid);
        }
    }
}

impl Scope {
    /// Living processes whose environment has the run's token.
    fn list_by_token(&self) -> Result<Vec<Pid>> {
        let marks = self.marks();
        let mut found = Vec::new();
        for pid in proc::processes()? {
            if pid == Pid::this() || self.bystanders.contains(&pid) {
                continue;
            }
            // Kernel threads have no environment, zombies none any more, and other users' cannot be read.
            if proc::environ_of_any_thread(pid).is_ok_and(|environ| marks.is_on(&environ)) {
                found.push(pid);
            }
        }
        Ok(found)
    }

    /// At most `limit` of them, each by a descriptor that was opened before the environment was read again.
    pub(super) fn find_by_token(&self, limit: usize) -> Result<Vec<PidFd>> {
        let marks = self.marks();
        let mut found = Vec::new();
        for pid in self.list_by_token()? {
            let Some(pidfd) = PidFd::open(pid)? else { continue };
            if proc::environ_of_any_thread(pid).is_ok_and(|environ| marks.is_on(&environ))
                && !pidfd.has_exited()?
            {
                found.push(pidfd);
            }
            if found.len() == limit {
                break;
            }
        }
        Ok(found)
    }
}
