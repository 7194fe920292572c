//! Mistakes, and machines that do not let headcount see: a clear error and the right status, never a hang, never a leak of its
//! own, never a false *clean*.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

use headcount_tests::context::{Finished, Need, TestContext, Who};

use crate::context;

/// Runs the gate around a command that would leave a mark, and expects a refusal before that.
fn refused(context: &TestContext, who: Who, options: &[&str], environment: &[(&str, &str)]) -> Finished {
    let folder = context.folder_of(who, &format!("mark-{who:?}"));
    let mark = folder.join("it-ran");
    let mut command = context.gate(who, &["run"]);
    command.args(options).args(["--", "touch"]).arg(&mark).envs(environment.iter().copied());
    let finished = context.finish(command);
    assert!(!mark.exists(), "{who:?} {options:?}: the command ran all the same: {finished:?}");
    finished
}

#[test]
fn a_wrong_command_line_is_status_2() {
    let context = context();
    for who in TestContext::users() {
        for (options, part) in [
            (&["--no-such-option"][..], "--no-such-option"),
            (&["--tier", "vm"], "there are namespace, cgroup, subreaper, token, events"),
            (&["--grace", "soon"], "for example 500ms"),
            (&["--tier", "token", "--require-tier", "cgroup"], "tier cgroup is required and left out"),
        ] {
            let finished = refused(&context, *who, options, &[]);
            assert_eq!(finished.code, Some(2), "{options:?}: {finished:?}");
            assert!(finished.stderr.contains(part), "{options:?}: {finished:?}");
        }
        assert_eq!(context.finish(context.gate(*who, &["run"])).code, Some(2));
        assert_eq!(context.finish(context.gate::<&str>(*who, &[])).code, Some(2));
    }
}

