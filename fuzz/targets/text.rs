//! Any bytes, made fit for a report: they can be had back, and nothing in them reaches the terminal's controls.
#![no_main]

use headcount::text::{printable, reversible};
use libfuzzer_sys::fuzz_target;

/// The way back that docs/report.md describes.
fn back(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        match (first, after) {
            (b'\\', [b'\\', tail @ ..]) => {
                bytes.push(b'\\');
                rest = tail;
            }
            (b'\\', [b'x', high, low, tail @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap();
                bytes.push(u8::try_from(digit(high) * 16 + digit(low)).unwrap());
                rest = tail;
            }
            (b'\\', _) => panic!("a lone backslash in {text:?}"),
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

fuzz_target!(|bytes: &[u8]| {
    let text = reversible(bytes);
    assert_eq!(back(&text), bytes);
    let shown = printable(&text);
    assert!(!shown.chars().any(char::is_control));
    assert!(!shown.chars().any(|character| "\u{202e}\u{2066}\u{2028}\u{200f}\u{61c}".contains(character)));
    // `\u{10ffff}` is the longest escape; and what is fit stays as it is.
    assert!(shown.chars().count() <= text.chars().count() * 10);
    assert_eq!(printable(&shown), shown);
});
