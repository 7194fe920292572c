//! What a census costs, beside the bare system calls that read the same files of the same processes, and beside two libraries that
//! read processes: paired figures of one run. `cargo bench -p headcount-tests --bench census`; `PROCESSES=n`, `PAIRS=n`.
//!
//! The libraries read other things: sysinfo neither descriptors nor cgroups; procfs is asked for what headcount reads.

use std::hint::black_box;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use headcount::scope::{Options, Scope};
use headcount::{Tier, text};
use headcount_sys::poll::{self, Interest, Timeout};
use headcount_sys::signal::Receiver;
use headcount_sys::state;
use headcount_tests::figures::{pairs, say};
use rustix::fs::{CWD, Mode, OFlags, RawDir};

fn main() {
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let count: usize = std::env::var("PROCESSES").ok().and_then(|value| value.parse().ok()).unwrap_or(5_000);
    let receiver = Receiver::open().expect("signals");
    let options = Options {
        tiers: [Tier::Cgroup].into(),
        environment: state::Environment::this(),
        outer_token: None,
        exceptions: Vec::new(),
        program: "census".to_owned(),
    };
    let mut scope = Scope::open(&options).expect("a scope");
    assert!(scope.missing().iter().all(|missing| missing.tier != Tier::Cgroup), "{:?}", scope.missing());
    let script = format!(
        "for (1 .. {count}) {{ my $pid = fork // die; if (!$pid) {{ select undef, undef, undef, 600; exit }} }} \
         print STDERR \"up\\n\"; select undef, undef, undef, 600"
    );
    let (read, write) = std::io::pipe().expect("a pipe");
    // An inherited descriptor is how the command says that all are there.
    rustix::io::fcntl_setfd(&write, rustix::io::FdFlags::empty()).expect("inherited");
    let up = format!("exec perl -e \"$0\" 2>&{}", std::os::fd::AsRawFd::as_raw_fd(&write));
    let command = ["sh", "-c", &up, &script].map(std::ffi::OsString::from);
    assert!(scope.start(&command, receiver.inherited()).expect("it starts"));
    drop(write);
    poll::wait(&[Interest::readable(read.as_fd())], Timeout::At(Instant::now() + Duration::from_secs(120)))
        .expect("it is up");

    let seen = scope.look().expect("a census");
    assert!(seen.len() > count, "{} of {count} were seen", seen.len());
    let pids: Vec<i32> = seen.iter().map(|process| process.pid.as_raw()).collect();
    let (mut to_bare, mut to_sysinfo, mut to_procfs, mut absolute) = (vec![], vec![], vec![], vec![]);
    for round in 0..pairs(20) {
        let mut ours = Duration::ZERO;
        let mut bare = Duration::ZERO;
        for turn in 0..2 {
            if (round + turn) % 2 == 0 {
                ours = timed(|| assert_eq!(black_box(scope.look().expect("a census")).len(), pids.len()));
            } else {
                bare = timed(|| pids.iter().for_each(|pid| bare_reading(*pid)));
            }
        }
        let sysinfo = timed(|| assert!(black_box(sysinfo_reading(pids.len())) > 0));
        let procfs = timed(|| pids.iter().for_each(|pid| procfs_reading(*pid)));
        to_bare.push(ours.as_secs_f64() / bare.as_secs_f64());
        to_sysinfo.push(ours.as_secs_f64() / sysinfo.as_secs_f64());
        to_procfs.push(ours.as_secs_f64() / procfs.as_secs_f64());
        absolute.push(ours.as_secs_f64() * 1e3);
    }
    let what = |than: &str| format!("census of {} processes, to {than}", pids.len());
    say(&what("the bare system calls that read the same files"), "×", &to_bare, "goal: at most 1.2");
    say(&what("sysinfo's refresh of all processes"), "×", &to_sysinfo, "beside it");
    say(&what("the procfs crate reading the same files"), "×", &to_procfs, "beside it");
    say(&what("nothing"), "ms", &absolute, "beside it");
    let one = seen.first().map(|process| text::reversible(&process.name)).unwrap_or_default();
    black_box(one);
    // Everything that was started ends with the scope's cgroup.
    let own = headcount_sys::cgroup::own().expect("a cgroup");
    let cgroup = headcount_sys::cgroup::Cgroup::at(own.path().join(format!("headcount-{}", scope.run())));
    cgroup.kill().expect("killed");
    let mut watch = cgroup.watch().expect("a watch");
    while watch.read().expect("its events").populated {
        poll::wait(
            &[Interest::changed(watch.as_fd())],
            Timeout::At(Instant::now() + Duration::from_secs(10)),
        )
        .expect("a change");
    }
    drop(scope.reap());
    scope.close().expect("nothing is left");
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

fn open(path: &str, flags: OFlags) -> OwnedFd {
    rustix::fs::openat(CWD, path, flags | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).expect(path)
}

/// The system calls of one process's evidence: each file is opened, read to its end in one piece, and closed; nothing is parsed
/// or kept.
fn bare_reading(pid: i32) {
    let mut buffer = [0u8; 16384];
    let raw = rustix::process::Pid::from_raw(pid).expect("a pid");
    let pidfd = rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty()).expect("a pidfd");
    for file in ["stat", "status", "statm", "cmdline", "environ", "cgroup"] {
        let file = open(&format!("/proc/{pid}/{file}"), OFlags::empty());
        black_box(rustix::io::read(&file, &mut buffer).expect("content"));
    }
    for link in ["exe", "cwd"] {
        black_box(
            rustix::fs::readlinkat_raw(CWD, format!("/proc/{pid}/{link}"), &mut buffer[..]).expect("a link"),
        );
    }
    let folder = format!("/proc/{pid}/fd");
    let list = open(&folder, OFlags::DIRECTORY);
    let mut space = [const { std::mem::MaybeUninit::uninit() }; 8192];
    let mut entries = RawDir::new(&list, &mut space);
    while let Some(entry) = entries.next() {
        let entry = entry.expect("an entry");
        if let Ok(name) = entry.file_name().to_str()
            && !name.starts_with('.')
        {
            black_box(
                rustix::fs::readlinkat_raw(CWD, format!("{folder}/{name}"), &mut buffer[..]).expect("a link"),
            );
        }
    }
    let children = open(&format!("/proc/{pid}/task/{pid}/children"), OFlags::empty());
    black_box(rustix::io::read(&children, &mut buffer).expect("content"));
    black_box(rustix::fs::fstat(&pidfd).expect("an inode"));
    black_box(poll::wait(&[Interest::readable(pidfd.as_fd())], Timeout::Now).expect("its state"));
}

fn sysinfo_reading(at_least: usize) -> usize {
    let mut system = sysinfo::System::new().expect("sysinfo");
    let all = sysinfo::ProcessRefreshKind::everything();
    system.refresh_processes_specifics(sysinfo::ProcessesToUpdate::All, true, all);
    assert!(system.processes().len() >= at_least);
    system.processes().len()
}

fn procfs_reading(pid: i32) {
    let process = procfs::process::Process::new(pid).expect("a process");
    black_box((
        process.stat().expect("stat"),
        process.status().expect("status"),
        process.statm().expect("statm"),
    ));
    black_box((process.cmdline().expect("cmdline"), process.environ().expect("environ")));
    black_box((process.exe().expect("exe"), process.cwd().expect("cwd")));
    black_box(process.cgroups().expect("cgroups").into_iter().count());
    black_box(process.fd().expect("fd").flatten().count());
    black_box(
        process
            .tasks()
            .expect("tasks")
            .flatten()
            .map(|task| task.children().expect("children").len())
            .sum::<usize>(),
    );
}
