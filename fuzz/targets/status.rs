//! Any bytes as `/proc/PID/status`. No signal's number makes a mask's reading overflow.
#![no_main]

use headcount_sys::Signal;
use headcount_sys::proc::{Status, status};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| {
    let Ok(parsed) = Status::parse(content) else { return };
    assert!(content.windows(4).any(|window| window == b"Uid:"));
    let ignored = (1..=64).filter_map(Signal::new).filter(|signal| parsed.ignores(*signal)).count();
    assert_eq!(ignored, parsed.ignored.count_ones() as usize);
    let pending = parsed.pending | parsed.pending_shared;
    assert_eq!(parsed.is_being_killed(), status::contains(pending, Signal::KILL));
    // Lines that say nothing that headcount knows change nothing.
    let more = [b"Name:\tUid\nno colon\n:\n", content, b"\nNewField:\t7\n\xff\n"].concat();
    assert_eq!(Status::parse(&more), Ok(parsed));
});
