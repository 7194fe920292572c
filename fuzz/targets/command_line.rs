//! Any command line, quoted: a shell's rules give the arguments back, and none of them is longer than asked for.
#![no_main]

use headcount::text::{command_line, printable};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Given {
    arguments: Vec<String>,
    limit: u8,
}

/// Single quotes and `\'`, which is all that is used.
fn split(line: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let (mut word, mut is_word, mut is_quoted) = (String::new(), false, false);
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '\'' => (is_quoted, is_word) = (!is_quoted, true),
            '\\' if !is_quoted => {
                word.push(characters.next().unwrap());
                is_word = true;
            }
            ' ' if !is_quoted => {
                assert!(is_word, "two spaces in {line:?}");
                words.push(std::mem::take(&mut word));
                is_word = false;
            }
            other => {
                assert!(is_quoted || !"|&;<>()$`\"#!{}?".contains(other), "{other} is bare in {line:?}");
                word.push(other);
                is_word = true;
            }
        }
    }
    assert!(!is_quoted, "an open quote in {line:?}");
    words.extend(is_word.then_some(word));
    words
}

fuzz_target!(|given: Given| {
    let limit = usize::from(given.limit);
    let cut = command_line(&given.arguments, limit);
    assert!(cut.chars().count() <= limit + 1);
    let whole = command_line(&given.arguments, usize::MAX);
    assert!(!whole.chars().any(char::is_control));
    match cut.strip_suffix('…') {
        Some(start) if whole != cut => assert!(whole.starts_with(start)),
        _ => assert_eq!(whole, cut),
    }
    let printed: Vec<String> = given.arguments.iter().map(|argument| printable(argument)).collect();
    assert_eq!(split(&whole), printed);
});
