//! The folder in which a run says that it exists, so that whoever comes after a crash knows what to look for.
//!
//! `$HEADCOUNT_STATE_DIR`, else `$XDG_RUNTIME_DIR/headcount`, else `/dev/shm/headcount-UID`, else one in the temporary folder;
//! below it `runs/ID/run.json`, one [`Record`] per run. One contract for the gate and the pool.
//!
//! **Guarantees:** the folder belongs to this user, is closed to others (mode 0700), and no component that another user
//! can exchange leads to it. Records live no longer than the machine's boot, so nothing is synced to disk.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, Pid, ProcessId, Result};

/// The schema of [`Record`].
pub const SCHEMA: &str = "headcount.run/1";

/// The variable that every process of a run inherits: the ids of the runs that it belongs to, outermost first, separated by
/// commas.
pub const TOKEN_VARIABLE: &str = "HEADCOUNT_TOKEN";

/// A run's identity: 128 random bits, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(String);

impl RunId {
    /// A new one.
    ///
    /// # Errors
    /// Where the system has no randomness to give.
    pub fn random() -> Result<Self> {
        let mut bytes = [0u8; 16];
        getrandom::fill(&mut bytes)
            .map_err(|e| Error::io("failed to draw a run id", std::io::Error::from(e)))?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The run that a text names; `None` if that is no run's identity.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        if text.len() != 32 || !text.iter().all(is_digit) {
            return None;
        }
        std::str::from_utf8(text).ok().map(|text| Self(text.to_owned()))
    }

    /// The run that a process belongs to by its token: the innermost one, which is named last.
    #[must_use]
    pub fn innermost(value: &[u8]) -> Option<Self> {
        value.rsplit(|byte| *byte == b',').next().and_then(Self::parse)
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the variable is to hold in this run's command: the runs around this one, and this one.
    #[must_use]
    pub fn token(&self, around: Option<OsString>) -> OsString {
        match around {
            Some(mut outer) if !outer.is_empty() => {
                outer.push(",");
                outer.push(&self.0);
                outer
            }
            _ => OsString::from(&self.0),
        }
    }

    /// Whether a variable's value names this run.
    #[must_use]
    pub fn is_in(&self, value: &[u8]) -> bool {
        value.split(|byte| *byte == b',').any(|id| id == self.0.as_bytes())
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a run says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: String,
    /// The run.
    pub run_id: RunId,
    /// The process whose end ends the run.
    pub host: ProcessId,
    /// The cgroup that holds the run's processes.
    pub cgroup: Option<PathBuf>,
    /// The command's program. Not its arguments: they may hold secrets.
    pub program: String,
    /// How the run's processes can be found.
    #[serde(default)]
    pub tiers: Vec<String>,
    /// The init of the run's pid namespace, whose end is everybody's in it.
    #[serde(default)]
    pub init: Option<ProcessId>,
}

/// The most bytes of a record that are read.
const RECORD_LIMIT: u64 = 1 << 20;

impl Record {
    /// Reads a record's content.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(content: &[u8]) -> std::result::Result<Self, String> {
        let record: Self = serde_json::from_slice(content).map_err(|error| error.to_string())?;
        if record.schema != SCHEMA {
            return Err(format!("its schema is {:?}, and not {SCHEMA}", record.schema));
        }
        if RunId::parse(record.run_id.as_str().as_bytes()).is_none() {
            return Err("its run_id is none".to_owned());
        }
        Ok(record)
    }
}

/// Something in the folder of runs.
#[derive(Debug)]
pub struct Entry {
    /// The folder.
    pub folder: RunFolder,
    /// What it says.
    pub content: Content,
}

/// What a folder of a run says.
#[derive(Debug)]
pub enum Content {
    /// A run.
    Run(Record),
    /// A run that its host was about to record, with that host: nothing had been started yet.
    Draft(ProcessId),
    /// A run that was over: whoever removed its folder was stopped halfway.
    Over,
    /// Nothing that can be understood, and why.
    Damaged(String),
}

/// What of the environment decides where the folder is.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `$HEADCOUNT_STATE_DIR`
    pub state_dir: Option<OsString>,
    /// `$XDG_RUNTIME_DIR`
    pub runtime_dir: Option<OsString>,
    /// `$TMPDIR`, by [`std::env::temp_dir`]
    pub temp_dir: PathBuf,
}

