//! What is meant to outlive a command does so if it is named, and is reported; otherwise it is a leak like any other.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use headcount_sys::{Pid, PidFd, Signal};
use headcount_tests::context::{Need, Started, TestContext, Who, ends};
use serde_json::Value;

use crate::context;

/// A program with another's name and command line. It is perl, which starts a child of its own and waits to be ended.
struct Impostor {
    exception: &'static str,
    program: &'static str,
    arguments: &'static str,
    title: &'static str,
}

const IMPOSTORS: &[Impostor] = &[
    Impostor { exception: "bazel", program: "java", arguments: "/cache/install/0f/A-server.jar", title: "" },
    Impostor {
        exception: "gradle",
        program: "java",
        arguments: "org.gradle.launcher.daemon.bootstrap.GradleDaemon",
        title: "",
    },
    Impostor {
        exception: "kotlin",
        program: "java",
        arguments: "org.jetbrains.kotlin.daemon.KotlinCompileDaemon",
        title: "",
    },
    Impostor { exception: "sccache", program: "sccache", arguments: "", title: "" },
    Impostor { exception: "ssh", program: "ssh", arguments: "", title: "$0 = q(ssh: /root/.ssh/cm [mux]);" },
];

/// Starts the impostor; goes on when it has a child and has let go of the pipe.
fn script(folder: &Path, impostor: &Impostor) -> String {
    let Impostor { program, arguments, title, .. } = impostor;
    // The program comes from stdin, so that there are no arguments but the given ones.
    let body = format!(
        "{title} if (!fork) {{ close STDOUT; alarm 100; select undef, undef, undef, 99; exit }} close STDOUT; alarm 100; select undef, undef, undef, 99"
    );
    let dash = if arguments.is_empty() { "" } else { "-" };
    format!(
        ": $(setsid {}/{program} {dash} {arguments} <<'END' 2>/dev/null &\n{body}\nEND\n)",
        folder.display()
    )
}

fn end(excepted: &Value) {
    let pid = Pid::new(i32::try_from(excepted["pid"].as_i64().unwrap()).unwrap()).unwrap();
    let process = PidFd::open(pid).unwrap().expect("it was let go");
    process.signal(Signal::KILL).unwrap();
    assert!(ends(&process));
}

#[test]
fn an_exception_is_in_force_only_if_it_is_named() {
    if !TestContext::needs(&[Need::Program("perl"), Need::Program("setsid")]) {
        return;
    }
    let context = context();
    let folder = context.path("impostors");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    for program in ["java", "sccache", "ssh"] {
        fs::copy("/usr/bin/perl", folder.join(program)).unwrap();
    }
    for who in TestContext::users() {
        for impostor in IMPOSTORS {
            let line = script(&folder, impostor);
            let name = impostor.exception;
            // Not named: a leak, with the child that it has.
            let (finished, report) = context.report(*who, &["--grace", "0s"], &["sh", "-c", &line]);
            assert_eq!(
                (finished.code, report["leaks"].as_array().unwrap().len()),
                (Some(23), 2),
                "{name}: {finished:?}"
            );
            // Another is named: the same.
            let other = if name == "ssh" { "gradle" } else { "ssh" };
            let (finished, _) =
                context.report(*who, &["--grace", "0s", "--except", other], &["sh", "-c", &line]);
            assert_eq!(finished.code, Some(23), "{name}: {finished:?}");
            for tiers in ["cgroup,subreaper,token,events", "subreaper,token", "subreaper", "token", "cgroup"]
            {
                // A title of its own overwrites the environment, which the token alone cannot see.
                let is_blind = tiers == "token" && !impostor.title.is_empty();
                if is_blind || tiers == "cgroup" && *who == Who::Nobody {
                    continue;
                }
                // A long grace, because there is nothing to wait for.
                let options = ["--tier", tiers, "--grace", "60s", "--except", name];
                let (finished, report) = context.report(*who, &options, &["sh", "-c", &line]);
                let what = format!("{name}, {who:?}, {tiers}: {finished:?} {report:#}");
                assert_eq!((finished.code, report["verdict"].as_str()), (Some(0), Some("clean")), "{what}");
                assert!(finished.stderr.contains(&format!("but what is excepted: {name} ")), "{what}");
                let excepted = report["excepted"].as_array().unwrap();
                assert_eq!(excepted.len(), 2, "{what}");
                assert!(excepted.iter().all(|one| one["exception"] == name), "{what}");
                assert_eq!(fs::read_dir(context.state(*who).join("runs")).unwrap().count(), 0, "{what}");
                excepted.iter().for_each(end);
            }
        }
    }
}

