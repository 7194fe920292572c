//! The box in which a command runs: opened, filled by one command, counted, emptied, closed.
//!
//! **Guarantees:** the command is contained before its first instruction. [`Scope::is_empty`] says yes only when every tier
//! in force says so. Only processes that were recognised as the scope's through an open pidfd are signalled.
//! **Cannot see:** what each tier misses (see [`Tier`]); work that another daemon does on the command's behalf.
//!
//! A scope waits for *any* child of its process where the subreaper tier is in force, so it belongs in a program of its
//! own, the gate, and not in a process that has other children.

mod births;
mod census;
mod ending;
mod excepted;

use std::collections::BTreeSet;
use std::ffi::{CString, OsString};
use std::time::{Duration, Instant};

use headcount_sys::cgroup::{self, Cgroup, Watch};
use headcount_sys::namespace::Namespace;
use headcount_sys::poll::Interest;
use headcount_sys::state::{self, Record, RunFolder, RunId, StateDir};
use headcount_sys::wait::{self, Change, Found, Which};
use headcount_sys::witness::Guardian;
use headcount_sys::{Pid, PidFd, ProcessId, prctl, proc, signal, spawn};

pub use ending::{Children, Conclusion, EndedBy, Events, Left};

use births::Births;
use excepted::Excepted;

use crate::evidence::Marks;
use crate::exception::Exception;
use crate::tier::{MissingTier, Tier};
use crate::{Error, Result};

/// How a scope is to be opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The tiers to use, as far as the machine has them.
    pub tiers: BTreeSet<Tier>,
    /// Where the state folder is.
    pub environment: state::Environment,
    /// The tokens of the scopes around this one (`$HEADCOUNT_TOKEN`).
    pub outer_token: Option<OsString>,
    /// The program that will run in it, for the record.
    pub program: String,
    /// What is meant to outlive the command.
    pub exceptions: Vec<Exception>,
}

/// The cgroup that confines a scope.
#[derive(Debug)]
struct Confinement {
    cgroup: Cgroup,
    /// The gate's own, in which it was made.
    above: Cgroup,
    watch: Watch,
    /// Ends what is inside if this process is killed; `None` where there can be none.
    guardian: Option<Guardian>,
    /// Its path on the hierarchy, as `/proc/PID/cgroup` has it.
    hierarchy: Vec<u8>,
}

impl Confinement {
    /// Removes the cgroup, and lets the guardian go once there is nothing to guard.
    fn remove(self) -> headcount_sys::Result<()> {
        self.cgroup.remove()?;
        self.guardian.map_or(Ok(()), Guardian::dismiss)
    }
}

/// A box in which a command runs.
#[derive(Debug)]
pub struct Scope {
    run: RunId,
    folder: Option<RunFolder>,
    token: OsString,
    tiers: BTreeSet<Tier>,
    missing: Vec<MissingTier>,
    confinement: Option<Confinement>,
    namespace: Option<Namespace>,
    /// Children of this process that are not the command's.
    bystanders: BTreeSet<Pid>,
    command: Option<PidFd>,
    /// Why not everything could be looked at.
    blind: Vec<String>,
    adopted_zombies: u64,
    /// When the scope was opened, in clock ticks since boot.
    began_ticks: u64,
    /// Whether something could not be ended.
    has_survivors: bool,
    /// Processes whose end is waited for: no child of this process, and in no cgroup of the scope's.
    held: Vec<PidFd>,
    /// Whether something lived in the scope's cgroup at the last look.
    is_confined_and_populated: bool,
    /// The record of births.
    births: Option<Births>,
    /// What may outlive the command, and what was found of it and let go.
    exceptions: Vec<Exception>,
    excepted: Vec<Excepted>,
}

/// How long the scan for the token is repeated while processes come and go under it.
const SCAN_WAIT: Duration = Duration::from_millis(500);

/// The most pidfds that are held to wait for: when these have ended, the rest are looked at again.
const HELD_LIMIT: usize = 4;

