//! The blind spots of docs/blind-spots.md, each shown: what another process starts on a command's behalf is not its descendant.
//!
//! Each is a test that the verdict is *clean* while the process lives. When one of these fails, a blind spot is gone, and the
//! document has to say so.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use headcount_sys::{Pid, PidFd, Signal};
use headcount_tests::context::{Need, Started, TestContext, Who, ends};

use crate::context;

/// What is started on the command's behalf: it writes its number to a file and lives on.
fn service(pid_file: &str) -> String {
    format!(
        "perl -e 'open my $out, q(>), q({pid_file}.new); print $out $$; close $out; rename q({pid_file}.new), q({pid_file}); \
         alarm 100; select undef, undef, undef, 99'"
    )
}

fn process_in(pid_file: &PathBuf) -> PidFd {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Ok(text) = fs::read_to_string(pid_file) {
            return PidFd::open(Pid::new(text.parse().unwrap()).unwrap()).unwrap().expect("it lives");
        }
        assert!(Instant::now() < deadline, "the service did not start");
    }
}

/// Waits until the service runs, so that the gate had its chance.
fn and_wait(command: &str, pid_file: &str) -> String {
    format!("{command}\ni=0; until [ -e {pid_file} ] || [ $i -ge 100000 ]; do i=$((i+1)); done; exit 0")
}

fn end(process: &PidFd) {
    assert!(!process.has_exited().unwrap(), "it outlived the gate");
    process.signal(Signal::KILL).unwrap();
    assert!(ends(process));
}

fn outside(context: &TestContext, who: Who, line: &[&str], ready: &str) -> Started {
    let mut command = context.command(who, line.first().unwrap());
    command.args(line.get(1..).unwrap()).stdin(Stdio::piped());
    let started = context.start(command);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !started.stdout().contains(ready) {
        assert!(Instant::now() < deadline, "{line:?} is not ready: {}", started.stdout());
    }
    started
}

/// Docker, systemd and D-Bus alike start processes when they are asked to over a socket. D-Bus is the one that every machine can
/// run without being its init.
#[test]
fn what_a_bus_starts_is_not_seen() {
    if !TestContext::needs(&[Need::Program("dbus-daemon"), Need::Program("dbus-send"), Need::Program("perl")])
    {
        return;
    }
    let context = context();
    for who in TestContext::users() {
        let folder = context.folder_of(*who, &format!("bus-{who:?}"));
        let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        fs::write(at("serve.sh"), format!("exec {}", service(&at("pid")))).unwrap();
        fs::write(
            at("leak.service"),
            format!("[D-BUS Service]\nName=test.headcount.Leak\nExec=/bin/sh {}\n", at("serve.sh")),
        )
        .unwrap();
        let bus = format!(
            "<busconfig><type>session</type><listen>unix:path={}</listen><servicedir>{}</servicedir><policy context=\"default\">\
             <allow send_destination=\"*\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>",
            at("socket"),
            folder.display()
        );
        fs::write(at("bus.conf"), bus).unwrap();
        let address = format!("unix:path={}", at("socket"));
        let daemon = outside(
            &context,
            *who,
            &["dbus-daemon", "--nofork", "--print-address=1", &format!("--config-file={}", at("bus.conf"))],
            "unix:",
        );
        let call = format!(
            "DBUS_SESSION_BUS_ADDRESS={address} dbus-send --session --print-reply --dest=org.freedesktop.DBus /org/freedesktop/DBus \
             org.freedesktop.DBus.StartServiceByName string:test.headcount.Leak uint32:0 >/dev/null 2>&1 & asked=$!"
        );
        // Who asks has to stay until the service is there.
        let line = and_wait(&call, &at("pid")).replace("exit 0", "kill $asked; wait $asked; exit 0");
        let (finished, report) = context.report(*who, &[], &["sh", "-c", &line]);
        assert_eq!(
            (finished.code, report["verdict"].as_str()),
            (Some(0), Some("clean")),
            "{who:?}: {finished:?}"
        );
        end(&process_in(&folder.join("pid")));
        daemon.process().signal(Signal::TERM).unwrap();
        drop(daemon.finish());
    }
}