#[test]
fn a_leak_beside_an_exception_is_ended_alone() {
    if !TestContext::needs(&[Need::Program("perl"), Need::Program("setsid")]) {
        return;
    }
    let context = context();
    let folder = context.path("impostors");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy("/usr/bin/perl", folder.join("java")).unwrap();
    for who in TestContext::users() {
        let gradle = IMPOSTORS.iter().find(|one| one.exception == "gradle").unwrap();
        // One that has to be killed, so that everything is used that ends processes.
        let line = format!("{}; (trap '' TERM; exec sleep 100) & exit 0", script(&folder, gradle));
        let options = ["--grace", "200ms", "--except", "gradle"];
        let (finished, report) = context.report(*who, &options, &["sh", "-c", &line]);
        assert_eq!(finished.code, Some(23), "{finished:?}");
        let leaks = report["leaks"].as_array().unwrap();
        assert_eq!((leaks.len(), &leaks[0]["ended_by"]), (1, &"kill".into()), "{report:#}");
        assert_eq!(report["excepted"].as_array().unwrap().len(), 2, "{report:#}");
        report["excepted"].as_array().unwrap().iter().for_each(end);
    }
}

#[test]
fn an_exception_cannot_be_kept_in_a_namespace() {
    let context = context();
    let who = *TestContext::users().first().unwrap();
    let finished =
        context.finish(context.gate(who, &["run", "--tier", "+namespace", "--except", "ssh", "--", "true"]));
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.stderr.contains("everything in a pid namespace ends with it"), "{finished:?}");
}

/// An SSH server outside of every gate, and the configuration for a client, with more options for it. The server ends when its stdin
/// does.
pub(crate) fn ssh_server(context: &TestContext, options: &str) -> (String, Started) {
    // Where sshd puts those who have not logged in yet.
    drop(fs::create_dir("/run/sshd"));
    let folder = context.folder_of(Who::Root, "ssh");
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    for key in ["host", "user"] {
        let mut keygen = context.command(Who::Root, "ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-f", &at(key)]);
        assert_eq!(context.finish(keygen).code, Some(0));
    }
    let server = format!(
        "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nPidFile none\nUsePAM no\nPermitRootLogin yes\n",
        at("host"),
        at("user.pub")
    );
    fs::write(at("sshd_config"), server).unwrap();
    let fixture = context.text("fixtures/sshd_outside.py");
    let client = format!(
        "Host here\n ProxyCommand {fixture} {}\n ProxyUseFdpass yes\n IdentityFile {}\n StrictHostKeyChecking no\n \
         UserKnownHostsFile /dev/null\n LogLevel ERROR\n{options}",
        at("s"),
        at("user"),
    );
    fs::write(at("ssh_config"), client).unwrap();
    let mut outside = context.command(Who::Root, &fixture);
    outside.args([at("s"), at("sshd_config")]).stdin(Stdio::piped());
    let outside = context.start(outside);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !outside.stdout().contains("ready") {
        assert!(std::time::Instant::now() < deadline, "the server does not start");
    }
    (at("ssh_config"), outside)
}

/// The real thing: OpenSSH's master of a shared connection.
#[test]
fn a_real_ssh_master_is_let_go() {
    if !TestContext::needs(&[
        Need::Root,
        Need::Program("ssh"),
        Need::Program("sshd"),
        Need::Program("ssh-keygen"),
    ]) {
        return;
    }
    let context = context();
    let shared = format!(" ControlMaster auto\n ControlPath {}\n ControlPersist 90\n", context.text("c"));
    let (config, mut outside) = ssh_server(&context, &shared);
    let ssh = ["ssh", "-F", &config, "here", "echo hello"];
    let (finished, report) = context.report(Who::Root, &["--except", "ssh", "--grace", "60s"], &ssh);
    assert_eq!((finished.code, finished.stdout.trim()), (Some(0), "hello"), "{finished:?} {report:#}");
    assert_eq!(report["excepted"].as_array().unwrap().len(), 1, "{report:#}");
    end(&report["excepted"][0]);
    // Without the exception, it is a leak.
    let (finished, report) = context.report(Who::Root, &["--grace", "0s"], &ssh);
    assert_eq!(finished.code, Some(23), "{finished:?} {report:#}");
    drop(outside.stdin());
    assert_eq!(outside.finish().code, Some(0));
}
