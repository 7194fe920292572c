//! What is meant to outlive the command is let go: it leaves the scope's cgroup, and the tiers pass over it.

use std::collections::BTreeSet;

use headcount_sys::{Pid, PidFd, proc};

use super::Scope;
use crate::Result;
use crate::evidence::{Life, Process};
use crate::exception::Exception;

/// A process that was let go.
#[derive(Debug)]
pub(super) struct Excepted {
    by: Exception,
    process: Process,
    pidfd: PidFd,
}

/// How often the scope is looked at for what an excepted process starts while it is being let go.
const ROUNDS: usize = 8;

impl Scope {
    /// Lets go what the named exceptions cover, with what that started. Returns whether something was let go.
    pub(super) fn let_go(&mut self) -> Result<bool> {
        let mut has_any = false;
        if self.exceptions.is_empty() {
            return Ok(false);
        }
        for _ in 0..ROUNDS {
            let found = self.covered()?;
            let mut is_more = false;
            for (by, process) in found {
                let Some(pidfd) = self.find(&process)? else { continue };
                if let Some(confinement) = &self.confinement
                    && process.in_cgroup == Some(true)
                    && let Err(error) = confinement.above.take_in(process.pid)
                {
                    let name = crate::text::reversible(&process.name);
                    let reason = format!(
                        "process {} ({name}) is excepted ({}), and cannot leave the scope's cgroup: {}",
                        process.pid,
                        by.name,
                        error.chain()
                    );
                    if !self.blind.contains(&reason) {
                        self.blind.push(reason);
                    }
                    continue;
                }
                self.pass_over(process.pid);
                self.excepted.push(Excepted { by, process, pidfd });
                is_more = true;
            }
            if !is_more {
                break;
            }
            has_any = true;
        }
        Ok(has_any)
    }

    /// Which of the scope's processes an exception covers: those that it names, and those below them.
    fn covered(&mut self) -> Result<Vec<(Exception, Process)>> {
        let mut rest: Vec<Process> = self.census()?.processes;
        rest.retain(|process| process.life == Life::Alive);
        let mut found: Vec<(Exception, Process)> = Vec::new();
        loop {
            let (covered, others): (Vec<_>, Vec<_>) = rest
                .into_iter()
                .map(|one| (self.coverage(&one, &found), one))
                .partition(|(by, _)| by.is_some());
            rest = others.into_iter().map(|(_, one)| one).collect();
            if covered.is_empty() {
                return Ok(found);
            }
            found.extend(covered.into_iter().filter_map(|(by, one)| Some((by?, one))));
        }
    }

    fn coverage(&self, process: &Process, found: &[(Exception, Process)]) -> Option<Exception> {
        let own = self.exceptions.iter().find(|one| one.covers(process)).copied();
        let parent = process.ppid?;
        let above = || found.iter().find(|(_, one)| one.pid == parent).map(|(by, _)| *by);
        let earlier = || self.excepted.iter().find(|one| one.process.pid == parent).map(|one| one.by);
        own.or_else(above).or_else(earlier)
    }

    /// Takes back the numbers of those that have ended: they may be another's from now on.
    pub(super) fn forget_ended_exceptions(&mut self) {
        let ended: BTreeSet<Pid> = self
            .excepted
            .iter()
            .filter(|one| one.pidfd.has_exited().unwrap_or(true))
            .map(|one| one.process.pid)
            .collect();
        self.excepted.retain(|one| !ended.contains(&one.process.pid));
        self.bystanders.retain(|pid| !ended.contains(pid));
    }

    pub(super) fn is_excepted(&self, pid: Pid) -> bool {
        self.excepted.iter().any(|one| one.process.pid == pid)
    }

    /// Whether this process has children that count. The excepted ones are its children too once they are orphans.
    pub(super) fn has_counted_children(&self) -> Result<bool> {
        if self.excepted.is_empty() {
            return Ok(true);
        }
        Ok(proc::children(Pid::this())?.iter().any(|pid| !self.bystanders.contains(pid)))
    }

    /// What was let go and lives.
    pub(super) fn excepted(&mut self) -> Vec<(Exception, Process)> {
        self.forget_ended_exceptions();
        self.excepted.iter().map(|one| (one.by, one.process.clone())).collect()
    }
}
