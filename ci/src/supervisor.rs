//! `headcount run`: one thread, one event loop.
//!
//! The command is a child in the same process group, session and terminal; it keeps stdin, stdout, stderr and every other
//! descriptor. While it runs, the gate only waits for signals:
//!
//! * SIGCHLD: reap, and learn of the command's stops and end;
//! * any other signal that was sent to the gate alone is passed on to the command; one that was sent to the whole process
//!   group (Ctrl-C, `kill -- -PGID`) has reached the command already, see [`headcount_sys::witness`];
//! * when the command stops and a shell is watching, the gate stops too, so that the shell sees its job stopped.
//!
//! **Cannot do:** SIGSTOP and SIGKILL cannot be passed on. A gate killed with SIGKILL takes its command with it (by
//! parent-death signal), and with the cgroup tier everything else that the command started.

use std::time::Instant;

use headcount::report::{Exit, Findings, Report, Surroundings};
use headcount::scope::{Children, Conclusion, Events, Options, Scope};
use headcount::{Error, Tier, Verdict, text};
use headcount_sys::descriptors::Inherited;
use headcount_sys::poll::{self, Interest, Timeout};
use headcount_sys::signal::{self, Receiver};
use headcount_sys::state;
use headcount_sys::wait::Change;
use headcount_sys::witness::{Group, Witness};
use headcount_sys::{Signal, prctl};

use crate::args::Run;
use crate::cleanup;
use crate::exit::{self, Policy, Status};
use crate::output::{self, Reports};

/// Runs the command and returns how headcount is to end. Whatever went wrong has been said on stderr by then.
#[must_use]
pub fn run(args: &Run) -> Status {
    if let Some(tier) = args.require_tier.iter().find(|tier| !args.tiers().contains(tier)) {
        output::error(&format!("tier {tier} is required and left out: --tier does not name it"));
        return Status::Code(2);
    }
    if !args.except.is_empty() && args.tiers().contains(&Tier::Namespace) {
        output::error(
            "--except cannot be kept with the namespace tier: everything in a pid namespace ends with it",
        );
        return Status::Code(2);
    }
    match Gate::open(args) {
        Ok(gate) => gate.run(),
        Err(message) => {
            output::error(&message);
            Status::Code(exit::FAILED)
        }
    }
}

struct Gate<'a> {
    args: &'a Run,
    reports: Reports,
    receiver: Receiver,
    inherited: Inherited,
    scope: Scope,
}

impl<'a> Gate<'a> {
    fn open(args: &'a Run) -> Result<Self, String> {
        // First of all, while nothing is open that is not the command's.
        let inherited = Inherited::note().map_err(|e| e.chain())?;
        let reports = Reports::open(&args.report)?;
        // While signals still end this process: nothing has been started that they would have to reach.
        cleanup::before_run();
        let receiver = Receiver::open().map_err(|e| e.chain())?;
        let options = Options {
            tiers: args.tiers(),
            environment: state::Environment::this(),
            outer_token: std::env::var_os(state::TOKEN_VARIABLE),
            exceptions: args.except.clone(),
            program: args
                .command
                .first()
                .map(|program| program.to_string_lossy().into_owned())
                .unwrap_or_default(),
        };
        let scope = Scope::open(&options).map_err(|e| e.chain())?;
        check_required(args, &scope)?;
        Ok(Self { args, reports, receiver, inherited, scope })
    }

    fn run(mut self) -> Status {
        // Before the command, so that nothing happens between its start and this loop.
        let witness = match self.witness() {
            Ok(witness) => witness,
            Err(error) => return self.not_started(&StartError::Start(error)),
        };
        if let Err(error) = self.start() {
            drop(witness.dismiss());
            return self.not_started(&error);
        }
        let policy = Policy { on_leak: self.args.on_leak, leak_exit_code: self.args.leak_exit_code };
        match self.supervise(witness) {
            Ok((command, remark)) => self.conclude(command, remark, policy),
            Err(message) => {
                output::error(&message);
                Status::Code(exit::FAILED)
            }
        }
    }

    fn witness(&mut self) -> Result<Witness, Error> {
        let witness = Witness::start()?;
        self.scope.pass_over(witness.pid());
        Ok(witness)
    }

    fn start(&mut self) -> Result<(), StartError> {
        // A tier can turn out not to work only when it is used; each is given up at most once.
        for _ in 0..=Tier::ALL.len() {
            if self.scope.start(&self.args.command, self.receiver.inherited()).map_err(StartError::Start)? {
                return Ok(());
            }
            check_required(self.args, &self.scope).map_err(StartError::Tier)?;
        }
        Err(StartError::Tier("no tier could be used".to_owned()))
    }

