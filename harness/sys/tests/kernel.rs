//! The crate against the running kernel, with sysinfo as an independent reader of the same files.
#![expect(clippy::unwrap_used, reason = "functions of a test are tests too")]

use std::fs;
use std::process::{Child, Command, Stdio};

use headcount_sys::pidfd::Delivery;
use headcount_sys::proc::{self, State};
use headcount_sys::{Pid, PidFd, ProcessId, Signal, cgroup, wait};
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System, UpdateKind};

/// A child that ends by itself after a while, and for whom the test waits.
#[expect(clippy::disallowed_methods, reason = "the process is what is looked at; each test waits for it")]
fn sleeper() -> (Child, PidFd) {
    let child = Command::new("sleep").arg("60").stdin(Stdio::null()).current_dir("/usr").spawn().unwrap();
    let pid = Pid::new(i32::try_from(child.id()).unwrap()).unwrap();
    let pidfd = PidFd::open(pid).unwrap().unwrap();
    (child, pidfd)
}

fn end(mut child: Child, pidfd: &PidFd) {
    assert_eq!(pidfd.signal(Signal::KILL).unwrap(), Delivery::Sent);
    child.wait().unwrap();
    assert_eq!(pidfd.signal(Signal::KILL).unwrap(), Delivery::Gone);
}

#[test]
fn sysinfo_reads_the_same() {
    let (child, pidfd) = sleeper();
    let pid = pidfd.pid();
    // Between fork and exec the child is still this program; its command line says when it is not.
    while proc::cmdline(pid).unwrap() != [b"sleep".to_vec(), b"60".to_vec()] {
        std::thread::yield_now();
    }
    let theirs = sysinfo::Pid::from_u32(child.id());
    let kind = ProcessRefreshKind::nothing()
        .with_cmd(UpdateKind::Always)
        .with_cwd(UpdateKind::Always)
        .with_exe(UpdateKind::Always)
        .with_environ(UpdateKind::Always)
        .with_user(UpdateKind::Always)
        .with_memory();
    // It still loads its libraries: both are compared for a moment at which nothing changed between two looks of ours.
    let mut system = System::new().unwrap();
    let resident = loop {
        let before = proc::resident_pages(pid).unwrap();
        let _ = system.refresh_processes_specifics(ProcessesToUpdate::Some(&[theirs]), true, kind);
        if proc::resident_pages(pid).unwrap() == before {
            break before;
        }
    };
    let stat = proc::stat(pid).unwrap();
    let theirs = system.process(theirs).unwrap();
    let status = proc::status(pid).unwrap();
    assert_eq!(stat.name, theirs.name().as_encoded_bytes());
    assert_eq!(Some(stat.ppid), theirs.parent().map(|parent| i32::try_from(parent.as_u32()).unwrap()));
    assert_eq!(stat.session, i32::try_from(theirs.session_id().unwrap().as_u32()).unwrap());
    assert_eq!(Some(status.uid), theirs.user_id().map(|uid| **uid));
    assert_eq!(resident * proc::page_size(), theirs.memory());
    assert_eq!(proc::link(pid, "cwd").unwrap(), theirs.cwd().unwrap().as_os_str().as_encoded_bytes());
    assert_eq!(proc::link(pid, "exe").unwrap(), theirs.exe().unwrap().as_os_str().as_encoded_bytes());
    let environ: Vec<Vec<u8>> =
        theirs.environ().iter().map(|entry| entry.as_encoded_bytes().to_vec()).collect();
    assert_eq!(proc::strings(&proc::environ(pid).unwrap()).map(<[u8]>::to_vec).collect::<Vec<_>>(), environ);
    // sysinfo counts whole seconds since 1970; ours are ticks since boot.
    let (_, per_second) = proc::ticks_now().unwrap();
    let started = System::boot_time().unwrap() + stat.start_ticks / per_second;
    assert!(started.abs_diff(theirs.start_time()) <= 1, "{started} {}", theirs.start_time());
    end(child, &pidfd);
}