impl Environment {
    /// This process's.
    #[must_use]
    pub fn this() -> Self {
        let given = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            state_dir: given("HEADCOUNT_STATE_DIR"),
            runtime_dir: given("XDG_RUNTIME_DIR"),
            temp_dir: std::env::temp_dir(),
        }
    }

    /// The folder, whether it exists or not.
    fn folder(&self, uid: u32) -> PathBuf {
        if let Some(given) = &self.state_dir {
            return PathBuf::from(given);
        }
        // A runtime folder left over from another user (by `su`, say) is not ours to write to.
        if let Some(runtime) = &self.runtime_dir
            && Path::new(runtime).is_absolute()
            && fs::metadata(runtime).is_ok_and(|meta| meta.is_dir() && meta.uid() == uid)
        {
            return Path::new(runtime).join("headcount");
        }
        let name = format!("headcount-{uid}");
        let shared_memory = Path::new("/dev/shm");
        if is_sticky(shared_memory) { shared_memory.join(name) } else { self.temp_dir.join(name) }
    }
}

/// Open to all, and nobody can remove what is another's.
fn is_sticky(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_dir() && meta.mode() & 0o1002 == 0o1002)
}

/// The state folder, checked.
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// Finds the folder, makes it if need be, and checks that it is this user's alone.
    ///
    /// # Errors
    /// A folder that another user owns, can write to or can exchange; a file system that is full or read-only.
    pub fn open(environment: &Environment) -> Result<Self> {
        let uid = nix::unistd::geteuid().as_raw();
        let path = environment.folder(uid);
        if !path.is_absolute() {
            return Err(refused(&path, "it is not an absolute path"));
        }
        check_ancestors(&path, uid)?;
        make(&path)?;
        let meta = fs::symlink_metadata(&path)
            .map_err(|e| Error::io(format!("failed to inspect state folder {}", path.display()), e))?;
        if meta.is_symlink() {
            return Err(refused(&path, "it is a symbolic link"));
        }
        if !meta.is_dir() {
            return Err(refused(&path, "it is not a folder"));
        }
        if meta.uid() != uid {
            return Err(refused(&path, &format!("it belongs to uid {}, not to uid {uid}", meta.uid())));
        }
        if meta.mode() & 0o077 != 0 {
            return Err(refused(
                &path,
                &format!("its mode {:04o} lets others in; chmod 700 it", meta.mode() & 0o7777),
            ));
        }
        let runs = path.join("runs");
        make(&runs)?;
        Ok(Self { path })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As [`open`](Self::open), but makes nothing: `None` where there is no such folder.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn find(environment: &Environment) -> Result<Option<Self>> {
        let path = environment.folder(nix::unistd::geteuid().as_raw());
        if path.is_absolute() && !path.join("runs").exists() {
            return Ok(None);
        }
        Self::open(environment).map(Some)
    }

    /// Makes the folder of a run with its record in it. Others see both or neither: until the record is written, the folder has
    /// a name that tells who is about to.
    ///
    /// # Errors
    /// A file system that is full or read-only.
    pub fn create_run(&self, record: &Record) -> Result<RunFolder> {
        let runs = self.path.join("runs");
        let folder = RunFolder { path: runs.join(record.run_id.as_str()) };
        let failed = |e| Error::io(format!("failed to create run folder {}", folder.path.display()), e);
        let draft = RunFolder { path: runs.join(draft_name(record)) };
        DirBuilder::new().mode(0o700).create(&draft.path).map_err(failed)?;
        fs::set_permissions(&draft.path, fs::Permissions::from_mode(0o700)).map_err(failed)?;
        let written =
            draft.write(record).and_then(|()| fs::rename(&draft.path, &folder.path).map_err(failed));
        if let Err(error) = written {
            let _ = draft.remove();
            return Err(error);
        }
        Ok(folder)
    }

    /// Everything in the folder of runs, sorted by name. Runs that end meanwhile are not in it.
    ///
    /// # Errors
    /// Where the folder cannot be listed; what is wrong with one entry is told by its [`Content`].
    pub fn runs(&self) -> Result<Vec<Entry>> {
        let runs = self.path.join("runs");
        let failed = |e| Error::io(format!("failed to list {}", runs.display()), e);
        let mut entries = Vec::new();
        for entry in fs::read_dir(&runs).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let folder = RunFolder { path: runs.join(&name) };
            if let Some(content) = folder.content(name.as_encoded_bytes()) {
                entries.push(Entry { folder, content });
            }
        }
        entries.sort_by(|a, b| a.folder.path.cmp(&b.folder.path));
        Ok(entries)
    }
}

