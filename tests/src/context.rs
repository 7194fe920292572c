//! Folders, users and bounded commands for one test.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use headcount_sys::poll::{self, Interest, Timeout};
use headcount_sys::{Pid, PidFd};
use tempfile::TempDir;

/// Nothing that a test starts may take longer; this is for a machine in trouble, not a measure. What has to be ended from outside
/// to pass a test must live longer than this by itself.
const PATIENCE: Duration = Duration::from_secs(120);

/// The user `nobody`.
const NOBODY: u32 = 65534;

/// As whom a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// uid 0, with all capabilities.
    Root,
    /// uid 65534, without any.
    Nobody,
}

/// What a test cannot do without.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// To be started as root.
    Root,
    /// This program.
    Program(&'static str),
    /// A cgroup v2 in which root can create others.
    Cgroup,
    /// A cgroup v1 freezer, whose frozen processes no signal ends.
    FreezerV1,
    /// Proc events for the user who runs the tests.
    Events,
}

/// How a command ended, and what it wrote.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

/// One test's own folder, with the program under test, the corpus and the oracle in it, where every user can reach them.
#[derive(Debug)]
pub struct TestContext {
    folder: TempDir,
}

impl TestContext {
    /// A new folder, with a copy of the program under test.
    ///
    /// # Panics
    /// Where the file system refuses.
    #[must_use]
    pub fn new(program: &str) -> Self {
        let folder =
            tempfile::Builder::new().prefix("headcount-test-").tempdir().expect("a temporary folder");
        open_to_all(folder.path());
        let context = Self { folder };
        fs::copy(program, context.program()).expect("a copy of the program");
        let source = Path::new(env!("CARGO_MANIFEST_DIR"));
        for part in ["corpus", "oracle", "fixtures"] {
            let target = context.path(part);
            fs::create_dir(&target).expect("a folder");
            open_to_all(&target);
            for entry in fs::read_dir(source.join(part)).expect("the sources").flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                    fs::copy(entry.path(), target.join(entry.file_name())).expect("a copy");
                }
            }
        }
        for who in [Who::Root, Who::Nobody] {
            let state = context.state(who);
            fs::create_dir(&state).expect("a state folder");
            fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).expect("its mode");
            context.give(&state, who);
        }
        context
    }

    /// Whether the test can run; says what is missing if not.
    ///
    /// # Panics
    /// If it cannot, and `HEADCOUNT_TESTS_MUST_RUN` is set.
    #[must_use]
    pub fn needs(needs: &[Need]) -> bool {
        let missing: Vec<String> = needs.iter().filter_map(|need| need.missing()).collect();
        if missing.is_empty() {
            return true;
        }
        let message = format!("skipped: needs {}", missing.join(" and "));
        assert!(std::env::var_os("HEADCOUNT_TESTS_MUST_RUN").is_none(), "{message}");
        drop(writeln!(std::io::stderr(), "{message}"));
        false
    }

    /// The users as whom tests run: both as root, otherwise only the one who is there.
    #[must_use]
    pub fn users() -> &'static [Who] {
        if is_root() { &[Who::Root, Who::Nobody] } else { &[Who::Nobody] }
    }

    /// A path in the folder.
    #[must_use]
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path in the folder, as text.
    ///
    /// # Panics
    /// Never: temporary folders have plain names.
    #[must_use]
    pub fn text(&self, name: impl AsRef<Path>) -> String {
        self.path(name).to_str().expect("a plain path").to_owned()
    }

    /// The program under test.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.path("headcount")
    }

    /// The state folder of a user.
    #[must_use]
    pub fn state(&self, who: Who) -> PathBuf {
        self.path(format!("state-{who:?}"))
    }

    /// Makes a user the owner of a file, where the test may do that.
    ///
    /// # Panics
    /// Where the file system refuses.
    pub fn give(&self, path: &Path, who: Who) {
        if is_root() && who == Who::Nobody {
            chown(path, Some(NOBODY), Some(NOBODY)).expect("another owner");
        }
    }

    /// A new folder that a user can write to.
    ///
    /// # Panics
    /// Where the file system refuses.
    #[must_use]
    pub fn folder_of(&self, who: Who, name: &str) -> PathBuf {
        let path = self.path(name);
        if !path.exists() {
            fs::create_dir(&path).expect("a folder");
            self.give(&path, who);
        }
        path
    }

    /// A command as a user, with an environment that does not depend on who runs the tests, and stdin empty.
    ///
    /// # Panics
    /// If the test is to be root and is not; call [`needs`](Self::needs) first.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the context's commands are bounded and waited for in finish()"
    )]
    pub fn command(&self, who: Who, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LANG", "C.UTF-8")
            .env("HEADCOUNT_STATE_DIR", self.state(who))
            .current_dir("/")
            .stdin(Stdio::null());
        match who {
            Who::Root => assert!(is_root(), "this test has to be root"),
            // Leaving uid 0 drops every capability, and the standard library drops the groups.
            Who::Nobody if is_root() => drop(command.uid(NOBODY).gid(NOBODY)),
            Who::Nobody => {}
        }
        command
    }

    /// The words that make a command line, run as root, that of a user.
    #[must_use]
    pub fn as_user(who: Who) -> Vec<String> {
        let words: &[&str] = match who {
            Who::Nobody if is_root() => &[
                "setpriv",
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--inh-caps=-all",
                "--bounding-set=-all",
            ],
            _ => &[],
        };
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// `headcount` with these arguments, as a user.
    #[must_use]
    pub fn gate<S: AsRef<OsStr>>(&self, who: Who, arguments: &[S]) -> Command {
        let mut command = self.command(who, self.program());
        command.args(arguments);
        command
    }

    /// Starts a command whose output goes to files: what it leaves behind may hold a pipe for ever.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(&self, mut command: Command) -> Started {
        let output =
            tempfile::Builder::new().prefix("out-").tempdir_in(self.folder.path()).expect("a folder");
        let create = |name| File::create(output.path().join(name)).expect("an output file");
        command.stdout(create("stdout")).stderr(create("stderr"));
        let child = command.spawn().expect("the command starts");
        let pid = Pid::new(i32::try_from(child.id()).expect("a pid")).expect("a pid");
        let pidfd = PidFd::open(pid).expect("a pidfd").expect("a child that was not waited for");
        Started { child, pidfd, output }
    }

    /// Runs a command to its end.
    ///
    /// # Panics
    /// If it cannot be started, or does not end.
    #[must_use]
    pub fn finish(&self, command: Command) -> Finished {
        self.start(command).finish()
    }

    /// Runs `headcount run` and returns its JSON report too.
    ///
    /// # Panics
    /// As [`finish`](Self::finish); if the report is no JSON.
    #[must_use]
    pub fn report(&self, who: Who, options: &[&str], command: &[&str]) -> (Finished, serde_json::Value) {
        let folder =
            tempfile::Builder::new().prefix("report-").tempdir_in(self.folder.path()).expect("a folder");
        open_to_all(folder.path());
        self.give(folder.path(), who);
        let file = folder.path().join("report.json");
        let mut line = vec!["run".to_owned(), format!("--report=json={}", file.display())];
        line.extend(options.iter().map(|word| (*word).to_owned()));
        line.push("--".to_owned());
        line.extend(command.iter().map(|word| (*word).to_owned()));
        let finished = self.finish(self.gate(who, &line));
        let text = fs::read_to_string(&file).unwrap_or_default();
        let report = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("no report ({error}): {text:?}\n{finished:?}"));
        (finished, report)
    }
}

