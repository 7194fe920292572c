//! Any bytes as `/proc/PID/cgroup`; and, with them as the path, the file as the kernel writes it.
#![no_main]

use headcount_sys::proc;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| {
    if let Some(path) = proc::cgroup_path(content) {
        assert!(!path.contains(&b'\n'));
        let line = [b"0::", path].concat();
        assert!(content.split(|byte| *byte == b'\n').any(|one| one == line));
    }
    // The kernel refuses to make a cgroup with a line's end in its name (`cgroup_mkdir`).
    if !content.contains(&b'\n') {
        for before in ["", "12:pids:/0::/a\n1:name=systemd:/b\n"] {
            let written = [before.as_bytes(), b"0::/", content, b"\n"].concat();
            assert_eq!(proc::cgroup_path(&written), Some(&[b"/", content].concat()[..]));
        }
    }
});
