//! Any bytes as `cgroup.events`, through a file, since only an open file can be read. ci/fuzz.sh puts the file into memory.
#![no_main]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex};

use headcount_sys::cgroup::{Cgroup, Events, Watch};
use libfuzzer_sys::fuzz_target;

static OPEN: LazyLock<Mutex<(File, Watch)>> = LazyLock::new(|| {
    let folder: PathBuf = std::env::temp_dir().join(format!("cgroup-events-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let file = File::create(folder.join("cgroup.events")).unwrap();
    let watch = Cgroup::at(folder.clone()).watch().unwrap();
    // The open files are all that is needed.
    std::fs::remove_dir_all(folder).unwrap();
    Mutex::new((file, watch))
});

fuzz_target!(|content: &[u8]| {
    let mut open = OPEN.lock().unwrap();
    let (file, watch) = &mut *open;
    file.set_len(content.len() as u64).unwrap();
    file.write_all_at(content, 0).unwrap();
    // Written another way than the parser: a line's end is put before and behind.
    let framed = [b"\n", content, b"\n"].concat();
    let has = |line: &[u8]| framed.windows(line.len()).any(|window| window == line);
    let expected = Events { populated: has(b"\npopulated 1\n"), frozen: has(b"\nfrozen 1\n") };
    assert_eq!(watch.read().unwrap(), expected);
});