#[test]
fn a_command_that_cannot_be_run_is_127_or_126() {
    let context = context();
    for who in TestContext::users() {
        let folder = context.folder_of(*who, &format!("commands-{who:?}"));
        let file = |name: &str, content: &str, mode: u32| {
            let path = folder.join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let plain = file("plain", "#!/bin/sh\n", 0o644);
        let orphaned = file("orphaned", "#!/no/such/interpreter\n", 0o755);
        for (command, code, part) in [
            ("headcount-no-such-command", 127, "no such file"),
            ("/no/such/command", 127, "no such file"),
            ("", 127, "no such file"),
            (orphaned.as_str(), 127, "no such file"),
            (plain.as_str(), 126, "permission denied"),
            ("/", 126, "permission denied"),
        ] {
            let (finished, report) = context.report(*who, &[], &[command]);
            assert_eq!(finished.code, Some(code), "{who:?} `{command}`: {finished:?}");
            assert!(
                finished.stderr.contains("failed to run") && finished.stderr.contains(part),
                "{finished:?}"
            );
            assert_eq!(report["verdict"], "inconclusive", "nothing ran, so nothing is clean: {report}");
            assert_eq!((report["exit"]["code"].as_i64(), report["exit"]["signal"].as_i64()), (None, None));
        }
        assert_eq!(
            fs::read_dir(context.state(*who).join("runs")).unwrap().count(),
            0,
            "a run folder is left"
        );
    }
}

#[test]
fn a_report_that_cannot_be_written_is_said_before_the_command_runs() {
    let context = context();
    for who in TestContext::users() {
        for file in ["/no/such/folder/report.json", "/"] {
            let finished = refused(&context, *who, &["--report", &format!("json={file}")], &[]);
            assert_eq!(finished.code, Some(125), "{finished:?}");
            assert!(finished.stderr.contains(&format!("failed to open report file {file}")), "{finished:?}");
        }
        // A full disk shows only when it is written to: what the command said must not be lost, nor pass for a report.
        let full = ["run", "--report", "json=/dev/full", "--", "sh", "-c"];
        for (script, code) in [("true", 125), ("exit 3", 3)] {
            let mut command = context.gate(*who, &full);
            command.arg(script);
            let finished = context.finish(command);
            assert_eq!(finished.code, Some(code), "{finished:?}");
            assert!(
                finished.stderr.contains("failed to write report file /dev/full: no space left"),
                "{finished:?}"
            );
        }
        let mut command =
            context.gate(*who, &["run", "--grace", "50ms", "--report", "json=/dev/full", "--", "sh", "-c"]);
        command.arg("sleep 120 &");
        assert_eq!(context.finish(command).code, Some(23), "a leak is told in spite of it");
    }
}

#[test]
fn a_state_folder_that_is_not_ones_own_is_refused() {
    let context = context();
    for who in TestContext::users() {
        let base = context.folder_of(*who, &format!("states-{who:?}"));
        let link = base.join("link");
        symlink(context.state(*who), &link).unwrap();
        let open = base.join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        chown_like(&base, &open);
        let mut cases = vec![
            (link.clone(), "symbolic link"),
            (open.clone(), "lets others in"),
            (open.join("below"), "can be written to by others"),
            ("/proc/nothing".into(), "failed to create state folder"),
            ("relative".into(), "not an absolute path"),
        ];
        if TestContext::users().len() == 2 {
            let (mine, other) =
                (context.state(*who), if *who == Who::Root { Who::Nobody } else { Who::Root });
            assert!(mine.exists());
            cases.push((context.state(other), "belongs to uid"));
            if *who == Who::Nobody {
                // A link on the way that another user made, and could turn around.
                let behind = base.join("way");
                symlink(context.state(*who), &behind).unwrap();
                std::os::unix::fs::lchown(&behind, Some(12345), None).unwrap();
                cases.push((behind.join("below"), "behind the symbolic link"));
            }
        }
        for (path, part) in cases {
            let finished = refused(&context, *who, &[], &[("HEADCOUNT_STATE_DIR", path.to_str().unwrap())]);
            assert_eq!(finished.code, Some(125), "{who:?} {}: {finished:?}", path.display());
            assert!(finished.stderr.contains(part), "{who:?} {}: {finished:?}", path.display());
        }
    }
}

fn chown_like(model: &std::path::Path, path: &std::path::Path) {
    let meta = fs::metadata(model).expect("a model");
    let (uid, gid) = (std::os::unix::fs::MetadataExt::uid(&meta), std::os::unix::fs::MetadataExt::gid(&meta));
    chown(path, Some(uid), Some(gid)).expect("the owner can be changed");
}

#[test]
fn a_missing_tier_is_named_and_can_be_refused() {
    let context = context();
    if TestContext::users().contains(&Who::Nobody) {
        let (finished, report) = context.report(Who::Nobody, &[], &["true"]);
        let missing = &report["missing_tiers"][0];
        assert_eq!(
            (missing["tier"].as_str(), report["verdict"].as_str()),
            (Some("cgroup"), Some("clean")),
            "{report}"
        );
        assert!(missing["reason"].as_str().unwrap().contains("permission denied"), "{report}");
        assert!(finished.stderr.contains("without cgroup: failed to create cgroup"), "{finished:?}");
        let finished = refused(&context, Who::Nobody, &["--require-tier", "cgroup"], &[]);
        assert_eq!(finished.code, Some(125), "{finished:?}");
        assert!(finished.stderr.contains("required tier cgroup is not in force"), "{finished:?}");
    }
}

/// Runs a script as root in a mount and pid namespace of its own, where it can spoil the machine's view for the gate alone.
fn spoiled(context: &TestContext, who: Who, spoil: &str, gate: &str) -> Finished {
    let mut command = context.command(Who::Root, "unshare");
    command
        .args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "--", "sh", "-c"])
        .arg(format!("{spoil} && {{ \"$@\" {gate}; }}"))
        .arg("sh")
        .args(TestContext::as_user(who))
        .args(["env", &format!("GATE={}", context.program().display()), "sh", "-c"])
        .env("HEADCOUNT_STATE_DIR", context.state(who));
    context.finish(command)
}

