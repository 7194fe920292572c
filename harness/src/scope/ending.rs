//! Diagnose, then end: wait for the scope to empty, freeze, list, read, judge, TERM, thaw, wait, KILL, confirm.
//!
//! TERM does nothing to a frozen process: it waits until the thaw, so that no process of the tree can react to another's end
//! before it was told itself. Without the cgroup tier nothing can be frozen; evidence goes as far as it goes then.
//!
//! **Guarantees:** bounded: with the default grace, all of it takes less than 7 s. A process that was recorded is signalled
//! only through a pidfd whose inode is the recorded one.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use headcount_sys::pidfd::Delivery;
use headcount_sys::poll::{self, Interest};
use headcount_sys::proc::{self, State};
use headcount_sys::{Pid, PidFd, Signal};
use serde::Serialize;

use super::Scope;
use super::census::Census;
use crate::Result;
use crate::evidence::{Life, Process};
use crate::exception::Exception;
use crate::tier::Tier;
use crate::verdict::{self, Dying, Kind, Verdict};

/// How long processes that are already dying may take beyond the grace.
const DYING_WAIT: Duration = Duration::from_millis(1000);
/// How long a tree may take to freeze (a process in uninterruptible sleep cannot).
const FREEZE_WAIT: Duration = Duration::from_millis(300);
/// How long the census is repeated while processes come and go under it.
const CENSUS_WAIT: Duration = Duration::from_millis(500);
/// How long processes may take to end after TERM.
const TERM_WAIT: Duration = Duration::from_millis(1300);
/// How long they may take to be gone after KILL.
const KILL_WAIT: Duration = Duration::from_millis(1300);
/// How long a process that no tier shows any more may take to be dead: it gives up its memory and leaves its cgroup before.
const LAST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait for an event of a tree that is being killed before it is listed anew: a process whose parent is
/// not this one's child tells nobody here of its end.
const RELIST: Duration = Duration::from_millis(20);

/// Whether a child's change ends a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Children {
    /// It does.
    Wake,
    /// It does not: something else will tell when the last one is gone.
    Sleep,
}

/// Where the scope's owner hears of its children.
pub trait Events {
    /// Blocks until one of the descriptors is ready, the deadline passed, or, if asked for, a child of this process changed.
    ///
    /// # Errors
    /// Where the kernel refuses.
    fn wait(&mut self, interests: &[Interest<'_>], children: Children, deadline: Instant) -> Result<()>;

    /// Whether somebody asked for an end meanwhile (Ctrl-C during a long grace): what is left is then not waited for.
    fn is_hurried(&self) -> bool;
}

/// What ended a leaked process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EndedBy {
    /// SIGTERM.
    Term,
    /// SIGKILL.
    Kill,
    /// It was gone before it could be signalled.
    Itself,
    /// Nothing: it lives on.
    Unkillable,
}

impl EndedBy {
    /// The word for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Term => "term",
            Self::Kill => "kill",
            Self::Itself => "itself",
            Self::Unkillable => "unkillable",
        }
    }
}

/// A leaked process, and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Left {
    /// In which way it was left behind.
    pub kind: Kind,
    /// The evidence, as of the moment of the verdict.
    pub process: Process,
    /// What ended it.
    pub ended_by: EndedBy,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Conclusion {
    /// The verdict.
    pub verdict: Verdict,
    /// What else is to be said.
    pub reasons: Vec<String>,
    /// What was left.
    pub leaks: Vec<Left>,
    /// What was left and is meant to outlive the command.
    pub excepted: Vec<(Exception, Process)>,
    /// When the evidence was taken, in clock ticks since boot.
    pub taken_ticks: u64,
    /// How long the tree took to empty, or was given.
    pub settle: Duration,
    /// How long the evidence took.
    pub evidence: Duration,
    /// How long the ending took.
    pub ending: Duration,
}

