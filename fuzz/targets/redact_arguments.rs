//! Any command line, redacted: as many arguments as before, and one with nothing redacted in it is as it was.
#![no_main]

use headcount::redact::{self, REDACTED};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|arguments: Vec<String>| {
    let redacted = redact::arguments(&arguments);
    assert_eq!(redacted.len(), arguments.len());
    for (before, after) in arguments.iter().zip(&redacted) {
        assert!(after == before || after.contains(REDACTED));
    }
});
