//! Ends what dead runs left, and removes their cgroups and folders.
//!
//! All dead runs are ended together: TERM, wait, KILL to a fixpoint, remove; so the time is bounded whatever their number.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use headcount_sys::pidfd::Delivery;
use headcount_sys::poll::{self, Interest, Timeout};
use headcount_sys::proc::State;
use headcount_sys::state::RunId;
use headcount_sys::{Pid, PidFd, Signal, proc};

use super::{Audit, Host, Remnant, cgroup_of, holds, own_line, runs_in_path, token};
use crate::Result;
use crate::evidence::Process;
use crate::scope::EndedBy;

/// How long processes may take to end after TERM.
const TERM_WAIT: Duration = Duration::from_millis(1500);
/// How long they may take to be gone after KILL.
const KILL_WAIT: Duration = Duration::from_millis(1500);
/// The longest wait for one process's end before all are looked at again.
const RELIST: Duration = Duration::from_millis(20);
/// The most descriptors that are held to wait for.
const HELD_LIMIT: usize = 16;

/// Ends and removes what the audit found. Afterwards, [`Audit::runs`] says of each process what ended it, and
/// [`Audit::notes`] what remains and why; dead runs of which nothing remains are removed.
///
/// # Errors
/// Where the kernel refuses what it refuses to nobody.
pub fn reap(audit: &mut Audit) -> Result<()> {
    for draft in std::mem::take(&mut audit.drafts) {
        note(&mut audit.notes, draft.remove());
    }
    for run in audit.runs.iter_mut().filter(|run| run.host == Host::Dead) {
        let id = &run.record.run_id;
        run.left.iter_mut().try_for_each(|one| terminate(one, id))?;
    }
    await_end(audit, Instant::now() + TERM_WAIT)?;
    let deadline = Instant::now() + KILL_WAIT;
    loop {
        kill(audit)?;
        // Whatever was born meanwhile, or showed itself only now.
        let has_found = audit.look()?;
        if !has_found && !has_living(audit)? {
            break;
        }
        let now = Instant::now();
        if now >= deadline {
            break;
        }
        await_end(audit, deadline.min(now + RELIST))?;
    }
    confirm(audit)?;
    remove(audit);
    Ok(())
}

fn terminate(one: &mut Remnant, id: &RunId) -> Result<()> {
    one.ended_by = Some(match reopen(&one.process, id)? {
        None => EndedBy::Itself,
        Some(pidfd) => match pidfd.signal(Signal::TERM)? {
            Delivery::Gone => EndedBy::Itself,
            Delivery::Denied => EndedBy::Unkillable,
            Delivery::Sent => {
                if one.process.state == Some(State::Stopped) {
                    pidfd.signal(Signal::CONT)?;
                }
                EndedBy::Term
            }
        },
    });
    Ok(())
}

/// Kills what TERM did not end, and what came later. A run's cgroup is killed as a whole, unless somebody is in it who is to
/// be spared.
fn kill(audit: &mut Audit) -> Result<()> {
    let mut spared = own_line()?;
    spared.extend(audit.runs.iter().filter(|run| run.host == Host::Alive).map(|run| run.record.host.pid));
    for run in audit.runs.iter_mut().filter(|run| run.host == Host::Dead) {
        let id = &run.record.run_id;
        for one in &mut run.left {
            if one.ended_by == Some(EndedBy::Itself) {
                continue;
            }
            if let Some(pidfd) = reopen(&one.process, id)? {
                one.ended_by = Some(match pidfd.signal(Signal::KILL)? {
                    Delivery::Sent => EndedBy::Kill,
                    Delivery::Gone => one.ended_by.unwrap_or(EndedBy::Itself),
                    Delivery::Denied => EndedBy::Unkillable,
                });
            }
        }
        if let Some(cgroup) = cgroup_of(&run.record)
            && !holds(cgroup.path(), &spared)
        {
            // One that is gone, or cannot be killed as a whole, is emptied one by one.
            let _ = cgroup.kill();
        }
    }
    Ok(())
}