/// How the name of a folder begins that is being removed.
const OVER: &[u8] = b"over.";

/// The name of a run's folder before its record is written.
fn draft_name(record: &Record) -> String {
    let ProcessId { pid, pid_namespace, inode, start_ticks, .. } = &record.host;
    format!("new.{}.{pid_namespace}.{pid}.{start_ticks}.{}", record.run_id, inode.unwrap_or(0))
}

/// Who gave a folder such a name. The boot is this one: a draft is there for less than a millisecond.
fn draft_host(name: &[u8]) -> Option<ProcessId> {
    let mut parts = std::str::from_utf8(name).ok()?.split('.').skip(2);
    let mut number = || parts.next().and_then(|text| text.parse::<u64>().ok());
    let (pid_namespace, pid, start_ticks, inode) = (number()?, number()?, number()?, number()?);
    Some(ProcessId {
        boot_id: crate::identity::boot_id().ok()?,
        pid_namespace,
        pid: i32::try_from(pid).ok().and_then(Pid::new)?,
        inode: (inode != 0).then_some(inode),
        start_ticks,
    })
}

fn refused(path: &Path, why: &str) -> Error {
    Error::new(format!(
        "refused to use state folder {}: {why} (set HEADCOUNT_STATE_DIR to a folder that is yours alone)",
        path.display()
    ))
}

fn make(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        // The umask may have taken rights away from its owner.
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(|e| Error::io(format!("failed to set the mode of {}", path.display()), e)),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // Parents are the user's to make, but a runtime folder may be a level down.
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|e| Error::io(format!("failed to create state folder {}", path.display()), e))
        }
        Err(error) => Err(Error::io(format!("failed to create state folder {}", path.display()), error)),
    }
}

/// Whether another user can exchange a folder on the way: by writing to its parent, or as the owner of a link.
fn check_ancestors(path: &Path, uid: u32) -> Result<()> {
    let mut on_the_way = PathBuf::new();
    let outsider = outsider();
    let mut parts = path.components().peekable();
    while let Some(part) = parts.next() {
        if part == Component::ParentDir {
            return Err(refused(path, "its path has `..` in it"));
        }
        on_the_way.push(part);
        // The folder itself is checked by the caller, more strictly.
        if parts.peek().is_none() {
            break;
        }
        let Ok(meta) = fs::symlink_metadata(&on_the_way) else { break };
        let shown = on_the_way.display();
        if meta.is_symlink() && meta.uid() != 0 {
            return Err(refused(path, &format!("it is behind the symbolic link {shown}")));
        }
        if meta.uid() != 0 && meta.uid() != uid && Some(meta.uid()) != outsider {
            return Err(refused(path, &format!("{shown}, on its way, belongs to uid {}", meta.uid())));
        }
        // A link's own mode means nothing; what it leads to is root's choice.
        if !meta.is_symlink() && meta.mode() & 0o022 != 0 && meta.mode() & 0o1000 == 0 {
            return Err(refused(path, &format!("{shown}, on its way, can be written to by others")));
        }
    }
    Ok(())
}

/// The number that stands for everybody whom this user namespace does not know: in a rootless container, the machine's root
/// above all, whose folders must do. `None` where that number is a user of the namespace, as in the initial one.
fn outsider() -> Option<u32> {
    let read = |path| fs::read_to_string(path).ok();
    let number = read("/proc/sys/kernel/overflowuid")?.trim().parse().ok()?;
    (!is_mapped(&read("/proc/self/uid_map")?, number)).then_some(number)
}

/// Whether a `uid_map` has a user with this number inside.
fn is_mapped(map: &str, number: u32) -> bool {
    map.lines().any(|line| {
        let mut fields = line.split_whitespace().map(|field| field.parse::<u64>().unwrap_or(0));
        let (first, _, count) = (fields.next().unwrap_or(0), fields.next(), fields.next().unwrap_or(0));
        (first..first.saturating_add(count)).contains(&u64::from(number))
    })
}

