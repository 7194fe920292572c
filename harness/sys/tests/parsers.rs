//! No content of `/proc` makes a parser panic or loop: random bytes, and real files damaged at random.

use headcount_sys::proc::{self, Stat, Status, mountinfo, net};
use proptest::prelude::*;

const FILES: &[&str] =
    &["stat", "status", "environ", "cmdline", "cgroup", "mountinfo", "net/tcp", "net/unix"];

fn parse_as_everything(content: &[u8]) {
    drop(Stat::parse(content));
    drop(Status::parse(content));
    drop(mountinfo::parse(content));
    let _ = proc::cgroup_path(content);
    proc::variables(content).for_each(drop);
    proc::strings(content).for_each(drop);
    proc::pids(content).for_each(drop);
    for protocol in [net::Protocol::Tcp, net::Protocol::Udp, net::Protocol::Unix] {
        net::listeners(content, protocol).for_each(drop);
    }
}

proptest! {
    #[test]
    fn random_bytes_are_survived(content in proptest::collection::vec(any::<u8>(), 0..512)) {
        parse_as_everything(&content);
    }

    #[test]
    fn damaged_files_are_survived(
        file in proptest::sample::select(FILES),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut content = proc::read(std::path::Path::new(&format!("/proc/self/{file}"))).unwrap_or_default();
        if !content.is_empty() {
            for (place, byte) in damage {
                let place = place.index(content.len());
                content[place] = byte;
            }
            content.truncate(cut.index(content.len() + 1));
        }
        parse_as_everything(&content);
    }
}

#[test]
fn real_files_are_understood() {
    let own = headcount_sys::Pid::this();
    assert_eq!(proc::stat(own).unwrap().pid, own);
    assert!(proc::status(own).is_ok());
    assert!(proc::mounts().unwrap().iter().any(|mount| mount.kind == b"proc"));
}