impl Scope {
    /// Opens a scope with those of the wanted tiers that the machine has; the others are listed with the reason.
    ///
    /// # Errors
    /// Without a `/proc` of this pid namespace, or a state folder that can be trusted.
    pub fn open(options: &Options) -> Result<Self> {
        proc::check_is_own()?;
        let run = RunId::random()?;
        let name = format!("headcount-{run}");
        let above = if options.tiers.contains(&Tier::Cgroup) { Some(cgroup::own()) } else { None };
        let mut record = Record {
            schema: state::SCHEMA.to_owned(),
            run_id: run.clone(),
            host: ProcessId::this()?,
            // Recorded before it is made, so that no crash leaves one that no record knows.
            cgroup: above
                .as_ref()
                .and_then(|found| found.as_ref().ok())
                .map(|above| above.path().join(&name)),
            program: options.program.clone(),
            tiers: Vec::new(),
            init: None,
        };
        let folder = StateDir::open(&options.environment)?.create_run(&record)?;
        let mut scope = Self {
            token: run.token(options.outer_token.clone()),
            run,
            folder: Some(folder),
            tiers: BTreeSet::new(),
            missing: Vec::new(),
            confinement: None,
            namespace: None,
            bystanders: BTreeSet::new(),
            command: None,
            blind: Vec::new(),
            adopted_zombies: 0,
            began_ticks: proc::ticks_now()?.0,
            has_survivors: false,
            held: Vec::new(),
            is_confined_and_populated: false,
            births: None,
            exceptions: options.exceptions.clone(),
            excepted: Vec::new(),
        };
        // First, while this process is where the kernel gives them out: a user namespace of its own is no such place.
        let mut births = options.tiers.contains(&Tier::Events).then(Births::open);
        for tier in Tier::ALL {
            let opened = if !options.tiers.contains(&tier) {
                if tier.is_opt_in() {
                    continue;
                }
                Err("not asked for (--tier)".to_owned())
            } else {
                match tier {
                    Tier::Namespace => scope.enclose(),
                    Tier::Cgroup => scope.confine(&above, &name),
                    Tier::Subreaper => become_subreaper(&scope.bystanders),
                    Tier::Token => Ok(()),
                    Tier::Events => scope.record_births(births.take()),
                }
            };
            match opened {
                Ok(()) => {
                    scope.tiers.insert(tier);
                }
                Err(reason) => scope.missing.push(MissingTier { tier, reason }),
            }
        }
        // For whoever comes after a crash: which of them can find what is left.
        record.tiers = scope.tiers.iter().map(|tier| tier.name().to_owned()).collect();
        record.init = scope.namespace.as_ref().map(Namespace::init_id).transpose()?;
        if let Some(folder) = &scope.folder {
            folder.write(&record)?;
        }
        let own: Vec<Pid> = scope.bystanders.iter().copied().collect();
        own.into_iter().for_each(|pid| scope.pass_over(pid));
        Ok(scope)
    }

    fn confine(
        &mut self,
        above: &Option<headcount_sys::Result<Cgroup>>,
        name: &str,
    ) -> std::result::Result<(), String> {
        let above = match above {
            Some(Ok(above)) => above,
            Some(Err(error)) => return Err(error.chain()),
            None => return Err("not looked for".to_owned()),
        };
        let mut hierarchy = proc::own_cgroup().map_err(|e| e.chain())?;
        if hierarchy != b"/" {
            hierarchy.push(b'/');
        }
        hierarchy.extend_from_slice(name.as_bytes());
        let cgroup = above.create(name).map_err(|e| e.chain())?;
        let opened = cgroup.watch().and_then(|watch| Ok((watch, Guardian::start(cgroup.kill_switch()?)?)));
        match opened {
            Ok((watch, guardian)) => {
                self.bystanders.extend(guardian.as_ref().map(Guardian::pid));
                let above = above.clone();
                self.confinement = Some(Confinement { cgroup, above, watch, guardian, hierarchy });
            }
            Err(error) => {
                let _ = cgroup.remove();
                return Err(error.chain());
            }
        }
        Ok(())
    }

    fn record_births(&mut self, opened: Option<Result<Births>>) -> std::result::Result<(), String> {
        self.births = opened.transpose().map_err(|e| e.chain())?;
        Ok(())
    }

    fn enclose(&mut self) -> std::result::Result<(), String> {
        check_childless(&self.bystanders)?;
        let namespace = Namespace::open().map_err(|e| e.chain())?;
        self.bystanders.insert(namespace.init());
        self.namespace = Some(namespace);
        Ok(())
    }

