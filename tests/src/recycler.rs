//! Gives process numbers to innocent processes while headcount is cleaning up (row N7).
//!
//! To be run as init of a private pid namespace, where numbers can be chosen and nobody else is harmed. Three scenes; each prints one
//! line of JSON: how many numbers were recycled, how many of the innocents got a signal or are gone, and how many looked the same
//! as their predecessors to somebody who goes by number and start time.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use headcount_sys::poll::{self, Interest, Timeout};
use headcount_sys::reuse::Bystander;
use headcount_sys::state::{Environment, Record, RunId, SCHEMA, StateDir, TOKEN_VARIABLE};
use headcount_sys::wait::{self, Found, Which};
use headcount_sys::{Pid, PidFd, ProcessId, proc};

/// How long a scene may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A leaking command: as many daemons as `$1` says, which end on SIGTERM, and one that does not; their numbers go to the file `$2`.
const DAEMONS: &str = "i=0; while [ $i -lt $1 ]; do sleep 100 & echo $!; i=$((i+1)); done >\"$2\"; \
                       (trap '' TERM; exec sleep 100) &";

/// What came of a scene.
#[derive(Debug, Default)]
struct Scene {
    bystanders: Vec<Bystander>,
    /// The start times of those that had the numbers before.
    before: BTreeMap<Pid, u64>,
    status: Option<i32>,
}

/// Plays a scene: `gate`, `hosts` or `left`, with the program under test, a number of processes, and a folder for what the
/// program writes. Returns the line of JSON.
///
/// # Errors
/// What went wrong with the scene itself.
pub fn play(arguments: &[OsString]) -> Result<String, String> {
    let [scene, program, count, folder] = arguments else {
        return Err("usage: recycler gate|hosts|left PROGRAM COUNT FOLDER".to_owned());
    };
    let count: usize = count.to_str().and_then(|text| text.parse().ok()).ok_or("COUNT is no number")?;
    let stage = Stage { program: PathBuf::from(program), folder: PathBuf::from(folder), count };
    let mut scene = match scene.to_str() {
        Some("gate") => stage.gate()?,
        Some("hosts") => stage.hosts()?,
        Some("left") => stage.left()?,
        _ => return Err("unknown scene".to_owned()),
    };
    let mut harmed = 0;
    for bystander in &mut scene.bystanders {
        harmed += usize::from(bystander.signals() != Some(0));
    }
    let alike = scene.bystanders.iter().filter(|one| {
        let now = proc::stat(one.pid()).map(|stat| stat.start_ticks).ok();
        now.is_some() && scene.before.get(&one.pid()).copied() == now
    });
    let line = serde_json::json!({
        "recycled": scene.bystanders.len(), "harmed": harmed, "alike": alike.count(), "status": scene.status,
    });
    Ok(line.to_string())
}

struct Stage {
    program: PathBuf,
    folder: PathBuf,
    count: usize,
}

impl Stage {
    /// The numbers of leaked processes come back while the gate waits for the one that ignores SIGTERM.
    fn gate(&self) -> Result<Scene, String> {
        let pids = self.folder.join("pids");
        let report = format!("--report=json={}", self.folder.join("report.json").display());
        let tiers = std::env::var("TIERS").unwrap_or_else(|_| "subreaper,token".to_owned());
        let mut gate = self
            .command(&["run", &report, "--tier", &tiers, "--grace", "2s", "--", "sh", "-c", DAEMONS, "sh"]);
        gate.arg(self.count.to_string()).arg(&pids);
        let child = start(gate)?;
        let numbers = self.numbers_in(&pids)?;
        self.recycle(child, &numbers)
    }

    /// The numbers of dead hosts come back before anybody looks.
    fn hosts(&self) -> Result<Scene, String> {
        let state = StateDir::open(&Environment::this()).map_err(|e| e.chain())?;
        let mut scene = Scene::default();
        for _ in 0..self.count {
            let mut sleep = bare("sleep");
            sleep.arg("100");
            let mut host = start(sleep)?;
            let pidfd = open(&host)?;
            let id = ProcessId::of(&pidfd).map_err(|e| e.chain())?;
            state.create_run(&record(id.clone())).map_err(|e| e.chain())?;
            host.kill().and_then(|()| host.wait()).map_err(|e| e.to_string())?;
            scene.before.insert(id.pid, id.start_ticks);
            let bystander = Bystander::start(id.pid).map_err(|e| e.chain())?;
            scene.bystanders.push(bystander.ok_or("a number was taken that had just been freed")?);
        }
        for (action, expected) in [("audit", self.count), ("reap", 0)] {
            let report = self.folder.join(format!("{action}.json"));
            let mut command = self.command(&[action, &format!("--report=json={}", report.display())]);
            command.stdin(Stdio::null());
            let status = start(command)?.wait().map_err(|e| e.to_string())?;
            scene.status = status.code();
            let left = state.runs().map_err(|e| e.chain())?.len();
            if action == "reap" && left != expected {
                return Err(format!("{left} records are left, and not {expected}"));
            }
        }
        Ok(scene)
    }