    fn not_started(self, error: &StartError) -> Status {
        let (message, code) = match error {
            StartError::Tier(message) => (message.clone(), exit::FAILED),
            StartError::Start(error) if error.is_command_not_found() => (error.chain(), exit::NOT_FOUND),
            StartError::Start(error) if error.is_command_not_executable() => {
                (error.chain(), exit::NOT_EXECUTABLE)
            }
            StartError::Start(error) => (error.chain(), exit::FAILED),
        };
        output::error(&message);
        let conclusion = Conclusion {
            verdict: Verdict::Inconclusive,
            reasons: vec![message],
            leaks: Vec::new(),
            excepted: Vec::new(),
            taken_ticks: 0,
            settle: std::time::Duration::ZERO,
            evidence: std::time::Duration::ZERO,
            ending: std::time::Duration::ZERO,
        };
        let status = Status::Code(code);
        match self.report(&conclusion, Exit::default()) {
            // People have read the message; the files get the whole report.
            Ok(report) => {
                if let Err(message) = self.reports.only_files().write(&report, &exit::describe(status)) {
                    output::error(&message);
                }
            }
            Err(message) => output::error(&message),
        }
        status
    }

    /// Waits for the command's end. Returns it, and what is to be remarked on it.
    fn supervise(&mut self, mut witness: Witness) -> Result<(Change, Option<String>), String> {
        let inherited = std::mem::replace(&mut self.inherited, Inherited::none());
        inherited.release().map_err(|e| e.chain())?;
        // What came before the command was there did not reach it, whoever else it was for.
        let mut group = Group::default();
        let (_, early) = group.look(&mut witness, || self.receive())?;
        self.send_all(&early)?;
        let mut limit = self.args.timeout.map(|timeout| Limit::new(Instant::now() + timeout));
        let mut was_asked_to_stop = false;
        let end = loop {
            if self.receiver.is_waiting().map_err(|e| e.chain())? {
                let received = self.pass_on(&mut witness, &mut group)?;
                was_asked_to_stop |= received.iter().any(|signal| signal.is_stop_request());
            }
            self.receiver.forget_children().map_err(|e| e.chain())?;
            let changes = self.scope.reap().map_err(|e| e.chain())?;
            if let Some(end) = changes.iter().copied().find(|change| change.is_end()) {
                break end;
            }
            match changes.last() {
                Some(Change::Stopped(_)) if was_asked_to_stop || signal::is_in_foreground() => {
                    was_asked_to_stop = false;
                    signal::stop_this_process().map_err(|e| e.chain())?;
                }
                _ => {}
            }
            if let Some(limit) = &mut limit {
                limit.enforce(self)?;
            }
            let next = limit.as_ref().and_then(Limit::next).into_iter().chain(self.scope.next_look()).min();
            let timeout = next.map_or(Timeout::Never, Timeout::At);
            let mut interests = self.receiver.interests(true);
            interests.extend(self.scope.interests());
            poll::wait(&interests, timeout).map_err(|e| e.chain())?;
            self.scope.note_births().map_err(|e| e.chain())?;
        };
        let pid = witness.pid();
        witness.dismiss().map_err(|e| e.chain())?;
        self.scope.no_longer_pass_over(pid);
        Ok((end, limit.and_then(|limit| limit.remark)))
    }

    /// Every signal that waits, but for SIGCHLD.
    fn receive(&self) -> Result<Vec<Signal>, String> {
        let mut received = Vec::new();
        while let Some(one) = self.receiver.next().map_err(|e| e.chain())? {
            received.push(one.signal);
        }
        Ok(received)
    }

    /// Passes on what was sent to the gate alone, and not what the whole group got. Returns all that came.
    fn pass_on(&self, witness: &mut Witness, group: &mut Group) -> Result<Vec<Signal>, String> {
        let (alone, all) = group.look(witness, || self.receive())?;
        // A command that went to a group of its own (`setsid`, `timeout`, a shell with job control) got none of it.
        let is_reached = self.scope.command().is_some_and(|command| prctl::shares_group(command.pid()));
        self.send_all(if is_reached { &alone } else { &all })?;
        Ok(all)
    }

    fn send_all(&self, signals: &[Signal]) -> Result<(), String> {
        if let Some(command) = self.scope.command() {
            for signal in signals {
                command.signal(*signal).map_err(|e| e.chain())?;
            }
        }
        Ok(())
    }

