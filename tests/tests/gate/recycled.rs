//! A number that changed hands between record and cleanup harms no innocent (row N7): 1,000 of them, forced.

use std::fs;

use headcount_tests::context::{Need, TestContext, Who, say};
use serde_json::Value;

use crate::context;

const COUNT: usize = 1_000;

/// Plays a scene of the recycler as init of a private pid namespace.
fn play(context: &TestContext, who: Who, scene: &str, tiers: &str) -> Value {
    let program = context.path("recycler");
    fs::copy(env!("CARGO_BIN_EXE_headcount-recycler"), &program).unwrap();
    let folder = context.folder_of(who, &format!("scene-{scene}-{who:?}-{}", tiers.replace(',', "-")));
    let mut command = context.command(who, "prlimit");
    command.args(["--nofile=4096:", "unshare"]);
    if who == Who::Nobody {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "--"]);
    command.arg(&program).arg(scene).arg(context.program()).arg(COUNT.to_string()).arg(&folder);
    command.env("TIERS", tiers);
    let finished = context.finish(command);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished:?}"))
}

fn check(scene: &str, tiers: &str, status: i64) {
    if !TestContext::needs(&[Need::Program("unshare"), Need::Program("prlimit")]) {
        return;
    }
    let context = context();
    for who in TestContext::users() {
        let seen = play(&context, *who, scene, tiers);
        let what = format!("{scene}, {who:?}, {tiers}: {seen}");
        assert_eq!(seen["recycled"], COUNT, "{what}");
        assert_eq!(seen["harmed"], 0, "{what}");
        assert_eq!(seen["status"], status, "{what}");
        say(&format!(
            "{scene}, {who:?}: {} numbers recycled, {} of them with the same start time, {} innocents harmed",
            seen["recycled"], seen["alike"], seen["harmed"]
        ));
    }
}

#[test]
fn the_gate_signals_none_that_got_a_leaks_number() {
    check("gate", "subreaper,token", 23);
}

#[test]
fn an_audit_and_a_reaping_know_a_dead_host_from_who_got_its_number() {
    check("hosts", "", 0);
}

#[test]
fn a_reaping_signals_none_that_got_a_remnants_number() {
    check("left", "", 0);
}
