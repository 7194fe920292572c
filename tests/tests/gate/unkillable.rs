//! What cannot be ended is reported, with what is in the way, within the deadline; and the gate does not hang on it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use headcount_sys::{Pid, PidFd, Signal};
use headcount_tests::Finished;
use headcount_tests::context::{Need, TestContext, Who, ends};
use serde_json::Value;

use crate::context;

/// The contract for all ending together, with the default grace (1 s): inside the cancel window of CI systems.
const DEADLINE_MS: u64 = 7_000;

fn took(report: &Value) -> u64 {
    ["settle_ms", "evidence_ms", "ending_ms"].iter().map(|part| report["stats"][part].as_u64().unwrap()).sum()
}

fn the_only_leak<'a>(finished: &Finished, report: &'a Value) -> &'a Value {
    assert_eq!((finished.code, report["verdict"].as_str()), (Some(23), Some("leaked")), "{finished:?}");
    assert_eq!(report["leaks"].as_array().unwrap().len(), 1, "{report:#}");
    assert!(took(report) < DEADLINE_MS, "{report:#}");
    &report["leaks"][0]
}

fn reasons(report: &Value) -> String {
    report["reasons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reason| reason.as_str().unwrap())
        .collect::<Vec<_>>()
        .join("\n")
}

fn open(leak: &Value) -> PidFd {
    let pid = Pid::new(i32::try_from(leak["pid"].as_i64().unwrap()).unwrap()).unwrap();
    PidFd::open(pid).unwrap().expect("it lives on")
}

/// A daemon that another user owns: a set-uid program that became root for good.
#[test]
fn another_users_process_is_reported_in_time() {
    if !TestContext::needs(&[Need::Root, Need::Program("perl")]) {
        return;
    }
    let context = context();
    let perl = context.path("perl-of-root");
    fs::copy("/usr/bin/perl", &perl).unwrap();
    fs::set_permissions(&perl, fs::Permissions::from_mode(0o4755)).unwrap();
    let script = "$< = $>; $< == 0 or die; close STDOUT; alarm 100; select undef, undef, undef, 99";
    let line = format!(": $('{}' -e '{script}' </dev/null &)", perl.display());
    let (finished, report) = context.report(Who::Nobody, &["--tier", "subreaper"], &["sh", "-c", &line]);
    let leak = the_only_leak(&finished, &report);
    assert_eq!((&leak["ended_by"], &leak["uid"]), (&"unkillable".into(), &0.into()), "{leak:#}");
    assert!(reasons(&report).contains("belongs to uid 0, and uid 65534 may not end it"), "{report:#}");
    let daemon = open(leak);
    // Its record stays, for whoever may.
    assert_eq!(fs::read_dir(context.state(Who::Nobody).join("runs")).unwrap().count(), 1);
    daemon.signal(Signal::KILL).unwrap();
    assert!(ends(&daemon));
    let reaped = context.finish(context.gate(Who::Nobody, &["reap"]));
    assert_eq!(reaped.code, Some(0), "{reaped:?}");
    assert_eq!(fs::read_dir(context.state(Who::Nobody).join("runs")).unwrap().count(), 0);
}

/// A process that a cgroup v1 freezer holds: it is in uninterruptible sleep, and no signal ends it.
struct Frozen(std::path::PathBuf);

impl Frozen {
    fn new(name: &str) -> Self {
        let path = std::path::Path::new("/sys/fs/cgroup/freezer")
            .join(format!("headcount-test-{name}-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn thaw(&self) {
        fs::write(self.0.join("freezer.state"), "THAWED").unwrap();
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.thaw();
        drop(fs::remove_dir(&self.0));
    }
}

#[test]
fn uninterruptible_sleep_is_reported_in_time() {
    if !TestContext::needs(&[Need::Root, Need::Cgroup, Need::FreezerV1, Need::Program("perl")]) {
        return;
    }
    let context = context();
    for tiers in ["cgroup,subreaper,token", "cgroup", "subreaper", "token", "namespace"] {
        let frozen = Frozen::new(&tiers.replace(',', "-"));
        let folder = frozen.0.display();
        // The daemon goes into the freezer by itself: in a pid namespace, its number means another process to the freezer.
        let script = "open my $tasks, q(>), shift or die; syswrite $tasks, 0 or die; close $tasks; close STDOUT; \
                      alarm 100; select undef, undef, undef, 99";
        let line = format!(
            ": $(perl -e '{script}' {folder}/tasks </dev/null &); echo FROZEN >{folder}/freezer.state; \
             until [ \"$(cat {folder}/freezer.state)\" = FROZEN ]; do :; done"
        );
        let (finished, report) = context.report(Who::Root, &["--tier", tiers], &["sh", "-c", &line]);
        let leak = the_only_leak(&finished, &report);
        assert_eq!(
            (&leak["ended_by"], &leak["state"]),
            (&"unkillable".into(), &"disk sleep".into()),
            "{tiers}: {leak:#}"
        );
        assert!(reasons(&report).contains("uninterruptible sleep"), "{tiers}: {report:#}");
        // SIGKILL waits for it, and the run's record for a reaping.
        let daemon = open(leak);
        assert!(!daemon.has_exited().unwrap(), "{tiers}");
        frozen.thaw();
        assert!(ends(&daemon), "{tiers}");
        let reaped = context.finish(context.gate(Who::Root, &["reap"]));
        assert_eq!(reaped.code, Some(0), "{tiers}: {reaped:?}");
        assert_eq!(fs::read_dir(context.state(Who::Root).join("runs")).unwrap().count(), 0, "{tiers}");
    }
}

/// A tracer from outside that does not wait for what it traces: the process is dead, and stays a zombie.
#[test]
fn a_tracer_in_the_way_is_named_in_time() {
    if !TestContext::needs(&[Need::Program("perl"), Need::Program("python3")]) {
        return;
    }
    let context = context();
    for who in TestContext::users() {
        let folder = context.folder_of(*who, &format!("fifos-{who:?}"));
        let (into, out) = (folder.join("in"), folder.join("out"));
        let mut mkfifo = context.command(*who, "mkfifo");
        mkfifo.args([&into, &out]);
        assert_eq!(context.finish(mkfifo).code, Some(0));
        // Root may trace whom it likes; others, with Yama, only what descends from them.
        let tracer_is = *TestContext::users().first().unwrap();
        let mut tracer = context.command(tracer_is, context.path("fixtures/hold_tracee.py"));
        tracer.args([&into, &out]).stdin(Stdio::piped());
        let mut tracer = context.start(tracer);
        let script = "alarm 100; select undef, undef, undef, 99";
        let (into, out) = (into.display(), out.display());
        let line = format!("perl -e '{script}' </dev/null & echo $! >{into}; read -r line <{out}");
        let (finished, report) = context.report(*who, &["--tier", "subreaper,token"], &["sh", "-c", &line]);
        let leak = the_only_leak(&finished, &report);
        assert_ne!(leak["ended_by"], "unkillable", "{leak:#}");
        let named = format!(
            "process {} (hold_tracee.py), which traces it, does not wait for it",
            tracer.process().pid()
        );
        let python = named.replace("hold_tracee.py", "python3");
        assert!(
            reasons(&report).contains(&named) || reasons(&report).contains(&python),
            "{who:?}: {report:#}"
        );
        drop(tracer.stdin());
        assert_eq!(tracer.finish().code, Some(0));
        // Nothing lives, so nothing is kept for a reaping.
        assert_eq!(fs::read_dir(context.state(*who).join("runs")).unwrap().count(), 0);
    }
}
