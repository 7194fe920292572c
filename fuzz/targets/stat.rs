//! Any bytes as `/proc/PID/stat`: what is understood was there, and stays the same when it is written again.
#![no_main]

use headcount_sys::proc::Stat;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| {
    let Ok(stat) = Stat::parse(content) else { return };
    assert!(stat.pid.as_raw() > 0);
    let open = content.iter().position(|byte| *byte == b'(').unwrap();
    assert_eq!(&content[open + 1..open + 1 + stat.name.len()], stat.name);
    assert!(!content[open + 2 + stat.name.len()..].contains(&b')'));
    // White space behind the last field means nothing.
    assert_eq!(Stat::parse(&[content, b" \n"].concat()), Ok(stat));
});
