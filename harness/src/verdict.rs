//! The judgement: pure, over evidence that was taken before. No I/O, no clock.

use std::collections::BTreeSet;

use headcount_sys::Pid;
use serde::Serialize;

use crate::evidence::{Life, Process};

/// What is said of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every process that was started has ended and was waited for.
    Clean,
    /// Something outlived the command.
    Leaked,
    /// Nothing was seen, but not everything could be looked at.
    Inconclusive,
}

impl Verdict {
    /// The word for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Leaked => "leaked",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// In which way a process was left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Alive, and its parent was gone when the command ended.
    Orphan,
    /// Alive, under a parent that leaked too.
    Straggler,
    /// Dead, under a leaked parent that never waited for it.
    Zombie,
}

impl Kind {
    /// The word for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Orphan => "orphan",
            Self::Straggler => "straggler",
            Self::Zombie => "zombie",
        }
    }
}

/// Whether a process that is already dying counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dying {
    /// It will be gone in a moment: wait, and judge again.
    IsNoLeak,
    /// It had its time (a process in uninterruptible sleep can have SIGKILL pending for ever).
    IsALeak,
}

/// The judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What is said.
    pub verdict: Verdict,
    /// Why not everything could be looked at; and whatever else is to be said.
    pub reasons: Vec<String>,
    /// What was left, by its place in the evidence.
    pub leaks: Vec<(Kind, usize)>,
}

/// Judges what was found when the command had ended and the grace was over.
///
/// `blind` says what could not be looked at. With anything in it, the verdict is never *clean*.
#[must_use]
pub fn judge(processes: &[Process], blind: &[String], dying: Dying) -> Judgement {
    let counts = |process: &Process| match process.life {
        Life::Alive => true,
        Life::Dying => dying == Dying::IsALeak,
        Life::Dead => false,
    };
    let left: BTreeSet<Pid> = processes.iter().filter(|one| counts(one)).map(|one| one.pid).collect();
    let under_a_leak = |process: &Process| process.ppid.is_some_and(|ppid| left.contains(&ppid));
    let leaks: Vec<(Kind, usize)> = processes
        .iter()
        .enumerate()
        .filter_map(|(place, process)| match process.life {
            _ if counts(process) => {
                Some((if under_a_leak(process) { Kind::Straggler } else { Kind::Orphan }, place))
            }
            Life::Dead if under_a_leak(process) => Some((Kind::Zombie, place)),
            _ => None,
        })
        .collect();
    let verdict = match (leaks.is_empty(), blind.is_empty()) {
        (false, _) => Verdict::Leaked,
        (true, true) => Verdict::Clean,
        (true, false) => Verdict::Inconclusive,
    };
    Judgement { verdict, reasons: blind.to_vec(), leaks }
}

#[cfg(test)]
pub(crate) mod tests {
    use headcount_sys::proc::State;

    use super::*;

    /// A process as the tests of this crate make them.
    pub(crate) fn process(pid: i32, ppid: i32, life: Life) -> Process {
        Process {
            pid: Pid::new(pid).unwrap(),
            inode: Some(u64::try_from(pid).unwrap()),
            ppid: Pid::new(ppid),
            life,
            state: Some(if life == Life::Dead { State::Zombie } else { State::Sleeping }),
            threads: 1,
            name: b"sleep".to_vec(),
            start_ticks: 100,
            session: Some(1),
            process_group: Some(1),
            uid: Some(0),
            exe: Some(b"/bin/sleep".to_vec()),
            argv: vec![b"sleep".to_vec(), b"60".to_vec()],
            cwd: Some(b"/srv".to_vec()),
            cpu_ticks: 3,
            rss_pages: 200,
            listening: Vec::new(),
            test: None,
            in_cgroup: Some(true),
            has_token: Some(true),
            seen_by: Vec::new(),
            spawned_by: None,
            missing: Vec::new(),
        }
    }

    fn kinds(processes: &[Process], dying: Dying) -> Vec<(Kind, usize)> {
        judge(processes, &[], dying).leaks
    }

    #[test]
    fn a_parent_that_leaked_too_makes_a_straggler() {
        let found = [process(10, 1, Life::Alive), process(11, 10, Life::Alive), process(12, 10, Life::Dead)];
        assert_eq!(
            kinds(&found, Dying::IsNoLeak),
            [(Kind::Orphan, 0), (Kind::Straggler, 1), (Kind::Zombie, 2)]
        );
    }

    #[test]
    fn a_zombie_without_a_leaked_parent_is_no_leak() {
        assert_eq!(kinds(&[process(12, 1, Life::Dead)], Dying::IsALeak), []);
    }

    #[test]
    fn a_dying_process_counts_only_when_its_time_is_over() {
        let found = [process(10, 1, Life::Dying), process(11, 10, Life::Dead)];
        assert_eq!(kinds(&found, Dying::IsNoLeak), []);
        assert_eq!(kinds(&found, Dying::IsALeak), [(Kind::Orphan, 0), (Kind::Zombie, 1)]);
    }

    #[test]
    fn what_could_not_be_looked_at_is_never_clean() {
        let blind = ["the cgroup vanished".to_owned()];
        assert_eq!(judge(&[], &blind, Dying::IsNoLeak).verdict, Verdict::Inconclusive);
        assert_eq!(judge(&[], &[], Dying::IsNoLeak).verdict, Verdict::Clean);
        let found = [process(10, 1, Life::Alive)];
        assert_eq!(judge(&found, &blind, Dying::IsNoLeak).verdict, Verdict::Leaked);
    }
}
