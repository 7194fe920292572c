//! What passes through the gate untouched, and what the gate holds on to: nothing.

use headcount_tests::context::{Need, TestContext, Who};

use crate::context;

#[test]
fn a_hundred_megabytes_pass_byte_for_byte() {
    let context = context();
    for who in TestContext::users() {
        let folder = context.folder_of(*who, &format!("pipe-{who:?}"));
        let mut command = context.command(*who, "sh");
        command.current_dir(&folder).args([
            "-c",
            "head -c 104857600 /dev/urandom > in && cat in | \"$0\" run -- cat | cmp - in && wc -c < in; rm in",
        ]);
        command.arg(context.program());
        let finished = context.finish(command);
        assert_eq!((finished.code, finished.stdout.trim()), (Some(0), "104857600"), "{who:?}: {finished:?}");
    }
}

#[test]
fn a_reader_sees_the_end_when_the_command_closes_its_output() {
    // The command closes stdout and descriptor 3, and goes on until its stdin ends, which comes only once the reader of each has
    // seen the end of file: a gate that held copies would hang here.
    let context = context();
    for who in TestContext::users() {
        let driver = "import os,subprocess,sys\n\
             r,w=os.pipe()\n\
             p=subprocess.Popen([sys.argv[1],'run','--','sh','-c',\
             f'echo out; echo three >&{w}; exec >&- {w}>&-; read line; test \"$line\" = go'],\
             stdin=subprocess.PIPE,stdout=subprocess.PIPE,pass_fds=[w])\n\
             os.close(w)\n\
             print(p.stdout.read(), os.read(r,100), os.read(r,100), p.poll())\n\
             p.stdin.write(b'go\\n'); p.stdin.close()\n\
             sys.exit(p.wait())\n";
        let mut command = context.command(*who, "python3");
        command.args(["-c", driver]).arg(context.program());
        let finished = context.finish(command);
        assert_eq!(
            (finished.code, finished.stdout.trim()),
            (Some(0), "b'out\\n' b'three\\n' b'' None"),
            "{who:?}: {finished:?}"
        );
    }
}

/// Row S26: a clean run is one line on stderr, whatever it did, and nothing on stdout.
#[test]
fn a_clean_run_is_quiet() {
    let context = context();
    for who in TestContext::users() {
        let finished = context.finish(context.gate(*who, &["run", "--", "sh", "-c", "sh -c 'exit 1'; :"]));
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), ""), "{finished:?}");
        assert_eq!(finished.stderr.lines().count(), 1, "{finished:?}");
    }
}

#[test]
fn the_environment_gains_one_variable() {
    let context = context();
    let who = TestContext::users()[0];
    let mut command = context.gate(who, &["run", "--", "env"]);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HEADCOUNT_STATE_DIR", context.state(who));
    let finished = context.finish(command);
    let mut names: Vec<&str> = finished.stdout.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["HEADCOUNT_STATE_DIR", "HEADCOUNT_TOKEN", "PATH"], "{finished:?}");
}

/// Entries that look like nothing, and equal names, are what a program is given, in that order.
#[test]
fn the_environment_is_passed_on_byte_for_byte() {
    let context = context();
    let script = "import os, sys, ctypes\n\
        env = [b'B=1', b'A=first', b'A=second', b'no-equals-sign', b'HEADCOUNT_STATE_DIR=' + sys.argv[1].encode()]\n\
        argv = [word.encode() for word in sys.argv[2:]]\n\
        array = lambda words: (ctypes.c_char_p * (len(words) + 1))(*words, None)\n\
        ctypes.CDLL(None).execve(argv[0], array(argv), array(env))";
    for who in TestContext::users() {
        let environ = |gate: &[&str]| {
            let mut command = context.command(*who, "python3");
            command
                .args(["-c", script])
                .arg(context.state(*who))
                .args(gate)
                .args(["/bin/cat", "/proc/self/environ"]);
            let finished = context.finish(command);
            assert_eq!(finished.code, Some(0), "{finished:?}");
            finished.stdout
        };
        let (bare, gated) = (environ(&[]), environ(&[&context.text("headcount"), "run", "--"]));
        let rest = gated.strip_prefix(&bare).unwrap_or_else(|| panic!("{bare:?} became {gated:?}"));
        assert!(rest.starts_with("HEADCOUNT_TOKEN=") && rest.matches('\0').count() == 1, "{rest:?}");
    }
}

