//! Who started a leak is told up to the command, also when the parents are gone (row N9).

use std::fs;

use headcount_tests::context::{Need, TestContext, Who};
use serde_json::Value;

use crate::context;

/// Perl, because it forks quickly. Each level forks the next, executes `sh`, and exits when its own child is a session leader's
/// child's; the last becomes a daemon. `$$` of each is written down, the command's first.
const CHAIN: &str = r#"
use POSIX ();
my ($file, $levels) = @ARGV;
open my $out, '>', $file or die; $out->autoflush(1);
pipe my $ready_r, my $ready_w or die;
print $out "$$\n";
for my $level (1 .. $levels) {
    my $pid = fork // die;
    if ($pid) { if ($level > 1) { POSIX::_exit(0) } close $ready_w; waitpid $pid, 0; sysread $ready_r, my $byte, 1; exit 0 }
    print $out "$$\n";
    POSIX::setsid() if $level == 2;
}
syswrite $ready_w, 'x';
close $ready_w; close $ready_r; close STDIN; close STDOUT; close STDERR;
alarm 100;
select undef, undef, undef, 100;
"#;

fn chain_of(leak: &Value) -> Vec<i64> {
    leak["spawned_by"].as_array().unwrap().iter().map(|link| link["pid"].as_i64().unwrap()).collect()
}

fn lacks_ancestors(leak: &Value) -> bool {
    leak["evidence_missing"].as_array().unwrap().iter().any(|name| name == "spawned_by")
}

/// Runs a chain whose every ancestor is gone, and returns the report and the pids from the daemon's parent up to the command.
fn gone_ancestors(context: &TestContext, who: Who, tiers: &str, before: &str) -> (Value, Vec<i64>) {
    let file = context.folder_of(who, &format!("chain-{who:?}")).join("pids");
    let script = format!("{before}\n{CHAIN}");
    let options = ["--tier", tiers, "--grace", "0s"];
    let (finished, report) =
        context.report(who, &options, &["perl", "-MIO::Handle", "-e", &script, file.to_str().unwrap(), "5"]);
    assert_eq!(finished.code, Some(23), "{finished:?}");
    let mut pids: Vec<i64> =
        fs::read_to_string(&file).unwrap().lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(pids.pop(), report["leaks"][0]["pid"].as_i64());
    pids.reverse();
    (report, pids)
}

#[test]
fn every_dead_ancestor_is_named_up_to_the_command() {
    if !TestContext::needs(&[Need::Program("perl"), Need::Events]) {
        return;
    }
    let context = context();
    for who in TestContext::users() {
        let (report, pids) = gone_ancestors(&context, *who, "subreaper,events", "");
        let leak = &report["leaks"][0];
        assert_eq!(chain_of(leak), pids, "{who:?}: {leak:#}");
        assert!(!lacks_ancestors(leak), "{who:?}: {leak:#}");
        assert_eq!(report["stats"]["forks"], 6, "{who:?}: {report:#}");
        for link in leak["spawned_by"].as_array().unwrap() {
            assert_eq!(link["alive"], false, "{who:?}: {leak:#}");
            // They forked without executing anything, so what the command was is what they were. It is read when the command
            // starts, if the machine lets the gate do so in time.
            assert_eq!(
                link["argv_known"].as_bool(),
                link["argv"][0].as_str().map(|word| word == "perl").or(Some(false))
            );
        }
    }
}

/// The control: without the record of births, dead ancestors are not known, and the report says so.
#[test]
fn without_the_record_dead_ancestors_are_said_to_be_missing() {
    if !TestContext::needs(&[Need::Program("perl")]) {
        return;
    }
    let context = context();
    for who in TestContext::users() {
        let (report, _) = gone_ancestors(&context, *who, "subreaper", "");
        let leak = &report["leaks"][0];
        assert!(chain_of(leak).is_empty() && lacks_ancestors(leak), "{who:?}: {leak:#}");
        assert_eq!(report["stats"]["forks"], Value::Null);
    }
}

/// A gate that does not get to read, and forks that do not fit into its buffer.
#[test]
fn lost_events_are_said() {
    if !TestContext::needs(&[Need::Program("perl"), Need::Events]) {
        return;
    }
    let context = context();
    let storm = "kill 'STOP', getppid; for (1 .. 20_000) { my $pid = fork // next; \
                 if (!$pid) { POSIX::_exit(0) } waitpid $pid, 0 } kill 'CONT', getppid;";
    for who in TestContext::users() {
        let (report, _) = gone_ancestors(&context, *who, "subreaper,events", storm);
        let leak = &report["leaks"][0];
        assert!(lacks_ancestors(leak), "{who:?}: {leak:#}");
        assert_eq!(report["stats"]["forks"], Value::Null, "{who:?}: {report:#}");
    }
}

/// What is too much to be read one by one is not too much.
#[test]
fn thousands_of_forks_are_all_counted() {
    if !TestContext::needs(&[Need::Program("perl"), Need::Events]) {
        return;
    }
    let context = context();
    let script = "for (1 .. 5_000) { my $pid = fork // die; if (!$pid) { exit } waitpid $pid, 0 }";
    for who in TestContext::users() {
        let (finished, report) = context.report(*who, &[], &["perl", "-e", script]);
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert_eq!(report["stats"]["forks"], 5_001, "{who:?}: {report:#}");
    }
}
