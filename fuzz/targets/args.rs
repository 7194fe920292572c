//! Any arguments, bytes that are no text included, separated by line ends: the command's own are handed on as they are.
#![no_main]

use std::cell::RefCell;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use clap::{CommandFactory as _, FromArgMatches as _};
use headcount_cli::args::{Action, Args};
use libfuzzer_sys::fuzz_target;

thread_local! {
    // Building the parser takes many times as long as parsing.
    static COMMAND: RefCell<clap::Command> = RefCell::new(Args::command());
}

fuzz_target!(|content: &[u8]| {
    let words: Vec<OsString> =
        content.split(|byte| *byte == b'\n').map(|word| OsString::from_vec(word.to_vec())).collect();
    let line = std::iter::once(OsString::from("headcount")).chain(words.iter().cloned());
    let Ok(mut matches) = COMMAND.with_borrow_mut(|command| command.try_get_matches_from_mut(line)) else {
        return;
    };
    let Action::Run(run) = Args::from_arg_matches_mut(&mut matches).unwrap().action else { return };
    assert!(!run.command.is_empty());
    assert!(words.ends_with(&run.command));
    assert!(run.leak_exit_code > 0);
    assert!(run.grace <= Duration::from_secs(1000 * 24 * 3600));
});