#[test]
fn a_gate_inside_a_gate_reports_its_own_and_leaves_the_outer_clean() {
    let context = context();
    let program = context.text("headcount");
    for who in TestContext::users() {
        let (finished, report) = context.report(
            *who,
            &[],
            &[
                &program,
                "run",
                "--grace",
                "100ms",
                "--",
                "sh",
                "-c",
                "setsid sleep 120 </dev/null >/dev/null 2>&1 &",
            ],
        );
        assert_eq!(finished.code, Some(23), "{finished:?}");
        assert_eq!(report["verdict"], "clean", "the inner gate has ended its own: {report:#}");
        assert!(finished.stderr.contains("leaked: 1 process"), "{finished:?}");
        // The other way round: what the outer command leaves is the outer gate's.
        let script = format!("sleep 120 & {program} run -- true");
        let (finished, report) = context.report(*who, &["--grace", "100ms"], &["sh", "-c", &script]);
        assert_eq!(finished.code, Some(23), "{finished:?}");
        assert_eq!(report["leaks"].as_array().map(Vec::len), Some(1), "{report:#}");
        assert!(finished.stderr.contains("clean"), "{finished:?}");
    }
}

#[test]
fn what_the_gate_made_is_gone_afterwards() {
    let context = context();
    for who in TestContext::users() {
        for script in ["true", "sleep 120 & true"] {
            let (_, report) = context.report(*who, &["--grace", "50ms"], &["sh", "-c", script]);
            let runs = std::fs::read_dir(context.state(*who).join("runs")).unwrap().count();
            assert_eq!(runs, 0, "{who:?}: a run folder is left");
            if let Ok(own) = headcount_sys::cgroup::own() {
                let cgroup = own.path().join(format!("headcount-{}", report["run_id"].as_str().unwrap()));
                assert!(!cgroup.exists(), "{who:?}: {} is left", cgroup.display());
            }
        }
    }
}

#[test]
fn cgroups_that_the_command_made_are_removed_with_the_scopes() {
    if !TestContext::needs(&[Need::Root, Need::Cgroup]) {
        return;
    }
    let context = context();
    let own = headcount_sys::cgroup::own().unwrap();
    let script = "c=$0$(sed -n 's/^0:://p' /proc/self/cgroup); mkdir -p $c/a/b $c/d; \
        sleep 120 & echo $! > $c/a/b/cgroup.procs; echo $c";
    // The mount is where the tests' own cgroup is found, without its path on the hierarchy.
    let path = headcount_sys::proc::own_cgroup().unwrap();
    let path = String::from_utf8(path).unwrap();
    let mount =
        own.path().to_str().unwrap().trim_end_matches(path.trim_end_matches('/')).trim_end_matches('/');
    let (finished, report) =
        context.report(Who::Root, &["--grace", "50ms", "--tier", "cgroup"], &["sh", "-c", script, mount]);
    assert_eq!(finished.code, Some(23), "{finished:?}");
    assert_eq!(report["leaks"].as_array().map(Vec::len), Some(1), "{report:#}");
    let scope = finished.stdout.trim();
    assert!(scope.contains("/headcount-") && !std::path::Path::new(scope).exists(), "{scope} is left");
}

#[test]
fn a_gate_that_inherits_children_leaves_them_alone() {
    let context = context();
    for who in TestContext::users() {
        // `exec` keeps the shell's children: they are the gate's from its first instruction, and none of the command's.
        let mut command = context.command(*who, "sh");
        command
            .args(["-c", "sleep 119 & echo $!; exec \"$0\" run --grace 50ms -- true"])
            .arg(context.program());
        let finished = context.finish(command);
        let sleeper: i32 = finished.stdout.trim().parse().unwrap();
        let sleeper = headcount_sys::PidFd::open(headcount_sys::Pid::new(sleeper).unwrap()).unwrap();
        let sleeper = sleeper.unwrap_or_else(|| panic!("{who:?}: the bystander is gone: {finished:?}"));
        assert!(!sleeper.has_exited().unwrap(), "{who:?}: the bystander was ended: {finished:?}");
        sleeper.signal(headcount_sys::Signal::KILL).unwrap();
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert!(finished.stderr.contains("without subreaper: this process had 1 children"), "{finished:?}");
    }
}

