//! The program `headcount`, as a library: `main` only calls [`main`], and tests can call the parts.
//!
//! * [`args`]: the command line
//! * [`supervisor`]: `headcount run`: one thread, one event loop
//! * [`cleanup`]: `headcount audit`, `headcount reap`, and the reaping at the start of a run
//! * [`doctor`]: `headcount doctor`
//! * [`exit`]: how headcount ends, a pure function of what happened
//! * [`output`]: where reports go
#![cfg(target_os = "linux")]

pub mod args;
pub mod cleanup;
pub mod doctor;
pub mod exit;
pub mod output;
pub mod supervisor;

use clap::Parser as _;
use headcount_sys::signal;

pub use exit::Status;

/// Parses the command line, does what it says, and ends the process accordingly.
pub fn main() -> ! {
    let args = args::Args::parse();
    let status = match args.action {
        args::Action::Run(run) => supervisor::run(&run),
        args::Action::Audit(options) => cleanup::run(cleanup::Action::Audit, &options),
        args::Action::Doctor(options) => doctor::run(&options),
        args::Action::Nothing => Status::Code(0),
        args::Action::Reap(options) => cleanup::run(cleanup::Action::Reap, &options),
    };
    match status {
        Status::Code(code) => std::process::exit(i32::from(code)),
        Status::Signal(signal) => {
            // The command has written its core file, if any.
            let _ = headcount_sys::prctl::forbid_core_dump();
            signal::die_of(signal);
            std::process::exit(128 + signal.as_raw())
        }
    }
}