/// The folder of one run.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
}

impl RunFolder {
    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the folder says; `None` if it is gone.
    fn content(&self, name: &[u8]) -> Option<Content> {
        if name.starts_with(b"new.") {
            return Some(draft_host(name).map_or_else(
                || Content::Damaged("its name is none that headcount gives".to_owned()),
                Content::Draft,
            ));
        }
        if name.starts_with(OVER) {
            return Some(Content::Over);
        }
        let path = self.path.join("run.json");
        let mut content = Vec::new();
        let read = File::open(path).and_then(|file| file.take(RECORD_LIMIT).read_to_end(&mut content));
        let record = match read {
            Ok(_) => Record::parse(&content),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !self.path.exists() => return None,
            Err(error) => Err(error.to_string()),
        };
        Some(match record {
            Ok(record) if record.run_id.as_str().as_bytes() == name => Content::Run(record),
            Ok(_) => Content::Damaged("its record is another run's".to_owned()),
            Err(reason) => Content::Damaged(reason),
        })
    }

    /// Writes the record, whole or not at all.
    ///
    /// # Errors
    /// A file system that is full or read-only.
    pub fn write(&self, record: &Record) -> Result<()> {
        let failed = |e: std::io::Error| Error::io(format!("failed to write to {}", self.path.display()), e);
        let text = serde_json::to_vec(record).map_err(|e| failed(e.into()))?;
        let draft = self.path.join("run.json.new");
        fs::write(&draft, text).map_err(failed)?;
        fs::rename(&draft, self.path.join("run.json")).map_err(failed)
    }

    /// Removes the folder: the run ended, and left nothing. One that is gone already is fine.
    ///
    /// # Errors
    /// As the system says.
    pub fn remove(&self) -> Result<()> {
        // Under another name first, so that whoever is stopped halfway leaves nothing that looks like a run.
        let mut name = OsString::from_vec(OVER.to_vec());
        name.push(self.path.file_name().unwrap_or_default());
        let over = self.path.with_file_name(name);
        let is_over = self.path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(OVER));
        let renamed = if is_over { Ok(()) } else { fs::rename(&self.path, &over) };
        match renamed.and_then(|()| fs::remove_dir_all(if is_over { &self.path } else { &over })) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
        .map_err(|e| Error::io(format!("failed to remove run folder {}", self.path.display()), e))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::*;

    fn given(path: &Path) -> Environment {
        Environment { state_dir: Some(path.into()), ..Environment::default() }
    }