#[test]
fn without_a_cgroup_mount_the_tier_is_missing() {
    if !TestContext::needs(&[Need::Root, Need::Cgroup, Need::Program("unshare")]) {
        return;
    }
    let context = context();
    let spoil = "while m=$(awk '$0 ~ / - cgroup2 / {print $5; exit}' /proc/self/mountinfo); [ -n \"$m\" ]; do umount -l $m; done";
    let leaking = "'exec \"$GATE\" run --grace 50ms -- sh -c \"sleep 120 &\"'";
    let finished = spoiled(&context, Who::Root, spoil, leaking);
    assert_eq!(finished.code, Some(23), "{finished:?}");
    assert!(finished.stderr.contains("without cgroup: cgroup v2 is not mounted"), "{finished:?}");
    let required = "'exec \"$GATE\" run --require-tier cgroup -- true'";
    let finished = spoiled(&context, Who::Root, spoil, required);
    assert_eq!(finished.code, Some(125), "{finished:?}");
}

#[test]
fn the_proc_of_another_pid_namespace_is_refused() {
    if !TestContext::needs(&[Need::Root, Need::Program("unshare")]) {
        return;
    }
    let context = context();
    let mut command = context.command(Who::Root, "unshare");
    command
        .args(["--pid", "--fork", "--kill-child", "--"])
        .arg(context.program())
        .args(["run", "--", "true"]);
    let finished = context.finish(command);
    assert_eq!(finished.code, Some(125), "{finished:?}");
    assert!(finished.stderr.contains("/proc is of another pid namespace"), "{finished:?}");
}

/// With hidepid, a set-uid program that a user starts is invisible to that user, and still a leak.
#[test]
fn a_process_that_proc_hides_is_still_a_leak() {
    if !TestContext::needs(&[Need::Root, Need::Program("unshare")]) {
        return;
    }
    let context = context();
    let sleeper = context.path("suid-sleep");
    fs::copy("/bin/sleep", &sleeper).unwrap();
    fs::set_permissions(&sleeper, fs::Permissions::from_mode(0o4755)).unwrap();
    for hidepid in ["invisible", "ptraceable", "noaccess"] {
        let spoil = format!("mount -o remount,hidepid={hidepid} /proc");
        let gate = |script: &str| format!("'exec \"$GATE\" run --grace 50ms -- sh -c \"{script}\"'");
        let leaking = gate(&format!("{} 120 & true", sleeper.display()));
        let finished = spoiled(&context, Who::Nobody, &spoil, &leaking);
        assert_eq!(finished.code, Some(23), "hidepid={hidepid}: {finished:?}");
        assert!(finished.stderr.contains("leaked: 1 process"), "hidepid={hidepid}: {finished:?}");
        if hidepid != "noaccess" {
            assert!(finished.stderr.contains("unread"), "hidepid={hidepid}: {finished:?}");
        }
        let finished = spoiled(&context, Who::Nobody, &spoil, &gate("true"));
        assert_eq!(finished.code, Some(0), "hidepid={hidepid}: {finished:?}");
    }
}

#[test]
fn a_cgroup_that_vanishes_is_inconclusive() {
    if !TestContext::needs(&[Need::Root, Need::Cgroup]) {
        return;
    }
    let context = context();
    let own = headcount_sys::cgroup::own().unwrap();
    let script = "c=$0/headcount-${HEADCOUNT_TOKEN##*,}; echo $$ > $0/cgroup.procs; rmdir $c";
    let place = own.path().to_str().unwrap();
    let (finished, report) = context.report(Who::Root, &[], &["sh", "-c", script, place]);
    assert_eq!((finished.code, report["verdict"].as_str()), (Some(24), Some("inconclusive")), "{finished:?}");
    assert!(finished.stderr.contains("the scope's cgroup vanished"), "{finished:?}");
    // What was moved out of it and then leaked is found by the next tiers.
    let script = format!("{script}; setsid sleep 120 </dev/null >/dev/null 2>&1 &");
    let (finished, report) = context.report(Who::Root, &["--grace", "50ms"], &["sh", "-c", &script, place]);
    assert_eq!(finished.code, Some(23), "{finished:?}");
    assert_eq!(report["leaks"].as_array().map(Vec::len), Some(1), "{report:#}");
}