/// Blocks until everything that is known has ended, up to the deadline.
fn await_end(audit: &Audit, deadline: Instant) -> Result<()> {
    loop {
        let mut held = Vec::new();
        for (id, process) in living(audit) {
            held.extend(reopen(process, id)?);
            if held.len() == HELD_LIMIT {
                break;
            }
        }
        if held.is_empty() || Instant::now() >= deadline {
            return Ok(());
        }
        // All of these, before the next look: that keeps the looks few however many there are.
        for pidfd in &held {
            while !pidfd.has_exited()? && Instant::now() < deadline {
                poll::wait(&[Interest::readable(pidfd.as_fd())], Timeout::At(deadline))?;
            }
        }
    }
}

/// What is not known to have ended.
fn living(audit: &Audit) -> impl Iterator<Item = (&RunId, &Process)> {
    audit.dead().flat_map(|run| {
        let left = run.left.iter().filter(|one| one.ended_by != Some(EndedBy::Itself));
        left.map(|one| (&run.record.run_id, &one.process))
    })
}

fn has_living(audit: &Audit) -> Result<bool> {
    for (id, process) in living(audit) {
        if reopen(process, id)?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The last look: what lives on could not be ended.
fn confirm(audit: &mut Audit) -> Result<()> {
    for run in audit.runs.iter_mut().filter(|run| run.host == Host::Dead) {
        let id = &run.record.run_id;
        for one in &mut run.left {
            let lives = reopen(&one.process, id)?.is_some();
            one.ended_by = Some(match (lives, one.ended_by) {
                (true, _) => EndedBy::Unkillable,
                (false, None | Some(EndedBy::Unkillable)) => EndedBy::Itself,
                (false, Some(by)) => by,
            });
        }
    }
    Ok(())
}

/// Removes the cgroup and the folder of each dead run of which nothing lives.
fn remove(audit: &mut Audit) {
    let spared: BTreeSet<Pid> = own_line().unwrap_or_default();
    for run in &mut audit.runs {
        let is_over = match run.host {
            Host::EarlierBoot => true,
            Host::Dead => run.left.iter().all(|one| one.ended_by != Some(EndedBy::Unkillable)),
            Host::Alive | Host::Elsewhere => false,
        };
        if !is_over {
            continue;
        }
        if run.host == Host::Dead
            && let Some(cgroup) = cgroup_of(&run.record)
        {
            if holds(cgroup.path(), &spared) {
                audit.notes.push(format!(
                    "cgroup {} stays: headcount itself was called from it",
                    cgroup.path().display()
                ));
                continue;
            }
            if let Err(error) = cgroup.remove() {
                audit.notes.push(error.chain());
                continue;
            }
            run.has_cgroup = false;
        }
        note(&mut audit.notes, run.folder.remove());
    }
}

fn note(notes: &mut Vec<String>, outcome: headcount_sys::Result<()>) {
    notes.extend(outcome.err().map(|error| error.chain()));
}

/// A descriptor of a process that was recognised before, if it still lives. Without inodes (before Linux 6.9) it also has to be
/// recognisable as the run's by what it is now; a number and a start time can be another's.
fn reopen(process: &Process, run: &RunId) -> Result<Option<PidFd>> {
    let Some(pidfd) = PidFd::open(process.pid)? else { return Ok(None) };
    let is_same = match process.inode {
        Some(inode) => pidfd.inode()? == Some(inode),
        None => {
            let is_as_old = proc::stat(process.pid).is_ok_and(|stat| stat.start_ticks == process.start_ticks);
            is_as_old && is_marked(process.pid, run)?
        }
    };
    Ok((is_same && !pidfd.has_exited()?).then_some(pidfd))
}

fn is_marked(pid: Pid, run: &RunId) -> Result<bool> {
    let is_confined = proc::cgroup(pid).is_ok_and(|path| runs_in_path(&path).any(|one| one == *run));
    Ok(is_confined || token(pid)?.as_ref() == Some(run))
}