    #[test]
    fn a_new_folder_is_closed_to_others_and_used_again() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("state");
        for _ in 0..2 {
            let opened = StateDir::open(&given(&path)).unwrap();
            assert_eq!(fs::metadata(opened.path()).unwrap().mode() & 0o7777, 0o700);
        }
    }

    #[test]
    fn links_and_open_folders_are_refused() {
        let base = tempfile::tempdir().unwrap();
        let real = base.path().join("real");
        fs::create_dir(&real).unwrap();
        let message = |path: &Path| StateDir::open(&given(path)).unwrap_err().to_string();
        assert!(message(&real).contains("lets others in"), "{}", message(&real));
        fs::set_permissions(&real, fs::Permissions::from_mode(0o700)).unwrap();
        let link = base.path().join("link");
        symlink(&real, &link).unwrap();
        assert!(message(&link).contains("symbolic link"), "{}", message(&link));
        assert!(message(Path::new("state")).contains("not an absolute path"));
        let file = base.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(message(&file).contains("not a folder"), "{}", message(&file));
    }

    #[test]
    fn a_folder_below_one_that_others_can_write_to_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let open = base.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let error = StateDir::open(&given(&open.join("state"))).unwrap_err().to_string();
        assert!(error.contains("written to by others"), "{error}");
        // A sticky one protects what is in it, as /tmp does.
        fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).unwrap();
        StateDir::open(&given(&open.join("state"))).unwrap();
    }

    #[test]
    fn the_outsider_is_nobody_only_where_nobody_is_not_a_user() {
        assert!(is_mapped("         0          0 4294967295\n", 65534));
        assert!(!is_mapped("         0       1000          1\n", 65534));
        assert!(!is_mapped("0 1000 1\n1 100000 65533\n", 65534));
        assert!(is_mapped("0 1000 1\n1 100000 65536\n", 65534));
        assert!(!is_mapped("", 65534));
    }

    proptest! {
        #[test]
        fn a_user_is_mapped_by_any_line_that_the_kernel_writes(
            ranges in proptest::collection::vec(any::<[u32; 3]>(), 0..8),
            number in any::<u32>(),
        ) {
            let line = |[inside, outside, count]: &[u32; 3]| format!("{inside:10} {outside:10} {count:10}\n");
            let map: String = ranges.iter().map(line).collect();
            let is_in = |[inside, _, count]: &[u32; 3]| number >= *inside && number - inside < *count;
            prop_assert_eq!(is_mapped(&map, number), ranges.iter().any(is_in));
        }

        #[test]
        fn no_map_makes_it_panic(map in "([0-9]{0,21}[ \t\n]?|.){0,20}", number in any::<u32>()) {
            let _ = is_mapped(&map, number);
        }
    }

    #[test]
    fn tokens_nest_and_do_not_match_parts() {
        let outer = RunId("aa".into());
        let inner = RunId("bb".into());
        let value = inner.token(Some(outer.token(None)));
        assert_eq!(value, "aa,bb");
        let value = value.into_encoded_bytes();
        assert!(outer.is_in(&value) && inner.is_in(&value));
        assert!(!RunId("a".into()).is_in(&value));
    }

    #[test]
    fn a_record_survives_its_file() {
        let base = tempfile::tempdir().unwrap();
        let state = StateDir::open(&given(&base.path().join("state"))).unwrap();
        let record = Record {
            schema: SCHEMA.into(),
            run_id: RunId::random().unwrap(),
            host: ProcessId::this().unwrap(),
            cgroup: Some("/sys/fs/cgroup/x".into()),
            program: "sh".into(),
            tiers: vec!["token".into()],
            init: None,
        };
        let folder = state.create_run(&record).unwrap();
        let text = fs::read(folder.path().join("run.json")).unwrap();
        assert_eq!(serde_json::from_slice::<Record>(&text).unwrap(), record);
        let path = folder.path().to_owned();
        folder.remove().unwrap();
        assert!(!path.exists());
    }
    #[test]
    fn what_is_in_the_folder_is_told_apart() {
        let base = tempfile::tempdir().unwrap();
        let state = StateDir::open(&given(&base.path().join("state"))).unwrap();
        let record = Record {
            schema: SCHEMA.into(),
            run_id: RunId::random().unwrap(),
            host: ProcessId::this().unwrap(),
            cgroup: None,
            program: "sh".into(),
            tiers: Vec::new(),
            init: None,
        };
        state.create_run(&record).unwrap();
        let runs = state.path().join("runs");
        fs::create_dir(runs.join(draft_name(&record))).unwrap();
        for (name, content) in [("0".repeat(32), "{"), ("1".repeat(32), "{}"), ("x".into(), "")] {
            fs::create_dir(runs.join(&name)).unwrap();
            fs::write(runs.join(name).join("run.json"), content).unwrap();
        }
        fs::create_dir(runs.join("f".repeat(32))).unwrap();
        fs::write(runs.join("f".repeat(32)).join("run.json"), serde_json::to_vec(&record).unwrap()).unwrap();
        fs::create_dir(runs.join("over.x")).unwrap();
        let (mut found, mut drafts, mut over, mut damaged) = (0, 0, 0, 0);
        for entry in state.runs().unwrap() {
            match entry.content {
                Content::Run(one) => {
                    assert_eq!(one, record);
                    found += 1;
                }
                Content::Draft(host) => {
                    assert_eq!(host, record.host);
                    drafts += 1;
                }
                Content::Over => over += 1,
                Content::Damaged(_) => damaged += 1,
            }
        }
        assert_eq!((found, drafts, over, damaged), (1, 1, 1, 4));
    }

    #[test]
    fn a_process_belongs_to_the_innermost_run_of_its_token() {
        let (a, b) = ("a".repeat(32), "b".repeat(32));
        assert_eq!(RunId::innermost(format!("{a},{b}").as_bytes()), RunId::parse(b.as_bytes()));
        assert_eq!(RunId::innermost(format!("{a},x").as_bytes()), None);
        assert_eq!(RunId::parse("A".repeat(32).as_bytes()), None);
    }
}