    /// The numbers of what a dead run left come back while it is being reaped.
    fn left(&self) -> Result<Scene, String> {
        let state = StateDir::open(&Environment::this()).map_err(|e| e.chain())?;
        let mut sleep = bare("sleep");
        sleep.arg("100");
        let mut host = start(sleep)?;
        let record = record(ProcessId::of(&open(&host)?).map_err(|e| e.chain())?);
        state.create_run(&record).map_err(|e| e.chain())?;
        host.kill().and_then(|()| host.wait()).map_err(|e| e.to_string())?;
        let pids = self.folder.join("pids");
        let mut shell = bare("sh");
        shell.args(["-c", DAEMONS, "sh", &self.count.to_string()]).arg(&pids);
        shell.env(TOKEN_VARIABLE, record.run_id.as_str());
        start(shell)?.wait().map_err(|e| e.to_string())?;
        let numbers = self.numbers_in(&pids)?;
        let child =
            start(self.command(&[
                "reap",
                &format!("--report=json={}", self.folder.join("report.json").display()),
            ]))?;
        self.recycle(child, &numbers)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare(&self.program);
        command.args(arguments);
        command
    }

    /// The numbers in a file, once it has all of them.
    fn numbers_in(&self, path: &Path) -> Result<Vec<Pid>, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = fs::read_to_string(path).unwrap_or_default();
            let numbers: Vec<Pid> =
                text.lines().filter_map(|line| line.parse().ok()).filter_map(Pid::new).collect();
            if numbers.len() == self.count && text.ends_with('\n') {
                return Ok(numbers);
            }
            if Instant::now() >= deadline {
                return Err(format!("{} of {} processes were started", numbers.len(), self.count));
            }
            let moment = deadline.min(Instant::now() + Duration::from_millis(5));
            poll::wait(&[], Timeout::At(moment)).map_err(|e| e.chain())?;
        }
    }

    /// Gives each number to an innocent as soon as it is free, until the program has ended.
    fn recycle(&self, mut child: Child, numbers: &[Pid]) -> Result<Scene, String> {
        let mut scene = Scene::default();
        let program = open(&child)?;
        let mut victims = Vec::new();
        for number in numbers {
            let pidfd =
                PidFd::open(*number).map_err(|e| e.chain())?.ok_or("a process ended before its time")?;
            scene.before.insert(*number, proc::stat(*number).map_err(|e| e.chain())?.start_ticks);
            victims.push(pidfd);
        }
        let deadline = Instant::now() + PATIENCE;
        while !program.has_exited().map_err(|e| e.chain())? && Instant::now() < deadline {
            let mut left = Vec::new();
            for victim in victims {
                if victim.has_exited().map_err(|e| e.chain())?
                    && let Some(bystander) = Bystander::start(victim.pid()).map_err(|e| e.chain())?
                {
                    scene.bystanders.push(bystander);
                } else {
                    left.push(victim);
                }
            }
            victims = left;
            // Orphans come to this process, which is init here: their numbers are free once it has waited for them.
            self.reap(&scene, &program)?;
            match victims.first() {
                Some(first) if !first.has_exited().map_err(|e| e.chain())? => {
                    poll::wait(
                        &[Interest::readable(first.as_fd()), Interest::readable(program.as_fd())],
                        Timeout::At(deadline),
                    )
                    .map_err(|e| e.chain())?;
                }
                Some(_) => {}
                None => {
                    poll::wait(&[Interest::readable(program.as_fd())], Timeout::At(deadline))
                        .map_err(|e| e.chain())?;
                }
            }
        }
        scene.status = child.wait().map_err(|e| e.to_string())?.code();
        Ok(scene)
    }

    /// Waits for orphans that ended, and for none of those whose end somebody here still asks for.
    fn reap(&self, scene: &Scene, program: &PidFd) -> Result<(), String> {
        for child in proc::children(Pid::this()).map_err(|e| e.chain())? {
            let is_ours = child == program.pid() || scene.bystanders.iter().any(|one| one.pid() == child);
            if !is_ours
                && let Found::NoChildren = wait::take(Which::One(child), false).map_err(|e| e.chain())?
            {
                return Err("a child vanished".to_owned());
            }
        }
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "everything that is started here ends with the namespace")]
fn bare(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn start(mut command: Command) -> Result<Child, String> {
    command.spawn().map_err(|e| format!("{command:?} does not start: {e}"))
}

fn open(child: &Child) -> Result<PidFd, String> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::new).ok_or("no pid")?;
    PidFd::open(pid).map_err(|e| e.chain())?.ok_or_else(|| "it ended at once".to_owned())
}

fn record(host: ProcessId) -> Record {
    Record {
        schema: SCHEMA.to_owned(),
        run_id: RunId::random().unwrap_or_else(|_| unreachable!("the system has randomness")),
        host,
        cgroup: None,
        program: "recycled".to_owned(),
        tiers: vec!["token".to_owned()],
        init: None,
    }
}

/// The program: prints what [`play`] says.
pub fn main() -> std::process::ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let (line, code) = match play(&arguments) {
        Ok(line) => (line, std::process::ExitCode::SUCCESS),
        Err(message) => (message, std::process::ExitCode::FAILURE),
    };
    drop(writeln!(std::io::stdout(), "{line}"));
    code
}
