//! The command keeps its terminal: a shell with job control under a pseudo-terminal, and a person's keys.

use headcount_tests::context::{Finished, Need, TestContext};

use crate::context;

fn session(context: &TestContext, who: headcount_tests::Who, steps: &[&str]) -> Finished {
    let mut command = context.command(who, context.path("fixtures/session.py"));
    let gate = format!("{} run", context.program().display());
    command
        .args(steps.iter().map(|step| step.replace("GATE", &gate).replace("DIR", &context.text("fixtures"))));
    context.finish(command)
}

fn check(steps: &[&str]) {
    if !TestContext::needs(&[Need::Program("python3"), Need::Program("bash")]) {
        return;
    }
    let context = context();
    for who in TestContext::users() {
        let finished = session(&context, *who, steps);
        assert_eq!(finished.code, Some(0), "{who:?}: {finished:?}");
    }
}

#[test]
fn ctrl_c_reaches_the_command_once() {
    check(&[
        "type:END=SIGQUIT GATE -- DIR/count_signals.py\\r",
        "expect:ready",
        "type:\\x03",
        "expect:SIGINT",
        "type:\\x1a",
        "expect:SIGTSTP",
        "type:\\x03",
        "expect:SIGINT",
        // Whatever came twice has been counted by then.
        "type:\\x1c",
        "expect:end SIGINT=2 SIGTSTP=1\\r",
        "expect:clean",
    ]);
}

#[test]
fn ctrl_c_ends_a_command_that_does_not_catch_it() {
    check(&[
        "type:GATE -- sh -c 'echo start''ed; exec cat'\\r",
        "expect:started\\r\\n",
        "type:\\x03",
        "expect:clean",
        "type:echo status=$?\\r",
        "expect:status=130",
    ]);
}

#[test]
fn ctrl_z_stops_the_job_and_fg_continues_it() {
    check(&[
        "type:GATE -- sh -c 'echo start''ed; read line; echo got-$line; exit 4'; echo status=$?\\r",
        "expect:started\\r\\n",
        "type:\\x1a",
        "expect:Stopped",
        "expect:prompt> ",
        "type:echo meanwhile-$((1+1))\\r",
        "expect:meanwhile-2",
        "type:fg\\r",
        "expect:run --",
        "type:hello\\r",
        "expect:got-hello",
        "expect:clean",
        "expect:prompt> ",
    ]);
}

#[test]
fn a_command_that_stops_itself_stops_the_job() {
    check(&[
        "type:GATE -- sh -c 'echo start''ed; kill -STOP $$; echo went-on; exit 0'\\r",
        "expect:started\\r\\n",
        "expect:Stopped",
        "expect:prompt> ",
        "type:fg\\r",
        "expect:went-on\\r\\n",
        "expect:clean",
    ]);
}

#[test]
fn a_full_screen_program_has_its_keys_and_size() {
    check(&[
        "type:stty rows 33 cols 99; GATE -- DIR/curses_program.py\\r",
        "expect:size 99x33 FULLSCREEN",
        "type:a",
        "expect:key<97>",
        "type:q",
        "expect:back to normal",
        "expect:clean",
        "type:stty size\\r",
        "expect:33 99",
    ]);
}

#[test]
fn an_interactive_shell_inside_the_gate_has_job_control_and_its_leak_is_found() {
    check(&[
        "type:GATE --grace 100ms -- bash --norc --noprofile -i; echo status=$?\\r",
        "expect:prompt> ",
        "type:sleep 117 & jobs\\r",
        "expect:Running",
        // The echo of what is typed comes before the program runs; only its own words say that it does.
        "type:sh -c 'echo u''p; exec cat'\\r",
        "expect:up\\r\\n",
        "type:\\x1a",
        "expect:Stopped",
        "type:kill %2; fg %2; exit 0\\r",
        "expect:leaked",
        "expect:sleep 117",
        "expect:process group",
        "expect:status=23",
    ]);
}

#[test]
fn colours_are_for_terminals_only() {
    check(&["type:GATE -- true\\r", "expect:\\x1b[32mclean"]);
    let context = context();
    let finished = context.finish(context.gate(TestContext::users()[0], &["run", "--", "true"]));
    assert!(finished.stderr.contains("clean") && !finished.stderr.contains('\u{1b}'), "{finished:?}");
}
