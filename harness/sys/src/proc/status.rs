//! `/proc/PID/status` (proc_pid_status(5)).

use super::{ParseError, number, words};
use crate::{Pid, Signal};

/// The fields of `status` that headcount uses.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Status {
    /// The real user.
    pub uid: u32,
    /// Signals that wait for this thread, a bit each, signal 1 lowest.
    pub pending: u64,
    /// Signals that wait for the process.
    pub pending_shared: u64,
    /// Signals that the thread blocks.
    pub blocked: u64,
    /// Signals that the process ignores.
    pub ignored: u64,
    /// Who traces it.
    pub tracer: Option<Pid>,
    /// Whether it is writing a core file.
    pub core_dumping: bool,
}

impl Status {
    /// Parses the file. Fields that this kernel does not have keep their defaults; `Uid` is in all.
    ///
    /// # Errors
    /// Content that no kernel writes.
    pub fn parse(content: &[u8]) -> Result<Self, ParseError> {
        let mut status = Self::default();
        let mut has_uid = false;
        for line in content.split(|byte| *byte == b'\n') {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (key, value) = line.split_at(colon);
            let mut values = words(value.get(1..).unwrap_or_default());
            match key {
                b"Uid" => {
                    status.uid = number(values.next(), "uid")?;
                    has_uid = true;
                }
                b"SigPnd" => status.pending = signals(values.next())?,
                b"ShdPnd" => status.pending_shared = signals(values.next())?,
                b"SigBlk" => status.blocked = signals(values.next())?,
                b"SigIgn" => status.ignored = signals(values.next())?,
                b"TracerPid" => status.tracer = Pid::new(number(values.next(), "tracer")?),
                b"CoreDumping" => status.core_dumping = values.next() == Some(b"1"),
                _ => {}
            }
        }
        if has_uid { Ok(status) } else { Err(ParseError("no uid")) }
    }

    /// Whether SIGKILL was sent and only has to be taken.
    #[must_use]
    pub fn is_being_killed(&self) -> bool {
        contains(self.pending | self.pending_shared, Signal::KILL)
    }

    /// Whether the process ignores the signal.
    #[must_use]
    pub fn ignores(&self, signal: Signal) -> bool {
        contains(self.ignored, signal)
    }
}

/// Whether a signal is in a mask as `/proc` writes them.
#[must_use]
pub fn contains(mask: u64, signal: Signal) -> bool {
    u32::try_from(signal.as_raw() - 1)
        .is_ok_and(|bit| mask.checked_shr(bit).is_some_and(|rest| rest & 1 == 1))
}

fn signals(field: Option<&[u8]>) -> Result<u64, ParseError> {
    field
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or(ParseError("signal mask"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pending_kill_is_seen_in_either_set() {
        let parse = |text: &str| Status::parse(text.as_bytes()).unwrap();
        assert!(parse("Uid:\t0\t0\t0\t0\nSigPnd:\t0000000000000100\n").is_being_killed());
        assert!(parse("Uid:\t0\nShdPnd:\t0000000000000100\n").is_being_killed());
        assert!(!parse("Uid:\t0\nShdPnd:\t0000000000004000\n").is_being_killed());
    }

    #[test]
    fn a_name_cannot_pose_as_another_field() {
        // The kernel escapes newlines in Name, so a line begins with Uid only where the kernel wrote it.
        let status = Status::parse(b"Name:\tUid: 7\nUid:\t65534\t0\t0\t0\nTracerPid:\t12\n").unwrap();
        assert_eq!((status.uid, status.tracer), (65534, Pid::new(12)));
    }

    #[test]
    fn no_uid_is_no_status() {
        assert!(Status::parse(b"").is_err());
        assert!(Status::parse(b"Uid:\tx\n").is_err());
    }
}
