//! Any bytes as `/proc/self/mountinfo`: never more mounts than lines, and paths no longer than they are written.
#![no_main]

use headcount_sys::proc::mountinfo;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|content: &[u8]| {
    let mounts = mountinfo::parse(content);
    assert!(mounts.len() <= content.split(|byte| *byte == b'\n').count());
    let mut length = 0;
    for mount in &mounts {
        length += mount.root.as_os_str().len() + mount.point.as_os_str().len();
        length += mount.kind.len() + mount.options.len();
        assert!(!mount.has_option(","));
    }
    assert!(length <= content.len());
});