/// The token tier alone cannot see a process that lets nobody read its environment, and must not call that clean.
#[test]
fn a_process_with_an_unreadable_environment_is_inconclusive_for_the_token() {
    let context = context();
    // PR_SET_DUMPABLE, as ssh-agent does it; told by a pipe, once it is done.
    let script = "import ctypes, os, signal\nr, w = os.pipe()\nif os.fork() == 0:\n    os.setsid()\n    \
        ctypes.CDLL(None).prctl(4, 0)\n    os.write(w, b'.')\n    signal.alarm(20)\n    signal.pause()\nos.read(r, 1)";
    let options = ["--grace", "50ms", "--tier", "token"];
    let (finished, report) = context.report(Who::Nobody, &options, &["python3", "-c", script]);
    assert_eq!((finished.code, report["verdict"].as_str()), (Some(24), Some("inconclusive")), "{finished:?}");
    assert!(finished.stderr.contains("its environment cannot be read"), "{finished:?}");
    // With the subreaper it is a leak like any other.
    let (finished, report) = context.report(
        Who::Nobody,
        &["--grace", "50ms", "--tier", "subreaper,token"],
        &["python3", "-c", script],
    );
    assert_eq!(finished.code, Some(23), "{finished:?}");
    assert!(report["leaks"][0]["evidence_missing"].to_string().contains("environ"), "{report:#}");
}

/// A large environment, and few descriptors: neither hides a leak from the token.
#[test]
fn limits_do_not_blind_the_token() {
    let context = context();
    for who in TestContext::users() {
        let large = "import os, sys\n\
            os.environ.update({f'A{n:03}': 'x' * 120000 for n in range(12)})\nos.execv(sys.argv[1], sys.argv[1:])";
        let mut command = context.command(*who, "python3");
        command.args(["-c", large]).arg(context.program());
        command.args([
            "run",
            "--grace",
            "50ms",
            "--tier",
            "token",
            "--",
            "sh",
            "-c",
            "setsid sleep 119 </dev/null &",
        ]);
        let finished = context.finish(command);
        assert_eq!(finished.code, Some(23), "{who:?}: {finished:?}");
        let mut command = context.command(*who, "sh");
        let leaking = "for i in $(seq 30); do sleep 119 </dev/null >/dev/null 2>&1 & done";
        command.args(["-c", "ulimit -n 20; exec \"$@\"", "sh"]).arg(context.program());
        command.args(["run", "--grace", "50ms", "--tier", "token", "--", "sh", "-c", leaking]);
        let finished = context.finish(command);
        assert_eq!(finished.code, Some(23), "{who:?}: {finished:?}");
        assert!(finished.stderr.contains("leaked: 30 processes"), "{who:?}: {finished:?}");
        assert!(!finished.stderr.contains("lives on"), "{who:?}: {finished:?}");
    }
}

#[test]
fn a_first_run_under_a_hostile_umask_leaves_a_usable_state_folder() {
    let context = context();
    for who in TestContext::users() {
        let base = context.folder_of(*who, &format!("umask-{who:?}"));
        let mut command = context.command(*who, "sh");
        command.args(["-c", "umask 0777; \"$0\" run -- true && \"$0\" run -- true"]).arg(context.program());
        command.env("HEADCOUNT_STATE_DIR", base.join("state"));
        let finished = context.finish(command);
        assert_eq!(finished.code, Some(0), "{who:?}: {finished:?}");
    }
}

#[test]
fn a_gate_without_stdio_still_says_how_its_command_ended() {
    let context = context();
    for who in TestContext::users() {
        let mut command = context.command(*who, "sh");
        command.args(["-c", "\"$0\" run -- sh -c 'exit 5' <&- >&- 2>&-; echo $?"]).arg(context.program());
        let finished = context.finish(command);
        assert_eq!(finished.stdout.trim(), "5", "{who:?}: {finished:?}");
    }
}
