//! headcount: every process that you start is counted out, and counted back in.
//!
//! * [`scope`]: the box in which a command runs: tiers of containment, the census of who is in it, and its end
//! * [`evidence`]: what the kernel says of a process, read before anything is killed
//! * [`exception`]: what is meant to outlive a command, by name
//! * [`provenance`]: who started whom, also when the parents are gone
//! * [`verdict`]: a pure judgement over that evidence
//! * [`cleanup`]: what runs left whose host is dead
//! * [`report`]: the result as a value, as text and as JSON
//!
//! The judge reads the kernel: no verdict rests on what the system under test says of itself. Where the machine does not let
//! headcount observe, the verdict is *inconclusive*, with the reason; never *clean*.
//!
//! This crate has no program of its own; the gate `headcount run -- CMD` is in `headcount-cli`.
#![cfg(target_os = "linux")]

pub mod cleanup;
mod error;
pub mod evidence;
pub mod exception;
pub mod provenance;
pub mod redact;
pub mod report;
pub mod scope;
pub mod test_id;
pub mod text;
pub mod tier;
pub mod verdict;

pub use error::{Error, Result};
pub use scope::Scope;
pub use tier::{MissingTier, Tier};
pub use verdict::Verdict;
