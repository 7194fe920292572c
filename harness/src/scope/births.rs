//! The events tier: the record of births, read as they happen.
//!
//! Waking up for every event costs a fork-heavy command more than 10 % on two cores (three events a process; the reading of
//! arguments costs nothing that can be measured). So only so many are read at once as they come, the first ones of a burst and
//! those of a command that forks now and then; beyond that they are read every [`PACE`], and a process that lives shorter than that
//! is remembered without its arguments.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use headcount_sys::events::{ProcEvents, Reading};
use headcount_sys::poll::Interest;
use headcount_sys::{Pid, proc};

use crate::Result;
use crate::provenance::Lineage;

/// A subscription to births, and the tree that grew of them.
#[derive(Debug)]
pub(super) struct Births {
    events: ProcEvents,
    pub(super) lineage: Lineage,
    pace: Pace,
}

/// How long events gather where they come too fast to be read one by one.
const PACE: Duration = Duration::from_millis(2);
/// How many wake-ups may come at once, and how many more each second.
const BURST: f64 = 100.0;
const RATE: f64 = 100.0;

/// When to be woken up by events, and when by the clock.
#[derive(Debug)]
struct Pace {
    /// How many wake-ups are left, as of a moment.
    left: f64,
    counted: Instant,
    /// Until when events are left to gather.
    resting: Option<Instant>,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { left: BURST, counted: now, resting: None }
    }

    /// After a look that found something, or nothing.
    fn looked(&mut self, now: Instant, has_found: bool) {
        let passed = now.saturating_duration_since(self.counted).as_secs_f64();
        self.left = (self.left + passed * RATE).min(BURST);
        self.counted = now;
        self.resting = None;
        if has_found {
            if self.left < 1.0 {
                self.resting = Some(now + PACE);
            } else {
                self.left -= 1.0;
            }
        }
    }
}

/// The most readings in one look. Whoever forks faster than this process reads must not hold it; what is left is read next time.
const READINGS: usize = 8;

impl Births {
    /// Subscribes. Whatever this process starts from now on is in the tree.
    pub(super) fn open() -> Result<Self> {
        let lineage = Lineage::below(Pid::this());
        Ok(Self { events: ProcEvents::open()?, lineage, pace: Pace::new(Instant::now()) })
    }

    /// Reads what has happened. The arguments of a process that just executed a program are read at once: it may be gone in
    /// a millisecond.
    pub(super) fn note(&mut self) -> Result<()> {
        let mut has_found = false;
        for _ in 0..READINGS {
            let lineage = &mut self.lineage;
            let reading = self.events.read(|event| {
                has_found = true;
                lineage.note(event, arguments);
            })?;
            match reading {
                Reading::Complete => break,
                Reading::More => {}
                Reading::Lost => self.lineage.note_loss(),
            }
        }
        self.pace.looked(Instant::now(), has_found);
        Ok(())
    }

    /// Takes a process out of the tree that is not the command's.
    pub(super) fn disown(&mut self, pid: Pid) {
        // An error here comes again at the next reading.
        let _ = self.note();
        self.lineage.disown(pid);
    }

    /// What to wait on; nothing while events are left to gather.
    pub(super) fn interest(&self) -> Option<Interest<'_>> {
        self.pace.resting.is_none().then(|| Interest::readable(self.events.as_fd()))
    }

    /// When to look even if nothing is ready.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.pace.resting
    }
}

fn arguments(pid: Pid) -> Option<Vec<Vec<u8>>> {
    // An empty file is a process that is gone, or whose arguments are not there yet.
    proc::cmdline(pid).ok().filter(|argv| !argv.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_read_as_it_comes_and_a_storm_by_the_clock() {
        let begun = Instant::now();
        let mut pace = Pace::new(begun);
        for _ in 0..100 {
            pace.looked(begun, true);
            assert!(pace.resting.is_none());
        }
        pace.looked(begun, true);
        assert_eq!(pace.resting, Some(begun + PACE));
        // Once nothing comes any more, the next event wakes up.
        pace.looked(begun + PACE, false);
        assert!(pace.resting.is_none());
        let later = begun + Duration::from_secs(1);
        pace.looked(later, true);
        assert!(pace.resting.is_none());
    }
}