impl Scope {
    /// Waits up to `grace` for the scope to empty, judges what is left, and ends it. To be called once the command has ended.
    ///
    /// `remark` is a reason of the caller's for which the run cannot be called clean.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn conclude(
        &mut self,
        events: &mut dyn Events,
        grace: Duration,
        remark: Option<String>,
    ) -> Result<Conclusion> {
        let began = Instant::now();
        self.blind.extend(remark);
        if !self.tiers.iter().any(|tier| tier.detects()) {
            self.blind.push("no tier of containment is in force".to_owned());
        }
        self.let_go()?;
        let mut is_empty = self.settle(events, began + grace)?;
        if !is_empty && self.let_go()? {
            // It was not yet what it is now when the command ended.
            is_empty = self.is_empty()?;
        }
        let settled = Instant::now();
        let (taken_ticks, _) = proc::ticks_now()?;
        let mut census = Census::default();
        let mut judgement = verdict::judge(&[], &[], Dying::IsNoLeak);
        if !is_empty {
            census = self.diagnose(events)?;
            judgement = verdict::judge(&census.processes, &[], Dying::IsNoLeak);
            if judgement.leaks.is_empty() {
                // Whatever is left is dying, or was gone when it was looked at.
                self.thaw();
                is_empty = self.settle(events, Instant::now() + DYING_WAIT)?;
                census = if is_empty { Census::default() } else { self.diagnose(events)? };
                judgement = verdict::judge(&census.processes, &[], Dying::IsALeak);
            }
            if !is_empty && judgement.leaks.is_empty() {
                let left = in_the_way(&census.processes);
                self.blind.extend(if left.is_empty() { vec![unseen(&census)] } else { left });
            }
        }
        let diagnosed = Instant::now();
        let mut leaks: Vec<Left> = judgement
            .leaks
            .iter()
            .filter_map(|(kind, place)| {
                let process = census.processes.get(*place)?.clone();
                Some(Left { kind: *kind, process, ended_by: EndedBy::Unkillable })
            })
            .collect();
        if !is_empty {
            self.end(events, &mut leaks)?;
        }
        let ended = Instant::now();
        // What was in the way may have come up at any step, so it is weighed last.
        let verdict = verdict::judge(&census.processes, &self.blind, Dying::IsNoLeak).verdict;
        let verdict = if leaks.is_empty() { verdict } else { Verdict::Leaked };
        Ok(Conclusion {
            verdict,
            reasons: self.blind.clone(),
            leaks,
            excepted: self.excepted(),
            taken_ticks,
            settle: settled - began,
            evidence: diagnosed - settled,
            ending: ended - diagnosed,
        })
    }

    /// What is in the scope now, for a report on a command that is still running. Nothing is frozen or signalled.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn look(&mut self) -> Result<Vec<Process>> {
        Ok(self.census()?.processes)
    }

    /// Blocks until the scope may have changed.
    fn wait(&mut self, events: &mut dyn Events, deadline: Instant) -> Result<()> {
        let deadline = self.next_look().map_or(deadline, |look| look.min(deadline));
        // As long as the cgroup is populated, its own event tells of the end; waking up for each of a thousand ends would slow them.
        let children = if self.is_confined_and_populated { Children::Sleep } else { Children::Wake };
        events.wait(&self.changes(), children, deadline)?;
        // Read away, or the next wait would return for it at once.
        self.note_births()
    }

    /// Evaluates at once, then at every event, then at the deadline.
    fn settle(&mut self, events: &mut dyn Events, deadline: Instant) -> Result<bool> {
        loop {
            if self.is_empty()? {
                return Ok(true);
            }
            if Instant::now() >= deadline || events.is_hurried() {
                return Ok(false);
            }
            self.wait(events, deadline)?;
        }
    }

    /// Freezes the tree where it can, and takes the evidence.
    fn diagnose(&mut self, events: &mut dyn Events) -> Result<Census> {
        // A frozen process shows as sleeping, so what each was doing is read before.
        let before = self.states()?;
        let is_frozen = self.freeze(events)?;
        let deadline = Instant::now() + CENSUS_WAIT;
        let mut best = self.census()?;
        // A tree that is not frozen can change under the census. It counts as seen once nobody vanished from under it.
        while !is_frozen && best.vanished > 0 && Instant::now() < deadline {
            let again = self.census()?;
            if again.vanished == 0 || again.processes.len() > best.processes.len() {
                best = again;
            }
            self.reap_into(&mut Vec::new())?;
        }
        self.note_births()?;
        for process in &mut best.processes {
            process.spawned_by = self.births.as_ref().and_then(|births| births.lineage.chain(process.pid));
            if process.state == Some(State::Sleeping)
                && let Some(state) = before.get(&process.pid)
            {
                process.state = Some(*state);
            }
        }
        Ok(best)
    }

    fn states(&mut self) -> Result<BTreeMap<Pid, State>> {
        let members = match &self.confinement {
            Some(confinement) => match confinement.cgroup.members() {
                Ok(members) => members.pids,
                Err(error) if error.is_gone() => Vec::new(),
                Err(error) => return Err(error.into()),
            },
            None => Vec::new(),
        };
        let state = |pid| proc::stat(pid).ok().map(|stat| stat.state).filter(|state| !state.is_dead());
        Ok(members.into_iter().filter_map(|pid| Some((pid, state(pid)?))).collect())
    }

    fn freeze(&mut self, events: &mut dyn Events) -> Result<bool> {
        let Some(confinement) = &mut self.confinement else { return Ok(false) };
        // Frozen or not, the evidence is taken: a cgroup that refuses only makes it less sharp.
        if confinement.cgroup.freeze(true).is_err() {
            return Ok(false);
        }
        let deadline = Instant::now() + FREEZE_WAIT;
        loop {
            let Some(confinement) = &mut self.confinement else { return Ok(false) };
            match confinement.watch.read() {
                Ok(now) if now.frozen || !now.populated => return Ok(true),
                Ok(_) if Instant::now() < deadline => {}
                _ => return Ok(false),
            }
            self.wait(events, deadline)?;
        }
    }

    fn thaw(&self) {
        if let Some(confinement) = &self.confinement {
            // A cgroup that vanished has nobody to thaw.
            let _ = confinement.cgroup.freeze(false);
        }
    }

    /// Ends what leaked, and whatever else came into the scope meanwhile.
    fn end(&mut self, events: &mut dyn Events, leaks: &mut [Left]) -> Result<()> {
        for left in leaks.iter_mut().filter(|left| left.kind != Kind::Zombie) {
            left.ended_by = match self.find(&left.process)? {
                None => EndedBy::Itself,
                Some(pidfd) => match pidfd.signal(Signal::TERM)? {
                    Delivery::Gone => EndedBy::Itself,
                    Delivery::Denied => EndedBy::Unkillable,
                    Delivery::Sent => {
                        if left.process.state == Some(State::Stopped) {
                            // A stopped process takes TERM only once it goes on.
                            pidfd.signal(Signal::CONT)?;
                        }
                        EndedBy::Term
                    }
                },
            };
        }
        self.thaw();
        let mut is_empty = self.settle(events, Instant::now() + TERM_WAIT)?;
        if !is_empty {
            for left in leaks.iter_mut().filter(|left| left.ended_by == EndedBy::Term) {
                if self.find(&left.process)?.is_some() {
                    left.ended_by = EndedBy::Kill;
                }
            }
            is_empty = self.kill(events, Instant::now() + KILL_WAIT)?;
        }
        let deadline = Instant::now() + if is_empty { LAST_WAIT } else { Duration::ZERO };
        for left in leaks.iter_mut() {
            // A leaked zombie was waited for by whoever adopted it, once its parent had ended.
            let lives = left.kind != Kind::Zombie
                && match self.find(&left.process)? {
                    Some(pidfd) => !ends_by(&pidfd, deadline)?,
                    None => false,
                };
            left.ended_by = match (lives, left.ended_by) {
                (true, _) => EndedBy::Unkillable,
                (false, _) if left.kind == Kind::Zombie => EndedBy::Itself,
                (false, EndedBy::Unkillable) => EndedBy::Itself,
                (false, by) => by,
            };
        }
        if !is_empty {
            let left = self.census()?.processes;
            self.has_survivors = left.iter().any(|process| process.life != Life::Dead);
            self.blind.extend(in_the_way(&left));
        }
        Ok(())
    }

    /// Kills to a fixpoint: a process that forks as fast as it can is caught by the cgroup as a whole, or by coming back
    /// to this process each time that its parent dies.
    fn kill(&mut self, events: &mut dyn Events, deadline: Instant) -> Result<bool> {
        if let Some(namespace) = &self.namespace {
            namespace.end()?;
        }
        loop {
            if let Some(confinement) = &self.confinement {
                match confinement.cgroup.kill() {
                    Ok(_) => {}
                    Err(error) if error.is_gone() => {}
                    Err(error) => return Err(error.into()),
                }
            }
            for process in self.census()?.processes {
                if let Some(pidfd) = self.find(&process)? {
                    pidfd.signal(Signal::KILL)?;
                }
            }
            self.kill_at_sight()?;
            if self.is_empty()? {
                return Ok(true);
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(false);
            }
            self.wait(events, deadline.min(now + RELIST))?;
        }
    }

    /// Kills without a look at anything but whose it is: a process that re-forks every other millisecond is gone by the time that
    /// its evidence is read. What is below those that die comes back to this process, and is next.
    fn kill_at_sight(&mut self) -> Result<()> {
        if self.has_only_own_children() {
            for pid in proc::children(Pid::this())? {
                // A child's number is its own until this process waits for it.
                if !self.bystanders.contains(&pid)
                    && let Some(pidfd) = PidFd::open(pid)?
                {
                    pidfd.signal(Signal::KILL)?;
                }
            }
        }
        if self.tiers.contains(&Tier::Token) {
            self.scan_for_token(&mut super::census::Seen::default(), |pidfd| {
                pidfd.signal(Signal::KILL)?;
                Ok(())
            })?;
        }
        Ok(())
    }

    /// A descriptor of a process that was recorded, if it still lives. Where the kernel gives no inodes, it also has to be
    /// recognisable as the scope's by what it is now.
    pub(super) fn find(&self, process: &Process) -> Result<Option<PidFd>> {
        let Some(pidfd) = PidFd::open(process.pid)? else { return Ok(None) };
        let is_same = match process.inode {
            Some(inode) => pidfd.inode()? == Some(inode),
            None => {
                let marks = self.marks();
                let same_start = proc::stat(process.pid).is_ok_and(|stat| {
                    stat.start_ticks == process.start_ticks && process.ppid == Pid::new(stat.ppid)
                });
                let is_marked = proc::cgroup(process.pid).is_ok_and(|path| marks.confines(&path))
                    || self.has_token(process.pid, &marks)?
                    || headcount_sys::wait::is_child(process.pid)?;
                same_start && is_marked
            }
        };
        Ok((is_same && !pidfd.has_exited()?).then_some(pidfd))
    }
}