/// A command that runs.
#[derive(Debug)]
pub struct Started {
    child: Child,
    pidfd: PidFd,
    output: TempDir,
}

impl Started {
    /// Its process.
    #[must_use]
    pub fn process(&self) -> &PidFd {
        &self.pidfd
    }

    /// Its stdin, if that was piped; dropping it closes it.
    #[must_use]
    pub fn stdin(&mut self) -> Option<std::process::ChildStdin> {
        self.child.stdin.take()
    }

    /// What it has written to stdout.
    ///
    /// # Panics
    /// Where the file cannot be read.
    #[must_use]
    pub fn stdout(&self) -> String {
        read(&self.output.path().join("stdout"))
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end; it is killed then.
    #[must_use]
    pub fn finish(mut self) -> Finished {
        if !ends(&self.pidfd) {
            drop(self.child.kill());
            drop(self.child.wait());
            panic!("it did not end; stderr: {}", read(&self.output.path().join("stderr")));
        }
        let status = self.child.wait().expect("a status");
        Finished {
            code: status.code(),
            signal: status.signal(),
            stdout: self.stdout(),
            stderr: read(&self.output.path().join("stderr")),
        }
    }
}

/// Says a figure that a test saw, whether the test passes or not.
pub fn say(figure: &str) {
    drop(writeln!(std::io::stderr(), "{figure}"));
}

/// Blocks until a process has ended; `false` if that takes longer than anything here may.
///
/// # Panics
/// Where the kernel refuses.
#[must_use]
pub fn ends(process: &PidFd) -> bool {
    use std::os::fd::AsFd as _;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if process.has_exited().expect("a pidfd can be polled") {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        poll::wait(&[Interest::readable(process.as_fd())], Timeout::At(deadline))
            .expect("a pidfd can be polled");
    }
}

impl Need {
    fn missing(self) -> Option<String> {
        match self {
            Self::Root => (!is_root()).then(|| "to be started as root".to_owned()),
            Self::Program(name) => {
                let found = std::env::var_os("PATH").is_some_and(|path| {
                    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
                });
                (!found).then(|| format!("the program {name}"))
            }
            Self::FreezerV1 => (!Path::new("/sys/fs/cgroup/freezer/tasks").exists())
                .then(|| "a cgroup v1 freezer at /sys/fs/cgroup/freezer".to_owned()),
            Self::Events => headcount_sys::events::ProcEvents::open()
                .err()
                .map(|error| format!("proc events ({})", error.chain())),
            Self::Cgroup => {
                let own = match headcount_sys::cgroup::own() {
                    Ok(own) => own,
                    Err(error) => return Some(format!("a cgroup v2 ({})", error.chain())),
                };
                match own.create(&format!("headcount-probe-{}", std::process::id())) {
                    // Tests in parallel probe the same name.
                    Ok(probe) => drop(probe.remove()),
                    Err(error) if error.errno() == Some(17) => {}
                    Err(error) => return Some(format!("the right to create cgroups ({})", error.chain())),
                }
                None
            }
        }
    }
}

fn is_root() -> bool {
    // The owner of a process's folder in /proc is its effective user.
    std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").expect("/proc")) == 0
}

fn open_to_all(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode");
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).expect("the output")).into_owned()
}
