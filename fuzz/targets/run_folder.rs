//! Any name and any record in the folder of runs, as whoever may write to it could leave them. Through a real folder, which
//! ci/fuzz.sh puts into memory.
#![no_main]

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::LazyLock;

use headcount_sys::state::{Content, Environment, Record, StateDir};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

static STATE: LazyLock<StateDir> = LazyLock::new(|| {
    let path = std::env::temp_dir().join(format!("run-folder-{}", std::process::id()));
    DirBuilder::new().mode(0o700).create(&path).unwrap();
    StateDir::open(&Environment { state_dir: Some(path.into()), ..Environment::default() }).unwrap()
});

#[derive(Arbitrary, Debug)]
enum Name<'a> {
    Any(&'a [u8]),
    Draft { rest: &'a [u8] },
    WellFormed { pid_namespace: u64, pid: u32, start_ticks: u64, inode: u64 },
    Run(u128),
}

#[derive(Arbitrary, Debug)]
struct Entry<'a> {
    name: Name<'a>,
    record: Option<&'a [u8]>,
}

fuzz_target!(|entry: Entry<'_>| {
    let run = "00112233445566778899aabbccddeeff";
    let name = match entry.name {
        Name::Any(bytes) => bytes.to_vec(),
        Name::Draft { rest } => [b"new.", rest].concat(),
        Name::WellFormed { pid_namespace, pid, start_ticks, inode } => {
            format!("new.{run}.{pid_namespace}.{pid}.{start_ticks}.{inode}").into_bytes()
        }
        Name::Run(number) => format!("{number:032x}").into_bytes(),
    };
    let is_name = !name.is_empty() && name.len() < 256 && name != b"." && name != b"..";
    if !is_name || name.iter().any(|byte| matches!(byte, 0 | b'/')) {
        return;
    }
    let folder = STATE.path().join("runs").join(OsStr::from_bytes(&name));
    fs::create_dir(&folder).unwrap();
    if let Some(record) = entry.record {
        fs::write(folder.join("run.json"), record).unwrap();
    }
    let mut entries = STATE.runs().unwrap();
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(entries.len(), 1);
    let found = entries.pop().unwrap();
    assert_eq!(found.folder.path(), folder);
    match (found.content, entry.name) {
        (Content::Draft(host), Name::WellFormed { pid_namespace, pid, start_ticks, inode }) => {
            assert_eq!((host.pid_namespace, host.start_ticks), (pid_namespace, start_ticks));
            assert_eq!(host.pid.as_raw().cast_unsigned(), pid);
            assert_eq!(host.inode.unwrap_or(0), inode);
        }
        (Content::Draft(host), _) => assert!(name.starts_with(b"new.") && host.pid.as_raw() > 0),
        (Content::Over, _) => assert!(name.starts_with(b"over.")),
        (Content::Run(record), _) => {
            assert_eq!(record.run_id.as_str().as_bytes(), name);
            assert_eq!(Record::parse(entry.record.unwrap()), Ok(record));
        }
        (Content::Damaged(reason), Name::WellFormed { pid, .. }) => {
            assert!(pid == 0 || i32::try_from(pid).is_err(), "{reason}");
        }
        (Content::Damaged(reason), _) => assert!(!reason.is_empty()),
    }
});
