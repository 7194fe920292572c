//! What the doctor says of a tier is what a run finds.

use std::fs;

use headcount_tests::context::{Need, TestContext, Who};
use serde_json::Value;

use crate::context;

fn doctor(context: &TestContext, who: Who, before: &[&str]) -> Value {
    let folder = context.folder_of(who, &format!("doctor-{who:?}"));
    let file = folder.join("doctor.json");
    let program = context.program();
    let option = format!("--report=json={}", file.display());
    let mut line = before.to_vec();
    line.extend([program.to_str().unwrap(), "doctor", &option]);
    let mut command = context.command(who, line.first().unwrap());
    command.args(line.get(1..).unwrap());
    let finished = context.finish(command);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

fn working(report: &Value) -> Vec<&Value> {
    let tiers = report["tiers"].as_array().unwrap();
    for finding in tiers {
        let works = finding["works"].as_bool().unwrap();
        assert_eq!(works, finding["reason"].is_null(), "{finding:#}");
        assert_eq!(works, finding["how"].as_array().unwrap().is_empty(), "{finding:#}");
    }
    tiers.iter().filter(|finding| finding["works"] == true).map(|finding| &finding["tier"]).collect()
}

#[test]
fn the_doctor_and_a_run_agree() {
    let context = context();
    for who in TestContext::users() {
        let found = doctor(&context, *who, &[]);
        let (finished, run) = context.report(*who, &["--tier", "+namespace"], &["true"]);
        let tiers: Vec<&Value> = run["tiers"].as_array().unwrap().iter().collect();
        assert_eq!(working(&found), tiers, "{who:?}: {found:#}\n{finished:?}");
        assert!(tiers.len() >= 2, "{tiers:?}");
        let left = fs::read_dir(context.state(*who).join("runs")).unwrap().count();
        assert_eq!(left, 0, "the doctor leaves nothing");
    }
}

#[test]
fn the_doctor_says_why_a_tier_does_not_work() {
    if !TestContext::needs(&[Need::Program("unshare"), Need::Root]) {
        return;
    }
    let context = context();
    // A pid namespace is no place for proc events, and uid 65534 may make no cgroup.
    let found = doctor(&context, Who::Root, &["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]);
    assert!(!working(&found).iter().any(|tier| **tier == "events"), "{found:#}");
    let found = doctor(&context, Who::Nobody, &[]);
    assert!(!working(&found).iter().any(|tier| **tier == "cgroup"), "{found:#}");
}
