//! `/proc/PID/stat` (proc_pid_stat(5)).

use super::{ParseError, number, words};
use crate::Pid;

/// A process's or thread's state letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// On a processor or ready for one.
    Running,
    /// Waiting, and interruptible.
    Sleeping,
    /// Waiting, and not interruptible: SIGKILL has to wait too.
    DiskSleep,
    /// Stopped by a signal.
    Stopped,
    /// Stopped by its tracer.
    Traced,
    /// Dead, and not waited for. A process whose main thread ended looks so while its other threads live.
    Zombie,
    /// Dead, and going.
    Dead,
    /// A kernel thread with nothing to do.
    Idle,
}

impl State {
    fn parse(letter: &[u8]) -> Result<Self, ParseError> {
        Ok(match letter {
            b"R" => Self::Running,
            b"S" => Self::Sleeping,
            b"D" => Self::DiskSleep,
            b"T" => Self::Stopped,
            b"t" => Self::Traced,
            b"Z" => Self::Zombie,
            b"X" | b"x" => Self::Dead,
            // P (parked), I (idle), K (wakekill) and W (waking) are states of kernel threads, or of an instant.
            b"I" | b"P" | b"K" | b"W" => Self::Idle,
            _ => return Err(ParseError("state")),
        })
    }

    /// Whether nothing of it runs any more.
    #[must_use]
    pub fn is_dead(self) -> bool {
        matches!(self, Self::Zombie | Self::Dead)
    }

    /// The word for reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Sleeping => "sleeping",
            Self::DiskSleep => "disk sleep",
            Self::Stopped => "stopped",
            Self::Traced => "traced",
            Self::Zombie => "zombie",
            Self::Dead => "dead",
            Self::Idle => "idle",
        }
    }
}

/// `PF_EXITING` of `linux/sched.h`: the thread is on its way out.
const PF_EXITING: u64 = 0x4;
/// `PF_KTHREAD` of `linux/sched.h`.
const PF_KTHREAD: u64 = 0x0020_0000;

/// The fields of `stat` that headcount uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The process's (or thread's) number.
    pub pid: Pid,
    /// Its short name, at most 15 bytes, of any content.
    pub name: Vec<u8>,
    /// Its state.
    pub state: State,
    /// Its parent's number; 0 for init, or where the parent is in another pid namespace.
    pub ppid: i32,
    /// Its process group.
    pub process_group: i32,
    /// Its session.
    pub session: i32,
    /// The kernel's flags (`PF_*`).
    pub flags: u64,
    /// Processor time used, user and system together, in clock ticks.
    pub cpu_ticks: u64,
    /// How many threads it has; a main thread that has ended counts while others live.
    pub threads: u64,
    /// When it started, in clock ticks since boot.
    pub start_ticks: u64,
    /// How many bytes its environment takes. `None` while it executes a program, and for whoever may not look.
    pub environment_size: Option<u64>,
}

impl Stat {
    /// Parses the file. The name stands in parentheses and may itself hold parentheses, spaces and newlines, so the last
    /// `)` ends it.
    ///
    /// # Errors
    /// Content that no kernel writes.
    pub fn parse(content: &[u8]) -> Result<Self, ParseError> {
        let open = content.iter().position(|byte| *byte == b'(').ok_or(ParseError("name"))?;
        let close = content.iter().rposition(|byte| *byte == b')').ok_or(ParseError("name"))?;
        let name = content.get(open + 1..close).ok_or(ParseError("name"))?;
        let pid = number(content.get(..open).map(<[u8]>::trim_ascii), "pid")?;
        let fields: Vec<&[u8]> = words(content.get(close + 1..).unwrap_or_default()).collect();
        // The manual counts from 1, and the state is its third field.
        let field = |place: usize| fields.get(place - 3).copied();
        let signed = |place, what| number::<i64>(field(place), what);
        Ok(Self {
            pid: Pid::new(pid).ok_or(ParseError("pid"))?,
            name: name.to_vec(),
            state: State::parse(field(3).ok_or(ParseError("state"))?)?,
            ppid: number(field(4), "ppid")?,
            process_group: number(field(5), "process group")?,
            session: number(field(6), "session")?,
            flags: number(field(9), "flags")?,
            cpu_ticks: number::<u64>(field(14), "user time")?
                .saturating_add(number(field(15), "system time")?),
            threads: u64::try_from(signed(20, "threads")?).unwrap_or(0),
            start_ticks: number(field(22), "start time")?,
            environment_size: environment_size(field(26), field(50), field(51)),
        })
    }

    /// Whether it is a thread of the kernel's own.
    #[must_use]
    pub fn is_kernel_thread(&self) -> bool {
        self.flags & PF_KTHREAD != 0
    }

    /// Whether the thread has begun to exit.
    #[must_use]
    pub fn is_exiting(&self) -> bool {
        self.flags & PF_EXITING != 0
    }
}

/// From where it begins and ends in memory; zero stands for unknown. While a program is being executed, both are the same for a
/// moment, as if there were nothing: the kernel sets where the code begins after them (`load_elf_binary`), so that tells
/// whether they can be believed. It is 1 for whoever may not look.
fn environment_size(code: Option<&[u8]>, start: Option<&[u8]>, end: Option<&[u8]>) -> Option<u64> {
    number::<u64>(code, "code's start").ok().filter(|code| *code > 1)?;
    let start: u64 = number(start, "environment's start").ok().filter(|start| *start > 0)?;
    let end: u64 = number(end, "environment's end").ok().filter(|end| *end > 0)?;
    end.checked_sub(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = b"4121 (a) b (c) S 17 4121 4000 0 -1 4194304 96 0 0 0 7 3 0 0 20 0 1 0 52013 2490368 220 18446744073709551615 1 1 0";

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let stat = Stat::parse(LINE).unwrap();
        assert_eq!(stat.name, b"a) b (c");
        assert_eq!((stat.ppid, stat.process_group, stat.session), (17, 4121, 4000));
        assert_eq!((stat.cpu_ticks, stat.start_ticks, stat.threads), (10, 52013, 1));
        assert_eq!(stat.state, State::Sleeping);
        assert!(!stat.is_exiting());
    }

    #[test]
    fn a_cut_file_is_an_error_at_every_length() {
        // The last field that is used is the 22nd; before its first digit the line cannot be understood.
        let end = LINE.windows(7).position(|window| window == b" 52013 ").unwrap();
        for length in 0..=end {
            assert!(Stat::parse(&LINE[..length]).is_err(), "at {length}");
        }
    }

    #[test]
    fn exiting_is_read_from_the_flags() {
        let line = String::from_utf8(LINE.to_vec()).unwrap().replace("4194304", "4194308");
        assert!(Stat::parse(line.as_bytes()).unwrap().is_exiting());
    }
}
