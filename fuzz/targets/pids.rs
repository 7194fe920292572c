//! Any bytes as `children` or `cgroup.procs`; and lists of numbers, each of which is read back.
#![no_main]

use headcount_sys::{Pid, proc};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| {
    let pids: Vec<Option<Pid>> = proc::pids(content).collect();
    // A number takes at least one byte, and a separator.
    assert!(pids.len() <= content.len().div_ceil(2));

    let numbers: Vec<i32> =
        content.chunks_exact(4).map(|four| i32::from_ne_bytes(four.try_into().unwrap())).collect();
    for separator in [" ", "\n"] {
        let written: String = numbers.iter().map(|number| format!("{number}{separator}")).collect();
        let expected: Vec<Option<Pid>> = numbers.iter().map(|number| Pid::new(*number)).collect();
        assert_eq!(proc::pids(written.as_bytes()).collect::<Vec<_>>(), expected);
    }
});
