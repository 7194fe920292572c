//! Which test started a process, from the environment that it inherited.
//!
//! Runners set these variables while a test runs, and whatever the test executes keeps them for life.
//! **Cannot see:** a process that only forked and never executed anything shows the environment with which its ancestor
//! was executed; one that cleared its environment shows none.

use serde::Serialize;

/// A test, named by its runner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct TestId {
    /// The runner.
    pub runner: String,
    /// The test, as the runner names it.
    pub id: String,
}

/// The variables by which a runner names its test, most exact first. Where several are joined, all but the last may be
/// absent.
const RUNNERS: &[(&str, &[&str])] = &[
    // For runners that set nothing: `process.env.HEADCOUNT_TEST = …` in a setup file.
    ("headcount", &["HEADCOUNT_TEST"]),
    ("pytest", &["PYTEST_CURRENT_TEST"]),
    ("nextest", &["NEXTEST_BINARY_ID", "NEXTEST_TEST_NAME"]),
    ("bats", &["BATS_TEST_FILENAME", "BATS_TEST_NAME"]),
    ("bazel", &["TEST_TARGET"]),
    ("npm", &["npm_package_name", "npm_lifecycle_event"]),
];

/// Finds the test among a process's variables.
pub fn find<'a>(variables: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Option<TestId> {
    let variables: Vec<(&[u8], &[u8])> = variables.collect();
    let value = |name: &str| {
        variables
            .iter()
            .find(|(key, value)| *key == name.as_bytes() && !value.is_empty())
            .map(|(_, value)| *value)
    };
    RUNNERS.iter().find_map(|(runner, names)| {
        let (last, before) = names.split_last()?;
        let mut parts: Vec<String> = before.iter().filter_map(|name| value(name)).map(shown).collect();
        parts.push(shown(value(last)?));
        Some(TestId { runner: (*runner).to_owned(), id: parts.join(" ") })
    })
}

fn shown(value: &[u8]) -> String {
    crate::redact::text(&crate::text::reversible(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)]) -> Option<String> {
        find(variables.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
            .map(|test| format!("{}: {}", test.runner, test.id))
    }

    #[test]
    fn runners_are_known_by_their_variables() {
        assert_eq!(
            found(&[("A", "b"), ("PYTEST_CURRENT_TEST", "tests/test_a.py::test_b (call)")]).unwrap(),
            "pytest: tests/test_a.py::test_b (call)"
        );
        assert_eq!(
            found(&[("NEXTEST_TEST_NAME", "tests::a"), ("NEXTEST_BINARY_ID", "crate::bin")]).unwrap(),
            "nextest: crate::bin tests::a"
        );
        assert_eq!(found(&[("NEXTEST_BINARY_ID", "crate::bin")]), None);
        assert_eq!(found(&[("TEST_TARGET", "")]), None);
    }

    #[test]
    fn the_most_exact_name_wins() {
        let both = [("npm_lifecycle_event", "test"), ("PYTEST_CURRENT_TEST", "t.py::a (setup)")];
        assert_eq!(found(&both).unwrap(), "pytest: t.py::a (setup)");
    }
}