/// Blocks until a process has ended; `false` at the deadline.
fn ends_by(pidfd: &PidFd, deadline: Instant) -> Result<bool> {
    loop {
        if pidfd.has_exited()? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        poll::wait(&[Interest::readable(pidfd.as_fd())], poll::Timeout::At(deadline))?;
    }
}

/// The most processes that are named which could not be ended.
const NAMED: usize = 5;

/// What keeps each of these from ending, as far as the kernel tells.
fn in_the_way(left: &[Process]) -> Vec<String> {
    let mut reasons: Vec<String> = left.iter().take(NAMED).map(obstacle).collect();
    if left.len() > NAMED {
        reasons.push(format!("and {} more processes could not be ended", left.len() - NAMED));
    }
    reasons
}

fn obstacle(process: &Process) -> String {
    let named = |pid: Pid, name: &[u8]| format!("process {pid} ({})", crate::text::reversible(name));
    let who = named(process.pid, &process.name);
    let tracer = proc::status(process.pid).ok().and_then(|status| status.tracer);
    if process.life == Life::Dead {
        return match (tracer, process.ppid) {
            (Some(tracer), _) => {
                let name = proc::stat(tracer).map(|stat| stat.name).unwrap_or_default();
                format!("{who} is dead, and {}, which traces it, does not wait for it", named(tracer, &name))
            }
            (None, Some(parent)) => format!("{who} is dead, and its parent {parent} does not wait for it"),
            (None, None) => {
                format!("{who} is dead, and its parent, outside of this pid namespace, does not wait for it")
            }
        };
    }
    let own = headcount_sys::prctl::real_uid();
    match (process.state, process.uid) {
        (_, Some(uid)) if own != 0 && uid != own => {
            format!("{who} lives on: it belongs to uid {uid}, and uid {own} may not end it")
        }
        (Some(State::DiskSleep), _) => {
            format!("{who} lives on: it is in uninterruptible sleep, and SIGKILL waits until that ends")
        }
        _ => format!("{who} lives on: it did not end on SIGKILL"),
    }
}

fn unseen(census: &Census) -> String {
    if census.foreign > 0 {
        format!(
            "{} processes of another pid namespace are left, which cannot be looked at from here",
            census.foreign
        )
    } else {
        "something is left that could not be looked at: it was gone, or another, each time".to_owned()
    }
}
