//! `/proc/self/mountinfo` as the kernel writes it, from arbitrary paths: each is read back.
#![no_main]

use std::os::unix::ffi::OsStrExt as _;

use headcount_sys::proc::mountinfo;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Written {
    root: Vec<u8>,
    point: Vec<u8>,
    source: Vec<u8>,
    optional_fields: u8,
    is_read_only: bool,
}

/// seq_escape() with `" \t\n\\"`; a path has no NUL.
fn escaped(path: &[u8]) -> Vec<u8> {
    let mut written = Vec::new();
    for byte in path {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => written.extend(format!("\\{byte:03o}").into_bytes()),
            other => written.push(*other),
        }
    }
    written
}

fuzz_target!(|mounts: Vec<Written>| {
    let mut content = Vec::new();
    for mount in &mounts {
        content.extend(b"36 35 98:0 ");
        content.extend(escaped(&mount.root));
        content.push(b' ');
        content.extend(escaped(&mount.point));
        content.extend(if mount.is_read_only { b" ro,noatime" } else { b" rw,noatime" });
        for number in 0..mount.optional_fields % 4 {
            content.extend(format!(" shared:{number}").into_bytes());
        }
        content.extend(b" - cgroup2 ");
        content.extend(escaped(&mount.source));
        content.extend(b" rw,nsdelegate\n");
    }
    let parsed = mountinfo::parse(&content);
    assert_eq!(parsed.len(), mounts.len());
    for (parsed, written) in parsed.iter().zip(&mounts) {
        assert_eq!(parsed.root.as_os_str().as_bytes(), written.root);
        assert_eq!(parsed.point.as_os_str().as_bytes(), written.point);
        assert_eq!(parsed.kind, b"cgroup2");
        assert_eq!(parsed.has_option("ro"), written.is_read_only);
        assert!(parsed.has_option("nsdelegate"));
    }
});
