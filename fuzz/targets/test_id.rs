//! Any bytes as an environment: a test is named only by a variable that is there, and the most exact one is taken.
#![no_main]

use headcount::test_id;
use headcount_sys::proc;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|environ: &[u8]| {
    let is_set =
        |name: &str| proc::variables(environ).any(|(key, value)| key == name.as_bytes() && !value.is_empty());
    let last = [
        ("headcount", "HEADCOUNT_TEST"),
        ("pytest", "PYTEST_CURRENT_TEST"),
        ("nextest", "NEXTEST_TEST_NAME"),
        ("bats", "BATS_TEST_NAME"),
        ("bazel", "TEST_TARGET"),
        ("npm", "npm_lifecycle_event"),
    ];
    let expected = last.into_iter().find(|(_, name)| is_set(name)).map(|(runner, _)| runner);
    let found = test_id::find(proc::variables(environ));
    assert_eq!(found.as_ref().map(|test| test.runner.as_str()), expected);
    assert!(found.is_none_or(|test| !test.id.is_empty()));
});
