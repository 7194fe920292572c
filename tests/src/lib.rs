//! What the tests across crates share: a [`TestContext`] that owns folders, environment and redaction, and the independent
//! [`oracle`] that counts who is left.
//!
//! A test that needs a privilege or a program says which is missing, by [`TestContext::needs`]. With `HEADCOUNT_TESTS_MUST_RUN`
//! set, as in CI, that is a failure.

pub mod context;
pub mod figures;
pub mod oracle;
pub mod recycler;

pub use context::{Finished, Need, TestContext, Who};