/// `at` runs a job with the environment of whoever ordered it: outside of the cgroup and of the tree, but with the token.
#[test]
fn what_at_starts_is_seen_by_its_token_alone() {
    if !TestContext::needs(&[Need::Root, Need::Program("at"), Need::Program("atd"), Need::Program("perl")]) {
        return;
    }
    let context = context();
    let mut daemon = context.command(Who::Root, "atd");
    daemon.arg("-f");
    let daemon = context.start(daemon);
    for (tiers, code) in [("cgroup,subreaper", 0), ("token", 23)] {
        let pid_file = context.path(format!("at-{code}"));
        let name = pid_file.to_str().unwrap();
        fs::write(context.path("job"), format!("exec {}", service(name))).unwrap();
        // atd may not be up yet: its own file tells.
        let order = format!("until at -f {} now 2>&1 | grep -q '^job'; do :; done", context.text("job"));
        let (finished, report) = context.report(
            Who::Root,
            &["--tier", tiers, "--grace", "0s"],
            &["sh", "-c", &and_wait(&order, name)],
        );
        assert_eq!(finished.code, Some(code), "{tiers}: {finished:?} {report:#}");
        let text = fs::read_to_string(&pid_file).unwrap();
        let left = PidFd::open(Pid::new(text.parse().unwrap()).unwrap()).unwrap();
        assert_eq!(left.is_some(), code == 0, "{tiers}: {report:#}");
        if let Some(left) = left {
            end(&left);
        }
    }
    daemon.process().signal(Signal::TERM).unwrap();
    drop(daemon.finish());
}

/// On another machine, as far as the gate is concerned: what runs behind an SSH server.
#[test]
fn what_runs_behind_an_ssh_server_is_not_seen() {
    if !TestContext::needs(&[
        Need::Root,
        Need::Program("ssh"),
        Need::Program("sshd"),
        Need::Program("ssh-keygen"),
    ]) {
        return;
    }
    let context = context();
    let (config, mut server) = crate::exceptions::ssh_server(&context, "");
    let pid_file = context.path("remote-pid");
    let remote = format!("setsid {} </dev/null >/dev/null 2>&1 &", service(pid_file.to_str().unwrap()));
    let line = format!("ssh -F {config} here \"$0\"");
    let wait = and_wait(&line, pid_file.to_str().unwrap());
    let (finished, report) = context.report(Who::Root, &[], &["sh", "-c", &wait, &remote]);
    assert_eq!((finished.code, report["verdict"].as_str()), (Some(0), Some("clean")), "{finished:?}");
    end(&process_in(&pid_file));
    drop(server.stdin());
    assert_eq!(server.finish().code, Some(0));
}

/// Its orphans go to that namespace's init, which is not the gate's.
#[test]
fn what_enters_an_older_pid_namespace_is_seen_by_the_cgroup_alone() {
    if !TestContext::needs(&[Need::Root, Need::Cgroup, Need::Program("nsenter"), Need::Program("perl")]) {
        return;
    }
    let context = context();
    let line = [
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "sh",
        "-c",
        "echo ready; exec sleep 100",
    ];
    let older = outside(&context, Who::Root, &line, "ready");
    let init = headcount_sys::proc::children(older.process().pid()).unwrap();
    let init = init.first().unwrap().to_string();
    for (tiers, code) in [("subreaper,token", 0), ("cgroup", 23)] {
        let mark = context.text(format!("entered-{code}"));
        let script = format!("env -i setsid {} </dev/null >/dev/null 2>&1 &", service(&mark));
        let enter = format!("nsenter -t {init} -p sh -c \"$0\"");
        let (finished, report) =
            context.report(Who::Root, &["--tier", tiers], &["sh", "-c", &and_wait(&enter, &mark), &script]);
        assert_eq!(finished.code, Some(code), "{tiers}: {finished:?} {report:#}");
    }
    // With the older namespace's init goes all that is in it.
    older.process().signal(Signal::KILL).unwrap();
    drop(older.finish());
}

/// Every blind spot that the document names is shown by a test that it names.
#[test]
fn the_document_names_its_tests() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let document = fs::read_to_string(format!("{folder}/docs/blind-spots.md")).unwrap();
    let mut named = 0;
    for word in document.split('`').filter(|word| word.contains("::")) {
        let (module, test) = word.rsplit_once("::").unwrap();
        let source = fs::read_to_string(format!("{folder}/tests/tests/gate/{module}.rs")).unwrap();
        assert!(source.contains(&format!("fn {test}()")) || source.contains(&format!("{test}:")), "{word}");
        named += 1;
    }
    assert!(named >= 8, "{named}");
}