#[test]
fn the_report_names_the_test_and_keeps_secrets() {
    let context = context();
    for who in TestContext::users() {
        let (finished, report) = context.report(
            *who,
            &["--grace", "50ms"],
            &[&context.text("corpus/test_environment.py"), "leak"],
        );
        assert_eq!(report["leaks"][0]["test"]["id"], "tests/test_api.py::test_serves (call)", "{report:#}");
        assert!(
            finished.stderr.contains("test     pytest tests/test_api.py::test_serves (call)"),
            "{finished:?}"
        );
        let (finished, report) =
            context.report(*who, &["--grace", "50ms"], &[&context.text("corpus/secret_argv.py"), "leak"]);
        let all = format!("{}{report}", finished.stderr);
        assert!(all.contains("--password=[redacted]"), "{all}");
        for secret in ["hunter2-PLAIN", "pgpass-PLAIN", "envsecret-PLAIN", "sk-live-abcdefghijklmnop"] {
            assert!(!all.contains(secret), "{secret} is shown: {all}");
        }
        let (_, report) = context.report(
            *who,
            &["--grace", "50ms"],
            &[&context.text("corpus/listening_server.py"), "leak"],
        );
        let listening = report["leaks"][0]["listening"].to_string();
        assert!(listening.contains("tcp 127.0.0.1:") && listening.contains("unix @"), "{listening}");
    }
}

#[test]
fn a_command_that_hangs_is_ended_after_its_time_and_named() {
    let context = context();
    for who in TestContext::users() {
        let options = ["--timeout", "300ms", "--grace", "200ms"];
        let (finished, report) = context.report(*who, &options, &["sh", "-c", "sleep 118"]);
        assert_eq!(finished.signal, Some(15), "{finished:?}");
        assert!(
            finished.stderr.contains("ended after 300ms") && finished.stderr.contains("sleep 118"),
            "{finished:?}"
        );
        assert_eq!(report["exit"]["signal"], 15, "{report:#}");
        // One that takes SIGTERM for a success must not pass for one.
        let script = "trap 'kill $!; wait; exit 0' TERM; sleep 118 & wait";
        let (finished, _) = context.report(*who, &options, &["sh", "-c", script]);
        assert_eq!(finished.code, Some(24), "{finished:?}");
        // One that ignores it is killed; what it started is a leak.
        let (finished, _) =
            context.report(*who, &options, &["sh", "-c", "trap '' TERM; sleep 118; sleep 118"]);
        assert_eq!(finished.signal, Some(9), "{finished:?}");
    }
}

#[test]
fn the_grace_ends_with_the_last_process_and_a_leak_can_be_forgiven() {
    let context = context();
    for who in TestContext::users() {
        // The grace is far longer than the test may take: that it comes back at all shows that it did not wait it out.
        let (finished, report) =
            context.report(*who, &["--grace", "10m"], &[&context.text("corpus/shallow_tail.py"), "clean"]);
        assert_eq!((finished.code, report["verdict"].as_str()), (Some(0), Some("clean")), "{report:#}");
        let options = ["--grace", "50ms", "--on-leak", "report"];
        let (finished, report) = context.report(*who, &options, &["sh", "-c", "sleep 120 &"]);
        assert_eq!((finished.code, report["verdict"].as_str()), (Some(0), Some("leaked")), "{report:#}");
        let options = ["--grace", "50ms", "--leak-exit-code", "77"];
        let (finished, _) = context.report(*who, &options, &["sh", "-c", "sleep 120 &"]);
        assert_eq!(finished.code, Some(77), "{finished:?}");
    }
}
