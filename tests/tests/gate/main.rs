//! `headcount run` as its users meet it: real programs, real signals, a real terminal.
#![expect(clippy::unwrap_used, reason = "functions of a test are tests too")]

mod bad_input;
mod blind_spots;
mod cleanup;
mod corpus;
mod doctor;
mod exceptions;
mod provenance;
mod recycled;
mod signals;
mod terminal;
mod transparency;
mod unkillable;

use headcount_tests::TestContext;

fn context() -> TestContext {
    TestContext::new(env!("CARGO_BIN_EXE_headcount-under-test"))
}