    fn conclude(mut self, command: Change, remark: Option<String>, policy: Policy) -> Status {
        let mut listener = Listener { receiver: &self.receiver, is_hurried: false };
        let conclusion = match self.scope.conclude(&mut listener, self.args.grace, remark) {
            Ok(conclusion) => conclusion,
            Err(error) => {
                output::error(&error.chain());
                return Status::Code(exit::FAILED);
            }
        };
        let status = exit::decide(command.into(), conclusion.verdict, policy);
        let report = match self.report(&conclusion, command.into()) {
            Ok(report) => report,
            Err(message) => {
                output::error(&message);
                return if status == Status::Code(0) { Status::Code(exit::FAILED) } else { status };
            }
        };
        let written = self.reports.write(&report, &exit::describe(status));
        let closed = self.scope.close().map_err(|e| e.chain());
        for message in [written, closed].into_iter().filter_map(Result::err) {
            output::error(&message);
            if status == Status::Code(0) {
                return Status::Code(exit::FAILED);
            }
        }
        status
    }

    fn report(&self, conclusion: &Conclusion, exit: Exit) -> Result<Report, String> {
        let (session, group) = prctl::session_and_group();
        let surroundings = Surroundings::read(session, group).map_err(|e| e.chain())?;
        let findings = Findings {
            run_id: self.scope.run().as_str(),
            command: &self.args.command,
            exit,
            tiers: self.scope.tiers().iter().copied().collect(),
            missing_tiers: self.scope.missing().to_vec(),
            conclusion,
            adopted_zombies: self.scope.adopted_zombies(),
            forks: self.scope.forks(),
        };
        Ok(Report::new(&findings, &surroundings.with_users_of(&conclusion.leaks)))
    }
}

/// Why the command was not started.
enum StartError {
    Tier(String),
    Start(Error),
}

fn check_required(args: &Run, scope: &Scope) -> Result<(), String> {
    for missing in scope.missing() {
        if args.require_tier.contains(&missing.tier) {
            return Err(format!("required tier {} is not in force: {}", missing.tier, missing.reason));
        }
    }
    Ok(())
}

/// Hears of children while the scope is being emptied.
struct Listener<'a> {
    receiver: &'a Receiver,
    is_hurried: bool,
}

impl Events for Listener<'_> {
    fn wait(
        &mut self,
        interests: &[Interest<'_>],
        children: Children,
        deadline: Instant,
    ) -> headcount::Result<()> {
        let mut all = self.receiver.interests(children == Children::Wake);
        all.extend_from_slice(interests);
        poll::wait(&all, Timeout::At(deadline))?;
        self.receiver.forget_children()?;
        while let Some(one) = self.receiver.next()? {
            self.is_hurried |= one.signal.is_end_request();
        }
        Ok(())
    }

    fn is_hurried(&self) -> bool {
        self.is_hurried
    }
}

/// `--timeout`, step by step: SIGTERM, and SIGKILL after the grace.
struct Limit {
    term_at: Option<Instant>,
    kill_at: Option<Instant>,
    remark: Option<String>,
}

/// How many processes are named that were running when the time was over.
const NAMED: usize = 10;

impl Limit {
    fn new(moment: Instant) -> Self {
        Self { term_at: Some(moment), kill_at: None, remark: None }
    }

    /// When there is something to do next.
    fn next(&self) -> Option<Instant> {
        self.term_at.or(self.kill_at)
    }

    fn enforce(&mut self, gate: &mut Gate<'_>) -> Result<(), String> {
        let now = Instant::now();
        if self.term_at.is_some_and(|at| now >= at) {
            self.term_at = None;
            self.kill_at = Some(now + gate.args.grace);
            // Evidence first: afterwards nobody can say what it was that hung.
            self.remark = Some(timed_out(gate)?);
            send(gate, Signal::TERM)?;
            // A stopped command takes it only once it goes on.
            send(gate, Signal::CONT)?;
        }
        if self.kill_at.is_some_and(|at| now >= at) {
            self.kill_at = None;
            send(gate, Signal::KILL)?;
        }
        Ok(())
    }
}

fn send(gate: &Gate<'_>, signal: Signal) -> Result<(), String> {
    match gate.scope.command() {
        Some(command) => command.signal(signal).map(|_| ()).map_err(|e| e.chain()),
        None => Ok(()),
    }
}

fn timed_out(gate: &mut Gate<'_>) -> Result<String, String> {
    let timeout = humantime::format_duration(gate.args.timeout.unwrap_or_default());
    let running = gate.scope.look().map_err(|e| e.chain())?;
    let mut named: Vec<String> = running
        .iter()
        .take(NAMED)
        .map(|process| {
            let argv: Vec<String> = process.argv.iter().map(|word| text::reversible(word)).collect();
            format!("{} `{}`", process.pid, text::command_line(&headcount::redact::arguments(&argv), 80))
        })
        .collect();
    if running.len() > NAMED {
        named.push(format!("and {} more", running.len() - NAMED));
    }
    Ok(format!("the command was ended after {timeout} (--timeout); running then: {}", named.join(", ")))
}
