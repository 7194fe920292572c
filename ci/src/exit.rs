//! How headcount ends: one documented constant per status, and a pure decision.

use headcount::Verdict;
use headcount::report::Exit;
use headcount_sys::Signal;

use crate::args::OnLeak;

/// Something leaked, and the command had succeeded. `--leak-exit-code` chooses another.
pub const LEAKED: u8 = 23;
/// The command had succeeded, and not everything could be looked at.
pub const INCONCLUSIVE: u8 = 24;
/// headcount itself failed, or a required tier is missing.
pub const FAILED: u8 = 125;
/// The command exists and cannot be executed (as `env` and the shells say it).
pub const NOT_EXECUTABLE: u8 = 126;
/// The command does not exist.
pub const NOT_FOUND: u8 = 127;

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// With this exit status.
    Code(u8),
    /// Of this signal.
    Signal(Signal),
}

/// What to do about a leak.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Whether a leak counts.
    pub on_leak: OnLeak,
    /// The status for one.
    pub leak_exit_code: u8,
}

/// The status with which headcount ends: the command's own if it failed, since that is what its caller has to know first.
#[must_use]
pub fn decide(command: Exit, verdict: Verdict, policy: Policy) -> Status {
    if let Some(signal) = command.signal.and_then(Signal::new) {
        return Status::Signal(signal);
    }
    // An exit status has eight bits; the kernel cut off the rest before anybody saw it.
    let own = command.code.map_or(FAILED, |code| u8::try_from(code & 0xff).unwrap_or(FAILED));
    if own != 0 {
        return Status::Code(own);
    }
    match (verdict, policy.on_leak) {
        (Verdict::Leaked, OnLeak::Fail) => Status::Code(policy.leak_exit_code),
        (Verdict::Inconclusive, _) => Status::Code(INCONCLUSIVE),
        (Verdict::Clean, _) | (Verdict::Leaked, OnLeak::Report) => Status::Code(0),
    }
}

/// The words for the report's last line.
#[must_use]
pub fn describe(status: Status) -> String {
    match status {
        Status::Code(code) => format!("exits with {code}"),
        Status::Signal(signal) => format!("dies of {signal}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_design_holds() {
        let fail = Policy { on_leak: OnLeak::Fail, leak_exit_code: LEAKED };
        let report = Policy { on_leak: OnLeak::Report, ..fail };
        let other = Policy { leak_exit_code: 99, ..fail };
        let code = |code| Exit { code: Some(code), signal: None };
        let killed = Exit { code: None, signal: Some(15) };
        use Verdict::{Clean, Inconclusive, Leaked};
        for (command, verdict, policy, expected) in [
            (code(0), Clean, fail, Status::Code(0)),
            (code(0), Leaked, fail, Status::Code(23)),
            (code(0), Leaked, other, Status::Code(99)),
            (code(0), Leaked, report, Status::Code(0)),
            (code(0), Inconclusive, fail, Status::Code(24)),
            (code(0), Inconclusive, report, Status::Code(24)),
            (code(7), Leaked, fail, Status::Code(7)),
            (code(255), Inconclusive, fail, Status::Code(255)),
            (killed, Leaked, fail, Status::Signal(Signal::TERM)),
            (killed, Clean, report, Status::Signal(Signal::TERM)),
        ] {
            assert_eq!(decide(command, verdict, policy), expected, "{command:?} {verdict:?}");
        }
    }
}
