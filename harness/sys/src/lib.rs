//! What headcount reads of the kernel, and the few things it asks of it.
//!
//! This is the only crate of the workspace with unsafe code. Above it, a process is a [`ProcessId`] and is
//! acted on through a [`PidFd`]; nothing outside this crate signals a bare pid.
//!
//! * [`identity`]: who a process is, so that a recycled pid is never mistaken for it
//! * [`pidfd`]: open, signal, and learn of a process's end
//! * [`proc`]: pure parsers for `/proc`, and the thin functions that read the files for them
//! * [`cgroup`]: cgroup v2: find the mount, create, join, events, freeze, kill, remove
//! * [`events`]: the kernel's record of forks, executions and ends
//! * [`signal`], [`wait`], [`poll`], [`prctl`], [`descriptors`]: what a supervisor needs of its own process
//! * [`namespace`]: a pid namespace that ends with the gate
//! * [`spawn`]: start a command that is contained before its first instruction
//! * [`witness`]: a second member of the process group, which tells a signal to the group from one to the gate
//! * [`reuse`]: a process with a number that another had
//! * [`state`]: the folder in which a run says that it exists
//!
//! **Cannot see:** processes outside its own pid namespace, and whatever `/proc` hides (`hidepid`).
//!
//! Linux only. Minimum kernel 5.4 (`P_PIDFD`); what newer kernels add (pidfs inodes 6.9, `cgroup.kill` 5.14) is used
//! where it is there and reported where it is not.
#![cfg(target_os = "linux")]

pub mod cgroup;
pub mod descriptors;
mod error;
pub mod events;
pub mod identity;
pub mod namespace;
pub mod pidfd;
pub mod poll;
pub mod prctl;
pub mod proc;
pub mod reuse;
pub mod signal;
pub mod spawn;
pub mod state;
pub mod wait;
pub mod witness;

pub use error::{Error, Result};
pub use identity::{Pid, ProcessId};
pub use pidfd::PidFd;
pub use signal::Signal;