#[test]
fn a_dead_process_is_not_found_by_its_identity() {
    let (child, pidfd) = sleeper();
    let identity = ProcessId::of(&pidfd).unwrap();
    assert_eq!(identity.find().unwrap().map(|found| found.pid()), Some(pidfd.pid()));
    end(child, &pidfd);
    assert!(identity.find().unwrap().is_none());
    assert!(ProcessId::of(&pidfd).unwrap_err().is_gone());
}

#[test]
fn inodes_of_pidfds_are_their_processes_own() {
    let (first, first_fd) = sleeper();
    let (second, second_fd) = sleeper();
    let again = PidFd::open(first_fd.pid()).unwrap().unwrap();
    if let Some(inode) = first_fd.inode().unwrap() {
        assert_eq!(again.inode().unwrap(), Some(inode));
        assert_ne!(second_fd.inode().unwrap(), Some(inode));
    }
    end(first, &first_fd);
    end(second, &second_fd);
}

#[test]
fn a_zombie_has_exited_and_is_still_listed() {
    let (mut child, pidfd) = sleeper();
    pidfd.signal(Signal::KILL).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    use std::os::fd::AsFd as _;
    let interest = [headcount_sys::poll::Interest::readable(pidfd.as_fd())];
    assert!(headcount_sys::poll::wait(&interest, headcount_sys::poll::Timeout::At(deadline)).unwrap().any());
    assert_eq!(proc::stat(pidfd.pid()).unwrap().state, State::Zombie);
    assert!(wait::is_child(pidfd.pid()).unwrap());
    child.wait().unwrap();
    assert!(!wait::is_child(pidfd.pid()).unwrap());
}

#[test]
fn children_are_listed_by_the_thread_that_started_them() {
    let (child, pidfd) = sleeper();
    assert!(proc::children(Pid::this()).unwrap().contains(&pidfd.pid()));
    end(child, &pidfd);
}

#[test]
fn a_cgroup_is_made_filled_frozen_emptied_and_removed() {
    let own = match cgroup::own()
        .and_then(|own| own.create(&format!("headcount-sys-test-{}", std::process::id())))
    {
        Ok(own) => own,
        Err(error) if std::env::var_os("HEADCOUNT_TESTS_MUST_RUN").is_none() => {
            use std::io::Write as _;
            drop(writeln!(
                std::io::stderr(),
                "skipped: needs a cgroup v2 to create cgroups in ({})",
                error.chain()
            ));
            return;
        }
        Err(error) => panic!("{}", error.chain()),
    };
    let mut watch = own.watch().unwrap();
    assert!(!watch.read().unwrap().populated);
    let (mut child, pidfd) = sleeper();
    let below = own.create("below").unwrap();
    fs::write(below.path().join("cgroup.procs"), child.id().to_string()).unwrap();
    assert_eq!(own.members().unwrap().pids, [pidfd.pid()]);
    assert!(watch.read().unwrap().populated);
    assert!(own.remove().is_err(), "something lives in it");
    own.freeze(true).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let until = |watch: &mut cgroup::Watch, wanted: &dyn Fn(cgroup::Events) -> bool| {
        use std::os::fd::AsFd as _;
        while !wanted(watch.read().unwrap()) {
            assert!(std::time::Instant::now() < deadline, "the cgroup does not change");
            let interest = [headcount_sys::poll::Interest::changed(watch.as_fd())];
            headcount_sys::poll::wait(&interest, headcount_sys::poll::Timeout::At(deadline)).unwrap();
        }
    };
    until(&mut watch, &|events| events.frozen);
    if own.kill().unwrap() {
        until(&mut watch, &|events| !events.populated);
    } else {
        own.freeze(false).unwrap();
        pidfd.signal(Signal::KILL).unwrap();
    }
    child.wait().unwrap();
    own.remove().unwrap();
    assert!(watch.read().unwrap_err().is_gone());
    assert!(!own.path().exists());
    own.remove().unwrap();
}