    /// How many processes the command started; `None` where that is not known exactly.
    #[must_use]
    pub fn forks(&self) -> Option<u64> {
        self.births.as_ref().and_then(|births| births.lineage.forks())
    }

    /// Reads the births that were recorded since the last call. To be called whenever [`interests`](Self::interests) are ready.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn note_births(&mut self) -> Result<()> {
        self.births.as_mut().map_or(Ok(()), Births::note)
    }

    /// The run's identity.
    #[must_use]
    pub fn run(&self) -> &RunId {
        &self.run
    }

    /// The tiers in force.
    #[must_use]
    pub fn tiers(&self) -> &BTreeSet<Tier> {
        &self.tiers
    }

    /// The tiers that are not, and why.
    #[must_use]
    pub fn missing(&self) -> &[MissingTier] {
        &self.missing
    }

    /// How many orphaned zombies came to this process and were waited for: a statistic, no leak.
    #[must_use]
    pub fn adopted_zombies(&self) -> u64 {
        self.adopted_zombies
    }

    /// The command's process, once started.
    #[must_use]
    pub fn command(&self) -> Option<&PidFd> {
        self.command.as_ref()
    }

    /// Starts the command in the scope. `false` if a tier turned out not to be in force after all (it is in
    /// [`missing`](Self::missing) now): nothing was started, and the caller may try again without it.
    ///
    /// # Errors
    /// A command that does not exist or cannot be executed; no resources.
    pub fn start(&mut self, command: &[OsString], signals: &signal::Inherited) -> Result<bool> {
        let variable = if self.tiers.contains(&Tier::Token) {
            // Neither holds a NUL byte: one is a constant, the other was a variable's value and hexadecimal digits.
            let value = CString::new(self.token.as_encoded_bytes()).unwrap_or_default();
            Some((CString::new(state::TOKEN_VARIABLE).unwrap_or_default(), value))
        } else {
            None
        };
        let variable = variable.as_ref().map(|(name, value)| (name.as_c_str(), value.as_c_str()));
        let door = match &self.confinement {
            Some(confinement) => match confinement.cgroup.door() {
                Ok(door) => Some(door),
                Err(error) => {
                    self.lose_cgroup(error.chain());
                    return Ok(false);
                }
            },
            None => None,
        };
        let door = door.as_ref().map(std::os::fd::AsFd::as_fd);
        let namespace = self.namespace.as_ref().map(Namespace::door);
        match spawn::start(&spawn::Contained { command, variable, door, namespace, signals }) {
            Ok(pidfd) => {
                self.command = Some(pidfd);
                Ok(true)
            }
            Err(spawn::Failure::Confinement(error)) => {
                self.lose_cgroup(error.chain());
                Ok(false)
            }
            Err(spawn::Failure::NotFound(error)) => Err(Error::not_found(error)),
            Err(spawn::Failure::NotExecutable(error)) => Err(Error::not_executable(error)),
            Err(spawn::Failure::System(error)) => Err(error.into()),
        }
    }

    fn lose_cgroup(&mut self, reason: String) {
        if let Some(confinement) = self.confinement.take() {
            let guardian = confinement.guardian.as_ref().map(Guardian::pid);
            let _ = confinement.remove();
            // Its number may be another's from now on.
            self.bystanders.retain(|pid| Some(*pid) != guardian);
        }
        self.tiers.remove(&Tier::Cgroup);
        self.missing.push(MissingTier { tier: Tier::Cgroup, reason });
        self.missing.sort_by_key(|missing| missing.tier);
    }

    /// Names a child of this process that is not the command's, and not to be counted.
    pub fn pass_over(&mut self, pid: Pid) {
        self.bystanders.insert(pid);
        if let Some(births) = &mut self.births {
            births.disown(pid);
        }
    }

    /// Takes that back: the child is gone, and its number may be another's from now on.
    pub fn no_longer_pass_over(&mut self, pid: Pid) {
        self.bystanders.remove(&pid);
    }

    /// Waits, without blocking, for all children that changed: reaps adopted zombies, and returns what became of the command.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn reap(&mut self) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        self.reap_into(&mut changes)?;
        Ok(changes)
    }

    /// Whether every child of this process is the command's, or known. In the namespace tier that matters for what the command makes
    /// its own sibling (`CLONE_PARENT`): all else in the namespace comes to init.
    fn has_only_own_children(&self) -> bool {
        self.tiers.contains(&Tier::Subreaper) || self.tiers.contains(&Tier::Namespace)
    }

    /// Returns whether children are left.
    fn reap_into(&mut self, changes: &mut Vec<Change>) -> Result<bool> {
        let command = self.command.as_ref().map(PidFd::pid);
        let which = match (self.has_only_own_children(), command) {
            (true, _) => Which::Any,
            (false, Some(command)) => Which::One(command),
            (false, None) => return Ok(false),
        };
        loop {
            match wait::take(which, true)? {
                Found::NoChildren => return Ok(false),
                Found::Nothing => return self.has_counted_children(),
                Found::Child(pid, change) if Some(pid) == command => changes.push(change),
                Found::Child(pid, change) if change.is_end() => {
                    if !self.bystanders.remove(&pid) {
                        self.adopted_zombies += 1;
                    }
                }
                // An adopted process stopped or went on.
                Found::Child(..) => {}
            }
        }
    }

    /// Whether nothing that was started lives any more, by every tier in force. To be asked once the command has ended.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn is_empty(&mut self) -> Result<bool> {
        self.forget_ended_exceptions();
        if self.is_populated()? {
            return Ok(false);
        }
        if self.has_only_own_children() && self.reap_into(&mut Vec::new())? {
            return Ok(false);
        }
        self.held.retain(|pidfd| !pidfd.has_exited().unwrap_or(true));
        if self.held.is_empty() {
            self.held = self.adopted_by_init()?;
        }
        // The scan reads every process of the machine, so it comes last, and not again before those that it found ended.
        if self.held.is_empty() && self.tiers.contains(&Tier::Token) {
            self.held = self.scan_until_quiet()?;
        }
        Ok(self.held.is_empty())
    }

    /// What came to the namespace's init, or is left below it. Everything in the namespace does, once the command has ended.
    fn adopted_by_init(&self) -> Result<Vec<PidFd>> {
        let mut found = Vec::new();
        let Some(namespace) = &self.namespace else { return Ok(found) };
        if namespace.has_ended()? {
            return Ok(found);
        }
        // The kernel lists a first child or says that there is none under one lock, so an empty list is the truth.
        for pid in self.children_of_init()? {
            if found.len() == HELD_LIMIT {
                break;
            }
            found.extend(PidFd::open(pid)?);
        }
        Ok(found)
    }

    fn children_of_init(&self) -> Result<Vec<Pid>> {
        let Some(namespace) = &self.namespace else { return Ok(Vec::new()) };
        match proc::children(namespace.init()) {
            Ok(children) => Ok(children),
            Err(error) if error.is_gone() => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// With a stronger tier in force, which has just said that nothing is left, one scan is enough. On its own, the scan is
    /// repeated until nothing died under it: only then has it seen everything.
    fn scan_until_quiet(&mut self) -> Result<Vec<PidFd>> {
        let is_alone = self.tiers.iter().filter(|tier| tier.detects()).count() == 1;
        let deadline = Instant::now() + SCAN_WAIT;
        let mut seen = census::Seen::default();
        loop {
            let mut found = Vec::new();
            let scan = self.scan_for_token(&mut seen, |pidfd| {
                if found.len() < HELD_LIMIT {
                    found.push(pidfd);
                }
                Ok(())
            })?;
            if is_alone && found.is_empty() && scan == census::Scan::Complete {
                self.doubt_unreadable(&seen);
            }
            if !found.is_empty() || scan == census::Scan::Complete || !is_alone {
                return Ok(found);
            }
            if Instant::now() >= deadline {
                let reason = "processes came and went during every scan for the run's token";
                if !self.blind.iter().any(|known| known == reason) {
                    self.blind.push(reason.to_owned());
                }
                return Ok(Vec::new());
            }
        }
    }

    /// Processes of this user that were started during the run and let nobody read their environment (ssh-agent, set-uid
    /// programs) may be the command's: they cannot be called its, and the run not clean.
    fn doubt_unreadable(&mut self, seen: &census::Seen) {
        let own = prctl::real_uid();
        for pid in &seen.unreadable {
            let Ok(stat) = proc::stat(*pid) else { continue };
            let is_own = proc::status(*pid).is_ok_and(|status| status.uid == own);
            if is_own && stat.start_ticks >= self.began_ticks && !stat.state.is_dead() {
                let name = crate::text::reversible(&stat.name);
                let reason = format!(
                    "process {pid} ({name}) was started during the run, and its environment cannot be read: it may be the \
                     command's"
                );
                if !self.blind.contains(&reason) {
                    self.blind.push(reason);
                }
            }
        }
    }

    fn is_populated(&mut self) -> Result<bool> {
        let is_populated = self.read_populated();
        self.is_confined_and_populated = matches!(is_populated, Ok(true));
        is_populated
    }

    fn read_populated(&mut self) -> Result<bool> {
        let Some(confinement) = &mut self.confinement else { return Ok(false) };
        match confinement.watch.read() {
            Ok(events) => Ok(events.populated),
            Err(error) if error.is_gone() => {
                self.blind.push(format!("the scope's cgroup vanished during the run ({})", error.chain()));
                self.lose_cgroup("removed by someone else during the run".to_owned());
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What to wait on while the command runs, besides the caller's signals; then [`note_births`](Self::note_births).
    #[must_use]
    pub fn interests(&self) -> Vec<Interest<'_>> {
        self.births.iter().filter_map(Births::interest).collect()
    }

    /// When to call [`note_births`](Self::note_births) even if nothing is ready.
    #[must_use]
    pub fn next_look(&self) -> Option<Instant> {
        self.births.as_ref().and_then(Births::next_look)
    }

    /// What to wait on for the scope to empty, besides the caller's SIGCHLD.
    fn changes(&self) -> Vec<Interest<'_>> {
        use std::os::fd::AsFd as _;
        let watch = self.confinement.iter().map(|confinement| Interest::changed(confinement.watch.as_fd()));
        let held = self.held.iter().map(|pidfd| Interest::readable(pidfd.as_fd()));
        watch.chain(held).chain(self.interests()).collect()
    }

    fn marks(&self) -> Marks {
        Marks {
            cgroup: self.confinement.as_ref().map(|confinement| confinement.hierarchy.clone()),
            token: self.tiers.contains(&Tier::Token).then(|| self.run.clone()),
        }
    }

    /// Removes what the scope made: its cgroup, with what the command made below it, and its folder. Both stay where
    /// something could not be ended, for whoever cleans up later.
    ///
    /// # Errors
    /// Where something still lives in it.
    pub fn close(mut self) -> Result<()> {
        self.remove()
    }

    fn remove(&mut self) -> Result<()> {
        if self.has_survivors {
            return Ok(());
        }
        if let Some(namespace) = self.namespace.take() {
            namespace.dismiss()?;
        }
        if let Some(confinement) = self.confinement.take() {
            confinement.remove()?;
        }
        if let Some(folder) = self.folder.take() {
            folder.remove()?;
        }
        Ok(())
    }
}

impl Drop for Scope {
    /// For the ways out on which nobody closed it: an error before or after the start of the command.
    fn drop(&mut self) {
        let _ = self.remove();
    }
}

fn become_subreaper(own: &BTreeSet<Pid>) -> std::result::Result<(), String> {
    check_childless(own)?;
    prctl::set_child_subreaper(true).map_err(|e| e.chain())
}

/// Whatever becomes a child of this process from now on is the command's.
fn check_childless(own: &BTreeSet<Pid>) -> std::result::Result<(), String> {
    match proc::children(Pid::this()) {
        // A shell that executed this program in its own place left it its children. Their orphans come back here as well,
        // and could not be told from the command's.
        Ok(children) => {
            let others = children.iter().filter(|child| !own.contains(child)).count();
            if others > 0 {
                return Err(format!(
                    "this process had {others} children of its own when it began (was it started by `exec` from a \
                     shell with background jobs?)"
                ));
            }
        }
        Err(error) if error.is_gone() => {
            return Err("the kernel does not list a process's children (CONFIG_PROC_CHILDREN)".to_owned());
        }
        Err(error) => return Err(error.chain()),
    }
    Ok(())
}
