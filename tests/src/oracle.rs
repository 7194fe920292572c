//! Who is left, counted by an init that shares no code with the detector (principle 7 of the design).

use std::fs;

use crate::context::{Finished, TestContext, Who};

/// What the oracle counted when the command had ended and the grace was over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The command's exit status.
    pub exit: Option<i64>,
    /// The least and the most that lived.
    pub alive: (u64, u64),
    /// The least and the most that were dead under another parent than init.
    pub zombies: (u64, u64),
}

/// Runs a command line in a fresh pid namespace, as a user, and counts who is left.
///
/// # Panics
/// Where the oracle cannot run, or the command does not end.
#[must_use]
pub fn count(context: &TestContext, who: Who, grace: &str, command: &[String]) -> (Count, Finished) {
    count_in(context, who, grace, "", command)
}

/// As [`count`], after root has moved the command into the cgroup behind the `cgroup.procs` at `join`, if that is not empty.
///
/// # Panics
/// As [`count`].
#[must_use]
pub fn count_in(
    context: &TestContext,
    who: Who,
    grace: &str,
    join: &str,
    command: &[String],
) -> (Count, Finished) {
    let folder = tempfile::Builder::new().prefix("oracle-").tempdir_in(context.path("")).expect("a folder");
    let out = folder.path().join("count.json");
    // As root, the namespace's init stays root, and only the command becomes the other user: without capabilities, also in
    // the namespace. Otherwise a user namespace has to be made, in which the command looks like root to itself.
    let is_root = TestContext::users().contains(&Who::Root);
    let mut line: Vec<String> = Vec::new();
    if !is_root {
        line.extend(["--user", "--map-root-user"].map(String::from));
    }
    line.extend(
        ["--pid", "--fork", "--mount-proc", "--kill-child", "--", "/usr/bin/python3"].map(String::from),
    );
    line.extend([context.text("oracle/oracle.py"), "--grace".into(), grace.into(), "--out".into()]);
    line.extend([out.display().to_string(), "--".into()]);
    if !join.is_empty() {
        line.extend(["sh", "-c", "echo 0 >\"$0\" && exec \"$@\"", join].map(String::from));
    }
    line.extend(TestContext::as_user(who));
    line.extend_from_slice(command);
    let mut unshare = context.command(if is_root { Who::Root } else { Who::Nobody }, "unshare");
    unshare.args(&line).env("HEADCOUNT_STATE_DIR", context.state(who));
    let finished = context.finish(unshare);
    let text = fs::read_to_string(&out).unwrap_or_default();
    let json: serde_json::Value = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("no count ({error}): {text:?}\n{finished:?}"));
    let number = |name: &str| json[name].as_u64().unwrap_or_else(|| panic!("no {name} in {text}"));
    let count = Count {
        exit: json["exit"].as_i64(),
        alive: (number("alive_min"), number("alive_max")),
        zombies: (number("zombies_min"), number("zombies_max")),
    };
    (count, finished)
}
