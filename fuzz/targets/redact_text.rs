//! Any text, redacted: it grows by no more than its words, no line is added, and where nothing was redacted, nothing has changed.
#![no_main]

use headcount::redact::{self, REDACTED};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let redacted = redact::text(text);
    let count = |text: &str| text.chars().filter(|character| character.is_whitespace()).count();
    // A quoted secret may hold some.
    assert!(count(&redacted) <= count(text));
    // Each word grows by one mark at most.
    assert!(redacted.len() <= text.len() * (REDACTED.len() + 1));
    if !redacted.contains(REDACTED) {
        assert_eq!(redacted, text);
    }
});
