//! `headcount audit` and `headcount reap`; and the same reaping at the start of every run.

use headcount::cleanup::report::Report;
use headcount::cleanup::{self, Audit};
use headcount::report::Surroundings;
use headcount_sys::state::{Environment, StateDir};

use crate::args::{Cleanup, Format};
use crate::exit::{self, Status};
use crate::output::{self, Reports};

/// What to do about dead runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Show what they left.
    Audit,
    /// End and remove it.
    Reap,
}

/// Does it, writes the reports, and returns how headcount is to end.
#[must_use]
pub fn run(action: Action, options: &Cleanup) -> Status {
    match perform(action, options) {
        Ok(0) => Status::Code(0),
        Ok(_) => Status::Code(exit::LEAKED),
        Err(message) => {
            output::error(&message);
            Status::Code(exit::FAILED)
        }
    }
}

/// Returns how many processes of dead runs live.
fn perform(action: Action, options: &Cleanup) -> Result<usize, String> {
    let reports = Reports::open(&options.report)?;
    headcount_sys::proc::check_is_own().map_err(|e| e.chain())?;
    let state = StateDir::find(&Environment::this()).map_err(|e| e.chain())?;
    let mut audit = Audit::default();
    let mut folder = String::new();
    if let Some(state) = state {
        folder = state.path().display().to_string();
        audit = Audit::take(&state).map_err(|e| e.chain())?;
        if action == Action::Reap {
            cleanup::reap(&mut audit).map_err(|e| e.chain())?;
        }
    }
    let surroundings = Surroundings::read(0, 0).map_err(|e| e.chain())?;
    let name = if action == Action::Audit { "audit" } else { "reap" };
    let report = Report::new(&audit, name, &folder, &surroundings);
    reports.write_as(|format| match format {
        Format::Text => report.text(),
        Format::Json => report.json(),
    })?;
    Ok(report.living())
}

/// Reaps before a run: quick where there is nothing to do, and never in the way of the run.
pub fn before_run() {
    let reaped = || -> headcount::Result<Audit> {
        // What is wrong with the folder is said when the run makes its own there.
        let Ok(Some(state)) = StateDir::find(&Environment::this()) else { return Ok(Audit::default()) };
        let mut audit = Audit::take(&state)?;
        if !audit.is_clean() {
            cleanup::reap(&mut audit)?;
        }
        Ok(audit)
    };
    let audit = match reaped() {
        Ok(audit) => audit,
        Err(error) => return output::remark(&format!("failed to reap dead runs: {}", error.chain())),
    };
    for run in audit.dead().filter(|run| !run.left.is_empty()) {
        let unkillable = headcount::scope::EndedBy::Unkillable;
        let living = run.left.iter().filter(|one| one.ended_by == Some(unkillable)).count();
        let ended = run.left.len() - living;
        let (id, program) = (&run.record.run_id, &run.record.program);
        let what =
            |count: usize| if count == 1 { "1 process".to_owned() } else { format!("{count} processes") };
        if ended > 0 {
            output::remark(&format!(
                "ended {} that run {id} (`{program}`), which was killed, had left",
                what(ended)
            ));
        }
        if living > 0 {
            output::remark(&format!(
                "{} of dead run {id} (`{program}`) could not be ended: see headcount audit",
                what(living)
            ));
        }
    }
}
