//! Any bytes as `cmdline` and `environ`: the strings, joined again, are the content, and the variables are among them.
#![no_main]

use headcount_sys::proc;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| {
    let strings: Vec<&[u8]> = proc::strings(content).collect();
    let joined = strings.join(&0);
    // Whether the last NUL byte was there is the only thing that is lost.
    assert_eq!(joined, content.strip_suffix(b"\0").unwrap_or(content));
    let mut entries = strings.iter().filter(|entry| entry.contains(&b'='));
    for (name, value) in proc::variables(content) {
        assert!(!name.contains(&b'='));
        assert_eq!(entries.next().unwrap(), &[name, b"=", value].concat());
    }
    assert!(entries.next().is_none());
});
